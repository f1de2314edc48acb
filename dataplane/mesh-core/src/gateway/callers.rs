//! Where handshakes come from: how many more may come, who is there, and that nobody is.
//!
//! A member can send handshakes by the transfer from its own slot only, and straight from addresses that it has proven. This is
//! what it can cost us: a few handshakes each second, one question to the transfer at a time, and none for a while after the
//! answer was that there is nobody to talk to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_wire::route::Slot;
use rand::Rng;

use super::peers::{ABSENT_TIME, Lookup};
use super::timers::Bucket;
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment, SocketId};

/// Where a handshake comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caller {
    /// A slot of the transfer, which forwarded it.
    Slot(Slot),
    /// This address, which has proven itself by a cookie.
    Straight(Endpoint),
}

/// A caller, in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Slot(u32, u16),
    Straight(SocketId, SocketAddr),
}

impl Caller {
    pub(super) const fn key(&self) -> Key {
        match self {
            Self::Slot(slot) => Key::Slot(slot.index, slot.generation),
            Self::Straight(endpoint) => Key::Straight(endpoint.socket, endpoint.remote),
        }
    }

    /// The slot that it holds at the transfer, if it came from there.
    pub(super) const fn slot(&self) -> Option<Slot> {
        match self {
            Self::Slot(slot) => Some(*slot),
            Self::Straight(_) => None,
        }
    }
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Caller {}

/// Callers that are remembered at once.
const CALLERS_MAX: usize = 4096;
/// How long one is remembered: as long as a handshake from there may be under way.
pub(super) const CALLER_TIME: Duration = Duration::from_secs(10);
/// Handshakes that one slot may begin each second, and at once. A peer begins one, and the next after a failure.
const INITS_PER_SECOND: u32 = 4;
const INITS_BURST: u32 = 8;

/// What is remembered of one.
#[derive(Debug)]
struct Remembered {
    /// When its last handshake was let in.
    since: Moment,
    inits: Bucket,
    /// Asks who holds it.
    lookup: Lookup,
    /// Until then it is known that nobody holds it, or none that we can talk to.
    nobody_until: Option<Moment>,
}

/// The slots from which handshakes came.
#[derive(Debug, Default)]
pub(super) struct Callers(BTreeMap<Key, Remembered>);

impl Callers {
    /// Whether a handshake of `caller` is worth a look. Nothing is remembered of it yet.
    pub(super) fn check(&self, now: Moment, caller: &Caller) -> Result<(), DropReason> {
        let Some(caller) = self.0.get(&caller.key()) else { return Ok(()) };
        if caller.nobody_until.is_some_and(|until| now < until) {
            return Err(DropReason::UnknownSource);
        }
        if caller.inits.ready_at(now) > now { Err(DropReason::RateLimited) } else { Ok(()) }
    }

    /// Lets one handshake of `caller` in. One that came at the same time may have taken the last turn, or the last place.
    pub(super) fn let_in(&mut self, now: Moment, caller: &Caller, rng: &mut impl Rng) -> Result<(), DropReason> {
        let key = caller.key();
        // Addresses leave half of the room to slots, of which a member has one only.
        let most = if caller.slot().is_some() { CALLERS_MAX } else { CALLERS_MAX / 2 };
        if self.0.len() >= most && !self.0.contains_key(&key) {
            self.0.retain(|_, caller| now.since(caller.since) < CALLER_TIME);
            if self.0.len() >= most {
                return Err(DropReason::Busy);
            }
        }
        let caller = self.0.entry(key).or_insert_with(|| Remembered {
            since: now,
            inits: Bucket::new(now, INITS_PER_SECOND, INITS_BURST),
            lookup: Lookup { request: rng.next_u32(), attempt: 0, next_at: now },
            nobody_until: None,
        });
        if !caller.inits.take(now) {
            return Err(DropReason::RateLimited);
        }
        if now.since(caller.since) >= CALLER_TIME {
            // What was asked then is answered or lost.
            caller.lookup = Lookup { request: rng.next_u32(), attempt: 0, next_at: now };
        }
        caller.since = now;
        caller.nobody_until = None;
        Ok(())
    }

    /// The question who holds `slot`, from which a handshake is under way.
    pub(super) fn lookup(&mut self, slot: Slot) -> Option<&mut Lookup> {
        self.0.get_mut(&Caller::Slot(slot).key()).map(|caller| &mut caller.lookup)
    }

    /// Whether it was asked who holds `slot`, in the question `request`.
    pub(super) fn asked(&self, slot: Slot, request: u32) -> bool {
        self.0
            .get(&Caller::Slot(slot).key())
            .is_some_and(|caller| caller.lookup.request == request && caller.lookup.attempt > 0)
    }

    /// There is nobody to talk to at `slot`.
    pub(super) fn set_nobody(&mut self, now: Moment, slot: Slot) {
        if let Some(caller) = self.0.get_mut(&Caller::Slot(slot).key()) {
            caller.nobody_until = Some(now + ABSENT_TIME);
            caller.lookup.attempt = 0;
            caller.lookup.next_at = now;
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
