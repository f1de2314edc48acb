//! Pseudo-random numbers that follow from a seed: the SplitMix64 generator.

/// The `number`-th output of the generator with this seed, counted from 0.
pub(crate) fn word(seed: u64, number: u64) -> u64 {
    let mut mixed = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The generator's outputs one after the other.
#[derive(Debug)]
pub(crate) struct Random {
    seed: u64,
    next: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random { seed, next: 0 }
    }

    /// A number from 0 up to but not including 1, uniform over the multiples of 2^-53.
    pub(crate) fn fraction(&mut self) -> f64 {
        let word = word(self.seed, self.next);
        self.next = self.next.wrapping_add(1);
        (word >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_begins_as_published_for_splitmix64() {
        assert_eq!(word(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(word(1_234_567, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn fractions_fill_the_range_evenly() {
        let mut random = Random::new(1);
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            tenths[(random.fraction() * 10.0) as usize] += 1;
        }
        // Six standard deviations of a binomial count with n = 10,000 and p = 0.1.
        assert!(tenths.iter().all(|count| (820..1180).contains(count)), "{tenths:?}");
    }
}
