//! Sessions with peers that they begin: the responder's side of a handshake.
//!
//! The transfer says from which slot a handshake came, and it is asked at once who holds that slot. The session counts when
//! the key of the handshake is the key that holds it. Frames under a session whose Final is still being read wait for it,
//! bounded, so that an initiator may send right after it.

use std::collections::VecDeque;
use std::time::Duration;

use mesh_wire::handshake::{self as wire, Init, Response};
use mesh_wire::message::{CloseReason, Message, PeerRecord, Target};
use mesh_wire::route::{Destination, Route, Slot};
use mesh_wire::sealed::OVERHEAD_BYTES;
use rand::Rng;

use super::handshake::{Asking, AskingStage, RETRANSMIT_FIRST, RETRANSMIT_MOST, job_id};
use super::indexes::Owner;
use super::peers::Lookup;
use super::timers::backoff;
use super::{Event, Gateway, Held, Outgoing};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment};
use crate::session::PublicKey;
use crate::session::cipher::{Cipher, CipherSet};
use crate::session::handshake::{Kind, Params, Responder, ResponderFinished};
use crate::session::jobs::{Job, Outcome};
use crate::session::keyring::{Established, Installed, Keyring};
use crate::session::mac;

/// How long a peer that won over a handshake of ours may take for its own.
const YIELD_TIME: Duration = Duration::from_secs(2);
/// Handshakes of peers under way, at most; each is about 2 KiB and what is held for it.
pub(super) const ANSWERS_MAX: usize = 1024;
/// Of one slot.
const ANSWERS_PER_SLOT_MAX: usize = 2;
/// How long one may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Frames held for one handshake, and in all.
const HELD_PER_ANSWER_MAX: usize = 32;
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
    /// Its slot, as the transfer forwarded it.
    source: Slot,
    init_mac1: [u8; 16],
    since: Moment,
    /// Messages 3 that were false.
    forged: u8,
    stage: AnswerStage,
    /// Asks who holds the slot, until that is known.
    lookup: Lookup,
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
    /// All is known but whose key it is.
    Unverified { finished: Box<ResponderFinished> },
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

    /// Keeps a frame until the handshake ends.
    pub(super) fn hold(&mut self, place: u32, index: u32, from: Endpoint, frame: &[u8]) -> Result<(), DropReason> {
        let all = self.held;
        let answer = self.get_mut(place, index).ok_or(DropReason::UnknownSession)?;
        if answer.held.len() >= HELD_PER_ANSWER_MAX || all >= HELD_MAX {
            return Err(DropReason::HeldFull);
        }
        answer.held.push_back(Held { from, bytes: frame.into() });
        self.held += 1;
        Ok(())
    }
}

/// Answers a Hello.
fn choose(hello: &[u8], ours: CipherSet) -> Option<(Vec<u8>, Cipher)> {
    match Message::decode(hello) {
        Ok(Some(Message::Hello { ciphers, .. })) => {
            let cipher = ours.choose(CipherSet::from_bits(ciphers))?;
            Some((Message::Welcome { cipher: cipher.bit(), features: 0 }.to_vec(), cipher))
        }
        _ => None,
    }
}

