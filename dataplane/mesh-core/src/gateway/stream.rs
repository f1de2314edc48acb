//! The transfer over TCP, where UDP gets no answer.
//!
//! TCP itself is the program's: a *bridge* there passes frames between a connection to the transfer and a socket of its
//! own on a loopback address, so that here the stream is one more endpoint, by a socket that serves nothing else
//! ([`Sockets::stream`](super::Sockets::stream)). What happens:
//!
//! 1. For 2 s UDP gets no answer, to inits at every address or to the keepalives of a registration: a bridge is asked
//!    for.
//! 2. When it stands, UDP is asked once more, and a moment later the stream: what answers first has the registration.
//!    It is the same member that registers again, so it keeps its slot, and its peers notice nothing.
//! 3. While the stream has it, UDP is tried every 20 s: by a keepalive, on the session there is. The transfer answers
//!    what a member says elsewhere by a question there. That it came is proof that UDP works both ways; our answer
//!    moves the registration, and what the transfer says next by UDP is proof of that. Until then data stays on the
//!    stream.
//! 4. What is still on its way over the stream counts for five seconds more, on both sides; then the bridge is not
//!    wanted any more.
//!
//! A transfer that is down looks the same as a network that lets no UDP pass until TCP is tried: so nothing here stands
//! in the way of the handshakes over UDP, which go on every second.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_wire::message::Message;
use mesh_wire::route::{Destination, Route, Slot};

use super::outside::is_from;
use super::register::{Attempt, AttemptStage};
use super::relay::Relay;
use super::{Event, Gateway, Outgoing, control};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment, SocketId};
use crate::session::mac::Cookie;

/// For how long UDP may give no answer before the stream is wanted: two handshakes at least have been tried by then.
const UDP_PATIENCE: Duration = Duration::from_secs(2);
/// What of that is left to the address that is asked last.
const LAST_PATIENCE: Duration = Duration::from_millis(500);
/// How long after UDP the stream is asked, when both could be there at last: a transfer that starts anew answers by
/// either.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);
/// Between two rounds in which UDP is tried at every address.
const TRIAL_INTERVAL: Duration = Duration::from_secs(20);
/// The first one after the registration came to the stream. It may have done so because the transfer was away, not UDP.
const FIRST_TRIAL: Duration = Duration::from_secs(1);
/// UDP that was left sooner than this is tried at the long interval only: it works now and then, which is worse than a
/// stream.
const STEADY: Duration = Duration::from_secs(60);
/// Between two addresses of a round, and between two words to one that has answered.
const NEXT_TRIAL: Duration = Duration::from_secs(1);
/// Words to an address that has answered and is then silent, before it is taken to have none.
const TRIAL_REPEATS: u32 = 3;
/// For how long frames are taken that were on their way to where the registration was before.
pub(super) const FORMER_LIFE: Duration = Duration::from_secs(5);

/// A bridge to the transfer over TCP that is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The address of its UDP socket, to which [`Sockets::stream`](super::Sockets::stream) sends. Nothing but what
    /// comes from there is taken from that socket.
    pub bridge: SocketAddr,
    /// The transfer's address at the other end of the TCP connection: for people.
    pub transfer: SocketAddr,
}

/// An address over UDP at which the transfer has asked us whether we are there.
#[derive(Clone, Copy, Debug)]
struct Proven {
    to: Endpoint,
    /// What was said there without an answer.
    repeats: u32,
}

/// Where the registration was before.
#[derive(Clone, Copy, Debug)]
struct Former {
    at: Endpoint,
    until: Moment,
}

/// What is known of UDP, and the stream in its stead.
#[derive(Debug)]
pub(super) struct Fallback {
    /// What the stream goes by; `None`: there can be none.
    socket: Option<SocketId>,
    /// Whether the program was asked for a bridge.
    wanted: bool,
    /// The bridge, while it is connected.
    stream: Option<Stream>,
    /// When that was said last.
    changed_at: Moment,
    /// Good for this connection: each is another endpoint to the transfer.
    pub(super) cookie: Option<Cookie>,
    /// Since when nothing came back by UDP.
    unanswered_since: Option<Moment>,
    /// Inits sent by UDP since then.
    inits: usize,
    /// When each address had got one.
    all_asked_at: Option<Moment>,
    /// When UDP is tried next, while the stream has the registration.
    trial_at: Option<Moment>,
    /// Whose turn that is among the addresses.
    turn: usize,
    proven: Option<Proven>,
    former: Option<Former>,
    /// When the registration last came back to UDP.
    returned_at: Option<Moment>,
    /// Whether it was told that the stream has the registration.
    told: bool,
}

