//! Receive buffers: the one used last is the first to be used again.

use std::io;
use std::ops::Range;

use mesh_udp::area::Area;
use mesh_udp::{BufferId, Technique, Without};

/// Address space of one slot, in bytes: the longest train (65,535) in whole pages, and a cache line more, so that the first bytes of
/// the slots do not share one set of the cache.
pub(crate) const SLOT_BYTES: usize = 65_536 + 64;

/// The slots.
#[derive(Debug)]
pub(crate) struct Slots {
    memory: Area,
    /// The last one is the next to be taken.
    free: Vec<u16>,
    /// Whether a slot is free, or stands behind a header.
    idle: Box<[bool]>,
    without: Without,
}

impl Slots {
    /// `count` slots, all free.
    pub(crate) fn new(count: u16, without: Without) -> io::Result<Self> {
        Ok(Self {
            memory: Area::new(usize::from(count) * SLOT_BYTES)?,
            free: (0..count).rev().collect(),
            idle: vec![true; usize::from(count)].into_boxed_slice(),
            without,
        })
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a free slot to stand behind a header.
    pub(crate) fn take(&mut self) -> Option<u16> {
        if self.without.technique(Technique::Lifo) {
            return (!self.free.is_empty()).then(|| self.free.remove(0));
        }
        self.free.pop()
    }

    /// Mints the token of a slot that was filled.
    pub(crate) fn mint(&mut self, slot: u16) -> BufferId {
        assert!(std::mem::replace(&mut self.idle[usize::from(slot)], false), "a slot is filled once");
        BufferId::mint(slot)
    }

    /// Takes a slot back.
    pub(crate) fn give(&mut self, buffer: BufferId) {
        let slot = buffer.index();
        assert!(!std::mem::replace(&mut self.idle[usize::from(slot)], true), "a slot is given back once");
        self.free.push(slot);
    }

    /// The address of a slot.
    pub(crate) fn base(&self, slot: u16) -> *mut u8 {
        self.memory.address(&Self::place(slot, 0..SLOT_BYTES))
    }

    /// The address of a range of a slot.
    pub(crate) fn address(&self, slot: u16, range: Range<usize>) -> *mut u8 {
        self.memory.address(&Self::place(slot, range))
    }

    /// Bytes of a slot that a train holds, or that was released and not yet taken back.
    pub(crate) fn bytes(&self, slot: u16, range: Range<usize>) -> &[u8] {
        assert!(!self.idle[usize::from(slot)], "an idle slot is not to be read");
        self.memory.bytes(Self::place(slot, range))
    }

    /// The same, to be written.
    pub(crate) fn bytes_mut(&mut self, buffer: &mut BufferId, range: Range<usize>) -> &mut [u8] {
        self.memory.bytes_mut(Self::place(buffer.index(), range))
    }

    fn place(slot: u16, range: Range<usize>) -> Range<usize> {
        assert!(range.end <= SLOT_BYTES, "a range beyond its slot");
        let start = usize::from(slot) * SLOT_BYTES;
        start + range.start..start + range.end
    }
}

#[cfg(test)]
mod tests {
    use mesh_udp::Without;

    use super::Slots;

    #[test]
    fn the_slot_given_back_last_is_taken_first() {
        let mut slots = Slots::new(3, Without::default()).unwrap();
        let first = slots.take().unwrap();
        let second = slots.take().unwrap();
        assert_ne!(first, second);
        let token = slots.mint(first);
        assert_eq!(slots.bytes(first, 0..2), [0, 0]);
        slots.give(token);
        assert_eq!(slots.take(), Some(first));
        assert!(slots.take().is_some());
        assert_eq!(slots.take(), None);
    }

    #[test]
    #[should_panic(expected = "filled once")]
    fn a_slot_minted_twice_is_noticed() {
        let mut slots = Slots::new(1, Without::default()).unwrap();
        let slot = slots.take().unwrap();
        let _token = slots.mint(slot);
        let _again = slots.mint(slot);
    }
}
