//! From completions to trains.

use std::io;
use std::time::{Duration, Instant};

use mesh_udp::{Endpoint, Origin, SocketId, Train};

use crate::buffers::Lane;
use crate::engine::Engine;
use crate::heading::{self, HEADING_BYTES};
use crate::op::Op;
use crate::ring::{Completion, Pointless};
use crate::sys::Collect;

/// Failures of a receive in a row after which it is left alone for a while.
const FAILURES_MAX: u8 = 8;

/// How long: a socket or an interface with a lasting fault must not keep the thread busy.
const QUIET_TIME: Duration = Duration::from_millis(100);

/// A flooded socket that finds nothing left so many times in a row, though it is started first, is flooded no more.
const MODEST_TURNS: u16 = 16;

/// Waits in a row without a flood, after which there is none.
const CALM_WAITS: u16 = 16;

/// A socket with fewer trains in a turn is not flooded, however long they are.
const GREEDY_MIN: u16 = 8;

/// Turns with fewer trains tell little of what one costs.
const TRAINS_MEASURED: u16 = 8;

/// How often the engine looks after held sends.
const HELD_INTERVAL: Duration = Duration::from_millis(20);

/// What is read from: a socket by its number, or the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    Socket(u16),
    Inside,
}

impl Engine {
    /// Submits what is queued, as [`flush`](Engine::flush) does, and waits for trains, at most `timeout` (`None`: without end).
    /// Appends them to `batch`, at most [`Config::batch_max`](crate::Config::batch_max). Adds none if the time passed or the waker was
    /// used; with a timeout it may also return early with none.
    ///
    /// # Errors
    /// When the kernel takes no submissions at all.
    pub fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Train>) -> io::Result<()> {
        let before = batch.len();
        let result = self.wait_for_trains(timeout, batch);
        let trains = batch.len() - before;
        if trains > 0 {
            self.company.end_turn(Instant::now);
            if self.config.is_fair() {
                self.fair.sort(batch, before);
            }
            if trains >= usize::from(TRAINS_MEASURED) || !self.flooded.is_empty() {
                self.share.begin(Instant::now(), trains);
            }
            self.pace.note(trains);
            self.counters.batches.note(trains);
            self.counters.buffers_in_flight_max = self.counters.buffers_in_flight_max.max(trains as u64);
        }
        result
    }

    fn wait_for_trains(&mut self, timeout: Option<Duration>, batch: &mut Vec<Train>) -> io::Result<()> {
        let before = batch.len();
        let limit = before.saturating_add(self.config.batch_max.max(1));
        let mut start = None;
        let mut entered = false;
        self.starving = 0;
        self.woken = false;
        self.turn += 1;
        let sharing = self.config.is_fair() && self.company.is_there() && self.memories.outside.has_lanes();
        self.greedy = if sharing { GREEDY_MIN.max(2 * self.busy_share()) } else { u16::MAX };
        let flushed = self.flush_with_wait(|engine| match timeout {
            Some(timeout) if timeout.is_zero() => Collect::Due,
            timeout if engine.ring.features().gathering_waits => {
                // Those of the busy lane are few, and emptied at once.
                let calm = engine.flooded.is_empty();
                let buffers = if calm { engine.memories.outside.available(Lane::Quiet) } else { 0 };
                engine.pace.collect(Instant::now(), timeout, buffers, !engine.company.is_there())
            }
            timeout => Collect::Wait(timeout),
        })?;
        if flushed {
            self.share.forget();
            self.note_calm();
            self.handle_completions(batch, limit);
            // Whether its time has passed is not known without a look at the clock: the caller asks again.
            if batch.len() > before || self.woken || timeout.is_some() {
                return Ok(());
            }
        } else {
            self.flush()?;
            if self.share.is_under_way() {
                self.share.end(Instant::now());
            }
            if !self.flooded.is_empty() {
                self.memories.outside.set_busy_depth(self.busy_share());
            }
        }
        loop {
            let chores = self.do_chores()?;
            self.start_receivers()?;
            self.handle_completions(batch, limit);
            if batch.len() > before || self.woken {
                return Ok(());
            }
            self.start_receivers()?;
            let mut left = timeout;
            // The clock is read only where there is nothing to do but wait.
            if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
                let now = Instant::now();
                let start = *start.get_or_insert(now);
                left = Some(timeout.saturating_sub(now.duration_since(start)));
            }
            if entered && left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            let more = self.is_flooded() && self.memories.outside.available(Lane::Busy) > 0;
            let collect = match left.into_iter().chain(chores).min() {
                _ if more => Collect::Due,
                Some(nap) if nap.is_zero() => Collect::Due,
                nap => Collect::Wait(nap),
            };
            match self.enter(collect) {
                Ok(()) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    self.stash_completions();
                    self.submit_all(Collect::Due)?;
                }
                Err(error) => return Err(error),
            }
            entered = true;
        }
    }

    /// Enters the kernel.
    pub(crate) fn enter(&mut self, collect: Collect) -> io::Result<()> {
        self.started = 0;
        match self.ring.enter(collect) {
            // A signal is no failure of a call that did not wait.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) && !matches!(collect, Collect::Wait(_)) => Ok(()),
            other => other,
        }
    }

    /// Reads the completion queue: what concerns sends is dealt with, the rest is kept in order for the next wait.
    pub(crate) fn stash_completions(&mut self) {
        while let Some(completion) = self.ring.next_completion() {
            self.note_end(&completion);
            if !self.handle_sent(&completion) {
                self.stash.push_back(completion);
            }
        }
    }

    /// Deals with completions until the batch is full.
    fn handle_completions(&mut self, batch: &mut Vec<Train>, limit: usize) {
        while batch.len() < limit {
            if let Some(completion) = self.stash.pop_front() {
                self.handle_received(&completion, batch);
            } else if let Some(completion) = self.ring.next_completion() {
                self.note_end(&completion);
                if !self.handle_sent(&completion) {
                    self.handle_received(&completion, batch);
                }
            } else {
                return;
            }
        }
    }

    /// Notes that an operation has ended, as soon as its last completion is seen.
    fn note_end(&mut self, completion: &Completion) {
        if completion.more() {
            return;
        }
        match completion.op {
            Op::Receive { socket, generation } => {
                if let Some(Some(socket)) = self.sockets.get_mut(usize::from(socket))
                    && socket.generation == generation
                {
                    socket.armed = false;
                }
            }
            Op::Read => {
                if let Some(inside) = &mut self.memories.inside {
                    inside.armed = false;
                }
            }
            Op::Wake => self.waker_armed = false,
            Op::Send { .. } | Op::Held { .. } | Op::Write | Op::Cancel => {}
        }
    }

    /// Deals with a completion of what goes out. `false` if it is of something else.
    fn handle_sent(&mut self, completion: &Completion) -> bool {
        match completion.op {
            Op::Send { slot } => {
                if let Some(error) = completion.error() {
                    self.sends.failed(slot, error);
                }
            }
            Op::Held { slot } => self.held_completed(slot, completion),
            Op::Write => {
                if completion.error().is_some() {
                    self.sends.write_failed();
                }
            }
            Op::Cancel => {}
            Op::Receive { .. } | Op::Read | Op::Wake => return false,
        }
        true
    }

    fn handle_received(&mut self, completion: &Completion, batch: &mut Vec<Train>) {
        match completion.op {
            Op::Receive { socket, generation } => self.handle_datagrams(socket, generation, completion, batch),
            Op::Read => self.handle_packet(completion, batch),
            Op::Wake => {
                self.waker.rearm();
                self.woken = true;
            }
            Op::Send { .. } | Op::Held { .. } | Op::Write | Op::Cancel => {}
        }
    }

    fn handle_datagrams(&mut self, number: u16, generation: u32, completion: &Completion, batch: &mut Vec<Train>) {
        let buffer = completion.buffer().map(|index| self.memories.outside.take(index));
        let socket = self.sockets.get_mut(usize::from(number)).and_then(Option::as_mut);
        let Some(socket) = socket.filter(|socket| socket.generation == generation) else {
            // The last words of a socket that is gone.
            if let Some(buffer) = buffer {
                self.memories.outside.give(buffer);
                self.memories.outside.publish();
            }
            return;
        };
        if let Some(error) = completion.error() {
            socket.failures = socket.failures.saturating_add(1);
            if matches!(error, libc::ENOBUFS | libc::ECANCELED) {
                socket.failures = 0;
            }
        } else {
            socket.failures = 0;
            let before = if socket.taken.0 == self.turn { socket.taken.1 } else { 0 };
            socket.taken = (self.turn, before.saturating_add(1));
            socket.fed = true;
            self.company.note(number);
        }
        let failures = socket.failures;
        let greedy = socket.taken == (self.turn, self.greedy) && socket.lane == Lane::Quiet && completion.more();
        if completion.error() == Some(libc::ENOBUFS) {
            self.note_shortage(number);
        } else if greedy {
            self.note_flood(number);
            self.cancel_later.push((number, generation));
        }
        if !completion.more() {
            self.start_later(Receiver::Socket(number), failures);
        }
        let Some(buffer) = buffer else { return };
        let heading: Option<&[u8; HEADING_BYTES]> =
            self.memories.outside.bytes(&buffer, 0..HEADING_BYTES).first_chunk();
        let filled = usize::try_from(completion.result).unwrap_or(0);
        let Some(received) = heading.and_then(|heading| heading::parse(heading, filled)) else {
            self.counters.drops_truncated += 1;
            self.memories.outside.give(buffer);
            self.memories.outside.publish();
            return;
        };
        self.counters.trains_in += 1;
        let segments = received.length.div_ceil(received.segment_bytes).max(1);
        self.counters.lengths_in.note(segments);
        self.counters.datagrams_in += segments as u64;
        self.counters.bytes_in += received.length as u64;
        self.memories.outside.note(received.length);
        let from = Endpoint { socket: SocketId(number), remote: received.remote, local: received.local };
        let place = HEADING_BYTES..HEADING_BYTES + received.length;
        let origin = Origin::Outside(from);
        batch.push(Train::new(&self.owner, buffer, place, received.segment_bytes, origin, received.tos));
    }

    /// A socket found its ring without a buffer: either it has emptied it itself and is flooded, or another has.
    fn note_shortage(&mut self, number: u16) {
        self.counters.starved += 1;
        let sharing = self.greedy < u16::MAX;
        let pool = &mut self.memories.outside;
        let Some(Some(socket)) = self.sockets.get_mut(usize::from(number)) else { return };
        // A full batch may have ended before this was read.
        let lately = socket.taken.0 + 1 >= self.turn;
        if socket.lane == Lane::Busy {
            self.calm = 0;
            socket.modest = if lately { 0 } else { socket.modest + 1 };
            // Flooded ones take turns, so that each is left out that often.
            if usize::from(socket.modest) > usize::from(MODEST_TURNS) + self.flooded.len() {
                socket.lane = Lane::Quiet;
                self.forget_flood(number);
            }
            return;
        }
        // A batch is full before a deep ring is empty.
        let most = usize::from(pool.depth()).min(self.config.batch_max);
        if sharing && lately && usize::from(socket.taken.1) >= most / 2 {
            self.note_flood(number);
            return;
        }
        self.starving += 1;
        match self.starving {
            // One sender may fill a ring that is shallow on purpose; all that has to be done is to start again.
            1 if pool.is_shallow() => {}
            1 => drop(pool.grow()),
            2 => pool.deepen(),
            // A burst ends the receives of many sockets at once; that is one shortage.
            _ => {}
        }
    }

    /// A socket is flooded: its next receive takes from the ring of those.
    fn note_flood(&mut self, number: u16) {
        let Some(Some(socket)) = self.sockets.get_mut(usize::from(number)) else { return };
        (socket.lane, socket.modest) = (Lane::Busy, 0);
        self.flooded.push(number);
        self.calm = 0;
        self.memories.outside.set_busy_depth(self.busy_share());
    }

    /// Trains that flooded sockets have in a turn, all together: no more than half of what a turn can hand out.
    fn busy_share(&self) -> u16 {
        let most = u16::try_from(self.config.batch_max / 2).unwrap_or(u16::MAX);
        self.share.trains().min(most.max(GREEDY_MIN / 2))
    }

    /// A socket is flooded no more.
    pub(crate) fn forget_flood(&mut self, number: u16) {
        self.flooded.retain(|flooded| *flooded != number);
        if self.flooded.is_empty() {
            self.memories.outside.set_busy_depth(0);
        }
    }

    /// A wait that found all that had come received: after some of them in a row the floods are over.
    fn note_calm(&mut self) {
        if self.flooded.is_empty() {
            return;
        }
        self.calm += 1;
        if self.calm < CALM_WAITS {
            return;
        }
        while let Some(number) = self.flooded.pop() {
            let Some(Some(socket)) = self.sockets.get_mut(usize::from(number)) else { continue };
            socket.lane = Lane::Quiet;
            if socket.armed {
                self.cancel_later.push((number, socket.generation));
            }
        }
        self.memories.outside.set_busy_depth(0);
        self.idle.extend(self.left_out.drain(..).chain(self.waiting.drain(..)).map(Receiver::Socket));
    }

    /// Ends receives that are to take from the other ring; they start again when they have ended.
    fn cancel_receives(&mut self) -> io::Result<()> {
        while let Some((number, generation)) = self.cancel_later.pop() {
            // It may have ended by itself.
            if self.socket(number).is_some_and(|socket| socket.armed && socket.generation == generation) {
                let receive = Op::Receive { socket: number, generation };
                self.post_pointless(Op::Cancel, Pointless::CancelOp(receive))?;
            }
        }
        Ok(())
    }

    fn handle_packet(&mut self, completion: &Completion, batch: &mut Vec<Train>) {
        let Some(inside) = &mut self.memories.inside else { return };
        let buffer = completion.buffer().map(|index| inside.pool.take(index));
        match completion.error() {
            None => inside.failures = 0,
            Some(libc::ENOBUFS) => {
                self.counters.starved += 1;
                inside.pool.grow();
            }
            // Not every device can do it: go on with a read for each packet.
            Some(libc::EINVAL | libc::EBADFD | libc::EOPNOTSUPP) if inside.multishot => inside.multishot = false,
            Some(_) => inside.failures = inside.failures.saturating_add(1),
        }
        let failures = inside.failures;
        let length = usize::try_from(completion.result).unwrap_or(0);
        let buffer = match buffer {
            Some(buffer) if length == 0 => {
                inside.pool.give(buffer);
                inside.pool.publish();
                None
            }
            other => other,
        };
        if !completion.more() {
            self.start_later(Receiver::Inside, failures);
        }
        let Some(buffer) = buffer else { return };
        self.counters.inside_in += 1;
        batch.push(Train::new(&self.owner, buffer, 0..length, length, Origin::Inside, 0));
    }

    /// Notes a receiver to be started, now or, after too many failures, in a while.
    pub(crate) fn start_later(&mut self, receiver: Receiver, failures: u8) {
        if failures < FAILURES_MAX {
            match receiver {
                Receiver::Socket(number) if self.lane_of(receiver) == Lane::Busy => self.wait_in_line(number),
                Receiver::Socket(_) | Receiver::Inside => self.idle.push(receiver),
            }
        } else {
            self.quiet.push(receiver);
            self.quiet_until.get_or_insert_with(|| Instant::now() + QUIET_TIME);
        }
    }

    /// Starts the receivers that are idle, as far as there are buffers for them: a receive that finds none ends at once.
    pub(crate) fn start_receivers(&mut self) -> io::Result<()> {
        if !self.waker_armed {
            let poll = Pointless::Poll(self.ring.file_of_waker());
            self.post_pointless(Op::Wake, poll)?;
            self.waker_armed = true;
        }
        self.cancel_receives()?;
        self.start_waiting()?;
        if self.idle.is_empty() {
            return Ok(());
        }
        let outside = &mut self.memories.outside;
        if outside.available(Lane::Quiet) == 0 && outside.is_shallow() && self.released.is_empty() {
            // A caller that keeps what it was given over a wait has it all; others are spare.
            outside.deepen();
        }
        let mut idle = std::mem::take(&mut self.idle);
        let mut starved = std::mem::take(&mut self.starved_receivers);
        for receiver in idle.drain(..) {
            match receiver {
                Receiver::Socket(number) => {
                    let Some(Some(socket)) = self.sockets.get_mut(usize::from(number)) else { continue };
                    if socket.armed {
                        continue;
                    }
                    if socket.lane == Lane::Busy {
                        self.wait_in_line(number);
                        continue;
                    }
                    if self.memories.outside.available(Lane::Quiet) == 0 {
                        starved.push(receiver);
                        continue;
                    }
                    socket.armed = true;
                    let generation = socket.generation;
                    self.post_receive(number, generation, Lane::Quiet)?;
                }
                Receiver::Inside => {
                    let Some(inside) = &mut self.memories.inside else { continue };
                    if inside.armed {
                        continue;
                    }
                    if inside.pool.available(Lane::Quiet) == 0 {
                        starved.push(receiver);
                        continue;
                    }
                    inside.armed = true;
                    let multishot = inside.multishot;
                    self.post_read(multishot)?;
                }
            }
        }
        // What found no buffer is tried again when a flush has given some back.
        self.idle = starved;
        self.starved_receivers = idle;
        Ok(())
    }

    /// Starts flooded sockets, who waits longest first, and no more of them until the next call of the kernel than there are buffers:
    /// the first one may take all, and each of the others would only fail.
    fn start_waiting(&mut self) -> io::Result<()> {
        if !self.is_flooded() {
            return Ok(());
        }
        self.memories.outside.publish_busy();
        // Where the ring of quiet sockets holds every buffer there can be, one takes from there.
        let mut dry = self.memories.outside.busy_is_dry();
        while (dry || self.started < self.memories.outside.available(Lane::Busy))
            && let Some(number) = self.left_out.pop_front().or_else(|| self.waiting.pop_front())
        {
            let Some(Some(socket)) = self.sockets.get_mut(usize::from(number)) else { continue };
            if socket.armed {
                continue;
            }
            (socket.armed, socket.fed) = (true, false);
            let lane = if std::mem::take(&mut dry) { Lane::Quiet } else { socket.lane };
            self.started += u16::from(lane == Lane::Busy);
            let generation = socket.generation;
            self.post_receive(number, generation, lane)?;
        }
        Ok(())
    }

    /// Notes a flooded socket to be started: at the end of those that wait, or of those that were left out.
    fn wait_in_line(&mut self, number: u16) {
        let fed = self.socket(number).is_none_or(|socket| socket.fed);
        let line = if fed { &mut self.waiting } else { &mut self.left_out };
        line.push_back(number);
    }

    /// Whether a flooded socket is to be started: there is more to receive.
    pub(crate) fn is_flooded(&self) -> bool {
        !self.waiting.is_empty() || !self.left_out.is_empty()
    }

    /// Starts flooded sockets before the buffers of the turn at hand are back: they have others.
    pub(crate) fn start_flooded(&mut self) -> io::Result<()> {
        if !self.is_flooded() {
            return Ok(());
        }
        self.calm = 0;
        self.memories.outside.publish_busy();
        self.start_receivers()
    }

    fn lane_of(&self, receiver: Receiver) -> Lane {
        match receiver {
            Receiver::Inside => Lane::Quiet,
            Receiver::Socket(number) => self.socket(number).map_or(Lane::Quiet, |socket| socket.lane),
        }
    }

    /// Looks after held sends and receivers that were left alone. Returns when to look again, if there is need to.
    fn do_chores(&mut self) -> io::Result<Option<Duration>> {
        if self.held.is_empty() && self.quiet_until.is_none() {
            return Ok(None);
        }
        let now = Instant::now();
        let mut next = None;
        if let Some(until) = self.quiet_until {
            if now >= until {
                self.quiet_until = None;
                self.idle.append(&mut self.quiet);
            } else {
                next = Some(until - now);
            }
        }
        if !self.held.is_empty() {
            self.counters.drops_send_full += self.held.drop_late(now);
            while let Some(slot) = self.held.next_late(now) {
                self.post_pointless(Op::Cancel, Pointless::CancelOp(Op::Held { slot }))?;
            }
            self.start_held()?;
            next = Some(next.map_or(HELD_INTERVAL, |next: Duration| next.min(HELD_INTERVAL)));
        }
        Ok(next)
    }
}
