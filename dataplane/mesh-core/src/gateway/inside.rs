//! From the virtual interface to the network. For each packet:
//!
//! 1. it is a whole IP packet from an address of ours to an address of the network;
//! 2. its peer is found by address, and has a session, or the packet waits for one;
//! 3. it fits the path, whole or as two halves, or its sender is told what does;
//! 4. it is [sealed](super::sealing) as one frame, as a train where it stands for many packets, or as two halves.
//!
//! With a session there is no allocation and no change of state but counters. Where the gateway has a [half](super::outbound) on a
//! thread of its own for this, what comes here is the rest: what has no session yet, what is too long, what goes nowhere.

use std::time::Duration;

use mesh_wire::half::{Half, cut};
use mesh_wire::sealed::flags;

use super::icmp::Complaint;
use super::ip::{Inner, Whereto};
use super::paths::Fit;
use super::peers::{Peer, QUEUED_PACKETS_MAX};
use super::sealing::{self, Packet, SealTo, Sealed, seal_frame};
use super::{Gateway, Outgoing, tos};
use crate::drops::DropReason;
use crate::seam::{Action, Moment, Slab};

/// A peer in use is looked at this often.
pub(super) const TEND_INTERVAL: Duration = Duration::from_secs(1);

impl Gateway {
    /// Takes packets from the virtual interface, `stride` bytes each.
    pub(super) fn handle_inside(
        &mut self,
        now: Moment,
        bytes: &mut [u8],
        stride: usize,
        slab: &mut Slab<'_>,
        actions: &mut Vec<Action>,
    ) {
        for packet in bytes.chunks_mut(stride.max(1)) {
            if let Err(reason) = self.send_packet(now, packet, slab, actions) {
                self.drops.count(reason);
            }
        }
    }

