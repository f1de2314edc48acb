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
    /// `seeds` key the hash: which sources share a place must not be known outside.
    pub(super) fn new(seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = seeds;
        Self {
            hasher: ahash::RandomState::with_seeds(a, b, c, d),
            next: Vec::new(),
            all: Bucket::new(NOTICES_PER_SECOND, NOTICES_PER_SECOND),
        }
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
