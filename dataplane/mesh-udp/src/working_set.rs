//! How many trains fit the cache of a core at one time.

use std::fs;

/// Cache of a core where the kernel does not tell: the second level of a usual one.
const CACHE_BYTES: u32 = 512 * 1024;

/// What the kernel tells is believed within these bounds: below, every turn would be small; above, it is a cache that cores share.
const CACHE_BYTES_BOUNDS: (u32, u32) = (256 * 1024, 2 * 1024 * 1024);

/// Fewer are never worth a turn, however long they are.
const TRAINS_MIN: u16 = 8;

/// The length of the trains that come.
#[derive(Debug)]
pub struct WorkingSet {
    cache_bytes: u32,
    /// Smoothed bytes of a train.
    train_bytes: u32,
}

impl WorkingSet {
    /// Before the first train: short ones are expected. The cache is that of this machine.
    #[expect(clippy::new_without_default, reason = "as of all parts of an engine")]
    pub fn new() -> Self {
        let told = fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").ok();
        Self::of(told.and_then(|told| parse(&told)).unwrap_or(CACHE_BYTES))
    }

    /// The same with a second-level cache of so many bytes; taken as 256 KiB to 2 MiB.
    pub fn of(cache_bytes: u32) -> Self {
        let (least, most) = CACHE_BYTES_BOUNDS;
        Self { cache_bytes: cache_bytes.clamp(least, most), train_bytes: 1 }
    }

    /// Notes the length of a train.
    pub fn note(&mut self, bytes: usize) {
        let (old, bytes) = (i64::from(self.train_bytes), bytes as i64);
        self.train_bytes = (old + (bytes - old) / 16).max(1) as u32;
    }

    /// Trains like those of late that fit, at least 8.
    pub fn trains(&self) -> u16 {
        u16::try_from(self.cache_bytes / self.train_bytes).unwrap_or(u16::MAX).max(TRAINS_MIN)
    }
}

/// Bytes of a cache, as the kernel writes it: `1024K`.
fn parse(told: &str) -> Option<u32> {
    told.trim().strip_suffix('K')?.parse::<u32>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{CACHE_BYTES, WorkingSet, parse};

    #[test]
    fn long_trains_are_few_and_short_ones_many() {
        let mut set = WorkingSet::of(CACHE_BYTES);
        assert_eq!(set.trains(), u16::MAX);
        for (bytes, trains) in [(48_000, 10..=11), (100, 4_500..=5_300), (65_535, 8..=8), (0, 5_000..=u16::MAX)] {
            for _ in 0..400 {
                set.note(bytes);
            }
            assert!(trains.contains(&set.trains()), "{bytes} bytes: {}", set.trains());
        }
    }

    #[test]
    fn a_larger_cache_holds_more_up_to_a_bound() {
        let trains = |cache: &str| {
            let mut set = WorkingSet::of(parse(cache).unwrap());
            (0..400).for_each(|_| set.note(16_384));
            set.trains()
        };
        assert_eq!([trains("64K\n"), trains("1024K\n"), trains("65536K\n")], [16, 64, 128]);
        for unknown in ["", "1M", "K", "-1K", "99999999K"] {
            assert_eq!(parse(unknown), None, "{unknown:?}");
        }
    }
}
