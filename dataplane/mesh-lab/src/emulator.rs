//! An emulated link: two cables joined by a namespace in which threads forward frames as an [`Emulation`] says.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;

use crate::capture::packet_socket;
use crate::emulation::{Emulation, Fate, Line, wire_bytes};
use crate::host::Host;
use crate::link::{Interface, Kept, Link, Net, nth_of_each};
use crate::mode::LinkMode;
use crate::packets::{self, BATCH, Batch, TRAIN_HEADER_BYTES};
use crate::sys;

/// Memory for the frames on their way in one direction: those of 200 ms at 10 Gbit/s.
const HELD_BYTES_MAX: usize = 256 << 20;

/// A frame that waited longer in the packet socket came before the wall clock was set: its time says nothing.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What an emulated link has done with the frames of one direction. A train that comes uncut is one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmulationCounters {
    /// Frames passed on.
    pub forwarded: u64,
    /// Their bytes, from link header to payload.
    pub forwarded_bytes: u64,
    /// Frames lost by [`Emulation::loss`].
    pub lost: u64,
    /// Frames that found no room: more than [`Emulation::queue_bytes`] waited, or 256 MiB were on their way.
    pub queue_full: u64,
    /// Frames that came faster than the emulator could look at them. Not 0: the machine is too slow for this test.
    pub overrun: u64,
    /// Frames the kernel did not hand over or take back: an interface of the middle is switched off, or the kernel
    /// does not know how to describe such a train (those of UDP before Linux 6.2).
    pub refused: u64,
}

/// A link whose frames are delayed, lost and throttled on the way. It stays when this handle goes, as long as one of
/// its hosts does.
///
/// The hosts see an ordinary cable. Its middle is a host of two interfaces, `eth0` towards the first host and `eth1`
/// towards the second, without addresses; captures there see a frame before and after. VLAN tags do not pass.
///
/// The two threads run on the CPUs of the thread that made the link. Delays are kept within some 0.1 ms where a CPU
/// is free for them; frames are never early.
#[derive(Debug)]
pub struct EmulatedLink {
    a: Interface,
    b: Interface,
    /// The middle's ends of the cables to `a` and to `b`.
    middle: [Interface; 2],
    emulator: Arc<Emulator>,
}

impl EmulatedLink {
    pub(crate) fn new(a: &Host, b: &Host, nets: &[Net], emulation: Emulation) -> Result<EmulatedLink> {
        emulation.check()?;
        let middle = Host::new("emulator")?;
        // It is no party to the traffic: without this its interfaces would send IPv6 multicasts of their own.
        middle.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        let emulator = Arc::new(Emulator { middle, running: Mutex::default() });
        let keeps = || Some(Arc::clone(&emulator) as Kept);
        let [near, far] = [a, b].map(|host| {
            let (outer, inner) = (host.next_interface(keeps()), emulator.middle.next_interface(None));
            Link::join(outer, inner)
        });
        let (near, far) = (near?, far?);
        near.a().add_addresses(&nth_of_each(nets, 1)?)?;
        far.a().add_addresses(&nth_of_each(nets, 2)?)?;
        emulator.start([near.b().name(), far.b().name()], emulation)?;
        near.wait_until_running()?;
        far.wait_until_running()?;
        let middle = [near.b().clone(), far.b().clone()];
        Ok(EmulatedLink { a: near.a().clone(), b: far.a().clone(), middle, emulator })
    }

    /// The end in the first host.
    #[must_use]
    pub fn a(&self) -> &Interface {
        &self.a
    }

    /// The end in the second host.
    #[must_use]
    pub fn b(&self) -> &Interface {
        &self.b
    }

    /// What lies between: see [`EmulatedLink`].
    #[must_use]
    pub fn middle(&self) -> &Host {
        &self.emulator.middle
    }

    /// Changes both directions, for the frames that come from now on; those on their way arrive as they would have.
    ///
    /// # Errors
    /// A value is out of its range; then nothing is changed.
    pub fn set(&self, emulation: Emulation) -> Result<()> {
        self.set_a_to_b(emulation)?;
        self.set_b_to_a(emulation)
    }

    /// Changes the direction from the first host to the second: see [`EmulatedLink::set`].
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn set_a_to_b(&self, emulation: Emulation) -> Result<()> {
        self.emulator.set(0, emulation)
    }

