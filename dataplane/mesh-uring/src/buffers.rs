#![expect(unsafe_code, reason = "memory that the kernel reads and writes by address")]
//! The pool of receive buffers with its provided-buffer ring.
//!
//! The kernel takes buffers out of the ring in turn, so that all that are in it are used in rotation: a deep ring is a large working
//! set. So it is kept as shallow as the trains are long: what is in it fits the cache of a core, and the buffers given back last are
//! the first to be put in again. Short datagrams get a deep ring, to be received in large batches. Where several sockets find the
//! ring empty in one turn it is deepened for good: then it is not one sender that fills it, and each of them would have to be
//! started again.
//!
//! The pool has two such rings. What a flooded socket takes comes out of a ring of its own, which holds what it may have in one turn: so
//! others always find a buffer, however much there is to take.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use mesh_udp::area::Area;
use mesh_udp::{BufferId, Technique, Without, WorkingSet};

/// Address space of one receive buffer, in bytes: the longest train (65,535) behind the heading of a receive. Shorter ones would lose
/// most of a train without an error. No whole number of pages, so that the first bytes of the buffers do not share one set of the
/// cache.
pub(crate) const BUFFER_BYTES: usize = 65_536 + 192;
const _: () = assert!(BUFFER_BYTES >= 65_535 + crate::heading::HEADING_BYTES);

/// Buffers that quiet sockets have at least, beside those of flooded ones.
const BUFFERS_QUIET: u16 = 32;

/// Which ring a receive takes its buffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// That of all receivers to begin with.
    Quiet,
    /// That of flooded sockets.
    Busy,
}

/// Buffers provided to the kernel.
#[derive(Debug)]
struct Provided {
    /// `struct io_uring_buf_ring`: as many entries as the pool can have buffers; the tail lies in the first one.
    ring: Area,
    tail: u16,
    /// How many the kernel has not taken yet.
    available: u16,
}

/// Receive buffers of one kind and the rings that provide them to the kernel.
#[derive(Debug)]
pub(crate) struct Pool {
    /// By lane.
    rings: [Provided; 2],
    memory: Area,
    buffers_max: u16,
    /// Buffers in use so far; the memory of those behind is untouched.
    buffers: u16,
    /// Where a buffer is the kernel's.
    provided: Box<[Option<Lane>]>,
    /// Those that are neither the kernel's nor a train's; the last one is the next to be provided.
    spare: Vec<u16>,
    /// How many are provided, whatever the length of the trains.
    floor: u16,
    trains: WorkingSet,
    /// How many are provided to flooded sockets; none where there is no such socket.
    busy_depth: u16,
    without: Without,
}

impl Pool {
    /// A pool of `first` buffers that can grow to `max`. `max` is a power of two, at most 32,768.
    pub(crate) fn new(first: u16, max: u16, without: Without) -> io::Result<Self> {
        let buffers_max = max.clamp(1, 32_768).next_power_of_two();
        let entries = usize::from(buffers_max);
        let ring = || Area::new(entries * size_of::<BufRingEntry>());
        let provided = |ring| Provided { ring, tail: 0, available: 0 };
        let mut pool = Self {
            rings: [provided(ring()?), provided(ring()?)],
            memory: Area::new(entries * BUFFER_BYTES)?,
            buffers_max,
            buffers: 0,
            provided: vec![None; entries].into_boxed_slice(),
            spare: Vec::with_capacity(entries),
            floor: 0,
            trains: WorkingSet::new(),
            busy_depth: 0,
            without,
        };
        pool.add(first.clamp(1, buffers_max));
        pool.publish();
        Ok(pool)
    }

    /// Address and entries of a ring, to register it.
    pub(crate) fn ring(&self, lane: Lane) -> (*mut u8, u16) {
        (self.rings[lane as usize].ring.address(&(0..0)), self.buffers_max)
    }

    /// Buffers that the kernel can fill.
    pub(crate) fn available(&self, lane: Lane) -> u16 {
        self.rings[lane as usize].available
    }

    /// Buffers there are, wherever they are.
    pub(crate) fn buffers(&self) -> u16 {
        self.buffers
    }

    /// Notes the length of a train: the ring is as deep as trains like it allow.
    pub(crate) fn note(&mut self, bytes: usize) {
        self.trains.note(bytes);
    }

    /// How many buffers are to be provided to quiet sockets.
    pub(crate) fn depth(&self) -> u16 {
        let most = self.quiet_most();
        if self.without.technique(Technique::Shallow) {
            return most;
        }
        self.trains.trains().max(self.floor).min(most)
    }

    /// What can be provided to quiet sockets at most.
    fn quiet_most(&self) -> u16 {
        // What a flood has left in its ring is not there for others.
        self.buffers - (self.busy_depth * 2).max(self.available(Lane::Busy))
    }

