//! The generator: whole frames, many for each system call, by a fixed schedule or as fast as they go.
//!
//! 1. Bursts go round: one of the first client, one of the second, and so on; sizes take turns from burst to burst.
//! 2. A burst is one frame, and the kernel cuts it where the link mode says so: at once in `wire` and `nic`, never in `veth`.
//! 3. Frames are written into memory that stays in the processor's cache, and go to the kernel `BATCH_MAX` at a time. It copies
//!    them, so the memory is free when the call returns.
//!
//! # Pace
//! A paced run is laid out before it starts, by [`Schedule`]. A thread cannot be woken for each datagram at a million a second, and it
//! shares its processor with the sinks and the softirqs of the link. So it wakes at most once in [`TICK`]: what falls into a tick is
//! due at the tick's beginning, and leaves together. Up to 20,000 bursts a second, each has a tick of its own. Delays are measured
//! from when a datagram was due; the layout is honest about which leave together, and the mean rate is exact. What is late is sent at
//! once; nothing is left out.
//!
//! Between ticks it sleeps, and spins for the last [`SPIN`] before one.
//!
//! # What counts as sent
//! All that was handed to the kernel. A link whose other end has no room says so for a whole frame, of which some datagrams may
//! have passed: they count as sent, and as [`Sent::refused`].

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use mesh_lab::Interface;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

use super::frames::{BURST_MAX, FRAME_HEAD_BYTES, Template, Train};
use super::sys::{self, BATCH_MAX};
use super::{Flow, Schedule, frame};
use crate::relay::Payload;

/// The shortest time between two wakes of a paced run.
pub const TICK: Duration = Duration::from_micros(50);
/// How long before a tick the generator stops sleeping.
pub const SPIN: Duration = Duration::from_micros(15);
/// The longest sleep, so that [`Generator::stop`] is heard.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// A paced run that cannot keep its pace is ended when it has taken so much longer than it should, and a quarter of its time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Memory for the frames of one system call: they stay in a cache of the second level.
const FRAMES_BYTES: usize = 256 * 1024;
/// Frames that the kernel has taken and not passed on yet.
const SOCKET_BUFFER_BYTES: usize = 64 << 20;
/// Numbers the runs of this process.
static RUNS: AtomicU32 = AtomicU32::new(1);

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as frames can be handed over. They are due when they are written.
    Full,
    /// So many datagrams a second, at least 1.
    PerSecond(u64),
}

/// What one run sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The run, as its datagrams are stamped.
    pub run: u32,
    /// Datagrams handed to the kernel.
    pub datagrams: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Frames they were in.
    pub frames: u64,
    /// Datagrams that a paced run should have sent. At full speed, and of a run that was stopped, those it did send.
    pub planned: u64,
    /// From the first frame written to the return of the last call.
    pub elapsed: Duration,
    /// How late the hundredth part of the datagrams was handed over, at least; 0 at full speed.
    pub late_p99: Duration,
    /// How late the latest one was handed over; 0 at full speed.
    pub late_max: Duration,
    /// Datagrams in frames for which the link had no room, all or in part. They are in `datagrams`, too.
    pub refused: u64,
}

