//! What is due when: one entry for each deadline, none for what merely exists.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::links::LinkId;
use crate::seam::{Moment, SocketId};

/// What has a deadline. Each has one at a time and knows it, so that it can be cancelled: the set never holds more entries than
/// there are things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A handshake is forgotten.
    Handshake(u32),
    /// A guest's link ends.
    Link(LinkId),
    /// The lease of a namespace's quietest member may have run out.
    Leases(SocketId),
    /// Subscriptions of a member may have ended.
    Watching(SocketId, u32),
    /// A member is probed again, or was silent and loses its place to its rival.
    Rival(SocketId, u32),
    /// Changes of an address may be told again.
    Announced(SocketId, Ipv4Addr),
}

/// The deadlines in order.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Moment, Timer)>);

impl Timers {
    /// Adds a deadline.
    pub(super) fn set(&mut self, at: Moment, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Removes the deadline that was set for `at`, if it has not been taken.
    pub(super) fn cancel(&mut self, at: Moment, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Moment> {
        self.0.first().map(|&(at, _)| at)
    }

    /// Takes the earliest deadline, if it is due.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<Timer> {
        let &(at, timer) = self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some(timer)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
