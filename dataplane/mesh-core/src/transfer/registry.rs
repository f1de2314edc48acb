//! Who holds which virtual address.
//!
//! - An address belongs to the key that registered it first, until 120 s after its last word; a reserved one always to its key.
//! - Another key is refused, and the holder keeps working.
//! - For 120 s after the transfer's start a claim with a ticket displaces one without; between tickets the older lease wins.
//! - Another start (another boot number) of the same key gets its place, unless the earlier start shows within 600 ms that it
//!   lives: then the machine was cloned, and the new one is refused. A start at the very endpoint of the earlier one is its
//!   successor without asking: one socket has one owner.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::message::{Message, RefusedReason};
use mesh_wire::route::Slot;
use rand::Rng;

use super::compact::{Name, Seconds, Stamp};
use super::links::LinkId;
use super::members::Member;
use super::namespace::{Claim, Rival};
use super::status::{Event, LeftReason};
use super::timers::Timer;
use super::{LEASE, Transfer};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment, SocketId};
use crate::session::PublicKey;

/// For how long after the start tickets decide.
const TICKETS_DECIDE: Duration = Duration::from_secs(120);
/// Time between the probes of an earlier start.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// Probes of an earlier start: at 0, 200 and 400 ms; at 600 ms it is taken to be gone.
const PROBES: u32 = 3;
/// Time for which a member keeps an address before it may have another.
const MOVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the old keys of a member still open.
const OLD_LINK_LIFE: Duration = Duration::from_secs(10);

/// Whether a gateway can have this address.
fn can_be_held(ip4: Ipv4Addr) -> bool {
    let first = ip4.octets()[0];
    // 0/8 is "this network", 240/4 is reserved and holds the broadcast address (RFC 6890).
    first != 0 && first < 240 && !ip4.is_loopback() && !ip4.is_multicast()
}

