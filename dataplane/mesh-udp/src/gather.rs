//! Gathers the queued ranges of a batch into as few sends as order allows.
//!
//! One send carries up to [`SEGMENTS_MAX`] datagrams to one destination if all are equally long, the last possibly shorter
//! (`UDP_SEGMENT`). A *run* is such a send in the making:
//! 1. A datagram joins the **latest** run of its destination (socket and remote address), never an earlier one, and only if that
//!    run has its length, TOS byte and local address.
//! 2. A shorter datagram joins as the last and closes the run. A longer one starts a new run.
//! 3. Runs leave in the order they were begun. So to each destination the datagrams leave in the order they were queued, while
//!    those to different destinations may pass each other.
//!
//! Pure: no system call, no pointer. Which memory a range lies in is a name that the engine turns into an address.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::train::Endpoint;
use crate::{Technique, Without};

/// Datagrams in one send. The kernel takes 128 since Linux 6.9 and 64 before; what it gathers on receive is at most 64.
pub const SEGMENTS_MAX: usize = 64;

/// Payload bytes of one send by IPv4: 65,535 less the IP and UDP headers.
const BYTES_MAX_V4: usize = 65_535 - 20 - 8;

/// Payload bytes of one send by IPv6. The kernel would take 40 more, but devices count the IP header in their limit of 65,536
/// and would have the train cut by the processor instead.
const BYTES_MAX_V6: usize = 65_535 - 40 - 8;

/// Runs of one batch; a caller with more must submit in between.
pub const RUNS_MAX: usize = 4096;

/// End of a chain of pieces.
const NONE: u32 = u32::MAX;

/// Which memory a range lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// A receive buffer of the sockets.
    Outside(u16),
    /// A receive buffer of the virtual interface.
    Inside(u16),
    /// The slab.
    Slab,
}

/// A contiguous part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it lies.
    pub memory: Memory,
    /// Its first byte there.
    pub offset: u32,
    /// Its bytes.
    pub length: u32,
    next: u32,
}

impl Piece {
    /// A piece alone.
    pub fn new(memory: Memory, bytes: Range<usize>) -> Self {
        Self { memory, offset: bytes.start as u32, length: bytes.len() as u32, next: NONE }
    }

    /// The range within its memory.
    pub fn range(&self) -> Range<usize> {
        self.offset as usize..self.offset as usize + self.length as usize
    }
}

/// One send in the making.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Where it goes.
    pub to: Endpoint,
    /// TOS byte of the outer header.
    pub tos: u8,
    /// Length of each datagram but the last.
    pub segment_bytes: u32,
    /// Its datagrams.
    pub segments: u32,
    /// Its bytes.
    pub bytes: u32,
    first: u32,
    last: u32,
    /// Whether another datagram may join: all so far have the same length.
    open: bool,
}

/// The runs of a batch.
#[derive(Debug)]
pub struct Gather {
    runs: Vec<Run>,
    pieces: Vec<Piece>,
    latest: Latest,
    without: Without,
}

impl Gather {
    /// An empty one, with room for all that fits: a range more than [`is_full`](Self::is_full) asks to submit before. What is not used
    /// takes no memory of the machine, and a data thread never has to ask for more.
    #[expect(clippy::new_without_default, reason = "as of all parts of an engine")]
    pub fn new() -> Self {
        Self {
            runs: Vec::with_capacity(RUNS_MAX + SEGMENTS_MAX),
            pieces: Vec::with_capacity(4 * RUNS_MAX + SEGMENTS_MAX),
            latest: Latest::new(),
            without: Without::default(),
        }
    }

