//! A transfer and three gateways in one process, on wires that take no time, with fixed seeds.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use mesh_core::gateway::{Event, Gateway, GatewayConfig, OuterSize, PathChoice, Sockets};
use mesh_core::node::Node as _;
use mesh_core::seam::{Action, Arrival, Endpoint, Moment, Offloads, Origin, Slab, SocketId};
use mesh_core::session::cipher::Ciphers;
use mesh_core::session::handshake::StaticKey;
use mesh_core::session::token::{NamespaceKeys, StretchedToken};
use mesh_core::transfer::{Transfer, TransferConfig};

const NAMESPACE: u16 = 8000;
const GATEWAYS: u8 = 3;
/// IPv4 and UDP.
const HEADERS_BYTES: usize = 28;

/// See the [module](self). The first gateway has sessions with the other two.
pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) transfer: Transfer,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) slab: Vec<u8>,
    pub(crate) actions: Vec<Action>,
    wire: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    delivered: usize,
}

/// The virtual address of gateway `number`, from 0.
pub(crate) fn ip4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 168, 0, number + 1)
}

fn gateway_address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number + 1], 4000))
}

fn transfer_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], NAMESPACE))
}

/// How a train of the first gateway comes to the transfer.
pub(crate) fn at_transfer(segment_bytes: usize) -> Arrival {
    arrival(gateway_address(0), segment_bytes)
}

/// How a train of the transfer comes to a gateway.
pub(crate) fn at_gateway(segment_bytes: usize) -> Arrival {
    arrival(transfer_address(), segment_bytes)
}

fn arrival(from: SocketAddr, segment_bytes: usize) -> Arrival {
    let endpoint = Endpoint { socket: SocketId(0), remote: from, local: None };
    Arrival { origin: Origin::Outside(endpoint), segment_bytes, tos: 0 }
}

/// What a gateway of fixed identity is made of.
pub(crate) fn gateway_config(number: u8, keys: NamespaceKeys) -> GatewayConfig {
    GatewayConfig {
        ip4: ip4(number),
        prefix: 16,
        static_key: StaticKey::from_seed([10 + number; 32]),
        boot: 1,
        keys,
        name: format!("gateway-{number}"),
        sockets: Sockets { ipv4: Some(SocketId(0)), ..Sockets::default() },
        offloads: Offloads::NONE,
        outer_bytes: OuterSize::Assumed,
        path: PathChoice::Relay,
        pins: Vec::new(),
        ciphers: Ciphers::detected(),
        pinned_transfer_key: None,
        seed: [20 + number; 32],
    }
}

/// An IPv4 packet with UDP inside, `bytes` long in all; no UDP checksum, as IPv4 allows.
pub(crate) fn packet(from: Ipv4Addr, to: Ipv4Addr, bytes: usize) -> Vec<u8> {
    let total = u16::try_from(bytes).expect("a packet").to_be_bytes();
    let udp = u16::try_from(bytes - 20).expect("a packet").to_be_bytes();
    let mut packet = vec![0xab; bytes];
    packet[..12].copy_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    let sum: u32 = packet[..20].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice");
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet[20..HEADERS_BYTES].copy_from_slice(&[0x13, 0x88, 0x13, 0x89, udp[0], udp[1], 0, 0]);
    packet
}

/// Packets of the first gateway back to back: to the second, or in turn to the second and the third.
pub(crate) fn packets(count: usize, bytes: usize, changes: bool) -> Vec<u8> {
    let to = |number: usize| if changes && number % 2 == 1 { 2 } else { 1 };
    (0..count).flat_map(|number| packet(ip4(0), ip4(to(number)), bytes)).collect()
}

