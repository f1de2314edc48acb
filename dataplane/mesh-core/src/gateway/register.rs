//! The handshake with the transfer, with the registration in its last message.

use std::time::Duration;

use mesh_wire::cookie::CookieReply;
use mesh_wire::handshake::{self as wire, Final, Init, Response};
use mesh_wire::route::{Destination, Route, Slot};

use super::addresses::same;
use super::handshake::{RETRANSMIT_FIRST, RETRANSMIT_MOST, chosen, failure, job_id};
use super::indexes::Owner;
use super::relay::{Control, REGISTER_INTERVAL};
use super::stream::HEAD_START;
use super::timers::backoff;
use super::{Event, Gateway, Outgoing};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment};
use crate::session::PublicKey;
use crate::session::handshake::{HandshakeError, Initiator, InitiatorFinished, Kind, Params};
use crate::session::jobs::{Job, Outcome};
use crate::session::keyring::Established;
use crate::session::mac::{self, Cookie};

/// Between two inits.
const INIT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two inits to different addresses, in the first round.
const NEXT_ADDRESS_INTERVAL: Duration = Duration::from_millis(250);
/// A handshake is begun anew after this time: the transfer remembers one for 5 s.
const ATTEMPT_TIME: Duration = Duration::from_secs(4);

/// A handshake with the transfer.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) index: u32,
    pub(super) stage: AttemptStage,
    since: Moment,
    /// How often the message at hand was sent.
    tries: u32,
    pub(super) next_at: Moment,
    /// When message 1 goes over the stream too; `None`: there is no stream, or message 1 is answered.
    pub(super) stream_at: Option<Moment>,
}

#[derive(Debug)]
pub(super) enum AttemptStage {
    /// Message 1 is being made.
    Starting,
    /// Message 1 is on its way. `asked` is the first MAC of the last one, to which a cookie belongs; `cookies` counts those.
    Waiting { initiator: Initiator, noise: Vec<u8>, asked: [u8; 16], cookies: u32 },
    /// Message 2 is being read.
    Finishing { noise: Vec<u8>, remote_index: u32, endpoint: Endpoint },
    /// Message 3 is on its way; the session exists.
    Registering { noise: Vec<u8>, established: Box<Established>, endpoint: Endpoint, key: PublicKey },
}

impl Attempt {
    /// When there is something to do for it.
    pub(super) fn next_timeout(&self) -> Moment {
        self.stream_at.map_or(self.next_at, |at| at.min(self.next_at))
    }

    /// The address that answered.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        match &self.stage {
            AttemptStage::Starting | AttemptStage::Waiting { .. } => None,
            AttemptStage::Finishing { endpoint, .. } | AttemptStage::Registering { endpoint, .. } => Some(endpoint),
        }
    }

    /// The same, to be changed.
    pub(super) fn endpoint_mut(&mut self) -> Option<&mut Endpoint> {
        match &mut self.stage {
            AttemptStage::Starting | AttemptStage::Waiting { .. } => None,
            AttemptStage::Finishing { endpoint, .. } | AttemptStage::Registering { endpoint, .. } => Some(endpoint),
        }
    }
}

impl Gateway {
    /// Begins, repeats or gives up the handshake with the transfer.
    pub(super) fn tend_attempt(&mut self, now: Moment) {
        let Some(attempt) = &self.relay.attempt else {
            if self.relay.attempt_at.is_some_and(|at| at <= now) {
                self.begin_attempt(now);
            }
            return;
        };
        if attempt.stream_at.is_some_and(|at| at <= now) {
            self.send_init_over_stream(now);
            return self.tend_attempt(now);
        }
        if attempt.next_at > now {
            return;
        }
        if now.since(attempt.since) >= ATTEMPT_TIME {
            self.drop_attempt();
            // Whatever there is at the other end of the stream, it does not answer.
            self.renew_stream(now, ATTEMPT_TIME);
            self.begin_attempt(now);
            return;
        }
        match attempt.stage {
            AttemptStage::Waiting { .. } => {
                self.send_init(now);
                self.tell(Event::ResolveTransfer);
            }
            AttemptStage::Registering { .. } => self.send_final(now),
            AttemptStage::Starting | AttemptStage::Finishing { .. } => {
                if let Some(attempt) = &mut self.relay.attempt {
                    attempt.next_at = now + RETRANSMIT_MOST;
                }
            }
        }
    }

