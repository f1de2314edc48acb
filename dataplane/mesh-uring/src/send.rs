//! From runs to sends: envelopes, rounds of submission, and what becomes of a send the kernel refused.
//!
//! A *round* is what one submission carries. All its sends are over when the submission returns (`MSG_DONTWAIT`), those that
//! succeeded without a completion. So a round ends by reading the completion queue, and then every slot is free again.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::engine::Engine;
use crate::gather::{Memory, Piece, Run, SEGMENTS_MAX};
use crate::memory::SLAB_ROOM_BYTES;
use crate::ring::{Completion, SUBMISSIONS};
use crate::sys::Collect;
use crate::train::{Endpoint, Train};

/// Room for what a send tells beside the payload: segment size and TOS (24 each) and packet info (40).
const CONTROL_BYTES: usize = 96;

/// Submissions that may fail for want of memory before a flush gives up.
const SUBMIT_ATTEMPTS: u32 = 1000;

/// Addressed and stamped: the header of a send with the memory it points to, except the payload.
#[derive(Debug)]
pub(crate) struct Envelope {
    header: libc::msghdr,
    name: Name,
    control: Control,
}

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Debug)]
#[repr(C, align(8))]
struct Name([u8; 28]);

/// Control messages.
#[derive(Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Envelope {
    pub(crate) fn new() -> Self {
        let header = libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: std::ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Self { header, name: Name([0; 28]), control: Control([0; CONTROL_BYTES]) }
    }

    pub(crate) fn header(&self) -> *const libc::msghdr {
        &raw const self.header
    }

    /// Fills everything in. The envelope must not move between here and the submission. `v6` is the family of the socket.
    pub(crate) fn address(&mut self, v6: bool, run: &Run, segmented: bool, iovecs: &mut [libc::iovec]) {
        let name_bytes = self.name.fill(v6, run.to.remote);
        let mut control_bytes = 0;
        if segmented {
            let bytes = u16::try_from(run.segment_bytes).expect("two segments fit one datagram's limit");
            self.control.append(&mut control_bytes, libc::SOL_UDP, libc::UDP_SEGMENT, &[&bytes.to_ne_bytes()]);
        }
        // What goes to an IPv4 address takes the options of IPv4, from a dual-stack socket too.
        if run.tos != 0 {
            let (level, kind) = match run.to.remote {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            self.control.append(&mut control_bytes, level, kind, &[&i32::from(run.tos).to_ne_bytes()]);
        }
        match (run.to.local, run.to.remote) {
            (Some(IpAddr::V4(local)), SocketAddr::V4(_)) => {
                // struct in_pktinfo: interface (any), local address, address in the header (of receives only).
                let data: [&[u8]; 3] = [&[0; 4], &local.octets(), &[0; 4]];
                self.control.append(&mut control_bytes, libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
            }
            (Some(IpAddr::V6(local)), SocketAddr::V6(_)) => {
                let data: [&[u8]; 2] = [&local.octets(), &[0; 4]];
                self.control.append(&mut control_bytes, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
            }
            // An address of the other family says nothing about where to leave from.
            (Some(IpAddr::V4(_)), SocketAddr::V6(_)) | (Some(IpAddr::V6(_)), SocketAddr::V4(_)) | (None, _) => {}
        }
        self.header.msg_name = (&raw mut self.name.0).cast();
        self.header.msg_namelen = name_bytes as libc::socklen_t;
        self.header.msg_iov = iovecs.as_mut_ptr();
        self.header.msg_iovlen = iovecs.len();
        let control: *mut libc::c_void = (&raw mut self.control.0).cast();
        self.header.msg_control = if control_bytes == 0 { std::ptr::null_mut() } else { control };
        self.header.msg_controllen = control_bytes;
    }
}

impl Name {
    /// Writes the address as a socket of this family takes it; returns its length.
    fn fill(&mut self, v6: bool, remote: SocketAddr) -> usize {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET } as libc::sa_family_t;
        self.0 = [0; 28];
        self.0[..2].copy_from_slice(&family.to_ne_bytes());
        self.0[2..4].copy_from_slice(&remote.port().to_be_bytes());
        match (v6, remote) {
            (false, SocketAddr::V4(remote)) => {
                self.0[4..8].copy_from_slice(&remote.ip().octets());
                16
            }
            (true, SocketAddr::V4(remote)) => {
                self.0[8..24].copy_from_slice(&remote.ip().to_ipv6_mapped().octets());
                28
            }
            // From an IPv4 socket this fails, as it must: the address is left out.
            (false, SocketAddr::V6(_)) => 0,
            (true, SocketAddr::V6(remote)) => {
                self.0[8..24].copy_from_slice(&remote.ip().octets());
                self.0[24..28].copy_from_slice(&remote.scope_id().to_ne_bytes());
                28
            }
        }
    }
}

impl Control {
    /// Appends one `cmsghdr` with its data and padding.
    fn append(&mut self, end: &mut usize, level: i32, kind: i32, data: &[&[u8]]) {
        const HEADER: usize = size_of::<libc::cmsghdr>();
        let start = *end;
        let bytes = HEADER + data.iter().map(|part| part.len()).sum::<usize>();
        self.0[start..start + size_of::<usize>()].copy_from_slice(&bytes.to_ne_bytes());
        self.0[start + HEADER - 8..start + HEADER - 4].copy_from_slice(&level.to_ne_bytes());
        self.0[start + HEADER - 4..start + HEADER].copy_from_slice(&kind.to_ne_bytes());
        let mut at = start + HEADER;
        for part in data {
            self.0[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        *end = at.next_multiple_of(size_of::<usize>());
        self.0[at..*end].fill(0);
    }
}

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
    writes: Vec<Piece>,
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
            singles: VecDeque::new(),
            writes: Vec::with_capacity(256),
            writes_posted: 0,
            writes_failed: 0,
        }
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
        let range = self.range_of(train, &bytes);
        self.queue(Self::memory_of(train), range, segment_bytes, to, tos);
    }

    /// Queues a range of the slab to be sent, cut every `segment_bytes`.
    ///
    /// # Panics
    /// On a range beyond the slab, or a stride of zero.
    pub fn send(&mut self, slab: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        assert!(slab.start <= slab.end && slab.end <= self.memories.slab.len(), "a range beyond the slab");
        self.queue(Memory::Slab, slab, segment_bytes, to, tos);
    }

    /// Queues a range of a train as one packet for the virtual interface.
    ///
    /// # Panics
    /// On a train of another engine, or a range beyond it.
    pub fn deliver(&mut self, train: &Train, bytes: Range<usize>) {
        let range = self.range_of(train, &bytes);
        self.queue_write(Piece::new(Self::memory_of(train), range));
    }

    /// Queues a range of the slab as one packet for the virtual interface.
    ///
    /// # Panics
    /// On a range beyond the slab.
    pub fn deliver_slab(&mut self, slab: Range<usize>) {
        assert!(slab.start <= slab.end && slab.end <= self.memories.slab.len(), "a range beyond the slab");
        self.queue_write(Piece::new(Memory::Slab, slab));
    }

    /// Gives a train back. Its bytes stay untouched until the next flush has read them.
    ///
    /// # Panics
    /// On a train of another engine.
    pub fn release(&mut self, train: Train) {
        self.check(&train);
        #[cfg(debug_assertions)]
        let Train { buffer, origin, mut leash, .. } = train;
        #[cfg(debug_assertions)]
        {
            leash.released = true;
        }
        #[cfg(not(debug_assertions))]
        let Train { buffer, origin, .. } = train;
        self.released.push((origin == crate::train::Origin::Inside, buffer));
    }

    /// Submits everything queued without waiting, then takes back released trains and the slab.
    ///
    /// # Errors
    /// When the kernel takes no submissions at all. A datagram that cannot be sent is counted, and no error.
    pub fn flush(&mut self) -> io::Result<()> {
        self.submit_queued()?;
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
        let segments_max = socket.segments_max;
        if self.gather.is_full() {
            self.submit_queued_deferring_error();
        }
        self.gather.push(memory, bytes, segment_bytes, to, tos, segments_max);
    }

    fn queue_write(&mut self, packet: Piece) {
        if self.memories.inside.is_none() || packet.length == 0 {
            self.counters.drops_inside_full += 1;
            return;
        }
        if self.sends.writes.len() >= crate::gather::RUNS_MAX {
            self.submit_queued_deferring_error();
        }
        self.sends.writes.push(packet);
    }

    /// Makes sure that the slab has its room, by sending what is queued if it must.
    pub(crate) fn make_slab_room(&mut self) {
        if self.memories.slab.len() - self.slab_used < SLAB_ROOM_BYTES {
            self.submit_queued_deferring_error();
            self.slab_used = 0;
        }
    }

    fn submit_queued_deferring_error(&mut self) {
        if let Err(error) = self.submit_queued() {
            self.deferred_error = Some(error);
        }
    }

    /// Sends and writes everything queued, and reads what failed.
    pub(crate) fn submit_queued(&mut self) -> io::Result<()> {
        let nothing = self.gather.is_empty() && self.sends.has_nothing();
        if nothing && self.ring.queued() == 0 && self.held.is_empty() {
            return Ok(());
        }
        for index in 0..self.gather.runs().len() {
            let run = self.gather.runs()[index];
            self.begin_send(index as u32, 0..run.bytes)?;
        }
        for index in 0..self.sends.writes.len() {
            let packet = self.sends.writes[index];
            self.post_write(&packet)?;
            self.sends.writes_posted += 1;
        }
        // The last submission of a flush also collects what has arrived: under load the next wait need not enter the kernel.
        self.finish_round(Collect::Due)?;
        while let Some((run, bytes)) = self.sends.singles.pop_front() {
            self.begin_send(run, bytes)?;
            if self.sends.singles.is_empty() {
                self.finish_round(Collect::No)?;
            }
        }
        self.gather.clear();
        self.sends.writes.clear();
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
        slot.envelope.address(socket.v6, &run, slot.segments > 1, &mut slot.iovecs[..count]);
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
        for place in 0..std::mem::take(&mut self.sends.taken) {
            let slot = &mut self.sends.slots[place];
            let (index, bytes, segments, error) = (slot.run, slot.bytes.clone(), slot.segments, slot.error);
            if error == 0 {
                self.counters.sends += 1;
                self.counters.datagrams_out += u64::from(segments);
                self.counters.bytes_out += u64::from(bytes.end - bytes.start);
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

    /// Decides what becomes of a send that failed.
    fn send_refused(&mut self, index: u32, bytes: Range<u32>, segments: u32, error: i32) {
        let run = self.gather.runs()[index as usize];
        match error {
            // A full socket buffer. A part of a run that is being sent singly is not worth the trouble.
            libc::EAGAIN if bytes == (0..run.bytes) => self.hold(&run),
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => self.counters.drops_send_full += u64::from(segments),
            // The device cannot cut (EIO: no checksums by hardware, it will not be able later), or the kernel will not (EINVAL,
            // EMSGSIZE: segments larger than the path takes; then each one shall be judged alone).
            libc::EIO | libc::EINVAL | libc::EMSGSIZE if segments > 1 => {
                if error == libc::EIO
                    && let Some(Some(socket)) = self.sockets.get_mut(usize::from(run.to.socket.0))
                {
                    socket.segments_max = 1;
                }
                self.counters.resent_singly += 1;
                // All full segments are equally long: where one is too long all are, and only a shorter last one may pass.
                let start =
                    if error == libc::EMSGSIZE { bytes.end - self.drop_too_long(&run, &bytes) } else { bytes.start };
                let mut at = start;
                while at < bytes.end {
                    let end = bytes.end.min(at + run.segment_bytes);
                    self.sends.singles.push_back((index, at..end));
                    at = end;
                }
            }
            _ => self.counters.drops_send_failed += u64::from(segments),
        }
    }

    /// Counts the full segments of a refused run as dropped; returns the bytes of the shorter last one, if there is one.
    fn drop_too_long(&mut self, run: &Run, bytes: &Range<u32>) -> u32 {
        let length = bytes.end - bytes.start;
        self.counters.drops_send_failed += u64::from(length / run.segment_bytes);
        length % run.segment_bytes
    }

    /// Keeps a copy of a run until its socket has room, or drops it.
    fn hold(&mut self, run: &Run) {
        let v6 =
            self.sockets.get(usize::from(run.to.socket.0)).is_some_and(|socket| socket.as_ref().is_some_and(|s| s.v6));
        if self.held.hold(&self.gather, run, &self.memories, v6) {
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
                Ok(()) => {}
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
