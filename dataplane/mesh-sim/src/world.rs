//! The world: nodes, links, one queue of events, and a clock that follows it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_core::gateway::{self, Gateway};
use mesh_core::node::Node;
use mesh_core::seam::{Action, Arrival, Endpoint, Moment, Origin, Slab, SocketId};
use mesh_core::session::jobs::Done;
use mesh_core::transfer::Transfer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::host::{self, Inner};
use crate::link::Link;
use crate::wiretap::Wiretap;

/// IPv4 and UDP headers around each datagram.
const OUTER_HEADERS: usize = 28;

/// One node of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// What a node is.
#[expect(clippy::large_enum_variant, reason = "a few thousand at most, and each is used all the time")]
enum Machine {
    Transfer(Transfer),
    Gateway(Gateway),
    /// Killed: its address is silent until another machine takes the node over.
    Dead,
}

impl Machine {
    fn node(&mut self) -> Option<&mut dyn Node> {
        match self {
            Self::Transfer(transfer) => Some(transfer),
            Self::Gateway(gateway) => Some(gateway),
            Self::Dead => None,
        }
    }
}

struct Member {
    machine: Machine,
    /// Counts machines that have stood here, so that events for a dead one find nobody.
    life: u32,
    address: SocketAddr,
    /// Ports of a transfer, in the order of their sockets.
    ports: Vec<u16>,
    link: Link,
    /// When its next timer event is queued for.
    timer: Option<Moment>,
    /// The name its gateway resolves.
    transfer_name: String,
    /// Inner packets delivered, in order.
    delivered: Vec<(Moment, Vec<u8>)>,
    /// Whether the host behind it answers pings.
    answers: bool,
    events: Vec<(Moment, gateway::Event)>,
}

enum Event {
    Arrive { to: NodeId, socket: SocketId, from: SocketAddr, bytes: Vec<u8> },
    Timer { node: NodeId, life: u32 },
    Job { node: NodeId, life: u32, done: Done },
    Resolved { node: NodeId, life: u32 },
    Inside { node: NodeId, life: u32, packet: Vec<u8> },
}

struct Queued {
    at: Moment,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A network under a seed.
pub struct World {
    now: Moment,
    rng: ChaCha12Rng,
    order: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    members: Vec<Member>,
    by_address: BTreeMap<SocketAddr, (NodeId, SocketId)>,
    names: BTreeMap<String, SocketAddr>,
    /// What an eavesdropper on every link sees.
    pub wiretap: Wiretap,
    /// Time a helper thread takes for one job.
    pub job_time: Duration,
    slab: Vec<u8>,
    actions: Vec<Action>,
    copies: Vec<Duration>,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Moment::from_nanos(1_000_000_000),
            rng: ChaCha12Rng::seed_from_u64(seed),
            order: 0,
            queue: BinaryHeap::new(),
            members: Vec::new(),
            by_address: BTreeMap::new(),
            names: BTreeMap::new(),
            wiretap: Wiretap::default(),
            job_time: Duration::from_micros(300),
            slab: vec![0; 2 * Slab::ROOM_BYTES],
            actions: Vec::new(),
            copies: Vec::new(),
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
        self.names.insert(name.to_owned(), address);
    }

    /// Adds a transfer that listens at `address`'s IP on `ports`, one socket each in this order.
    pub fn add_transfer(&mut self, transfer: Transfer, address: SocketAddr, ports: &[u16], link: Link) -> NodeId {
        self.add(Machine::Transfer(transfer), address, ports, link, String::new())
    }

    /// Adds a gateway with one socket at `address` that finds its transfer by `transfer_name`.
    pub fn add_gateway(&mut self, gateway: Gateway, address: SocketAddr, link: Link, transfer_name: &str) -> NodeId {
        self.add(Machine::Gateway(gateway), address, &[address.port()], link, transfer_name.to_owned())
    }

