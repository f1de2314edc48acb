//! Sessions with peers that we begin: the initiator's side of a handshake.
//!
//! Of two handshakes begun at the same time the one of the lower static key goes on: the other side drops its own, and answers.
//! Should both come to an end all the same, the keyrings of both sides settle on the same one.

use std::time::Duration;

use mesh_wire::cookie::CookieReply;
use mesh_wire::handshake::{self as wire, Final, Init, Response};
use mesh_wire::message::Message;

use super::addresses::same;
use super::indexes::Owner;
use super::paths::{Path, PathKind};
use super::timers::backoff;
use super::{Event, Gateway, Outgoing};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment};
use crate::session::cipher::{Cipher, Ciphers, NO_CIPHER};
use crate::session::handshake::{HandshakeError, Initiator, InitiatorFinished, Kind, Params};
use crate::session::jobs::{Job, Outcome};
use crate::session::keyring::{Established, Installed, Keyring};
use crate::session::mac::{self, Cookie};

/// First wait for an answer; it doubles.
pub(super) const RETRANSMIT_FIRST: Duration = Duration::from_millis(250);
/// Longest wait for an answer.
pub(super) const RETRANSMIT_MOST: Duration = Duration::from_secs(1);
/// A handshake we began is begun anew after this time.
pub(super) const ASKING_TIME: Duration = Duration::from_secs(10);
/// Cookies that are shown as soon as they come, in one handshake.
const COOKIES_AT_ONCE: u8 = 2;
/// Wait after a handshake that failed.
pub(super) const FAILURE_TIME: Duration = Duration::from_secs(1);

/// A handshake that we began.
#[derive(Debug)]
pub(super) struct Asking {
    /// What the peer calls us by.
    pub(super) index: u32,
    pub(super) stage: AskingStage,
    pub(super) since: Moment,
    /// How often the message at hand was sent.
    pub(super) attempt: u32,
    /// When it is sent again.
    pub(super) next_at: Moment,
    /// Where the last one went that went straight; what answers it comes from there.
    straight: Option<Path>,
    /// The straight path by which the answer came; what follows goes there, as it counts from nowhere else.
    answered: Option<Path>,
    /// Shows to an address of the peer's that ours is ours; and the first MAC of the message that it was asked by.
    cookie: Option<Cookie>,
    asked: [u8; 16],
    cookies: u8,
}

#[derive(Debug)]
pub(super) enum AskingStage {
    /// Message 1 is being made.
    Starting,
    /// Message 1 is on its way.
    Waiting { initiator: Initiator, noise: Vec<u8> },
    /// Message 2 is being read.
    Finishing { noise: Vec<u8>, remote_index: u32 },
    /// Message 3 is on its way; the session exists.
    Confirming { noise: Vec<u8>, remote_index: u32 },
}

/// Numbers a job by the session index it works for, so that an outcome finds its handshake or nothing.
pub(super) fn job_id(index: u32) -> u64 {
    u64::from(index)
}

/// The cipher that a Welcome names, if it is one that we offered.
pub(super) fn chosen(welcome: &[u8], offered: Ciphers) -> Option<Cipher> {
    match Message::decode(welcome) {
        Ok(Some(Message::Welcome { cipher, .. })) => {
            Cipher::from_bit(cipher).filter(|cipher| offered.contains(*cipher))
        }
        _ => None,
    }
}

/// How a handshake step that came to nothing is counted.
pub(super) fn failure(error: HandshakeError) -> DropReason {
    if error == HandshakeError::Overloaded { DropReason::Busy } else { DropReason::HandshakeFailed }
}

impl Gateway {
    /// The Hello of our next handshake.
    pub(super) fn next_hello(&mut self) -> Vec<u8> {
        self.hello_number += 1;
        let (boot, number) = (self.boot, self.hello_number);
        Message::Hello { ciphers: self.ciphers.set().bits(), features: 0, boot, number }.to_vec()
    }

    /// Begins a handshake with a peer whose key is known.
    pub(super) fn ask(&mut self, now: Moment, id: u32) {
        if !self.has_room_for_job() {
            return;
        }
        let Some(index) = self.indexes.allocate(Owner::Asking(id), &mut self.rng) else { return };
        let params = Params::new(Kind::GatewayToGateway, &self.keys, &self.static_key, self.rng.secret());
        let hello = self.next_hello();
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.asking = Some(Asking {
            index,
            stage: AskingStage::Starting,
            since: now,
            attempt: 0,
            next_at: now + RETRANSMIT_MOST,
            straight: None,
            answered: None,
            cookie: None,
            asked: [0; 16],
            cookies: 0,
        });
        self.jobs.push_back(Job::initiator_start(job_id(index), params, hello));
    }

