//! Registration with the transfer: what is known of it, and when it has to be asked for a sign of life.
//!
//! A registration lives on a session of its own. While it is doubtful or gone, handshakes are tried each second, for ever and
//! at every address that the name resolves to; data goes on as before meanwhile, as the transfer may be the one that waits.
//! `register.rs` carries the handshake out.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use mesh_wire::message::{Message, RefusedReason, Target};
use mesh_wire::notice::{ErrorReason, ErrorReply, RegisterAgain};
use mesh_wire::route::Slot;
use rand::Rng;

use super::outside::is_from;
use super::paths::Path;
use super::peers::Peer;
use super::register::{Attempt, AttemptStage};
use super::stream::Fallback;
use super::{Event, Gateway};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment, SocketId};
use crate::session::PublicKey;
use crate::session::keyring::Established;
use crate::session::mac::Cookie;

/// Addresses of the transfer that count.
const ADDRESSES_MAX: usize = 16;
/// A sign of life is asked for at least this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// With traffic, it is asked for when nothing came for this time.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// How long after the last packet there is traffic.
const TRAFFIC_TIME: Duration = Duration::from_secs(30);
/// Least and most time that the answer to a keepalive may take; between them it is three times the last one took.
const ANSWER_LEAST: Duration = Duration::from_millis(300);
const ANSWER_MOST: Duration = Duration::from_secs(1);
/// Keepalives without an answer before a new handshake, after a hint that the transfer does not know us, and without one.
const MISSES_HINTED: u32 = 2;
const MISSES: u32 = 3;
/// Between two hints that count.
const HINT_INTERVAL: Duration = Duration::from_secs(1);
/// Silence that is told.
const SILENCE_TOLD: Duration = Duration::from_secs(5);
/// Registrations on one session without an answer before a new handshake: the transfer has forgotten the session.
const REGISTERS_UNANSWERED: u32 = 3;
/// Between two registrations on one session.
pub(super) const REGISTER_INTERVAL: Duration = Duration::from_secs(1);
/// Age at which the session gets new keys.
const REKEY_AFTER: Duration = Duration::from_secs(3600);

/// A session with the transfer.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) index: u32,
    pub(super) established: Established,
    pub(super) endpoint: Endpoint,
    /// One more than the counter of the newest word on whether the address is ours: older ones are outdated.
    pub(super) decided: u64,
    /// One more than the counter of the newest word on how many changes there were.
    pub(super) counted: u64,
}

/// What the transfer granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registration {
    pub(super) since: Moment,
    /// Where the transfer sees us. Over TCP it is an address on the transfer's own machine: nobody else can reach us there.
    pub(super) observed: SocketAddr,
}

/// Signs of life.
#[derive(Debug)]
pub(super) struct Keepalives {
    pub(super) seq: u32,
    /// When the one at hand was sent.
    pub(super) sent_at: Option<Moment>,
    /// Those before it that were not answered.
    pub(super) misses: u32,
    pub(super) hinted: bool,
    pub(super) hint_after: Moment,
    /// How long the last answer took.
    pub(super) took: Duration,
    /// The same; none before the first.
    pub(super) measured: Option<Duration>,
    /// Last word of any kind on the session.
    pub(super) said_at: Moment,
}

/// What the gateway knows of its transfer.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) addresses: Vec<SocketAddr>,
    /// Counts the inits: whose turn it is among the addresses.
    pub(super) turn: usize,
    pub(super) pinned: Option<PublicKey>,
    pub(super) control: Option<Control>,
    pub(super) attempt: Option<Attempt>,
    /// When the next handshake begins, if one is wanted.
    pub(super) attempt_at: Option<Moment>,
    /// Good over UDP.
    pub(super) cookie: Option<Cookie>,
    pub(super) fallback: Fallback,
    pub(super) registration: Option<Registration>,
    /// Whether there ever was one.
    pub(super) ever: bool,
    /// The last refusal that was told.
    pub(super) refused: Option<RefusedReason>,
    pub(super) register_at: Option<Moment>,
    /// Registrations since the last answer to one.
    pub(super) registers_unanswered: u32,
    /// Our slot, also while the registration is doubtful; none before the first, and after a refusal.
    pub(super) slot: Option<Slot>,
    pub(super) boot: Option<u64>,
    /// Counts the starts of the transfer that we saw; records of peers belong to one.
    pub(super) epoch: u32,
    pub(super) ticket: Bytes,
    pub(super) change: u32,
    pub(super) keepalives: Keepalives,
    pub(super) heard_at: Moment,
    pub(super) used_at: Option<Moment>,
    /// Since when there was no answer.
    pub(super) silent_since: Option<Moment>,
    pub(super) silence_told: bool,
    pub(super) version_told: bool,
    pub(super) key_told: bool,
}

