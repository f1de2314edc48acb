//! The Internet checksum (RFC 1071): sums of 16-bit words in ones' complement.
//!
//! Such a sum is never zero unless all that was added is: a sum that would wrap to zero shows as 0xffff. What is summed
//! here for a packet always has a protocol number in it, so there is one spelling of each result, and results can be
//! compared.

/// Bytes that are added at a time.
const CHUNK_BYTES: usize = 32;

/// The sum of `bytes` as big-endian words, folded to 16 bits; an odd byte at the end is the upper half of a word.
///
/// The sum does not depend on the order of bytes but for a swap at its end (RFC 1071, section 2, B), so words are added
/// as the machine loads them, and eight sums of 32-bit words run side by side, for which the compiler uses vector
/// registers. In November 2026 that took 28 ns for 1400 bytes with no more than SSE2, a fifth of what a loop over
/// 16-bit words took.
pub(in crate::gateway) fn sum(bytes: &[u8]) -> u16 {
    // No lane overflows: it takes 2^32 chunks to fill one.
    let mut lanes = [0_u64; CHUNK_BYTES / 4];
    let (chunks, rest) = bytes.as_chunks::<CHUNK_BYTES>();
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_le_bytes(*word));
        }
    }
    let mut sum: u64 = lanes.iter().map(|lane| (lane & 0xffff_ffff) + (lane >> 32)).sum();
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_le_bytes(*word));
    }
    let (words, odd) = rest.as_chunks::<2>();
    for word in words {
        sum += u64::from(u16::from_le_bytes(*word));
    }
    if let [last] = odd {
        sum += u64::from(*last);
    }
    fold(sum).swap_bytes()
}

/// Folds a running sum to 16 bits. A checksum field holds its complement.
pub(in crate::gateway) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded to 16 bits")
}
