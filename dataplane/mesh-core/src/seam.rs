//! The vocabulary between an engine, the pump and a state machine.
//!
//! The unit is a **train**: one receive buffer that holds datagrams of one sender back to back, each `segment_bytes` long,
//! the last one possibly shorter. An engine hands trains up, the state machine answers with [`Action`]s that name byte ranges
//! of that same buffer (or of the *slab*, the engine's scratch memory for bytes the state machine wrote itself), and the engine
//! carries them out. No bytes change hands and nothing here is allocated for each packet.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

/// A point on the machine's boot clock (`CLOCK_BOOTTIME`: it runs on in suspend, and no one can set it), in nanoseconds.
///
/// State machines never read a clock: each call is told the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero when `earlier` lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// One of the engine's UDP sockets, in the order they were added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u16);

/// Where a datagram comes from or goes to: which socket, which remote address, and which local address was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The socket it arrived on or leaves by.
    pub socket: SocketId,
    /// The other side. IPv4 is always `SocketAddr::V4`, never mapped into IPv6.
    pub remote: SocketAddr,
    /// The local address that was asked, where the socket reports it; answers leave from there.
    pub local: Option<IpAddr>,
}

/// Where a train came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the network.
    Outside(Endpoint),
    /// From the virtual interface: inner IP packets.
    Inside,
}

/// What an engine knows of a train beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where it came from.
    pub origin: Origin,
    /// Stride of the datagrams in the buffer, in bytes; the last may be shorter. At least 1 and at most the length of the
    /// buffer (a zero-length datagram is reported as an empty buffer with stride 1). Inside: the length of the one packet, in front
    /// of which an interface with offloads puts its virtio-net header.
    pub segment_bytes: usize,
    /// The TOS byte (DSCP and ECN) of the outer header, zero where unknown. It travels with what is forwarded.
    pub tos: u8,
}

/// Bytes of the virtio-net header (virtio 1.2, section 5.1.6, without `num_buffers`) that an interface with offloads puts in front of
/// each packet it gives, and expects in front of each it takes. Its numbers are little-endian.
pub const VIRTIO_BYTES: usize = 10;

/// What the virtual interface does by itself for packets it takes, and leaves undone in those it gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offloads {
    /// Each packet has a virtio-net header in front, and checksums of TCP and UDP may cover the pseudo header only.
    pub checksum: bool,
    /// TCP segments of one flow may be one packet, over IPv4 and IPv6. Implies `checksum`.
    pub tcp: bool,
    /// UDP datagrams of one flow may be one packet, over IPv4 and IPv6. Implies `checksum`.
    pub udp: bool,
}

impl Offloads {
    /// None: packets are plain.
    pub const NONE: Self = Self { checksum: false, tcp: false, udp: false };

    /// Bytes in front of each packet.
    pub const fn header_bytes(self) -> usize {
        if self.checksum { VIRTIO_BYTES } else { 0 }
    }
}

/// What is to be done with a range of the train at hand, or of the slab. In the order given, for each destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send `bytes` of the train as they are, cut every `segment_bytes`.
    Forward {
        /// Range within the train.
        bytes: Range<usize>,
        /// Length of each datagram but the last.
        segment_bytes: usize,
        /// Destination.
        to: Endpoint,
        /// TOS byte of the outer header.
        tos: u8,
    },
    /// Send `slab`, bytes that the state machine wrote, cut every `segment_bytes`.
    Send {
        /// Range within the slab.
        slab: Range<usize>,
        /// Length of each datagram but the last.
        segment_bytes: usize,
        /// Destination.
        to: Endpoint,
        /// TOS byte of the outer header.
        tos: u8,
    },
    /// Write one inner packet, a range of the train, to the virtual interface; where that has offloads, its virtio-net header
    /// comes first.
    Deliver {
        /// Range within the train.
        bytes: Range<usize>,
    },
    /// Go on with the packet of the [`Action::Deliver`] before: what was gathered into one packet need not lie in one piece. At most
    /// [`Action::MORE_MAX`] of them follow one.
    DeliverMore {
        /// Range within the train.
        bytes: Range<usize>,
    },
    /// Write one inner packet, a range of the slab, to the virtual interface; where that has offloads, its virtio-net header
    /// comes first.
    DeliverSlab {
        /// Range within the slab.
        slab: Range<usize>,
    },
}

impl Action {
    /// Pieces that may follow the first one of a packet for the virtual interface: as many datagrams as a train has, but one.
    pub const MORE_MAX: usize = 63;
}

/// Scratch memory of the engine for one turn of the pump: a state machine appends the bytes it composes.
///
/// What is appended stays where it is until the engine has sent it. An engine offers at least [`Slab::ROOM_BYTES`] at each call.
#[derive(Debug)]
pub struct Slab<'a> {
    memory: &'a mut [u8],
    used: usize,
}

impl<'a> Slab<'a> {
    /// Room that an engine guarantees at each call: one full train and its cut-off neighbours.
    pub const ROOM_BYTES: usize = 128 * 1024;

    /// Offers `memory`, of which `used` bytes are taken.
    pub fn new(memory: &'a mut [u8], used: usize) -> Self {
        debug_assert!(used <= memory.len(), "more of the slab is taken than there is");
        Self { memory, used }
    }

    /// Bytes taken so far; the position where [`Slab::free`] starts.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The bytes not yet taken.
    pub fn free(&mut self) -> &mut [u8] {
        &mut self.memory[self.used..]
    }

    /// Takes the first `bytes` of [`Slab::free`] and says where they lie.
    pub fn take(&mut self, bytes: usize) -> Range<usize> {
        let start = self.used;
        self.used += bytes;
        assert!(self.used <= self.memory.len(), "the slab has no {bytes} bytes left");
        start..self.used
    }

    /// Copies `bytes` in, or `None` when there is no room left.
    pub fn append(&mut self, bytes: &[u8]) -> Option<Range<usize>> {
        self.free().get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(self.take(bytes.len()))
    }

    /// Bytes written so far in this turn.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.memory[range]
    }
}
