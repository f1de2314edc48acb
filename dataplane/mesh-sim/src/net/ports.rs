//! Which outside port a NAT gives a new mapping.

use std::ops::RangeInclusive;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// How a NAT chooses ports. Where the port of its choice is taken, another is found: the next in sequence, or else the
/// next one free from a random place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The inside port.
    Preserved,
    /// So many after the one given last; negative: before it. Not 0.
    Sequential {
        /// Difference of two that are given one after the other.
        step: i16,
    },
    /// A random one for the same inside address and port and what the mapping depends on, the same again after it was
    /// forgotten.
    Random,
    /// A random one for each mapping.
    FullyRandom,
}

impl Ports {
    /// What is given, beside a preserved port, which may be any.
    pub const RANGE: RangeInclusive<u16> = 1024..=65_535;

    /// The ports to try for a new mapping, in order; `last` was given before, `seed` belongs to the mapping.
    pub(super) fn candidates(
        self,
        inside: u16,
        last: u16,
        seed: [u8; 32],
        rng: &mut ChaCha12Rng,
    ) -> impl Iterator<Item = u16> + use<> {
        let (choice, from, step) = match self {
            Self::Preserved => (Some(inside), rng.random_range(Self::RANGE), 1),
            Self::Sequential { step } => (None, after(last, step), step),
            Self::Random => {
                let mut rng = ChaCha12Rng::from_seed(seed);
                (Some(rng.random_range(Self::RANGE)), rng.random_range(Self::RANGE), 1)
            }
            Self::FullyRandom => (None, rng.random_range(Self::RANGE), 1),
        };
        let all = std::iter::successors(Some(from), move |port| Some(after(*port, step))).take(Self::RANGE.len());
        choice.into_iter().chain(all)
    }
}

/// The port `step` after `port` in the range, whose ends meet.
fn after(port: u16, step: i16) -> u16 {
    let (first, last) = (i32::from(*Ports::RANGE.start()), i32::from(*Ports::RANGE.end()));
    let port = first + (i32::from(port) - first + i32::from(step)).rem_euclid(last - first + 1);
    u16::try_from(port).expect("the remainder of the range's length is in the range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_go_round_within_the_range() {
        assert_eq!(after(40_000, 2), 40_002);
        assert_eq!(after(65_535, 1), 1024);
        assert_eq!(after(1024, -1), 65_535);
        assert_eq!(after(1025, -3), 65_534);
    }

    #[test]
    fn every_port_is_tried_once_and_the_choice_first() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        for ports in [Ports::Preserved, Ports::Random, Ports::FullyRandom, Ports::Sequential { step: -1 }] {
            let mut tried: Vec<u16> = ports.candidates(80, 50_000, [7; 32], &mut rng).collect();
            match ports {
                Ports::Preserved => assert_eq!(tried.remove(0), 80),
                Ports::Sequential { .. } => assert_eq!(tried[..3], [49_999, 49_998, 49_997]),
                Ports::Random => {
                    assert_eq!(tried.remove(0), ports.candidates(81, 1, [7; 32], &mut rng).next().unwrap())
                }
                Ports::FullyRandom => {}
            }
            tried.sort_unstable();
            assert_eq!(tried, Ports::RANGE.collect::<Vec<_>>(), "{ports:?}");
        }
    }
}