impl Fallback {
    pub(super) fn new(now: Moment, socket: Option<SocketId>) -> Self {
        Self {
            socket,
            wanted: false,
            stream: None,
            changed_at: now,
            cookie: None,
            unanswered_since: None,
            inits: 0,
            all_asked_at: None,
            trial_at: None,
            turn: 0,
            proven: None,
            former: None,
            returned_at: None,
            told: false,
        }
    }

    /// Whether this endpoint is reached by a stream.
    pub(super) fn carries(&self, endpoint: &Endpoint) -> bool {
        self.socket == Some(endpoint.socket)
    }

    /// Where the bridge is, while it is connected.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        Some(Endpoint { socket: self.socket?, remote: self.stream?.bridge, local: None })
    }

    /// Where the registration was until a moment ago, or is about to be.
    pub(super) fn beside(&self) -> [Option<&Endpoint>; 2] {
        [self.former.as_ref().map(|former| &former.at), self.proven.as_ref().map(|proven| &proven.to)]
    }

    /// The same, to be changed.
    pub(super) fn beside_mut(&mut self) -> [Option<&mut Endpoint>; 2] {
        [self.former.as_mut().map(|former| &mut former.at), self.proven.as_mut().map(|proven| &mut proven.to)]
    }

    /// Where the transfer is told things now, where that is not where data goes.
    pub(super) fn told_at(&self) -> Option<Endpoint> {
        self.proven.map(|proven| proven.to)
    }

    /// Nothing has come back by UDP for what was sent at `since`.
    pub(super) fn udp_unanswered(&mut self, since: Moment) {
        self.unanswered_since.get_or_insert(since);
    }

    /// An init goes out by UDP, to one of `addresses`.
    pub(super) fn udp_asked(&mut self, now: Moment, addresses: usize) {
        self.udp_unanswered(now);
        self.inits += 1;
        if self.inits >= addresses {
            self.all_asked_at.get_or_insert(now);
        }
    }

    /// The transfer has answered by UDP.
    pub(super) fn udp_answered(&mut self) {
        (self.unanswered_since, self.inits, self.all_asked_at) = (None, 0, None);
    }
}

impl Relay {
    /// Whether the registration, or the session that asks for one, goes over TCP.
    pub(super) fn is_over_stream(&self) -> bool {
        self.control.as_ref().is_some_and(|control| self.fallback.carries(&control.endpoint))
    }

    /// The address that people know a transfer's endpoint by; `None` where it is a stream that is being made anew.
    pub(super) fn shown(&self, endpoint: &Endpoint) -> Option<SocketAddr> {
        match self.fallback.carries(endpoint) {
            true => self.fallback.stream.map(|stream| stream.transfer),
            false => Some(endpoint.remote),
        }
    }

    /// Where a word of the transfer under the session that goes over TCP would come from by UDP, as it is sent to.
    pub(super) fn is_udp_beside_stream(&self, from: &Endpoint) -> bool {
        self.is_over_stream() && !self.fallback.carries(from) && self.addresses.contains(&from.remote)
    }

    /// # Errors
    /// [`DropReason::UnknownEndpoint`] when what came by the stream's socket is not the bridge's.
    pub(super) fn check_bridge(&self, from: &Endpoint) -> Result<(), DropReason> {
        let bridge = self.fallback.endpoint();
        if is_from(from, bridge.as_ref()) || self.was_at(from) { Ok(()) } else { Err(DropReason::UnknownEndpoint) }
    }

    /// Whether the registration was there until a moment ago.
    pub(super) fn was_at(&self, from: &Endpoint) -> bool {
        is_from(from, self.fallback.former.as_ref().map(|former| &former.at))
    }

    /// Takes note of where the registration was.
    pub(super) fn leave(&mut self, now: Moment, before: Endpoint) {
        self.fallback.former = Some(Former { at: before, until: now + FORMER_LIFE });
    }