impl Transfer {
    /// Takes a Register that came on the link `id`, in a datagram of `room` bytes.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn register(
        &mut self,
        now: Moment,
        id: LinkId,
        request: u32,
        boot: u64,
        ip4: Ipv4Addr,
        name: String,
        ticket: &[u8],
        room: usize,
    ) {
        let Some((key, endpoint)) = self.party(id).map(|party| (party.key, party.endpoint)) else { return };
        let Some(space) = self.spaces.get(id.socket) else { return };
        let ticket = self.tickets.open(ticket, space.number, &key, ip4);
        let claim = Claim { request, boot, ip4, name, ticket, room };
        if !can_be_held(ip4) {
            return self.refuse(id, &claim, RefusedReason::BadAddress);
        }
        let held = space.members.by_key(&key).and_then(|index| space.slots.holder(index));
        let Some((slot, member)) = held.and_then(|slot| Some((slot, space.member_at(slot)?))) else {
            return self.admit(now, id, key, endpoint, claim);
        };
        let at = space.slots.endpoint_of(slot).map(|at| at.remote);
        if member.boot == boot || at == Some(endpoint.remote) {
            return self.renew(now, id, slot, endpoint, claim);
        }
        self.probe_earlier_start(now, id, slot, claim);
    }

    /// Lets a new member in, if its address is free.
    fn admit(&mut self, now: Moment, id: LinkId, key: PublicKey, endpoint: Endpoint, claim: Claim) {
        if !self.win_address(now, id.socket, &key, &claim) {
            return self.refuse(id, &claim, RefusedReason::AddressTaken);
        }
        let Some(space) = self.spaces.get_mut(id.socket) else { return };
        let Some(slot) = space.slots.take(endpoint, &mut self.rng) else {
            return self.refuse(id, &claim, RefusedReason::Full);
        };
        let Some(link) = self.take_guest(id) else {
            debug_assert!(false, "who is admitted has come on a link of no member");
            return self.free_slot(slot, id.socket);
        };
        let Some(space) = self.spaces.get_mut(id.socket) else { return };
        let (namespace, ip4, request, room) = (space.number, claim.ip4, claim.request, claim.room);
        let mut member = Member::new(now, link, key, ip4);
        member.name = Name::from(claim.name.clone());
        member.boot = claim.boot;
        member.request = request;
        member.before = Seconds::new(claim.ticket);
        space.members.insert(slot.index, member);
        self.look_after_leases(id.socket);
        self.event(Event::Joined { namespace, ip4, name: claim.name, endpoint: endpoint.remote, slot: slot.index });
        self.announce(id.socket, now, ip4);
        self.confirm(now, id, slot, request, room);
    }

    /// Takes a member's new word about itself: new keys, another endpoint, another address, or its next start.
    fn renew(&mut self, now: Moment, id: LinkId, slot: Slot, endpoint: Endpoint, claim: Claim) {
        let socket = id.socket;
        let Some(space) = self.spaces.get(socket) else { return };
        let Some(member) = space.member_at(slot) else { return };
        let (key, old_ip4, old_link, old_boot) = (*member.key(), member.ip4(), member.link(), member.boot);
        let Some(old_endpoint) = space.slots.endpoint_of(slot) else { return };
        if claim.ip4 != old_ip4 && now.since(member.since.moment()) < MOVE_INTERVAL {
            // Each change is told to others: whoever changes all the time asks again.
            return self.drops.count(DropReason::RateLimited);
        }
        if claim.ip4 != old_ip4 && !self.win_address(now, socket, &key, &claim) {
            return self.refuse(id, &claim, RefusedReason::AddressTaken);
        }
        let next_start = claim.boot != old_boot;
        let new_link = if old_link == id.index { None } else { self.take_guest(id) };
        let Some(space) = self.spaces.get_mut(socket) else { return };
        let slot = if next_start { space.slots.renew(slot).unwrap_or(slot) } else { slot };
        space.slots.move_to(slot, endpoint);
        if !next_start && old_endpoint.remote != endpoint.remote {
            self.moves.note(now, slot, &old_endpoint);
        }
        if claim.ip4 != old_ip4 {
            space.members.give_address(slot.index, claim.ip4);
        }
        space.members.note_heard(slot.index, now);
        space.challenges.remove(&slot.index);
        let old_link = new_link.and_then(|link| space.members.give_link(slot.index, link));
        let Some(member) = space.members.get_mut(slot.index) else { return };
        let told = next_start || claim.ip4 != old_ip4 || claim.name != member.name.as_str();
        member.request = claim.request;
        member.boot = claim.boot;
        member.name = Name::from(claim.name);
        if claim.ip4 != old_ip4 {
            (member.since, member.before) = (Stamp::new(now), Seconds::new(claim.ticket));
        }
        if next_start {
            // It knows nothing of what its earlier start asked for, and what that says is not heard any more.
            member.change = 0;
            self.stop_watching(socket, slot.index);
        } else if let Some(link) = old_link.filter(|_| self.has_guest_room(socket)) {
            self.add_guest(now, OLD_LINK_LIFE, link, key, old_endpoint, slot);
        }
        if claim.ip4 != old_ip4 {
            self.announce(socket, now, old_ip4);
        }
        if told {
            self.announce(socket, now, claim.ip4);
        }
        self.confirm(now, id, slot, claim.request, claim.room);
    }

    /// Whether `key` may hold the address it claims; who has to make way for it is gone then.
    fn win_address(&mut self, now: Moment, socket: SocketId, key: &PublicKey, claim: &Claim) -> bool {
        let Some(space) = self.spaces.get(socket) else { return false };
        let reserved = space.reserved.get(&claim.ip4);
        if reserved.is_some_and(|owner| owner != key) {
            return false;
        }
        let Some(slot) = space.holder(claim.ip4) else { return true };
        let Some(holder) = space.member_at(slot).filter(|holder| holder.key() != key) else { return true };
        let tickets_decide = now.since(self.started) < TICKETS_DECIDE;
        let wins = reserved.is_some()
            || match (claim.ticket, holder.before.get()) {
                (Some(_), None) => tickets_decide,
                (Some(ours), Some(theirs)) => tickets_decide && ours > theirs,
                (None, _) => false,
            };
        if wins {
            let (link, request) = (LinkId { socket, index: holder.link() }, holder.request);
            let refused = Message::Refused { request, reason: RefusedReason::AddressTaken, ip4: claim.ip4 };
            self.say(link, &refused);
            self.remove_member(now, socket, slot.index, LeftReason::Displaced, false);
        }
        wins
    }

    fn refuse(&mut self, id: LinkId, claim: &Claim, reason: RefusedReason) {
        let Some(endpoint) = self.party(id).map(|party| party.endpoint) else { return };
        self.counters.refused += 1;
        if let Some(space) = self.spaces.get(id.socket) {
            let (namespace, name) = (space.number, claim.name.clone());
            self.event(Event::Refused {
                namespace,
                ip4: claim.ip4,
                name,
                endpoint: endpoint.remote,
                reason: reason.into(),
            });
        }
        let refused = Message::Refused { request: claim.request, reason, ip4: claim.ip4 };
        self.answer_registration(id, &refused, claim.room);
        self.dismiss_guest(id);
    }

    /// Says that the address is held, with a ticket for it.
    fn confirm(&mut self, now: Moment, id: LinkId, slot: Slot, request: u32, room: usize) {
        let Some(space) = self.spaces.get(id.socket) else { return };
        let Some(member) = space.member_at(slot) else { return };
        let Some(observed) = space.slots.endpoint_of(slot).map(|endpoint| endpoint.remote) else { return };
        let salt = self.rng.bytes();
        let ticket = self.tickets.seal(salt, space.number, member.key(), member.ip4(), member.age(now));
        let registered = Message::Registered {
            request,
            slot,
            observed,
            boot: self.boot,
            lease_seconds: LEASE.as_secs() as u16,
            change: member.change,
            ticket: ticket.into(),
            other_port: space.other_port,
        };
        self.answer_registration(id, &registered, room);
    }

    /// A second start of a member's key: asks the first whether it lives.
    fn probe_earlier_start(&mut self, now: Moment, id: LinkId, slot: Slot, claim: Claim) {
        let seq = self.rng.next_u32();
        let Some(space) = self.spaces.get_mut(id.socket) else { return };
        if let Some(rival) = space.rivals.get_mut(&slot.index) {
            // The newest start waits in the place of the one before; the wait is not longer for it.
            (rival.link, rival.claim) = (id.index, claim);
            return;
        }
        let Some(member) = space.member_at(slot) else { return };
        let link = LinkId { index: member.link(), ..id };
        let timer = now + PROBE_INTERVAL;
        space.rivals.insert(slot.index, Rival { link: id.index, claim, seq, probes: 1, timer });
        self.timers.set(timer, Timer::Rival(id.socket, slot.index));
        self.say(link, &Message::Probe { seq });
    }

    /// The time of a rival has come: another probe, or the place.
    pub(super) fn rival_due(&mut self, now: Moment, socket: SocketId, index: u32) {
        let Some(space) = self.spaces.get_mut(socket) else { return };
        let Some(slot) = space.slots.holder(index) else { return };
        let Some(link) = space.members.get(index).map(|member| member.link()) else { return };
        let Some(rival) = space.rivals.get_mut(&index).filter(|rival| rival.timer <= now) else { return };
        if rival.probes < PROBES {
            rival.probes += 1;
            rival.timer = now + PROBE_INTERVAL;
            let (timer, seq) = (rival.timer, rival.seq);
            self.timers.set(timer, Timer::Rival(socket, index));
            self.say(LinkId { socket, index: link }, &Message::Probe { seq });
            return;
        }
        let Some(rival) = space.rivals.remove(&index) else { return };
        let id = LinkId { socket, index: rival.link };
        if let Some(endpoint) = self.party(id).map(|party| party.endpoint) {
            self.renew(now, id, slot, endpoint, rival.claim);
        }
    }

    /// A member answered a probe: who wants its place is a clone. Whether there was such a probe.
    pub(super) fn refuse_rival(&mut self, socket: SocketId, slot: Slot, seq: u32) -> bool {
        let Some(space) = self.spaces.get_mut(socket) else { return false };
        if space.rivals.get(&slot.index).is_none_or(|rival| rival.seq != seq) {
            return false;
        }
        let Some(rival) = space.rivals.remove(&slot.index) else { return false };
        self.timers.cancel(rival.timer, Timer::Rival(socket, slot.index));
        self.refuse(LinkId { socket, index: rival.link }, &rival.claim, RefusedReason::KeyInUse);
        true
    }

    /// The lease of the quietest member may have run out, and those of others.
    pub(super) fn leases_due(&mut self, now: Moment, socket: SocketId) {
        while let Some((index, ends)) = self.spaces.get(socket).and_then(|space| space.members.quietest())
            && ends <= now
        {
            if !self.remove_member(now, socket, index, LeftReason::Silent, true) {
                debug_assert!(false, "a member has a slot");
                break;
            }
        }
        if let Some(space) = self.spaces.get_mut(socket) {
            space.leases_due = None;
        }
        self.look_after_leases(socket);
    }

    /// Sees to it that leases are looked at when the first can run out, and not at all where there is none. A look that comes too
    /// early, because the quietest member has spoken since, costs little: so nothing is done when a member is heard.
    fn look_after_leases(&mut self, socket: SocketId) {
        let Some(space) = self.spaces.get_mut(socket) else { return };
        match (space.leases_due, space.members.quietest()) {
            (None, Some((_, ends))) => {
                space.leases_due = Some(ends);
                self.timers.set(ends, Timer::Leases(socket));
            }
            (Some(due), None) => {
                space.leases_due = None;
                self.timers.cancel(due, Timer::Leases(socket));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn free_slot(&mut self, slot: Slot, socket: SocketId) {
        if let Some(space) = self.spaces.get_mut(socket) {
            space.slots.free(slot);
        }
    }

    /// Takes a member out. `tell`: its watchers hear that nobody holds the address. `false`: there was none.
    pub(super) fn remove_member(
        &mut self,
        now: Moment,
        socket: SocketId,
        index: u32,
        reason: LeftReason,
        tell: bool,
    ) -> bool {
        self.stop_watching(socket, index);
        let Some(space) = self.spaces.get_mut(socket) else { return false };
        let Some(slot) = space.slots.holder(index) else { return false };
        let Some(endpoint) = space.slots.endpoint_of(slot) else { return false };
        let Some(member) = space.members.remove(index) else { return false };
        space.slots.free(slot);
        space.challenges.remove(&index);
        let rival = space.rivals.remove(&index);
        self.moves.forget(socket, index);
        let (namespace, ip4, key) = (space.number, member.ip4(), *member.key());
        self.event(Event::Left { namespace, ip4, name: member.name.as_str().to_owned(), reason });
        if !tell {
            self.add_guest(now, OLD_LINK_LIFE, member.into_link(), key, endpoint, slot);
        }
        self.look_after_leases(socket);
        if tell {
            self.announce(socket, now, ip4);
        }
        if let Some(rival) = rival {
            self.timers.cancel(rival.timer, Timer::Rival(socket, index));
            let id = LinkId { socket, index: rival.link };
            if reason == LeftReason::Displaced {
                self.refuse(id, &rival.claim, RefusedReason::AddressTaken);
            } else if let Some((key, endpoint)) = self.party(id).map(|party| (party.key, party.endpoint)) {
                // What it waited for has happened.
                self.admit(now, id, key, endpoint, rival.claim);
            }
        }
        true
    }
}