    /// Ends a handshake of ours. Its session, if it came to be, stays.
    pub(super) fn stop_asking(&mut self, id: u32) {
        let Some(asking) = self.peers.get_mut(id).and_then(|peer| peer.asking.take()) else { return };
        if self.indexes.owner(asking.index) == Some(Owner::Asking(id)) {
            self.indexes.release(asking.index);
        }
    }

    /// Sends the message at hand of our handshake, again if need be, and notes when to do so next.
    pub(super) fn transmit_asking(&mut self, now: Moment, id: u32) {
        let Some(peer) = self.peers.get(id) else { return };
        let Some(asking) = &peer.asking else { return };
        let turn = peer.path_of_handshakes(now, &self.relay, &self.local, asking.attempt);
        let path = match asking.stage {
            AskingStage::Confirming { .. } => asking.answered.or_else(|| peer.relayed(&self.relay)).or(turn),
            AskingStage::Starting | AskingStage::Waiting { .. } | AskingStage::Finishing { .. } => turn,
        };
        self.transmit_asking_by(now, id, path);
    }

    fn transmit_asking_by(&mut self, now: Moment, id: u32, path: Option<Path>) {
        let Some(asking) = self.peers.get_mut(id).and_then(|peer| peer.asking.as_mut()) else { return };
        asking.next_at = now + backoff(RETRANSMIT_FIRST, RETRANSMIT_MOST, asking.attempt);
        asking.attempt += 1;
        let Some(path) = path else { return };
        let straight = path.kind != PathKind::Relay;
        if straight {
            asking.straight = Some(path);
        }
        let kind = wire::Kind::GatewayToGateway;
        let bytes = match &asking.stage {
            AskingStage::Waiting { noise, .. } => {
                let mac1 = |bytes: &[u8]| mac::mac1(&self.keys, bytes);
                let cookie = asking.cookie.as_ref().filter(|_| straight);
                let mac2 = |bytes: &[u8]| cookie.map_or([0; 16], |cookie| mac::mac2(cookie, bytes));
                let init = Init::emit(&path.route, asking.index, kind, noise, mac1, mac2).to_vec();
                if straight {
                    asking.asked = Init::parse(&init).map_or([0; 16], |init| init.mac1);
                }
                init
            }
            AskingStage::Confirming { noise, remote_index } => {
                let mut bytes = Vec::new();
                Final::emit(&mut bytes, &path.route, *remote_index, kind, noise, |bytes| mac::mac1(&self.keys, bytes));
                bytes
            }
            AskingStage::Starting | AskingStage::Finishing { .. } => return,
        };
        self.push(Outgoing::Send { bytes, to: path.endpoint });
    }

    /// A peer that we ask straight wants our address proven first.
    pub(super) fn handle_peer_cookie(
        &mut self,
        now: Moment,
        id: u32,
        from: &Endpoint,
        reply: &CookieReply,
    ) -> Result<(), DropReason> {
        let asking =
            self.peers.get_mut(id).and_then(|peer| peer.asking.as_mut()).ok_or(DropReason::UnknownHandshake)?;
        let path = asking.straight.filter(|path| same(&path.endpoint, from)).ok_or(DropReason::WrongEndpoint)?;
        let cookie =
            Cookie::open(&self.keys, reply.nonce, &asking.asked, &reply.sealed).ok_or(DropReason::NotAuthentic)?;
        asking.cookie = Some(cookie);
        asking.cookies = asking.cookies.saturating_add(1);
        // A peer that does not take its own is left to the timer.
        if asking.cookies <= COOKIES_AT_ONCE {
            self.transmit_asking_by(now, id, Some(path));
        }
        Ok(())
    }

    /// Takes message 2 of a handshake with the peer `id`.
    pub(super) fn handle_response(
        &mut self,
        now: Moment,
        id: u32,
        from: &Endpoint,
        response: &Response<'_>,
    ) -> Result<(), DropReason> {
        if !self.has_room_for_job() {
            return Err(DropReason::Busy);
        }
        let identity = Message::Identity { ip4: self.network.ip4(), boot: self.boot }.to_padded_vec();
        let peer = self.peers.get_mut(id).ok_or(DropReason::UnknownHandshake)?;
        let expected = *peer.key().ok_or(DropReason::UnknownHandshake)?;
        let slot = peer.slot();
        let asking = peer.asking.as_mut().ok_or(DropReason::UnknownHandshake)?;
        let by_slot = self.relay.check_source(from).is_ok() && slot == Some(response.route.source);
        let straight = asking.straight.filter(|path| !by_slot && same(&path.endpoint, from));
        if !by_slot && straight.is_none() {
            return Err(DropReason::WrongEndpoint);
        }
        if !matches!(asking.stage, AskingStage::Waiting { .. }) {
            return Err(DropReason::Duplicate);
        }
        let stage = std::mem::replace(&mut asking.stage, AskingStage::Starting);
        let AskingStage::Waiting { initiator, noise } = stage else { return Err(DropReason::Duplicate) };
        asking.stage = AskingStage::Finishing { noise, remote_index: response.sender_index };
        asking.answered = straight;
        asking.next_at = now + RETRANSMIT_MOST;
        let (job, noise) = (job_id(asking.index), response.noise.to_vec());
        self.jobs.push_back(Job::initiator_finish(job, initiator, noise, identity, Some(expected)));
        Ok(())
    }

