//! Probes, answers, and what follows from them: which places of a peer are tried, and when another path carries.

use std::net::SocketAddr;

use mesh_wire::message::{Candidate, CandidateKind, Mapping, Message};
use rand::Rng;

use super::candidates::{Sources, is_place};
use super::table::Way;
use super::{Path, PathChoice, PathKind};
use crate::drops::DropReason;
use crate::gateway::ip::Whereto;
use crate::gateway::local::{LOCAL_ADDRESSES_MAX, LocalAddress};
use crate::gateway::peers::Peer;
use crate::gateway::{Event, Gateway, Outgoing, control};
use crate::seam::{Endpoint, Moment};

/// Peers whose paths are probed at full rate; with more of them pauses are longer in proportion, up to [`STRETCH_MOST`] times.
const PEERS_AT_FULL_RATE: u32 = 50;
const STRETCH_MOST: u32 = 5;

impl Gateway {
    /// The machine's network has changed, or this is how it is at the start: our addresses outside, at most 16. All paths are
    /// asked at once whether they still carry, and peers are told of our new places.
    pub fn network_changed(&mut self, now: Moment, local: &[LocalAddress]) {
        self.local = local.iter().take(LOCAL_ADDRESSES_MAX).copied().collect();
        self.candidates.forget_seen();
        for id in self.peers.ids() {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.paths.try_all(now);
                peer.paths.forget_sizes();
                self.peers.timers.by(id, now);
            }
        }
        self.relay_network_changed(now);
        self.observe(now);
        self.forget_searches(now);
        self.collect_candidates(now);
        self.begin_beacons(now);
    }

    /// The addresses of this machine, most preferred first.
    pub fn local_addresses(&self) -> &[LocalAddress] {
        &self.local
    }

    /// What the router maps to our socket for IPv4, by PCP, NAT-PMP or UPnP; `None`: nothing any more.
    pub fn set_mapping(&mut self, now: Moment, mapped: Option<SocketAddr>) {
        if self.mapped != mapped {
            self.mapped = mapped;
            self.collect_candidates(now);
        }
    }

    /// Makes the list of our places anew, and tells peers if it has changed.
    pub(in crate::gateway) fn collect_candidates(&mut self, now: Moment) {
        let observed = self.relay.registration().map(|registration| registration.observed);
        let transfer = self.relay.place().map(|(endpoint, _)| endpoint.remote);
        let sources = Sources {
            local: &self.local,
            ports: self.sockets.ports,
            observed: observed.zip(transfer),
            mapped: self.mapped,
        };
        if !self.candidates.collect(&sources) {
            return;
        }
        for id in self.peers.ids() {
            let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.has_session()) else { continue };
            peer.exchange.begin(now);
            self.peers.timers.by(id, now);
        }
    }

    /// A session with a peer begins: it is told where we are.
    pub(in crate::gateway) fn begin_paths(&mut self, now: Moment, id: u32) {
        self.end_paths(now, id);
        if self.candidates.number() > 0
            && let Some(peer) = self.peers.get_mut(id)
        {
            peer.exchange.begin(now);
        }
    }

    /// There is no session any more, under which paths could prove themselves.
    pub(in crate::gateway) fn end_paths(&mut self, now: Moment, id: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let straight = peer.paths.carrying().is_some();
        peer.paths.clear(now);
        peer.exchange = super::Exchange::default();
        self.peers.straight -= u32::from(straight);
    }

    /// Does what time asks for about the paths to a peer with a session.
    pub(in crate::gateway) fn tend_paths(&mut self, now: Moment, id: u32) {
        // Probes tell how many frames went before them.
        self.collect_sent(now, id);
        let relay = self.has_relay_to(id);
        let number = self.candidates.number();
        let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.has_session()) else { return };
        if peer.exchange.is_due(now, number) {
            self.send_candidates(now, id);
        }
        let stretch = self.stretch();
        while let Some(peer) = self.peers.get_mut(id)
            && let in_use = peer.in_use(now)
            && let Some(way) = peer.paths.due(now, in_use, relay)
        {
            if let Way::Straight(path) = way
                && !peer.paths.has_proven(&path.endpoint)
            {
                let ip = path.endpoint.remote.ip();
                let vouched =
                    peer.record.as_ref().and_then(|record| record.observed).is_some_and(|seen| seen.ip() == ip);
                if !self.unproven.take(now, ip, vouched) {
                    peer.paths.pass_over(&path);
                    continue;
                }
            }
            // Whoever could guess it could answer for a place that it only named.
            let seq = self.rng.next_u32();
            let sent = peer.paths.probed(now, way, seq, in_use, stretch);
            self.send_by(id, way, &Message::PathProbe { seq, sent });
        }
        self.review_paths(now, id);
        self.tend_size(now, id);
        self.consider_search(now, id);
    }

    /// Pauses between probes are so many times as long, since so many peers are probed.
    fn stretch(&self) -> u32 {
        (self.peers.straight / PEERS_AT_FULL_RATE).clamp(1, STRETCH_MOST)
    }

    /// Whether the transfer can forward to a peer, as far as we know.
    pub(in crate::gateway) fn has_relay_to(&self, id: u32) -> bool {
        self.relay.is_healthy() && self.peers.get(id).is_some_and(|peer| self.relay.path_to(peer).is_some())
    }

    /// Sees which path is to carry.
    fn review_paths(&mut self, now: Moment, id: u32) {
        let relay = self.has_relay_to(id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(switch) = peer.paths.review(now, relay) else { return };
        let (ip4, endpoint) = (peer.ip4, peer.paths.carrying().map(|path| path.endpoint.remote));
        self.peers.straight =
            self.peers.straight + u32::from(switch.from == PathKind::Relay) - u32::from(switch.to == PathKind::Relay);
        let kind = switch.to;
        self.tell(Event::PathChanged { ip4, kind, endpoint });
        if peer_waits(self.peers.get(id)) {
            self.flush.push_back(id);
        }
    }

    fn send_candidates(&mut self, now: Moment, id: u32) {
        let Some(peer) = self.peers.get(id) else { return };
        let list: Vec<Candidate> = match peer.paths.choice() {
            // Whoever is told of nothing tries nothing.
            PathChoice::Relay => Vec::new(),
            PathChoice::Auto | PathChoice::Direct => self.candidates.list().to_vec(),
            PathChoice::Lan => {
                let on_lan = |candidate: &&Candidate| candidate.kind == CandidateKind::Host;
                self.candidates.list().iter().filter(on_lan).copied().collect()
            }
        };
        let message = Message::Candidates {
            number: self.candidates.number(),
            acknowledged: peer.exchange.theirs,
            mapping: self.candidates.mapping(),
            list,
        };
        self.send_to_peer(now, id, &message);
    }

    /// A peer tells where it may be reached.
    pub(in crate::gateway) fn handle_candidates(
        &mut self,
        now: Moment,
        id: u32,
        (number, acknowledged): (u32, u32),
        mapping: Mapping,
        list: &[Candidate],
    ) {
        let ours = self.candidates.number();
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.exchange.take(now, number, acknowledged, ours) {
            peer.exchange.mapping = mapping;
            peer.exchange.has_places = !list.is_empty();
            for candidate in list {
                if let Some(path) = self.straight_to(candidate.endpoint)
                    && let Some(peer) = self.peers.get_mut(id)
                {
                    peer.paths.add(now, path);
                }
            }
        }
        self.peers.timers.by(id, now);
        self.tend_paths(now, id);
    }

    /// The path to a place, if it is one that datagrams may be sent to.
    pub(super) fn straight_to(&self, remote: SocketAddr) -> Option<Path> {
        let ours = self.local.iter().any(|local| local.address == remote.ip()) && {
            let (v4, v6) = self.sockets.ports;
            remote.port() == if remote.is_ipv4() { v4 } else { v6 }
        };
        let inside = self.network.whereto(remote.ip()) != Whereto::Elsewhere;
        let relay = self.relay.addresses.iter().any(|address| address == &remote);
        if ours || inside || relay || !is_place(&remote) {
            return None;
        }
        let endpoint = self.sockets.endpoint(remote)?;
        Some(Path::straight(PathKind::of(&endpoint, &self.local), endpoint))
    }

    /// A peer was heard at an endpoint that has proven itself: it is tried as a path.
    pub(in crate::gateway) fn add_path(&mut self, now: Moment, id: u32, endpoint: &Endpoint) {
        let Some(path) = self.straight_to(endpoint.remote) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.paths.add(now, Path { endpoint: Endpoint { local: None, ..*endpoint }, ..path });
        self.peers.timers.by(id, now);
    }

    /// An authentic frame of a peer came from an endpoint that is not known: the peer has moved, or its NAT shows another port.
    /// Traffic moves there when it has answered.
    pub(in crate::gateway) fn stranger(&mut self, now: Moment, id: u32, from: &Endpoint) {
        if !self.strangers.take(now) {
            return;
        }
        self.add_path(now, id, from);
        if let Some(peer) = self.peers.get_mut(id) {
            peer.paths.note_received(Some(from));
        }
    }

    /// A peer asks whether a path carries. It is answered where it asked from; the answer is no longer than the question.
    pub(in crate::gateway) fn handle_path_probe(
        &mut self,
        id: u32,
        from: Option<Endpoint>,
        observed: SocketAddr,
        seq: u32,
    ) {
        let Some(peer) = self.peers.get(id) else { return };
        let way = match from {
            None => Way::Relay,
            Some(_) if peer.paths.choice() == PathChoice::Relay => return,
            Some(from) => Way::Straight(Path::straight(PathKind::Direct, from)),
        };
        let received = peer.paths.received(from.as_ref());
        if from.is_some() {
            self.search.note_answer(id);
        }
        self.send_by(id, way, &Message::PathReply { seq, received, observed });
    }

    /// A peer answers a probe.
    pub(in crate::gateway) fn handle_path_reply(
        &mut self,
        now: Moment,
        id: u32,
        from: Option<Endpoint>,
        (seq, received): (u32, u32),
        observed: SocketAddr,
    ) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(id).ok_or(DropReason::UnknownSession)?;
        if !peer.paths.answered(now, from.as_ref(), seq, received) {
            // Of a search: that it came is all there is to know.
            let searched = from.is_some() && self.search.is_under_way_with(id);
            return if searched { Ok(()) } else { Err(DropReason::Outdated) };
        }
        // Neighbours see our own address; it is whoever is farther away that sees what our NAT makes of it.
        // A socket of its own has a place of its own.
        if let Some(from) = from
            && self.sockets.has(from.socket)
            && !self.local.iter().any(|local| local.is_neighbour(from.remote.ip()))
            && self.candidates.note_seen(now, observed, SocketAddr::new(from.remote.ip(), 0))
        {
            self.collect_candidates(now);
        }
        self.tend_paths(now, id);
        self.schedule_peer(now, id);
        Ok(())
    }

    /// Sends a message to a peer by one way.
    pub(super) fn send_by(&mut self, id: u32, way: Way, message: &Message) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let path = match way {
            Way::Relay => self.relay.path_to(peer),
            Way::Straight(path) => Some(path),
        };
        let Some(path) = path else { return };
        // The probe has counted itself.
        if !matches!(message, Message::PathProbe { .. }) {
            let straight = (path.kind != PathKind::Relay).then_some(&path.endpoint);
            peer.paths.note_sent_to(straight);
        }
        let Some(session) = peer.keyring.as_mut().and_then(|keyring| keyring.sealing()) else { return };
        if let Some(bytes) = control::seal(session, path.route, message) {
            self.push(Outgoing::Send { bytes, to: path.endpoint });
        }
    }
}

fn peer_waits(peer: Option<&Peer>) -> bool {
    peer.is_some_and(|peer| !peer.queue.is_empty())
}
