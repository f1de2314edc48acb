//! The search for a way to a peer whose NAT maps by destination, where ours does not.
//!
//! Such a peer (the *hard* side) is seen at another port by each it sends to, so that no place it can name is good for us (the *easy*
//! side, which has one place for all, but whose NAT or firewall lets in only whom we sent to). So the hard side opens many sockets and
//! sends from each to our place, and we send to many ports of its address: by the birthday paradox 256 of the one and 1,024 of the other
//! meet in 98 of 100 attempts. What meets is an ordinary probe under the keys of the session; from there on its endpoint is a path as
//! any other.
//!
//! 1. the easy side asks the transfer for leave, which keeps routers from being filled and strangers from being shot at;
//! 2. it tells the peer, which sees for itself that it is the hard side and whether the transfer vouches for our address;
//! 3. both send, 200 packets a second each;
//! 4. when a path is proven, or after 8 seconds, the sockets that no path uses are closed.
//!
//! Where both are hard nothing helps: such a pair stays with the relay.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_wire::message::{Mapping, Message, Target};
use rand::{Rng as _, RngExt as _};
use serde::Serialize;

use super::ports::guess;
use super::table::Way;
use super::{Path, PathKind};
use crate::drops::DropReason;
use crate::gateway::peers::Peer;
use crate::gateway::timers::backoff;
use crate::gateway::{Event, Gateway};
use crate::seam::{Endpoint, Moment, SocketId};

/// Sockets that the hard side opens for one attempt.
pub const SEARCH_SOCKETS: u32 = 256;
/// Of those that led to a path, such as stay open at most; then the hard side takes no part until one is closed.
pub const SEARCH_SOCKETS_KEPT: usize = 64;

/// How often packets go, and how many: 200 a second.
const TICK: Duration = Duration::from_millis(20);
const PACKETS_PER_TICK: u32 = 4;
/// Packets from each socket of the hard side.
const PACKETS_PER_SOCKET: u32 = 2;
/// An attempt takes no longer.
const ATTEMPT_TIME: Duration = Duration::from_secs(8);
/// For how long ordinary probes are in vain before a search: a round of them takes 1.8 s.
const IN_VAIN: Duration = Duration::from_millis(2500);
/// Questions to the transfer and to the peer, and the pause after each.
const TRIES: u32 = 4;
const TRY_INTERVAL: Duration = Duration::from_millis(400);
/// A way that was met has this time to prove itself before the search goes on.
const PROOF_TIME: Duration = Duration::from_millis(1500);
/// Between the end of one attempt and the next; with the same peer it doubles.
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_MOST: Duration = Duration::from_secs(3600);
/// The peer's pause began that much earlier than ours, at most.
const SKEW: Duration = Duration::from_secs(3);
/// A peer that takes no part is asked again after this time, in which the transfer grants no other search for it.
const DECLINED: Duration = Duration::from_secs(45);
/// Sockets that are closed in one tick.
const CLOSED_PER_TICK: usize = 32;
/// How often it is looked for sockets that no path uses any more.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// How it stands with the search for a way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchState {
    /// Both NATs map by destination: there is no way but the relay.
    Hopeless,
    /// It will begin, or begin again, in a while.
    Waiting,
    /// The transfer or the peer is asked.
    Asking,
    /// It is under way.
    Searching,
}

/// What is remembered of searches for one peer.
#[derive(Debug, Default)]
pub(in crate::gateway) struct PeerSearch {
    /// Since when there is no way but the relay, though the peer has named its places.
    in_vain_since: Option<Moment>,
    /// Attempts that came to nothing.
    failures: u32,
    /// The next is not before.
    next_at: Option<Moment>,
}

impl PeerSearch {
    fn is_ready(&self, now: Moment) -> bool {
        self.next_at.is_none_or(|at| at <= now)
    }
}

#[derive(Debug)]
enum Role {
    /// The easy side: the transfer is asked.
    Asking,
    /// The easy side: the peer is told.
    Calling { target: SocketAddr },
    /// The easy side sends to ports of the peer's address.
    Probing { target: Ipv4Addr, ports: Vec<u16>, sent: usize, met_at: Option<Moment> },
    /// The hard side opens sockets and sends from each.
    Opening { target: SocketAddr, wanted: u32, sockets: Vec<SocketId>, repeated: usize, repeats: u32 },
}

