//! The token of a received train, and the words that say where one comes from and goes to.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
#[cfg(debug_assertions)]
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::gather::Memory;

/// A receive buffer that is not the kernel's. Neither `Copy` nor `Clone`: an engine's pool mints it when the kernel has filled the
/// buffer, and takes it back.
#[derive(Debug)]
pub struct BufferId(u16);

impl BufferId {
    /// The token of the buffer with this number: for pools only, one token for a buffer at a time.
    pub fn mint(index: u16) -> Self {
        Self(index)
    }

    /// The number of the buffer within its pool.
    pub fn index(&self) -> u16 {
        self.0
    }
}

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
/// It holds no bytes and no pointer; the engine lends the bytes (`Engine::split`). It must go back by `Engine::release`: dropping it
/// costs the engine a buffer, and debug builds assert on that unless the engine is gone or the thread panics.
#[derive(Debug)]
#[must_use = "a train goes back by Engine::release"]
pub struct Train {
    owner: u64,
    buffer: BufferId,
    offset: u32,
    length: u32,
    segment_bytes: u32,
    origin: Origin,
    tos: u8,
    #[cfg(debug_assertions)]
    leash: Leash,
}

impl Train {
    /// The token of what lies in `buffer` at `bytes`, cut every `segment_bytes`.
    pub fn new(
        owner: &Owner,
        buffer: BufferId,
        bytes: Range<usize>,
        segment_bytes: usize,
        origin: Origin,
        tos: u8,
    ) -> Self {
        Self {
            owner: owner.number,
            buffer,
            offset: bytes.start as u32,
            length: bytes.len() as u32,
            segment_bytes: segment_bytes as u32,
            origin,
            tos,
            #[cfg(debug_assertions)]
            leash: Leash { owner: Rc::downgrade(&owner.alive), released: false },
        }
    }

    /// Where a range of the train lies within its buffer.
    ///
    /// # Panics
    /// On a train of another engine, or a range beyond the train.
    pub fn place(&self, owner: &Owner, bytes: &Range<usize>) -> Range<usize> {
        self.check(owner);
        assert!(bytes.start <= bytes.end && bytes.end <= self.length as usize, "a range beyond its train");
        let offset = self.offset as usize;
        offset + bytes.start..offset + bytes.end
    }

    /// The buffer, borrowed.
    pub fn buffer(&mut self) -> &mut BufferId {
        &mut self.buffer
    }

    /// The memory it lies in.
    pub fn memory(&self) -> Memory {
        match self.origin {
            Origin::Outside(_) => Memory::Outside(self.buffer.index()),
            Origin::Inside => Memory::Inside(self.buffer.index()),
        }
    }

    /// Ends the train.
    ///
    /// # Panics
    /// On a train of another engine.
    pub fn take(self, owner: &Owner) -> BufferId {
        self.check(owner);
        #[cfg(debug_assertions)]
        let Self { buffer, mut leash, .. } = self;
        #[cfg(debug_assertions)]
        {
            leash.released = true;
        }
        #[cfg(not(debug_assertions))]
        let Self { buffer, .. } = self;
        buffer
    }

    fn check(&self, owner: &Owner) {
        assert!(self.owner == owner.number, "a train of another engine");
    }

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

/// Who a train belongs to: each engine has one. No engine takes another's train, and with it debug builds know when none is left to
/// take a train back.
#[derive(Debug)]
pub struct Owner {
    number: u64,
    #[cfg(debug_assertions)]
    alive: Rc<()>,
}

static OWNERS: AtomicU64 = AtomicU64::new(0);

impl Owner {
    /// One that is like no other in this process.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self {
            number: OWNERS.fetch_add(1, Ordering::Relaxed),
            #[cfg(debug_assertions)]
            alive: Rc::new(()),
        }
    }
}

/// Asserts that a train is released, in debug builds.
#[cfg(debug_assertions)]
#[derive(Debug)]
struct Leash {
    /// Dead when the engine is: then nobody is left to take the train back.
    owner: Weak<()>,
    released: bool,
}

#[cfg(debug_assertions)]
impl Drop for Leash {
    fn drop(&mut self) {
        assert!(
            self.released || self.owner.strong_count() == 0 || std::thread::panicking(),
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