impl Sent {
    /// Datagrams a second.
    pub fn per_second(&self) -> f64 {
        self.datagrams as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Sends the datagrams of some flows. See the [module](self).
#[derive(Debug)]
pub struct Generator {
    /// Away while a run is under way.
    sender: Option<Box<Sender>>,
    running: Option<JoinHandle<(Box<Sender>, Result<Sent>)>>,
    stop: Arc<AtomicBool>,
}

impl Generator {
    /// Prepares to send by the interface `from` to its neighbour `next_hop`, from a thread on `processor`.
    ///
    /// # Errors
    /// There is no flow, a burst has no or over [`BURST_MAX`] datagrams, a payload is no body, an interface is gone, or packet sockets
    /// are refused.
    pub fn new(
        from: &Interface,
        next_hop: &Interface,
        flows: &[Flow],
        payload: Payload,
        burst: u16,
        processor: usize,
    ) -> Result<Self> {
        let sizes = payload.sizes();
        let fits = |bytes: &u16| (frame::BODY_BYTES_MIN..=frame::BODY_BYTES_MAX).contains(&usize::from(*bytes));
        ensure!(sizes.iter().all(fits), "a datagram has 64 to 1472 bytes, not {payload}");
        ensure!((1..=BURST_MAX).contains(&burst), "a burst has 1 to {BURST_MAX} datagrams, not {burst}");
        ensure!(!flows.is_empty(), "there is no flow");
        let mac = |interface| -> Result<[u8; 6]> {
            let address = sys::link_address(interface)?;
            address.addr().with_context(|| format!("{interface:?} has no MAC address"))
        };
        let (from_mac, to_mac) = (mac(from)?, mac(next_hop)?);
        let numbered = flows.iter().zip(0..);
        let templates: Vec<_> = numbered.map(|(flow, number)| Template::new(number, flow, from_mac, to_mac)).collect();

        let size = sizes.iter().max().copied().unwrap_or_default();
        let datagram_bytes = templates.iter().map(|template| template.datagram_bytes(size)).max().unwrap_or_default();
        let sender = Sender {
            socket: sys::sending_socket(from, SOCKET_BUFFER_BYTES)?,
            processor,
            sizes,
            burst,
            sequences: vec![0; templates.len()],
            templates,
            burst_at_full: burst,
            batch: Batch::new(datagram_bytes * usize::from(burst)),
            datagram_bytes,
        };
        Ok(Self { sender: Some(Box::new(sender)), running: None, stop: Arc::new(AtomicBool::new(false)) })
    }

    /// Has a run at full speed put as many bursts into one frame as it holds, where they are of the only flow and of one size. Say
    /// it where the link cuts every frame and gathers none (`wire`): each datagram arrives by itself either way, and the generator
    /// is twice as fast.
    ///
    /// # Errors
    /// A run is under way.
    pub fn merge_bursts(&mut self) -> Result<()> {
        let sender = self.sender.as_mut().context("the generator is at work already")?;
        if sender.templates.len() == 1 && sender.sizes.len() == 1 {
            sender.burst_at_full = BURST_MAX / sender.burst * sender.burst;
            sender.batch = Batch::new(sender.datagram_bytes * usize::from(sender.burst_at_full));
        }
        Ok(())
    }

    /// Sends for `duration`, and tells what was sent.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub fn run(&mut self, pace: Pace, duration: Duration) -> Result<Sent> {
        self.start(pace, duration)?;
        self.wait()
    }

    /// Begins to send for `duration`; the number of the run. [`Generator::wait`] tells what was sent.
    ///
    /// # Errors
    /// A run is under way, or no thread can be started.
    pub fn start(&mut self, pace: Pace, duration: Duration) -> Result<u32> {
        let mut sender = self.sender.take().context("the generator is at work already")?;
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        self.stop.store(false, Ordering::Relaxed);
        let stop = Arc::clone(&self.stop);
        let work = move || {
            let sent = sender.run(run, pace, duration, &stop);
            (sender, sent)
        };
        self.running = Some(thread::Builder::new().name("generator".to_owned()).spawn(work).context("start a thread")?);
        Ok(run)
    }

    /// Waits for the end of the run, and tells what was sent.
    ///
    /// # Errors
    /// No run is under way, or the interface is down or gone.
    pub fn wait(&mut self) -> Result<Sent> {
        let running = self.running.take().context("the generator is not at work")?;
        let (sender, sent) = running.join().map_err(|_| anyhow!("the generator panicked"))?;
        self.sender = Some(sender);
        sent
    }

    /// Ends the run under way, if there is one; [`Generator::wait`] tells what was sent.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop();
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

/// What a run works with.
#[derive(Debug)]
struct Sender {
    socket: OwnedFd,
    processor: usize,
    templates: Vec<Template>,
    /// The next datagram's place in each flow.
    sequences: Vec<u64>,
    sizes: Vec<u16>,
    burst: u16,
    /// Datagrams in a frame at full speed.
    burst_at_full: u16,
    batch: Batch,
    /// Bytes of the largest datagram.
    datagram_bytes: usize,
}

/// The frames of one system call.
#[derive(Debug)]
struct Batch {
    memory: Vec<u8>,
    frame_bytes: usize,
    frames_max: usize,
    /// Bytes of each.
    frames: Vec<usize>,
}

impl Batch {
    /// For frames that carry so many bytes.
    fn new(train_bytes: usize) -> Self {
        let frame_bytes = (FRAME_HEAD_BYTES + train_bytes).next_multiple_of(64);
        let frames_max = (FRAMES_BYTES / frame_bytes).clamp(1, BATCH_MAX);
        Self {
            memory: vec![0; frame_bytes * frames_max],
            frame_bytes,
            frames_max,
            frames: Vec::with_capacity(frames_max),
        }
    }

    fn is_full(&self) -> bool {
        self.frames.len() == self.frames_max
    }
}

/// Which burst is next.
#[derive(Default)]
struct Bursts {
    /// How many there were.
    written: u64,
    flow: usize,
    size: usize,
}

/// A run under way.
struct Run<'a> {
    id: u32,
    stop: &'a AtomicBool,
    started: Duration,
    bursts: Bursts,
    sent: Sent,
    /// How late datagrams were, in nanoseconds.
    late: Histogram<u64>,
}

impl Sender {
    fn run(&mut self, id: u32, pace: Pace, duration: Duration, stop: &AtomicBool) -> Result<Sent> {
        sys::pin(self.processor)?;
        // Else the kernel wakes up to 50 us late on purpose.
        nix::sys::prctl::set_timerslack(1).context("ask for prompt wakes")?;
        self.sequences.fill(0);
        let zero = Duration::ZERO;
        let sent = Sent {
            run: id,
            datagrams: 0,
            bytes: 0,
            frames: 0,
            planned: 0,
            elapsed: zero,
            late_p99: zero,
            late_max: zero,
            refused: 0,
        };
        let mut run = Run { id, stop, started: now()?, bursts: Bursts::default(), sent, late: super::delays() };
        match pace {
            Pace::Full => self.run_full(&mut run, duration)?,
            Pace::PerSecond(rate) => self.run_paced(&mut run, rate, duration)?,
        }
        run.sent.elapsed = now()?.saturating_sub(run.started);
        run.sent.late_p99 = Duration::from_nanos(run.late.value_at_quantile(0.99));
        run.sent.late_max = Duration::from_nanos(run.late.max());
        Ok(run.sent)
    }

