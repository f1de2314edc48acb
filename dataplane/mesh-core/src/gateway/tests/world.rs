//! A network in one process: gateways, a transfer, datagrams that take their time, and a hook that decides their fate.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_wire::frame::{self, FirstByte, FrameType};

use super::streams::{self, Streams};
use crate::gateway::{Event, Gateway, GatewayConfig, OuterSize, PathChoice, Sockets};
use crate::node::Node;
use crate::seam::{Action, Arrival, Endpoint, Moment, Offloads, Origin, Slab, SocketId};
use crate::session::cipher::Ciphers;
use crate::session::handshake::StaticKey;
use crate::session::token::{NamespaceKeys, StretchedToken};
use crate::transfer::{Transfer, TransferConfig};

pub(crate) const NAMESPACE: u16 = 8000;
/// [`Datagram::kind`] of a control message.
pub(crate) const CONTROL: u8 = 5;
/// One way between any two hosts.
pub(crate) const LATENCY: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
    pub(crate) tos: u8,
}

impl Datagram {
    pub(crate) fn kind(&self) -> u8 {
        self.bytes.first().map_or(0xff, |byte| byte & 0x0f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Drop,
    Twice,
    Late(Duration),
}

pub(crate) fn keys() -> NamespaceKeys {
    NamespaceKeys::derive(&StretchedToken::from_bytes([7; 32]), NAMESPACE, None)
}

pub(crate) fn ip4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 168, 0, number)
}

pub(crate) fn address_of(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)), 4000 + u16::from(number))
}

pub(crate) fn config(number: u8, boot: u64) -> GatewayConfig {
    GatewayConfig {
        ip4: ip4(number),
        prefix: 16,
        static_key: StaticKey::from_seed([number; 32]),
        boot,
        keys: keys(),
        name: format!("gateway-{number}"),
        sockets: Sockets { ipv4: Some(SocketId(0)), ..Sockets::default() },
        offloads: Offloads::NONE,
        outer_bytes: OuterSize::Assumed,
        path: PathChoice::Relay,
        pins: Vec::new(),
        ciphers: Ciphers::detected(),
        pinned_transfer_key: None,
        seed: [boot as u8 ^ number.wrapping_mul(31); 32],
    }
}

pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) transfer_at: SocketAddr,
    /// What the transfer's name resolves to.
    pub(crate) name: Vec<SocketAddr>,
    pub(crate) gateways: BTreeMap<u8, Gateway>,
    wire: BTreeMap<(Moment, u64), Datagram>,
    sent: u64,
    pub(crate) delivered: BTreeMap<u8, Vec<(Moment, Vec<u8>)>>,
    pub(crate) events: BTreeMap<u8, Vec<Event>>,
    pub(crate) fate: Box<dyn FnMut(&Datagram) -> Fate>,
    /// What translates addresses on the way, before its fate is decided.
    pub(crate) translate: Box<dyn FnMut(&mut Datagram)>,
    /// What TCP does, for gateways with a socket for it.
    pub(crate) streams: Streams,
    /// Everything that was sent, if wanted.
    pub(crate) capture: Option<Vec<Datagram>>,
    /// How often the time that a gateway had asked for had come.
    pub(crate) woken: u32,
    /// So many of the next jobs find no thread that has time.
    pub(crate) overloaded: u32,
    /// The longest IP packet that passes, in bytes: what is longer vanishes.
    pub(crate) carries: usize,
    /// Whether frames with packets may vanish so, too.
    pub(crate) may_vanish: bool,
    slab: Vec<u8>,
}

/// What a node asked for.
#[derive(Default)]
pub(crate) struct Output {
    sent: Vec<(Endpoint, Vec<u8>, u8)>,
    delivered: Vec<Vec<u8>>,
}

pub(crate) fn carry_out(action: Action, train: &[u8], slab: &[u8], output: &mut Output) {
    match action {
        Action::Forward { bytes, segment_bytes, to, tos } => {
            output.sent.extend(train[bytes].chunks(segment_bytes).map(|one| (to, one.to_vec(), tos)));
        }
        Action::Send { slab: range, segment_bytes, to, tos } => {
            output.sent.extend(slab[range].chunks(segment_bytes).map(|one| (to, one.to_vec(), tos)));
        }
        Action::Deliver { bytes } => output.delivered.push(train[bytes].to_vec()),
        Action::DeliverMore { bytes } => {
            output.delivered.last_mut().expect("it goes on with a packet").extend_from_slice(&train[bytes]);
        }
        Action::DeliverSlab { slab: range } => output.delivered.push(slab[range].to_vec()),
    }
}

/// Pulls all output of a node; jobs are run at once, or refused.
fn pull(node: &mut dyn Node, now: Moment, slab: &mut [u8], overloaded: &mut u32, output: &mut Output) {
    loop {
        let action = node.poll_transmit(now, &mut Slab::new(slab, 0));
        match action {
            Some(action) => carry_out(action, &[], slab, output),
            None => match node.poll_job() {
                Some(job) => {
                    let done = if *overloaded > 0 { job.refuse() } else { job.run() };
                    *overloaded = overloaded.saturating_sub(1);
                    node.handle_job(now, done);
                }
                None => return,
            },
        }
    }
}

