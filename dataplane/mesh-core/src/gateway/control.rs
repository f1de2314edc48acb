//! Sealed messages between gateways.

use std::net::SocketAddr;

use mesh_wire::frame::FrameType;
use mesh_wire::message::{CloseReason, Message};
use mesh_wire::route::Route;
use mesh_wire::sealed::{OVERHEAD_BYTES, SealedHeader};

use super::{Event, Gateway, Outgoing};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment};
use crate::session::keyring::{Established, Slot};

/// A control frame with `message`, padded if it is a request; `None` when the session is used up.
pub(super) fn seal(session: &mut Established, route: Route, message: &Message) -> Option<Vec<u8>> {
    seal_plaintext(session, route, &message.to_padded_vec())
}

/// The same with the bytes of a message, padded as they are to be.
pub(super) fn seal_plaintext(session: &mut Established, route: Route, plaintext: &[u8]) -> Option<Vec<u8>> {
    seal_frame(session, route, FrameType::Control, plaintext)
}

fn seal_frame(session: &mut Established, route: Route, frame: FrameType, plaintext: &[u8]) -> Option<Vec<u8>> {
    let counter = session.reserve(1)?;
    let header = SealedHeader { frame, flags: 0, route, receiver_index: session.remote_index(), counter }.emit();
    let mut bytes = Vec::with_capacity(OVERHEAD_BYTES + plaintext.len());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(plaintext);
    let tag = session.seal(counter, &header, &mut bytes[header.len()..]);
    bytes.extend_from_slice(&tag);
    Some(bytes)
}

impl Gateway {
    /// Sends a message under the current session with a peer, if there is one.
    pub(super) fn send_to_peer(&mut self, _now: Moment, id: u32, message: &Message) {
        self.seal_for_peer(id, None, message);
    }

    /// Sends a message under the session that the peer names by `index`, or the current one.
    pub(super) fn seal_for_peer(&mut self, id: u32, index: Option<u32>, message: &Message) {
        self.seal_frame_for_peer(id, index, FrameType::Control, &message.to_padded_vec());
    }

    /// Sends a data frame that holds nothing: the peer sees that the session is in use.
    pub(super) fn send_empty(&mut self, id: u32) {
        self.seal_frame_for_peer(id, None, FrameType::Data, &[]);
    }

    fn seal_frame_for_peer(&mut self, id: u32, index: Option<u32>, frame: FrameType, plaintext: &[u8]) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(path) = peer.path_of_messages(&self.relay) else { return };
        peer.paths.note_sent(1);
        let Some(keyring) = &mut peer.keyring else { return };
        let session = match index {
            Some(index) => keyring.opening(index).map(|(session, _)| session),
            None => keyring.sealing(),
        };
        if let Some(bytes) = session.and_then(|session| seal_frame(session, path.route, frame, plaintext)) {
            self.push(Outgoing::Send { bytes, to: path.endpoint });
        }
    }

    /// Takes a message of a peer, that came under a session in the hand `slot`, from the endpoint `straight` or by the relay; the
    /// last one on its way was at `remote`.
    pub(super) fn handle_peer_message(
        &mut self,
        now: Moment,
        id: u32,
        slot: Slot,
        straight: Option<Endpoint>,
        remote: SocketAddr,
        plaintext: &[u8],
    ) -> Result<(), DropReason> {
        let message = Message::decode(plaintext).map_err(|_| DropReason::Malformed)?;
        if message.as_ref().is_some_and(|message| plaintext.len() < message.answer_bytes_max()) {
            return Err(DropReason::Unpadded);
        }
        match message {
            // That it came is all there is to know.
            Some(Message::Confirm { .. } | Message::ProbeReply { .. }) => Ok(()),
            Some(Message::Probe { seq }) => {
                self.send_to_peer(now, id, &Message::ProbeReply { seq });
                Ok(())
            }
            Some(Message::Candidates { number, acknowledged, mapping, list }) => {
                self.handle_candidates(now, id, (number, acknowledged), mapping, &list);
                Ok(())
            }
            Some(Message::PathProbe { seq, .. }) => {
                self.handle_path_probe(id, straight, remote, seq);
                Ok(())
            }
            Some(Message::PathReply { seq, received, observed }) => {
                self.handle_path_reply(now, id, straight, (seq, received), observed)
            }
            Some(Message::SizeProbe { seq }) => {
                self.handle_size_probe(now, id, straight, seq, plaintext.len());
                Ok(())
            }
            Some(Message::SizeReply { seq, bytes }) => self.handle_size_reply(now, id, straight, (seq, bytes)),
            Some(Message::SearchBegin { request, endpoint }) => {
                self.search_begun(now, id, request, endpoint);
                Ok(())
            }
            Some(Message::SearchReady { request, sockets }) => self.search_answered(now, id, request, sockets),
            Some(Message::Close { reason }) => {
                self.peer_closed(now, id, slot, reason);
                Ok(())
            }
            Some(
                Message::Hello { .. }
                | Message::Welcome { .. }
                | Message::Register { .. }
                | Message::Registered { .. }
                | Message::Refused { .. }
                | Message::Keepalive { .. }
                | Message::KeepaliveAck { .. }
                | Message::Lookup { .. }
                | Message::Found { .. }
                | Message::NotFound { .. }
                | Message::Change { .. }
                | Message::Goodbye
                | Message::Presence { .. }
                | Message::Identity { .. }
                | Message::SearchRequest { .. }
                | Message::SearchGrant { .. }
                | Message::SearchRefused { .. },
            )
            | None => Err(DropReason::UnknownMessage),
        }
    }

    fn peer_closed(&mut self, now: Moment, id: u32, slot: Slot, reason: CloseReason) {
        if slot == Slot::Previous {
            // Old keys say nothing about the session that is in use.
            return;
        }
        self.end_sessions(now, id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        match reason {
            CloseReason::Idle => {}
            // It may be back at once, or elsewhere.
            CloseReason::Stopping => peer.refresh = true,
            CloseReason::Impostor => {
                peer.refresh = true;
                peer.ask_at = Some(now + super::handshake::FAILURE_TIME);
            }
        }
        self.tend_peer(now, id);
    }

    /// Drops all sessions with a peer, and our handshake with it.
    pub(super) fn end_sessions(&mut self, now: Moment, id: u32) {
        self.stop_asking(id);
        self.end_paths(now, id);
        self.joiner.forget(id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.unanswered_since = None;
        peer.probing = None;
        peer.half_sent = false;
        if let Some(keyring) = &mut peer.keyring {
            for index in keyring.clear() {
                self.indexes.release(index);
            }
        }
        if std::mem::take(&mut peer.up) {
            let ip4 = peer.ip4;
            self.tell(Event::PeerDown { ip4 });
        }
    }
}
