//! What the transfer says under its session.

use std::net::SocketAddr;

use mesh_wire::message::{Message, RefusedReason};
use mesh_wire::route::Slot;
use mesh_wire::sealed::HEADER_BYTES;

use super::outside::{is_from, refused};
use super::register::{Attempt, AttemptStage};
use super::relay::{REGISTER_INTERVAL, Registration};
use super::{Event, Gateway};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment};

impl Gateway {
    /// Takes a control frame under the session `index` with a transfer.
    pub(super) fn handle_transfer_control(
        &mut self,
        now: Moment,
        from: &Endpoint,
        index: u32,
        counter: u64,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let by_udp = self.relay.is_udp_beside_stream(from);
        let from_beside = by_udp || self.relay.was_at(from);
        let control = self.relay.control.as_mut().filter(|control| control.index == index);
        let (established, endpoint, fresh) = match (control, &mut self.relay.attempt) {
            (Some(control), _) => (&mut control.established, control.endpoint, false),
            (
                None,
                Some(Attempt { stage: AttemptStage::Registering { established, endpoint, .. }, index: own, .. }),
            ) if *own == index => (&mut **established, *endpoint, true),
            _ => return Err(DropReason::UnknownSession),
        };
        let at_home = is_from(from, Some(&endpoint));
        if !at_home && (fresh || !from_beside) {
            return Err(DropReason::WrongEndpoint);
        }
        let (head, body) = datagram.split_at_mut(HEADER_BYTES);
        let bytes = established.open(counter, head, body).map_err(refused)?;
        let message = Message::decode(&body[..bytes]).map_err(|_| DropReason::Malformed)?;
        let message = message.ok_or(DropReason::UnknownMessage)?;
        if fresh {
            // The transfer has the keys: this session it is from here on.
            self.adopt_attempt(now);
        } else if by_udp && !self.heard_by_udp(now, from, &message)? {
            return Ok(());
        }
        self.relay.heard(now);
        if !self.relay.fallback.carries(from) {
            self.relay.fallback.udp_answered();
        }
        let taken = self.handle_transfer_message(now, counter, message);
        self.end_stream();
        taken
    }

    fn handle_transfer_message(&mut self, now: Moment, counter: u64, message: Message) -> Result<(), DropReason> {
        match message {
            Message::Registered { slot, observed, boot, change, ticket, other_port, .. } => {
                self.check_decided(counter)?;
                self.relay.ticket = ticket;
                // Changes of this registration that overtook its first word were numbered from there.
                let change = if self.check_counted(counter) { change } else { self.relay.change };
                self.registered(now, slot, observed, boot, change);
                self.observer_named(now, other_port);
            }
            Message::Refused { reason, .. } => {
                self.check_decided(counter)?;
                self.registration_refused(now, reason);
            }
            Message::KeepaliveAck { seq, observed, boot, change } => {
                let change = if self.check_counted(counter) { change } else { self.relay.change };
                self.keepalive_answered(now, seq, observed, boot, change);
            }
            Message::Probe { seq } => self.send_to_transfer(now, &Message::ProbeReply { seq }),
            Message::Found { request, peer, change } => {
                if self.peers.has_changed_since(peer.ip4, change) {
                    // A change overtook it.
                    return Err(DropReason::Outdated);
                }
                if self.callers.asked(peer.slot, request) && !self.can_be_peer(peer.ip4) {
                    self.nobody_at(now, peer.slot);
                }
                self.found(now, peer);
            }
            Message::SearchGrant { request, target, seconds } => {
                return self.search_granted(now, request, target, seconds);
            }
            Message::SearchRefused { request, wait_seconds } => {
                return self.search_refused(now, request, wait_seconds);
            }
            Message::NotFound { request, target } => self.not_found(now, request, target),
            Message::Change { number, ip4, peer } => {
                // Those that come late were made up for by asking.
                let ahead = number.wrapping_sub(self.relay.change);
                if ahead == 0 || ahead > u32::MAX / 2 {
                    return Err(DropReason::Duplicate);
                }
                self.check_counted(counter);
                self.relay.change = number;
                if ahead > 1 {
                    self.refresh_peers(now);
                }
                self.changed(now, number, ip4, peer);
            }
            Message::Hello { .. }
            | Message::Welcome { .. }
            | Message::Register { .. }
            | Message::Keepalive { .. }
            | Message::Lookup { .. }
            | Message::Goodbye
            | Message::Identity { .. }
            | Message::Confirm { .. }
            | Message::ProbeReply { .. }
            | Message::Close { .. }
            | Message::Candidates { .. }
            | Message::Presence { .. }
            | Message::PathProbe { .. }
            | Message::PathReply { .. }
            | Message::SizeProbe { .. }
            | Message::SizeReply { .. }
            | Message::SearchRequest { .. }
            | Message::SearchBegin { .. }
            | Message::SearchReady { .. } => return Err(DropReason::UnknownMessage),
        }
        Ok(())
    }

