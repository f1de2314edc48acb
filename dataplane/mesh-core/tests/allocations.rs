//! The packet path allocates nothing after warm-up: packets in, packets out, and what is relayed.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "an allocator that counts has to be one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_core::gateway::{Event, Gateway, GatewayConfig, OuterSize, PathChoice, PathKind, Sockets};
use mesh_core::node::Node;
use mesh_core::seam::{Action, Arrival, Endpoint, Moment, Offloads, Origin, Slab, SocketId};
use mesh_core::session::cipher::Ciphers;
use mesh_core::session::handshake::StaticKey;
use mesh_core::session::token::{NamespaceKeys, StretchedToken};
use mesh_core::transfer::{Transfer, TransferConfig};

const NAMESPACE: u16 = 8000;
const TRAIN_DATAGRAMS: usize = 40;
const ROUNDS: usize = 50;

thread_local! {
    /// Allocations of this thread: what the harness does on others is not seen.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, and a count.
struct Counting;

fn count() {
    // A thread that ends may allocate after its variables are gone.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call is passed on as it came, to an allocator that keeps the contract; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's layout is of nonzero size, as this function asks for too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller got `memory` from here, which means from `System`, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`, and the caller's new size is nonzero and does not overflow.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `work` makes.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn ip4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 168, 0, u8::try_from(number + 1).expect("a few gateways"))
}

fn gateway_address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(number + 1).expect("a few gateways")], 4000))
}

fn transfer_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], NAMESPACE))
}

fn keys() -> NamespaceKeys {
    NamespaceKeys::derive(&StretchedToken::from_bytes([7; 32]), NAMESPACE, None)
}

/// A UDP packet of so many bytes in all.
fn packet(from: usize, to: usize, bytes: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4(ip4(from).octets(), ip4(to).octets(), 64).udp(5000, 5001);
    let mut packet = Vec::new();
    builder.write(&mut packet, &vec![0xab; bytes - 28]).expect("a vector takes all");
    packet
}

fn arrival(from: SocketAddr, segment_bytes: usize) -> Arrival {
    let endpoint = Endpoint { socket: SocketId(0), remote: from, local: None };
    Arrival { origin: Origin::Outside(endpoint), segment_bytes, tos: 0 }
}

/// A transfer and three gateways, on wires that take no time; the first gateway has sessions with the other two.
struct Mesh {
    now: Moment,
    transfer: Transfer,
    gateways: Vec<Gateway>,
    wire: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    delivered: usize,
    slab: Vec<u8>,
    actions: Vec<Action>,
}

impl Mesh {
    /// Everything goes by the relay.
    fn new() -> Self {
        Self::with(PathChoice::Relay, OuterSize::Assumed)
    }

    /// Talking through the relay over paths that carry 1280 bytes.
    fn narrow() -> Self {
        Self::with(PathChoice::Relay, OuterSize::Fixed(1280))
    }

    /// Everything goes straight.
    fn direct() -> Self {
        let mut mesh = Self::with(PathChoice::Auto, OuterSize::Assumed);
        for _ in 0..500 {
            mesh.now = mesh.now + Duration::from_millis(10);
            mesh.transfer.handle_timeout(mesh.now);
            for gateway in &mut mesh.gateways {
                gateway.handle_timeout(mesh.now);
            }
            mesh.settle();
        }
        for gateway in &mesh.gateways {
            let status = gateway.status(mesh.now);
            assert!(status.peers.iter().all(|peer| peer.path == Some(PathKind::Direct)), "{status:?}");
        }
        mesh
    }

    fn with(path: PathChoice, outer_bytes: OuterSize) -> Self {
        let now = Moment::from_nanos(1_000_000_000_000);
        let config =
            TransferConfig { static_key: StaticKey::from_seed([200; 32]), boot: 1, ticket_key: [9; 32], seed: [1; 32] };
        let mut transfer = Transfer::new(config, now);
        transfer.add_namespace(SocketId(0), NAMESPACE, keys());
        let gateway = |number: usize| {
            let byte = u8::try_from(number).expect("a few gateways");
            let config = GatewayConfig {
                ip4: ip4(number),
                prefix: 16,
                static_key: StaticKey::from_seed([10 + byte; 32]),
                boot: 1,
                keys: keys(),
                name: format!("gateway-{number}"),
                sockets: Sockets { ipv4: Some(SocketId(0)), ..Sockets::default() },
                offloads: Offloads::NONE,
                outer_bytes,
                path,
                pins: Vec::new(),
                ciphers: Ciphers::detected(),
                pinned_transfer_key: None,
                seed: [20 + byte; 32],
            };
            Gateway::new(config, now)
        };
        let mut mesh = Self {
            now,
            transfer,
            gateways: (0..3).map(gateway).collect(),
            wire: VecDeque::new(),
            delivered: 0,
            slab: vec![0; Slab::ROOM_BYTES],
            actions: Vec::with_capacity(4 * TRAIN_DATAGRAMS),
        };
        mesh.settle();
        for to in [1, 2] {
            for (from, to) in [(0, to), (to, 0)] {
                mesh.inside(from, &mut packet(from, to, 100), 100);
                mesh.send_actions(from);
                mesh.settle();
            }
        }
        assert_eq!(mesh.delivered, 4, "sessions exist");
        mesh
    }