    pub(super) fn begin_attempt(&mut self, now: Moment) {
        self.drop_attempt();
        self.relay.silent_since.get_or_insert(now);
        if self.relay.registration().is_none() {
            self.tell(Event::ResolveTransfer);
        }
        // Until then there is nothing to try, or no room.
        self.relay.attempt_at = Some(now + INIT_INTERVAL);
        if self.relay.addresses.is_empty() || !self.has_room_for_job() {
            return;
        }
        let Some(index) = self.indexes.allocate(Owner::Registering, &mut self.rng) else { return };
        let params = Params::new(Kind::GatewayToTransfer, &self.keys, &self.static_key, self.rng.secret());
        let hello = self.next_hello();
        self.jobs.push_back(Job::initiator_start(job_id(index), params, hello));
        let next_at = now + RETRANSMIT_MOST;
        let stage = AttemptStage::Starting;
        self.relay.attempt = Some(Attempt { index, stage, since: now, tries: 0, next_at, stream_at: None });
    }

    pub(super) fn drop_attempt(&mut self) {
        if let Some(attempt) = self.relay.attempt.take() {
            self.indexes.release(attempt.index);
        }
    }

    /// The session of the attempt takes the place of the one before.
    pub(super) fn adopt_attempt(&mut self, now: Moment) {
        let Some(Attempt { index, stage, since, tries, .. }) = self.relay.attempt.take() else { return };
        let AttemptStage::Registering { established, endpoint, key, .. } = stage else { return };
        if tries == 1 {
            self.relay.answered_within(now.since(since));
        }
        self.indexes.hand_over(index, Owner::Control);
        self.relay.pinned.get_or_insert(key);
        self.relay.attempt_at = None;
        // What adopts it may be any word under its keys. Until the registration is answered it is asked for.
        self.relay.register_at = Some(now + REGISTER_INTERVAL);
        self.relay.registers_unanswered = 0;
        let control = Control { index, established: *established, endpoint, decided: 0, counted: 0 };
        if let Some(old) = self.relay.control.replace(control) {
            self.indexes.release(old.index);
            if !same(&old.endpoint, &endpoint) {
                self.relay.leave(now, old.endpoint);
            }
        }
        self.stream_took_over(now);
    }

    /// Sends message 1 to the address whose turn it is.
    fn send_init(&mut self, now: Moment) {
        let (turn, addresses) = (self.relay.turn, self.relay.addresses.len());
        let Some(attempt) = &mut self.relay.attempt else { return };
        if !matches!(attempt.stage, AttemptStage::Waiting { .. }) {
            return;
        }
        let first_round = usize::try_from(attempt.tries).is_ok_and(|tries| tries + 1 < addresses);
        attempt.next_at = now + if first_round { NEXT_ADDRESS_INTERVAL } else { INIT_INTERVAL };
        attempt.tries += 1;
        if addresses == 0 {
            return;
        }
        let Some(to) = self.sockets.endpoint(self.relay.addresses[turn % addresses]) else { return };
        self.relay.turn = turn.wrapping_add(1);
        self.relay.fallback.udp_asked(now, addresses);
        self.emit_init(to);
    }