    fn add(
        &mut self,
        machine: Machine,
        address: SocketAddr,
        ports: &[u16],
        link: Link,
        transfer_name: String,
    ) -> NodeId {
        let id = NodeId(self.members.len());
        self.members.push(Member {
            machine,
            life: 0,
            address,
            ports: ports.to_vec(),
            link,
            timer: None,
            transfer_name,
            delivered: Vec::new(),
            answers: true,
            events: Vec::new(),
        });
        self.listen(id);
        self.drain(id);
        id
    }

    fn listen(&mut self, id: NodeId) {
        let member = &self.members[id.0];
        for (number, port) in member.ports.iter().enumerate() {
            let socket = SocketId(u16::try_from(number).expect("a few thousand ports"));
            self.by_address.insert(SocketAddr::new(member.address.ip(), *port), (id, socket));
        }
    }

    /// Kills a node: no goodbye, its address falls silent.
    pub fn kill(&mut self, id: NodeId) {
        let member = &mut self.members[id.0];
        member.machine = Machine::Dead;
        member.life += 1;
        member.timer = None;
        self.by_address.retain(|_, (node, _)| *node != id);
    }

    /// Puts a new transfer where a killed one was, at `address`.
    pub fn revive_transfer(&mut self, id: NodeId, transfer: Transfer, address: SocketAddr) {
        self.members[id.0].machine = Machine::Transfer(transfer);
        self.members[id.0].address = address;
        self.listen(id);
        self.drain(id);
    }

    /// Puts a new gateway where a killed one was, on another port as a real start would have.
    pub fn revive_gateway(&mut self, id: NodeId, gateway: Gateway, port: u16) {
        let member = &mut self.members[id.0];
        member.machine = Machine::Gateway(gateway);
        member.address.set_port(port);
        member.ports = vec![port];
        self.listen(id);
        self.drain(id);
    }

    /// Changes a node's link.
    pub fn set_link(&mut self, id: NodeId, link: Link) {
        self.members[id.0].link = link;
    }

    /// A gateway's state machine.
    ///
    /// # Panics
    /// When the node is no gateway.
    pub fn gateway(&self, id: NodeId) -> &Gateway {
        match &self.members[id.0].machine {
            Machine::Gateway(gateway) => gateway,
            Machine::Transfer(_) | Machine::Dead => panic!("no gateway lives here"),
        }
    }

    /// Asks a gateway to stop, as a signal would; its last words are sent.
    pub fn stop_gateway(&mut self, id: NodeId) {
        if let Machine::Gateway(gateway) = &mut self.members[id.0].machine {
            gateway.stop(self.now);
        }
        self.drain(id);
    }

    /// A transfer's state machine.
    ///
    /// # Panics
    /// When the node is no transfer.
    pub fn transfer(&self, id: NodeId) -> &Transfer {
        match &self.members[id.0].machine {
            Machine::Transfer(transfer) => transfer,
            Machine::Gateway(_) | Machine::Dead => panic!("no transfer lives here"),
        }
    }

    /// What a gateway reported since it was last asked.
    pub fn take_events(&mut self, id: NodeId) -> Vec<(Moment, gateway::Event)> {
        std::mem::take(&mut self.members[id.0].events)
    }

    /// Inner packets that reached the host behind a gateway since it was last asked.
    pub fn take_delivered(&mut self, id: NodeId) -> Vec<(Moment, Vec<u8>)> {
        std::mem::take(&mut self.members[id.0].delivered)
    }

    /// Whether the host behind a gateway answers pings (it does unless told otherwise).
    pub fn set_answers(&mut self, id: NodeId, answers: bool) {
        self.members[id.0].answers = answers;
    }

    /// The host behind a gateway sends an inner packet.
    pub fn send_inside(&mut self, id: NodeId, packet: &[u8]) {
        let mut bytes = packet.to_vec();
        let arrival = Arrival { origin: Origin::Inside, segment_bytes: bytes.len(), tos: 0 };
        self.handle(id, &arrival, &mut bytes);
    }

