//! Sessions with peers that they begin: the responder's side of a handshake.
//!
//! The transfer says from which slot a handshake came, and it is asked at once who holds that slot. The session counts when
//! the key of the handshake is the key that holds it. Frames under a session whose Final is still being read wait for it,
//! bounded, so that an initiator may send right after it.
//!
//! An init can be a recording. Nothing in it is proven until its Final comes, but its Hello can be read without the curve, and
//! says which handshake of which start it begins: older ones than one that came to an end are dropped, a newer one of
//! the same start takes the place of an older one, and our own handshake gives way only once until one has come to an end.

mod verify;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::handshake::{self as wire, Final, Init, Response};
use mesh_wire::message::{Message, Target};
use mesh_wire::route::{Destination, Route, Slot};
use mesh_wire::sealed::OVERHEAD_BYTES;

use super::addresses::same;
use super::callers::{CALLER_TIME, Caller};
use super::handshake::{Asking, AskingStage, RETRANSMIT_FIRST, RETRANSMIT_MOST, failure, job_id};
use super::indexes::Owner;
use super::timers::backoff;
use super::{Gateway, Held, Outgoing};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment};
use crate::session::cipher::{Cipher, CipherSet, Ciphers, NO_CIPHER};
use crate::session::handshake::{HandshakeError, Kind, Params, Responder, ResponderFinished, read_hello};
use crate::session::jobs::{Job, Outcome};
use crate::session::mac;
use crate::session::token::NamespaceKeys;

/// How long a peer that won over a handshake of ours may take for its own.
const YIELD_TIME: Duration = Duration::from_secs(2);
/// Handshakes of peers under way, at most; each is about 2 KiB and what is held for it.
pub(super) const ANSWERS_MAX: usize = 1024;
/// Of one slot.
const ANSWERS_PER_SLOT_MAX: usize = 2;
/// Of one address, from all ports: several gateways may be behind one NAT.
const ANSWERS_PER_ADDRESS_MAX: usize = 32;
/// How long one may take.
const ANSWER_TIME: Duration = CALLER_TIME;
/// One this old may give way to another start of its peer.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);
/// Handshakes of peers that other threads may be at work on; what more there is waits for its sender to try again.
const WORKING_MAX: usize = 256;
/// Frames held for one handshake, and in all.
/// What a peer may let wait for a session, and the messages that go with it.
const HELD_PER_ANSWER_MAX: usize = 40;
const HELD_MAX: usize = 1024;
/// How often handshakes under way are looked at.
const ANSWERS_INTERVAL: Duration = Duration::from_millis(250);
/// False messages 3 that are read before a handshake is given up.
const FORGED_MAX: u8 = 8;
/// Between two repeated Confirms to one peer.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);

/// A handshake that a peer began.
#[derive(Debug)]
struct Answer {
    index: u32,
    remote_index: u32,
    /// Where it comes from.
    source: Caller,
    init_mac1: [u8; 16],
    since: Moment,
    /// Messages 3 that were false.
    forged: u8,
    stage: AnswerStage,
    /// The peer's start, and the number of the handshake there, as its Hello says.
    boot: u64,
    number: u64,
    held: VecDeque<Held>,
}

#[derive(Debug)]
enum AnswerStage {
    /// Message 2 is being made.
    Answering,
    /// Message 2 is on its way.
    Waiting { responder: Responder, noise: Vec<u8> },
    /// Message 3 is being read. Until it turns out to be a true one, message 2 is kept.
    Finishing { noise: Vec<u8> },
    /// Message 2 is on its way and says that there is no cipher in common.
    Refused { noise: Vec<u8> },
    /// All is known but whose key it is.
    Unverified { finished: Box<ResponderFinished> },
}

impl Answer {
    /// Whether another thread is at work on it. Its place is not given away meanwhile: else one slot could order any amount of
    /// work.
    fn is_working(&self) -> bool {
        match self.stage {
            AnswerStage::Answering | AnswerStage::Finishing { .. } => true,
            AnswerStage::Waiting { .. } | AnswerStage::Refused { .. } | AnswerStage::Unverified { .. } => false,
        }
    }

    /// Whether it makes way for a handshake of the start `boot` from the same slot, which is not older.
    fn gives_way(&self, now: Moment, boot: u64) -> bool {
        !self.is_working() && (self.boot == boot || now.since(self.since) >= GIVES_WAY_AFTER)
    }
}

