//! Pings through a relay: small datagrams between two of its clients, there and back, each alone.
//!
//! One thread sends for both. It goes before all others on its processor (`SCHED_FIFO`) and sleeps between two pings, so that what
//! else works there delays it as little as it would a card. A round trip ends by the kernel's own time stamp.

use std::io::IoSliceMut;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use mesh_wire::route::ROUTE_BYTES;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use super::frame::{BODY_BYTES_MIN, Stamp};
use super::sys;

/// Bytes of a ping: the shortest body.
const PING_BYTES: usize = BODY_BYTES_MIN;
/// Before whoever else on the processor was told to go first.
const RANK: i32 = 10;
/// Datagrams that the kernel gathers into one at most.
const TRAIN_MAX: usize = 64;
/// A ping that is not back after this is lost.
const PATIENCE: Duration = Duration::from_millis(100);

/// One of the two clients.
#[derive(Debug)]
pub struct End {
    /// By what it sends and receives.
    pub socket: UdpSocket,
    /// Where the relay is.
    pub relay: SocketAddrV4,
    /// How its datagrams begin: to the other one.
    pub route: [u8; ROUTE_BYTES],
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Pinged {
    /// Pings sent.
    pub sent: u64,
    /// Pings that came back, in time.
    pub received: u64,
    /// Round trips in nanoseconds. A lost ping counts as one that took all of the patience.
    pub round_trips: Histogram<u64>,
}

impl Pinged {
    /// The round trip that 99 % of the pings did not exceed.
    pub fn p99(&self) -> Duration {
        Duration::from_nanos(self.round_trips.value_at_quantile(0.99))
    }

    /// The round trip that half of the pings did not exceed.
    pub fn median(&self) -> Duration {
        Duration::from_nanos(self.round_trips.value_at_quantile(0.5))
    }
}

/// Two clients that ping. See the [module](self).
#[derive(Debug)]
pub struct Pings {
    near: End,
    far: End,
    processor: usize,
    runs: u32,
}

impl Pings {
    /// Pings from `near` to `far`, from a thread on `processor`.
    ///
    /// # Errors
    /// The kernel gives no time stamps.
    pub fn new(near: End, far: End, processor: usize) -> Result<Self> {
        for end in [&near, &far] {
            setsockopt(&end.socket, sockopt::ReceiveTimestampns, &true).context("ask for times")?;
            end.socket.set_nonblocking(true).context("set up a socket")?;
        }
        Ok(Self { near, far, processor, runs: 0 })
    }

    /// Sends `count` pings, one `every` so long, and waits for those that are under way then.
    ///
    /// # Errors
    /// The thread gets no priority (it takes root of the machine), or a socket fails.
    pub fn run(&mut self, every: Duration, count: u64) -> Result<Pinged> {
        self.runs += 1;
        let run = Run {
            ends: self,
            waiting: vec![false; usize::try_from(count).context("so many pings")?],
            pinged: Pinged { sent: 0, received: 0, round_trips: super::delays() },
        };
        thread::scope(|scope| {
            let work = || {
                // First the rank: on that processor there may be no turn without.
                sys::run_first(RANK).context("go before other threads (root of the machine may)")?;
                sys::pin(run.ends.processor)?;
                // Else the kernel wakes up to 50 us late on purpose.
                nix::sys::prctl::set_timerslack(1).context("ask for prompt wakes")?;
                run.carry(every, count)
            };
            let thread = thread::Builder::new().name("pings".to_owned()).spawn_scoped(scope, work);
            thread.context("start a thread")?.join().map_err(|_| anyhow!("the pings panicked"))?
        })
    }
}

struct Run<'a> {
    ends: &'a Pings,
    /// By number.
    waiting: Vec<bool>,
    pinged: Pinged,
}

