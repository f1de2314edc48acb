//! What the tests share: an engine with its batch, peers, and a limit on patience.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use mesh_core::seam::{Arrival, Endpoint, Origin, SocketId};
use mesh_node::engine::{Engine, EngineCounters};

/// An engine that the list can be run against.
pub(crate) trait Conforms: Engine {
    /// The module of its tests in this program.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only tests for Linux ask"))]
    const NAME: &'static str;
    /// Whether it carries the whole TOS byte, or the two ECN bits only.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only tests for Linux ask"))]
    const WHOLE_TOS: bool;

    /// A new one.
    fn made() -> Self;
}

/// One wait of a test that expects something to come.
pub(crate) const SOON: Duration = Duration::from_millis(200);

/// After this, what was expected does not come any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// Panics when patience ends.
pub(crate) struct Patience {
    what: &'static str,
    end: Instant,
}

impl Patience {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, end: Instant::now() + PATIENCE }
    }

    pub(crate) fn check(&self, counters: EngineCounters) {
        assert!(Instant::now() < self.end, "waited in vain for {}; {counters:?}", self.what);
    }
}

/// An engine and its batch.
pub(crate) struct Rig<E: Engine> {
    pub(crate) engine: E,
    batch: Vec<E::Train>,
}

impl<E: Conforms> Rig<E> {
    pub(crate) fn new() -> Self {
        Self { engine: E::made(), batch: Vec::with_capacity(4096) }
    }

    /// A rig with one socket on 127.0.0.1.
    pub(crate) fn with_socket() -> (Self, SocketId, SocketAddr) {
        let mut rig = Self::new();
        let (socket, address) = rig.bind("127.0.0.1:0");
        (rig, socket, address)
    }

    /// Adds a socket.
    pub(crate) fn bind(&mut self, address: &str) -> (SocketId, SocketAddr) {
        let socket = UdpSocket::bind(address).expect("bind on this host");
        let address = socket.local_addr().expect("a bound socket");
        (self.engine.add_socket(socket, false).expect("add a socket"), address)
    }

    /// One turn whose sends leave at its end; the number of trains.
    pub(crate) fn turn(&mut self, timeout: Duration, each: impl FnMut(&mut E, &mut E::Train, Arrival)) -> usize {
        let trains = self.open_turn(timeout, each);
        self.engine.flush().expect("flush");
        trains
    }

    /// One turn of the pump: what it queues is submitted by the wait of the next one.
    pub(crate) fn open_turn(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(&mut E, &mut E::Train, Arrival),
    ) -> usize {
        self.engine.wait(Some(timeout), &mut self.batch).expect("wait");
        let trains = self.batch.len();
        for mut train in self.batch.drain(..) {
            let arrival = self.engine.arrival(&train);
            each(&mut self.engine, &mut train, arrival);
            self.engine.release(train);
        }
        trains
    }

    /// Turns until `datagrams` datagrams have been echoed.
    pub(crate) fn echo(&mut self, datagrams: usize) {
        let patience = Patience::new("datagrams to echo");
        let mut echoed = 0;
        while echoed < datagrams {
            patience.check(self.engine.counters());
            self.open_turn(SOON, |engine, train, arrival| echoed += echo(engine, train, arrival));
        }
        self.engine.flush().expect("flush");
        assert_eq!(echoed, datagrams);
    }

    /// Turns until the datagram `expected` arrived; answers nothing.
    pub(crate) fn expect(&mut self, expected: &[u8]) -> Arrival {
        let patience = Patience::new("one datagram");
        loop {
            patience.check(self.engine.counters());
            let mut found = None;
            self.turn(SOON, |engine, train, arrival| {
                let (bytes, _) = engine.split(train);
                if bytes == expected {
                    found = Some(arrival);
                }
            });
            if let Some(arrival) = found {
                return arrival;
            }
        }
    }
}

/// Sends a train back where it came from, whole; the number of its datagrams.
pub(crate) fn echo<E: Engine>(engine: &mut E, train: &mut E::Train, arrival: Arrival) -> usize {
    let from = outside(arrival);
    let bytes = engine.split(train).0.len();
    engine.forward(train, 0..bytes, arrival.segment_bytes, &from, arrival.tos);
    bytes.div_ceil(arrival.segment_bytes).max(1)
}

/// The endpoint a train came from.
pub(crate) fn outside(arrival: Arrival) -> Endpoint {
    match arrival.origin {
        Origin::Outside(endpoint) => endpoint,
        Origin::Inside => panic!("a train from an interface that the engine does not have"),
    }
}

/// The endpoint of `peer`, seen from `socket`.
pub(crate) fn endpoint(socket: SocketId, peer: &UdpSocket) -> Endpoint {
    Endpoint { socket, remote: peer.local_addr().expect("a bound socket"), local: None }
}

/// A plain socket on 127.0.0.1 with a large receive buffer, that gives up after a while.
pub(crate) fn peer() -> UdpSocket {
    peer_at("127.0.0.1:0")
}

pub(crate) fn peer_at(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("bind on this host");
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).expect("a receive buffer");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// The next datagram.
pub(crate) fn receive(peer: &UdpSocket) -> Vec<u8> {
    receive_from(peer).0
}

/// The next datagram, and where it came from.
pub(crate) fn receive_from(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (bytes, from) = peer.recv_from(&mut buffer).expect("a datagram that was sent arrives");
    buffer.truncate(bytes);
    (buffer, from)
}

/// `bytes` bytes that depend on `seed` in every place.
pub(crate) fn pattern(seed: usize, bytes: usize) -> Vec<u8> {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Sends `train`, cut every `segment_bytes`, in one operation.
#[cfg(target_os = "linux")]
pub(crate) fn send_train(peer: &UdpSocket, to: SocketAddr, train: &[u8], segment_bytes: usize) {
    use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
    use std::os::fd::AsRawFd;

    let segment = u16::try_from(segment_bytes).expect("a segment fits into a datagram");
    let sent = sendmsg(
        peer.as_raw_fd(),
        &[std::io::IoSlice::new(train)],
        &[ControlMessage::UdpGsoSegments(&segment)],
        MsgFlags::empty(),
        Some(&SockaddrStorage::from(to)),
    );
    assert_eq!(sent.expect("send a train"), train.len());
}

/// Sends `train`, cut every `segment_bytes`, one by one: systems without segmented sends.
#[cfg(not(target_os = "linux"))]
pub(crate) fn send_train(peer: &UdpSocket, to: SocketAddr, train: &[u8], segment_bytes: usize) {
    for datagram in train.chunks(segment_bytes) {
        peer.send_to(datagram, to).expect("send a datagram");
    }
}
