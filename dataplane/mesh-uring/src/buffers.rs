#![expect(unsafe_code, reason = "memory that the kernel reads and writes by address")]
//! The pool of receive buffers with its provided-buffer ring.

use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use mesh_udp::BufferId;
use mesh_udp::area::Area;

/// Address space of one receive buffer, in bytes: the longest train (65,535) behind the heading of a receive, in whole pages.
/// Shorter ones would lose most of a train without an error.
pub(crate) const BUFFER_BYTES: usize = 65_536 + 4096;
const _: () = assert!(BUFFER_BYTES >= 65_535 + crate::heading::HEADING_BYTES);

/// Receive buffers of one kind and the ring that provides them to the kernel.
#[derive(Debug)]
pub(crate) struct Pool {
    /// `struct io_uring_buf_ring`: as many entries as the pool can have buffers; the tail lies in the first one.
    ring: Area,
    memory: Area,
    buffers_max: u16,
    /// Buffers in use so far; the memory of those behind is untouched.
    buffers: u16,
    /// Whether a buffer is the kernel's.
    provided: Box<[bool]>,
    /// How many are.
    available: u16,
    tail: u16,
}

impl Pool {
    /// A pool of `first` buffers that can grow to `max`. `max` is a power of two, at most 32,768.
    pub(crate) fn new(first: u16, max: u16) -> std::io::Result<Self> {
        let buffers_max = max.clamp(1, 32_768).next_power_of_two();
        let entries = usize::from(buffers_max);
        let mut pool = Self {
            ring: Area::new(entries * size_of::<BufRingEntry>())?,
            memory: Area::new(entries * BUFFER_BYTES)?,
            buffers_max,
            buffers: 0,
            provided: vec![false; entries].into_boxed_slice(),
            available: 0,
            tail: 0,
        };
        pool.add(first.clamp(1, buffers_max));
        pool.publish();
        Ok(pool)
    }

    /// Address and entries of the ring, to register it.
    pub(crate) fn ring(&self) -> (*mut u8, u16) {
        (self.ring.address(&(0..0)), self.buffers_max)
    }

    /// Buffers that the kernel can fill.
    pub(crate) fn available(&self) -> u16 {
        self.available
    }

    /// Buffers there are, wherever they are.
    pub(crate) fn buffers(&self) -> u16 {
        self.buffers
    }

    /// Doubles the number of buffers up to the bound. Says whether there are more than before.
    pub(crate) fn grow(&mut self) -> bool {
        let more = self.buffers.min(self.buffers_max - self.buffers);
        self.add(more);
        self.publish();
        more > 0
    }

    fn add(&mut self, more: u16) {
        for index in self.buffers..self.buffers + more {
            self.put(index);
        }
        self.buffers += more;
    }

    /// Gives a buffer to the kernel, at the next [`Pool::publish`].
    pub(crate) fn give(&mut self, buffer: BufferId) {
        self.put(buffer.index());
    }

    fn put(&mut self, index: u16) {
        let start = usize::from(index) * BUFFER_BYTES;
        let address = self.memory.address(&(start..start + BUFFER_BYTES));
        let place = usize::from(self.tail & (self.buffers_max - 1)) * size_of::<BufRingEntry>();
        let entry: *mut BufRingEntry = self.ring.address(&(place..place + size_of::<BufRingEntry>())).cast();
        // SAFETY: `entry` is an entry of the ring, within its area and aligned (16 bytes in a page-aligned mapping), and any bytes
        // are a valid one. It is ours to write: the kernel reads entries before the published tail only, and of those at most
        // `buffers` are unread, so that place is behind them. The setters leave alone the bytes of the tail in the first entry.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address.addr() as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        self.available += 1;
        let was = std::mem::replace(&mut self.provided[usize::from(index)], true);
        assert!(!was, "a buffer given to the kernel twice");
    }

    /// Shows the kernel what was given to it.
    pub(crate) fn publish(&mut self) {
        let ring: *const BufRingEntry = self.ring.address(&(0..size_of::<BufRingEntry>())).cast();
        // SAFETY: `ring` is the first entry of the ring; the function only computes the address of a field within.
        let tail = unsafe { BufRingEntry::tail(ring) };
        // SAFETY: the field is two bytes of our mapping, aligned, and accessed by the kernel and by this line only, atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Mints the token of the buffer that a completion names.
    pub(crate) fn take(&mut self, index: u16) -> BufferId {
        let provided = self.provided.get_mut(usize::from(index)).expect("the kernel names a buffer of the pool");
        assert!(std::mem::replace(provided, false), "the kernel names a buffer that it was given");
        self.available -= 1;
        BufferId::mint(index)
    }

    /// Bytes of a buffer, at a range within it.
    pub(crate) fn bytes(&self, buffer: &BufferId, range: Range<usize>) -> &[u8] {
        self.memory.bytes(Self::place(buffer.index(), range))
    }

    /// The same, to be written.
    pub(crate) fn bytes_mut(&mut self, buffer: &mut BufferId, range: Range<usize>) -> &mut [u8] {
        self.memory.bytes_mut(Self::place(buffer.index(), range))
    }

    /// Bytes of a buffer that was queued: one that a train holds, or was released and not yet given to the kernel.
    pub(crate) fn queued_bytes(&self, index: u16, range: Range<usize>) -> &[u8] {
        assert!(!self.provided[usize::from(index)], "a queued buffer is not the kernel's");
        self.memory.bytes(Self::place(index, range))
    }

    /// Leaves the mappings in place for good.
    pub(crate) fn leak(&mut self) {
        self.ring.leak();
        self.memory.leak();
    }

    /// The address of a range of a buffer.
    pub(crate) fn address(&self, index: u16, range: Range<usize>) -> *mut u8 {
        self.memory.address(&Self::place(index, range))
    }

    fn place(index: u16, range: Range<usize>) -> Range<usize> {
        assert!(range.end <= BUFFER_BYTES, "a range beyond its buffer");
        let start = usize::from(index) * BUFFER_BYTES;
        start + range.start..start + range.end
    }
}

#[cfg(test)]
mod tests {
    use super::{BUFFER_BYTES, Pool};

    #[test]
    fn a_pool_doubles_to_its_bound_and_hands_each_buffer_out_once() {
        let mut pool = Pool::new(2, 8).unwrap();
        assert_eq!((pool.available(), pool.buffers()), (2, 2));
        assert!(pool.grow() && pool.grow());
        assert!(!pool.grow());
        assert_eq!((pool.available(), pool.buffers()), (8, 8));
        let mut buffer = pool.take(7);
        pool.bytes_mut(&mut buffer, BUFFER_BYTES - 1..BUFFER_BYTES)[0] = 1;
        assert_eq!(pool.bytes(&buffer, BUFFER_BYTES - 2..BUFFER_BYTES), [0, 1]);
        pool.give(buffer);
        assert_eq!(pool.available(), 8);
    }

    #[test]
    #[should_panic(expected = "that it was given")]
    fn a_buffer_taken_twice_is_noticed() {
        let mut pool = Pool::new(2, 2).unwrap();
        let _first = pool.take(1);
        let _second = pool.take(1);
    }
}