impl Relay {
    /// `stream` is the socket by which a bridge to TCP is reached.
    pub(super) fn new(now: Moment, pinned: Option<PublicKey>, stream: Option<SocketId>) -> Self {
        Self {
            addresses: Vec::new(),
            turn: 0,
            pinned,
            control: None,
            attempt: None,
            attempt_at: Some(now + QUIET_TIME),
            cookie: None,
            fallback: Fallback::new(now, stream),
            registration: None,
            ever: false,
            refused: None,
            register_at: None,
            registers_unanswered: 0,
            slot: None,
            boot: None,
            epoch: 1,
            ticket: Bytes::new(),
            change: 0,
            keepalives: Keepalives {
                seq: 0,
                sent_at: None,
                misses: 0,
                hinted: false,
                hint_after: now,
                took: ANSWER_MOST,
                measured: None,
                said_at: now,
            },
            heard_at: now,
            used_at: None,
            silent_since: Some(now),
            silence_told: false,
            version_told: false,
            key_told: false,
        }
    }

    pub(super) fn pinned(&self) -> Option<PublicKey> {
        self.pinned
    }

    /// Whether it answers, as far as we know.
    pub(super) fn is_healthy(&self) -> bool {
        self.registration.is_some() && self.attempt.is_none() && self.keepalives.misses == 0
    }

    /// Which start of the transfer is the present one.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Where the transfer is and which slot is ours, as far as we know.
    pub(super) fn place(&self) -> Option<(Endpoint, Slot)> {
        Some((self.control.as_ref()?.endpoint, self.slot?))
    }

    /// The way to a peer through the transfer.
    pub(super) fn path_to(&self, peer: &Peer) -> Option<Path> {
        let (endpoint, ours) = self.place()?;
        Some(Path::relayed(endpoint, ours, peer.slot()?))
    }

    pub(super) fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    pub(super) fn refused_reason(&self) -> Option<RefusedReason> {
        self.refused
    }

    /// # Errors
    /// [`DropReason::UnknownEndpoint`] when `from` is not the transfer's.
    pub(super) fn check_source(&self, from: &Endpoint) -> Result<(), DropReason> {
        let control = self.control.as_ref().map(|control| &control.endpoint);
        let attempt = self.attempt.as_ref().and_then(Attempt::endpoint);
        if is_from(from, control) || is_from(from, attempt) {
            return Ok(());
        }
        let beside = self.fallback.beside();
        if beside.iter().any(|beside| is_from(from, *beside)) { Ok(()) } else { Err(DropReason::UnknownEndpoint) }
    }

    /// Whether `from` is an address at which the transfer may be.
    pub(super) fn is_candidate(&self, from: &Endpoint) -> bool {
        self.check_source(from).is_ok()
            || self.addresses.contains(&from.remote)
            || is_from(from, self.fallback.endpoint().as_ref())
    }

    /// Something authentic came from the transfer, or through it.
    pub(super) fn heard(&mut self, now: Moment) {
        self.heard_at = now;
    }

    /// A packet passed, or wants to.
    pub(super) fn used(&mut self, now: Moment) {
        self.used_at = Some(now);
    }

    fn in_use(&self, now: Moment) -> bool {
        self.used_at.is_some_and(|at| now.since(at) < TRAFFIC_TIME)
    }

    /// The transfer took this long for an answer.
    pub(super) fn answered_within(&mut self, took: Duration) {
        self.keepalives.took = took;
        self.keepalives.measured = Some(took);
    }