    fn wanted_at(&self) -> Option<Moment> {
        let fallback = &self.fallback;
        if fallback.wanted || fallback.socket.is_none() || self.is_over_stream() {
            return None;
        }
        let at = fallback.unanswered_since? + UDP_PATIENCE;
        // A registration asks one address until its keepalives are missed. In a handshake each gets its turn first.
        match fallback.inits {
            0 => Some(at),
            _ => fallback.all_asked_at.map(|asked| at.max(asked + LAST_PATIENCE)),
        }
    }

    fn trial_at(&self) -> Option<Moment> {
        let settled = self.registration.is_some() && self.attempt.is_none() && self.is_over_stream();
        self.fallback.trial_at.filter(|_| settled)
    }

    /// When [`Gateway::tend_stream`] has something to do.
    pub(super) fn stream_timeout(&self) -> Option<Moment> {
        let former = self.fallback.former.map(|former| former.until);
        [self.wanted_at(), self.trial_at(), former].into_iter().flatten().min()
    }
}

impl Gateway {
    /// The program's bridge is connected, or not any more.
    pub(super) fn stream_changed(&mut self, now: Moment, stream: Option<Stream>) {
        let fallback = &mut self.relay.fallback;
        if !fallback.wanted || self.stopped {
            // It crossed our word that there should be none.
            return;
        }
        if fallback.stream.is_none() && stream.is_none() {
            return;
        }
        (fallback.stream, fallback.cookie, fallback.changed_at) = (stream, None, now);
        // Each connection is another endpoint to the transfer: what was begun or registered by the one before is asked
        // for anew. So is a registration by UDP that is silent.
        let attempt = self.relay.attempt.as_ref();
        let stuck = attempt.and_then(Attempt::endpoint).is_some_and(|endpoint| self.relay.fallback.carries(endpoint));
        let silent = stream.is_some() && self.relay.fallback.unanswered_since.is_some() && self.relay.control.is_some();
        let doubtful = silent || self.relay.is_over_stream();
        match &mut self.relay.attempt {
            Some(attempt) if !stuck => attempt.ask_at_once(now, stream.is_some()),
            None if !doubtful => {}
            Some(_) | None => self.begin_attempt(now),
        }
        self.tend_relay(now);
    }

    /// Does what time asks for.
    pub(super) fn tend_stream(&mut self, now: Moment) {
        self.relay.fallback.former.take_if(|former| former.until <= now);
        if self.relay.wanted_at().is_some_and(|at| at <= now) {
            self.relay.fallback.wanted = true;
            self.tell(Event::StreamWanted(true));
        }
        if self.relay.trial_at().is_some_and(|at| at <= now) {
            self.try_udp(now);
        }
        self.end_stream();
    }

    /// Gives the bridge up when UDP has the registration, and nothing is on its way over the stream.
    pub(super) fn end_stream(&mut self) {
        let Relay { fallback, control: Some(control), attempt: None, .. } = &mut self.relay else { return };
        let in_use = |endpoint: &Endpoint| fallback.carries(endpoint);
        let lingers = fallback.former.is_some_and(|former| in_use(&former.at));
        if fallback.wanted && fallback.unanswered_since.is_none() && !in_use(&control.endpoint) && !lingers {
            (fallback.wanted, fallback.stream, fallback.cookie) = (false, None, None);
            self.tell(Event::StreamWanted(false));
        }
    }

    /// Has the bridge made anew, if it is connected for longer than `patience`: what is at its other end is silent.
    pub(super) fn renew_stream(&mut self, now: Moment, patience: Duration) {
        let fallback = &mut self.relay.fallback;
        if now.since(fallback.changed_at) >= patience && fallback.stream.take().is_some() {
            fallback.cookie = None;
            self.tell(Event::StreamWanted(false));
            self.tell(Event::StreamWanted(true));
        }
    }