fn push(
    node: &mut dyn Node,
    now: Moment,
    arrival: &Arrival,
    train: &mut [u8],
    slab: &mut [u8],
    overloaded: &mut u32,
) -> Output {
    let mut output = Output::default();
    let mut actions = Vec::new();
    node.handle(now, arrival, train, &mut Slab::new(slab, 0), &mut actions);
    for action in actions {
        carry_out(action, train, slab, &mut output);
    }
    pull(node, now, slab, overloaded, &mut output);
    output
}

impl World {
    /// A transfer and gateways with these numbers, none of them started.
    pub(crate) fn empty() -> Self {
        let transfer_at = "192.0.2.1:8000".parse().unwrap();
        Self {
            now: Moment::from_nanos(1_000_000_000_000),
            transfer: None,
            transfer_at,
            name: vec![transfer_at],
            gateways: BTreeMap::new(),
            wire: BTreeMap::new(),
            sent: 0,
            delivered: BTreeMap::new(),
            events: BTreeMap::new(),
            fate: Box::new(|_| Fate::Pass),
            translate: Box::new(|_| {}),
            streams: Streams::default(),
            capture: None,
            woken: 0,
            overloaded: 0,
            carries: 1280,
            may_vanish: false,
            slab: vec![0; Slab::ROOM_BYTES],
        }
    }

    /// A transfer and gateways with these numbers, all registered.
    pub(crate) fn with(numbers: &[u8]) -> Self {
        let mut world = Self::empty();
        world.start_transfer(1);
        for &number in numbers {
            world.start_gateway(number, 1);
        }
        world.run(Duration::from_millis(500));
        for &number in numbers {
            assert!(
                world.events[&number].iter().any(|event| matches!(event, Event::Registered { first: true, .. })),
                "gateway {number} registers: {:?}",
                world.events[&number]
            );
        }
        world
    }

    pub(crate) fn start_transfer(&mut self, boot: u64) {
        let config = TransferConfig {
            static_key: StaticKey::from_seed([200; 32]),
            boot,
            ticket_key: [9; 32],
            seed: [boot as u8; 32],
        };
        let mut transfer = Transfer::new(config, self.now);
        transfer.add_namespace(SocketId(0), NAMESPACE, keys());
        self.transfer = Some(transfer);
        self.streams.transfer_started();
    }

    pub(crate) fn start_gateway(&mut self, number: u8, boot: u64) {
        self.insert(number, config(number, boot));
    }

    /// A transfer and gateways with these numbers that may take any path, all registered.
    pub(crate) fn with_paths(numbers: &[u8]) -> Self {
        let mut world = Self::empty();
        world.start_transfer(1);
        for &number in numbers {
            world.insert(number, GatewayConfig { path: PathChoice::Auto, ..config(number, 1) });
        }
        world.run(Duration::from_millis(500));
        world
    }

    /// Puts a gateway at the address `number`.
    pub(crate) fn insert(&mut self, number: u8, config: GatewayConfig) {
        self.gateways.insert(number, Gateway::new(config, self.now));
        self.events.entry(number).or_default();
        self.delivered.entry(number).or_default();
        self.settle(number, Output::default());
    }

    /// Hands a packet to the virtual interface of a gateway.
    pub(crate) fn inside(&mut self, number: u8, packet: &[u8]) {
        let arrival = Arrival { origin: Origin::Inside, segment_bytes: packet.len().max(1), tos: 0 };
        let mut train = packet.to_vec();
        let gateway = self.gateways.get_mut(&number).unwrap();
        let output = push(gateway, self.now, &arrival, &mut train, &mut self.slab, &mut self.overloaded);
        self.settle(number, output);
    }