/// Handshakes that peers began.
#[derive(Debug, Default)]
pub(super) struct Answers {
    places: Vec<Option<Box<Answer>>>,
    count: usize,
    held: usize,
    next_at: Option<Moment>,
}

impl Answers {
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.next_at
    }

    fn get_mut(&mut self, place: u32, index: u32) -> Option<&mut Answer> {
        self.places.get_mut(place as usize)?.as_deref_mut().filter(|answer| answer.index == index)
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &Answer)> {
        (0..).zip(&self.places).filter_map(|(place, answer)| Some((place, answer.as_deref()?)))
    }

    /// Those of one caller.
    fn of_caller(&self, caller: &Caller) -> Vec<(u32, u32)> {
        let of_caller = self.iter().filter(|(_, answer)| answer.source == *caller);
        of_caller.map(|(place, answer)| (place, answer.index)).collect()
    }

    /// Those that came straight, and say that they hold `ip4`.
    fn that_claim(&self, ip4: Ipv4Addr) -> Vec<(u32, u32)> {
        let claims = |answer: &Answer| match &answer.stage {
            AnswerStage::Unverified { finished } => {
                answer.source.slot().is_none() && verify::claimed(finished) == Some(ip4)
            }
            AnswerStage::Answering
            | AnswerStage::Waiting { .. }
            | AnswerStage::Finishing { .. }
            | AnswerStage::Refused { .. } => false,
        };
        self.iter().filter(|(_, answer)| claims(answer)).map(|(place, answer)| (place, answer.index)).collect()
    }

    /// How many another thread is at work on.
    fn working(&self) -> usize {
        self.iter().filter(|(_, answer)| answer.is_working()).count()
    }

    /// Whether there is room for one more that `caller` began straight: those leave room for others, and each address for other ones.
    fn has_room_for(&self, caller: &Caller) -> bool {
        let Caller::Straight(endpoint) = caller else { return true };
        let (mut all, mut working, mut of_address) = (0, 0, 0);
        for (_, answer) in self.iter() {
            if let Caller::Straight(other) = &answer.source {
                all += 1;
                working += usize::from(answer.is_working());
                of_address += usize::from(other.remote.ip() == endpoint.remote.ip());
            }
        }
        all < ANSWERS_MAX / 2 && working < WORKING_MAX / 2 && of_address < ANSWERS_PER_ADDRESS_MAX
    }

    fn add(&mut self, place: u32, answer: Answer) {
        let place = place as usize;
        if place == self.places.len() {
            self.places.push(None);
        }
        self.places[place] = Some(Box::new(answer));
        self.count += 1;
    }

    /// A place that [`Answers::add`] may take.
    fn vacancy(&self) -> Option<u32> {
        if self.count == ANSWERS_MAX {
            return None;
        }
        let place = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        u32::try_from(place).ok()
    }

    fn remove(&mut self, place: u32, index: u32) -> Option<Answer> {
        let answer = self.places.get_mut(place as usize)?.take_if(|answer| answer.index == index)?;
        self.count -= 1;
        self.held -= answer.held.len();
        Some(*answer)
    }

    /// Keeps a frame and its TOS byte until the handshake ends. It came from the transfer (`relayed`), as also those may whose handshake goes
    /// straight, or from where the handshake comes from.
    pub(super) fn hold(
        &mut self,
        place: u32,
        index: u32,
        from: Endpoint,
        relayed: bool,
        (tos, frame): (u8, &[u8]),
    ) -> Result<(), DropReason> {
        let all = self.held;
        let answer = self.get_mut(place, index).ok_or(DropReason::UnknownSession)?;
        if let Caller::Straight(endpoint) = &answer.source
            && !relayed
            && !same(endpoint, &from)
        {
            return Err(DropReason::WrongEndpoint);
        }
        if answer.held.len() >= HELD_PER_ANSWER_MAX || all >= HELD_MAX {
            return Err(DropReason::HeldFull);
        }
        answer.held.push_back(Held { from, tos, bytes: frame.into() });
        self.held += 1;
        Ok(())
    }
}

/// Answers a Hello. Whoever has no cipher of ours is told so: else both ends would wait, and nobody know for what.
fn choose(hello: &[u8], ours: Ciphers) -> Option<(Vec<u8>, Option<Cipher>)> {
    match Message::decode(hello) {
        Ok(Some(Message::Hello { ciphers, .. })) => {
            let cipher = ours.choose(CipherSet::from_bits(ciphers));
            let bit = cipher.map_or(NO_CIPHER, Cipher::bit);
            Some((Message::Welcome { cipher: bit, features: 0 }.to_vec(), cipher))
        }
        _ => None,
    }
}

