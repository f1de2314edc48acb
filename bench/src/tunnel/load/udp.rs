//! Datagrams at a rate, laid out before the first is sent; what was lost and what came out of order.
//!
//! A *step* is one rate for a part of a second. The highest rate of which at most one in a thousand datagrams is lost is searched by
//! short steps. A long one at the rate found must confirm it, else at a lower one: what confirms is what is measured. One at twice
//! that rate tells what is left under overload.
//!
//! The sender never spins, as it shares its core with a gateway: it sends what is due, up to `sys::BATCH` datagrams in a call, and
//! sleeps at least `NAP`.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::{Ends, Meter, Spent};
use crate::load::Schedule;
use crate::tunnel::rig::Place;
use crate::tunnel::sys::{self, Batch};

/// What may be lost at a rate that counts as free of loss.
pub const LOSS_MAX: f64 = 0.001;
/// How long the sender sleeps at least when nothing is due.
const NAP: Duration = Duration::from_micros(100);
/// How long the receiver waits for what may still be on its way.
const LINGER: Duration = Duration::from_millis(40);
/// Buffer of the receiving socket, in bytes: some milliseconds of the highest rates.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// The rates that a search may try, in datagrams a second.
const RATES: (f64, f64) = (100.0, 4_000_000.0);
/// Where a search begins that has no earlier one to begin from.
const FIRST_RATE: f64 = 10_000.0;
/// The share of a refused rate that is tried next, the first time; each time after it is the square of the one before.
const STEP_DOWN: f64 = 0.97;
/// A tunnel that loses at this share of the rate found loses at any.
const SHARE_MIN: f64 = 0.021;
/// A refused rate that is no higher than this many times the confirmed one leaves nothing to try between them.
const CLOSE: f64 = 1.06;
/// A sender that reaches less than this share of its rate is what limits.
const REACHED: f64 = 0.97;
/// Bytes of a datagram that the receiver reads: the number of the step and the number of the datagram.
const HEAD_BYTES: usize = 16;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct UdpLoad {
    /// Bytes of each datagram, at least 16.
    pub payload: u16,
    /// How long the search may take, about; twice as long where it has nothing to begin from.
    pub search: Duration,
    /// How long a rate must be free of loss to be confirmed, and is measured.
    pub time: Duration,
    /// How long twice that rate is sent.
    pub overload: Duration,
}

/// What came of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Datagrams sent; those that the kernel refused for want of room count too.
    pub sent: u64,
    /// Datagrams that arrived.
    pub received: u64,
    /// Of these, how many came after one that was sent later.
    pub reordered: u64,
    /// How long sending took.
    pub elapsed: Duration,
    /// What processors spent meanwhile.
    pub spent: Spent,
}

impl Step {
    /// Share of what was sent that did not arrive: 0 to 1.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { 1.0 - self.received as f64 / self.sent as f64 }
    }

    /// Datagrams a second that were sent.
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// What came of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UdpOutcome {
    /// The rate confirmed, for a search to begin from next time, in datagrams a second.
    pub rate: f64,
    /// The step that confirmed it: at most [`LOSS_MAX`] of it was lost.
    pub steady: Step,
    /// The step at twice that rate, or as near to it as the sender got.
    pub overload: Step,
    /// Whether the sender could not send faster than arrived.
    pub sender_limited: bool,
}

/// Two sockets, one at either end of a tunnel.
#[derive(Debug)]
pub struct Udp {
    near: UdpSocket,
    far: UdpSocket,
    payload: usize,
    step: u64,
}

impl Udp {
    /// Opens the sockets for datagrams of `payload` bytes.
    ///
    /// # Errors
    /// The kernel refuses them, or a payload is shorter than 16 bytes.
    pub fn open(ends: &Ends<'_>, payload: u16) -> Result<Self> {
        let payload = usize::from(payload);
        ensure!(payload >= HEAD_BYTES, "a datagram of the load has at least {HEAD_BYTES} bytes");
        let far = ends.to.udp(SocketAddr::new(ends.destination.into(), 0))?;
        // Beyond what the machine allows it takes privileges over the whole machine; without them it is what is allowed.
        if setsockopt(&far, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            setsockopt(&far, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES).context("size the receive buffer")?;
        }
        far.set_read_timeout(Some(LINGER)).context("set a time limit")?;
        let near = ends.from.udp(SocketAddr::new(ends.source.into(), 0))?;
        near.connect(far.local_addr().context("ask for the port")?).context("connect UDP")?;
        Ok(Self { near, far, payload, step: 0 })
    }

