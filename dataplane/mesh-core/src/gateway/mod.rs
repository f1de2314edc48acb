//! The gateway's state machine: inner packets in and out of sealed datagrams, sessions with peers, registration with a transfer.
//!
//! Never reads a clock or a socket, and never draws from a global source of randomness. It is driven as [`Node`] says; beside
//! that, [`Gateway::poll_event`] tells what the program should know or do. The flow, by direction:
//!
//! 1. `inside.rs` and `sealing.rs`: a packet from the virtual interface is checked, and sealed into the slab, or waits for a
//!    session; `outbound/`: the same on a thread of its own; `segments/`: packets that stand for many are cut and gathered;
//! 2. `outside.rs`: a train from the network is opened in place, and inner packets are delivered;
//! 3. `relay.rs` and `register.rs`: the registration with the transfer, its handshake and signs of life; `stream.rs`: the same
//!    over TCP where UDP gets no answer; `told.rs` and `learn.rs`: what it says of us and of peers;
//! 4. `handshake.rs` and `answers.rs`: sessions with peers, begun by us or by them; `callers.rs`: how often they may;
//! 5. `peers.rs` and `tend.rs`: who they are, and what time asks to be done about each;
//! 6. `paths/`: how they are reached; `beacons.rs`: who is on our own network; `observe.rs`: how our NAT maps.
//!
//! Nothing that arrives can make it panic or grow without bound, and strangers get no answer but a cookie reply, which is
//! shorter than what it answers.

mod addresses;
mod answers;
mod beacons;
mod callers;
mod control;
mod events;
mod halves;
mod handshake;
mod icmp;
mod indexes;
mod inside;
mod ip;
mod learn;
mod local;
mod mss;
mod mtu;
mod observe;
mod outbound;
mod outside;
mod paths;
mod peers;
mod register;
mod relay;
mod sealing;
mod segments;
mod status;
mod stream;
mod tend;
mod timers;
mod told;
mod tos;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_wire::message::{CloseReason, Message};
use mesh_wire::route::Slot;
use rand::Rng;
use zeroize::Zeroize;

pub use self::addresses::Sockets;
pub use self::events::Event;
pub use self::local::{
    BEACON_GROUP_IPV4, BEACON_GROUP_IPV6, BEACON_PORT, BeaconSocket, Beacons, LOCAL_ADDRESSES_MAX, LocalAddress,
};
pub use self::outbound::{Lane, LaneChange, Outbound, OutboundEvent};
pub use self::paths::{
    OUTER_BYTES_ASSUMED, OuterSize, PROBED_BYTES, PathChoice, PathKind, PathStatus, SEARCH_SOCKETS,
    SEARCH_SOCKETS_KEPT, SearchState,
};
pub use self::status::{
    CandidateStatus, MappingStatus, NetworkStatus, PeerStatus, Status, TransferState, TransferStatus,
};
pub use self::stream::Stream;

use self::answers::Answers;
use self::callers::Callers;
use self::indexes::{Indexes, Owner};
use self::peers::Peers;
use self::relay::Relay;
use crate::drops::{DropReason, Drops};
use crate::node::Node;
use crate::seam::{Action, Arrival, Endpoint, Moment, Offloads, Origin, Slab};
use crate::session::PublicKey;
use crate::session::cipher::Ciphers;
use crate::session::handshake::StaticKey;
use crate::session::jobs::{Done, Job};
use crate::session::mac::CookieJar;
use crate::session::random::Generator;
use crate::session::token::NamespaceKeys;

/// Messages of its own making that wait to be sent, at most.
const OUTBOX_MAX: usize = 8192;
/// Handshake steps that wait to be run, at most.
const JOBS_MAX: usize = 512;
/// Of these, what handshakes that others begin leave to our own.
const JOBS_OURS: usize = 128;

