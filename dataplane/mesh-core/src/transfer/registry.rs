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

use super::namespace::{Claim, Member, Rival};
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
    /// Takes a Register that came on `link`, in a datagram of `room` bytes.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn register(
        &mut self,
        now: Moment,
        link: u32,
        request: u32,
        boot: u64,
        ip4: Ipv4Addr,
        name: String,
        ticket: &[u8],
        room: usize,
    ) {
        let Some((key, endpoint)) = self.links.get(&link).map(|link| (link.key, link.endpoint)) else { return };
        let Some(space) = self.spaces.get(endpoint.socket) else { return };
        let ticket = self.tickets.open(ticket, space.number, &key, ip4);
        let claim = Claim { request, boot, ip4, name, ticket, room };
        if !can_be_held(ip4) {
            return self.refuse(link, &claim, RefusedReason::BadAddress);
        }
        let Some(member) = space.by_key.get(&key).and_then(|index| space.members.get(index)) else {
            return self.admit(now, link, key, endpoint, claim);
        };
        let slot = member.slot;
        let at = space.slots.endpoint_of(slot).map(|at| at.remote);
        if member.boot == boot || at == Some(endpoint.remote) {
            return self.renew(now, link, slot, endpoint, claim);
        }
        self.probe_earlier_start(now, link, endpoint.socket, slot, claim);
    }

    /// Lets a new member in, if its address is free.
    fn admit(&mut self, now: Moment, link: u32, key: PublicKey, endpoint: Endpoint, claim: Claim) {
        if !self.win_address(now, endpoint.socket, &key, &claim) {
            return self.refuse(link, &claim, RefusedReason::AddressTaken);
        }
        let Some(space) = self.spaces.get_mut(endpoint.socket) else { return };
        let Some(slot) = space.slots.take(endpoint, &mut self.rng) else {
            return self.refuse(link, &claim, RefusedReason::Full);
        };
        let lease_timer = now + LEASE;
        self.timers.set(lease_timer, Timer::Lease(endpoint.socket, slot.index));
        space.by_ip4.insert(claim.ip4, slot.index);
        space.by_key.insert(key, slot.index);
        let (ip4, name, request, room) = (claim.ip4, claim.name.clone(), claim.request, claim.room);
        space.members.insert(
            slot.index,
            Member {
                slot,
                key,
                ip4,
                name: claim.name,
                boot: claim.boot,
                request,
                link,
                since: now,
                before: claim.ticket,
                heard: now,
                lease_timer,
                change: 0,
                watching: Default::default(),
                rival: None,
                challenge: None,
            },
        );
        let namespace = space.number;
        self.adopt(link, slot);
        self.event(Event::Joined { namespace, ip4, name, endpoint: endpoint.remote, slot: slot.index });
        self.announce(endpoint.socket, now, ip4);
        self.confirm(now, link, endpoint.socket, slot, request, room);
    }

    /// Takes a member's new word about itself: new keys, another endpoint, another address, or its next start.
    fn renew(&mut self, now: Moment, link: u32, slot: Slot, endpoint: Endpoint, claim: Claim) {
        let socket = endpoint.socket;
        let Some(member) = self.spaces.get(socket).and_then(|space| space.member_at(slot)) else { return };
        let (key, old_ip4, old_link, old_boot) = (member.key, member.ip4, member.link, member.boot);
        if claim.ip4 != old_ip4 && now.since(member.since) < MOVE_INTERVAL {
            // Each change is told to others: whoever changes all the time asks again.
            return self.drops.count(DropReason::RateLimited);
        }
        if claim.ip4 != old_ip4 && !self.win_address(now, socket, &key, &claim) {
            return self.refuse(link, &claim, RefusedReason::AddressTaken);
        }
        let Some(space) = self.spaces.get_mut(socket) else { return };
        let next_start = claim.boot != old_boot;
        let slot = if next_start { space.slots.renew(slot).unwrap_or(slot) } else { slot };
        space.slots.move_to(slot, endpoint);
        if claim.ip4 != old_ip4 {
            space.by_ip4.remove(&old_ip4);
            space.by_ip4.insert(claim.ip4, slot.index);
        }
        let Some(member) = space.members.get_mut(&slot.index) else { return };
        let told = next_start || claim.ip4 != old_ip4 || claim.name != member.name;
        member.slot = slot;
        member.heard = now;
        member.link = link;
        member.request = claim.request;
        member.boot = claim.boot;
        member.challenge = None;
        if claim.ip4 != old_ip4 {
            (member.since, member.before) = (now, claim.ticket);
        }
        (member.ip4, member.name) = (claim.ip4, claim.name);
        if next_start {
            // It knows nothing of what its earlier start asked for.
            member.change = 0;
            self.stop_watching(socket, slot.index);
        }
        if old_link != link {
            self.retire(now, old_link, if next_start { Duration::ZERO } else { OLD_LINK_LIFE });
        }
        self.adopt(link, slot);
        if claim.ip4 != old_ip4 {
            self.announce(socket, now, old_ip4);
        }
        if told {
            self.announce(socket, now, claim.ip4);
        }
        self.confirm(now, link, socket, slot, claim.request, claim.room);
    }

    /// Whether `key` may hold the address it claims; who has to make way for it is gone then.
    fn win_address(&mut self, now: Moment, socket: SocketId, key: &PublicKey, claim: &Claim) -> bool {
        let Some(space) = self.spaces.get(socket) else { return false };
        let reserved = space.reserved.get(&claim.ip4);
        if reserved.is_some_and(|owner| owner != key) {
            return false;
        }
        let Some(holder) = space.holder(claim.ip4) else { return true };
        if holder.key == *key {
            return true;
        }
        let tickets_decide = now.since(self.started) < TICKETS_DECIDE;
        let wins = reserved.is_some()
            || match (claim.ticket, holder.before) {
                (Some(_), None) => tickets_decide,
                (Some(ours), Some(theirs)) => tickets_decide && ours > theirs,
                (None, _) => false,
            };
        if wins {
            let (index, link, request) = (holder.slot.index, holder.link, holder.request);
            let refused = Message::Refused { request, reason: RefusedReason::AddressTaken, ip4: claim.ip4 };
            self.say(link, &refused);
            self.remove_member(now, socket, index, LeftReason::Displaced, false);
        }
        wins
    }

    fn refuse(&mut self, link: u32, claim: &Claim, reason: RefusedReason) {
        let Some(endpoint) = self.links.get(&link).map(|link| link.endpoint) else { return };
        self.counters.refused += 1;
        if let Some(space) = self.spaces.get(endpoint.socket) {
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
        self.answer_registration(link, &refused, claim.room);
        self.dismiss_guest(link);
    }

    /// Says that the address is held, with a ticket for it.
    fn confirm(&mut self, now: Moment, link: u32, socket: SocketId, slot: Slot, request: u32, room: usize) {
        let Some(space) = self.spaces.get(socket) else { return };
        let Some(member) = space.member_at(slot) else { return };
        let Some(observed) = self.links.get(&link).map(|link| link.endpoint.remote) else { return };
        let salt = self.rng.bytes();
        let ticket = self.tickets.seal(salt, space.number, &member.key, member.ip4, member.age(now));
        let registered = Message::Registered {
            request,
            slot,
            observed,
            boot: self.boot,
            lease_seconds: LEASE.as_secs() as u16,
            change: member.change,
            ticket: ticket.into(),
        };
        self.answer_registration(link, &registered, room);
    }

    /// A second start of a member's key: asks the first whether it lives.
    fn probe_earlier_start(&mut self, now: Moment, link: u32, socket: SocketId, slot: Slot, claim: Claim) {
        let seq = self.rng.next_u32();
        let Some(member) = self.spaces.get_mut(socket).and_then(|space| space.member_at_mut(slot)) else { return };
        if let Some(rival) = &mut member.rival {
            // The newest start waits in the place of the one before; the wait is not longer for it.
            (rival.link, rival.claim) = (link, claim);
            return;
        }
        member.rival = Some(Box::new(Rival { link, claim, seq, probes: 1, timer: now + PROBE_INTERVAL }));
        let member_link = member.link;
        self.timers.set(now + PROBE_INTERVAL, Timer::Rival(socket, slot.index));
        self.say(member_link, &Message::Probe { seq });
    }

    /// The time of a rival has come: another probe, or the place.
    pub(super) fn rival_due(&mut self, now: Moment, socket: SocketId, index: u32) {
        let Some(member) = self.spaces.get_mut(socket).and_then(|space| space.members.get_mut(&index)) else { return };
        let (link, slot) = (member.link, member.slot);
        let Some(rival) = &mut member.rival else { return };
        if rival.timer > now {
            return;
        }
        if rival.probes < PROBES {
            rival.probes += 1;
            rival.timer = now + PROBE_INTERVAL;
            let (timer, seq) = (rival.timer, rival.seq);
            self.timers.set(timer, Timer::Rival(socket, index));
            self.say(link, &Message::Probe { seq });
            return;
        }
        let Some(rival) = member.rival.take() else { return };
        if let Some(endpoint) = self.links.get(&rival.link).map(|link| link.endpoint) {
            self.renew(now, rival.link, slot, endpoint, rival.claim);
        }
    }

    /// A member answered a probe: who wants its place is a clone. Whether there was such a probe.
    pub(super) fn refuse_rival(&mut self, socket: SocketId, slot: Slot, seq: u32) -> bool {
        let Some(member) = self.spaces.get_mut(socket).and_then(|space| space.member_at_mut(slot)) else {
            return false;
        };
        let Some(rival) = member.rival.take_if(|rival| rival.seq == seq) else { return false };
        self.timers.cancel(rival.timer, Timer::Rival(socket, slot.index));
        self.refuse(rival.link, &rival.claim, RefusedReason::KeyInUse);
        true
    }

    /// A lease may have run out.
    pub(super) fn lease_due(&mut self, now: Moment, socket: SocketId, index: u32) {
        let Some(member) = self.spaces.get_mut(socket).and_then(|space| space.members.get_mut(&index)) else { return };
        let ends = member.heard + LEASE;
        if ends <= now {
            return self.remove_member(now, socket, index, LeftReason::Silent, true);
        }
        member.lease_timer = ends;
        self.timers.set(ends, Timer::Lease(socket, index));
        self.expire_watching(now, socket, index);
    }

    /// Takes a member out. `tell`: its watchers hear that nobody holds the address.
    pub(super) fn remove_member(&mut self, now: Moment, socket: SocketId, index: u32, reason: LeftReason, tell: bool) {
        self.stop_watching(socket, index);
        let Some(space) = self.spaces.get_mut(socket) else { return };
        let Some(member) = space.members.remove(&index) else { return };
        space.slots.free(member.slot);
        space.by_ip4.remove(&member.ip4);
        space.by_key.remove(&member.key);
        let namespace = space.number;
        self.timers.cancel(member.lease_timer, Timer::Lease(socket, index));
        self.retire(now, member.link, if tell { Duration::ZERO } else { OLD_LINK_LIFE });
        self.event(Event::Left { namespace, ip4: member.ip4, name: member.name, reason });
        if tell {
            self.announce(socket, now, member.ip4);
        }
        if let Some(rival) = member.rival {
            self.timers.cancel(rival.timer, Timer::Rival(socket, index));
            if reason == LeftReason::Displaced {
                return self.refuse(rival.link, &rival.claim, RefusedReason::AddressTaken);
            }
            // What it waited for has happened.
            if let Some((key, endpoint)) = self.links.get(&rival.link).map(|link| (link.key, link.endpoint)) {
                self.admit(now, rival.link, key, endpoint, rival.claim);
            }
        }
    }
}
