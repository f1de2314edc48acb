//! What the transfer says of peers: found, not found, changed.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::message::{PeerRecord, Target};

use super::Gateway;
use super::icmp::Complaint;
use super::ip;
use super::peers::{ABSENT_GRACE, ABSENT_TIME, CLAIM_TIME, Claim, Peer};
use crate::drops::DropReason;
use crate::seam::Moment;

/// A peer whose straight path was answered on so lately is there.
const ALIVE_TIME: Duration = Duration::from_secs(30);

impl Gateway {
    /// Whether we can talk to the holder of an address: it is another one of our network.
    pub(super) fn can_be_peer(&self, ip4: Ipv4Addr) -> bool {
        ip4 != self.network.ip4() && self.network.is_host(ip4)
    }

    /// The transfer vouches for a peer.
    pub(super) fn found(&mut self, now: Moment, record: PeerRecord) {
        if !self.can_be_peer(record.ip4) {
            return;
        }
        let Some(id) = self.peers.find_or_add(record.ip4, now) else {
            self.drops.count(DropReason::TooManyPeers);
            self.nobody_at(now, record.slot);
            return;
        };
        let old = self.peers.get(id);
        let other_key = old.and_then(Peer::key).is_some_and(|key| *key != record.key);
        if other_key || old.and_then(Peer::boot).is_some_and(|boot| boot != record.boot) {
            // Another holder, or another start of the same: what was agreed with the one before is void.
            self.end_sessions(now, id);
        }
        let slot = record.slot;
        self.peers.set_record(id, Some(record));
        let epoch = self.relay.epoch();
        let Some(peer) = self.peers.get_mut(id) else { return };
        if other_key {
            peer.keyring = None;
            peer.hello = None;
            peer.forget_claim();
        }
        peer.called = false;
        if peer.transfer_epoch != epoch {
            // While the transfer was away nobody could answer.
            peer.unanswered_since = None;
            peer.probing = None;
        }
        peer.transfer_epoch = epoch;
        peer.learned_at = Some(now);
        peer.refresh = false;
        peer.lookup = None;
        peer.absent_until = None;
        peer.missing_since = None;
        let flush = !peer.queue.is_empty() && peer.has_session();
        if flush {
            self.flush.push_back(id);
        }
        self.verify_answers_of(now, id, slot);
        self.tend_peer(now, id);
    }

    /// Nobody holds the address or slot that was asked for.
    pub(super) fn not_found(&mut self, now: Moment, request: u32, target: Target) {
        if let Target::Slot(slot) = target
            && self.callers.asked(slot, request)
        {
            self.nobody_at(now, slot);
        }
        let Target::Address(ip4) = target else { return };
        let Some(id) = self.peers.find(ip4) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.lookup.is_none_or(|lookup| lookup.request != request) {
            return;
        }
        let since = *peer.missing_since.get_or_insert(now);
        if peer.record.is_some() && now.since(since) < ABSENT_GRACE {
            // It was there a moment ago: after a restart of the transfer its members come back one by one. It is asked for
            // again as long as packets wait.
            return;
        }
        self.nobody(now, id);
    }

    /// A peer that was asked for has changed, says the change `number`.
    pub(super) fn changed(&mut self, now: Moment, number: u32, ip4: Ipv4Addr, record: Option<PeerRecord>) {
        let Some(id) = self.peers.find(ip4) else { return };
        if let Some(peer) = self.peers.get_mut(id) {
            peer.changed = Some(number);
        }
        match record {
            Some(record) if record.ip4 == ip4 => self.found(now, record),
            Some(_) => {}
            None => self.nobody(now, id),
        }
    }

    /// Nobody holds the address of a peer: whoever waits for it is told.
    fn nobody(&mut self, now: Moment, id: u32) {
        let epoch = self.relay.epoch();
        if self.peers.get(id).is_some_and(|peer| peer.paths.is_alive(now, ALIVE_TIME)) {
            // It is there, and talks to us: it is the transfer that has lost it.
            return self.unvouched(now, id);
        }
        let Some(peer) = self.peers.get(id) else { return };
        if peer.claimed().is_some_and(|claim| claim.endpoint.is_some() && now.since(claim.at) < CLAIM_TIME) {
            // It said so itself a moment ago, on our own network.
            if peer.record.is_some() {
                // It was vouched for, and may have been reached by the relay alone.
                self.end_sessions(now, id);
            }
            return self.unvouched(now, id);
        }
        self.end_sessions(now, id);
        self.peers.set_record(id, None);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.lookup = None;
        peer.refresh = false;
        peer.called = false;
        peer.forget_claim();
        peer.keyring = None;
        peer.missing_since = None;
        (peer.learned_at, peer.transfer_epoch) = (Some(now), epoch);
        peer.absent_until = Some(now + ABSENT_TIME);
        while let Some(waiting) = self.peers.dequeue(id) {
            self.complain_unreachable(now, &waiting.bytes);
            self.drops.count(DropReason::HostUnreachable);
        }
        let ip4 = self.peers.get(id).map(|peer| peer.ip4);
        if let Some(ip4) = ip4 {
            self.verify_answers_that_claim(now, ip4);
        }
        self.tend_peer(now, id);
    }

    /// The transfer vouches for a peer no more that is reached without it.
    fn unvouched(&mut self, now: Moment, id: u32) {
        let epoch = self.relay.epoch();
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.lookup = None;
        peer.refresh = false;
        peer.missing_since = None;
        // As of this start of the transfer it is known: it is not asked again at once.
        (peer.learned_at, peer.transfer_epoch) = (Some(now), epoch);
        if let Some(record) = peer.record.take() {
            let endpoint = peer.paths.carrying().map(|path| path.endpoint);
            peer.claim(Claim { key: record.key, boot: record.boot, endpoint, at: now, proven: true });
            self.peers.forget_slot(id, record.slot);
        }
        self.tend_peer(now, id);
    }

    /// Tells the sender of a packet that waited in vain.
    pub(super) fn complain_unreachable(&mut self, now: Moment, packet: &[u8]) {
        if let Ok(inner) = ip::parse(packet) {
            self.complain(now, packet, &inner, Complaint::HostUnreachable);
        }
    }

    /// Changes may have been missed: every peer in use is asked for again.
    pub(super) fn refresh_peers(&mut self, now: Moment) {
        for id in self.peers.ids() {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.refresh = true;
                self.peers.timers.by(id, now);
            }
        }
    }
}
