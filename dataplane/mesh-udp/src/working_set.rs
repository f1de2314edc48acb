//! How many trains fit the cache of a core at one time.

/// Bytes of trains that should be worked on at most: half of the second-level cache of a usual core.
const CACHE_BYTES: u32 = 512 * 1024;

/// Fewer are never worth a turn, however long they are.
const TRAINS_MIN: u16 = 8;

/// The length of the trains that come.
#[derive(Debug)]
pub struct WorkingSet {
    /// Smoothed bytes of a train.
    train_bytes: u32,
}

impl WorkingSet {
    /// Before the first train: short ones are expected.
    #[expect(clippy::new_without_default, reason = "as of all parts of an engine")]
    pub fn new() -> Self {
        Self { train_bytes: 1 }
    }

    /// Notes the length of a train.
    pub fn note(&mut self, bytes: usize) {
        let (old, bytes) = (i64::from(self.train_bytes), bytes as i64);
        self.train_bytes = (old + (bytes - old) / 16).max(1) as u32;
    }

    /// Trains like those of late that fit, at least 8.
    pub fn trains(&self) -> u16 {
        u16::try_from(CACHE_BYTES / self.train_bytes).unwrap_or(u16::MAX).max(TRAINS_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::WorkingSet;

    #[test]
    fn long_trains_are_few_and_short_ones_many() {
        let mut set = WorkingSet::new();
        assert_eq!(set.trains(), u16::MAX);
        for (bytes, trains) in [(48_000, 10..=11), (100, 4_500..=5_300), (65_535, 8..=8), (0, 5_000..=u16::MAX)] {
            for _ in 0..400 {
                set.note(bytes);
            }
            assert!(trains.contains(&set.trains()), "{bytes} bytes: {}", set.trains());
        }
    }
}