    fn run_full(&mut self, run: &mut Run<'_>, duration: Duration) -> Result<()> {
        let wall = wall_ahead()?;
        loop {
            let now = now()?;
            if now.saturating_sub(run.started) >= duration || run.stop.load(Ordering::Relaxed) {
                run.sent.planned = run.sent.datagrams;
                return Ok(());
            }
            let due = nanos(now + wall);
            while !self.batch.is_full() {
                self.write_burst(run, self.burst_at_full, due);
            }
            self.send(run, self.burst_at_full)?;
        }
    }

    fn run_paced(&mut self, run: &mut Run<'_>, rate: u64, duration: Duration) -> Result<()> {
        let schedule = Schedule::new(rate);
        let burst = u64::from(self.burst);
        let in_tick = (u128::from(rate) * TICK.as_nanos() / 1_000_000_000 / u128::from(burst)).max(1);
        let in_tick = u64::try_from(in_tick).unwrap_or(u64::MAX);
        // What is due at the very end is left to the next run.
        let due = schedule.due_by(duration);
        let due = if schedule.due(due - 1) < duration { due } else { due - 1 };
        let bursts = due.div_ceil(burst);
        run.sent.planned = bursts * burst;
        let wall = wall_ahead()?;
        let latest = run.started + duration + duration / 4 + PATIENCE;
        while run.bursts.written < bursts {
            let due = run.started + schedule.due(run.bursts.written * burst);
            let Some(mut now) = wait_until(due, run.stop)? else {
                run.sent.planned = run.sent.datagrams;
                return Ok(());
            };
            let tick_ends = run.bursts.written.saturating_add(in_tick).min(bursts);
            while run.bursts.written < tick_ends {
                let before = run.sent.datagrams;
                while !self.batch.is_full() && run.bursts.written < tick_ends {
                    self.write_burst(run, self.burst, nanos(due + wall));
                }
                self.send(run, self.burst)?;
                let late = nanos(now.saturating_sub(due));
                run.late.saturating_record_n(late, run.sent.datagrams - before);
                now = self::now()?;
            }
            if now > latest {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes the next burst.
    fn write_burst(&mut self, run: &mut Run<'_>, count: u16, due: u64) {
        let Bursts { written, flow, size } = &mut run.bursts;
        let (template, body_bytes) = (&self.templates[*flow], self.sizes[*size]);
        let sequence = self.sequences[*flow];
        self.sequences[*flow] += u64::from(count);
        *written += 1;
        *flow = (*flow + 1) % self.templates.len();
        *size = (*size + 1) % self.sizes.len();

        let at = self.batch.frames.len() * self.batch.frame_bytes;
        let memory = &mut self.batch.memory[at..at + self.batch.frame_bytes];
        let length = template.write(memory, Train { body_bytes, count, sequence, due, run: run.id });
        self.batch.frames.push(length);
        run.sent.datagrams += u64::from(count);
        run.sent.bytes += u64::from(count) * u64::from(body_bytes);
        run.sent.frames += 1;
    }

    /// Hands over all frames of the batch, of `count` datagrams each.
    fn send(&mut self, run: &mut Run<'_>, count: u16) -> Result<()> {
        let Batch { memory, frame_bytes, frames, .. } = &mut self.batch;
        let mut done = 0;
        while done < frames.len() {
            let left = memory.chunks_exact(*frame_bytes).zip(frames.iter()).skip(done);
            let taken = match sys::send_many(&self.socket, left.map(|(memory, length)| &memory[..*length])) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => 0,
                taken => taken.context("hand frames to the kernel")?,
            };
            done += taken;
            if done < frames.len() {
                // Refused. Trouble of another kind comes back with the next one.
                run.sent.refused += u64::from(count);
                done += 1;
            }
        }
        frames.clear();
        Ok(())
    }
}

/// Sleeps until a time on the clock of [`now`], and tells what time it is then; nothing if `stop` was set.
fn wait_until(due: Duration, stop: &AtomicBool) -> Result<Option<Duration>> {
    loop {
        let now = now()?;
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if now >= due {
            return Ok(Some(now));
        }
        if due - now > SPIN {
            let wake = TimeSpec::from((due - SPIN).min(now + SLEEP_MAX));
            match clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &wake) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("sleep"),
            }
        } else {
            std::hint::spin_loop();
        }
    }
}

/// The time on a clock that is never set.
fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC).context("read the clock")?.into())
}

/// How far the wall clock, by which the kernel stamps frames, is ahead of [`now`]. Both are slewed alike.
fn wall_ahead() -> Result<Duration> {
    let wall = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME).context("read the clock")?);
    Ok(wall.saturating_sub(now()?))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
