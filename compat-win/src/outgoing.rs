//! Gathers queued datagrams into runs that one send operation can carry.
//!
//! A run is datagrams of one length to one endpoint; the last may be shorter, which closes it. Datagrams to one endpoint never
//! overtake each other: only the newest run of an endpoint takes more.

use std::ops::Range;

use crate::Endpoint;
use crate::slots::Memory;

/// Most datagrams in one run: what Linux takes in one segmented send since 4.18.
pub(crate) const SEGMENTS_MAX: usize = 64;

/// Most payload bytes in one run: an IPv4 packet of 65,535 bytes less its headers.
pub(crate) const RUN_BYTES_MAX: usize = 65_507;

/// How many runs back a datagram looks for one to join. Looking less far costs a send, never order.
const LOOK_BACK: usize = 16;

const NONE: u32 = u32::MAX;

/// Datagrams that leave together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) to: Endpoint,
    pub(crate) segment_bytes: usize,
    pub(crate) tos: u8,
    pub(crate) bytes: usize,
    pub(crate) segments: usize,
    open: bool,
    first: u32,
    last: u32,
}

impl Run {
    /// Whether the bytes lie in one piece.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.first == self.last
    }
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    memory: Memory,
    start: usize,
    end: usize,
    next: u32,
}

/// What is queued until the next flush.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    runs: Vec<Run>,
    pieces: Vec<Piece>,
}

impl Outgoing {
    /// Queues `range`, cut every `segment_bytes`. An empty range is one empty datagram.
    pub(crate) fn push(&mut self, memory: Memory, range: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        let segment_bytes = segment_bytes.max(1);
        if range.len() <= segment_bytes {
            // A lone datagram is as long as it is, whatever its train was cut to.
            return self.push_chunk(memory, range.clone(), range.len(), 1, to, tos);
        }
        let segments_max = (RUN_BYTES_MAX / segment_bytes).clamp(1, SEGMENTS_MAX);
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + segments_max * segment_bytes);
            let segments = (end - start).div_ceil(segment_bytes);
            let stride = if segments == 1 { end - start } else { segment_bytes };
            self.push_chunk(memory, start..end, stride, segments, to, tos);
            start = end;
        }
    }

    /// Queues at most one run's worth.
    fn push_chunk(
        &mut self,
        memory: Memory,
        range: Range<usize>,
        stride: usize,
        segments: usize,
        to: &Endpoint,
        tos: u8,
    ) {
        let bytes = range.len();
        let newest = self.runs.iter().enumerate().rev().take(LOOK_BACK).find(|(_, run)| run.to == *to);
        if let Some((index, run)) = newest {
            let fits = run.open
                && run.tos == tos
                && bytes > 0
                && (stride == run.segment_bytes || (segments == 1 && bytes < run.segment_bytes))
                && run.segments + segments <= SEGMENTS_MAX
                && run.bytes + bytes <= RUN_BYTES_MAX;
            if fits {
                let last = self.append(run.last, memory, range);
                let run = &mut self.runs[index];
                run.last = last;
                run.bytes += bytes;
                run.segments += segments;
                run.open = run.bytes == run.segments * run.segment_bytes;
                return;
            }
        }
        let first = self.piece(memory, range);
        let open = bytes > 0 && bytes == segments * stride;
        self.runs.push(Run { to: *to, segment_bytes: stride.max(1), tos, bytes, segments, open, first, last: first });
    }

    /// Continues the chain that ends at `last`; the new end.
    fn append(&mut self, last: u32, memory: Memory, range: Range<usize>) -> u32 {
        let end = &mut self.pieces[last as usize];
        if end.memory == memory && end.end == range.start {
            end.end = range.end;
            return last;
        }
        let next = self.piece(memory, range);
        self.pieces[last as usize].next = next;
        next
    }

    fn piece(&mut self, memory: Memory, range: Range<usize>) -> u32 {
        let index = u32::try_from(self.pieces.len()).expect("a turn queues fewer than 2^32 pieces");
        self.pieces.push(Piece { memory, start: range.start, end: range.end, next: NONE });
        index
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The pieces of a run, in order.
    pub(crate) fn pieces(&self, run: &Run) -> impl Iterator<Item = (Memory, Range<usize>)> + '_ {
        let mut next = run.first;
        std::iter::from_fn(move || {
            let piece = self.pieces.get(usize::try_from(next).ok()?).filter(|_| next != NONE)?;
            next = piece.next;
            Some((piece.memory, piece.start..piece.end))
        })
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests;
