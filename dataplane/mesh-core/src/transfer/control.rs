//! Sealed messages from gateways.

use std::time::Duration;

use mesh_wire::message::Message;
use mesh_wire::notice::AgainReason;
use mesh_wire::sealed::SealedHeader;
use rand::Rng;

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
        let index = header.receiver_index;
        let Some(link) = self.links.get_mut(&index).filter(|link| link.endpoint.socket == from.socket) else {
            self.register_again(now, from, AgainReason::UnknownSource, header.route, reply);
            return Err(DropReason::UnknownSession);
        };
        let opened = link.open(&header, datagram)?;
        if !link.rate.take(now) {
            return Err(DropReason::RateLimited);
        }
        let Some(message) = opened.message else { return Err(DropReason::UnknownMessage) };
        let (slot, at_home) = (link.slot, link.endpoint.remote == from.remote);
        if at_home && opened.newest {
            // The sender may reach us by another of our addresses now; answers leave from there.
            link.endpoint.local = from.local;
        }
        let endpoint = link.endpoint;
        let space = self.spaces.get_mut(from.socket).ok_or(DropReason::UnknownSocket)?;
        let Some(member) = space.member_at_mut(slot) else {
            // Refused or displaced; it may ask again, for as long as it does.
            if at_home && let Message::Register { request, boot, ip4, name, ticket } = message {
                self.extend_link(now, index);
                self.register(now, index, request, boot, ip4, name, &ticket, room);
                return Ok(());
            }
            self.register_again(now, from, AgainReason::UnknownSource, header.route, reply);
            return Err(DropReason::UnknownMessage);
        };
        member.heard = now;
        let change = member.change;
        if at_home && opened.newest && member.link == index {
            space.slots.move_to(slot, endpoint);
        }
        if !at_home {
            return self.receive_from_elsewhere(now, index, from, opened.newest, &message, room);
        }
        match message {
            Message::Register { request, boot, ip4, name, ticket } => {
                self.register(now, index, request, boot, ip4, name, &ticket, room);
            }
            Message::Keepalive { seq, .. } => {
                let ack = Message::KeepaliveAck { seq, observed: endpoint.remote, boot: self.boot, change };
                return self.answer(index, &ack, room);
            }
            Message::Lookup { request, target } => {
                return self.look_up(now, index, from.socket, slot, request, target, room);
            }
            Message::Goodbye => self.remove_member(now, from.socket, slot.index, LeftReason::Goodbye, true),
            Message::Probe { seq } => return self.answer(index, &Message::ProbeReply { seq }, room),
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
            | Message::Close { .. } => return Err(DropReason::UnknownMessage),
        }
        Ok(())
    }

    /// An authentic word of a member from an address that it has not proven: a NAT gave it another, or someone else sends its
    /// packets on. Nothing is answered there but a question, at most three times.
    fn receive_from_elsewhere(
        &mut self,
        now: Moment,
        index: u32,
        from: Endpoint,
        newest: bool,
        message: &Message,
        room: usize,
    ) -> Result<(), DropReason> {
        let seq = self.rng.next_u32();
        let link = self.links.get(&index).ok_or(DropReason::UnknownSession)?;
        let slot = link.slot;
        let space = self.spaces.get_mut(from.socket).ok_or(DropReason::UnknownSocket)?;
        let member = space.member_at_mut(slot).ok_or(DropReason::UnknownSession)?;

        if matches!(message, Message::Goodbye) {
            self.remove_member(now, from.socket, slot.index, LeftReason::Goodbye, true);
            return Ok(());
        }
        if let Message::ProbeReply { seq } = message {
            let proven = member.challenge.take_if(|asked| asked.seq == *seq && asked.to.remote == from.remote);
            let Some(proven) = proven else {
                // It lives, wherever it is: that is all a clone's rival has to know.
                return if self.refuse_rival(from.socket, slot, *seq) {
                    Ok(())
                } else {
                    Err(DropReason::WrongEndpoint)
                };
            };
            return self.move_member(index, from, proven.keepalive);
        }
        if !newest || member.link != index {
            return Err(DropReason::WrongEndpoint);
        }
        let keepalive = if let Message::Keepalive { seq, .. } = message { Some((*seq, room)) } else { None };
        let challenge = match &mut member.challenge {
            Some(asked) if asked.to.remote == from.remote && now.since(asked.since) < CHALLENGE_LIFE => asked,
            challenge => challenge.insert(Box::new(Challenge { to: from, seq, probes: 0, since: now, keepalive })),
        };
        challenge.keepalive = keepalive.or(challenge.keepalive);
        if challenge.probes < CHALLENGE_PROBES
            && let Some(link) = self.links.get_mut(&index)
        {
            let sealed = link.seal_answer(&Message::Probe { seq: challenge.seq }, room)?;
            challenge.probes += 1;
            self.queue(from, sealed);
        }
        // The question is all that comes of it; what it asked for it will ask again.
        Err(DropReason::WrongEndpoint)
    }

    /// A member proved itself at another address.
    fn move_member(&mut self, index: u32, to: Endpoint, keepalive: Option<(u32, usize)>) -> Result<(), DropReason> {
        let link = self.links.get_mut(&index).ok_or(DropReason::UnknownSession)?;
        link.endpoint = to;
        let space = self.spaces.get_mut(to.socket).ok_or(DropReason::UnknownSocket)?;
        space.slots.move_to(link.slot, to);
        let member = space.member_at(link.slot).ok_or(DropReason::UnknownSession)?;
        let moved = Event::Moved { namespace: space.number, ip4: member.ip4, endpoint: to.remote };
        let change = member.change;
        self.event(moved);
        let Some((seq, room)) = keepalive else { return Ok(()) };
        self.answer(index, &Message::KeepaliveAck { seq, observed: to.remote, boot: self.boot, change }, room)
    }
}
