//! From the virtual interface to the network. For each packet:
//!
//! 1. it is a whole IP packet from an address of ours to an address of the network;
//! 2. its peer is found by address, and has a session, or the packet waits for one;
//! 3. it fits the path, whole or as two halves, or its sender is told what does;
//! 4. header and packet are laid into the slab and sealed there, as one frame or as two halves.
//!
//! With a session there is no allocation and no change of state but counters.

use std::time::Duration;

use mesh_wire::TAG_BYTES;
use mesh_wire::frame::FrameType;
use mesh_wire::half::{Half, cut};
use mesh_wire::sealed::{HEADER_BYTES, OVERHEAD_BYTES, SealedHeader, flags};

use super::icmp::Complaint;
use super::ip::{self, Inner, Whereto};
use super::paths::{Fit, Path};
use super::peers::{Peer, QUEUED_PACKETS_MAX};
use super::{Gateway, Outgoing, tos};
use crate::drops::DropReason;
use crate::seam::{Action, Moment, Slab};
use crate::session::keyring::Established;

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
        packet: &mut [u8],
        slab: &mut Slab<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let inner = ip::parse(packet)?;
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
            self.complain(now, packet, &inner, Complaint::HostUnreachable);
            return Err(DropReason::HostUnreachable);
        }
        if peer.queue.is_empty()
            && let Some(path) = peer.path(&self.relay)
            && let Some(session) = peer.keyring.as_mut().and_then(|keyring| keyring.sealing())
        {
            peer.unanswered_since.get_or_insert(now);
            match peer.paths.fit(&path, self.outer, packet) {
                Fit::Whole => {
                    let sealed = seal(session, &path, 0, tos::of(packet), [packet, &[]], slab)?;
                    actions.push(sealed);
                    peer.paths.note_sent(1);
                }
                Fit::Halves => {
                    actions.push(seal_half(session, &path, peer.half_id, packet, false, slab)?);
                    actions.push(seal_half(session, &path, peer.half_id, packet, true, slab)?);
                    peer.half_id = peer.half_id.wrapping_add(1);
                    peer.paths.note_sent(2);
                }
                Fit::TooBig(would) => {
                    self.complain(now, packet, &inner, Complaint::TooBig(would));
                    return Err(DropReason::TooBig);
                }
            }
            peer.traffic.packets_out += 1;
            peer.traffic.bytes_out += packet.len() as u64;
            self.peers.timers.by(id, if woken { now } else { now + TEND_INTERVAL });
            return Ok(());
        }
        if !self.peers.has_room_to_wait(id) {
            return Err(DropReason::QueueFull);
        }
        self.peers.enqueue(id, now, packet);
        self.tend_peer(now, id);
        Ok(())
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
            unanswered_since.get_or_insert(now);
            let second = std::mem::take(half_sent);
            let action = match paths.fit(&path, self.outer, packet) {
                Fit::Whole => seal(session, &path, 0, tos::of(packet), [packet, &[]], slab),
                Fit::Halves => {
                    *half_sent = !second;
                    let action = seal_half(session, &path, *half_id, packet, second, slab);
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
fn seal_half(
    session: &mut Established,
    path: &Path,
    id: u16,
    packet: &[u8],
    second: bool,
    slab: &mut Slab<'_>,
) -> Result<Action, DropReason> {
    let (first_bytes, second_bytes) = packet.split_at(cut(packet.len()));
    let bytes = u16::try_from(packet.len()).map_err(|_| DropReason::TooBig)?;
    let (flag, bytes_of_half) =
        if second { (flags::SECOND_HALF, second_bytes) } else { (flags::FIRST_HALF, first_bytes) };
    seal(session, path, flag, tos::of(packet), [&Half::header(id, bytes), bytes_of_half], slab)
}

/// Lays header and plaintext, given in two pieces, into the slab and seals them there; they leave with this TOS byte.
pub(super) fn seal(
    session: &mut Established,
    path: &Path,
    flags: u8,
    tos: u8,
    plaintext: [&[u8]; 2],
    slab: &mut Slab<'_>,
) -> Result<Action, DropReason> {
    let [one, two] = plaintext;
    let total = OVERHEAD_BYTES + one.len() + two.len();
    let free = slab.free().get_mut(..total).ok_or(DropReason::NoRoom)?;
    let counter = session.reserve(1).ok_or(DropReason::PastLimit)?;
    let header = SealedHeader {
        frame: FrameType::Data,
        flags,
        route: path.route,
        receiver_index: session.remote_index(),
        counter,
    }
    .emit();
    let (head, rest) = free.split_at_mut(HEADER_BYTES);
    let (body, tag) = rest.split_at_mut(one.len() + two.len());
    head.copy_from_slice(&header);
    body[..one.len()].copy_from_slice(one);
    body[one.len()..].copy_from_slice(two);
    let made: [u8; TAG_BYTES] = session.seal(counter, &header, body);
    tag.copy_from_slice(&made);
    Ok(Action::Send { slab: slab.take(total), segment_bytes: total, to: path.endpoint, tos })
}
