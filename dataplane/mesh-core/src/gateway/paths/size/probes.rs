//! Probes of the size of the path that carries, and their answers. A probe is an authentic message, padded to the length in question;
//! the answer is short, and names that length. It counts only where it answers a probe by its number and length, and comes by
//! the path that was asked.

use mesh_wire::message::Message;
use mesh_wire::sealed::OVERHEAD_BYTES;
use rand::Rng;

use super::{OUTER_BYTES_ASSUMED, OUTER_BYTES_MAX, OUTER_BYTES_USUAL, OuterSize, Size, inside_mtu};
use crate::drops::DropReason;
use crate::gateway::paths::table::Way;
use crate::gateway::paths::{Path, PathChoice, PathKind, Paths};
use crate::gateway::{Event, Gateway, Outgoing, control};
use crate::seam::{Endpoint, Moment};

impl Gateway {
    /// The longest IP packet that leaves by any of our interfaces outside, in bytes; `None`: not known, and taken to be Ethernet's
    /// 1500. Paths are asked for no more than it, and never for more than 9000. If it is another than before, all are asked anew.
    pub fn set_outside_mtu(&mut self, now: Moment, mtu: Option<u16>) {
        let limit = mtu.unwrap_or(OUTER_BYTES_USUAL).clamp(OUTER_BYTES_ASSUMED, OUTER_BYTES_MAX);
        if std::mem::replace(&mut self.outer_limit, limit) == limit {
            return;
        }
        for id in self.peers.ids() {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.paths.forget_sizes();
                self.peers.timers.by(id, now);
            }
        }
    }

    /// Asks the path that carries to a peer for its size, where that is due.
    pub(in crate::gateway) fn tend_size(&mut self, now: Moment, id: u32) {
        if self.outer != OuterSize::Assumed {
            return;
        }
        let limit = self.outer_limit;
        let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.has_session() && peer.in_use(now)) else { return };
        let Some(path) = peer.path(&self.relay) else { return };
        let mut lengths = Vec::new();
        peer.paths.tend_size(now, &path, limit, &mut lengths);
        for outer in lengths {
            self.send_size_probe(now, id, &path, outer);
        }
        self.follow_size(now, id);
    }

    fn send_size_probe(&mut self, now: Moment, id: u32, path: &Path, outer: u16) {
        let inner = path.inner_bytes(outer);
        // Whoever could guess it could answer for what never arrived.
        let seq = self.rng.next_u32();
        let Some(plaintext) = (Message::SizeProbe { seq }).to_vec_of(inner) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(session) = peer.keyring.as_mut().and_then(|keyring| keyring.sealing()) else { return };
        if let Some(bytes) = control::seal_plaintext(session, path.route, &plaintext) {
            peer.paths.probe_size(now, seq, outer, bytes.len());
            self.push(Outgoing::Send { bytes, to: path.endpoint });
        }
    }

    /// Lets the virtual interface follow what the path to a peer in use has proven.
    pub(in crate::gateway) fn follow_size(&mut self, now: Moment, id: u32) {
        let Some(peer) = self.peers.get(id).filter(|peer| peer.has_session() && peer.in_use(now)) else { return };
        let size = peer.paths.size();
        if let Some(bytes) = self.inside_mtu.follow(now, inside_mtu(size.proven()), !size.is_searching()) {
            self.tell(Event::InsideMtu { bytes });
        }
    }

    /// A peer asks whether a datagram of this length passes, of which the message has `plaintext_bytes`: it does. It is answered
    /// where it asked from.
    pub(in crate::gateway) fn handle_size_probe(
        &mut self,
        now: Moment,
        id: u32,
        from: Option<Endpoint>,
        seq: u32,
        plaintext_bytes: usize,
    ) {
        let Ok(bytes) = u16::try_from(plaintext_bytes + OVERHEAD_BYTES) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        let way = match from {
            None => Way::Relay,
            Some(_) if peer.paths.choice() == PathChoice::Relay => return,
            Some(from) => Way::Straight(Path::straight(PathKind::Direct, from)),
        };
        peer.paths.note_size_heard(now, from.as_ref(), bytes, self.outer_limit);
        if peer.in_use(now) && peer.paths.next_size_timeout(self.outer_limit).is_some_and(|at| at <= now) {
            self.peers.timers.by(id, now);
        }
        self.send_by(id, way, &Message::SizeReply { seq, bytes });
    }

    /// A peer answers such a question.
    pub(in crate::gateway) fn handle_size_reply(
        &mut self,
        now: Moment,
        id: u32,
        from: Option<Endpoint>,
        (seq, bytes): (u32, u16),
    ) -> Result<(), DropReason> {
        let limit = self.outer_limit;
        let peer = self.peers.get_mut(id).ok_or(DropReason::UnknownSession)?;
        if !peer.paths.size_answered(now, limit, from.as_ref(), seq, usize::from(bytes)) {
            return Err(DropReason::Outdated);
        }
        self.tend_size(now, id);
        self.schedule_peer(now, id);
        Ok(())
    }
}

impl Paths {
    /// When the size of the path that carries is to be tended again.
    pub(in crate::gateway) fn next_size_timeout(&self, limit: u16) -> Option<Moment> {
        self.size().next_timeout(limit)
    }

    fn tend_size(&mut self, now: Moment, path: &Path, limit: u16, lengths: &mut Vec<u16>) {
        let (usual, lossy) = (self.measured().round_trip(), self.is_lossy());
        if self.size_mut().tend(now, path, limit, usual, lossy, lengths) {
            self.measured_mut().forget_loss();
        }
    }

    /// Notes that a probe of the path that carries leaves: an outer packet of `outer` bytes, of which UDP carries `payload`.
    pub(in crate::gateway) fn probe_size(&mut self, now: Moment, seq: u32, outer: u16, payload: usize) {
        self.size_mut().probe(now, seq, outer, payload);
    }

    /// Takes the answer to a probe of a size, which came from an endpoint of the peer or by the relay. `false` when it answers
    /// nothing that was asked there.
    fn size_answered(&mut self, now: Moment, limit: u16, from: Option<&Endpoint>, seq: u32, payload: usize) -> bool {
        let Some((size, gauge)) = self.size_of(from) else { return false };
        let Some(at) = size.answer(now, limit, seq, payload) else { return false };
        // Probes that do not arrive are no loss; those that do count with what arrived.
        gauge.note_sent_at(at);
        true
    }

    /// A datagram of `payload` bytes came from an endpoint of the peer or by the relay.
    fn note_size_heard(&mut self, now: Moment, from: Option<&Endpoint>, payload: u16, limit: u16) {
        let headers = match from {
            Some(from) if from.remote.is_ipv6() => super::IPV6_UDP_BYTES,
            // By the relay it came with these at least.
            Some(_) | None => super::IPV4_UDP_BYTES,
        };
        if let Some((size, _)) = self.size_of(from) {
            let outer = payload.saturating_add(u16::try_from(headers).expect("below a hundred"));
            size.hear(now, outer.min(limit));
        }
    }

    /// Nothing is known of what any path carries.
    pub(in crate::gateway) fn forget_sizes(&mut self) {
        self.sizes_mut().for_each(Size::forget);
    }
}