    /// Changes the direction from the second host to the first: see [`EmulatedLink::set`].
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn set_b_to_a(&self, emulation: Emulation) -> Result<()> {
        self.emulator.set(1, emulation)
    }

    /// What became of the frames from the first host to the second.
    ///
    /// # Errors
    /// The emulator has failed.
    pub fn counters_a_to_b(&self) -> Result<EmulationCounters> {
        self.emulator.counters(0)
    }

    /// What became of the frames from the second host to the first.
    ///
    /// # Errors
    /// The emulator has failed.
    pub fn counters_b_to_a(&self) -> Result<EmulationCounters> {
        self.emulator.counters(1)
    }

    /// Sets the largest packet in bytes on the whole link: see [`Interface::set_mtu`].
    ///
    /// # Errors
    /// The kernel refuses the size.
    pub fn set_mtu(&self, bytes: u32) -> Result<()> {
        self.middle.iter().chain([&self.a, &self.b]).try_for_each(|end| end.set_mtu(bytes))
    }

    /// Sets what the hosts do to trains: see [`Link::set_mode`]. In [`LinkMode::Wire`] and [`LinkMode::Nic`] the
    /// emulator gets packets one by one, and each has its own loss and jitter.
    ///
    /// # Errors
    /// As [`Link::set_mode`].
    pub fn set_mode(&self, mode: LinkMode) -> Result<()> {
        // Only a host merges packets: the emulator would have to cut the trains again.
        self.middle.iter().try_for_each(|end| end.set_transmit_offloads(mode == LinkMode::Veth))?;
        self.a.set_mode(mode)?;
        self.b.set_mode(mode)
    }
}

/// The middle of an emulated link; what its interfaces in the hosts keep alive.
struct Emulator {
    middle: Host,
    running: Mutex<Option<Running>>,
}

struct Running {
    directions: [Arc<Direction>; 2],
    threads: Vec<JoinHandle<()>>,
    /// Closing this end stops the threads.
    stopper: UnixStream,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Emulator({:?})", self.middle)
    }
}

impl Emulator {
    /// Begins to forward between two interfaces of the middle.
    fn start(&self, names: [&str; 2], emulation: Emulation) -> Result<()> {
        let [near, far] = names.map(|name| self.middle.run(|| frame_socket(name)));
        let (near, far) = (near?, far?);
        let copy = |socket: &OwnedFd| socket.try_clone().context("copy a socket");
        let directions = [
            Arc::new(Direction::new(0, copy(&near)?, copy(&far)?, emulation)),
            Arc::new(Direction::new(1, far, near, emulation)),
        ];
        let (wake, stopper) = UnixStream::pair().context("make a pair of sockets")?;
        // Kept before the first thread starts: if the second fails to, the first ends with the emulator.
        let mut running = self.running();
        let running = running.insert(Running { directions, threads: Vec::new(), stopper });
        for direction in &running.directions {
            let (direction, wake) = (Arc::clone(direction), wake.try_clone().context("copy a socket")?);
            let thread = thread::Builder::new().name(format!("emulator {}", direction.number));
            let thread = thread.spawn(move || direction.run(&wake)).context("start a thread")?;
            running.threads.push(thread);
        }
        Ok(())
    }

    fn set(&self, direction: usize, emulation: Emulation) -> Result<()> {
        emulation.check()?;
        *self.direction(direction)?.emulation() = emulation;
        Ok(())
    }

    fn counters(&self, direction: usize) -> Result<EmulationCounters> {
        self.direction(direction)?.read_counters()
    }

    fn direction(&self, number: usize) -> Result<Arc<Direction>> {
        let running = self.running();
        Ok(Arc::clone(&running.as_ref().context("the emulator has not begun")?.directions[number]))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let Some(Running { threads, stopper, .. }) = self.running().take() else { return };
        drop(stopper);
        for thread in threads {
            // A panic there has printed its message, and there is nobody to pass it on to.
            let _ = thread.join();
        }
    }
}