/// An attempt that is under way.
#[derive(Debug)]
struct Attempt {
    id: u32,
    ip4: Ipv4Addr,
    request: u32,
    role: Role,
    tries: u32,
    /// Answers to the peer's own probes that are not yet set off against ours.
    answers: u32,
    ends: Moment,
    next_at: Moment,
}

/// The searches of a gateway: one attempt at a time.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Search {
    attempt: Option<Attempt>,
    /// No attempt before.
    next_at: Option<Moment>,
    /// Sockets beside the usual ones that paths use, and the peers that these lead to.
    kept: Vec<(SocketId, u32)>,
    /// Sockets to be closed.
    closing: Vec<SocketId>,
    close_at: Moment,
    prune_at: Moment,
}

impl Search {
    pub(in crate::gateway) fn next_timeout(&self) -> Option<Moment> {
        let attempt = self.attempt.as_ref().map(|attempt| attempt.next_at.min(attempt.ends));
        let close = (!self.closing.is_empty()).then_some(self.close_at);
        let prune = (!self.kept.is_empty()).then_some(self.prune_at);
        [attempt, close, prune].into_iter().flatten().min()
    }

    fn with(&self, id: u32) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.id == id)
    }

    /// A probe of a peer is answered, at an endpoint of its own: that counts as one of the packets of an attempt.
    pub(in crate::gateway) fn note_answer(&mut self, id: u32) {
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.id == id) {
            attempt.answers = attempt.answers.saturating_add(1);
        }
    }

    /// Whether answers of a peer may come that no path has asked for.
    pub(in crate::gateway) fn is_under_way_with(&self, id: u32) -> bool {
        self.with(id).is_some_and(|attempt| matches!(attempt.role, Role::Probing { .. } | Role::Opening { .. }))
    }
}

/// Whether a NAT gives a socket one place for all, as far as it is known.
const fn is_easy(mapping: Mapping) -> bool {
    matches!(mapping, Mapping::EndpointIndependent | Mapping::PortIndependent)
}

const fn is_hard(mapping: Mapping) -> bool {
    matches!(mapping, Mapping::EndpointDependent)
}

impl Peer {
    /// Whether a way to it could be searched for, the NATs apart: it has named places, and none of them answers.
    fn is_without_way(&self, now: Moment) -> bool {
        self.has_session()
            && self.in_use(now)
            && self.exchange.has_places
            && self.paths.choice().allows(PathKind::Direct)
            && !self.paths.is_proven()
    }
}

/// Whether and when.
impl Gateway {
    /// Begins a search for a peer, if it is time. The other side does nothing of its own.
    pub(in crate::gateway) fn consider_search(&mut self, now: Moment, id: u32) {
        let ours = self.candidates.mapping();
        let relay = self.has_relay_to(id);
        let over_udp = self.relay.registration().filter(|_| !self.relay.is_over_stream());
        let observed = over_udp.is_some_and(|registration| registration.observed.is_ipv4());
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !peer.is_without_way(now) {
            peer.search.in_vain_since = None;
            return;
        }
        let since = *peer.search.in_vain_since.get_or_insert(now);
        if !is_easy(ours) || !is_hard(peer.exchange.mapping) || !relay || !observed || self.search.attempt.is_some() {
            return;
        }
        let at = [Some(since + IN_VAIN), peer.search.next_at, self.search.next_at].into_iter().flatten().max();
        if let Some(at) = at.filter(|at| *at > now) {
            self.peers.timers.by(id, at);
            return;
        }
        let (ip4, request) = (peer.ip4, self.rng.next_u32());
        let ends = now + TRY_INTERVAL * TRIES;
        self.search.attempt =
            Some(Attempt { id, ip4, request, role: Role::Asking, tries: 0, answers: 0, ends, next_at: now });
        self.tend_search(now);
    }

    /// How it stands with the search for a peer; `None`: none is wanted.
    pub(in crate::gateway) fn search_state(&self, now: Moment, peer: &Peer) -> Option<SearchState> {
        if let Some(attempt) = self.search.attempt.as_ref().filter(|attempt| attempt.ip4 == peer.ip4) {
            return Some(match attempt.role {
                Role::Asking | Role::Calling { .. } => SearchState::Asking,
                Role::Probing { .. } | Role::Opening { .. } => SearchState::Searching,
            });
        }
        let (ours, theirs) = (self.candidates.mapping(), peer.exchange.mapping);
        match () {
            () if !peer.is_without_way(now) => None,
            () if is_hard(ours) && is_hard(theirs) => Some(SearchState::Hopeless),
            () if is_hard(ours) && is_easy(theirs) || is_easy(ours) && is_hard(theirs) => Some(SearchState::Waiting),
            () => None,
        }
    }