    /// Whether it is for the length of the trains that not all buffers are provided.
    pub(crate) fn is_shallow(&self) -> bool {
        self.depth() < self.quiet_most()
    }

    /// Provides twice as many buffers from now on, up to the bound.
    pub(crate) fn deepen(&mut self) {
        self.floor = self.floor.max(self.depth().saturating_mul(2)).min(self.buffers_max);
        if self.floor.saturating_add(self.busy_depth * 2) > self.buffers {
            self.grow();
        }
        self.publish();
    }

    /// Provides so many buffers to flooded sockets from now on; 0 where there are none. What they have in a turn is with the caller
    /// while they take the next.
    pub(crate) fn set_busy_depth(&mut self, depth: u16) {
        let enough = |buffers: u16| depth * 2 + BUFFERS_QUIET <= buffers;
        while !enough(self.buffers) && self.double() {}
        self.busy_depth = if enough(self.buffers) { depth } else { (self.buffers / 4).max(1) };
        // Where the quiet ring has all there are, others are made: else the flooded sockets wait until those come back.
        let has = |pool: &Self| usize::from(pool.available(Lane::Busy)) + pool.spare.len();
        while has(self) < usize::from(self.busy_depth) && self.double() {}
        self.publish_busy();
    }

    /// Whether no buffer will come back to flooded sockets, whatever is given back: the quiet ring has all.
    pub(crate) fn busy_is_dry(&self) -> bool {
        self.available(Lane::Busy) == 0 && self.available(Lane::Quiet) == self.buffers
    }

    /// Whether there can be enough buffers for flooded sockets to have some of their own.
    pub(crate) fn has_lanes(&self) -> bool {
        self.buffers_max >= 2 * BUFFERS_QUIET
    }

    /// Doubles the number of buffers up to the bound. Says whether there are more than before.
    pub(crate) fn grow(&mut self) -> bool {
        let grown = self.double();
        self.publish();
        grown
    }

    /// The same, and provides nothing yet.
    fn double(&mut self) -> bool {
        let more = self.buffers.min(self.buffers_max - self.buffers);
        self.add(more);
        more > 0
    }

    fn add(&mut self, more: u16) {
        // Those that are new come last: their memory is untouched.
        self.spare.splice(0..0, (self.buffers..self.buffers + more).rev());
        self.buffers += more;
    }

    /// Gives a buffer to the kernel, at the next [`Pool::publish`].
    pub(crate) fn give(&mut self, buffer: BufferId) {
        let index = buffer.index();
        assert!(self.provided[usize::from(index)].is_none(), "a buffer given to the kernel twice");
        self.spare.push(index);
    }

    /// The spare buffer given back last.
    fn take_spare(&mut self) -> Option<u16> {
        if self.without.technique(Technique::Lifo) {
            return (!self.spare.is_empty()).then(|| self.spare.remove(0));
        }
        self.spare.pop()
    }

    fn put(&mut self, index: u16, lane: Lane) {
        let start = usize::from(index) * BUFFER_BYTES;
        let address = self.memory.address(&(start..start + BUFFER_BYTES));
        let provided = &mut self.rings[lane as usize];
        let place = usize::from(provided.tail & (self.buffers_max - 1)) * size_of::<BufRingEntry>();
        let entry: *mut BufRingEntry = provided.ring.address(&(place..place + size_of::<BufRingEntry>())).cast();
        // SAFETY: `entry` is an entry of the ring, within its area and aligned (16 bytes in a page-aligned mapping), and any bytes
        // are a valid one. It is ours to write: the kernel reads entries before the published tail only, and of those at most
        // `buffers` are unread, so that place is behind them. The setters leave alone the bytes of the tail in the first entry.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address.addr() as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(index);
        provided.tail = provided.tail.wrapping_add(1);
        provided.available += 1;
        self.provided[usize::from(index)] = Some(lane);
    }

    /// Provides buffers up to the depths, and shows the kernel what was put into the rings.
    pub(crate) fn publish(&mut self) {
        self.publish_busy();
        self.fill(Lane::Quiet, self.depth());
    }

    /// The same for flooded sockets alone.
    pub(crate) fn publish_busy(&mut self) {
        if self.available(Lane::Busy) < self.busy_depth {
            self.fill(Lane::Busy, self.busy_depth);
        }
    }

    fn fill(&mut self, lane: Lane, depth: u16) {
        while self.available(lane) < depth
            && let Some(index) = self.take_spare()
        {
            self.put(index, lane);
        }
        let provided = &self.rings[lane as usize];
        let ring: *const BufRingEntry = provided.ring.address(&(0..size_of::<BufRingEntry>())).cast();
        // SAFETY: `ring` is the first entry of the ring; the function only computes the address of a field within.
        let tail = unsafe { BufRingEntry::tail(ring) };
        // SAFETY: the field is two bytes of our mapping, aligned, and accessed by the kernel and by this line only, atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(provided.tail, Ordering::Release);
    }

