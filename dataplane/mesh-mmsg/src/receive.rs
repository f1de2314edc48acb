//! From readiness to trains.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use mesh_udp::control;
use mesh_udp::{Endpoint, Origin, SocketId, Technique, Train};
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};

use crate::engine::{Engine, TOKEN_INSIDE, TOKEN_WAKER};
use crate::slots::SLOT_BYTES;
use crate::sys::MESSAGES;

/// Events that one look at epoll tells at most.
pub(crate) const EVENTS: usize = 256;

/// Packets read from the interface before the sockets have their turn.
const PACKETS: usize = 64;

/// How often the engine looks after held sends, beside epoll.
const HELD_INTERVAL: Duration = Duration::from_millis(20);

/// Something that epoll told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    Socket { number: u16, readable: bool, writable: bool },
    Inside,
}

impl Engine {
    /// Sends what is queued, as [`flush`](Engine::flush) does, and waits for trains, at most `timeout` (`None`: without end), and appends them to `batch`, at most
    /// [`Config::batch_max`](crate::Config::batch_max). Adds none if the time passed or the waker was used; a signal does not end
    /// it. Timeouts are rounded up to milliseconds.
    ///
    /// # Errors
    /// The virtual interface is gone. It is reported once, and the sockets go on. Else what epoll says, which it never should.
    pub fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Train>) -> io::Result<()> {
        self.flush();
        if self.flooded[0] > 0 {
            self.share.end(Instant::now());
        }
        self.flooded = [0, self.flooded[0]];
        let before = batch.len();
        let limit = before.saturating_add(self.config.batch_max);
        let mut start = None;
        let mut waited = false;
        self.woken = false;
        loop {
            let nap = self.tend_held();
            if self.ready.is_empty() {
                let mut left = timeout;
                // The clock is read only where there is something to count down.
                if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
                    let now = Instant::now();
                    let start = *start.get_or_insert(now);
                    left = Some(timeout.saturating_sub(now.duration_since(start)));
                }
                if waited && left.is_some_and(|left| left.is_zero()) {
                    return Ok(());
                }
                self.look(left.into_iter().chain(nap).min())?;
                waited = true;
            }
            self.serve(batch, limit)?;
            // Without a free slot nothing can be received: the caller has to give some back.
            if batch.len() > before || self.woken || self.slots.free() == 0 {
                if batch.len() > before {
                    self.counters.batches.note(batch.len() - before);
                    self.company.end_turn(Instant::now);
                    if self.config.is_fair() {
                        self.fair.sort(batch, before);
                    }
                    if self.flooded[0] > 0 {
                        self.share.begin(Instant::now(), batch.len() - before);
                    }
                    let flying = (batch.len() - before) as u64;
                    self.counters.buffers_in_flight_max = self.counters.buffers_in_flight_max.max(flying);
                }
                return Ok(());
            }
        }
    }

    /// Asks epoll, and notes what it tells.
    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(timeout) => {
                let millis = timeout.as_nanos().div_ceil(1_000_000);
                EpollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX))
            }
        };
        let mut events = [EpollEvent::empty(); EVENTS];
        self.counters.enters += 1;
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            match event.data() {
                TOKEN_WAKER => {
                    self.waker.rearm();
                    self.woken = true;
                }
                TOKEN_INSIDE => self.ready.push_back(Ready::Inside),
                socket => {
                    let flags = event.events();
                    // An error on a socket is read like a datagram, and so cleared.
                    let readable = flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
                    let writable = flags.contains(EpollFlags::EPOLLOUT);
                    if let Ok(number) = u16::try_from(socket) {
                        self.ready.push_back(Ready::Socket { number, readable, writable });
                    }
                }
            }
        }
        Ok(())
    }

    /// Serves what is ready, each once, until the batch is full.
    fn serve(&mut self, batch: &mut Vec<Train>, limit: usize) -> io::Result<()> {
        while batch.len() < limit {
            let Some(ready) = self.ready.pop_front() else { return Ok(()) };
            match ready {
                Ready::Socket { number, readable, writable } => {
                    if writable {
                        self.send_held(number)?;
                    }
                    if readable {
                        self.receive_some(number, limit, batch);
                    }
                }
                Ready::Inside => self.read_inside(limit - batch.len(), batch)?,
            }
        }
        Ok(())
    }

    /// Receives of a socket: what fits the cache, and where there are other sockets, no more than it may have in a turn. What is left
    /// is told by the next look at epoll, with what others have.
    fn receive_some(&mut self, number: u16, limit: usize, batch: &mut Vec<Train>) {
        let shallow = !self.config.without.technique(Technique::Shallow);
        let fits = if shallow { usize::from(self.trains.trains()).min(MESSAGES) } else { MESSAGES };
        if !self.config.is_fair() {
            while self.receive(number, fits.min(limit - batch.len()), batch) == fits && batch.len() < limit {}
            return;
        }
        let others = self.company.is_there();
        let share = usize::from(self.share.trains()) / self.flooded[1].max(1);
        let room = if others { fits.min(share.max(1)) } else { fits };
        let received = self.receive(number, room.min(limit - batch.len()), batch);
        self.flooded[0] += usize::from(others && received == room);
    }

    /// One receive of a socket: how many trains it took.
    fn receive(&mut self, number: u16, room: usize, batch: &mut Vec<Train>) -> usize {
        let Some(Some(socket)) = self.sockets.get(usize::from(number)) else { return 0 };
        let room = room.min(self.slots.free());
        if room == 0 {
            self.counters.starved += 1;
            return 0;
        }
        self.counters.enters += 1;
        // What another failure there may be (an ICMP error of an earlier send) is cleared by this.
        let Ok(received) = self.inbound.receive(socket.socket.as_fd(), room) else { return 0 };
        for index in 0..received {
            let message = self.inbound.message(index);
            let (name, control) = self.inbound.told(index);
            let told = control::parse(name, control, message.length, message.flags);
            let slot = match told {
                None => {
                    self.counters.drops_truncated += 1;
                    message.slot
                }
                Some(told) => {
                    let segments = told.length.div_ceil(told.segment_bytes).max(1);
                    self.counters.trains_in += 1;
                    self.counters.lengths_in.note(segments);
                    self.counters.datagrams_in += segments as u64;
                    self.counters.bytes_in += told.length as u64;
                    self.trains.note(told.length);
                    let from = Endpoint { socket: SocketId(number), remote: told.remote, local: told.local };
                    let buffer = self.slots.mint(message.slot);
                    let place = 0..told.length;
                    batch.push(Train::new(
                        &self.owner,
                        buffer,
                        place,
                        told.segment_bytes,
                        Origin::Outside(from),
                        told.tos,
                    ));
                    self.slots.take().expect("no more is received than there are free slots")
                }
            };
            self.inbound.refill(index, slot, &self.slots);
        }
        if received > 0 {
            self.company.note(number);
        }
        received
    }

    /// Reads packets of the interface. That it is gone is told once.
    fn read_inside(&mut self, room: usize, batch: &mut Vec<Train>) -> io::Result<()> {
        let Some(device) = &self.inside else { return Ok(()) };
        for _ in 0..room.min(PACKETS) {
            let Some(slot) = self.slots.take() else {
                self.counters.starved += 1;
                return Ok(());
            };
            let mut buffer = self.slots.mint(slot);
            let bytes = self.slots.bytes_mut(&mut buffer, 0..SLOT_BYTES);
            self.counters.enters += 1;
            match nix::unistd::read(device, bytes) {
                Ok(length @ 1..) => {
                    self.counters.inside_in += 1;
                    batch.push(Train::new(&self.owner, buffer, 0..length, length, Origin::Inside, 0));
                }
                outcome => {
                    self.slots.give(buffer);
                    if matches!(outcome, Err(Errno::EAGAIN | Errno::EINTR)) {
                        return Ok(());
                    }
                    // Watched on, it would be reported for ever.
                    self.epoll.delete(device)?;
                    let cause = outcome.map_or_else(io::Error::from, |_| io::ErrorKind::UnexpectedEof.into());
                    return Err(io::Error::new(cause.kind(), format!("the virtual interface is gone: {cause}")));
                }
            }
        }
        Ok(())
    }

    /// Drops held sends that have waited for too long. Returns when to look again, if there is need to.
    fn tend_held(&mut self) -> Option<Duration> {
        if self.held.is_empty() {
            return None;
        }
        self.counters.drops_send_full += self.held.drop_late(Instant::now());
        (!self.held.is_empty()).then_some(HELD_INTERVAL)
    }

    /// Sends what is held of a socket that has room again; when nothing is left, its room is watched no more.
    fn send_held(&mut self, number: u16) -> io::Result<()> {
        while let Some(slot) = self.held.next_ready_of(number) {
            let outcome = self.transmit_held(slot);
            match outcome.as_ref().map_err(io::Error::raw_os_error) {
                Err(Some(libc::EAGAIN | libc::EINTR)) => {
                    self.held.put_back(slot);
                    return Ok(());
                }
                Ok(()) => {
                    let letter = self.held.finish(slot);
                    self.counters.sends += 1;
                    self.counters.lengths_out.note(letter.segments as usize);
                    self.counters.datagrams_out += u64::from(letter.segments);
                    self.counters.bytes_out += u64::from(letter.bytes);
                }
                Err(Some(libc::ENOBUFS)) => {
                    self.counters.drops_send_full += u64::from(self.held.finish(slot).segments);
                }
                Err(_) => self.counters.drops_send_failed += u64::from(self.held.finish(slot).segments),
            }
        }
        self.watch_room(number, false)
    }

    /// Lets epoll tell, or tell no more, that a socket can send.
    pub(crate) fn watch_room(&self, number: u16, room: bool) -> io::Result<()> {
        let Some(socket) = self.socket(number) else { return Ok(()) };
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, room);
        let mut event = EpollEvent::new(flags, u64::from(number));
        Ok(self.epoll.modify(&socket.socket, &mut event)?)
    }
}