/// What a gateway is made from.
pub struct GatewayConfig {
    /// Its virtual address.
    pub ip4: Ipv4Addr,
    /// Length of the virtual network's prefix, in bits: 16 for 255.255.0.0. At most 32.
    pub prefix: u8,
    /// Its identity.
    pub static_key: StaticKey,
    /// Random number of this start.
    pub boot: u64,
    /// Keys of the namespace.
    pub keys: NamespaceKeys,
    /// Its name for people, at most 64 bytes; longer ones are cut. May be empty.
    pub name: String,
    /// The sockets it sends by.
    pub sockets: Sockets,
    /// What the virtual interface does by itself.
    pub offloads: Offloads,
    /// The outer packet that paths are taken to carry, or whether that is to be found out.
    pub outer_bytes: OuterSize,
    /// Which paths may carry, to all peers but those in `pins`.
    pub path: PathChoice,
    /// Which paths may carry to some peers, by their virtual addresses.
    pub pins: Vec<(Ipv4Addr, PathChoice)>,
    /// The ciphers it offers and accepts.
    pub ciphers: Ciphers,
    /// The transfer's static key, where it is known from an earlier start or given by the user. Another key is refused.
    pub pinned_transfer_key: Option<PublicKey>,
    /// 32 bytes of fresh randomness.
    pub seed: [u8; 32],
}

/// Shows no secret.
impl std::fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayConfig").field("ip4", &self.ip4).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Something to be sent or delivered at the next [`Node::poll_transmit`].
#[derive(Debug)]
enum Outgoing {
    /// To the network.
    Send { bytes: Vec<u8>, to: Endpoint },
    /// To the virtual interface.
    Deliver(Vec<u8>),
}

/// A sealed frame that came before its session, to be opened now.
#[derive(Debug)]
struct Held {
    from: Endpoint,
    tos: u8,
    bytes: Box<[u8]>,
}

/// The gateway.
pub struct Gateway {
    network: ip::Network,
    static_key: StaticKey,
    boot: u64,
    keys: NamespaceKeys,
    name: String,
    sockets: Sockets,
    outer: OuterSize,
    offloads: Offloads,
    /// The longest packet that our own network takes, in bytes.
    outer_limit: u16,
    inside_mtu: mtu::InsideMtu,
    ciphers: Ciphers,
    rng: Generator,
    /// Counts our handshakes.
    hello_number: u64,
    indexes: Indexes,
    peers: Peers,
    relay: Relay,
    answers: Answers,
    callers: Callers,
    joiner: halves::Joiner,
    complaints: icmp::Complaints,
    coalescer: segments::Coalescer,
    lookups: timers::Bucket,
    /// Lookups that others make us ask.
    slot_lookups: timers::Bucket,
    cookies: CookieJar,
    drops: Drops,
    events: VecDeque<Event>,
    jobs: VecDeque<Job>,
    outbox: VecDeque<Outgoing>,
    /// Peers whose waiting packets can be sealed.
    flush: VecDeque<u32>,
    held: VecDeque<Held>,
    /// Our addresses outside.
    local: Vec<LocalAddress>,
    /// What the router maps to us.
    mapped: Option<SocketAddr>,
    candidates: paths::Candidates,
    unproven: paths::Unproven,
    search: paths::Search,
    observer: observe::Observer,
    /// Endpoints that peers are newly seen at.
    strangers: timers::Bucket,
    beacons: beacons::Beacons,
    /// Whether anything but the relay may carry to anybody: else strangers get no answer.
    takes_straight: bool,
    stopped: bool,
    /// Packets that are cut, one at a time.
    scratch: Vec<u8>,
    /// By which relay packets go, when the half that sends was last told.
    published_place: (Option<(Endpoint, Slot)>, u32),
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("ip4", &self.network.ip4()).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway that knows no transfer yet: its first event is [`Event::ResolveTransfer`]. The seed in `config` is wiped.
    ///
    /// # Panics
    /// When the prefix is longer than 32 bits.
    pub fn new(config: GatewayConfig, now: Moment) -> Self {
        let GatewayConfig {
            ip4,
            prefix,
            static_key,
            boot,
            keys,
            name,
            sockets,
            offloads,
            outer_bytes,
            path,
            pins,
            ciphers,
            pinned_transfer_key,
            mut seed,
        } = config;
        let mut rng = Generator::from_seed(seed);
        seed.zeroize();
        let ula = *keys.ula_prefix().0.octets().first_chunk().expect("an address has 16 bytes");
        let takes_straight = path != PathChoice::Relay || pins.iter().any(|(_, choice)| *choice != PathChoice::Relay);
        let cookie_secret = rng.secret();
        let hash_seeds = std::array::from_fn(|_| rng.next_u64());
        let sealer = crate::session::beacon::Sealer::new(&keys, rng.bytes());
        let mut gateway = Self {
            network: ip::Network::new(ip4, prefix, ula),
            static_key,
            boot,
            keys,
            name: addresses::shorten(name),
            sockets,
            outer: outer_bytes,
            offloads,
            outer_limit: paths::OUTER_BYTES_USUAL,
            inside_mtu: mtu::InsideMtu::new(outer_bytes.inside_mtu(), now),
            ciphers,
            indexes: Indexes::default(),
            peers: Peers::new(hash_seeds, path, pins),
            relay: Relay::new(now, pinned_transfer_key, sockets.stream),
            answers: Answers::default(),
            callers: Callers::default(),
            joiner: halves::Joiner::default(),
            complaints: icmp::Complaints::new(now),
            coalescer: segments::Coalescer::new(offloads),
            lookups: timers::Bucket::new(now, peers::LOOKUPS_PER_SECOND, peers::LOOKUPS_BURST),
            slot_lookups: timers::Bucket::new(now, peers::SLOT_LOOKUPS_PER_SECOND, peers::SLOT_LOOKUPS_BURST),
            cookies: CookieJar::new(*cookie_secret, now),
            drops: Drops::default(),
            events: VecDeque::new(),
            jobs: VecDeque::new(),
            outbox: VecDeque::new(),
            flush: VecDeque::new(),
            held: VecDeque::new(),
            local: Vec::new(),
            mapped: None,
            candidates: paths::Candidates::default(),
            unproven: paths::Unproven::new(hash_seeds),
            search: paths::Search::default(),
            observer: observe::Observer::default(),
            strangers: timers::Bucket::new(now, paths::STRANGERS_PER_SECOND, paths::STRANGERS_BURST),
            beacons: beacons::Beacons::new(now, sealer, hash_seeds),
            takes_straight,
            stopped: false,
            scratch: Vec::new(),
            published_place: (None, 0),
            rng,
            hello_number: 0,
        };
        gateway.tell(Event::ResolveTransfer);
        gateway
    }