impl World {
    /// A world in which it is `now` and stays so.
    pub(crate) fn new(now: Moment) -> anyhow::Result<Self> {
        let keys = || NamespaceKeys::derive(&StretchedToken::from_bytes([7; 32]), NAMESPACE, None);
        let static_key = StaticKey::from_seed([200; 32]);
        let config = TransferConfig { static_key, boot: 1, ticket_key: [9; 32], seed: [1; 32] };
        let mut transfer = Transfer::new(config, now);
        transfer.add_namespace(SocketId(0), NAMESPACE, keys());
        #[cfg(feature = "slow")]
        let transfer = transfer.slowed(slow_steps()?);
        let mut world = Self {
            now,
            transfer,
            gateways: (0..GATEWAYS).map(|number| Gateway::new(gateway_config(number, keys()), now)).collect(),
            slab: vec![0; Slab::ROOM_BYTES],
            actions: Vec::with_capacity(256),
            wire: VecDeque::new(),
            delivered: 0,
        };
        world.settle();
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
            world.inside(from, &mut packet(ip4(from), ip4(to), 100), 100);
            world.send_actions(gateway_address(from), &[]);
            world.settle();
        }
        anyhow::ensure!(world.delivered == 4, "the gateways have no sessions: {} packets arrived", world.delivered);
        Ok(world)
    }

    /// Hands packets to the virtual interface of a gateway. What comes of them is in `actions` and `slab`.
    pub(crate) fn inside(&mut self, number: u8, packets: &mut [u8], segment_bytes: usize) {
        let arrival = Arrival { origin: Origin::Inside, segment_bytes, tos: 0 };
        let mut slab = Slab::new(&mut self.slab, 0);
        self.gateways[usize::from(number)].handle(self.now, &arrival, packets, &mut slab, &mut self.actions);
    }

    /// What the first gateway seals for `packets`, as one train.
    pub(crate) fn sealed(&mut self, packets: &mut [u8], segment_bytes: usize) -> Vec<u8> {
        self.inside(0, packets, segment_bytes);
        let mut train = Vec::new();
        for action in self.actions.drain(..) {
            let Action::Send { slab, .. } = action else { panic!("a gateway with sessions seals: {action:?}") };
            train.extend_from_slice(&self.slab[slab]);
        }
        train
    }

    /// Goes on until nothing moves any more.
    fn settle(&mut self) {
        loop {
            for number in 0..GATEWAYS {
                self.tend(number);
            }
            while let Some(job) = self.transfer.poll_job() {
                self.transfer.handle_job(self.now, job.run());
            }
            while let Some(action) = self.transfer.poll_transmit(self.now, &mut Slab::new(&mut self.slab, 0)) {
                self.actions.push(action);
                self.send_actions(transfer_address(), &[]);
            }
            let Some((from, to, mut bytes)) = self.wire.pop_front() else { return };
            let arrival = arrival(from, bytes.len());
            let mut slab = Slab::new(&mut self.slab, 0);
            if to == transfer_address() {
                self.transfer.handle(self.now, &arrival, &mut bytes, &mut slab, &mut self.actions);
            } else {
                let number = (0..GATEWAYS).find(|&number| gateway_address(number) == to);
                let number = usize::from(number.expect("an address of this world"));
                self.gateways[number].handle(self.now, &arrival, &mut bytes, &mut slab, &mut self.actions);
            }
            self.send_actions(to, &bytes);
        }
    }

    fn tend(&mut self, number: u8) {
        let index = usize::from(number);
        while let Some(event) = self.gateways[index].poll_event() {
            if event == Event::ResolveTransfer {
                self.gateways[index].set_transfer(self.now, &[transfer_address()]);
            }
        }
        loop {
            while let Some(job) = self.gateways[index].poll_job() {
                self.gateways[index].handle_job(self.now, job.run());
            }
            let mut slab = Slab::new(&mut self.slab, 0);
            let Some(action) = self.gateways[index].poll_transmit(self.now, &mut slab) else { return };
            self.actions.push(action);
            self.send_actions(gateway_address(number), &[]);
        }
    }

    /// Puts on the wire what the actions of whoever is at `at` name, of `train` or of the slab.
    fn send_actions(&mut self, at: SocketAddr, train: &[u8]) {
        for action in self.actions.drain(..) {
            match action {
                Action::Forward { bytes, to, .. } => self.wire.push_back((at, to.remote, train[bytes].to_vec())),
                Action::Send { slab, to, .. } => self.wire.push_back((at, to.remote, self.slab[slab].to_vec())),
                Action::Deliver { .. } | Action::DeliverSlab { .. } => self.delivered += 1,
                Action::DeliverMore { .. } => {}
            }
        }
    }
}

/// The switch of test builds: see `slow` of `mesh-node`.
#[cfg(feature = "slow")]
fn slow_steps() -> anyhow::Result<u32> {
    use anyhow::Context as _;
    const VARIABLE: &str = "EASYMESH_SLOW_RELAY";
    match std::env::var(VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{VARIABLE}={text}: not a number of steps")),
        Err(_) => Ok(0),
    }
}