/// A packet socket whose frames carry a header for trains and unfinished checksums.
fn frame_socket(name: &str) -> Result<OwnedFd> {
    // No frame comes before the options are set.
    let socket = packet_socket(name, 0)?;
    let options =
        [(libc::PACKET_VNET_HDR, "headers of trains"), (libc::PACKET_IGNORE_OUTGOING, "arriving frames only")];
    for (option, what) in options {
        let set = sys::set_int_option(socket.as_fd(), libc::SOL_PACKET, option, 1);
        set.with_context(|| format!("ask a packet socket for {what}"))?;
    }
    let index = if_nametoindex(name).with_context(|| format!("look up the interface {name}"))?;
    sys::bind_packet_socket(socket.as_fd(), index, libc::ETH_P_ALL as u16).context("bind a packet socket")?;
    Ok(socket)
}

/// One direction, shared by its thread and the handles of the link.
struct Direction {
    number: u64,
    from: OwnedFd,
    to: OwnedFd,
    emulation: Mutex<Emulation>,
    counters: Counters,
    failure: Mutex<Option<String>>,
}

#[derive(Default)]
struct Counters {
    forwarded: AtomicU64,
    forwarded_bytes: AtomicU64,
    lost: AtomicU64,
    queue_full: AtomicU64,
    overrun: AtomicU64,
    refused: AtomicU64,
}

impl Direction {
    fn new(number: u64, from: OwnedFd, to: OwnedFd, emulation: Emulation) -> Direction {
        let (emulation, counters, failure) = (Mutex::new(emulation), Counters::default(), Mutex::default());
        Direction { number, from, to, emulation, counters, failure }
    }

    fn emulation(&self) -> MutexGuard<'_, Emulation> {
        self.emulation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_counters(&self) -> Result<EmulationCounters> {
        if let Some(failure) = &*self.failure() {
            bail!("the emulator has ended: {failure}");
        }
        // The kernel forgets them once asked.
        let overrun = sys::packet_drops(self.from.as_fd()).context("ask for overrun frames")?;
        add(&self.counters.overrun, overrun);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { forwarded, forwarded_bytes, lost, queue_full, overrun, refused } = &self.counters;
        Ok(EmulationCounters {
            forwarded: read(forwarded),
            forwarded_bytes: read(forwarded_bytes),
            lost: read(lost),
            queue_full: read(queue_full),
            overrun: read(overrun),
            refused: read(refused),
        })
    }

    /// Forwards until the other end of `wake` is closed.
    fn run(&self, wake: &UnixStream) {
        if let Err(error) = self.forward(wake) {
            *self.failure() = Some(format!("{error:#}"));
        }
    }

    fn forward(&self, wake: &UnixStream) -> Result<()> {
        // The kernel would else round the times of waking up by 50 µs.
        set_timerslack(1).context("ask for exact timers")?;
        let (mut batch, mut held) = (Batch::new(), Held::default());
        let mut line = Line::new(self.emulation().seed, self.number);
        loop {
            self.send_due(&mut held);
            let pause = held.next().map(|due| TimeSpec::from(due.saturating_duration_since(Instant::now())));
            let mut ends =
                [PollFd::new(self.from.as_fd(), PollFlags::POLLIN), PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut ends, pause, None) {
                Err(Errno::EINTR) => continue,
                polled => polled.context("wait for frames")?,
            };
            if ends[1].any().unwrap_or(true) {
                return Ok(());
            }
            if ends[0].any().unwrap_or(true) {
                self.take(&mut batch, &mut held, &mut line)?;
            }
        }
    }

    /// Takes the frames at hand: passes on at once what is due at once, and keeps the rest.
    fn take(&self, batch: &mut Batch, held: &mut Held, line: &mut Line) -> Result<()> {
        match batch.receive(self.from.as_fd()) {
            // A train that the kernel cannot describe.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => add(&self.counters.refused, 1),
            // The interface was switched off; it may be switched on again.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
            received => {
                received.context("read frames")?;
            }
        }
        let (now, wall_now) = (Instant::now(), wall_clock());
        let emulation = *self.emulation();
        let mut at_once = Vec::with_capacity(BATCH);
        for frame in batch.frames() {
            if frame.truncated || frame.bytes.len() < TRAIN_HEADER_BYTES {
                add(&self.counters.refused, 1);
                continue;
            }
            let waited = wall_now.checked_sub(frame.at).filter(|waited| *waited < WAIT_MAX).unwrap_or_default();
            let came = now.checked_sub(waited).unwrap_or(now);
            let wire = wire_bytes((frame.bytes.len() - TRAIN_HEADER_BYTES) as u64, packets::train(frame.bytes));
            match line.admit(&emulation, wire, came) {
                Fate::Lost => add(&self.counters.lost, 1),
                Fate::QueueFull => add(&self.counters.queue_full, 1),
                Fate::Arrives(due) if due <= now && held.frames.is_empty() => at_once.push(IoSlice::new(frame.bytes)),
                Fate::Arrives(due) => {
                    if !held.insert(due, frame.bytes) {
                        add(&self.counters.queue_full, 1);
                    }
                }
            }
        }
        self.send(&at_once);
        Ok(())
    }

