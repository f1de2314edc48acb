//! From runs to sends, and what becomes of those that the kernel refused.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use mesh_udp::envelope::Envelope;
use mesh_udp::gather::{Memory, Piece, RUNS_MAX, Run, SEGMENTS_MAX};
use mesh_udp::refusal::{self, Refusal};
use mesh_udp::writes::PIECES_MAX;
use mesh_udp::{Endpoint, Technique};

use crate::engine::Engine;
use crate::sys::MESSAGES;

/// One send on its way to a system call.
pub(crate) struct Staged {
    envelope: Envelope,
    parts: [libc::iovec; SEGMENTS_MAX],
}

impl Staged {
    pub(crate) fn new() -> Self {
        let part = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self { envelope: Envelope::new(), parts: [part; SEGMENTS_MAX] }
    }

    pub(crate) fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

/// A part of a run that is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    run: u32,
    bytes: Range<u32>,
    segments: u32,
}

impl Engine {
    pub(crate) fn queue(&mut self, memory: Memory, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        assert!(segment_bytes > 0, "a stride of zero");
        let Some(socket) = self.socket(to.socket.0) else {
            self.counters.drops_send_failed += bytes.len().div_ceil(segment_bytes).max(1) as u64;
            return;
        };
        let segments_max = socket.segments_max;
        if self.gather.is_full() {
            // Not the packets for the interface: the last of them may go on.
            self.submit_sends();
        }
        self.gather.push(memory, bytes, segment_bytes, to, tos, segments_max);
    }

    pub(crate) fn queue_write(&mut self, packet: Piece) {
        if self.inside.is_none() || packet.length == 0 {
            self.counters.drops_inside_full += 1;
            self.writes.refuse();
            return;
        }
        if self.writes.len() >= RUNS_MAX {
            self.submit_queued();
        }
        self.writes.push(packet);
    }

    /// Sends and writes everything queued.
    pub(crate) fn submit_queued(&mut self) {
        self.submit_sends();
        for index in 0..self.writes.len() {
            self.write_inside(index);
        }
        self.writes.clear();
    }

    /// Sends everything queued.
    fn submit_sends(&mut self) {
        let runs = self.gather.runs().len();
        if self.gather.runs().iter().any(|run| run.to.local.is_some()) {
            self.sources.tick();
        }
        let mut first = 0;
        while first < runs {
            let socket = self.gather.runs()[first].to.socket.0;
            let same = |run: &&Run| run.to.socket.0 == socket;
            let last = first + self.gather.runs()[first..].iter().take(MESSAGES).take_while(same).count();
            self.send_runs(socket, first..last);
            first = last;
        }
        self.gather.clear();
    }

    /// Sends runs of one socket, in their order.
    fn send_runs(&mut self, socket: u16, runs: Range<usize>) {
        let mut parts: VecDeque<Part> = std::mem::take(&mut self.parts);
        for index in runs {
            let run = self.gather.runs()[index];
            parts.push_back(Part { run: index as u32, bytes: 0..run.bytes, segments: run.segments });
        }
        while !parts.is_empty() {
            if self.held.of_socket(socket) > 0 {
                // What goes to a socket that waits for room waits behind.
                for part in parts.drain(..) {
                    self.refuse(&part, libc::EAGAIN, &mut VecDeque::new());
                }
                break;
            }
            let count = parts.len().min(MESSAGES);
            self.stage(parts.iter().take(count));
            let outcome = self.transmit(socket, count);
            let sent = *outcome.as_ref().unwrap_or(&0);
            for part in parts.drain(..sent.min(count)) {
                self.counters.sends += 1;
                self.counters.lengths_out.note(part.segments as usize);
                self.counters.datagrams_out += u64::from(part.segments);
                self.counters.bytes_out += u64::from(part.bytes.end - part.bytes.start);
            }
            if let Err(error) = outcome
                && error.kind() != std::io::ErrorKind::Interrupted
                && let Some(part) = parts.pop_front()
            {
                self.refuse(&part, error.raw_os_error().unwrap_or(libc::EIO), &mut parts);
            }
        }
        self.parts = parts;
    }

