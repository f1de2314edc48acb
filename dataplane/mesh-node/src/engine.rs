//! The seam between the pump and whatever moves datagrams: one trait, implemented by `uring`, `mmsg` and `portable`.

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::Duration;

use mesh_core::seam::{Arrival, Endpoint, Slab, SocketId};

use crate::inside::InsideDevice;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub mod mmsg;
pub mod portable;
#[cfg(target_os = "linux")]
pub mod uring;

/// Moves trains between sockets, the virtual interface and the pump. Knows nothing of what they carry.
///
/// One turn of the pump:
/// 1. [`wait`](Engine::wait) submits what the turn before queued and hands out a batch of trains. Each is a move-only token; its
///    bytes stay with the engine.
/// 2. For each train the pump borrows its bytes and the slab with [`split`](Engine::split), lets the state machine decide, and
///    queues what it answered with [`forward`](Engine::forward), [`send`](Engine::send), [`deliver`](Engine::deliver) and
///    [`deliver_slab`](Engine::deliver_slab).
/// 3. [`release`](Engine::release) gives the train back. Its bytes stay untouched until the flush has read them.
/// 4. [`flush`](Engine::flush) submits without waiting, where there is to be more than one submission in a turn.
///
/// Queued datagrams to one destination leave in the order they were queued.
///
/// A datagram that cannot be sent (a full socket buffer beyond the bounded wait, an unreachable network) is counted, never an
/// error of the pump.
pub trait Engine: Sized {
    /// Token for one received train: neither `Copy` nor `Clone`. Dropping one without [`Engine::release`] is a bug that
    /// debug builds assert on.
    type Train;

    /// Wakes the engine's thread from another one.
    type Waker: Wake;

    /// Adds a bound UDP socket and starts to receive on it. The engine sets the socket options it needs (GRO, TOS, packet
    /// info when `local_address` is set: the socket is bound to a wildcard address of a host that has several).
    fn add_socket(&mut self, socket: UdpSocket, local_address: bool) -> io::Result<SocketId>;

    /// A copy of a socket, for the engine of another thread to send by; see [`Engine::add_sender`]. The port is taken until both are
    /// closed. `Unsupported` where an engine does not share its sockets.
    fn copy_socket(&self, _socket: SocketId) -> io::Result<UdpSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Adds a copy of a socket that another engine receives on: it is only sent by.
    fn add_sender(&mut self, _copy: UdpSocket) -> io::Result<SocketId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Stops receiving on a socket and closes it. Its number is given to no other socket before the next flush.
    fn remove_socket(&mut self, socket: SocketId) -> io::Result<()>;

    /// Adds the virtual interface and starts to read from it; at most one.
    fn add_inside(&mut self, device: InsideDevice) -> io::Result<()>;

    /// Adds the virtual interface only to write to it: another engine reads. `Unsupported` where an engine does not share it.
    fn add_inside_writer(&mut self, _device: InsideDevice) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A handle to end a [`wait`](Engine::wait) from another thread.
    fn waker(&self) -> Self::Waker;

