//! The world: nodes, what is between them, one queue of events, and a clock that follows it.
//!
//! - `nodes.rs`: nodes are added, killed and revived; what befalls their hosts;
//! - `sockets.rs`: their sockets; `probe.rs`: nodes that only send and listen;
//! - `machines.rs`: the state machines are called, and what they want is done;
//! - `queue.rs`: what is to happen.

mod machines;
mod nodes;
mod probe;
mod queue;
mod sockets;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_core::gateway::{self, Gateway};
use mesh_core::node::Node;
use mesh_core::seam::{Action, Moment, Slab};
use mesh_core::session::token::StretchedToken;
use mesh_core::transfer::Transfer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

pub use self::probe::Heard;
pub use self::sockets::Family;

use self::queue::{Event, Queue};
use self::sockets::Sockets;
use crate::host::{self, Inner};
use crate::net::{Datagram, Hop, Network, NodeId, Travel};
use crate::wiretap::Wiretap;

/// What a node is.
#[expect(clippy::large_enum_variant, reason = "a few thousand at most, and each is used all the time")]
enum Machine {
    Transfer(Transfer),
    Gateway(Gateway),
    Probe(Vec<Heard>),
    /// Killed: its address is silent until another machine takes the node over.
    Dead,
}

impl Machine {
    fn node(&mut self) -> Option<&mut dyn Node> {
        match self {
            Self::Transfer(transfer) => Some(transfer),
            Self::Gateway(gateway) => Some(gateway),
            Self::Probe(_) | Self::Dead => None,
        }
    }
}

struct Member {
    machine: Machine,
    /// Counts machines that have stood here, so that events for a dead one find nobody.
    life: u32,
    sockets: Sockets,
    /// When its next timer event is queued for.
    timer: Option<Moment>,
    /// The end of its last suspension.
    asleep_until: Option<Moment>,
    /// The name its gateway resolves.
    transfer_name: String,
    /// Inner packets delivered, in order.
    delivered: Vec<(Moment, Vec<u8>)>,
    /// Whether the host behind it answers pings.
    answers: bool,
    events: Vec<(Moment, gateway::Event)>,
}

/// A network under a seed.
pub struct World {
    now: Moment,
    rng: ChaCha12Rng,
    queue: Queue,
    members: Vec<Member>,
    names: BTreeMap<String, Vec<SocketAddr>>,
    /// What is between the nodes.
    pub net: Network,
    /// What an eavesdropper beside every node sees.
    pub wiretap: Wiretap,
    /// Time a helper thread takes for one job.
    pub job_time: Duration,
    /// The token that the programs of gateways know.
    pub token: Option<StretchedToken>,
    /// Most sockets that a gateway had open beside its own, of all gateways.
    pub extra_sockets_peak: usize,
    slab: Vec<u8>,
    actions: Vec<Action>,
    travels: Vec<Travel>,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Moment::from_nanos(1_000_000_000),
            rng: ChaCha12Rng::seed_from_u64(seed),
            queue: Queue::default(),
            members: Vec::new(),
            names: BTreeMap::new(),
            net: Network::new(seed),
            wiretap: Wiretap::default(),
            job_time: Duration::from_micros(300),
            token: None,
            extra_sockets_peak: 0,
            slab: vec![0; 2 * Slab::ROOM_BYTES],
            actions: Vec::new(),
            travels: Vec::new(),
        }
    }

    /// The time.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Random bytes, for keys and seeds of machines.
    pub fn random(&mut self) -> [u8; 32] {
        self.rng.random()
    }

    /// Lets `name` resolve to `address` from here on.
    pub fn name(&mut self, name: &str, address: SocketAddr) {
        self.name_all(name, &[address]);
    }

    /// Lets `name` resolve to all of `addresses`, in this order.
    pub fn name_all(&mut self, name: &str, addresses: &[SocketAddr]) {
        self.names.insert(name.to_owned(), addresses.to_vec());
    }

    /// Puts a datagram on the Internet, next to the node or box that has the address `to`, as if it came from `from`:
    /// what an attacker can do. A box does with it as with any other.
    pub fn inject(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let datagram = Datagram { from, to, bytes: bytes.to_vec() };
        if let Some(hop) = self.net.at_its_end(&datagram) {
            self.queue.push(self.now, Event::Travel { hop, datagram });
        }
    }

    /// Pings from behind one gateway and waits, at most `timeout`. The time it took, or `None`.
    pub fn ping(
        &mut self,
        from: NodeId,
        source: Ipv4Addr,
        to: Ipv4Addr,
        sequence: u16,
        timeout: Duration,
    ) -> Option<Duration> {
        let start = self.now;
        self.send_inside(from, &host::echo_request(source, to, sequence, 56));
        let end = start + timeout;
        loop {
            let answered = self.members[from.0]
                .delivered
                .iter()
                .rev()
                .find(|(at, packet)| *at >= start && host::read(packet) == Inner::EchoReply { from: to, sequence });
            if let Some((at, _)) = answered {
                return Some(at.since(start));
            }
            if !self.step(end) {
                return None;
            }
        }
    }

    /// Runs until nothing is due before `end`, then stands at `end`.
    pub fn run_until(&mut self, end: Moment) {
        while self.step(end) {}
    }

    /// Runs for a while.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// The next event, unless it lies beyond `end`: then the clock is set to `end`.
    fn step(&mut self, end: Moment) -> bool {
        let Some((at, event)) = self.queue.pop(end) else {
            self.now = self.now.max(end);
            return false;
        };
        self.now = at;
        if let Some((node, life)) = event.machine() {
            let member = &self.members[node.0];
            if member.life != life {
                return true;
            }
            if let Some(until) = member.asleep_until.filter(|until| at < *until) {
                self.queue.push(until, event);
                return true;
            }
        }
        match event {
            Event::Travel { hop: Hop::Host(node), datagram } => self.arrive(node, datagram),
            Event::Travel { hop, datagram } => self.travel(|net, now, next| net.pass(now, hop, datagram, next)),
            Event::Timer { node, .. } => self.timer_due(node),
            Event::Job { node, done, .. } => self.job_done(node, done),
            Event::Resolved { node, .. } => self.resolved(node),
            Event::Inside { node, packet, .. } => self.send_inside(node, &packet),
        }
        true
    }

    fn is_awake(&self, node: NodeId) -> bool {
        self.members[node.0].asleep_until.is_none_or(|until| self.now >= until)
    }
}
