//! The responder's side of handshakes, built so that strangers cost nothing. In this order:
//!
//! 1. the token's MAC: without it, silence;
//! 2. repetitions of what is under way are answered from what is there;
//! 3. the cookie: an address that has not proven itself gets one, and nothing is remembered of it. Members are no exception: their
//!    address can be forged as any other;
//! 4. its number: what is older than a handshake under way is a recording, and displaces nothing;
//! 5. a place in a bounded table, for five seconds, of which one address has a share;
//! 6. only then the curve, on another thread.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh_wire::cookie::CookieReply;
use mesh_wire::handshake::{self, Final, Init, Kind, Response};
use mesh_wire::message::Message;
use mesh_wire::notice::{ErrorReason, ErrorReply};
use mesh_wire::route::{Route, Slot};
use rand::Rng;

use super::links::{Link, LinkId};
use super::timers::Timer;
use super::{Reply, Transfer};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment, SocketId};
use crate::session::cipher::{Cipher, CipherSet, Ciphers};
use crate::session::handshake::{
    HandshakeError, Kind as SessionKind, Params, Responder, ResponderAnswered, ResponderFinished, read_hello,
};
use crate::session::jobs::{Done, Job, Outcome};
use crate::session::mac;
use crate::session::token::NamespaceKeys;

/// How long a handshake may take, and a finished one is remembered.
pub(super) const HANDSHAKE_LIFE: Duration = Duration::from_secs(5);

/// Handshakes under way with one endpoint: one, and one more when its gateway has started anew.
const PER_ENDPOINT_MAX: usize = 2;
/// In one namespace: what its members can do to each other. One address may have as many as it leaves places: half of them, or
/// all that a crowd behind one NAT needs while nobody else comes.
pub(super) const PER_NAMESPACE_MAX: usize = 1024;
/// In all. A handshake is about 2 KiB.
const HANDSHAKES_MAX: usize = 4096;
/// Finished ones that are remembered, so that a repeated final is answered again.
const FINISHED_MAX: usize = 16_384;
/// A handshake this old may give way to another start of its gateway.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);
/// Jobs not yet fetched.
const JOBS_MAX: usize = HANDSHAKES_MAX;
/// False finals that are read before a handshake is given up.
const FORGED_MAX: u8 = 8;
/// Times that a repeated final is answered.
const REPEATS_MAX: u8 = 8;

/// Features of this transfer: none needs a name yet.
const FEATURES: u32 = 0;

/// The handshakes under way.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    by_index: BTreeMap<u32, Handshake>,
    by_endpoint: BTreeSet<([u8; 20], u32)>,
    /// Those that are not finished.
    pending: usize,
    /// The same by source, in each namespace and in all.
    by_source: BTreeMap<(Option<SocketId>, Source), usize>,
    /// Counts the jobs: the low half of their ids.
    jobs: u32,
}

/// Whoever shares it may be one: an IPv4 address, or the /64 of an IPv6 address, which one host has to itself.
type Source = [u8; 16];

fn source(endpoint: &Endpoint) -> Source {
    let mut source = *mac::endpoint_bytes(endpoint)[2..].first_chunk().expect("the address is within");
    if endpoint.remote.ip().to_canonical().is_ipv6() {
        source[8..].fill(0);
    }
    source
}

#[derive(Debug)]
struct Handshake {
    endpoint: Endpoint,
    /// Random number of the gateway's start.
    boot: u64,
    /// Which handshake of that start.
    number: u64,
    /// The initiator's index.
    peer_index: u32,
    /// Tells a repetition of the init.
    init_mac1: [u8; 16],
    ends: Moment,
    /// The job that is out.
    job: u64,
    /// Finals that were false.
    forged: u8,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The response is being made.
    Answering,
    /// The response went out.
    Answered { response: Vec<u8>, responder: Responder },
    /// The final is being read, a datagram of so many bytes. Until it turns out to be a true one, what is at hand is kept.
    Finishing { final_mac1: [u8; 16], bytes: usize, response: Vec<u8> },
    /// Done: there is a link of the same index.
    Finished { final_mac1: [u8; 16], answer: Option<Vec<u8>>, repeats: u8 },
}

impl Handshakes {
    pub(super) fn len(&self) -> usize {
        self.by_index.len()
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        self.by_index.contains_key(&index)
    }

    /// Handshakes with an endpoint, the oldest first.
    fn of_endpoint(&self, endpoint: &Endpoint) -> Vec<u32> {
        let key = mac::endpoint_bytes(endpoint);
        let mut indexes: Vec<u32> =
            self.by_endpoint.range((key, 0)..=(key, u32::MAX)).map(|&(_, index)| index).collect();
        indexes.sort_by_key(|index| self.by_index.get(index).map(|handshake| handshake.ends));
        indexes
    }

