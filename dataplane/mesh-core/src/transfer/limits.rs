//! Rates: who may cause how much.

use std::net::SocketAddr;
use std::time::Duration;

use crate::seam::Moment;

/// A token bucket: `rate` events each second, `burst` at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// When the bucket was, or will be, full if nothing more is taken.
    full_at: Moment,
    /// Time that one event costs.
    cost: Duration,
    /// Time that a full bucket holds.
    depth: Duration,
}

impl Bucket {
    /// A full bucket. `per_second` is at least 1.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let cost = Duration::from_secs(1) / per_second;
        Self { full_at: Moment::default(), cost, depth: cost * burst }
    }

    /// Takes one event, if there is one left.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        let full_at = self.full_at.max(now) + self.cost;
        if full_at.since(now) > self.depth {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

/// The same in four bytes, with the rate in its type: `MILLIS` for each event, `BURST` at once. To the millisecond. After
/// 49 days of silence what was taken before them may count once more.
#[derive(Clone, Copy, Debug)]
pub(super) struct SmallBucket<const MILLIS: u32, const BURST: u32> {
    /// When the bucket was, or will be, full if nothing more is taken: milliseconds after boot, modulo 2^32.
    full_at: u32,
}

impl<const MILLIS: u32, const BURST: u32> SmallBucket<MILLIS, BURST> {
    /// Time that a full bucket holds, in milliseconds.
    const DEPTH: u32 = MILLIS * BURST;

    /// A full bucket.
    pub(super) fn new(now: Moment) -> Self {
        Self { full_at: millis(now) }
    }

    /// Takes one event, if there is one left.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        let now = millis(now);
        // More than it can hold is a moment that lies behind: the bucket is full.
        let missing = Some(self.full_at.wrapping_sub(now)).filter(|missing| *missing <= Self::DEPTH).unwrap_or(0);
        if missing + MILLIS > Self::DEPTH {
            return false;
        }
        self.full_at = now.wrapping_add(missing + MILLIS);
        true
    }
}

/// Whole milliseconds after boot, modulo 2^32.
fn millis(now: Moment) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

/// Notices are told apart by this many hash values: 32 KiB.
const NOTICE_PLACES: usize = 4096;
/// Time between two notices to one source.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);
/// Notices each second in all.
const NOTICES_PER_SECOND: u32 = 2000;

/// Lets one notice per second pass to each source address (with its port: many gateways may share an address).
///
/// The table has one size: sources that share a place share its one notice, which at worst delays a hint.
#[derive(Debug)]
pub(super) struct NoticeLimit {
    hasher: ahash::RandomState,
    /// When the next one may go, by hash of the source. Allocated with the first notice.
    next: Vec<Moment>,
    all: Bucket,
}

impl NoticeLimit {
    /// `hasher` has secret keys: which sources share a place must not be known outside.
    pub(super) fn new(hasher: ahash::RandomState) -> Self {
        Self { hasher, next: Vec::new(), all: Bucket::new(NOTICES_PER_SECOND, NOTICES_PER_SECOND) }
    }

    /// Whether a notice may go to `source`; if so, the next may go a second later.
    pub(super) fn take(&mut self, now: Moment, source: &SocketAddr) -> bool {
        if self.next.is_empty() {
            self.next.resize(NOTICE_PLACES, Moment::default());
        }
        let place = self.hasher.hash_one(source) as usize % NOTICE_PLACES;
        if now < self.next[place] || !self.all.take(now) {
            return false;
        }
        self.next[place] = now + NOTICE_INTERVAL;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bucket_is_as_good_as_a_large_one() {
        let mut now = Moment::from_nanos(u64::from(u32::MAX - 3000) * 1_000_000);
        let (mut small, mut large) = (SmallBucket::<5, 1000>::new(now), Bucket::new(200, 1000));
        let mut taken = 0;
        for step in 0_u64..20_000 {
            let both = (small.take(now), large.take(now));
            assert_eq!(both.0, both.1, "step {step}");
            taken += u32::from(both.0);
            // Floods, and pauses in which it fills up; on the way the milliseconds wrap.
            now = now + Duration::from_millis(if step % 4000 == 0 { 4000 } else { step % 3 });
        }
        assert!((5000..15_000).contains(&taken), "{taken}");
    }
}