    /// Sends message 1 over the stream. It is the same message: what answers first is taken.
    fn send_init_over_stream(&mut self, now: Moment) {
        let to = self.relay.fallback.endpoint();
        let Some(attempt) = &mut self.relay.attempt else { return };
        let to = to.filter(|_| matches!(attempt.stage, AttemptStage::Waiting { .. }));
        attempt.stream_at = to.map(|_| now + INIT_INTERVAL);
        if let Some(to) = to {
            self.emit_init(to);
        }
    }

    fn emit_init(&mut self, to: Endpoint) {
        let source = self.relay.place().map_or(Slot::NONE, |(_, slot)| slot);
        let over_stream = self.relay.fallback.carries(&to);
        let cookie = if over_stream { &self.relay.fallback.cookie } else { &self.relay.cookie };
        let Some(Attempt { index, stage: AttemptStage::Waiting { noise, asked, .. }, .. }) = &mut self.relay.attempt
        else {
            return;
        };
        let route = Route { destination: Destination::RECEIVER, source };
        let mac1 = |bytes: &[u8]| mac::mac1(&self.keys, bytes);
        let mac2 = |bytes: &[u8]| cookie.as_ref().map_or([0; 16], |cookie| mac::mac2(cookie, bytes));
        let bytes = Init::emit(&route, *index, wire::Kind::GatewayToTransfer, noise, mac1, mac2);
        if let Ok(init) = Init::parse(&bytes) {
            *asked = init.mac1;
        }
        self.push(Outgoing::Send { bytes: bytes.to_vec(), to });
    }

    fn send_final(&mut self, now: Moment) {
        let Some(attempt) = &mut self.relay.attempt else { return };
        let AttemptStage::Registering { noise, established, endpoint, .. } = &attempt.stage else { return };
        attempt.next_at = now + backoff(RETRANSMIT_FIRST, RETRANSMIT_MOST, attempt.tries);
        attempt.tries += 1;
        let (to, index) = (*endpoint, established.remote_index());
        let mut bytes = Vec::new();
        let mac1 = |bytes: &[u8]| mac::mac1(&self.keys, bytes);
        Final::emit(&mut bytes, &Route::DIRECT, index, wire::Kind::GatewayToTransfer, noise, mac1);
        self.push(Outgoing::Send { bytes, to });
    }

    /// Takes a cookie of the transfer, and shows it at once.
    pub(super) fn handle_cookie(
        &mut self,
        now: Moment,
        from: &Endpoint,
        reply: &CookieReply,
    ) -> Result<(), DropReason> {
        if !self.relay.is_candidate(from) {
            return Err(DropReason::UnknownEndpoint);
        }
        let attempt = self.relay.attempt.as_mut().filter(|attempt| attempt.index == reply.receiver_index);
        let Some(Attempt { stage: AttemptStage::Waiting { asked, cookies, .. }, .. }) = attempt else {
            return Err(DropReason::UnknownHandshake);
        };
        let cookie = Cookie::open(&self.keys, reply.nonce, asked, &reply.sealed).ok_or(DropReason::NotAuthentic)?;
        *cookies += 1;
        // More than one to each address is a transfer that does not take its own: that is left to the timer.
        let ways = self.relay.addresses.len() + usize::from(self.relay.fallback.endpoint().is_some());
        let at_once = usize::try_from(*cookies).is_ok_and(|cookies| cookies <= ways);
        if self.relay.fallback.carries(from) {
            self.relay.fallback.cookie = Some(cookie);
            if at_once {
                self.send_init_over_stream(now);
            }
            return Ok(());
        }
        self.relay.cookie = Some(cookie);
        self.relay.fallback.udp_answered();
        let asked_at = self.relay.addresses.iter().position(|address| *address == from.remote);
        if at_once && let Some(at) = asked_at {
            self.relay.turn = at;
            self.send_init(now);
        }
        Ok(())
    }