    /// Hands packets, back to back, to the virtual interface of a gateway. What comes of them is in `actions` and `slab`.
    fn inside(&mut self, number: usize, packets: &mut [u8], segment_bytes: usize) {
        let arrival = Arrival { origin: Origin::Inside, segment_bytes, tos: 0 };
        let mut slab = Slab::new(&mut self.slab, 0);
        self.gateways[number].handle(self.now, &arrival, packets, &mut slab, &mut self.actions);
    }

    /// Goes on until nothing moves any more.
    fn settle(&mut self) {
        loop {
            for number in 0..self.gateways.len() {
                while let Some(event) = self.gateways[number].poll_event() {
                    if event == Event::ResolveTransfer {
                        self.gateways[number].set_transfer(self.now, &[transfer_address()]);
                    }
                }
                loop {
                    while let Some(job) = self.gateways[number].poll_job() {
                        self.gateways[number].handle_job(self.now, job.run());
                    }
                    let mut slab = Slab::new(&mut self.slab, 0);
                    let Some(action) = self.gateways[number].poll_transmit(self.now, &mut slab) else { break };
                    self.actions.push(action);
                    self.send_actions(number);
                }
            }
            while let Some(job) = self.transfer.poll_job() {
                self.transfer.handle_job(self.now, job.run());
            }
            while let Some(action) = self.transfer.poll_transmit(self.now, &mut Slab::new(&mut self.slab, 0)) {
                let Action::Send { slab, to, .. } = action else { panic!("{action:?}") };
                self.wire.push_back((transfer_address(), to.remote, self.slab[slab].to_vec()));
            }
            let Some((from, to, bytes)) = self.wire.pop_front() else { return };
            self.arrive(from, to, bytes);
        }
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, mut bytes: Vec<u8>) {
        let arrival = arrival(from, bytes.len());
        let mut slab = Slab::new(&mut self.slab, 0);
        if to == transfer_address() {
            self.transfer.handle(self.now, &arrival, &mut bytes, &mut slab, &mut self.actions);
        } else {
            let number = (0..self.gateways.len()).find(|number| gateway_address(*number) == to);
            let number = number.expect("an address of the mesh");
            self.gateways[number].handle(self.now, &arrival, &mut bytes, &mut slab, &mut self.actions);
        }
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Forward { bytes: range, to: next, .. } => {
                    self.wire.push_back((to, next.remote, bytes[range].to_vec()));
                }
                Action::Send { slab, to: next, .. } => {
                    self.wire.push_back((to, next.remote, self.slab[slab].to_vec()));
                }
                Action::Deliver { .. } | Action::DeliverSlab { .. } => self.delivered += 1,
                Action::DeliverMore { .. } => {}
            }
        }
    }

    /// Sends what the actions of a gateway name.
    fn send_actions(&mut self, number: usize) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send { slab, to, .. } => {
                    self.wire.push_back((gateway_address(number), to.remote, self.slab[slab].to_vec()));
                }
                Action::DeliverSlab { .. } => self.delivered += 1,
                other @ (Action::Forward { .. } | Action::Deliver { .. } | Action::DeliverMore { .. }) => {
                    panic!("not of its own making: {other:?}")
                }
            }
        }
    }

    /// What the first gateway seals for `packets`, as one train.
    fn sealed(&mut self, packets: &mut [u8], segment_bytes: usize) -> Vec<u8> {
        self.inside(0, packets, segment_bytes);
        let mut train = Vec::new();
        for action in self.actions.drain(..) {
            let Action::Send { slab, .. } = action else { panic!("{action:?}") };
            train.extend_from_slice(&self.slab[slab]);
        }
        train
    }
}