    /// Sends at a rate for a while, and counts.
    ///
    /// # Errors
    /// The kernel refuses datagrams for another reason than want of room.
    pub fn step(&mut self, ends: &Ends<'_>, per_second: f64, time: Duration) -> Result<Step> {
        self.step += 1;
        let (step, payload, ended) = (self.step, self.payload, AtomicBool::new(false));
        let (near, far) = (&self.near, &self.far);
        thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(far, payload, step, &ended));
            let sender = scope.spawn(|| {
                let sent = send(ends, near, (payload, step), Schedule::new(per_second as u64), time);
                ended.store(true, Ordering::Relaxed);
                sent
            });
            let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
            let (received, reordered) = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
            let (sent, elapsed, spent) = sent?;
            Ok(Step { sent, received, reordered, elapsed, spent })
        })
    }
}

/// Searches the highest rate free of loss, beginning at `hint` if there is one, confirms it and measures it.
///
/// # Errors
/// As [`Udp::step`], or at no rate so little is lost.
pub fn udp(ends: &Ends<'_>, load: &UdpLoad, hint: Option<f64>) -> Result<UdpOutcome> {
    let mut udp = Udp::open(ends, load.payload)?;
    let mut search = Search::new(hint);
    let (each, search_max) =
        if hint.is_some() { (load.search / 5, load.search) } else { (load.search / 9, 2 * load.search) };
    let deadline = Instant::now() + search_max;
    while Instant::now() < deadline
        && let Some(rate) = search.next()
    {
        let step = udp.step(ends, rate, each.max(Duration::from_millis(30)))?;
        search.learn(rate, &step);
    }
    let (rate, steady) = confirm(search.best(), |rate| udp.step(ends, rate, load.time))?;
    let overload = udp.step(ends, 2.0 * rate, load.overload)?;
    Ok(UdpOutcome { rate, steady, overload, sender_limited: search.sender_limited })
}

/// Goes down from a rate until a step is free of loss, then half-way up again while it is worth it: the highest rate that was free of
/// loss and its step. The first rates lie close together, so that little is given away; later ones do not, so that few are tried.
fn confirm(most: f64, mut step: impl FnMut(f64) -> Result<Step>) -> Result<(f64, Step)> {
    let (mut rate, mut share, mut refused) = (most, STEP_DOWN, None);
    let mut confirmed = loop {
        let seen = tried(rate, &mut step)?;
        if is_free_of_loss(&seen) {
            break (rate, seen);
        }
        if rate <= RATES.0.max(most * SHARE_MIN) {
            let arrived = if seen.received == 0 { "none".to_owned() } else { seen.received.to_string() };
            bail!("of {} datagrams, {rate:.0} a second, {arrived} arrived: no rate is free of loss", seen.sent);
        }
        refused = Some(rate);
        rate = (rate * share).max(RATES.0);
        share *= share;
    };
    while let Some(high) = refused.filter(|high| high / confirmed.0 > CLOSE) {
        let rate = (high * confirmed.0).sqrt();
        let seen = tried(rate, &mut step)?;
        if is_free_of_loss(&seen) {
            confirmed = (rate, seen);
        } else {
            refused = Some(rate);
        }
    }
    Ok(confirmed)
}

/// A step at a rate; once more if it lost too much, because a machine that does something else for a moment costs one step a loss
/// that is not the tunnel's.
fn tried(rate: f64, step: &mut impl FnMut(f64) -> Result<Step>) -> Result<Step> {
    let first = step(rate)?;
    if is_free_of_loss(&first) { Ok(first) } else { step(rate) }
}

fn is_free_of_loss(step: &Step) -> bool {
    step.received > 0 && step.loss() <= LOSS_MAX
}

/// The search for the highest rate free of loss: up or down by a factor until there is a rate on either side, then between them.
#[derive(Clone, Debug)]
struct Search {
    next: f64,
    factor: f64,
    good: Option<f64>,
    bad: Option<f64>,
    /// What the sender reached in the step before, if that was less than it should have.
    fell_short: Option<f64>,
    sender_limited: bool,
}