    /// Whether one more with an endpoint may begin, where `in_namespace` are under way.
    fn has_room(&self, endpoint: &Endpoint, in_namespace: usize) -> bool {
        let source = source(endpoint);
        let of_source = |socket| self.by_source.get(&(socket, source)).copied().unwrap_or(0);
        let (left_here, left) = (PER_NAMESPACE_MAX - in_namespace, HANDSHAKES_MAX - self.pending);
        of_source(Some(endpoint.socket)) < left_here && of_source(None) < left
    }

    fn count_pending(&mut self, endpoint: &Endpoint) {
        self.pending += 1;
        for socket in [Some(endpoint.socket), None] {
            *self.by_source.entry((socket, source(endpoint))).or_default() += 1;
        }
    }

    fn uncount_pending(&mut self, endpoint: &Endpoint) {
        self.pending -= 1;
        for socket in [Some(endpoint.socket), None] {
            let key = (socket, source(endpoint));
            if let Some(count) = self.by_source.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.by_source.remove(&key);
                }
            }
        }
    }

    fn next_job(&mut self, index: u32) -> u64 {
        self.jobs = self.jobs.wrapping_add(1);
        u64::from(index) << 32 | u64::from(self.jobs)
    }
}

/// Chooses a cipher for a Hello and makes the Welcome.
fn choose(hello: &[u8], ours: Ciphers) -> Option<(Vec<u8>, Option<Cipher>)> {
    let Ok(Some(Message::Hello { ciphers, features, .. })) = Message::decode(hello) else {
        return None;
    };
    let cipher = ours.choose(CipherSet::from_bits(ciphers))?;
    let welcome = Message::Welcome { cipher: cipher.bit(), features: features & FEATURES };
    Some((welcome.to_vec(), Some(cipher)))
}

/// Which handshake an init begins: the start of its gateway, and the number within that.
fn numbered(keys: &NamespaceKeys, noise: &[u8]) -> Option<(u64, u64)> {
    let hello = read_hello(SessionKind::GatewayToTransfer, keys, noise).ok()?;
    match Message::decode(&hello) {
        Ok(Some(Message::Hello { boot, number, .. })) => Some((boot, number)),
        _ => None,
    }
}

impl Transfer {
    /// Takes a HandshakeInit that is for us.
    pub(super) fn receive_init(
        &mut self,
        now: Moment,
        from: Endpoint,
        datagram: &[u8],
        reply: &mut Reply<'_, '_>,
    ) -> Result<(), DropReason> {
        let init = Init::parse(datagram).map_err(super::too_short_or_malformed)?;
        let space = self.spaces.get(from.socket).ok_or(DropReason::UnknownSocket)?;
        if !mac::verify_mac1(&space.keys, Init::mac1_input(datagram), &init.mac1) {
            return Err(DropReason::WrongToken);
        }
        if init.kind != Kind::GatewayToTransfer {
            return Err(DropReason::UnexpectedType);
        }

        let under_way = self.handshakes.of_endpoint(&from);
        for index in &under_way {
            let Some(handshake) = self.handshakes.by_index.get(index) else { continue };
            if handshake.init_mac1 != init.mac1 {
                continue;
            }
            return match &handshake.state {
                State::Answered { response, .. } => reply.send(from, response),
                State::Answering | State::Finishing { .. } | State::Finished { .. } => Err(DropReason::Duplicate),
            };
        }

        let bytes = mac::endpoint_bytes(&from);
        let rng = &mut self.rng;
        self.cookies.refresh(now, || *rng.secret());
        if !self.cookies.verify(&bytes, Init::mac2_input(datagram), &init.mac2) {
            let nonce = self.rng.bytes();
            let sealed = self.cookies.cookie(&bytes).seal(&space.keys, nonce, &init.mac1);
            let cookie = CookieReply { route: Route::DIRECT, receiver_index: init.sender_index, nonce, sealed };
            reply.send(from, &cookie.emit())?;
            self.counters.cookies_sent += 1;
            return Err(if init.mac2 == [0; 16] { DropReason::NoCookie } else { DropReason::WrongCookie });
        }

        let keys = space.keys.clone();
        let (boot, number) = numbered(&keys, init.noise).ok_or(DropReason::HandshakeFailed)?;
        let present = |index: &u32| self.handshakes.by_index.get(index);
        if under_way.iter().filter_map(present).any(|other| other.boot == boot && other.number > number) {
            return Err(DropReason::Outdated);
        }
        if under_way.len() >= PER_ENDPOINT_MAX {
            // What the other thread is working on stays: replacing it would let one address order any amount of work.
            let replaceable = |index: &&u32| {
                present(index).is_some_and(|other| match other.state {
                    State::Answering | State::Finishing { .. } => false,
                    State::Answered { .. } => {
                        let age = HANDSHAKE_LIFE.saturating_sub(other.ends.since(now));
                        other.boot == boot || age >= GIVES_WAY_AFTER
                    }
                    State::Finished { .. } => true,
                })
            };
            let oldest = *under_way.iter().find(replaceable).ok_or(DropReason::Busy)?;
            self.forget_handshake(oldest);
        }
        let in_namespace = self.spaces.get(from.socket).map_or(0, |space| space.handshakes);
        if !self.handshakes.has_room(&from, in_namespace) || self.jobs.len() >= JOBS_MAX {
            if self.errors.take(now)
                && let Some(busy) = ErrorReply::to(ErrorReason::Busy, datagram)
            {
                reply.send(from, &busy.emit())?;
            }
            return Err(DropReason::Busy);
        }

        let index = self.new_index(from.socket);
        let job = self.handshakes.next_job(index);
        let params = Params::new(SessionKind::GatewayToTransfer, &keys, &self.static_key, self.rng.secret());
        self.jobs.push_back(Job::responder_answer(job, params, init.noise.to_vec(), Ciphers::obliging(), choose));
        let ends = now + HANDSHAKE_LIFE;
        self.timers.set(ends, Timer::Handshake(index));
        self.handshakes.by_endpoint.insert((bytes, index));
        self.handshakes.count_pending(&from);
        self.handshakes.by_index.insert(
            index,
            Handshake {
                endpoint: from,
                boot,
                number,
                peer_index: init.sender_index,
                init_mac1: init.mac1,
                ends,
                job,
                forged: 0,
                state: State::Answering,
            },
        );
        if let Some(space) = self.spaces.get_mut(from.socket) {
            space.handshakes += 1;
        }
        Ok(())
    }