impl Gateway {
    /// Takes message 1 of a peer's handshake, which the transfer forwarded from the slot `init.route.source`.
    pub(super) fn handle_init(&mut self, now: Moment, init: &Init<'_>) -> Result<(), DropReason> {
        let source = init.route.source;
        let known = self.peers.find_slot(source);
        let mut of_slot: Vec<(Moment, u32, u32)> = Vec::new();
        let mut repeated = None;
        for (place, answer) in self.answers.iter().filter(|(_, answer)| answer.source == source) {
            if answer.init_mac1 == init.mac1 {
                repeated = Some((place, answer.index));
            }
            of_slot.push((answer.since, place, answer.index));
        }
        if let Some((place, index)) = repeated {
            self.transmit_response(place, index);
            return Err(DropReason::Duplicate);
        }
        if let Some(id) = known
            && self.wins_over(id)
        {
            return Err(DropReason::SimultaneousHandshake);
        }
        if !self.has_room_for_job() {
            return Err(DropReason::Busy);
        }
        if of_slot.len() >= ANSWERS_PER_SLOT_MAX
            && let Some(&(_, place, index)) = of_slot.iter().min()
        {
            self.drop_answer(place, index);
        }
        let place = self.answers.vacancy().ok_or(DropReason::Busy)?;
        let index = self.indexes.allocate(Owner::Answering(place), &mut self.rng).ok_or(DropReason::Busy)?;
        let seed = self.random_seed();
        let params = Params::new(Kind::GatewayToGateway, &self.keys, &self.static_key, seed);
        self.jobs.push_back(Job::responder_answer(
            job_id(index),
            params,
            init.noise.to_vec(),
            CipherSet::fast(),
            choose,
        ));
        let lookup = Lookup { request: self.rng.next_u32(), attempt: 0, next_at: now };
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
                lookup,
                held: VecDeque::new(),
            },
        );
        if let Some(id) = known {
            self.yield_to(now, id);
        }
        self.tend_answers(now);
        Ok(())
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
        let Some((to, ours)) = self.relay.place() else { return };
        let Some(answer) = self.answers.get_mut(place, index) else { return };
        let AnswerStage::Waiting { noise, .. } = &answer.stage else { return };
        let route = Route { destination: Destination::here(answer.source), source: ours };
        let mut bytes = Vec::new();
        let mac1 = |bytes: &[u8]| mac::mac1(&self.keys, bytes);
        let kind = wire::Kind::GatewayToGateway;
        Response::emit(&mut bytes, &route, answer.index, answer.remote_index, kind, noise, mac1);
        self.push(Outgoing::Send { bytes, to });
    }

    /// Takes message 3 of a handshake at `place`.
    pub(super) fn handle_final(&mut self, place: u32, index: u32, noise: &[u8]) -> Result<(), DropReason> {
        if !self.has_room_for_job() {
            return Err(DropReason::Busy);
        }
        let answer = self.answers.get_mut(place, index).ok_or(DropReason::UnknownHandshake)?;
        if !matches!(answer.stage, AnswerStage::Waiting { .. }) {
            return Err(DropReason::Duplicate);
        }
        let stage = std::mem::replace(&mut answer.stage, AnswerStage::Answering);
        let AnswerStage::Waiting { responder, noise: response } = stage else { return Err(DropReason::Duplicate) };
        answer.stage = AnswerStage::Finishing { noise: response };
        self.jobs.push_back(Job::responder_finish(job_id(index), responder, noise.to_vec()));
        Ok(())
    }

    /// The peer repeats the Final of a session that exists, a datagram of `room` bytes: our Confirm was lost.
    pub(super) fn handle_final_again(
        &mut self,
        now: Moment,
        id: u32,
        index: u32,
        room: usize,
    ) -> Result<(), DropReason> {
        let confirm = Message::Confirm { ip4: self.network.ip4() };
        if OVERHEAD_BYTES + confirm.to_vec().len() > room {
            return Err(DropReason::Unpadded);
        }
        let peer = self.peers.get_mut(id).ok_or(DropReason::UnknownHandshake)?;
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
                answer.stage = AnswerStage::Waiting { responder: answered.responder, noise: answered.noise };
                self.transmit_response(place, index);
            }
            Outcome::ResponderFinished(finished) => {
                answer.stage = AnswerStage::Unverified { finished: Box::new(finished) };
                self.verify_answer(now, place, index);
            }
            Outcome::Failed { responder, .. } => {
                self.drops.count(DropReason::HandshakeFailed);
                if let AnswerStage::Finishing { noise } = &mut answer.stage
                    && let Some(responder) = responder
                    && answer.forged < FORGED_MAX
                {
                    // A forged message: the true one may still come.
                    answer.forged += 1;
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
            } else if answer.lookup.next_at <= now && self.peers.find_slot(source).is_none() {
                let lookup = &mut answer.lookup;
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
        let all: Vec<(u32, u32)> = self
            .answers
            .iter()
            .filter(|(_, answer)| answer.source == slot)
            .map(|(place, answer)| (place, answer.index))
            .collect();
        if !all.is_empty() && !self.wins_over(id) {
            self.yield_to(now, id);
        }
        for (place, index) in all {
            self.verify_answer(now, place, index);
        }
    }

    /// Ends a handshake, if its keys and their owner are known.
    fn verify_answer(&mut self, now: Moment, place: u32, index: u32) {
        let Some(answer) = self.answers.get_mut(place, index) else { return };
        if !matches!(answer.stage, AnswerStage::Unverified { .. }) {
            return;
        }
        let Some(id) = self.peers.find_slot(answer.source) else { return };
        let Some(record) = self.peers.get(id).and_then(|peer| peer.record.clone()) else { return };
        let held = std::mem::take(&mut answer.held);
        self.answers.held -= held.len();
        let Some(Answer { remote_index, source, stage: AnswerStage::Unverified { finished }, .. }) =
            self.answers.remove(place, index)
        else {
            return;
        };
        let session = Established::new(index, remote_index, false, &finished.split.keys(finished.cipher), now);
        let Some(boot) = vouched(&record, &finished) else {
            self.drops.count(DropReason::Impostor);
            self.tell(Event::Impostor { ip4: record.ip4 });
            self.indexes.release(index);
            self.refuse_session(session, source);
            return;
        };
        self.answered(now, id, session, finished.remote, boot);
        self.held.extend(held);
    }

    /// Tells someone who has keys but not the right identity.
    fn refuse_session(&mut self, mut session: Established, source: Slot) {
        let Some((to, ours)) = self.relay.place() else { return };
        let route = Route { destination: Destination::here(source), source: ours };
        let close = Message::Close { reason: CloseReason::Impostor };
        if let Some(bytes) = super::control::seal(&mut session, route, &close) {
            self.push(Outgoing::Send { bytes, to });
        }
    }

    /// A peer's handshake has its keys, and they are the peer's.
    fn answered(&mut self, now: Moment, id: u32, session: Established, remote: PublicKey, boot: u64) {
        if self.peers.get(id).and_then(|peer| peer.record.as_ref()).is_some_and(|record| record.boot != boot) {
            // A new start that the transfer did not tell of yet: what was agreed with the earlier one is void.
            self.end_sessions(now, id);
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        if let Some(record) = &mut peer.record {
            record.boot = boot;
        }
        let index = session.local_index();
        let keyring = peer.keyring.get_or_insert_with(|| Keyring::new(self.static_key.public(), &remote));
        let (installed, released) = keyring.install_responder(session, now);
        self.indexes.hand_over(index, Owner::Session(id));
        for index in released {
            self.indexes.release(index);
        }
        if installed != Installed::ReceiveOnly {
            peer.confirmed_at = Some(now);
            self.seal_for_peer(id, Some(index), &Message::Confirm { ip4: self.network.ip4() });
        }
        if installed == Installed::Current {
            // Nothing of ours is needed any more.
            self.stop_asking(id);
            self.session_begins(now, id);
        }
        self.tend_peer(now, id);
    }
}

/// The start that a finished handshake belongs to, if it is of whom the transfer vouches for.
fn vouched(record: &PeerRecord, finished: &ResponderFinished) -> Option<u64> {
    match Message::decode(&finished.payload) {
        Ok(Some(Message::Identity { ip4, boot })) if ip4 == record.ip4 && finished.remote == record.key => Some(boot),
        _ => None,
    }
}