    /// Takes message 2 of the handshake with the transfer.
    pub(super) fn handle_transfer_response(
        &mut self,
        now: Moment,
        from: &Endpoint,
        response: &Response<'_>,
    ) -> Result<(), DropReason> {
        let by_udp = self.relay.addresses.contains(&from.remote).then(|| self.sockets.endpoint(from.remote)).flatten();
        let may_be = [by_udp, self.relay.fallback.endpoint()];
        let endpoint = may_be.into_iter().flatten().find(|endpoint| same(from, endpoint));
        let endpoint = endpoint.ok_or(DropReason::UnknownEndpoint)?;
        if !self.has_room_for_job() {
            return Err(DropReason::Busy);
        }
        let register = self.register_message().to_padded_vec();
        let attempt = self.relay.attempt.as_mut().filter(|attempt| attempt.index == response.receiver_index);
        let attempt = attempt.ok_or(DropReason::UnknownHandshake)?;
        if !matches!(attempt.stage, AttemptStage::Waiting { .. }) {
            return Err(DropReason::Duplicate);
        }
        let stage = std::mem::replace(&mut attempt.stage, AttemptStage::Starting);
        let AttemptStage::Waiting { initiator, noise, .. } = stage else { return Err(DropReason::Duplicate) };
        attempt.stage = AttemptStage::Finishing { noise, remote_index: response.sender_index, endpoint };
        (attempt.next_at, attempt.stream_at) = (now + RETRANSMIT_MOST, None);
        if !self.relay.fallback.carries(&endpoint) {
            self.relay.fallback.udp_answered();
        }
        let (job, noise) = (job_id(attempt.index), response.noise.to_vec());
        self.jobs.push_back(Job::initiator_finish(job, initiator, noise, register, self.relay.pinned));
        Ok(())
    }

    /// A step of the handshake with the transfer was run.
    pub(super) fn registering_done(&mut self, now: Moment, index: u32, outcome: Outcome) {
        let Some(attempt) = self.relay.attempt.as_mut().filter(|attempt| attempt.index == index) else { return };
        match outcome {
            Outcome::InitiatorStarted { noise, initiator } => {
                attempt.stage = AttemptStage::Waiting { initiator, noise, asked: [0; 16], cookies: 0 };
                attempt.stream_at = self.relay.fallback.endpoint().map(|_| now + HEAD_START);
                self.send_init(now);
            }
            Outcome::InitiatorFinished(finished) => self.transfer_answered(now, finished),
            Outcome::Failed { error, initiator, .. } => {
                self.drops.count(failure(error));
                if let AttemptStage::Finishing { noise, .. } = &mut attempt.stage
                    && let Some(initiator) = initiator
                {
                    let noise = std::mem::take(noise);
                    attempt.stage = AttemptStage::Waiting { initiator, noise, asked: [0; 16], cookies: 0 };
                    return;
                }
                self.drop_attempt();
                self.relay.attempt_at = Some(now + INIT_INTERVAL);
                if error == HandshakeError::WrongKey && !std::mem::replace(&mut self.relay.key_told, true) {
                    self.tell(Event::TransferKeyChanged);
                }
            }
            Outcome::ResponderAnswered(_) | Outcome::ResponderFinished(_) => {}
        }
    }

    fn transfer_answered(&mut self, now: Moment, finished: InitiatorFinished) {
        let Some(attempt) = &mut self.relay.attempt else { return };
        let (AttemptStage::Finishing { remote_index, endpoint, .. }, Some(cipher)) =
            (&attempt.stage, chosen(&finished.welcome, self.ciphers))
        else {
            self.drops.count(DropReason::HandshakeFailed);
            self.drop_attempt();
            self.relay.attempt_at = Some(now + INIT_INTERVAL);
            return;
        };
        let established = Established::new(attempt.index, *remote_index, true, &finished.split.keys(cipher), now);
        attempt.stage = AttemptStage::Registering {
            noise: finished.noise,
            established: Box::new(established),
            endpoint: *endpoint,
            key: finished.remote,
        };
        attempt.tries = 0;
        attempt.since = now;
        self.send_final(now);
    }
}