    /// The network is another one: an attempt under way is void, and what came to nothing in the old one says nothing of this one.
    pub(in crate::gateway) fn forget_searches(&mut self, now: Moment) {
        self.end_attempt(now);
        for id in self.peers.ids() {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.search = PeerSearch::default();
            }
        }
    }
}

/// An attempt.
impl Gateway {
    /// Does what time asks for.
    pub(in crate::gateway) fn tend_search(&mut self, now: Moment) {
        self.close_sockets(now);
        self.prune_sockets(now);
        let Some(attempt) = &self.search.attempt else { return };
        let (id, ends) = (attempt.id, attempt.ends);
        let peer = self.peers.get(id).filter(|peer| peer.ip4 == attempt.ip4 && peer.has_session());
        match peer.map(|peer| peer.paths.is_proven()) {
            Some(false) if now < ends => {}
            Some(proven) => {
                if proven || self.search.is_under_way_with(id) {
                    self.note_outcome(now, id, proven);
                } else {
                    // Nobody answered: that is no attempt, but it is not repeated at once.
                    self.put_off(now, id, PAUSE);
                }
                return self.end_attempt(now);
            }
            None => return self.end_attempt(now),
        }
        let Some(attempt) = self.search.attempt.as_mut().filter(|attempt| attempt.next_at <= now) else { return };
        match &mut attempt.role {
            Role::Asking => {
                attempt.next_at = now + TRY_INTERVAL;
                let (request, target) = (attempt.request, Target::Address(attempt.ip4));
                self.send_to_transfer(now, &Message::SearchRequest { request, target });
            }
            Role::Calling { .. } => {
                attempt.tries += 1;
                attempt.next_at = now + TRY_INTERVAL;
                if attempt.tries > TRIES {
                    self.put_off(now, id, DECLINED);
                    return self.end_attempt(now);
                }
                let request = attempt.request;
                let Some(endpoint) = self.relay.registration().map(|registration| registration.observed) else {
                    return;
                };
                self.send_to_peer(now, id, &Message::SearchBegin { request, endpoint });
            }
            Role::Probing { .. } | Role::Opening { .. } => {
                attempt.next_at = now + TICK;
                let packets = PACKETS_PER_TICK.saturating_sub(attempt.answers);
                attempt.answers = attempt.answers.saturating_sub(PACKETS_PER_TICK);
                self.probe_ports(now, id, packets as usize);
                self.open_and_repeat(id, packets as usize);
            }
        }
    }

    /// The easy side sends to the next ports.
    fn probe_ports(&mut self, now: Moment, id: u32, packets: usize) {
        let Some(Attempt { role: Role::Probing { target, ports, sent, met_at }, .. }) = &mut self.search.attempt else {
            return;
        };
        let Some(peer) = self.peers.get(id) else { return };
        if !peer.paths.is_heard_at(IpAddr::V4(*target)) {
            *met_at = None;
        } else if now.since(*met_at.get_or_insert(now)) < PROOF_TIME {
            return;
        }
        let end = ports.len().min(*sent + packets);
        let places: Vec<SocketAddr> = ports[*sent..end].iter().map(|port| SocketAddr::from((*target, *port))).collect();
        *sent = end;
        for place in places {
            if let Some(endpoint) = self.sockets.endpoint(place) {
                self.probe_place(id, endpoint);
            }
        }
    }

    /// The hard side opens the next sockets; when all are open it sends from each again.
    fn open_and_repeat(&mut self, id: u32, packets: usize) {
        let Some(Attempt { role: Role::Opening { target, wanted, sockets, repeated, repeats }, .. }) =
            &mut self.search.attempt
        else {
            return;
        };
        if *wanted < SEARCH_SOCKETS {
            let count = (packets as u32).min(SEARCH_SOCKETS - *wanted);
            *wanted += count;
            if count > 0 {
                self.tell(Event::OpenSockets { count });
            }
            return;
        }
        if *repeated == sockets.len() {
            if *repeats + 2 >= PACKETS_PER_SOCKET {
                return;
            }
            (*repeats, *repeated) = (*repeats + 1, 0);
        }
        let end = sockets.len().min(*repeated + packets);
        let from: Vec<SocketId> = sockets[*repeated..end].to_vec();
        *repeated = end;
        let remote = *target;
        for socket in from {
            self.probe_place(id, Endpoint { socket, remote, local: None });
        }
    }