/// Inner packets back to back: to the first peer, or to each in turn.
fn packets(count: usize, bytes: usize, mixed: bool) -> Vec<u8> {
    (0..count).flat_map(|number| packet(0, if mixed { 1 + number % 2 } else { 1 }, bytes)).collect()
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn relay_allocates_nothing() {
    let mut mesh = Mesh::new();
    let bytes = 500;
    for (count, mixed, runs) in [(TRAIN_DATAGRAMS, false, 1), (1, false, 1), (TRAIN_DATAGRAMS, true, TRAIN_DATAGRAMS)] {
        let mut train = mesh.sealed(&mut packets(count, bytes, mixed), bytes);
        let arrival = arrival(gateway_address(0), train.len() / count);
        let Mesh { now, transfer, slab, actions, .. } = &mut mesh;
        for round in 0..ROUNDS {
            *now = *now + Duration::from_millis(1);
            let made = allocations(|| {
                transfer.handle(*now, &arrival, &mut train, &mut Slab::new(slab, 0), actions);
            });
            assert_eq!(actions.len(), runs, "forwarded in runs");
            assert!(actions.iter().all(|action| matches!(action, Action::Forward { .. })));
            actions.clear();
            assert!(round == 0 || made == 0, "{made} allocations for {count} datagrams, mixed: {mixed}");
        }
    }
    assert_eq!(mesh.transfer.drops().total(), 3, "nothing but the first init of each");
}

#[test]
fn packets_out_allocate_nothing() {
    for mesh in [Mesh::new(), Mesh::direct()] {
        send_out(mesh, 1);
    }
    send_out(Mesh::narrow(), 2);
}

/// `frames`: of the longest packet that the interface takes.
fn send_out(mut mesh: Mesh, frames: usize) {
    let before = mesh.gateways[0].drops().total();
    // Two halves of equal length.
    let longest = usize::from(mesh.gateways[0].inside_mtu()) & !1;
    for (bytes, frames) in [(60, 1), (576, 1), (1100, 1), (longest, frames)] {
        for mixed in [false, true] {
            for round in 0..ROUNDS {
                mesh.now = mesh.now + Duration::from_millis(1);
                let mut packets = packets(TRAIN_DATAGRAMS, bytes, mixed);
                let made = allocations(|| mesh.inside(0, &mut packets, bytes));
                assert_eq!(mesh.actions.len(), frames * TRAIN_DATAGRAMS, "{bytes} bytes");
                mesh.actions.clear();
                assert!(round == 0 || made == 0, "{made} allocations for packets of {bytes} bytes, mixed: {mixed}");
            }
        }
    }
    assert_eq!(mesh.gateways[0].drops().total(), before);
}

#[test]
fn packets_in_allocate_nothing() {
    take_in(Mesh::new(), transfer_address(), 1);
    take_in(Mesh::direct(), gateway_address(0), 1);
    take_in(Mesh::narrow(), transfer_address(), 2);
}

/// `frames`: of the longest packet that the interface takes.
fn take_in(mut mesh: Mesh, from: SocketAddr, frames: usize) {
    let before = mesh.gateways[1].drops().total();
    // Two halves of equal length.
    let longest = usize::from(mesh.gateways[0].inside_mtu()) & !1;
    for (bytes, frames) in [(60, 1), (576, 1), (1100, 1), (longest, frames)] {
        for round in 0..ROUNDS {
            mesh.now = mesh.now + Duration::from_millis(1);
            let mut train = mesh.sealed(&mut packets(TRAIN_DATAGRAMS, bytes, false), bytes);
            let stride = train.len().div_ceil(frames * TRAIN_DATAGRAMS);
            let arrival = arrival(from, stride);
            let Mesh { now, gateways, slab, actions, .. } = &mut mesh;
            let made = allocations(|| {
                gateways[1].handle(*now, &arrival, &mut train, &mut Slab::new(slab, 0), actions);
            });
            let whole = if frames == 1 {
                actions.iter().filter(|action| matches!(action, Action::Deliver { .. })).count()
            } else {
                actions.iter().filter(|action| matches!(action, Action::DeliverSlab { .. })).count()
            };
            assert_eq!((whole, actions.len()), (TRAIN_DATAGRAMS, TRAIN_DATAGRAMS), "{bytes} bytes");
            actions.clear();
            assert!(round == 0 || made == 0, "{made} allocations for packets of {bytes} bytes");
        }
    }
    assert_eq!(mesh.gateways[1].drops().total(), before);
}