impl Gateway {
    /// Takes message 1 of a peer's handshake.
    pub(super) fn handle_init(&mut self, now: Moment, source: Caller, init: &Init<'_>) -> Result<(), DropReason> {
        let of_caller = |answer: &&Answer| answer.source == source;
        let repeated = self.answers.iter().find(|(_, answer)| of_caller(answer) && answer.init_mac1 == init.mac1);
        if let Some((place, index)) = repeated.map(|(place, answer)| (place, answer.index)) {
            self.transmit_response(place, index);
            return Err(DropReason::Duplicate);
        }
        let known = self.peer_of(&source);
        if known.is_some_and(|id| self.wins_over(id)) {
            return Err(DropReason::SimultaneousHandshake);
        }
        self.callers.check(now, &source)?;
        let (boot, number) = numbered(&self.keys, init.noise).ok_or(DropReason::HandshakeFailed)?;
        let peer = known.and_then(|id| self.peers.get(id));
        let newer = |answer: &Answer| answer.boot == boot && answer.number > number;
        if peer.is_some_and(|peer| peer.is_outdated(boot, number))
            || self.answers.iter().any(|(_, answer)| of_caller(&answer) && newer(answer))
        {
            return Err(DropReason::Outdated);
        }
        if !self.has_room_for_answer() || self.answers.working() >= WORKING_MAX {
            return Err(DropReason::Busy);
        }
        self.make_way(now, &source, boot)?;
        if !self.answers.has_room_for(&source) {
            return Err(DropReason::Busy);
        }
        let place = self.answers.vacancy().ok_or(DropReason::Busy)?;
        self.callers.let_in(now, &source, &mut self.rng)?;
        let index = self.indexes.allocate(Owner::Answering(place), &mut self.rng).ok_or(DropReason::Busy)?;
        let params = Params::new(Kind::GatewayToGateway, &self.keys, &self.static_key, self.rng.secret());
        self.jobs.push_back(Job::responder_answer(job_id(index), params, init.noise.to_vec(), self.ciphers, choose));
        self.answers.add(
            place,
            Answer {
                index,
                remote_index: init.sender_index,
                source,
                init_mac1: init.mac1,
                since: now,
                forged: 0,
                stage: AnswerStage::Answering,
                boot,
                number,
                held: VecDeque::new(),
            },
        );
        if let Some(id) = known {
            self.yield_to(now, id);
        }
        self.tend_answers(now);
        Ok(())
    }

    /// Sees to it that a caller has room for one more handshake, of the start `boot`.
    fn make_way(&mut self, now: Moment, source: &Caller, boot: u64) -> Result<(), DropReason> {
        let of_caller = || self.answers.iter().filter(|(_, answer)| answer.source == *source);
        if of_caller().count() < ANSWERS_PER_SLOT_MAX {
            return Ok(());
        }
        let oldest =
            of_caller().filter(|(_, answer)| answer.gives_way(now, boot)).min_by_key(|(_, answer)| answer.since);
        let (place, index) = oldest.map(|(place, answer)| (place, answer.index)).ok_or(DropReason::Busy)?;
        self.drop_answer(place, index);
        Ok(())
    }

    /// There is nobody to talk to at a slot: handshakes from there have come to their end, and more are not wanted for a while.
    pub(super) fn nobody_at(&mut self, now: Moment, slot: Slot) {
        self.callers.set_nobody(now, slot);
        for (place, index) in self.answers.of_caller(&Caller::Slot(slot)) {
            self.drop_answer(place, index);
        }
    }

    /// Whether a handshake of ours with this peer is under way and goes before its own.
    fn wins_over(&self, id: u32) -> bool {
        let Some(peer) = self.peers.get(id) else { return false };
        let under_way = peer.asking.as_ref().is_some_and(|asking| match asking.stage {
            AskingStage::Starting | AskingStage::Waiting { .. } | AskingStage::Finishing { .. } => true,
            // Its end is with the keyrings.
            AskingStage::Confirming { .. } => false,
        });
        under_way && peer.key().is_some_and(|key| self.static_key.public() < key)
    }