    /// Lays the headers of sends.
    fn stage<'a>(&mut self, parts: impl Iterator<Item = &'a Part>) {
        for (staged, part) in self.staged.iter_mut().zip(parts) {
            let run = &self.gather.runs()[part.run as usize];
            let mut count = 0;
            for piece in self.gather.pieces_within(run, part.bytes.clone()) {
                let address = match piece.memory {
                    Memory::Outside(slot) | Memory::Inside(slot) => self.slots.address(slot, piece.range()),
                    Memory::Slab => self.slab.address(&piece.range()),
                };
                staged.parts[count] = libc::iovec { iov_base: address.cast(), iov_len: piece.length as usize };
                count += 1;
            }
            let v6 = self.sockets[usize::from(run.to.socket.0)].as_ref().is_some_and(|socket| socket.v6);
            let always = self.config.without.technique(Technique::Sources);
            let local = run.to.local.filter(|&local| always || !self.sources.is_chosen(local, run.to.remote));
            staged.envelope.address(v6, run, local, part.segments > 1, &mut staged.parts[..count]);
        }
    }

    /// Does what is to be done about a send that failed; what is to be sent again is put in front of `parts`.
    fn refuse(&mut self, part: &Part, error: i32, parts: &mut VecDeque<Part>) {
        let run = self.gather.runs()[part.run as usize];
        match refusal::judge(error, &run, &part.bytes, part.segments) {
            Refusal::Hold => self.hold(&run),
            Refusal::Full => self.counters.drops_send_full += u64::from(part.segments),
            Refusal::Failed => self.counters.drops_send_failed += u64::from(part.segments),
            Refusal::Singly { bytes, lost, never } => {
                if never && let Some(Some(socket)) = self.sockets.get_mut(usize::from(run.to.socket.0)) {
                    socket.segments_max = 1;
                }
                self.counters.resent_singly += u64::from(!bytes.is_empty());
                self.counters.drops_send_failed += u64::from(lost);
                let starts: Vec<u32> = bytes.clone().step_by(run.segment_bytes as usize).collect();
                for at in starts.into_iter().rev() {
                    let bytes = at..bytes.end.min(at + run.segment_bytes);
                    parts.push_front(Part { run: part.run, bytes, segments: 1 });
                }
            }
        }
    }

    /// Keeps a copy of a run until its socket has room, or drops it.
    fn hold(&mut self, run: &Run) {
        let number = run.to.socket.0;
        let v6 = self.socket(number).is_some_and(|socket| socket.v6);
        let bytes_of = |piece: &Piece| match piece.memory {
            Memory::Outside(slot) | Memory::Inside(slot) => self.slots.bytes(slot, piece.range()),
            Memory::Slab => self.slab.bytes(piece.range()),
        };
        if self.held.hold(&self.gather, run, bytes_of, v6) {
            self.counters.held += 1;
            // Should epoll not take it, the copy is late in the end and counted then.
            let _ = self.watch_room(number, true);
        } else {
            self.counters.drops_send_full += u64::from(run.segments);
        }
    }

    fn write_inside(&mut self, packet: usize) {
        let Some(device) = &self.inside else { return };
        let places = self.writes.places(packet);
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        for (slice, piece) in pieces.iter_mut().zip(&self.writes.pieces()[places.clone()]) {
            *slice = IoSlice::new(match piece.memory {
                Memory::Outside(slot) | Memory::Inside(slot) => self.slots.bytes(slot, piece.range()),
                Memory::Slab => self.slab.bytes(piece.range()),
            });
        }
        self.counters.enters += 1;
        let written = match &pieces[..places.len()] {
            [piece] => nix::unistd::write(device, piece),
            pieces => nix::sys::uio::writev(device, pieces),
        };
        match written {
            Ok(_) => self.counters.inside_out += 1,
            Err(_) => self.counters.drops_inside_full += 1,
        }
    }
}