impl Search {
    fn new(hint: Option<f64>) -> Self {
        let factor = if hint.is_some() { 1.15 } else { 2.0 };
        let next = hint.unwrap_or(FIRST_RATE).clamp(RATES.0, RATES.1);
        Self { next, factor, good: None, bad: None, fell_short: None, sender_limited: false }
    }

    /// The rate to try; nothing once it is known to 3 %.
    fn next(&self) -> Option<f64> {
        let known = self.good.zip(self.bad).is_some_and(|(good, bad)| bad / good < 1.03);
        (!known && !self.sender_limited).then_some(self.next)
    }

    fn learn(&mut self, rate: f64, step: &Step) {
        if step.loss() <= LOSS_MAX {
            // It counts what was sent, not what was meant to be. Somebody else may have had the sender's core for a moment: it is
            // at its limit only if it does no better when asked for more.
            let reached = step.rate().min(rate);
            let short = reached < rate * REACHED;
            self.sender_limited = short && self.fell_short.is_some_and(|before| reached < before * 1.1);
            self.fell_short = short.then_some(reached);
            self.good = Some(self.good.unwrap_or_default().max(reached));
        } else {
            self.bad = Some(rate);
        }
        self.next = match (self.good, self.bad) {
            (Some(good), Some(bad)) => (good * bad).sqrt(),
            (Some(good), None) => good.max(rate) * self.factor,
            (None, Some(bad)) => bad / self.factor,
            (None, None) => self.next,
        };
        self.next = self.next.clamp(RATES.0, RATES.1);
    }

    /// The highest rate that was free of loss; if none was, the next lower one.
    fn best(&self) -> f64 {
        self.good.unwrap_or(self.next)
    }
}

/// Sends on schedule; how many, how long it took, and what processors spent.
#[expect(clippy::disallowed_methods, reason = "it waits until the next datagram is due")]
fn send(
    ends: &Ends<'_>,
    socket: &UdpSocket,
    (payload, step): (usize, u64),
    schedule: Schedule,
    time: Duration,
) -> Result<(u64, Duration, Spent)> {
    sys::stay_on(Place::Left.core())?;
    let mut batch = Batch::new(payload);
    let (before, start) = (Meter::read(ends)?, Instant::now());
    let mut sent = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok((sent, elapsed, Meter::read(ends)?.since(&before)));
        }
        let due = schedule.due_by(elapsed).saturating_sub(sent);
        if due == 0 {
            thread::sleep(schedule.due(sent).saturating_sub(elapsed).max(NAP));
            continue;
        }
        let count = due.min(sys::BATCH as u64) as usize;
        for (number, place) in (sent..).zip(0..count) {
            let datagram = batch.datagram_mut(place);
            datagram[..8].copy_from_slice(&step.to_be_bytes());
            datagram[8..HEAD_BYTES].copy_from_slice(&number.to_be_bytes());
        }
        match batch.send(socket.as_fd(), count) {
            Ok(taken) => sent += taken as u64,
            // Refused for want of room, or told that an earlier one found none: a datagram that was due and is lost.
            Err(error) if is_passing(&error) => sent += 1,
            Err(error) => return Err(error).context("send datagrams"),
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    let known =
        [Errno::ENOBUFS, Errno::EAGAIN, Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ENETUNREACH, Errno::EINTR];
    error.raw_os_error().is_some_and(|number| known.contains(&Errno::from_raw(number)))
}

