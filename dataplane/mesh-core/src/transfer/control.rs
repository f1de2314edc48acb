//! Sealed messages from gateways.

use std::collections::btree_map::Entry;
use std::time::Duration;

use mesh_wire::message::Message;
use mesh_wire::notice::AgainReason;
use mesh_wire::route::Slot;
use mesh_wire::sealed::SealedHeader;
use rand::Rng;

use super::links::LinkId;
use super::namespace::Challenge;
use super::status::{Event, LeftReason};
use super::{Reply, Transfer};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment};

/// Packets sent to an address that is not proven.
const CHALLENGE_PROBES: u32 = 3;
/// After this time the same address may be challenged once more.
const CHALLENGE_LIFE: Duration = Duration::from_secs(10);

impl Transfer {
    /// Takes a Control frame that is for us.
    pub(super) fn receive_control(
        &mut self,
        now: Moment,
        from: Endpoint,
        datagram: &mut [u8],
        reply: &mut Reply<'_, '_>,
    ) -> Result<(), DropReason> {
        let header = SealedHeader::parse(datagram).map_err(super::too_short_or_malformed)?;
        let room = datagram.len();
        let id = LinkId { socket: from.socket, index: header.receiver_index };
        let Some(mut party) = self.party(id) else {
            self.register_again(now, from, AgainReason::UnknownSource, header.route, reply);
            return Err(DropReason::UnknownSession);
        };
        let opened = party.open(&header, datagram)?;
        if !party.state.rate.take(now) {
            return Err(DropReason::RateLimited);
        }
        let Some(message) = opened.message else { return Err(DropReason::UnknownMessage) };
        let (slot, at_home) = (party.slot, party.endpoint.remote == from.remote);
        let space = self.spaces.get_mut(from.socket).ok_or(DropReason::UnknownSocket)?;
        if at_home && opened.newest {
            // The sender may reach us by another of our addresses now; answers leave from there.
            space.link_is_at(id.index, from);
        }
        let Some(member) = space.member_at(slot) else {
            // Refused or displaced; it may ask again, for as long as it does.
            if at_home && let Message::Register { request, boot, ip4, name, ticket } = message {
                self.extend_stay(now, id);
                self.register(now, id, request, boot, ip4, name, &ticket, room);
                return Ok(());
            }
            self.register_again(now, from, AgainReason::UnknownSource, header.route, reply);
            return Err(DropReason::UnknownMessage);
        };
        let change = member.change;
        space.members.note_heard(slot.index, now);
        if !at_home {
            return self.receive_from_elsewhere(now, id, from, opened.newest, &message, room);
        }
        match message {
            Message::Register { request, boot, ip4, name, ticket } => {
                self.register(now, id, request, boot, ip4, name, &ticket, room);
            }
            Message::Keepalive { seq, .. } => {
                let ack = Message::KeepaliveAck { seq, observed: from.remote, boot: self.boot, change };
                return self.answer(id, &ack, room);
            }
            Message::Lookup { request, target } => {
                return self.look_up(now, id, slot, request, target, room);
            }
            Message::SearchRequest { request, target } => {
                return self.search(now, id, slot, request, target, room);
            }
            Message::Goodbye => drop(self.remove_member(now, from.socket, slot.index, LeftReason::Goodbye, true)),
            Message::Probe { seq } => return self.answer(id, &Message::ProbeReply { seq }, room),
            Message::ProbeReply { seq } => {
                if !self.refuse_rival(from.socket, slot, seq) {
                    return Err(DropReason::UnknownMessage);
                }
            }
            Message::Hello { .. }
            | Message::Welcome { .. }
            | Message::Registered { .. }
            | Message::Refused { .. }
            | Message::KeepaliveAck { .. }
            | Message::Found { .. }
            | Message::NotFound { .. }
            | Message::Change { .. }
            | Message::Identity { .. }
            | Message::Confirm { .. }
            | Message::Close { .. }
            | Message::Candidates { .. }
            | Message::Presence { .. }
            | Message::PathProbe { .. }
            | Message::PathReply { .. }
            | Message::SizeProbe { .. }
            | Message::SizeReply { .. }
            | Message::SearchGrant { .. }
            | Message::SearchRefused { .. }
            | Message::SearchBegin { .. }
            | Message::SearchReady { .. } => return Err(DropReason::UnknownMessage),
        }
        Ok(())
    }