    /// Hands a train from the network to a gateway at once.
    pub(crate) fn train(&mut self, number: u8, from: SocketAddr, mut train: Vec<u8>, segment_bytes: usize) {
        let endpoint = Endpoint { socket: SocketId(0), remote: from, local: None };
        let arrival = Arrival { origin: Origin::Outside(endpoint), segment_bytes, tos: 0 };
        let gateway = self.gateways.get_mut(&number).unwrap();
        let output = push(gateway, self.now, &arrival, &mut train, &mut self.slab, &mut self.overloaded);
        self.settle(number, output);
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.tend_streams();
            while let Some(entry) = self.wire.first_entry()
                && entry.key().0 <= self.now
            {
                let datagram = entry.remove();
                self.arrive(datagram);
            }
            let now = self.now;
            if let Some(transfer) = &mut self.transfer
                && transfer.poll_timeout().is_some_and(|at| at <= now)
            {
                transfer.handle_timeout(now);
                let mut output = Output::default();
                pull(transfer, now, &mut self.slab, &mut self.overloaded, &mut output);
                let from = self.transfer_at;
                self.transmit(from, output);
            }
            for number in self.gateways.keys().copied().collect::<Vec<_>>() {
                let gateway = self.gateways.get_mut(&number).unwrap();
                if gateway.poll_timeout().is_some_and(|at| at <= now) {
                    gateway.handle_timeout(now);
                    self.woken += 1;
                    self.settle(number, Output::default());
                }
            }
        }
        self.now = end;
    }

    /// Runs until `done`, at most for `most`; answers how long it took.
    pub(crate) fn run_until(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        while self.now.since(start) < most {
            if done(self) {
                return Some(self.now.since(start));
            }
            self.run(Duration::from_millis(1));
        }
        None
    }

    pub(crate) fn packets(&self, number: u8) -> usize {
        self.delivered[&number].len()
    }

    fn next(&self) -> Option<Moment> {
        let wire = self.wire.keys().next().map(|(at, _)| *at);
        let transfer = self.transfer.as_ref().and_then(Node::poll_timeout);
        let gateways = self.gateways.values().filter_map(Node::poll_timeout);
        gateways.chain(wire).chain(transfer).chain(self.streams.next(self.now, self.transfer.is_some())).min()
    }

    fn arrive(&mut self, mut datagram: Datagram) {
        let endpoint = Endpoint { socket: SocketId(0), remote: datagram.from, local: None };
        let bytes = datagram.bytes.len().max(1);
        let arrival = Arrival { origin: Origin::Outside(endpoint), segment_bytes: bytes, tos: datagram.tos };
        if datagram.to == self.transfer_at {
            if let Some(transfer) = &mut self.transfer {
                let output =
                    push(transfer, self.now, &arrival, &mut datagram.bytes, &mut self.slab, &mut self.overloaded);
                self.transmit(datagram.to, output);
            }
            return;
        }
        if datagram.to.ip().is_multicast() {
            for number in self.gateways.keys().copied().collect::<Vec<_>>() {
                if address_of(number) != datagram.from {
                    self.train(number, datagram.from, datagram.bytes.clone(), bytes);
                }
            }
            return;
        }
        let (number, endpoint) = match streams::seen_by_transfer(datagram.to) {
            Some(number) => (self.streams.is_connected(datagram.to).then_some(number), streams::by_bridge(number)),
            None => ((1..=u8::MAX).find(|number| address_of(*number) == datagram.to), endpoint),
        };
        let arrival = Arrival { origin: Origin::Outside(endpoint), ..arrival };
        if let Some(number) = number
            && let Some(gateway) = self.gateways.get_mut(&number)
        {
            let output = push(gateway, self.now, &arrival, &mut datagram.bytes, &mut self.slab, &mut self.overloaded);
            self.settle(number, output);
        }
    }

    /// Takes all that a gateway asks for after an input, name resolution too.
    pub(crate) fn settle(&mut self, number: u8, mut output: Output) {
        let Some(gateway) = self.gateways.get_mut(&number) else { return };
        loop {
            pull(gateway, self.now, &mut self.slab, &mut self.overloaded, &mut output);
            let Some(event) = gateway.poll_event() else { break };
            if event == Event::ResolveTransfer {
                gateway.set_transfer(self.now, &self.name);
                continue;
            }
            if let Event::StreamWanted(wanted) = event {
                self.streams.wanted(self.now, number, wanted);
            }
            self.events.get_mut(&number).unwrap().push(event);
        }
        let now = self.now;
        let delivered = std::mem::take(&mut output.delivered);
        self.delivered.get_mut(&number).unwrap().extend(delivered.into_iter().map(|packet| (now, packet)));
        self.transmit(address_of(number), output);
    }

    fn transmit(&mut self, from: SocketAddr, output: Output) {
        for (to, bytes, tos) in output.sent {
            let outer = bytes.len() + if to.remote.is_ipv4() { 28 } else { 48 };
            if outer > self.carries {
                // Nothing else is ever longer than what every path carries, or has proven to carry.
                assert!(
                    frame::classify(bytes[0]) == FirstByte::Frame(FrameType::Control) || self.may_vanish,
                    "{outer} bytes"
                );
                continue;
            }
            let Some((from, to)) = self.streams.ends(from, to, self.transfer_at) else { continue };
            let mut datagram = Datagram { from, to, bytes, tos };
            (self.translate)(&mut datagram);
            if let Some(capture) = &mut self.capture {
                capture.push(datagram.clone());
            }
            let fate = (self.fate)(&datagram);
            let (copies, late) = match fate {
                Fate::Pass => (1, Duration::ZERO),
                Fate::Drop => (0, Duration::ZERO),
                Fate::Twice => (2, Duration::ZERO),
                Fate::Late(late) => (1, late),
            };
            for _ in 0..copies {
                self.sent += 1;
                let late = late + self.streams.delay(&datagram);
                self.wire.insert((self.now + LATENCY + late, self.sent), datagram.clone());
            }
        }
    }
}
