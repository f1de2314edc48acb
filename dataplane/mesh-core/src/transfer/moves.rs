//! Where members were until a moment ago. What they had sent from there is on its way: a datagram that was overtaken,
//! or a frame that TCP holds up while its member has come back to UDP. It is forwarded as if it had come in time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_wire::route::{Route, Slot};

use super::forward::{self, Verdict};
use super::slots::SlotTable;
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment, SocketId};

/// For how long.
const LIFE: Duration = Duration::from_secs(5);
/// Members that moved a moment ago, at most; what others had sent is lost.
const MOVES_MAX: usize = 1024;

/// The moves of all members, by the socket of their namespace and the index of their slot.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<(SocketId, u32), Move>);

#[derive(Debug)]
struct Move {
    generation: u16,
    from: SocketAddr,
    ends: Moment,
}

impl Moves {
    /// The holder of `slot` was at `from`, and is somewhere else now.
    pub(super) fn note(&mut self, now: Moment, slot: Slot, from: &Endpoint) {
        if self.0.len() >= MOVES_MAX {
            self.0.retain(|_, one| one.ends > now);
        }
        let key = (from.socket, slot.index);
        if self.0.len() < MOVES_MAX || self.0.contains_key(&key) {
            self.0.insert(key, Move { generation: slot.generation, from: from.remote, ends: now + LIFE });
        }
    }

    /// Forgets the moves of a place, which is vacant now.
    pub(super) fn forget(&mut self, socket: SocketId, index: u32) {
        self.0.remove(&(socket, index));
    }

    /// Forgets the moves of a namespace.
    pub(super) fn forget_all(&mut self, socket: SocketId) {
        self.0.retain(|(of, _), _| *of != socket);
    }

    /// [`forward::judge`], but what a member sent before it moved goes where it would have gone.
    pub(super) fn judge<'a>(&self, now: Moment, datagram: &[u8], from: &Endpoint, slots: &'a SlotTable) -> Verdict<'a> {
        let verdict = forward::judge(datagram, from, slots);
        if let Verdict::Refuse(DropReason::EndpointMoved, _, route) = verdict {
            return self.judge_late(now, &route, from, slots).unwrap_or(verdict);
        }
        verdict
    }

    #[cold]
    fn judge_late<'a>(&self, now: Moment, route: &Route, from: &Endpoint, slots: &'a SlotTable) -> Option<Verdict<'a>> {
        let (source, destination) = (route.source, route.destination.slot);
        let one = self.0.get(&(from.socket, source.index))?;
        let was_there = one.generation == source.generation && one.from == from.remote && one.ends > now;
        let to = slots.get(destination).filter(|_| was_there && destination.index != source.index)?;
        Some(Verdict::Forward { source, to })
    }

    /// Whose moves are remembered.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &(SocketId, u32)> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_bounded_and_the_old_ones_give_way() {
        let (mut moves, now) = (Moves::default(), Moment::from_nanos(5));
        let slot = |index| Slot { index, generation: 7 };
        let at = |port| Endpoint { socket: SocketId(3), remote: ([192, 0, 2, 1], port).into(), local: None };
        for index in 1..=MOVES_MAX as u32 + 10 {
            moves.note(now, slot(index), &at(1));
        }
        assert_eq!(moves.keys().count(), MOVES_MAX);
        moves.note(now + LIFE / 2, slot(1), &at(2));
        moves.note(now + LIFE, slot(9999), &at(1));
        let left: Vec<u32> = moves.keys().map(|(_, index)| *index).collect();
        assert_eq!(left, [1, 9999], "who moved once more is remembered, the others are long gone");
        moves.forget(SocketId(3), 1);
        moves.forget_all(SocketId(4));
        assert_eq!(moves.keys().count(), 1);
        moves.forget_all(SocketId(3));
        assert_eq!(moves.keys().count(), 0);
    }
}