    /// Submits what is queued, as [`flush`](Engine::flush) does, waits for trains, at most `timeout` (`None`: without end), and appends
    /// them to `batch`. May return with none: time passed, the waker was used, or something else was worth a look at the clock.
    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Self::Train>) -> io::Result<()>;

    /// What is known of a train beside its bytes.
    fn arrival(&self, train: &Self::Train) -> Arrival;

    /// The bytes of a train, and the slab with at least [`Slab::ROOM_BYTES`] free.
    fn split<'a>(&'a mut self, train: &'a mut Self::Train) -> (&'a mut [u8], Slab<'a>);

    /// The slab alone, for what is composed without a train at hand.
    fn slab(&mut self) -> Slab<'_>;

    /// Keeps the slab taken up to `used` until the next flush.
    fn keep_slab(&mut self, used: usize);

    /// Queues a range of a train to be sent as it is.
    fn forward(&mut self, train: &Self::Train, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8);

    /// Queues a range of the slab to be sent.
    fn send(&mut self, slab: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8);

    /// Queues a range of a train as one packet for the virtual interface.
    fn deliver(&mut self, train: &Self::Train, bytes: Range<usize>);

    /// Goes on with the packet of the [`deliver`](Engine::deliver) before by another range of the same train.
    fn deliver_more(&mut self, train: &Self::Train, bytes: Range<usize>);

    /// Queues a range of the slab as one packet for the virtual interface.
    fn deliver_slab(&mut self, slab: Range<usize>);

    /// Gives a train back.
    fn release(&mut self, train: Self::Train);

    /// Submits everything queued without waiting, frees released trains and the slab. The next wait does it too.
    fn flush(&mut self) -> io::Result<()>;

    /// What the engine counted since it was made.
    fn counters(&self) -> EngineCounters;

    /// Its name, as in `--engine`.
    fn name(&self) -> &'static str;

    /// The offloads that at least one of its sockets uses: [`UDP_GSO`], [`UDP_GRO`]. What the kernel refused, or took back
    /// when a send failed, is not among them.
    fn offloads(&self) -> Vec<&'static str>;
}

/// Several datagrams leave in one send: `UDP_SEGMENT`, on Windows USO.
pub const UDP_GSO: &str = "udp-gso";

/// Several datagrams arrive in one receive: `UDP_GRO`, on Windows URO.
pub const UDP_GRO: &str = "udp-gro";

/// The names of what an engine answers by two yes or no.
fn udp_offloads((gso, gro): (bool, bool)) -> Vec<&'static str> {
    [gso.then_some(UDP_GSO), gro.then_some(UDP_GRO)].into_iter().flatten().collect()
}

/// See [`Engine::waker`].
pub trait Wake: Clone + Send + Sync + 'static {
    /// Ends the wait at hand, or the next one.
    fn wake(&self);
}

/// Classes of the histograms in [`EngineCounters`].
pub const LENGTH_CLASSES: usize = 8;

/// Counts since the engine was made; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct EngineCounters {
    /// Trains received.
    pub trains_in: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Bytes received, payload of UDP.
    pub bytes_in: u64,
    /// Send operations (one may carry a whole train).
    pub sends: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Bytes sent, payload of UDP.
    pub bytes_out: u64,
    /// Packets read from the virtual interface.
    pub inside_in: u64,
    /// Packets written to the virtual interface.
    pub inside_out: u64,
    /// Datagrams dropped by the kernel: the receive buffers of the sockets were full. Zero where it does not tell.
    pub drops_receive_full: u64,
    /// Datagrams dropped: the socket's send buffer stayed full.
    pub drops_send_full: u64,
    /// Datagrams dropped: the kernel refused them (unreachable, too long).
    pub drops_send_failed: u64,
    /// Packets dropped: the virtual interface took no more.
    pub drops_inside_full: u64,
    /// Trains cut by the kernel because a buffer was too short, or oversize datagrams.
    pub drops_truncated: u64,
    /// Times the kernel found no receive buffer.
    pub starved: u64,
    /// Sends that met a full socket buffer and waited for room.
    pub held: u64,
    /// Sends of several datagrams that the kernel would not cut, and that went out one by one.
    pub resent_singly: u64,
    /// System calls that moved datagrams or waited for them; zero where they are not counted.
    pub system_calls: u64,
    /// Most receive buffers that were in use in one turn.
    pub buffers_in_flight_max: u64,
    /// Trains received by their datagrams: 1, 2 to 3, 4 to 7, and so on; the last class has no end.
    pub lengths_in: [u64; LENGTH_CLASSES],
    /// Sends by their datagrams, in the same classes.
    pub lengths_out: [u64; LENGTH_CLASSES],
    /// Turns of the engine by the trains they handed out, in the same classes.
    pub batches: [u64; LENGTH_CLASSES],
}
