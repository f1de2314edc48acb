//! What a session costs a transfer: ten thousand gateways join one namespace, and the heap is weighed.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "an allocator that counts has to be one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_core::gateway::{Event, Gateway, GatewayConfig, OuterSize, PathChoice, Sockets};
use mesh_core::node::Node;
use mesh_core::seam::{Action, Arrival, Endpoint, Moment, Offloads, Origin, Slab, SocketId};
use mesh_core::session::cipher::Ciphers;
use mesh_core::session::handshake::StaticKey;
use mesh_core::session::token::{NamespaceKeys, StretchedToken};
use mesh_core::transfer::{Transfer, TransferConfig};

const NAMESPACE: u16 = 8000;
/// Sessions before it is weighed for the first time: what a namespace costs by itself is spent then.
const FEW: u32 = 1_000;
const MANY: u32 = 10_000;
/// Heap for each session beyond the first thousand.
const SESSION_BYTES_MAX: i64 = 248;
/// The same while they join, two thousand a second: handshakes are remembered for five seconds.
const JOINING_BYTES_MAX: i64 = 840;
/// Time between one and the next.
const JOIN_INTERVAL: Duration = Duration::from_micros(500);

thread_local! {
    /// Bytes allocated and not freed by this thread, and the most there were: what the harness does on others is not seen.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, and a balance.
struct Weighing;

fn weigh(bytes: i64) {
    // A thread that ends may allocate after its variables are gone.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("no memory is so large")
}

// SAFETY: every call is passed on as it came, to an allocator that keeps the contract; weighing allocates nothing.
unsafe impl GlobalAlloc for Weighing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        weigh(signed(layout.size()));
        // SAFETY: the caller's layout is of nonzero size, as this function asks for too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        weigh(-signed(layout.size()));
        // SAFETY: the caller got `memory` from here, which means from `System`, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // Where it moves, both are there for a moment.
        weigh(signed(bytes));
        weigh(-signed(layout.size()));
        // SAFETY: as for `dealloc`, and the caller's new size is nonzero and does not overflow.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Weighing = Weighing;

fn transfer_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], NAMESPACE))
}

fn keys() -> NamespaceKeys {
    NamespaceKeys::derive(&StretchedToken::from_bytes([7; 32]), NAMESPACE, None)
}

/// A transfer, and gateways that join it and are not heard of again.
struct Crowd {
    now: Moment,
    transfer: Transfer,
    joined: u32,
    slab: Vec<u8>,
    actions: Vec<Action>,
}

impl Crowd {
    fn new() -> Self {
        let now = Moment::from_nanos(1_000_000_000_000);
        let config =
            TransferConfig { static_key: StaticKey::from_seed([200; 32]), boot: 1, ticket_key: [9; 32], seed: [1; 32] };
        let mut transfer = Transfer::new(config, now);
        transfer.add_namespace(SocketId(0), NAMESPACE, keys());
        Self { now, transfer, joined: 0, slab: vec![0; Slab::ROOM_BYTES], actions: Vec::with_capacity(16) }
    }

    /// Lets so many in all be members.
    fn join_up_to(&mut self, count: u32) {
        while self.joined < count {
            self.join(self.joined);
            self.joined += 1;
            while self.transfer.poll_event().is_some() {}
            self.pass(JOIN_INTERVAL);
        }
    }

    /// One gateway's registration, by a real handshake, each at an address of its own.
    fn join(&mut self, number: u32) {
        let [_, high, middle, low] = number.to_be_bytes();
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let config = GatewayConfig {
            ip4: Ipv4Addr::new(10, high, middle, low),
            prefix: 8,
            static_key: StaticKey::from_seed(seed),
            boot: 1,
            keys: keys(),
            name: format!("gateway-{number}"),
            sockets: Sockets { ipv4: Some(SocketId(0)), ..Sockets::default() },
            offloads: Offloads::NONE,
            outer_bytes: OuterSize::Assumed,
            path: PathChoice::Relay,
            pins: Vec::new(),
            ciphers: Ciphers::detected(),
            pinned_transfer_key: None,
            seed,
        };
        let address = SocketAddr::from(([172, 16 + high, middle, low], 4000));
        let mut gateway = Gateway::new(config, self.now);
        let mut registered = false;
        // The pause that a gateway makes at first is no one's: the memory of the transfer does not depend on it.
        while !registered {
            while let Some(event) = gateway.poll_event() {
                if event == Event::ResolveTransfer {
                    gateway.set_transfer(self.now, &[transfer_address()]);
                }
                registered |= matches!(event, Event::Registered { .. });
            }
            if registered {
                break;
            }
            let moved = self.exchange(&mut gateway, address);
            if !moved {
                let due = gateway.poll_timeout().expect("a gateway that is not registered tries again");
                self.pass(due.since(self.now));
                gateway.handle_timeout(self.now);
            }
        }
    }

