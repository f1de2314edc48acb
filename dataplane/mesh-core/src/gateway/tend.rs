//! What time, and each change of its state, asks to be done about a peer. [`Gateway::tend_peer`] looks at all of it and notes
//! when to look next, so that no order of events leaves a peer without its next step.

use std::time::Duration;

use mesh_wire::message::{CloseReason, Message, Target};
use rand::Rng;

use super::Gateway;
use super::handshake::{ASKING_TIME, Asking, AskingStage, RETRANSMIT_FIRST, RETRANSMIT_MOST};
use super::indexes::Owner;
use super::inside::TEND_INTERVAL;
use super::peers::{CLAIM_TIME, LOOKUP_RENEWED, Lookup, Peer, Probing, QUEUE_TIME};
use super::timers::backoff;
use crate::drops::DropReason;
use crate::seam::Moment;

/// A session that carries nothing for this time is closed.
const IDLE_TIME: Duration = Duration::from_secs(180);
/// A peer whose straight path was answered on so lately is there: idle paths are probed every 20 s.
const ALIVE_TIME: Duration = Duration::from_secs(60);
/// A peer counts as in use for this time after a packet.
const USE_TIME: Duration = Duration::from_secs(30);
/// One that was not in use for this time is asleep.
const ASLEEP_AFTER: Duration = Duration::from_secs(5);
/// A peer without a session is forgotten after this time.
const FORGET_TIME: Duration = Duration::from_secs(300);
/// A peer that does not answer for this time, while packets go to it, is probed.
const PROBE_AFTER: Duration = Duration::from_secs(3);
/// Between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Probes without an answer before its sessions are given up.
const PROBES: u32 = 3;
/// A peer that the transfer does not know is asked for there again after this time.
const UNVOUCHED_AGAIN: Duration = Duration::from_secs(10);
/// Least time between two looks at one peer.
const LEAST: Duration = Duration::from_millis(5);

impl Peer {
    /// A packet goes to it, or came from it. Whether it was asleep: then what carried before is asked at once whether it still does.
    pub(super) fn use_now(&mut self, now: Moment) -> bool {
        let asleep = now.since(self.used_at) >= ASLEEP_AFTER && !self.paths.is_relay_alone();
        self.used_at = now;
        if asleep {
            self.paths.wake(now);
        }
        asleep
    }

    pub(super) fn in_use(&self, now: Moment) -> bool {
        now.since(self.used_at) < USE_TIME
    }

    /// Whether a handshake is wanted: packets wait for a session, or the one in use gets old.
    fn wants_session(&self, now: Moment) -> bool {
        match &self.keyring {
            Some(keyring) if keyring.current().is_some() => keyring.needs_rekey(now) && self.in_use(now),
            _ => !self.queue.is_empty(),
        }
    }
}

impl Gateway {
    /// Does all that is due about a peer.
    pub(super) fn tend_peer(&mut self, now: Moment, id: u32) {
        self.collect_sent(now, id);
        self.rest_lane(now, id);
        self.expire_queue(now, id);
        self.expire_keys(now, id);
        self.tend_session(now, id);
        self.tend_paths(now, id);
        self.tend_asking(now, id);
        self.tend_lookup(now, id);
        self.begin_asking(now, id);
        self.schedule_peer(now, id);
    }

