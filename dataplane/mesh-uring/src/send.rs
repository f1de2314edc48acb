//! From runs to sends: envelopes, rounds of submission, and what becomes of a send the kernel refused.
//!
//! A *round* is what one submission carries. All its sends are over when the submission returns (`MSG_DONTWAIT`), those that
//! succeeded without a completion. So a round ends by reading the completion queue, and then every slot is free again.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use mesh_udp::envelope::Envelope;
use mesh_udp::gather::{Memory, Piece, RUNS_MAX, Run, SEGMENTS_MAX};
use mesh_udp::refusal::{self, Refusal};
use mesh_udp::writes::Writes;
use mesh_udp::{Endpoint, Origin, Technique, Train};

use crate::buffers::Lane;
use crate::engine::Engine;
use crate::memory::SLAB_ROOM_BYTES;
use crate::ring::{Completion, SUBMISSIONS};
use crate::sys::Collect;

/// Submissions that may fail for want of memory before a flush gives up.
const SUBMIT_ATTEMPTS: u32 = 1000;

/// One send of a round.
struct Slot {
    envelope: Envelope,
    iovecs: [libc::iovec; SEGMENTS_MAX],
    /// Which run of the gathering, and which of its bytes.
    run: u32,
    bytes: Range<u32>,
    segments: u32,
    /// The failure that its completion told.
    error: i32,
}

/// The slots, and the rounds they serve.
pub(crate) struct Sends {
    slots: Box<[Slot]>,
    /// Slots before it are taken by the round at hand.
    taken: usize,
    /// Parts of runs to go out one by one, because the kernel would not cut them.
    singles: VecDeque<(u32, Range<u32>)>,
    /// Packets for the interface.
    writes: Writes,
    /// What their entries in the ring point to.
    write_iovecs: Vec<libc::iovec>,
    writes_posted: u64,
    writes_failed: u64,
}

impl Sends {
    pub(crate) fn new() -> Self {
        let slot = || Slot {
            envelope: Envelope::new(),
            iovecs: [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SEGMENTS_MAX],
            run: 0,
            bytes: 0..0,
            segments: 0,
            error: 0,
        };
        Self {
            slots: (0..SUBMISSIONS).map(|_| slot()).collect(),
            taken: 0,
            singles: VecDeque::with_capacity(SEGMENTS_MAX),
            writes: Writes::with_capacity(RUNS_MAX),
            write_iovecs: Vec::with_capacity(4 * RUNS_MAX),
            writes_posted: 0,
            writes_failed: 0,
        }
    }

    /// The pieces of a packet for the interface.
    pub(crate) fn write_iovecs(&self, packet: usize) -> &[libc::iovec] {
        &self.write_iovecs[self.writes.places(packet)]
    }

    pub(crate) fn header(&self, slot: u16) -> *const libc::msghdr {
        self.slots[usize::from(slot)].envelope.header()
    }

    fn has_nothing(&self) -> bool {
        self.writes.is_empty()
    }

    /// Notes the completion of a send of the round at hand: only failures have one.
    pub(crate) fn failed(&mut self, slot: u16, error: i32) {
        self.slots[usize::from(slot)].error = error;
    }

    /// Notes the completion of a write: only failures have one.
    pub(crate) fn write_failed(&mut self) {
        self.writes_failed += 1;
    }
}

impl Engine {
    /// Queues a range of a train to be sent as it is, cut every `segment_bytes`. The bytes are read at the next flush.
    ///
    /// # Panics
    /// On a train of another engine, a range beyond it, or a stride of zero.
    pub fn forward(&mut self, train: &Train, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        let range = train.place(&self.owner, &bytes);
        self.queue(train.memory(), range, segment_bytes, to, tos);
    }