    /// The addresses that the transfer's name resolved to, most preferred first; at most 16 count. May be called at any time.
    /// With none, those known before stay.
    pub fn set_transfer(&mut self, now: Moment, addresses: &[SocketAddr]) {
        self.relay_set_addresses(now, addresses);
    }

    /// The bridge that [`Event::StreamWanted`] asked for is connected, or not any more. Each call stands for a connection of its own,
    /// also where the addresses are those of the one before. Without a bridge being wanted nothing happens.
    pub fn set_stream(&mut self, now: Moment, stream: Option<Stream>) {
        self.stream_changed(now, stream);
    }

    /// What the program should know or do, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The MTU that the virtual interface should have at this moment, in bytes: [`Event::InsideMtu`] tells of each change.
    pub fn inside_mtu(&self) -> u16 {
        self.inside_mtu.bytes()
    }

    /// Our unique local IPv6 address; the network's prefix has 64 bits.
    pub fn ip6(&self) -> Ipv6Addr {
        self.network.ip6()
    }

    /// The static key of the transfer, once it was heard: to be kept, and given as [`GatewayConfig::pinned_transfer_key`].
    pub fn transfer_key(&self) -> Option<PublicKey> {
        self.relay.pinned()
    }

    /// Ends all sessions: queues a Close to each peer and a Goodbye to the transfer for [`Node::poll_transmit`]. Afterwards
    /// nothing is sealed or opened.
    pub fn stop(&mut self, now: Moment) {
        if self.stopped {
            return;
        }
        for peer in self.peers.ids() {
            self.send_to_peer(now, peer, &Message::Close { reason: CloseReason::Stopping });
        }
        self.send_to_transfer(now, &Message::Goodbye);
        self.stopped = true;
    }