    /// Takes a HandshakeFinal that is for us.
    pub(super) fn receive_final(
        &mut self,
        from: Endpoint,
        datagram: &[u8],
        reply: &mut Reply<'_, '_>,
    ) -> Result<(), DropReason> {
        let last = Final::parse(datagram).map_err(super::too_short_or_malformed)?;
        let space = self.spaces.get(from.socket).ok_or(DropReason::UnknownSocket)?;
        if !mac::verify_mac1(&space.keys, handshake::mac1_input(datagram), &last.mac1) {
            return Err(DropReason::WrongToken);
        }
        let index = last.receiver_index;
        let job = self.handshakes.next_job(index);
        let handshake = self.handshakes.by_index.get_mut(&index).ok_or(DropReason::UnknownHandshake)?;
        if handshake.endpoint.socket != from.socket || handshake.endpoint.remote != from.remote {
            return Err(DropReason::WrongEndpoint);
        }
        match &mut handshake.state {
            State::Answering => return Err(DropReason::UnknownHandshake),
            State::Finishing { .. } => return Err(DropReason::Duplicate),
            State::Finished { final_mac1, answer, repeats } => {
                let (Some(answer), true) = (answer, *final_mac1 == last.mac1 && *repeats < REPEATS_MAX) else {
                    return Err(DropReason::Duplicate);
                };
                if answer.len() > datagram.len() {
                    return Err(DropReason::Unpadded);
                }
                *repeats += 1;
                return reply.send(from, answer);
            }
            State::Answered { .. } => {}
        }
        if let State::Answered { responder, response } = std::mem::replace(&mut handshake.state, State::Answering) {
            handshake.state = State::Finishing { final_mac1: last.mac1, bytes: datagram.len(), response };
            handshake.job = job;
            self.jobs.push_back(Job::responder_finish(job, responder, last.noise.to_vec()));
        }
        Ok(())
    }

    /// Takes what the other thread made of a handshake.
    pub(super) fn handshake_done(&mut self, now: Moment, done: Done) {
        let index = u32::try_from(done.id >> 32).expect("the upper half of 64 bits");
        let Some(handshake) = self.handshakes.by_index.get_mut(&index).filter(|handshake| handshake.job == done.id)
        else {
            // It took longer than the handshake's life.
            self.drops.count(DropReason::UnknownHandshake);
            return;
        };
        match done.outcome {
            Outcome::ResponderAnswered(ResponderAnswered { noise, responder, .. }) => {
                let responder = responder.expect("our choice is silent where there is no cipher");
                let endpoint = handshake.endpoint;
                let Some(space) = self.spaces.get(endpoint.socket) else { return };
                let mut response = Vec::new();
                Response::emit(
                    &mut response,
                    &Route::DIRECT,
                    index,
                    handshake.peer_index,
                    Kind::GatewayToTransfer,
                    &noise,
                    |bytes| mac::mac1(&space.keys, bytes),
                );
                handshake.state = State::Answered { response: response.clone(), responder };
                self.queue(endpoint, response);
            }
            Outcome::ResponderFinished(finished) => self.handshake_finished(now, index, &finished),
            Outcome::Failed { error, responder, .. } => {
                // That no thread had time is not the final's fault: it comes again.
                let forged = error != HandshakeError::Overloaded;
                self.drops.count(if forged { DropReason::HandshakeFailed } else { DropReason::Busy });
                if let State::Finishing { response, .. } = &mut handshake.state
                    && let Some(responder) = responder
                    && handshake.forged < FORGED_MAX
                {
                    // A forged final: the true one may still come.
                    handshake.forged += u8::from(forged);
                    handshake.state = State::Answered { response: std::mem::take(response), responder };
                } else {
                    self.forget_handshake(index);
                }
            }
            Outcome::InitiatorStarted { .. } | Outcome::InitiatorFinished(_) => {
                unreachable!("a transfer begins no handshakes")
            }
        }
    }