    /// Puts a datagram before a node as if it came from `from`: what an attacker can do.
    pub fn inject(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        if let Some((node, socket)) = self.by_address.get(&to).copied() {
            self.push(self.now, Event::Arrive { to: node, socket, from, bytes: bytes.to_vec() });
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
        match self.queue.peek() {
            Some(Reverse(next)) if next.at <= end => {}
            _ => {
                self.now = self.now.max(end);
                return false;
            }
        }
        let Reverse(Queued { at, event, .. }) = self.queue.pop().expect("peeked");
        self.now = at;
        match event {
            Event::Arrive { to, socket, from, mut bytes } => {
                let endpoint = Endpoint { socket, remote: from, local: None };
                let mut train = self.gather(to, socket, from, &mut bytes);
                let arrival = Arrival { origin: Origin::Outside(endpoint), segment_bytes: train.segment_bytes, tos: 0 };
                self.handle(to, &arrival, &mut train.bytes);
            }
            Event::Inside { node, life, packet } => {
                if self.alive(node, life) {
                    self.send_inside(node, &packet);
                }
            }
            Event::Timer { node, life } => {
                if self.alive(node, life) && self.members[node.0].timer.is_some_and(|timer| timer <= at) {
                    self.members[node.0].timer = None;
                    if let Some(machine) = self.members[node.0].machine.node() {
                        machine.handle_timeout(at);
                    }
                    self.drain(node);
                }
            }
            Event::Job { node, life, done } => {
                if self.alive(node, life) {
                    if let Some(machine) = self.members[node.0].machine.node() {
                        machine.handle_job(at, done);
                    }
                    self.drain(node);
                }
            }
            Event::Resolved { node, life } => {
                if self.alive(node, life) {
                    let addresses: Vec<SocketAddr> =
                        self.names.get(&self.members[node.0].transfer_name).copied().into_iter().collect();
                    if let Machine::Gateway(gateway) = &mut self.members[node.0].machine {
                        gateway.set_transfer(at, &addresses);
                    }
                    self.drain(node);
                }
            }
        }
        true
    }

    fn alive(&self, node: NodeId, life: u32) -> bool {
        self.members[node.0].life == life
    }

    /// As a kernel's GRO does: datagrams of one sender that arrive at the same instant become one train.
    fn gather(&mut self, to: NodeId, socket: SocketId, from: SocketAddr, first: &mut Vec<u8>) -> Train {
        let mut train = Train { segment_bytes: first.len().max(1), bytes: std::mem::take(first) };
        let mut closed = train.bytes.is_empty();
        while !closed {
            let same = self.queue.peek().is_some_and(|Reverse(next)| {
                next.at == self.now
                    && matches!(&next.event, Event::Arrive { to: t, socket: s, from: f, bytes }
                        if (*t, *s, *f) == (to, socket, from) && !bytes.is_empty() && bytes.len() <= train.segment_bytes)
            });
            if !same || train.bytes.len() >= 60_000 {
                break;
            }
            let Some(Reverse(Queued { event: Event::Arrive { bytes, .. }, .. })) = self.queue.pop() else { break };
            closed = bytes.len() < train.segment_bytes;
            train.bytes.extend_from_slice(&bytes);
        }
        train
    }

    fn handle(&mut self, id: NodeId, arrival: &Arrival, bytes: &mut [u8]) {
        let mut actions = std::mem::take(&mut self.actions);
        let mut slab = std::mem::take(&mut self.slab);
        if let Some(machine) = self.members[id.0].machine.node() {
            let mut room = Slab::new(&mut slab, 0);
            machine.handle(self.now, arrival, bytes, &mut room, &mut actions);
            for action in actions.drain(..) {
                self.carry_out(id, action, bytes, &slab);
            }
        }
        self.slab = slab;
        self.actions = actions;
        self.drain(id);
    }

    /// Pulls everything a node has to say, then sets its timer.
    fn drain(&mut self, id: NodeId) {
        let life = self.members[id.0].life;
        loop {
            let now = self.now;
            let mut slab = std::mem::take(&mut self.slab);
            let Some(machine) = self.members[id.0].machine.node() else {
                self.slab = slab;
                return;
            };
            let action = machine.poll_transmit(now, &mut Slab::new(&mut slab, 0));
            let job = machine.poll_job();
            if let Some(job) = job {
                let at = now + self.job_time;
                let done = job.run();
                self.push(at, Event::Job { node: id, life, done });
            }
            let idle = action.is_none();
            if let Some(action) = action {
                self.carry_out(id, action, &[], &slab);
            }
            self.slab = slab;
            if idle {
                break;
            }
        }
        while let Some(job) = self.members[id.0].machine.node().and_then(|machine| machine.poll_job()) {
            let at = self.now + self.job_time;
            let done = job.run();
            self.push(at, Event::Job { node: id, life, done });
        }
        self.note_events(id, life);
        let Some(machine) = self.members[id.0].machine.node() else { return };
        if let Some(due) = machine.poll_timeout() {
            let due = due.max(self.now);
            if self.members[id.0].timer.is_none_or(|timer| due < timer) {
                self.members[id.0].timer = Some(due);
                self.push(due, Event::Timer { node: id, life });
            }
        }
    }

    fn note_events(&mut self, id: NodeId, life: u32) {
        let mut resolve = false;
        let member = &mut self.members[id.0];
        match &mut member.machine {
            Machine::Gateway(gateway) => {
                while let Some(event) = gateway.poll_event() {
                    if matches!(event, gateway::Event::ResolveTransfer) {
                        resolve = true;
                    }
                    member.events.push((self.now, event));
                }
            }
            Machine::Transfer(transfer) => while transfer.poll_event().is_some() {},
            Machine::Dead => {}
        }
        if resolve {
            let at = self.now + Duration::from_millis(1);
            self.push(at, Event::Resolved { node: id, life });
        }
    }

    fn carry_out(&mut self, id: NodeId, action: Action, train: &[u8], slab: &[u8]) {
        match action {
            Action::Forward { bytes, segment_bytes, to, .. } => self.send(id, &train[bytes], segment_bytes, &to),
            Action::Send { slab: range, segment_bytes, to, .. } => self.send(id, &slab[range], segment_bytes, &to),
            Action::Deliver { bytes } => self.deliver(id, &train[bytes]),
            Action::DeliverSlab { slab: range } => self.deliver(id, &slab[range]),
        }
    }

    fn send(&mut self, id: NodeId, bytes: &[u8], segment_bytes: usize, to: &Endpoint) {
        let member = &self.members[id.0];
        let port = member.ports[usize::from(to.socket.0)];
        let from = SocketAddr::new(member.address.ip(), port);
        let near = member.link;
        for datagram in bytes.chunks(segment_bytes.max(1)) {
            let ip_bytes = datagram.len() + OUTER_HEADERS;
            self.wiretap.note(self.now, from, to.remote, datagram, ip_bytes);
            let Some((receiver, socket)) = self.by_address.get(&to.remote).copied() else { continue };
            let far = self.members[receiver.0].link;
            let mut copies = std::mem::take(&mut self.copies);
            near.cross(&mut self.rng, ip_bytes, &mut copies);
            let mut arrivals = Vec::with_capacity(copies.len());
            for half_way in copies.drain(..) {
                let mut rest = Vec::new();
                far.cross(&mut self.rng, ip_bytes, &mut rest);
                arrivals.extend(rest.into_iter().map(|rest| self.now + half_way + rest));
            }
            self.copies = copies;
            for at in arrivals {
                self.push(at, Event::Arrive { to: receiver, socket, from, bytes: datagram.to_vec() });
            }
        }
    }

    fn deliver(&mut self, id: NodeId, packet: &[u8]) {
        let member = &mut self.members[id.0];
        member.delivered.push((self.now, packet.to_vec()));
        if member.answers && matches!(host::read(packet), Inner::EchoRequest { .. }) {
            // The host answers on its own thread: after the gateway has finished this turn.
            let event = Event::Inside { node: id, life: member.life, packet: host::echo_reply(packet) };
            self.push(self.now, event);
        }
    }

    fn push(&mut self, at: Moment, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at, order: self.order, event }));
    }
}

struct Train {
    bytes: Vec<u8>,
    segment_bytes: usize,
}