    /// Queues a range of the slab to be sent, cut every `segment_bytes`.
    ///
    /// # Panics
    /// On a range beyond the slab, or a stride of zero.
    pub fn send(&mut self, slab: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        assert!(slab.start <= slab.end && slab.end <= self.memories.slab.size(), "a range beyond the slab");
        self.queue(Memory::Slab, slab, segment_bytes, to, tos);
    }

    /// Queues a range of a train as one packet for the virtual interface.
    ///
    /// # Panics
    /// On a train of another engine, or a range beyond it.
    pub fn deliver(&mut self, train: &Train, bytes: Range<usize>) {
        let range = train.place(&self.owner, &bytes);
        self.queue_write(Piece::new(train.memory(), range));
    }

    /// Goes on with the packet of the [`deliver`](Engine::deliver) before by another range of the same train.
    ///
    /// # Panics
    /// On a train of another engine, or a range beyond it.
    pub fn deliver_more(&mut self, train: &Train, bytes: Range<usize>) {
        let range = train.place(&self.owner, &bytes);
        self.sends.writes.extend(Piece::new(train.memory(), range));
    }

    /// Queues a range of the slab as one packet for the virtual interface.
    ///
    /// # Panics
    /// On a range beyond the slab.
    pub fn deliver_slab(&mut self, slab: Range<usize>) {
        assert!(slab.start <= slab.end && slab.end <= self.memories.slab.size(), "a range beyond the slab");
        self.queue_write(Piece::new(Memory::Slab, slab));
    }

    /// Gives a train back. Its bytes stay untouched until the next flush has read them.
    ///
    /// # Panics
    /// On a train of another engine.
    pub fn release(&mut self, train: Train) {
        let inside = train.origin() == Origin::Inside;
        self.released.push((inside, train.take(&self.owner)));
    }

    /// Submits everything queued without waiting, then takes back released trains and the slab. [`wait`](Engine::wait) does it too.
    ///
    /// # Errors
    /// When the kernel takes no submissions at all. A datagram that cannot be sent is counted, and no error.
    pub fn flush(&mut self) -> io::Result<()> {
        self.submit_queued()?;
        self.end_turn()
    }

    /// Submits everything queued by the call that waits: one call instead of two. `false`, and nothing is done, when there is more to
    /// receive already, when the kernel would wait with too few buffers, or anything is out of the ordinary.
    pub(crate) fn flush_with_wait(&mut self, collect: impl FnOnce(&mut Self) -> Collect) -> io::Result<bool> {
        let buffers_left = self.released.len() <= usize::from(self.memories.outside.available(Lane::Quiet));
        let possible = buffers_left
            && !self.config.without.technique(Technique::FlushWithWait)
            && !self.gather.is_empty()
            && self.gather.runs().len() <= self.sends.slots.len()
            && self.sends.has_nothing()
            && self.held.is_empty()
            && !self.is_flooded()
            && self.quiet_until.is_none()
            && self.deferred_error.is_none()
            && self.stash.is_empty()
            && !self.ring.has_completions();
        if !possible {
            return Ok(false);
        }
        self.stage_sends()?;
        // Whoever ended its receive must not miss what the wait is for.
        self.start_receivers()?;
        let collect = collect(self);
        self.finish_queued(collect)?;
        self.end_turn()?;
        Ok(true)
    }

    /// Takes back what a turn used.
    fn end_turn(&mut self) -> io::Result<()> {
        if let Some(error) = self.deferred_error.take() {
            return Err(error);
        }
        self.slab_used = 0;
        self.free_numbers.append(&mut self.retired_numbers);
        self.recycle();
        self.start_receivers()
    }

    /// Gives the buffers of released trains to the kernel.
    fn recycle(&mut self) {
        if self.released.is_empty() {
            return;
        }
        for (inside, buffer) in self.released.drain(..) {
            match (&mut self.memories.inside, inside) {
                (Some(device), true) => device.pool.give(buffer),
                (_, _) => self.memories.outside.give(buffer),
            }
        }
        self.memories.outside.publish();
        if let Some(device) = &mut self.memories.inside {
            device.pool.publish();
        }
    }