/// Counts the datagrams of a step until the sender has ended and nothing has come for a while: how many, how many out of order.
fn receive(socket: &UdpSocket, payload: usize, step: u64, ended: &AtomicBool) -> Result<(u64, u64)> {
    sys::stay_on(Place::Right.core())?;
    let (mut batch, mut sizes) = (Batch::new(payload), [0; sys::BATCH]);
    let (mut received, mut reordered, mut next) = (0, 0, 0);
    loop {
        // Looked at before the wait: what comes within the wait after the end still counts.
        let last = ended.load(Ordering::Relaxed);
        let count = match batch.receive(socket.as_fd(), &mut sizes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock && last => return Ok((received, reordered)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("receive datagrams"),
        };
        for (place, size) in sizes[..count].iter().enumerate() {
            let Some((head, _)) = batch.datagram(place).split_first_chunk::<HEAD_BYTES>() else { continue };
            let [of, number] = [0, 8].map(|at| u64::from_be_bytes(std::array::from_fn(|byte| head[at + byte])));
            // Stragglers of an earlier step, and what is none of ours.
            if of != step || *size != payload {
                continue;
            }
            received += 1;
            reordered += u64::from(number < next);
            next = next.max(number + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tunnel that carries so many datagrams a second and no more, and a sender that reaches so many.
    fn found(hint: Option<f64>, most: f64, reached: f64, steps: usize) -> Search {
        let mut search = Search::new(hint);
        for _ in 0..steps {
            let Some(rate) = search.next() else { break };
            search.learn(rate, &step(rate.min(reached), most));
        }
        search
    }

    #[test]
    fn a_search_ends_just_below_what_the_tunnel_carries() {
        for most in [3_000.0, 77_000.0, 412_345.0] {
            let from_nothing = found(None, most, f64::MAX, 14).best();
            assert!((0.95..=1.0011).contains(&(from_nothing / most)), "{from_nothing} of {most}");
            for hint in [most * 0.9, most * 1.1] {
                let from_hint = found(Some(hint), most, f64::MAX, 6).best();
                assert!((0.95..=1.0011).contains(&(from_hint / most)), "{from_hint} of {most}");
            }
        }
    }

    /// The step at a rate through a tunnel that carries so many datagrams a second and no more.
    fn step(rate: f64, most: f64) -> Step {
        let (sent, received) = (rate as u64, rate.min(most) as u64);
        Step { sent, received, reordered: 0, elapsed: Duration::from_secs(1), spent: Spent::default() }
    }

    #[test]
    fn what_confirms_a_rate_is_itself_free_of_loss() {
        for most in [100_000.0, 98_000.0, 90_000.0, 64_000.0, 50_000.0, 3_000.0] {
            let mut steps = 0;
            let through = |rate: f64| {
                steps += 1;
                Ok(step(rate, most))
            };
            let (rate, seen) = confirm(100_000.0, through).unwrap();
            assert!((0.94..=1.002).contains(&(rate / most)) && steps <= 25, "{rate} of {most} after {steps}");
            assert!(seen == step(rate, most) && seen.loss() <= LOSS_MAX, "{seen:?}");
        }
    }

    #[test]
    fn one_moment_of_a_busy_machine_refuses_no_rate() {
        let mut carries = [10_000.0, 50_000.0].into_iter();
        let (rate, seen) = confirm(50_000.0, |rate| Ok(step(rate, carries.next().unwrap()))).unwrap();
        assert_eq!((rate, seen.received), (50_000.0, 50_000));
    }

    #[test]
    fn a_tunnel_that_always_loses_is_told_soon() {
        for (most, arriving, word) in
            [(100_000.0, 0.5, " arrived"), (300.0, 0.5, "50 arrived"), (300.0, 0.0, "none arrived")]
        {
            let mut steps = 0;
            let lossy = |rate: f64| {
                steps += 1;
                Ok(step(rate, rate * arriving))
            };
            let why = confirm(most, lossy).unwrap_err().to_string();
            assert!(why.contains(word) && why.contains("no rate is free of loss"), "{why}");
            assert!(steps <= 16, "{steps}");
        }
    }

    #[test]
    fn a_search_that_found_no_good_rate_goes_on_down() {
        let search = found(Some(1_000_000.0), 10_000.0, f64::MAX, 5);
        assert!(search.best() < 1_000_000.0 / 1.15_f64.powi(4));
        assert!(found(None, 0.0, f64::MAX, 100).best() >= RATES.0);
    }

    #[test]
    fn a_sender_that_cannot_follow_is_told() {
        let search = found(None, 1e9, 50_000.0, 20);
        assert!(search.sender_limited);
        assert!((search.best() - 50_000.0).abs() < 1.0);
        assert!(!found(None, 400_000.0, f64::MAX, 20).sender_limited);
    }

    #[test]
    fn loss_is_a_share_of_what_was_sent() {
        let step =
            Step { sent: 1_000, received: 999, reordered: 0, elapsed: Duration::from_secs(2), spent: Spent::default() };
        assert!((step.loss() - 0.001).abs() < 1e-12 && step.loss() <= LOSS_MAX + 1e-12);
        assert!((step.rate() - 500.0).abs() < 1e-9);
        assert!(Step { sent: 0, received: 0, ..step }.loss().abs() < 1e-12);
    }
}