    /// The same without some techniques: without [`Technique::Gather`] nothing joins.
    #[must_use]
    pub fn going_without(self, without: Without) -> Self {
        Self { without, ..self }
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether what is there should be submitted before more is queued.
    pub fn is_full(&self) -> bool {
        self.runs.len() >= RUNS_MAX || self.pieces.len() >= 4 * RUNS_MAX
    }

    /// Queues `bytes` of `memory`, datagrams of `segment_bytes` each, the last possibly shorter. An empty range is one empty
    /// datagram. `segments_max` is what the socket can send at once.
    pub fn push(
        &mut self,
        memory: Memory,
        bytes: Range<usize>,
        segment_bytes: usize,
        to: &Endpoint,
        tos: u8,
        segments_max: usize,
    ) {
        let bytes_max = match to.remote {
            SocketAddr::V4(_) => BYTES_MAX_V4,
            SocketAddr::V6(_) => BYTES_MAX_V6,
        };
        let mut offset = bytes.start;
        loop {
            let left = bytes.end - offset;
            let stride = segment_bytes.min(left).max(1);
            let part = left.min(stride * (bytes_max / stride).clamp(1, segments_max));
            self.push_part(memory, offset, part, stride, to, tos, segments_max, bytes_max);
            offset += part;
            if offset >= bytes.end {
                return;
            }
        }
    }

    /// Queues a part that fits one send.
    #[expect(
        clippy::too_many_arguments,
        reason = "a piece, where it goes, and two limits; a struct for one call would hide that"
    )]
    fn push_part(
        &mut self,
        memory: Memory,
        offset: usize,
        length: usize,
        stride: usize,
        to: &Endpoint,
        tos: u8,
        segments_max: usize,
        bytes_max: usize,
    ) {
        let segments = length.div_ceil(stride).max(1);
        let place = self.latest.find(to, &self.runs);
        if let Ok(index) = place {
            let run = &mut self.runs[index];
            let joins = run.open
                && !self.without.technique(Technique::Gather)
                && run.tos == tos
                && run.to.local == to.local
                && run.segments as usize + segments <= segments_max
                && run.bytes as usize + length <= bytes_max
                && length > 0
                && (stride == run.segment_bytes as usize || (segments == 1 && length < run.segment_bytes as usize));
            if joins {
                run.segments += segments as u32;
                run.bytes += length as u32;
                run.open = length.is_multiple_of(run.segment_bytes as usize);
                let end = self.pieces.len() as u32;
                let last = &mut self.pieces[run.last as usize];
                if last.memory == memory && last.offset as usize + last.length as usize == offset {
                    last.length += length as u32;
                } else {
                    last.next = end;
                    run.last = end;
                    self.pieces.push(Piece::new(memory, offset..offset + length));
                }
                return;
            }
        }
        let piece = self.pieces.len() as u32;
        self.pieces.push(Piece::new(memory, offset..offset + length));
        let run = self.runs.len();
        self.runs.push(Run {
            to: *to,
            tos,
            segment_bytes: stride as u32,
            segments: segments as u32,
            bytes: length as u32,
            first: piece,
            last: piece,
            open: length > 0 && length.is_multiple_of(stride),
        });
        self.latest.set(place, to, run, &self.runs);
    }

    /// The runs, in the order they must leave.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The pieces of a run, in order; together they are `run.bytes` long, and at most [`SEGMENTS_MAX`].
    pub fn pieces(&self, run: &Run) -> impl Iterator<Item = Piece> + '_ {
        let mut next = run.first;
        std::iter::from_fn(move || {
            let piece = *self.pieces.get(next as usize)?;
            next = piece.next;
            Some(piece)
        })
    }

    /// The pieces of a range of a run's bytes.
    pub fn pieces_within(&self, run: &Run, range: Range<u32>) -> impl Iterator<Item = Piece> + '_ {
        let mut start = 0;
        self.pieces(run).filter_map(move |piece| {
            let end = start + piece.length;
            let (from, to) = (range.start.max(start), range.end.min(end));
            // An empty datagram is one empty piece, and wanted.
            let wanted = from < to || piece.length == 0;
            let cut =
                Piece { offset: piece.offset + (from.min(end) - start), length: to.saturating_sub(from), ..piece };
            start = end;
            wanted.then_some(cut)
        })
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.pieces.clear();
        self.latest.clear();
    }
}

/// The latest run of each destination: a set-associative cache.
///
/// It may forget a destination (whose next datagram then starts a new run, which is always right), but it never tells an older
/// run than the latest: a destination has entries in one set only, and at most one there.
#[derive(Debug)]
struct Latest {
    ways: Vec<Way>,
    epoch: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Written in another epoch than the current one: empty.
    epoch: u32,
    run: u32,
}

const SETS: usize = 512;
const WAYS: usize = 4;
const _: () = assert!(SETS.is_power_of_two());

impl Latest {
    fn new() -> Self {
        Self { ways: vec![Way::default(); SETS * WAYS], epoch: 1 }
    }

    /// The latest run of a destination, or the way where it is to be noted.
    fn find(&self, to: &Endpoint, runs: &[Run]) -> Result<usize, usize> {
        let set = hash(to) % SETS * WAYS;
        let mut victim = set;
        let mut oldest = u32::MAX;
        for (index, way) in self.ways.iter().enumerate().skip(set).take(WAYS) {
            if way.epoch != self.epoch {
                return Err(index);
            }
            let run = &runs[way.run as usize];
            if run.to.socket == to.socket && run.to.remote == to.remote {
                return Ok(way.run as usize);
            }
            if way.run < oldest {
                (victim, oldest) = (index, way.run);
            }
        }
        Err(victim)
    }

    /// Notes `run` as the latest, at the place that [`Latest::find`] told.
    fn set(&mut self, found: Result<usize, usize>, to: &Endpoint, run: usize, runs: &[Run]) {
        let way = match found {
            Err(way) => way,
            // There is an older run of this destination: its way is overwritten, so that no two tell of one destination.
            Ok(older) => {
                let set = hash(to) % SETS * WAYS;
                debug_assert!(runs[older].to.remote == to.remote);
                (set..set + WAYS)
                    .find(|&way| self.ways[way].epoch == self.epoch && self.ways[way].run as usize == older)
                    .expect("find told of a way of this set")
            }
        };
        self.ways[way] = Way { epoch: self.epoch, run: run as u32 };
    }

    fn clear(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.ways.fill(Way::default());
            self.epoch = 1;
        }
    }
}

/// Spreads destinations over the sets. Who could choose addresses that collide gains nothing but shorter runs.
fn hash(to: &Endpoint) -> usize {
    let address = match to.remote.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 ^ (ip.to_bits() as u64).rotate_left(23),
    };
    let rest = u64::from(to.remote.port()) << 32 | u64::from(to.socket.0) << 16;
    let mixed = (address ^ rest.rotate_left(7)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize
}

#[cfg(test)]
mod tests;