    /// A step of a handshake that we began was run.
    pub(super) fn asking_done(&mut self, now: Moment, id: u32, index: u32, outcome: Outcome) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(asking) = peer.asking.as_mut().filter(|asking| asking.index == index) else { return };
        match outcome {
            Outcome::InitiatorStarted { noise, initiator } => {
                asking.stage = AskingStage::Waiting { initiator, noise };
                self.transmit_asking(now, id);
            }
            Outcome::InitiatorFinished(finished) => self.asked(now, id, finished),
            Outcome::Failed { error, initiator, .. } => {
                self.drops.count(failure(error));
                if let AskingStage::Finishing { noise, .. } = &mut asking.stage
                    && let Some(initiator) = initiator
                {
                    // A forged message: the true one may still come.
                    let noise = std::mem::take(noise);
                    asking.stage = AskingStage::Waiting { initiator, noise };
                } else {
                    self.stop_asking(id);
                    self.asking_failed(now, id, error);
                }
            }
            Outcome::ResponderAnswered(_) | Outcome::ResponderFinished(_) => {}
        }
        self.tend_peer(now, id);
    }

    fn asking_failed(&mut self, now: Moment, id: u32, error: HandshakeError) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.ask_at = Some(now + FAILURE_TIME);
        if error == HandshakeError::WrongKey {
            // Either that, or what we know is old: ask again who holds the address.
            peer.refresh = true;
            peer.doubt_claim();
            let ip4 = peer.ip4;
            self.drops.count(DropReason::Impostor);
            self.tell(Event::Impostor { ip4 });
        }
    }

    /// Our handshake has its keys.
    fn asked(&mut self, now: Moment, id: u32, finished: InitiatorFinished) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.key() == Some(&finished.remote) {
            peer.prove_claim();
        }
        let Some(asking) = &mut peer.asking else { return };
        let (AskingStage::Finishing { remote_index, .. }, Some(cipher)) =
            (&asking.stage, chosen(&finished.welcome, self.ciphers))
        else {
            if matches!(Message::decode(&finished.welcome), Ok(Some(Message::Welcome { cipher: NO_CIPHER, .. }))) {
                // That stays so until one of the two is started anew.
                peer.ask_at = Some(now + ASKING_TIME);
                self.drops.count(DropReason::NoCommonCipher);
                self.no_common_cipher(id);
            } else {
                peer.ask_at = Some(now + FAILURE_TIME);
                self.drops.count(DropReason::HandshakeFailed);
            }
            self.stop_asking(id);
            return;
        };
        peer.yielded = false;
        let answered = asking.answered;
        let (index, remote_index) = (asking.index, *remote_index);
        asking.stage = AskingStage::Confirming { noise: finished.noise, remote_index };
        asking.attempt = 0;
        let session = Established::new(index, remote_index, true, &finished.split.keys(cipher), now);
        let keyring = peer.keyring.get_or_insert_with(|| Keyring::new(self.static_key.public(), &finished.remote));
        let (installed, released) = keyring.install_initiator(session, now);
        if installed == Installed::Discarded {
            // The peer's own handshake, begun at the same time, has won.
            peer.asking = None;
        } else {
            self.indexes.hand_over(index, Owner::Session(id));
            self.transmit_asking(now, id);
        }
        for index in released {
            self.indexes.release(index);
        }
        if installed == Installed::Current {
            self.session_begins(now, id);
        }
        if let Some(path) = answered {
            self.add_path(now, id, &path.endpoint);
        }
    }

    /// A handshake with a peer ended because neither has a cipher of the other's: that is told once, until there is a session.
    pub(super) fn no_common_cipher(&mut self, id: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !std::mem::replace(&mut peer.no_common_cipher, true) {
            let ip4 = peer.ip4;
            self.tell(Event::NoCommonCipher { ip4 });
        }
    }

    /// A peer that had no session has one: its packets go.
    pub(super) fn session_begins(&mut self, now: Moment, id: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.unanswered_since = None;
        peer.no_common_cipher = false;
        peer.probing = None;
        peer.used_at = now;
        self.begin_paths(now, id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !peer.up
            && let Some(&key) = peer.key()
        {
            peer.up = true;
            let (ip4, verified) = (peer.ip4, peer.record.is_some());
            self.tell(Event::PeerUp { ip4, key, verified });
        }
        self.flush.push_back(id);
    }
}