    fn send_due(&self, held: &mut Held) {
        loop {
            let now = Instant::now();
            let due: Vec<_> = held.frames.iter().take(BATCH).take_while(|frame| frame.due <= now).collect();
            if due.is_empty() {
                return;
            }
            let slices: Vec<_> = due.iter().map(|frame| IoSlice::new(&frame.bytes)).collect();
            self.send(&slices);
            let count = slices.len();
            held.remove(count);
        }
    }

    fn send(&self, mut frames: &[IoSlice<'_>]) {
        while !frames.is_empty() {
            let sent = packets::send(self.to.as_fd(), frames);
            if sent == 0 {
                add(&self.counters.refused, 1);
                frames = &frames[1..];
                continue;
            }
            let bytes: usize = frames[..sent].iter().map(|frame| frame.len() - TRAIN_HEADER_BYTES).sum();
            add(&self.counters.forwarded, sent as u64);
            add(&self.counters.forwarded_bytes, bytes as u64);
            frames = &frames[sent..];
        }
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// Since 1970, as the kernel stamps frames.
#[expect(clippy::disallowed_methods, reason = "only to learn how long ago the kernel stamped a frame")]
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Frames on their way, in the order of their arrival.
#[derive(Default)]
struct Held {
    frames: VecDeque<HeldFrame>,
    bytes: usize,
}

struct HeldFrame {
    due: Instant,
    bytes: Box<[u8]>,
}

impl HeldFrame {
    fn memory(&self) -> usize {
        size_of::<HeldFrame>() + self.bytes.len()
    }
}

impl Held {
    /// When the next frame is due.
    fn next(&self) -> Option<Instant> {
        self.frames.front().map(|frame| frame.due)
    }

    /// Keeps a copy of a frame behind those due at the same time or before; false if there is no room.
    fn insert(&mut self, due: Instant, bytes: &[u8]) -> bool {
        if self.bytes + size_of::<HeldFrame>() + bytes.len() > HELD_BYTES_MAX {
            return false;
        }
        let frame = HeldFrame { due, bytes: bytes.into() };
        self.bytes += frame.memory();
        // Frames that keep their order belong at the end: then this is a single comparison.
        if self.frames.back().is_none_or(|last| last.due <= due) {
            self.frames.push_back(frame);
        } else {
            self.frames.insert(self.frames.partition_point(|other| other.due <= due), frame);
        }
        true
    }

    /// Forgets the first `count` frames.
    fn remove(&mut self, count: usize) {
        for frame in self.frames.drain(..count) {
            self.bytes -= frame.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_frames_are_in_the_order_of_their_times_and_bounded() {
        let (mut held, start) = (Held::default(), Instant::now());
        for (number, ms) in [(1_u8, 5), (2, 5), (3, 2), (4, 9), (5, 2)] {
            assert!(held.insert(start + Duration::from_millis(ms), &[number]));
        }
        let order: Vec<_> = held.frames.iter().map(|frame| frame.bytes[0]).collect();
        assert_eq!(order, [3, 5, 1, 2, 4]);
        assert_eq!(held.next(), Some(start + Duration::from_millis(2)));
        held.remove(5);
        assert_eq!((held.next(), held.bytes), (None, 0));

        let frame = vec![0; 1 << 20];
        let count = (0..1000).take_while(|_| held.insert(start, &frame)).count();
        assert_eq!(count, 255, "as many as leave room for what is kept beside a frame's bytes");
        held.remove(1);
        assert!(held.insert(start, &frame));
    }
}