    fn probe_place(&mut self, id: u32, endpoint: Endpoint) {
        let probe = Message::PathProbe { seq: self.rng.next_u32(), sent: 0 };
        self.send_by(id, Way::Straight(Path::straight(PathKind::Direct, endpoint)), &probe);
    }

    /// The transfer grants the search.
    pub(in crate::gateway) fn search_granted(
        &mut self,
        now: Moment,
        request: u32,
        target: SocketAddr,
        seconds: u16,
    ) -> Result<(), DropReason> {
        let attempt = self.search.attempt.as_mut().filter(|attempt| attempt.request == request);
        let attempt = attempt.filter(|attempt| matches!(attempt.role, Role::Asking)).ok_or(DropReason::Outdated)?;
        let id = attempt.id;
        attempt.role = Role::Calling { target };
        attempt.ends = now + ATTEMPT_TIME.min(Duration::from_secs(seconds.into()));
        attempt.next_at = now;
        if !target.is_ipv4() || self.straight_to(target).is_none() {
            self.put_off(now, id, DECLINED);
            self.end_attempt(now);
            return Err(DropReason::Malformed);
        }
        self.tend_search(now);
        Ok(())
    }

    /// The transfer refuses the search.
    pub(in crate::gateway) fn search_refused(
        &mut self,
        now: Moment,
        request: u32,
        wait_seconds: u16,
    ) -> Result<(), DropReason> {
        let attempt = self.search.attempt.as_ref().filter(|attempt| attempt.request == request);
        let attempt = attempt.filter(|attempt| matches!(attempt.role, Role::Asking)).ok_or(DropReason::Outdated)?;
        let id = attempt.id;
        // Those who wait for the same address do not all come back at one time.
        let spread = Duration::from_millis(self.rng.random_range(0..2000));
        self.put_off(now, id, Duration::from_secs(wait_seconds.max(1).into()).min(PAUSE_MOST) + spread);
        self.end_attempt(now);
        Ok(())
    }

    /// A peer has leave to search for us: we are to be the hard side.
    pub(in crate::gateway) fn search_begun(&mut self, now: Moment, id: u32, request: u32, endpoint: SocketAddr) {
        let again = |attempt: &Attempt| attempt.request == request && matches!(attempt.role, Role::Opening { .. });
        if self.search.with(id).is_some_and(again) {
            return self.send_to_peer(now, id, &Message::SearchReady { request, sockets: SEARCH_SOCKETS });
        }
        if !self.takes_part(now, id, endpoint) {
            return self.send_to_peer(now, id, &Message::SearchReady { request, sockets: 0 });
        }
        let Some(ip4) = self.peers.get(id).map(|peer| peer.ip4) else { return };
        let role = Role::Opening { target: endpoint, wanted: 0, sockets: Vec::new(), repeated: 0, repeats: 0 };
        let ends = now + ATTEMPT_TIME;
        self.search.attempt = Some(Attempt { id, ip4, request, role, tries: 0, answers: 0, ends, next_at: now });
        self.send_to_peer(now, id, &Message::SearchReady { request, sockets: SEARCH_SOCKETS });
        self.tend_search(now);
    }

    /// Whether we are the hard side indeed, the place is one where the transfer sees the peer, and our budgets allow it.
    fn takes_part(&self, now: Moment, id: u32, endpoint: SocketAddr) -> bool {
        let Some(peer) = self.peers.get(id) else { return false };
        let vouched = peer.record.as_ref().and_then(|record| record.observed).map(|observed| observed.ip());
        let pause_over = self.search.next_at.is_none_or(|at| at <= now + SKEW) && peer.search.is_ready(now + SKEW);
        is_hard(self.candidates.mapping())
            && peer.is_without_way(now)
            && endpoint.is_ipv4()
            && vouched == Some(endpoint.ip())
            && self.straight_to(endpoint).is_some()
            && self.search.attempt.is_none()
            && self.search.kept.len() < SEARCH_SOCKETS_KEPT
            && pause_over
    }