    /// The registration is over the stream now, or not: tells it when that is news, and sees to it that UDP is tried.
    pub(super) fn stream_took_over(&mut self, now: Moment) {
        let over_tcp = self.relay.is_over_stream();
        let shown = self.relay.control.as_ref().and_then(|control| self.relay.shown(&control.endpoint));
        let fallback = &mut self.relay.fallback;
        fallback.proven = None;
        if over_tcp {
            let steady = fallback.returned_at.is_none_or(|at| now.since(at) >= STEADY);
            fallback.trial_at = Some(now + if steady { FIRST_TRIAL } else { TRIAL_INTERVAL });
        } else {
            fallback.udp_answered();
            if fallback.told {
                fallback.returned_at = Some(now);
            }
        }
        if std::mem::replace(&mut fallback.told, over_tcp) != over_tcp
            && let Some(transfer) = shown
        {
            self.tell(Event::OverTcp { transfer, over_tcp });
        }
    }

    /// Asks by UDP whether it works, while the stream has the registration.
    fn try_udp(&mut self, now: Moment) {
        let addresses = self.relay.addresses.len();
        let fallback = &mut self.relay.fallback;
        if let Some(proven) = &mut fallback.proven
            && proven.repeats < TRIAL_REPEATS
        {
            proven.repeats += 1;
            let to = proven.to;
            fallback.trial_at = Some(now + NEXT_TRIAL);
            return self.send_trial(to);
        }
        fallback.proven = None;
        fallback.trial_at = Some(now + TRIAL_INTERVAL);
        if addresses == 0 {
            return;
        }
        // One word may be lost, so a single address is asked twice.
        let round = addresses.max(2);
        let turn = fallback.turn % round;
        fallback.turn = turn + 1;
        if fallback.turn < round {
            fallback.trial_at = Some(now + NEXT_TRIAL);
        }
        if let Some(to) = self.sockets.endpoint(self.relay.addresses[turn % addresses]) {
            self.send_trial(to);
        }
    }

    /// A keepalive that is not missed when it has no answer.
    fn send_trial(&mut self, to: Endpoint) {
        let keepalives = &mut self.relay.keepalives;
        keepalives.seq = keepalives.seq.wrapping_add(1);
        let keepalive = Message::Keepalive { seq: keepalives.seq, change: self.relay.change };
        self.seal_for_transfer(&keepalive, to);
    }

    /// Seals a message on the session with the transfer, to be sent to `to`. Whether there is a session.
    pub(super) fn seal_for_transfer(&mut self, message: &Message, to: Endpoint) -> bool {
        let source = self.relay.slot.unwrap_or(Slot::NONE);
        let Some(control) = &mut self.relay.control else { return false };
        let route = Route { destination: Destination::RECEIVER, source };
        let Some(bytes) = control::seal(&mut control.established, route, message) else { return false };
        self.push(Outgoing::Send { bytes, to });
        true
    }

    /// Takes what the transfer says by UDP under the session that goes over TCP. Whether that is where the session is
    /// now.
    ///
    /// # Errors
    /// [`DropReason::WrongEndpoint`] when nothing was to be said there yet.
    pub(super) fn heard_by_udp(&mut self, now: Moment, from: &Endpoint, message: &Message) -> Result<bool, DropReason> {
        let to = self.sockets.endpoint(from.remote).filter(|to| is_from(from, Some(to)));
        let to = to.ok_or(DropReason::WrongEndpoint)?;
        if let Message::Probe { seq } = message {
            let fallback = &mut self.relay.fallback;
            let repeats = fallback.proven.filter(|proven| proven.to == to).map_or(0, |proven| proven.repeats);
            fallback.proven = Some(Proven { to, repeats });
            fallback.trial_at = Some(now + NEXT_TRIAL);
            self.seal_for_transfer(&Message::ProbeReply { seq: *seq }, to);
            return Ok(false);
        }
        if self.relay.fallback.proven.is_none_or(|proven| proven.to != to) {
            return Err(DropReason::WrongEndpoint);
        }
        let Some(control) = &mut self.relay.control else { return Err(DropReason::UnknownSession) };
        let before = std::mem::replace(&mut control.endpoint, to);
        self.relay.leave(now, before);
        self.stream_took_over(now);
        Ok(true)
    }
}

/// Whether the stream is asked beside UDP, and when.
impl Attempt {
    /// Has UDP asked at once, and the stream a moment later if there is one.
    fn ask_at_once(&mut self, now: Moment, stream: bool) {
        if matches!(self.stage, AttemptStage::Waiting { .. }) {
            if stream {
                self.next_at = now;
            }
            self.stream_at = stream.then_some(now + HEAD_START);
        }
    }
}