    fn answer_time(&self) -> Duration {
        (self.keepalives.took * 3).clamp(ANSWER_LEAST, ANSWER_MOST)
    }

    /// When a keepalive is due, or overdue.
    fn keepalive_at(&self) -> Option<Moment> {
        self.registration?;
        // Where the registration is about to be, another word goes each second anyhow.
        if self.attempt.is_some() || self.fallback.told_at().is_some() {
            return None;
        }
        if let Some(sent) = self.keepalives.sent_at {
            let wait =
                if self.keepalives.hinted && self.keepalives.misses == 0 { ANSWER_LEAST } else { self.answer_time() };
            return Some(sent + wait);
        }
        let idle = self.keepalives.said_at + KEEPALIVE_INTERVAL;
        // While nothing is sent, silence is no sign of anything.
        let quiet =
            self.used_at.map(|used| (self.heard_at.max(self.keepalives.said_at) + QUIET_TIME, used + TRAFFIC_TIME));
        Some(match quiet {
            Some((quiet, until)) if quiet < until => quiet.min(idle),
            _ => idle,
        })
    }

    /// When the session gets new keys. A handshake that failed is repeated in its own time.
    fn rekey_at(&self) -> Option<Moment> {
        let control = self.control.as_ref().filter(|_| self.attempt.is_none() && self.attempt_at.is_none())?;
        Some(control.established.created() + REKEY_AFTER)
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let attempt = self.attempt.as_ref().map(Attempt::next_timeout);
        let begin = if self.attempt.is_none() { self.attempt_at } else { None };
        let told = if self.silence_told { None } else { self.silent_since.map(|since| since + SILENCE_TOLD) };
        let stream = self.stream_timeout();
        [attempt, begin, self.register_at, self.keepalive_at(), self.rekey_at(), told, stream]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Gateway {
    pub(super) fn relay_set_addresses(&mut self, now: Moment, addresses: &[SocketAddr]) {
        let usable = |remote: &&SocketAddr| self.sockets.endpoint(**remote).is_some();
        let addresses: Vec<SocketAddr> = addresses.iter().filter(usable).take(ADDRESSES_MAX).copied().collect();
        if addresses.is_empty() || addresses == self.relay.addresses {
            return;
        }
        self.relay.addresses = addresses;
        self.relay.turn = 0;
        match &mut self.relay.attempt {
            Some(attempt) if matches!(attempt.stage, AttemptStage::Waiting { .. }) => attempt.next_at = now,
            Some(_) => {}
            None if self.relay.control.is_none() => self.relay.attempt_at = Some(now),
            None => {}
        }
        self.tend_relay(now);
    }

    /// The network outside is another than before, or has come back: the transfer is asked for a sign of life at once, or a handshake
    /// goes on at once.
    pub(super) fn relay_network_changed(&mut self, now: Moment) {
        if self.stopped {
            return;
        }
        match &mut self.relay.attempt {
            Some(attempt) => match attempt.stage {
                AttemptStage::Waiting { .. } | AttemptStage::Registering { .. } => attempt.next_at = now,
                AttemptStage::Starting | AttemptStage::Finishing { .. } => {}
            },
            None if self.relay.registration.is_some() => {
                self.relay.keepalives.hinted = true;
                self.send_keepalive(now);
            }
            None => self.relay.attempt_at = Some(now),
        }
        self.tend_relay(now);
    }

    /// Does what time asks for.
    pub(super) fn tend_relay(&mut self, now: Moment) {
        if self.stopped {
            return;
        }
        self.tend_attempt(now);
        self.tend_stream(now);
        if self.relay.keepalive_at().is_some_and(|at| at <= now) {
            self.keepalive_due(now);
        }
        if self.relay.register_at.is_some_and(|at| at <= now) {
            self.register_due(now);
        }
        if self.relay.rekey_at().is_some_and(|at| at <= now) {
            self.begin_attempt(now);
        }
        if !self.relay.silence_told && self.relay.silent_since.is_some_and(|since| now.since(since) >= SILENCE_TOLD) {
            self.relay.silence_told = true;
            let tried = self.relay.addresses.clone();
            self.tell(Event::TransferSilent { tried });
        }
    }

    /// Asks for the address once more, on the session there is; on a new one when that is not answered.
    fn register_due(&mut self, now: Moment) {
        self.relay.register_at = Some(now + REGISTER_INTERVAL);
        if self.relay.attempt.is_some() {
            return;
        }
        if self.relay.registers_unanswered >= REGISTERS_UNANSWERED {
            self.relay.registers_unanswered = 0;
            self.begin_attempt(now);
            return;
        }
        self.relay.registers_unanswered += 1;
        let register = self.register_message();
        self.send_to_transfer(now, &register);
    }

    fn keepalive_due(&mut self, now: Moment) {
        let over_stream = self.relay.is_over_stream();
        let keepalives = &mut self.relay.keepalives;
        if let Some(sent) = keepalives.sent_at.take() {
            keepalives.misses += 1;
            let most = if keepalives.hinted { MISSES_HINTED } else { MISSES };
            let misses = keepalives.misses;
            self.relay.silent_since.get_or_insert(now);
            if !over_stream {
                self.relay.fallback.udp_unanswered(sent);
            }
            if misses >= most {
                if over_stream {
                    self.renew_stream(now, Duration::ZERO);
                }
                self.relay.attempt_at = Some(now);
                self.tend_attempt(now);
                return;
            }
            self.tell(Event::ResolveTransfer);
        }
        self.send_keepalive(now);
    }

    fn send_keepalive(&mut self, now: Moment) {
        let keepalives = &mut self.relay.keepalives;
        keepalives.seq = keepalives.seq.wrapping_add(1);
        keepalives.sent_at = Some(now);
        let keepalive = Message::Keepalive { seq: keepalives.seq, change: self.relay.change };
        self.send_to_transfer(now, &keepalive);
    }

    /// A hint that the transfer could not place a frame of ours. It costs one keepalive a second; without a registration, where a
    /// request for one is unanswered, one handshake.
    pub(super) fn handle_register_again(&mut self, now: Moment, _notice: &RegisterAgain) {
        let in_use = self.relay.in_use(now);
        let keepalives = &mut self.relay.keepalives;
        if now < keepalives.hint_after || self.relay.attempt.is_some() {
            return;
        }
        keepalives.hint_after = now + HINT_INTERVAL;
        if self.relay.registration.is_none() {
            if self.relay.registers_unanswered > 0 && self.relay.attempt_at.is_none() {
                self.relay.registers_unanswered = 0;
                self.begin_attempt(now);
            }
            return;
        }
        keepalives.hinted = in_use || keepalives.hinted;
        if keepalives.sent_at.is_none() {
            self.send_keepalive(now);
        }
    }

    /// An unsealed error from where the transfer may be.
    pub(super) fn relay_told_error(&mut self, error: &ErrorReply) {
        match error.reason {
            ErrorReason::Version if !self.relay.version_told => {
                self.relay.version_told = true;
                let (lowest, highest) = (error.version_lowest, error.version_highest);
                self.tell(Event::VersionMismatch { lowest, highest });
            }
            ErrorReason::Version | ErrorReason::Busy => {}
        }
    }

    pub(super) fn register_message(&mut self) -> Message {
        Message::Register {
            request: self.rng.next_u32(),
            boot: self.boot,
            ip4: self.network.ip4(),
            name: self.name.clone(),
            ticket: self.relay.ticket.clone(),
        }
    }

    /// Seals a message for the transfer, if there is a session.
    pub(super) fn send_to_transfer(&mut self, now: Moment, message: &Message) {
        let to = self.relay.fallback.told_at().or(self.relay.control.as_ref().map(|control| control.endpoint));
        if to.is_some_and(|to| self.seal_for_transfer(message, to)) {
            self.relay.keepalives.said_at = now;
        }
    }

    /// Asks the transfer who holds an address or a slot.
    pub(super) fn ask_transfer(&mut self, now: Moment, request: u32, target: Target) {
        if self.relay.registration.is_some() {
            self.send_to_transfer(now, &Message::Lookup { request, target });
        }
    }
}