    fn handshake_finished(&mut self, now: Moment, index: u32, finished: &ResponderFinished) {
        let Some(handshake) = self.handshakes.by_index.get_mut(&index) else { return };
        let State::Finishing { final_mac1, bytes, .. } = handshake.state else { return };
        let Ok(Some(Message::Register { request, boot, ip4, name, ticket })) = Message::decode(&finished.payload)
        else {
            self.forget_handshake(index);
            self.drops.count(DropReason::HandshakeFailed);
            return;
        };
        self.timers.cancel(handshake.ends, Timer::Handshake(index));
        handshake.ends = now + HANDSHAKE_LIFE;
        self.timers.set(handshake.ends, Timer::Handshake(index));
        handshake.state = State::Finished { final_mac1, answer: None, repeats: 0 };
        let (endpoint, peer_index) = (handshake.endpoint, handshake.peer_index);
        self.handshakes.uncount_pending(&endpoint);
        if let Some(space) = self.spaces.get_mut(endpoint.socket) {
            space.handshakes -= 1;
        }

        let keys = finished.split.keys(finished.cipher);
        // It is a guest until a member is told things on it.
        let link = Link::new(now, index, peer_index, keys);
        self.add_guest(now, HANDSHAKE_LIFE, link, finished.remote, endpoint, Slot::NONE);
        self.counters.handshakes += 1;
        let id = LinkId { socket: endpoint.socket, index };
        self.register(now, id, request, boot, ip4, name, &ticket, bytes);
        if self.handshakes.len() - self.handshakes.pending > FINISHED_MAX {
            self.forget_handshake(index);
        }
    }

    /// Answers a registration that came in a datagram of `room` bytes; a repetition of the final that brought it will be
    /// answered with the same bytes.
    pub(super) fn answer_registration(&mut self, id: LinkId, message: &Message, room: usize) {
        let Some(mut party) = self.party(id) else { return };
        let to = party.endpoint;
        let sealed = match party.seal_answer(message, room) {
            Ok(sealed) => sealed,
            Err(reason) => return self.drops.count(reason),
        };
        // A link of another namespace may have the same index.
        if let Some(handshake) = self.handshakes.by_index.get_mut(&id.index)
            && handshake.endpoint.socket == id.socket
            && let State::Finished { answer, .. } = &mut handshake.state
        {
            *answer = Some(sealed.clone());
        }
        self.queue(to, sealed);
    }

    /// Forgets a handshake, whatever its state.
    pub(super) fn forget_handshake(&mut self, index: u32) {
        let Some(handshake) = self.handshakes.by_index.remove(&index) else { return };
        self.handshakes.by_endpoint.remove(&(mac::endpoint_bytes(&handshake.endpoint), index));
        self.timers.cancel(handshake.ends, Timer::Handshake(index));
        if matches!(handshake.state, State::Finished { .. }) {
            return;
        }
        self.handshakes.uncount_pending(&handshake.endpoint);
        if let Some(space) = self.spaces.get_mut(handshake.endpoint.socket) {
            space.handshakes -= 1;
        }
    }

    /// Forgets all handshakes of a socket.
    pub(super) fn forget_handshakes_of(&mut self, socket: SocketId) {
        let mut indexes = Vec::new();
        for (&index, handshake) in &self.handshakes.by_index {
            if handshake.endpoint.socket == socket {
                indexes.push(index);
            }
        }
        for index in indexes {
            self.forget_handshake(index);
        }
    }

    /// An index that no handshake has, and no link of this socket; never zero.
    fn new_index(&mut self, socket: SocketId) -> u32 {
        let space = self.spaces.get(socket);
        loop {
            let index = self.rng.next_u32();
            let has_link = space.is_some_and(|space| space.has_link(index));
            if index != 0 && !self.handshakes.contains(index) && !has_link {
                return index;
            }
        }
    }
}
