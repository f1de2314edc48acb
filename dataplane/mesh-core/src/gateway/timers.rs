//! Due times of many peers, and rates.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::seam::Moment;

/// When each peer is to be looked at next. A peer has one due time; those that were put off stay in the heap until they come
/// up, and are skipped then.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Moment, u32)>>,
    due: Vec<Option<Moment>>,
}

impl Timers {
    /// Wants `peer` looked at by `at`, or earlier if that is already so.
    pub(super) fn by(&mut self, peer: u32, at: Moment) {
        let index = usize::try_from(peer).expect("a peer's number is small");
        if self.due.len() <= index {
            self.due.resize(index + 1, None);
        }
        if self.due[index].is_none_or(|due| at < due) {
            self.due[index] = Some(at);
            self.push(peer, at);
        }
    }

    /// Forgets the due time of `peer`.
    pub(super) fn clear(&mut self, peer: u32) {
        if let Some(due) = self.due.get_mut(usize::try_from(peer).expect("a peer's number is small")) {
            *due = None;
        }
    }

    /// The earliest due time. It may belong to a peer that was put off: then nothing is due.
    pub(super) fn next(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one peer that is due.
    pub(super) fn take(&mut self, now: Moment) -> Option<u32> {
        while let Some(&Reverse((at, peer))) = self.heap.peek() {
            if at > now {
                return None;
            }
            self.heap.pop();
            let due = &mut self.due[usize::try_from(peer).expect("a peer's number is small")];
            if *due == Some(at) {
                *due = None;
                return Some(peer);
            }
        }
        None
    }

    fn push(&mut self, peer: u32, at: Moment) {
        // Each entry is one peer's due time or a stale one. When most are stale, they go.
        if self.heap.len() > 64 + 4 * self.due.len() {
            let due = &self.due;
            self.heap.retain(|Reverse((at, peer))| due.get(*peer as usize) == Some(&Some(*at)));
        }
        self.heap.push(Reverse((at, peer)));
    }
}

/// A token bucket.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Time that one token takes.
    cost: Duration,
    /// Time that a full bucket holds.
    depth: Duration,
    /// When the bucket is full again.
    full_at: Moment,
}

impl Bucket {
    /// A full bucket: `burst` at once, `per_second` sustained.
    pub(super) fn new(now: Moment, per_second: u32, burst: u32) -> Self {
        let cost = Duration::from_secs(1) / per_second;
        Self { cost, depth: cost * burst, full_at: now }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        let full_at = self.full_at.max(now) + self.cost;
        let granted = full_at.since(now) <= self.depth;
        if granted {
            self.full_at = full_at;
        }
        granted
    }

    /// When the next token is there.
    pub(super) fn ready_at(&self, now: Moment) -> Moment {
        let behind = (self.full_at.max(now) + self.cost).since(now).saturating_sub(self.depth);
        now + behind
    }
}

/// `base`, doubled with each attempt up to `most`.
pub(super) fn backoff(base: Duration, most: Duration, attempt: u32) -> Duration {
    base.saturating_mul(1 << attempt.min(16)).min(most)
}