impl Run<'_> {
    fn carry(mut self, every: Duration, count: u64) -> Result<Pinged> {
        let start = now(ClockId::CLOCK_MONOTONIC)?;
        for number in 0..count {
            let due = start + every * u32::try_from(number).context("so many pings")?;
            self.answer_until(due)?;
            let sent = now(ClockId::CLOCK_REALTIME)?;
            let due = u64::try_from(sent.as_nanos()).context("the time")?;
            let stamp = Stamp { flow: 0, sequence: number, due, run: self.ends.runs };
            self.waiting[usize::try_from(number).expect("an index before")] = true;
            send(&self.ends.near, &stamp)?;
            self.pinged.sent += 1;
        }
        let last = now(ClockId::CLOCK_MONOTONIC)? + PATIENCE;
        self.answer_until(last)?;
        let lost = self.pinged.sent - self.pinged.received;
        if lost > 0 {
            self.pinged
                .round_trips
                .saturating_record_n(u64::try_from(PATIENCE.as_nanos()).expect("a short time"), lost);
        }
        Ok(self.pinged)
    }

    /// Sends back what arrives at the far end, and notes what arrives at the near one; until `due`, or until the last ping is back.
    fn answer_until(&mut self, due: Duration) -> Result<()> {
        let Pings { near, far, runs, .. } = self.ends;
        loop {
            let left = due.saturating_sub(now(ClockId::CLOCK_MONOTONIC)?);
            let all_sent = self.pinged.sent == self.waiting.len() as u64;
            if left.is_zero() || all_sent && self.pinged.received == self.pinged.sent {
                return Ok(());
            }
            let mut polled = [far, near].map(|end| PollFd::new(end.socket.as_fd(), PollFlags::POLLIN));
            match ppoll(&mut polled, Some(TimeSpec::from(left)), None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for pings"),
            }
            receive(&far.socket, |stamp, _| if stamp.run == *runs { send(far, &stamp) } else { Ok(()) })?;
            let Self { waiting, pinged, .. } = self;
            receive(&near.socket, |stamp, at| {
                let number = usize::try_from(stamp.sequence).unwrap_or(usize::MAX);
                let Some(waiting) = waiting.get_mut(number).filter(|_| stamp.run == *runs) else { return Ok(()) };
                ensure!(std::mem::take(waiting), "ping {number} came back twice");
                pinged.received += 1;
                pinged.round_trips.saturating_record(at.saturating_sub(stamp.due));
                Ok(())
            })?;
        }
    }
}

fn send(end: &End, stamp: &Stamp) -> Result<()> {
    let mut body = [0; PING_BYTES];
    stamp.write(&end.route, body.first_chunk_mut().expect("a body is longer than its front"));
    match end.socket.send_to(&body, SocketAddr::V4(end.relay)) {
        Ok(_) => Ok(()),
        // As if it were lost on the way.
        Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(()),
        Err(error) => Err(error).context("send a ping"),
    }
}

/// Hands over all pings that have arrived, with the time; what else a relay says to its clients is thrown away.
fn receive(socket: &UdpSocket, mut each: impl FnMut(Stamp, u64) -> Result<()>) -> Result<()> {
    // Those that came late may have been gathered on their way.
    let mut memory = [0; PING_BYTES * TRAIN_MAX];
    loop {
        let mut control = nix::cmsg_space!(TimeSpec, i32);
        let mut parts = [IoSliceMut::new(&mut memory)];
        let message =
            match recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EWOULDBLOCK) => return Ok(()),
                Err(Errno::EINTR | Errno::ECONNREFUSED) => continue,
                message => message.context("read a ping")?,
            };
        let at = message.cmsgs()?.find_map(|part| {
            let ControlMessageOwned::ScmTimestampns(at) = part else { return None };
            u64::try_from(Duration::from(at).as_nanos()).ok()
        });
        let bytes = message.bytes;
        for stamp in memory[..bytes].chunks_exact(PING_BYTES).filter_map(Stamp::read) {
            each(stamp, at.context("a ping came without its time")?)?;
        }
    }
}

fn now(clock: ClockId) -> Result<Duration> {
    Ok(clock_gettime(clock).context("read the clock")?.into())
}