    /// An authentic word of a member from an address that it has not proven: a NAT gave it another, or someone else sends its
    /// packets on. Nothing is answered there but a question, at most three times.
    fn receive_from_elsewhere(
        &mut self,
        now: Moment,
        id: LinkId,
        from: Endpoint,
        newest: bool,
        message: &Message,
        room: usize,
    ) -> Result<(), DropReason> {
        let seq = self.rng.next_u32();
        let space = self.spaces.get_mut(from.socket).ok_or(DropReason::UnknownSocket)?;
        let party = space.party(id.index).ok_or(DropReason::UnknownSession)?;
        let (slot, serves) = (party.slot, party.serves);

        if matches!(message, Message::Goodbye) {
            self.remove_member(now, from.socket, slot.index, LeftReason::Goodbye, true);
            return Ok(());
        }
        if let Message::ProbeReply { seq } = message {
            let answers = |asked: &Challenge| asked.seq == *seq && asked.to.remote == from.remote;
            let proven = match space.challenges.entry(slot.index) {
                Entry::Occupied(asked) if answers(asked.get()) => Some(asked.remove()),
                Entry::Occupied(_) | Entry::Vacant(_) => None,
            };
            let Some(proven) = proven else {
                // It lives, wherever it is: that is all a clone's rival has to know.
                return if self.refuse_rival(from.socket, slot, *seq) {
                    Ok(())
                } else {
                    Err(DropReason::WrongEndpoint)
                };
            };
            return self.move_member(now, id, slot, from, proven.keepalive);
        }
        if !newest || !serves {
            return Err(DropReason::WrongEndpoint);
        }
        let keepalive = if let Message::Keepalive { seq, .. } = message { Some((*seq, room)) } else { None };
        let fresh = Challenge { to: from, seq, probes: 0, since: now, keepalive };
        let challenge = match space.challenges.entry(slot.index) {
            Entry::Occupied(asked) => {
                let asked = asked.into_mut();
                if asked.to.remote != from.remote || now.since(asked.since) >= CHALLENGE_LIFE {
                    *asked = fresh;
                }
                asked
            }
            Entry::Vacant(place) => place.insert(fresh),
        };
        challenge.keepalive = keepalive.or(challenge.keepalive);
        if challenge.probes < CHALLENGE_PROBES {
            let probe = Message::Probe { seq: challenge.seq };
            let mut party = space.party(id.index).ok_or(DropReason::UnknownSession)?;
            let sealed = party.seal_answer(&probe, room)?;
            if let Some(challenge) = space.challenges.get_mut(&slot.index) {
                challenge.probes += 1;
            }
            self.queue(from, sealed);
        }
        // The question is all that comes of it; what it asked for it will ask again.
        Err(DropReason::WrongEndpoint)
    }

    /// A member proved itself at another address.
    fn move_member(
        &mut self,
        now: Moment,
        id: LinkId,
        slot: Slot,
        to: Endpoint,
        keepalive: Option<(u32, usize)>,
    ) -> Result<(), DropReason> {
        let space = self.spaces.get_mut(to.socket).ok_or(DropReason::UnknownSocket)?;
        if let Some(before) = space.slots.endpoint_of(slot).filter(|before| before.remote != to.remote) {
            self.moves.note(now, slot, &before);
        }
        space.link_is_at(id.index, to);
        space.slots.move_to(slot, to);
        let member = space.member_at(slot).ok_or(DropReason::UnknownSession)?;
        let moved = Event::Moved { namespace: space.number, ip4: member.ip4(), endpoint: to.remote };
        let change = member.change;
        self.event(moved);
        let Some((seq, room)) = keepalive else { return Ok(()) };
        self.answer(id, &Message::KeepaliveAck { seq, observed: to.remote, boot: self.boot, change }, room)
    }
}