    fn queue(&mut self, memory: Memory, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        assert!(segment_bytes > 0, "a stride of zero");
        let Some(socket) = self.sockets.get(usize::from(to.socket.0)).and_then(Option::as_ref) else {
            self.counters.drops_send_failed += bytes.len().div_ceil(segment_bytes).max(1) as u64;
            return;
        };
        let segments_max = socket.udp.segments_max;
        if self.gather.is_full() {
            // Not the packets for the interface: the last of them may go on.
            self.submit_deferring_error(false);
        }
        self.gather.push(memory, bytes, segment_bytes, to, tos, segments_max);
    }

    fn queue_write(&mut self, packet: Piece) {
        if self.memories.inside.is_none() || packet.length == 0 {
            self.counters.drops_inside_full += 1;
            self.sends.writes.refuse();
            return;
        }
        if self.sends.writes.len() >= RUNS_MAX {
            self.submit_deferring_error(true);
        }
        self.sends.writes.push(packet);
    }

    /// Makes sure that the slab has its room, by sending what is queued if it must.
    pub(crate) fn make_slab_room(&mut self) {
        if self.memories.slab.size() - self.slab_used < SLAB_ROOM_BYTES {
            self.submit_deferring_error(true);
            self.slab_used = 0;
        }
    }

    fn submit_deferring_error(&mut self, writes: bool) {
        if let Err(error) = self.submit(writes) {
            self.deferred_error = Some(error);
        }
    }

    /// Sends and writes everything queued, and reads what failed.
    pub(crate) fn submit_queued(&mut self) -> io::Result<()> {
        self.submit(true)
    }

    /// The same; `writes`: also the packets for the interface.
    fn submit(&mut self, writes: bool) -> io::Result<()> {
        let nothing = self.gather.is_empty() && self.sends.has_nothing();
        if nothing && self.ring.queued() == 0 && self.held.is_empty() {
            return Ok(());
        }
        self.stage_sends()?;
        if writes {
            self.stage_writes()?;
        }
        // What is left of a flood has waited in its socket for what was sent before it.
        self.start_flooded()?;
        // The last submission of a flush also collects what has arrived: under load the next wait need not enter the kernel.
        self.finish_queued(Collect::Due)?;
        if writes {
            self.sends.writes.clear();
        }
        Ok(())
    }

    /// Queues the sends in the ring.
    fn stage_sends(&mut self) -> io::Result<()> {
        if self.gather.runs().iter().any(|run| run.to.local.is_some()) {
            self.sources.tick();
        }
        for index in 0..self.gather.runs().len() {
            let run = self.gather.runs()[index];
            self.begin_send(index as u32, 0..run.bytes)?;
        }
        Ok(())
    }

    /// Queues the packets for the interface in the ring.
    fn stage_writes(&mut self) -> io::Result<()> {
        let Self { sends, memories, .. } = self;
        // All at once: the ring points into this until everything is submitted.
        sends.write_iovecs.clear();
        sends.write_iovecs.extend(
            sends
                .writes
                .pieces()
                .iter()
                .map(|piece| libc::iovec { iov_base: memories.address(piece).cast(), iov_len: piece.length as usize }),
        );
        for packet in 0..self.sends.writes.len() {
            self.post_write(packet)?;
            self.sends.writes_posted += 1;
        }
        Ok(())
    }

    /// Submits what is queued in the ring, and reads what failed.
    fn finish_queued(&mut self, collect: Collect) -> io::Result<()> {
        self.finish_round(collect)?;
        while let Some((run, bytes)) = self.sends.singles.pop_front() {
            self.begin_send(run, bytes)?;
            if self.sends.singles.is_empty() {
                self.finish_round(Collect::No)?;
            }
        }
        self.gather.clear();
        self.start_held()
    }

