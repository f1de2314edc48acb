//! The token of a received train, and the words that say where one comes from and goes to.

use std::net::{IpAddr, SocketAddr};
#[cfg(debug_assertions)]
use std::rc::Weak;

use crate::buffers::BufferId;

/// One of the engine's sockets, in the order they were added; the numbers of removed ones are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u16);

/// Where a datagram comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The socket it arrived on or leaves by.
    pub socket: SocketId,
    /// The other side. IPv4 is always `SocketAddr::V4`, whatever the family of the socket.
    pub remote: SocketAddr,
    /// The local address that was asked, where the socket reports it; what is sent with it leaves from there.
    pub local: Option<IpAddr>,
}

/// Where a train came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the network.
    Outside(Endpoint),
    /// From the virtual interface: one IP packet.
    Inside,
}

/// The token of one received train: a buffer full of datagrams of one sender, back to back.
///
/// It holds no bytes and no pointer; [`Engine::split`](crate::Engine::split) lends the bytes. It must go back by
/// [`Engine::release`](crate::Engine::release): dropping it costs the engine a buffer, and debug builds assert on that unless
/// the engine is gone or the thread panics.
#[derive(Debug)]
#[must_use = "a train goes back by Engine::release"]
pub struct Train {
    pub(crate) engine: u64,
    pub(crate) buffer: BufferId,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) segment_bytes: u32,
    pub(crate) origin: Origin,
    pub(crate) tos: u8,
    #[cfg(debug_assertions)]
    pub(crate) leash: Leash,
}

impl Train {
    /// Bytes in the train; zero for an empty datagram.
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether it is one datagram without a payload.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Stride of the datagrams in bytes; the last may be shorter. From 1 to the length of the train (1 for an empty one).
    pub fn segment_bytes(&self) -> usize {
        self.segment_bytes as usize
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The TOS byte (DSCP and ECN) of the outer header; zero for what came from the interface.
    pub fn tos(&self) -> u8 {
        self.tos
    }
}

/// Asserts that a train is released, in debug builds.
#[cfg(debug_assertions)]
#[derive(Debug)]
pub(crate) struct Leash {
    /// Dead when the engine is: then nobody is left to take the train back.
    pub(crate) engine: Weak<()>,
    pub(crate) released: bool,
}

#[cfg(debug_assertions)]
impl Drop for Leash {
    fn drop(&mut self) {
        assert!(
            self.released || self.engine.strong_count() == 0 || std::thread::panicking(),
            "a train was dropped without Engine::release"
        );
    }
}

/// Scratch memory for bytes the caller composes: what lies before `used` is taken since the last flush.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// All of it.
    pub memory: &'a mut [u8],
    /// Bytes taken; the caller writes behind them.
    pub used: usize,
}