    /// Carries what both have to say once to the other; whether there was anything.
    fn exchange(&mut self, gateway: &mut Gateway, address: SocketAddr) -> bool {
        let mut moved = false;
        while let Some(job) = gateway.poll_job() {
            gateway.handle_job(self.now, job.run());
            moved = true;
        }
        while let Some(action) = gateway.poll_transmit(self.now, &mut Slab::new(&mut self.slab, 0)) {
            let mut bytes = self.sent(&action);
            let arrival = arrival(address, bytes.len());
            let mut slab = Slab::new(&mut self.slab, 0);
            self.transfer.handle(self.now, &arrival, &mut bytes, &mut slab, &mut self.actions);
            while let Some(job) = self.transfer.poll_job() {
                self.transfer.handle_job(self.now, job.run());
            }
            for action in std::mem::take(&mut self.actions) {
                let bytes = self.sent(&action);
                self.answer(gateway, bytes);
            }
            while let Some(action) = self.transfer.poll_transmit(self.now, &mut Slab::new(&mut self.slab, 0)) {
                let bytes = self.sent(&action);
                self.answer(gateway, bytes);
            }
            moved = true;
        }
        moved
    }

    fn sent(&self, action: &Action) -> Vec<u8> {
        let Action::Send { slab, .. } = action else { panic!("a message of its own making: {action:?}") };
        self.slab[slab.clone()].to_vec()
    }

    fn answer(&mut self, gateway: &mut Gateway, mut bytes: Vec<u8>) {
        let arrival = arrival(transfer_address(), bytes.len());
        let mut actions = Vec::new();
        // What the gateway says comes by `poll_transmit`; the transfer's words stay where they are meanwhile.
        let mut slab = vec![0; Slab::ROOM_BYTES];
        gateway.handle(self.now, &arrival, &mut bytes, &mut Slab::new(&mut slab, 0), &mut actions);
        assert!(actions.is_empty(), "{actions:?}");
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.transfer.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.transfer.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// Bytes of the heap once the handshakes are forgotten.
    fn weight(&mut self) -> i64 {
        self.pass(Duration::from_secs(6));
        let status = self.transfer.status(self.now);
        assert_eq!(status.handshakes_pending, 0);
        assert_eq!(u32::try_from(status.control_sessions), Ok(self.joined));
        assert_eq!(u32::try_from(status.namespaces[0].members.len()), Ok(self.joined));
        drop(status);
        LIVE.get()
    }
}

fn arrival(from: SocketAddr, segment_bytes: usize) -> Arrival {
    let endpoint = Endpoint { socket: SocketId(0), remote: from, local: Some(Ipv4Addr::new(192, 0, 2, 1).into()) };
    Arrival { origin: Origin::Outside(endpoint), segment_bytes, tos: 0 }
}

#[test]
fn heap_is_weighed() {
    let before = LIVE.get();
    let bytes = vec![1_u8; 1000];
    assert_eq!(LIVE.get() - before, 1000);
    assert!(PEAK.get() >= LIVE.get());
    drop(std::hint::black_box(bytes));
    assert_eq!(LIVE.get(), before);
}

/// Members that say nothing but who they are cost little, and joining leaves nothing behind.
#[test]
fn quiet_session_costs_little() {
    let mut crowd = Crowd::new();
    crowd.join_up_to(FEW);
    let few = crowd.weight();
    PEAK.set(few);
    crowd.join_up_to(MANY);
    let peak = PEAK.get();
    let many = crowd.weight();

    let further = i64::from(MANY - FEW);
    let (each, joining) = ((many - few) / further, (peak - few) / further);
    eprintln!("{each} bytes for each further session, {joining} at the peak while they join");
    assert!(each <= SESSION_BYTES_MAX, "{each} bytes for each further session");
    assert!(joining <= JOINING_BYTES_MAX, "{joining} bytes for each further session while they join");
}