    /// Puts a part of a run into a slot and queues it.
    fn begin_send(&mut self, index: u32, bytes: Range<u32>) -> io::Result<()> {
        if self.sends.taken == self.sends.slots.len() {
            self.finish_round(Collect::No)?;
        }
        let run = self.gather.runs()[index as usize];
        let number = run.to.socket.0;
        let Some(socket) = self.sockets.get(usize::from(number)).and_then(Option::as_ref) else {
            self.counters.drops_send_failed += u64::from(run.segments);
            return Ok(());
        };
        if self.held.of_socket(number) > 0 {
            if bytes == (0..run.bytes) {
                self.hold(&run);
            } else {
                self.counters.drops_send_full += 1;
            }
            return Ok(());
        }
        let place = self.sends.taken;
        let slot = &mut self.sends.slots[place];
        let mut count = 0;
        for piece in self.gather.pieces_within(&run, bytes.clone()) {
            slot.iovecs[count] =
                libc::iovec { iov_base: self.memories.address(&piece).cast(), iov_len: piece.length as usize };
            count += 1;
        }
        slot.run = index;
        slot.segments = (bytes.end - bytes.start).div_ceil(run.segment_bytes).max(1);
        slot.bytes = bytes;
        slot.error = 0;
        let always = self.config.without.technique(Technique::Sources);
        let local = run.to.local.filter(|&local| always || !self.sources.is_chosen(local, run.to.remote));
        let plain = count == 1 && slot.segments == 1 && run.tos == 0 && local.is_none();
        if plain && self.ring.features().addressed_sends {
            let (name, name_bytes) = slot.envelope.address_alone(socket.udp.v6, run.to.remote);
            let part = slot.iovecs[0];
            self.post_single(place as u16, number, &part, name, name_bytes)?;
            self.sends.taken += 1;
            return Ok(());
        }
        slot.envelope.address(socket.udp.v6, &run, local, slot.segments > 1, &mut slot.iovecs[..count]);
        self.post_send(place as u16, number)?;
        self.sends.taken += 1;
        Ok(())
    }

    /// Submits the round at hand, reads its failures, and frees its slots.
    fn finish_round(&mut self, collect: Collect) -> io::Result<()> {
        self.submit_all(collect)?;
        self.stash_completions();
        while self.ring.overflown() {
            self.enter(Collect::Due)?;
            self.stash_completions();
        }
        let taken = std::mem::take(&mut self.sends.taken);
        for place in 0..taken {
            let slot = &self.sends.slots[place];
            let (index, bytes, segments, error) = (slot.run, slot.bytes.clone(), slot.segments, slot.error);
            if error == 0 {
                self.counters.sends += 1;
                self.counters.lengths_out.note(segments as usize);
                self.counters.datagrams_out += u64::from(segments);
                self.counters.bytes_out += u64::from(bytes.end - bytes.start);
            } else if self.overtaken(place, taken) {
                // Lost is better than late: what comes after it has gone.
                match error {
                    libc::EAGAIN => self.counters.drops_send_full += u64::from(segments),
                    _ => self.counters.drops_send_failed += u64::from(segments),
                }
                self.note_offload(index, error, segments);
            } else {
                self.send_refused(index, bytes, segments, error);
            }
        }
        let posted = std::mem::take(&mut self.sends.writes_posted);
        let failed = std::mem::take(&mut self.sends.writes_failed);
        self.counters.inside_out += posted.saturating_sub(failed);
        self.counters.drops_inside_full += failed;
        Ok(())
    }

    /// Notes of a refused send that its socket cannot send several datagrams at once.
    fn note_offload(&mut self, index: u32, error: i32, segments: u32) {
        let socket = self.gather.runs()[index as usize].to.socket.0;
        if error == libc::EIO
            && segments > 1
            && let Some(Some(socket)) = self.sockets.get_mut(usize::from(socket))
        {
            socket.udp.segments_max = 1;
        }
    }

