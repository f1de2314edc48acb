//! Whose a finished handshake is: the key must be the one that is known, or vouched for.

use std::net::Ipv4Addr;

use mesh_wire::message::{CloseReason, Message};

use super::{Answer, AnswerStage};
use crate::drops::DropReason;
use crate::gateway::callers::Caller;
use crate::gateway::indexes::Owner;
use crate::gateway::peers::{Claim, Peer};
use crate::gateway::{Event, Gateway, Outgoing, control};
use crate::seam::Moment;
use crate::session::PublicKey;
use crate::session::handshake::ResponderFinished;
use crate::session::keyring::{Established, Installed, Keyring};

impl Gateway {
    /// Ends a handshake, if its keys and their owner are known.
    pub(super) fn verify_answer(&mut self, now: Moment, place: u32, index: u32) {
        let Some(answer) = self.answers.get_mut(place, index) else { return };
        if !matches!(answer.stage, AnswerStage::Unverified { .. }) {
            return;
        }
        let AnswerStage::Unverified { finished } = &answer.stage else { return };
        let (source, says) = (answer.source, claimed(finished));
        let Some(id) = self.whose(now, &source, says) else { return };
        let Some(answer) = self.answers.get_mut(place, index) else { return };
        let held = std::mem::take(&mut answer.held);
        self.answers.held -= held.len();
        let Some(Answer { remote_index, source, stage: AnswerStage::Unverified { finished }, boot, number, .. }) =
            self.answers.remove(place, index)
        else {
            return;
        };
        let session = Established::new(index, remote_index, false, &finished.split.keys(finished.cipher), now);
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !is_genuine(now, peer, &finished, boot) {
            let ip4 = peer.ip4;
            self.drops.count(DropReason::Impostor);
            self.tell(Event::Impostor { ip4 });
            self.indexes.release(index);
            self.refuse_session(session, &source);
            // It may be known for nothing but that claim.
            self.schedule_peer(now, id);
            return;
        };
        if peer.key() == Some(&finished.remote) {
            peer.prove_claim();
        } else {
            peer.claim(Claim { key: finished.remote, boot, endpoint: None, at: now, proven: true });
        }
        self.answered(now, id, session, finished.remote, (boot, number));
        if let Caller::Straight(endpoint) = &source {
            self.add_path(now, id, endpoint);
        }
        self.held.extend(held);
    }

    /// The peer that a finished handshake is of, if enough is known to say whether it is genuine. Whom the transfer does not vouch
    /// for is asked for there first; where there is no transfer, or it knows of nobody, the first to come is taken.
    pub(super) fn whose(&mut self, now: Moment, source: &Caller, says: Option<Ipv4Addr>) -> Option<u32> {
        if source.slot().is_some() {
            return self.peer_of(source).filter(|id| self.peers.get(*id).is_some_and(|peer| peer.record.is_some()));
        }
        let ip4 = says.filter(|ip4| self.can_be_peer(*ip4))?;
        let id = self.peers.find_or_add(ip4, now)?;
        let healthy = self.relay.is_healthy();
        let peer = self.peers.get_mut(id)?;
        let decided = peer.record.is_some() || !healthy || peer.absent_until.is_some_and(|until| now < until);
        if !decided {
            peer.called = true;
            // If it is silent that is to be known soon.
            self.relay.used(now);
            self.tend_lookup(now, id);
            self.schedule_peer(now, id);
        }
        decided.then_some(id)
    }

    /// The transfer has said who holds an address, or that nobody does: those that came straight and claim it can go on.
    pub(in crate::gateway) fn verify_answers_that_claim(&mut self, now: Moment, ip4: Ipv4Addr) {
        for (place, index) in self.answers.that_claim(ip4) {
            self.verify_answer(now, place, index);
        }
    }

    /// Tells someone who has keys but not the right identity.
    pub(super) fn refuse_session(&mut self, mut session: Established, source: &Caller) {
        let Some((to, route)) = self.way_back(source) else { return };
        let close = Message::Close { reason: CloseReason::Impostor };
        if let Some(bytes) = control::seal(&mut session, route, &close) {
            self.push(Outgoing::Send { bytes, to });
        }
    }

    /// A peer's handshake has its keys, and they are the peer's.
    pub(super) fn answered(
        &mut self,
        now: Moment,
        id: u32,
        session: Established,
        remote: PublicKey,
        hello: (u64, u64),
    ) {
        let (boot, _) = hello;
        if self.peers.get(id).and_then(Peer::boot).is_some_and(|known| known != boot) {
            // A new start that the transfer did not tell of yet: what was agreed with the earlier one is void.
            self.end_sessions(now, id);
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.set_boot(boot);
        peer.called = false;
        if !peer.is_outdated(hello.0, hello.1) {
            peer.hello = Some(hello);
        }
        peer.yielded = false;
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

/// Whether a finished handshake is of a key that may be a peer's, and of the start that its Hello named.
fn is_genuine(now: Moment, peer: &Peer, finished: &ResponderFinished, hello_boot: u64) -> bool {
    match Message::decode(&finished.payload) {
        Ok(Some(Message::Identity { ip4, boot })) => {
            ip4 == peer.ip4 && peer.may_be(now, &finished.remote, true) && boot == hello_boot
        }
        _ => false,
    }
}

/// The virtual address that a finished handshake says it is of.
pub(super) fn claimed(finished: &ResponderFinished) -> Option<Ipv4Addr> {
    match Message::decode(&finished.payload) {
        Ok(Some(Message::Identity { ip4, .. })) => Some(ip4),
        _ => None,
    }
}
