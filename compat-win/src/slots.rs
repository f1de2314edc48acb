//! The memory of the engine: receive slots, the tokens that name them, and scratch memory.

use std::ops::Range;

use crate::Endpoint;

/// Bytes of one receive slot: the longest train that any kernel hands over, and so any single datagram.
pub(crate) const SLOT_BYTES: usize = 64 * 1024;

/// Scratch memory that the engine starts with. It grows when a turn composes more, and keeps that size.
const SCRATCH_BYTES: usize = 256 * 1024;

/// Where a train came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a UDP socket.
    Outside(Endpoint),
    /// From the virtual interface.
    Inside,
}

/// One received train: a move-only token. Its bytes are lent by [`Engine::split`](crate::Engine::split) and it goes back with
/// [`Engine::release`](crate::Engine::release); debug builds assert that it did.
#[derive(Debug)]
pub struct Train {
    slot: u32,
    bytes: usize,
    segment_bytes: usize,
    origin: Origin,
    tos: u8,
    released: bool,
}

impl Train {
    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Stride of the datagrams in bytes, at least 1 and at most the length of the train, except that an empty train has 1.
    pub fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// TOS byte of the outer header, as far as the system reports it (the two ECN bits).
    pub fn tos(&self) -> u8 {
        self.tos
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }
}

impl Drop for Train {
    fn drop(&mut self) {
        debug_assert!(self.released || std::thread::panicking(), "a train was dropped without Engine::release");
    }
}

/// Scratch memory for what the caller composes: `used` bytes of `memory` are taken.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// All of it.
    pub memory: &'a mut [u8],
    /// Bytes taken in this turn.
    pub used: usize,
}

/// A bounded pool of receive slots and the scratch memory. Slots are made when first needed and never freed.
#[derive(Debug)]
pub(crate) struct Slots {
    /// A slot is an empty box while it is lent to a receive call.
    all: Vec<Box<[u8]>>,
    free: Vec<u32>,
    /// Released in this turn: free again once the queue has been sent.
    released: Vec<u32>,
    slots_max: usize,
    scratch: Vec<u8>,
    scratch_used: usize,
}

/// Where queued bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Slot(u32),
    Scratch,
}

impl Slots {
    pub(crate) fn new(slots_max: usize) -> Self {
        Self {
            all: Vec::with_capacity(slots_max),
            free: Vec::with_capacity(slots_max),
            released: Vec::with_capacity(slots_max),
            slots_max,
            scratch: vec![0; SCRATCH_BYTES],
            scratch_used: 0,
        }
    }

    /// Slots that could be taken at once.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.slots_max - self.all.len()
    }

    /// Takes a slot out of the pool: the one used last, whose pages are warm.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.all.len() == self.slots_max {
            return None;
        }
        let slot = u32::try_from(self.all.len()).expect("the pool is smaller than 2^32 slots");
        self.all.push(vec![0; SLOT_BYTES].into_boxed_slice());
        Some(slot)
    }

    /// Puts a slot back that was taken and is named by nothing.
    pub(crate) fn put_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// The memory of a taken slot, to be returned by [`Slots::restore`].
    pub(crate) fn lend(&mut self, slot: u32) -> Box<[u8]> {
        std::mem::take(&mut self.all[slot as usize])
    }

    pub(crate) fn restore(&mut self, slot: u32, memory: Box<[u8]>) {
        self.all[slot as usize] = memory;
    }

    /// Turns a taken slot into a train.
    pub(crate) fn train(slot: u32, bytes: usize, segment_bytes: usize, origin: Origin, tos: u8) -> Train {
        let segment_bytes = segment_bytes.clamp(1, bytes.max(1));
        Train { slot, bytes, segment_bytes, origin, tos, released: false }
    }

    pub(crate) fn release(&mut self, mut train: Train) {
        train.released = true;
        self.released.push(train.slot);
    }

    /// The queue was sent: what was released is free, and so is the scratch memory.
    pub(crate) fn recycle(&mut self) {
        self.free.append(&mut self.released);
        self.scratch_used = 0;
    }

    pub(crate) fn slot_mut(&mut self, slot: u32) -> &mut [u8] {
        &mut self.all[slot as usize]
    }

    pub(crate) fn bytes(&self, memory: Memory, range: Range<usize>) -> &[u8] {
        match memory {
            Memory::Slot(slot) => &self.all[slot as usize][range],
            Memory::Scratch => &self.scratch[range],
        }
    }

    /// The bytes of a train, and scratch memory with at least `room_bytes` free.
    pub(crate) fn split(&mut self, train: &Train, room_bytes: usize) -> (&mut [u8], Scratch<'_>) {
        self.grow(room_bytes);
        let bytes = &mut self.all[train.slot as usize][..train.bytes];
        (bytes, Scratch { memory: &mut self.scratch, used: self.scratch_used })
    }

    pub(crate) fn scratch(&mut self, room_bytes: usize) -> Scratch<'_> {
        self.grow(room_bytes);
        Scratch { memory: &mut self.scratch, used: self.scratch_used }
    }

    pub(crate) fn keep(&mut self, used: usize) {
        debug_assert!(self.scratch_used <= used && used <= self.scratch.len(), "scratch memory is taken in order");
        self.scratch_used = used;
    }

    /// Ranges are indices, so the memory may move between two calls. What one turn takes is bounded by the trains it hands
    /// out, and so is this.
    fn grow(&mut self, room_bytes: usize) {
        let needed = self.scratch_used + room_bytes;
        if self.scratch.len() < needed {
            self.scratch.resize(needed.next_power_of_two(), 0);
        }
    }
}
