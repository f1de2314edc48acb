//! The receiver's end of [halves](mesh_wire::half): joins two of them into the inner packet they were.
//!
//! Bounded: [`JOINS_MAX`] packets wait for their other half, [`JOINS_PER_PEER_MAX`] of one peer, each for [`JOIN_TIME`]. The oldest
//! gives way, of the same peer if that has its share.

use std::collections::VecDeque;
use std::time::Duration;

use mesh_wire::half::{Half, Part, cut};

use super::tos;
use crate::seam::Moment;

/// Packets that wait for their other half.
pub(super) const JOINS_MAX: usize = 64;
/// Of one peer.
pub(super) const JOINS_PER_PEER_MAX: usize = 8;
/// How long one waits.
pub(super) const JOIN_TIME: Duration = Duration::from_secs(2);
/// Longest half that is kept, in bytes: half of the longest inner packet.
const HALF_BYTES_MAX: usize = 32 * 1024;
const _: () = assert!(JOINS_MAX * HALF_BYTES_MAX <= 2 * 1024 * 1024);

/// One waiting half.
#[derive(Debug)]
struct Waiting {
    peer: u32,
    id: u16,
    packet_bytes: u16,
    part: Part,
    /// The TOS byte it came with.
    tos: u8,
    since: Moment,
    bytes: Vec<u8>,
}

/// Halves of all peers that wait for the other one, oldest first.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    waiting: VecDeque<Waiting>,
    /// Buffers for the next ones.
    spare: Vec<Vec<u8>>,
    /// How many were given up.
    lost: u64,
}

/// What became of a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Kept until the other one comes.
    Waits,
    /// The packet is whole.
    Whole {
        /// So many bytes of `out`.
        bytes: usize,
        /// The TOS byte that both came with.
        tos: u8,
    },
    /// It is too long to be kept, or `out` is too short.
    Refused,
}

impl Joiner {
    /// Takes a half of a packet from `peer`, which came with this TOS byte; when the other one was waiting, writes the packet to `out`.
    pub(super) fn join(&mut self, now: Moment, peer: u32, half: &Half<'_>, tos: u8, out: &mut [u8]) -> Joined {
        self.expire(now);
        let other = self.waiting.iter().position(|waiting| {
            (waiting.peer, waiting.id, waiting.packet_bytes) == (peer, half.id, half.packet_bytes)
                && waiting.part != half.part
        });
        let Some(other) = other.and_then(|at| self.waiting.remove(at)) else {
            return self.keep(now, peer, half, tos);
        };
        let whole = usize::from(half.packet_bytes);
        let (first, second) = match half.part {
            Part::First => (half.bytes, &other.bytes[..]),
            Part::Second => (&other.bytes[..], half.bytes),
        };
        let joined = match out.get_mut(..whole) {
            Some(out) => {
                out[..cut(whole)].copy_from_slice(first);
                out[cut(whole)..].copy_from_slice(second);
                Joined::Whole { bytes: whole, tos: tos::join(other.tos, tos) }
            }
            None => Joined::Refused,
        };
        self.recycle(other);
        joined
    }

    /// Gives up all halves of a peer, whose sessions have ended.
    pub(super) fn forget(&mut self, peer: u32) {
        while self.give_up_oldest_of(peer) {}
    }

    /// Halves given up since the start: their other half did not come in time, or there were too many.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn keep(&mut self, now: Moment, peer: u32, half: &Half<'_>, tos: u8) -> Joined {
        if half.bytes.len() > HALF_BYTES_MAX {
            return Joined::Refused;
        }
        let of_peer = self.waiting.iter().filter(|waiting| waiting.peer == peer).count();
        if of_peer >= JOINS_PER_PEER_MAX {
            self.give_up_oldest_of(peer);
        } else if self.waiting.len() == JOINS_MAX {
            self.give_up_oldest();
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(half.bytes);
        let (id, packet_bytes, part) = (half.id, half.packet_bytes, half.part);
        self.waiting.push_back(Waiting { peer, id, packet_bytes, part, tos, since: now, bytes });
        Joined::Waits
    }

    fn expire(&mut self, now: Moment) {
        while self.waiting.front().is_some_and(|oldest| now.since(oldest.since) >= JOIN_TIME) {
            self.give_up_oldest();
        }
    }

    fn give_up_oldest(&mut self) {
        if let Some(oldest) = self.waiting.pop_front() {
            self.lost += 1;
            self.recycle(oldest);
        }
    }

    fn give_up_oldest_of(&mut self, peer: u32) -> bool {
        let oldest = self.waiting.iter().position(|waiting| waiting.peer == peer);
        let Some(oldest) = oldest.and_then(|at| self.waiting.remove(at)) else { return false };
        self.lost += 1;
        self.recycle(oldest);
        true
    }

    fn recycle(&mut self, waiting: Waiting) {
        self.spare.push(waiting.bytes);
    }
}