    /// The peer says whether it takes part.
    pub(in crate::gateway) fn search_answered(
        &mut self,
        now: Moment,
        id: u32,
        request: u32,
        sockets: u32,
    ) -> Result<(), DropReason> {
        let attempt = self.search.attempt.as_mut().filter(|attempt| (attempt.id, attempt.request) == (id, request));
        let attempt = attempt.ok_or(DropReason::Outdated)?;
        let Role::Calling { target } = attempt.role else { return Err(DropReason::Duplicate) };
        let (SocketAddr::V4(seen), Some(peer)) = (target, self.peers.get(id)) else { return Err(DropReason::Outdated) };
        if sockets == 0 {
            self.put_off(now, id, DECLINED);
            self.end_attempt(now);
            return Ok(());
        }
        let named: Vec<SocketAddr> = peer.paths.remotes().collect();
        let ports = guess(seen, &named, &mut self.rng);
        attempt.role = Role::Probing { target: *seen.ip(), ports, sent: 0, met_at: None };
        attempt.next_at = now;
        self.tend_search(now);
        Ok(())
    }

    /// An attempt has led to a way or to nothing.
    fn note_outcome(&mut self, now: Moment, id: u32, found: bool) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if found {
            peer.search = PeerSearch::default();
        } else {
            peer.search.next_at = Some(now + backoff(PAUSE, PAUSE_MOST, peer.search.failures));
            peer.search.failures += 1;
        }
    }

    /// No search for a peer for a while.
    fn put_off(&mut self, now: Moment, id: u32, time: Duration) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.search.next_at = Some(now + time);
        }
    }

    /// Ends the attempt: sockets that no path uses are closed.
    fn end_attempt(&mut self, now: Moment) {
        let Some(attempt) = self.search.attempt.take() else { return };
        match attempt.role {
            Role::Asking | Role::Calling { .. } => return,
            Role::Probing { .. } => {}
            Role::Opening { sockets, .. } => {
                let paths = self.peers.get(attempt.id).map(|peer| &peer.paths);
                for socket in sockets {
                    if paths.is_some_and(|paths| paths.uses(socket)) {
                        self.search.kept.push((socket, attempt.id));
                    } else {
                        self.search.closing.push(socket);
                    }
                }
            }
        }
        self.search.next_at = Some(now + PAUSE);
        self.search.prune_at = now + PRUNE_INTERVAL;
        self.search.close_at = now;
        self.close_sockets(now);
    }
}

/// Sockets.
impl Gateway {
    /// The program has opened sockets, as [`Event::OpenSockets`] asked for; fewer or none where it cannot. They send as the one for IPv4
    /// does, from ports of their own.
    pub fn sockets_opened(&mut self, now: Moment, opened: &[SocketId]) {
        let Some(Attempt { id, role: Role::Opening { target, wanted, sockets, .. }, .. }) = &mut self.search.attempt
        else {
            // The attempt has ended meanwhile.
            self.search.closing.extend(opened);
            return self.close_sockets(now);
        };
        if opened.is_empty() {
            // There will be no more: those there are have to do.
            *wanted = SEARCH_SOCKETS;
        }
        let room = (*wanted as usize).saturating_sub(sockets.len());
        let (taken, refused) = opened.split_at(opened.len().min(room));
        sockets.extend(taken);
        self.search.closing.extend(refused);
        let (id, remote) = (*id, *target);
        for &socket in taken {
            self.probe_place(id, Endpoint { socket, remote, local: None });
        }
        self.close_sockets(now);
    }

    /// Has the next sockets closed that have to be.
    fn close_sockets(&mut self, now: Moment) {
        if self.search.closing.is_empty() || now < self.search.close_at {
            return;
        }
        self.search.close_at = now + TICK;
        let left = self.search.closing.len().saturating_sub(CLOSED_PER_TICK);
        let closed = self.search.closing.split_off(left);
        self.tell(Event::CloseSockets(closed));
    }

    /// Sockets whose paths are gone are closed.
    fn prune_sockets(&mut self, now: Moment) {
        if self.search.kept.is_empty() || now < self.search.prune_at {
            return;
        }
        self.search.prune_at = now + PRUNE_INTERVAL;
        let peers = &mut self.peers;
        let gone = self.search.kept.extract_if(.., |(socket, id)| {
            peers.get_mut(*id).is_none_or(|peer| {
                peer.paths.forget_dead(*socket);
                !peer.paths.uses(*socket)
            })
        });
        self.search.closing.extend(gone.map(|(socket, _)| socket));
        self.close_sockets(now);
    }
}