    /// Drops our handshake in favour of the peer's.
    fn yield_to(&mut self, now: Moment, id: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if std::mem::replace(&mut peer.yielded, true) {
            return;
        }
        peer.ask_at = Some(now + YIELD_TIME);
        if let Some(Asking { stage: AskingStage::Confirming { .. }, .. }) = &peer.asking {
            return;
        }
        self.stop_asking(id);
    }

    fn drop_answer(&mut self, place: u32, index: u32) -> Option<Answer> {
        let answer = self.answers.remove(place, index)?;
        if self.indexes.owner(index) == Some(Owner::Answering(place)) {
            self.indexes.release(index);
        }
        Some(answer)
    }

    fn transmit_response(&mut self, place: u32, index: u32) {
        let Some(source) = self.answers.get_mut(place, index).map(|answer| answer.source) else { return };
        let Some((to, route)) = self.way_back(&source) else { return };
        let Some(answer) = self.answers.get_mut(place, index) else { return };
        let (AnswerStage::Waiting { noise, .. } | AnswerStage::Refused { noise }) = &answer.stage else { return };
        let mut bytes = Vec::new();
        let mac1 = |bytes: &[u8]| mac::mac1(&self.keys, bytes);
        let kind = wire::Kind::GatewayToGateway;
        Response::emit(&mut bytes, &route, answer.index, answer.remote_index, kind, noise, mac1);
        self.push(Outgoing::Send { bytes, to });
    }

    /// Where a caller is answered.
    fn way_back(&self, caller: &Caller) -> Option<(Endpoint, Route)> {
        match caller {
            Caller::Slot(slot) => {
                let (to, ours) = self.relay.place()?;
                Some((to, Route { destination: Destination::here(*slot), source: ours }))
            }
            Caller::Straight(endpoint) => Some((Endpoint { local: None, ..*endpoint }, Route::DIRECT)),
        }
    }

    /// Who a caller is, as far as that is known before it has said so.
    fn peer_of(&self, caller: &Caller) -> Option<u32> {
        self.peers.find_slot(caller.slot()?)
    }

    /// Takes message 3 of a handshake at `place`.
    pub(super) fn handle_final(&mut self, place: u32, source: &Caller, last: &Final<'_>) -> Result<(), DropReason> {
        if !self.has_room_for_job() {
            return Err(DropReason::Busy);
        }
        let index = last.receiver_index;
        let answer = self.answers.get_mut(place, index).ok_or(DropReason::UnknownHandshake)?;
        if answer.source != *source {
            return Err(DropReason::WrongEndpoint);
        }
        if !matches!(answer.stage, AnswerStage::Waiting { .. }) {
            return Err(DropReason::Duplicate);
        }
        let stage = std::mem::replace(&mut answer.stage, AnswerStage::Answering);
        let AnswerStage::Waiting { responder, noise: response } = stage else { return Err(DropReason::Duplicate) };
        answer.stage = AnswerStage::Finishing { noise: response };
        self.jobs.push_back(Job::responder_finish(job_id(index), responder, last.noise.to_vec()));
        Ok(())
    }

    /// The peer repeats the Final of a session that exists, a datagram of `room` bytes: our Confirm was lost.
    pub(super) fn handle_final_again(
        &mut self,
        now: Moment,
        id: u32,
        source: &Caller,
        last: &Final<'_>,
        room: usize,
    ) -> Result<(), DropReason> {
        let index = last.receiver_index;
        let confirm = Message::Confirm { ip4: self.network.ip4() };
        if OVERHEAD_BYTES + confirm.to_vec().len() > room {
            return Err(DropReason::Unpadded);
        }
        let peer = self.peers.get_mut(id).ok_or(DropReason::UnknownHandshake)?;
        let known = match source {
            Caller::Slot(slot) => peer.slot() == Some(*slot),
            Caller::Straight(endpoint) => peer.paths.knows(endpoint),
        };
        if !known {
            return Err(DropReason::WrongEndpoint);
        }
        if peer.confirmed_at.is_some_and(|at| now.since(at) < CONFIRM_INTERVAL) {
            return Err(DropReason::Duplicate);
        }
        let session = peer.keyring.as_mut().and_then(|keyring| keyring.opening(index));
        if session.is_some_and(|(session, _)| !session.initiator() && now.since(session.created()) < ANSWER_TIME) {
            peer.confirmed_at = Some(now);
            self.seal_for_peer(id, Some(index), &confirm);
        }
        Err(DropReason::Duplicate)
    }

