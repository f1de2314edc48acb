//! Sums.

use proptest::prelude::*;

use super::plain::naive_sum;
use crate::gateway::segments::checksum::{fold, sum};

#[test]
fn the_example_of_rfc_1071() {
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
}

#[test]
fn zero_is_only_the_sum_of_zeros() {
    assert_eq!(sum(&[]), 0);
    assert_eq!(sum(&[0; 100]), 0);
    for bytes in [2, 34, 1500, 65_535] {
        assert_eq!(sum(&vec![0xff; bytes & !1]), 0xffff);
    }
    assert_eq!(fold(0x1_fffe), 0xffff);
    assert_eq!(fold(u64::MAX), 0xffff);
}

#[test]
fn an_odd_byte_is_an_upper_half() {
    assert_eq!(sum(&[0x12]), 0x1200);
    let mut bytes = vec![0; 33];
    bytes[32] = 0x12;
    assert_eq!(sum(&bytes), 0x1200);
}

proptest! {
    #[test]
    fn sums_are_those_of_a_plain_loop(bytes in prop::collection::vec(any::<u8>(), 0..3000), from in 0_usize..9) {
        let bytes = &bytes[from.min(bytes.len())..];
        prop_assert_eq!(sum(bytes), naive_sum(bytes));
    }
}