    /// # Errors
    /// [`DropReason::Outdated`] when a newer word on whether the address is ours was heard on this session.
    fn check_decided(&mut self, counter: u64) -> Result<(), DropReason> {
        let control = self.relay.control.as_mut().ok_or(DropReason::UnknownSession)?;
        if counter < control.decided {
            return Err(DropReason::Outdated);
        }
        control.decided = counter + 1;
        self.relay.registers_unanswered = 0;
        Ok(())
    }

    /// Whether no newer word on the number of changes was heard on this session.
    fn check_counted(&mut self, counter: u64) -> bool {
        let Some(control) = &mut self.relay.control else { return false };
        let newest = counter >= control.counted;
        control.counted = control.counted.max(counter + 1);
        newest
    }

    fn registered(&mut self, now: Moment, slot: Slot, observed: SocketAddr, boot: u64, change: u32) {
        let Some(control) = &self.relay.control else { return };
        let transfer = self.relay.shown(&control.endpoint).unwrap_or(control.endpoint.remote);
        let news = self.relay.registration.is_none() || self.relay.slot != Some(slot) || self.relay.boot != Some(boot);
        let first = !self.relay.ever;
        if news || self.relay.change != change {
            // Changes are counted anew, or some were missed.
            self.peers.forget_changes();
        }
        if self.relay.boot != Some(boot) {
            // Slots of its earlier start mean nothing: every peer has to be found again.
            self.relay.boot = Some(boot);
            self.relay.epoch = self.relay.epoch.wrapping_add(1);
            self.relay.change = change;
            self.peers.forget_slots();
        } else if self.relay.change != change {
            self.relay.change = change;
            self.refresh_peers(now);
        }
        self.relay.slot = Some(slot);
        self.relay.ever = true;
        self.relay.refused = None;
        self.relay.register_at = None;
        self.relay.version_told = false;
        self.relay.key_told = false;
        self.relay.silent_since = None;
        if self.relay.registration.is_some_and(|before| before.observed != observed) {
            self.moved(now);
        }
        let since = self.relay.registration.filter(|_| !news).map_or(now, |registration| registration.since);
        self.relay.registration = Some(Registration { since, observed });
        self.life_shown();
        if std::mem::take(&mut self.relay.silence_told) {
            self.tell(Event::TransferBack);
        }
        if news {
            self.tell(Event::Registered { transfer, observed, slot, first });
        }
        self.collect_candidates(now);
        for id in self.peers.ids() {
            self.peers.timers.by(id, now);
        }
        self.tend_answers(now);
    }

    /// The transfer sees us elsewhere: what others saw before is of another mapping.
    fn moved(&mut self, now: Moment) {
        self.candidates.forget_seen();
        self.observe(now);
    }

    fn registration_refused(&mut self, now: Moment, reason: RefusedReason) {
        let told = self.relay.refused.replace(reason) == Some(reason);
        self.relay.registration = None;
        self.relay.slot = None;
        self.relay.register_at = Some(now + REGISTER_INTERVAL);
        self.relay.silent_since = None;
        self.life_shown();
        if !told {
            let (ip4, first) = (self.network.ip4(), !self.relay.ever);
            self.tell(Event::Refused { reason, ip4, first });
        }
    }

    fn keepalive_answered(&mut self, now: Moment, seq: u32, observed: SocketAddr, boot: u64, change: u32) {
        let keepalives = &mut self.relay.keepalives;
        if let Some(sent) = keepalives.sent_at
            && keepalives.seq == seq
        {
            let took = now.since(sent);
            (keepalives.took, keepalives.measured) = (took, Some(took));
        }
        self.life_shown();
        self.relay.silent_since = None;
        if std::mem::take(&mut self.relay.silence_told) {
            self.tell(Event::TransferBack);
        }
        let waiting = |attempt: &Attempt| matches!(attempt.stage, AttemptStage::Waiting { .. });
        if self.relay.attempt.as_ref().is_some_and(waiting) {
            // It was only slow.
            self.drop_attempt();
        }
        self.relay.attempt_at = None;
        let before = self.relay.registration.as_mut().map(|old| std::mem::replace(&mut old.observed, observed));
        if before.is_some_and(|before| before != observed) {
            self.moved(now);
            self.collect_candidates(now);
        }
        if self.relay.boot != Some(boot) {
            self.relay.attempt_at = Some(now);
        } else if self.relay.change != change {
            self.relay.change = change;
            self.refresh_peers(now);
        }
    }

    fn life_shown(&mut self) {
        let keepalives = &mut self.relay.keepalives;
        keepalives.sent_at = None;
        keepalives.misses = 0;
        keepalives.hinted = false;
    }
}