    /// Packets that waited too long.
    fn expire_queue(&mut self, now: Moment, id: u32) {
        while let Some(front) = self.peers.get(id).and_then(|peer| peer.queue.front())
            && now.since(front.since) >= QUEUE_TIME
        {
            if let Some(expired) = self.peers.dequeue(id) {
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.half_sent = false;
                }
                self.complain_unreachable(now, &expired.bytes);
                self.drops.count(DropReason::QueueExpired);
            }
        }
    }

    fn expire_keys(&mut self, now: Moment, id: u32) {
        let Some(keyring) = self.peers.get_mut(id).and_then(|peer| peer.keyring.as_mut()) else { return };
        for index in keyring.expire(now) {
            self.indexes.release(index);
        }
    }

    /// Closes an idle session; probes one under which nothing comes back, and gives it up in the end.
    fn tend_session(&mut self, now: Moment, id: u32) {
        let (healthy, epoch) = (self.relay.is_healthy(), self.relay.epoch());
        // With neither a relay nor a beacon they would not find each other again.
        let reachable = self.has_relay_to(id);
        let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.has_session()) else { return };
        let near = peer.claimed().is_some_and(|claim| claim.endpoint.is_some() && now.since(claim.at) < CLAIM_TIME);
        let healthy = healthy && peer.transfer_epoch == epoch || near || peer.paths.carrying().is_some();
        if now.since(peer.used_at) >= IDLE_TIME && (reachable || near || !peer.paths.is_alive(now, ALIVE_TIME)) {
            self.send_to_peer(now, id, &Message::Close { reason: CloseReason::Idle });
            self.end_sessions(now, id);
            return;
        }
        let Some(since) = peer.unanswered_since.filter(|_| peer.asking.is_none()) else { return };
        if now.since(since) < PROBE_AFTER {
            return;
        }
        let probing = peer.probing.get_or_insert(Probing { sent: 0, next_at: now });
        if probing.next_at > now {
            return;
        }
        if probing.sent < PROBES {
            probing.sent += 1;
            probing.next_at = now + PROBE_INTERVAL;
            let seq = probing.sent;
            self.send_to_peer(now, id, &Message::Probe { seq });
        } else if healthy {
            peer.refresh = true;
            self.end_sessions(now, id);
        } else {
            // It may be the transfer that is away.
            probing.sent = 0;
            probing.next_at = now + PROBE_INTERVAL;
        }
    }

    /// Repeats the message at hand of our handshake, or gives it up.
    fn tend_asking(&mut self, now: Moment, id: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(Asking { index, stage, since, next_at, .. }) = &peer.asking else { return };
        let (index, next_at) = (*index, *next_at);
        let confirming = matches!(stage, AskingStage::Confirming { .. });
        if confirming && self.indexes.owner(index) != Some(Owner::Session(id)) {
            // The session went another way.
            peer.asking = None;
        } else if now.since(*since) >= ASKING_TIME {
            peer.refresh = true;
            peer.doubt_claim();
            let current = peer.keyring.as_ref().and_then(|keyring| keyring.current());
            if confirming && current.is_some_and(|session| session.local_index() == index) {
                // The peer never was heard under it.
                self.end_sessions(now, id);
            } else {
                self.stop_asking(id);
            }
        } else if next_at <= now {
            self.transmit_asking(now, id);
        }
    }

    /// Asks the transfer for a peer that is wanted and not known well enough.
    pub(super) fn tend_lookup(&mut self, now: Moment, id: u32) {
        let epoch = self.relay.epoch();
        if self.relay.registration().is_none() {
            return;
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        let in_use = peer.has_session() && peer.in_use(now);
        let wanted = !peer.queue.is_empty() || in_use || peer.asking.is_some() || peer.called;
        let old = peer.learned_at.is_none_or(|at| now.since(at) >= LOOKUP_RENEWED);
        let asked = peer.learned_at.is_some_and(|at| now.since(at) < UNVOUCHED_AGAIN);
        let unvouched = peer.record.is_none() && !(peer.claimed().is_some() && asked);
        let unknown = unvouched || peer.transfer_epoch != epoch || peer.refresh || old;
        if !wanted || !unknown {
            peer.lookup = None;
            return;
        }
        let lookup = match &mut peer.lookup {
            Some(lookup) => lookup,
            none => none.insert(Lookup { request: self.rng.next_u32(), attempt: 0, next_at: now }),
        };
        if lookup.next_at > now {
            return;
        }
        if !self.lookups.take(now) {
            // Spread, so that many peers that wait for their turn do not all come back for one of them.
            let spread = Duration::from_millis(u64::from(self.rng.next_u32() % 128));
            lookup.next_at = self.lookups.ready_at(now) + spread;
            return;
        }
        lookup.next_at = now + backoff(RETRANSMIT_FIRST, RETRANSMIT_MOST, lookup.attempt);
        lookup.attempt += 1;
        let (request, ip4) = (lookup.request, peer.ip4);
        self.ask_transfer(now, request, Target::Address(ip4));
    }

    fn begin_asking(&mut self, now: Moment, id: u32) {
        let Some(peer) = self.peers.get(id) else { return };
        if peer.key().is_some()
            && peer.path_of_handshakes(now, &self.relay, &self.local, 0).is_some()
            && peer.asking.is_none()
            && peer.ask_at.is_none_or(|at| at <= now)
            && peer.wants_session(now)
        {
            self.ask(now, id);
        }
    }

    /// Notes when to look again; forgets a peer that there is nothing to know of any more.
    pub(super) fn schedule_peer(&mut self, now: Moment, id: u32) {
        let registered = self.relay.registration().is_some();
        let relay = self.has_relay_to(id);
        let Some(peer) = self.peers.get(id) else { return };
        let keyring = peer.keyring.as_ref();
        let empty = keyring.is_none_or(|keyring| keyring.is_empty());
        let absent = peer.absent_until.filter(|until| *until > now);
        let known_until = if peer.record.is_some() { Some(peer.used_at + FORGET_TIME) } else { None };
        let claimed_until = peer.claimed().map(|claim| claim.at + CLAIM_TIME);
        let kept = absent.max(known_until).max(claimed_until).filter(|until| *until > now);
        if empty && peer.asking.is_none() && peer.lookup.is_none() && peer.queue.is_empty() && kept.is_none() {
            self.peers.remove(id);
            return;
        }
        let in_use = peer.in_use(now) && peer.has_session();
        let asking = peer.asking.as_ref().map(|asking| asking.next_at.min(asking.since + ASKING_TIME));
        let ask_at =
            if peer.asking.is_none() && peer.wants_session(now) { Some(peer.ask_at.unwrap_or(now)) } else { None };
        let due = [
            peer.queue.front().map(|front| front.since + QUEUE_TIME),
            keyring.and_then(|keyring| keyring.next_timeout()),
            asking,
            // Whoever waits for the transfer is looked at when that is there.
            peer.lookup.map(|lookup| lookup.next_at).filter(|_| registered),
            ask_at.filter(|at| *at > now),
            if in_use { Some(now + TEND_INTERVAL) } else { None },
            // One that may not be closed is looked at again later.
            peer.has_session().then(|| (peer.used_at + IDLE_TIME).max(now + TEND_INTERVAL)),
            kept,
            if peer.has_session() { peer.paths.next_timeout(now, in_use, relay) } else { None },
            if in_use { peer.paths.next_size_timeout(self.outer_limit) } else { None },
            if peer.has_session() { peer.exchange.next_timeout() } else { None },
        ];
        if let Some(at) = due.into_iter().flatten().min() {
            self.peers.timers.by(id, at.max(now + LEAST));
        }
    }
}