    /// Mints the token of the buffer that a completion names.
    pub(crate) fn take(&mut self, index: u16) -> BufferId {
        let provided = self.provided.get_mut(usize::from(index)).expect("the kernel names a buffer of the pool");
        let lane = provided.take().expect("the kernel names a buffer that it was given");
        self.rings[lane as usize].available -= 1;
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
        assert!(self.provided[usize::from(index)].is_none(), "a queued buffer is not the kernel's");
        self.memory.bytes(Self::place(index, range))
    }

    /// Leaves the mappings in place for good.
    pub(crate) fn leak(&mut self) {
        for provided in &mut self.rings {
            provided.ring.leak();
        }
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
    use std::collections::{BTreeSet, VecDeque};

    use io_uring::types::BufRingEntry;
    use mesh_udp::{Without, WorkingSet};

    use super::{BUFFER_BYTES, Lane, Pool};

    impl Pool {
        /// The buffer that an entry of the ring names.
        fn entry(&self, place: u16) -> u16 {
            let at = usize::from(place & (self.buffers_max - 1)) * size_of::<BufRingEntry>();
            // struct io_uring_buf: address, length, buffer.
            let bytes = self.rings[0].ring.bytes(at + 12..at + 14);
            u16::from_ne_bytes([bytes[0], bytes[1]])
        }

        fn provided_in_order(&self) -> VecDeque<u16> {
            let (tail, available) = (self.rings[0].tail, self.rings[0].available);
            (0..available).map(|place| self.entry(tail.wrapping_sub(available).wrapping_add(place))).collect()
        }
    }

    #[test]
    fn a_pool_doubles_to_its_bound_and_hands_each_buffer_out_once() {
        let mut pool = Pool::new(2, 8, Without::default()).unwrap();
        assert_eq!((pool.available(Lane::Quiet), pool.buffers()), (2, 2));
        assert!(pool.grow() && pool.grow());
        assert!(!pool.grow());
        assert_eq!((pool.available(Lane::Quiet), pool.buffers()), (8, 8));
        let mut buffer = pool.take(7);
        pool.bytes_mut(&mut buffer, BUFFER_BYTES - 1..BUFFER_BYTES)[0] = 1;
        assert_eq!(pool.bytes(&buffer, BUFFER_BYTES - 2..BUFFER_BYTES), [0, 1]);
        pool.give(buffer);
        pool.publish();
        assert_eq!(pool.available(Lane::Quiet), 8);
    }

    /// A pool on a machine with a cache of 512 KiB.
    fn pool() -> Pool {
        let mut pool = Pool::new(64, 1024, Without::default()).unwrap();
        pool.trains = WorkingSet::of(512 * 1024);
        pool
    }

    /// The numbers of the buffers that a turn of `trains` trains of `bytes` each uses, of a pool that has seen many such turns.
    fn rotation(pool: &mut Pool, trains: u16, bytes: usize) -> BTreeSet<u16> {
        let mut used = BTreeSet::new();
        // The kernel takes them in the order of the ring.
        let mut ring: VecDeque<u16> = pool.provided_in_order();
        for turn in 0..200 {
            let taken: Vec<_> = (0..trains).filter_map(|_| ring.pop_front()).collect();
            for &index in &taken {
                pool.note(bytes);
                let token = pool.take(index);
                pool.give(token);
            }
            let tail = pool.rings[0].tail;
            pool.publish();
            ring.extend((0..pool.rings[0].tail.wrapping_sub(tail)).map(|place| pool.entry(tail.wrapping_add(place))));
            if turn >= 150 {
                used.extend(taken);
            }
        }
        used
    }

    #[test]
    fn long_trains_use_few_buffers_and_short_ones_many() {
        let mut pool = pool();
        let few = rotation(&mut pool, 5, 48_000);
        assert!(few.len() <= 12, "{few:?}");
        assert!(pool.is_shallow());
        assert_eq!(rotation(&mut pool, 5, 100).len(), 64);
        assert!(!pool.is_shallow());
    }

    #[test]
    fn a_pool_that_is_deepened_stays_deep() {
        let mut pool = pool();
        rotation(&mut pool, 5, 48_000);
        pool.deepen();
        pool.deepen();
        assert!(rotation(&mut pool, 5, 48_000).len() >= 32);
        for _ in 0..10 {
            pool.deepen();
        }
        assert_eq!((pool.buffers(), pool.available(Lane::Quiet)), (1024, 1024));
    }

    #[test]
    #[should_panic(expected = "that it was given")]
    fn a_buffer_taken_twice_is_noticed() {
        let mut pool = Pool::new(2, 2, Without::default()).unwrap();
        let _first = pool.take(1);
        let _second = pool.take(1);
    }
}