    fn send_packet(
        &mut self,
        now: Moment,
        bytes: &mut [u8],
        slab: &mut Slab<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let mut packet = Packet::read(bytes, self.offloads)?;
        let inner = *packet.inner();
        if !self.network.belongs_to(inner.source, self.network.ip4()) {
            return Err(DropReason::SourceNotOurs);
        }
        let ip4 = match self.network.whereto(inner.destination) {
            Whereto::Peer(ip4) => ip4,
            Whereto::Ourselves => return Err(DropReason::OwnAddress),
            Whereto::Several => return Err(DropReason::ManyDestinations),
            Whereto::Elsewhere => return Err(DropReason::OutOfNetwork),
        };
        if self.peers.queued >= QUEUED_PACKETS_MAX && self.peers.find(ip4).is_none() {
            // It could only wait, and there is no room to: nothing is remembered of its destination.
            return Err(DropReason::QueueFull);
        }
        let id = self.peers.find_or_add(ip4, now).ok_or(DropReason::TooManyPeers)?;
        self.relay.used(now);
        let Some(peer) = self.peers.get_mut(id) else { return Err(DropReason::TooManyPeers) };
        let woken = peer.use_now(now);
        if peer.absent_until.is_some_and(|until| now < until) {
            self.complain(now, packet.bytes(), &inner, Complaint::HostUnreachable);
            return Err(DropReason::HostUnreachable);
        }
        if peer.queue.is_empty()
            && let Some(path) = peer.path(&self.relay)
            && let Some(session) = peer.keyring.as_mut().and_then(|keyring| keyring.sealing())
        {
            let to = SealTo { sealer: session.sealer(), path: &path, fits: peer.paths.whole_bytes(&path, self.outer) };
            peer.unanswered_since.get_or_insert(now);
            match sealing::seal(&to, &mut packet, slab, actions) {
                Ok(Sealed { frames, longest }) => {
                    peer.paths.note_whole(&path, longest);
                    peer.paths.note_sent(frames);
                    peer.traffic.packets_out += 1;
                    peer.traffic.bytes_out += packet.len() as u64;
                }
                Err(DropReason::TooBig) => self.seal_each(now, id, &mut packet, slab, actions)?,
                Err(reason) => return Err(reason),
            }
            self.peers.timers.by(id, if woken { now } else { now + TEND_INTERVAL });
            return Ok(());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let waits = packet.each_complete(&mut scratch, |packet| {
            if !self.peers.has_room_to_wait(id) {
                return Err(DropReason::QueueFull);
            }
            self.peers.enqueue(id, now, packet);
            Ok(())
        });
        self.scratch = scratch;
        waits?;
        self.tend_peer(now, id);
        Ok(())
    }

    /// Seals what is longer than the path carries in one piece: each packet that it stands for by itself, as two halves where that is
    /// to be. There is a session and a path.
    fn seal_each(
        &mut self,
        now: Moment,
        id: u32,
        packet: &mut Packet<'_>,
        slab: &mut Slab<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let inner = *packet.inner();
        let mut scratch = std::mem::take(&mut self.scratch);
        let sealed = packet.each_complete(&mut scratch, |packet| {
            let Some(peer) = self.peers.get_mut(id) else { return Err(DropReason::TooManyPeers) };
            let path = peer.path(&self.relay).ok_or(DropReason::UnknownSession)?;
            let session = peer.keyring.as_mut().and_then(|keyring| keyring.sealing()).ok_or(DropReason::PastLimit)?;
            let to = SealTo { sealer: session.sealer(), path: &path, fits: usize::MAX };
            let frames = match peer.paths.fit(&path, self.outer, packet) {
                // The last of those that a longer packet stood for.
                Fit::Whole => {
                    actions.push(seal_frame(&to, 0, tos::of(packet), [packet, &[]], slab)?);
                    1
                }
                Fit::Halves => {
                    actions.push(seal_half(&to, peer.half_id, packet, false, slab)?);
                    actions.push(seal_half(&to, peer.half_id, packet, true, slab)?);
                    peer.half_id = peer.half_id.wrapping_add(1);
                    2
                }
                Fit::TooBig(would) => {
                    self.complain(now, packet, &inner, Complaint::TooBig(would));
                    return Err(DropReason::TooBig);
                }
            };
            peer.paths.note_sent(frames);
            peer.traffic.packets_out += 1;
            peer.traffic.bytes_out += packet.len() as u64;
            Ok(())
        });
        self.scratch = scratch;
        sealed
    }

    /// Seals the next waiting packet of a peer, if it has a session. One packet, so that the slab has room: a packet that
    /// needs two halves goes as two calls.
    pub(super) fn seal_waiting(&mut self, now: Moment, id: u32, slab: &mut Slab<'_>) -> Option<Action> {
        loop {
            let peer = self.peers.get_mut(id)?;
            let path = peer.path(&self.relay)?;
            let Peer { keyring, queue, half_id, traffic, unanswered_since, half_sent, paths, .. } = peer;
            let session = keyring.as_mut()?.sealing()?;
            let waiting = queue.front_mut()?;
            let packet = &mut waiting.bytes;
            let bytes = packet.len();
            let to = SealTo { sealer: session.sealer(), path: &path, fits: usize::MAX };
            unanswered_since.get_or_insert(now);
            let second = std::mem::take(half_sent);
            let action = match paths.fit(&path, self.outer, packet) {
                Fit::Whole => seal_frame(&to, 0, tos::of(packet), [packet, &[]], slab),
                Fit::Halves => {
                    *half_sent = !second;
                    let action = seal_half(&to, *half_id, packet, second, slab);
                    *half_id = half_id.wrapping_add(u16::from(second));
                    action
                }
                Fit::TooBig(_) => Err(DropReason::TooBig),
            };
            paths.note_sent(u32::from(action.is_ok()));
            if *half_sent && action.is_ok() {
                return action.ok();
            }
            *half_sent = false;
            if action.is_ok() {
                traffic.packets_out += 1;
                traffic.bytes_out += bytes as u64;
            }
            self.peers.dequeue(id);
            match action {
                Ok(action) => return Some(action),
                Err(reason) => self.drops.count(reason),
            }
        }
    }

    /// Tells the sender of `packet` that it cannot go on, where that is due.
    pub(super) fn complain(&mut self, now: Moment, packet: &[u8], inner: &Inner, complaint: Complaint) {
        if let Some(answer) = self.complaints.about(now, packet, inner, complaint) {
            self.push(Outgoing::Deliver(answer));
        }
    }
}

/// Seals one of two halves of `packet`.
fn seal_half(to: &SealTo<'_>, id: u16, packet: &[u8], second: bool, slab: &mut Slab<'_>) -> Result<Action, DropReason> {
    let (first_bytes, second_bytes) = packet.split_at(cut(packet.len()));
    let bytes = u16::try_from(packet.len()).map_err(|_| DropReason::TooBig)?;
    let (flag, bytes_of_half) =
        if second { (flags::SECOND_HALF, second_bytes) } else { (flags::FIRST_HALF, first_bytes) };
    seal_frame(to, flag, tos::of(packet), [&Half::header(id, bytes), bytes_of_half], slab)
}