    /// A step of a handshake that a peer began was run.
    pub(super) fn answering_done(&mut self, now: Moment, place: u32, index: u32, outcome: Outcome) {
        let Some(answer) = self.answers.get_mut(place, index) else { return };
        match outcome {
            Outcome::ResponderAnswered(answered) => {
                let (noise, source) = (answered.noise, answer.source);
                answer.stage = match answered.responder {
                    Some(responder) => AnswerStage::Waiting { responder, noise },
                    None => AnswerStage::Refused { noise },
                };
                if matches!(answer.stage, AnswerStage::Refused { .. }) {
                    self.drops.count(DropReason::NoCommonCipher);
                    if let Some(id) = self.peer_of(&source) {
                        self.no_common_cipher(id);
                    }
                }
                self.transmit_response(place, index);
            }
            Outcome::ResponderFinished(finished) => {
                answer.stage = AnswerStage::Unverified { finished: Box::new(finished) };
                self.verify_answer(now, place, index);
            }
            Outcome::Failed { error, responder, .. } => {
                self.drops.count(failure(error));
                if let AnswerStage::Finishing { noise } = &mut answer.stage
                    && let Some(responder) = responder
                    && answer.forged < FORGED_MAX
                {
                    // A forged message: the true one may still come.
                    answer.forged += u8::from(error != HandshakeError::Overloaded);
                    answer.stage = AnswerStage::Waiting { responder, noise: std::mem::take(noise) };
                } else {
                    self.drop_answer(place, index);
                }
            }
            Outcome::InitiatorStarted { .. } | Outcome::InitiatorFinished(_) => {}
        }
    }

    /// Looks at handshakes under way: asks who they are, gives up those that take too long.
    pub(super) fn tend_answers(&mut self, now: Moment) {
        let mut all: Vec<(u32, u32)> = Vec::with_capacity(self.answers.count);
        all.extend(self.answers.iter().map(|(place, answer)| (place, answer.index)));
        for (place, index) in all {
            let Some(answer) = self.answers.get_mut(place, index) else { continue };
            let source = answer.source;
            if now.since(answer.since) >= ANSWER_TIME {
                self.drop_answer(place, index);
            } else if source.slot().is_none() {
                // The transfer, which was to say whose it is, may be away by now.
                self.verify_answer(now, place, index);
            } else if let Caller::Slot(source) = source
                && self.peers.find_slot(source).is_none()
                && self.relay.registration().is_some()
                && let Some(lookup) = self.callers.lookup(source)
                && lookup.next_at <= now
                && self.slot_lookups.take(now)
            {
                lookup.next_at = now + backoff(RETRANSMIT_FIRST, RETRANSMIT_MOST, lookup.attempt);
                lookup.attempt += 1;
                let request = lookup.request;
                self.ask_transfer(now, request, Target::Slot(source));
            }
        }
        self.answers.next_at = (self.answers.count > 0).then(|| now + ANSWERS_INTERVAL);
    }

    /// It is known who holds a slot: handshakes from there can go on.
    pub(super) fn verify_answers_of(&mut self, now: Moment, id: u32, slot: Slot) {
        let mut all = self.answers.of_caller(&Caller::Slot(slot));
        if let Some(peer) = self.peers.get(id) {
            all.extend(self.answers.that_claim(peer.ip4));
        }
        all.retain(|&(place, index)| {
            let answer = self.answers.get_mut(place, index).map(|answer| (answer.boot, answer.number));
            let peer = self.peers.get(id);
            let outdated = answer.is_some_and(|(boot, number)| peer.is_some_and(|peer| peer.is_outdated(boot, number)));
            if outdated {
                self.drop_answer(place, index);
            }
            !outdated
        });
        if !all.is_empty() && !self.wins_over(id) {
            self.yield_to(now, id);
        }
        for (place, index) in all {
            let answer = self.answers.get_mut(place, index);
            if answer.is_some_and(|answer| matches!(answer.stage, AnswerStage::Refused { .. })) {
                self.no_common_cipher(id);
            }
            self.verify_answer(now, place, index);
        }
    }
}

/// Which handshake an init begins: the start of its peer, and the number within that.
fn numbered(keys: &NamespaceKeys, noise: &[u8]) -> Option<(u64, u64)> {
    let hello = read_hello(Kind::GatewayToGateway, keys, noise).ok()?;
    match Message::decode(&hello) {
        Ok(Some(Message::Hello { boot, number, .. })) => Some((boot, number)),
        _ => None,
    }
}