    /// Tells the program.
    fn tell(&mut self, event: Event) {
        events::tell(&mut self.events, event);
    }

    fn push(&mut self, outgoing: Outgoing) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back(outgoing);
        } else {
            self.drops.count(DropReason::NoRoom);
        }
    }

    /// Whether one more step of a handshake that we began can be run.
    fn has_room_for_job(&self) -> bool {
        self.jobs.len() < JOBS_MAX
    }

    /// Whether one more step of a handshake that a peer began can be run.
    fn has_room_for_answer(&self) -> bool {
        self.jobs.len() < JOBS_MAX - JOBS_OURS
    }

    /// Seals one waiting packet or opens one held frame into the slab.
    fn transmit_waiting(&mut self, now: Moment, slab: &mut Slab<'_>) -> Option<Action> {
        while let Some(&peer) = self.flush.front() {
            match self.seal_waiting(now, peer, slab) {
                Some(action) => return Some(action),
                None => {
                    self.flush.pop_front();
                }
            }
        }
        while let Some(held) = self.held.pop_front() {
            if let Some(action) = self.open_held(now, &held, slab) {
                return Some(action);
            }
        }
        None
    }
}

impl Node for Gateway {
    fn handle(
        &mut self,
        now: Moment,
        arrival: &Arrival,
        bytes: &mut [u8],
        slab: &mut Slab<'_>,
        actions: &mut Vec<Action>,
    ) {
        if self.stopped {
            return;
        }
        match arrival.origin {
            Origin::Inside => self.handle_inside(now, bytes, arrival.segment_bytes, slab, actions),
            Origin::Outside(from) => self.handle_outside(now, from, arrival, bytes, slab, actions),
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        if self.stopped {
            return None;
        }
        let peers = [self.peers.timers.next(), self.search.next_timeout(), self.beacons.next_timeout()];
        let others = [self.relay.next_timeout(), self.answers.next_timeout(), self.observer.next_timeout()];
        peers.into_iter().chain(others).flatten().min()
    }

    fn handle_timeout(&mut self, now: Moment) {
        if self.stopped {
            return;
        }
        self.tend_relay(now);
        self.tend_answers(now);
        self.tend_beacons(now);
        self.tend_observer(now);
        self.tend_search(now);
        while let Some(peer) = self.peers.timers.take(now) {
            self.tend_peer(now, peer);
        }
    }

    fn poll_transmit(&mut self, now: Moment, slab: &mut Slab<'_>) -> Option<Action> {
        loop {
            match self.outbox.pop_front() {
                Some(Outgoing::Send { bytes, to }) => {
                    if let Some(slab) = slab.append(&bytes) {
                        return Some(Action::Send { slab, segment_bytes: bytes.len(), to, tos: 0 });
                    }
                    self.drops.count(DropReason::NoRoom);
                }
                Some(Outgoing::Deliver(bytes)) => {
                    let head = self.offloads.header_bytes();
                    if slab.free().len() >= head + bytes.len() {
                        // Nothing is left to be done to it: a header of zeros.
                        slab.free()[..head].fill(0);
                        slab.free()[head..head + bytes.len()].copy_from_slice(&bytes);
                        return Some(Action::DeliverSlab { slab: slab.take(head + bytes.len()) });
                    }
                    self.drops.count(DropReason::NoRoom);
                }
                None if self.stopped => return None,
                None => return self.transmit_waiting(now, slab),
            }
        }
    }

    fn poll_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    fn handle_job(&mut self, now: Moment, done: Done) {
        if self.stopped {
            return;
        }
        // The low half of a job's number is the session index it works for; the index may have gone since.
        let index = u32::try_from(done.id & u64::from(u32::MAX)).expect("masked");
        match self.indexes.owner(index) {
            Some(Owner::Asking(peer)) => self.asking_done(now, peer, index, done.outcome),
            Some(Owner::Answering(answer)) => self.answering_done(now, answer, index, done.outcome),
            Some(Owner::Registering) => self.registering_done(now, index, done.outcome),
            Some(Owner::Session(_) | Owner::Control) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