    /// Whether a later send of the round to the same destination succeeded: the socket had room again meanwhile.
    fn overtaken(&self, place: usize, taken: usize) -> bool {
        let runs = self.gather.runs();
        let to = |slot: &Slot| (runs[slot.run as usize].to.socket, runs[slot.run as usize].to.remote);
        let slots = &self.sends.slots;
        slots[place + 1..taken].iter().any(|later| later.error == 0 && to(later) == to(&slots[place]))
    }

    /// Does what is to be done about a send that failed.
    fn send_refused(&mut self, index: u32, bytes: Range<u32>, segments: u32, error: i32) {
        let run = self.gather.runs()[index as usize];
        match refusal::judge(error, &run, &bytes, segments) {
            Refusal::Hold => self.hold(&run),
            Refusal::Full => self.counters.drops_send_full += u64::from(segments),
            Refusal::Failed => self.counters.drops_send_failed += u64::from(segments),
            Refusal::Singly { bytes, lost, never } => {
                if never {
                    self.note_offload(index, error, segments);
                }
                self.counters.resent_singly += u64::from(!bytes.is_empty());
                self.counters.drops_send_failed += u64::from(lost);
                let parts = bytes.clone().step_by(run.segment_bytes as usize);
                self.sends.singles.extend(parts.map(|at| (index, at..bytes.end.min(at + run.segment_bytes))));
            }
        }
    }

    /// Keeps a copy of a run until its socket has room, or drops it.
    fn hold(&mut self, run: &Run) {
        let v6 = self.socket(run.to.socket.0).is_some_and(|socket| socket.udp.v6);
        if self.held.hold(&self.gather, run, |piece| self.memories.bytes(piece), v6) {
            self.counters.held += 1;
        } else {
            self.counters.drops_send_full += u64::from(run.segments);
        }
    }

    /// Submits held sends whose turn it is.
    pub(crate) fn start_held(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut any = false;
        while let Some(slot) = self.held.next_ready() {
            self.post_held(slot)?;
            any = true;
        }
        if any { self.submit_all(Collect::No) } else { Ok(()) }
    }

    /// Notes the end of a held send.
    pub(crate) fn held_completed(&mut self, slot: u16, completion: &Completion) {
        let letter = self.held.finish(slot);
        let (segments, bytes) = (u64::from(letter.segments), u64::from(letter.bytes));
        match completion.error() {
            None => {
                self.counters.sends += 1;
                self.counters.lengths_out.note(segments as usize);
                self.counters.datagrams_out += segments;
                self.counters.bytes_out += bytes;
            }
            Some(libc::ECANCELED | libc::EAGAIN | libc::EINTR | libc::ENOBUFS) => {
                self.counters.drops_send_full += segments
            }
            Some(_) => self.counters.drops_send_failed += segments,
        }
    }

    /// Submits until the queue is empty. A collection happens at least once if asked for.
    pub(crate) fn submit_all(&mut self, collect: Collect) -> io::Result<()> {
        let mut attempts = 0;
        let mut collect = collect;
        loop {
            if self.ring.queued() == 0 && (attempts > 0 || matches!(collect, Collect::No)) {
                return Ok(());
            }
            match self.enter(collect) {
                // What could not be submitted is tried again, and not waited before.
                Ok(()) => collect = collect.at_once(),
                // Time passed, or a signal came, after everything was submitted.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) && self.ring.queued() == 0 =>
                {
                    return Ok(());
                }
                // Short of memory, or too many completions outstanding: reading them is what helps.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY))
                        && attempts < SUBMIT_ATTEMPTS =>
                {
                    self.stash_completions();
                    collect = Collect::Due;
                }
                Err(error) => return Err(error),
            }
            attempts += 1;
            if attempts > SUBMIT_ATTEMPTS {
                return Err(io::Error::other("the ring consumes no submissions"));
            }
        }
    }
}
