//! Pings through a tunnel, idle or not: each leaves when it is due, a late answer delays none.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use mesh_lab::{Ping, PingReport};

use super::Ends;
use crate::tunnel::rig::Place;
use crate::tunnel::sys;

/// How many pings a trial has: the median and the percentile are of so many.
pub const PINGS: u16 = 300;

/// Time from one ping to the next through an idle tunnel.
pub const INTERVAL: Duration = Duration::from_millis(2);

/// Pings before those that count: they wake whatever sleeps after a while, and find neighbours.
const WARM: u16 = 20;

/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What came of pings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PingOutcome {
    /// The median round-trip time. A ping without an answer counts as one that took a second, here and below.
    pub p50: Duration,
    /// The round-trip time that one in a hundred exceeds.
    pub p99: Duration,
    /// Share of pings without an answer within a second: 0 to 1.
    pub loss: f64,
}

/// Pings for a while, one every [`INTERVAL`].
///
/// # Errors
/// Raw sockets are refused, or no ping came back.
pub fn ping(ends: &Ends<'_>, time: Duration) -> Result<PingOutcome> {
    send(ends, WARM, INTERVAL)?;
    let count = (time.as_nanos() / INTERVAL.as_nanos()).clamp(1, u16::MAX.into()) as u16;
    evenly(ends, count, INTERVAL)
}

/// So many pings, at least one, at such an interval; none before them.
///
/// # Errors
/// As [`ping`].
pub(super) fn evenly(ends: &Ends<'_>, count: u16, interval: Duration) -> Result<PingOutcome> {
    outcome(send(ends, count, interval)?.rtts, count)
}

/// Sends pings from the core of the left host.
fn send(ends: &Ends<'_>, count: u16, interval: Duration) -> Result<PingReport> {
    let ping = Ping { count, interval, timeout: ANSWER_MAX, ..Ping::default() };
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            // The host's own thread begins where the one that asks for it is.
            sys::stay_on(Place::Left.core())?;
            ends.from.ping(ends.destination.into(), ping)
        });
        sender.join().map_err(|_| anyhow!("the thread that pings panicked"))?
    })
}

/// What the times of those answered say of `count` pings.
fn outcome(mut rtts: Vec<Duration>, count: u16) -> Result<PingOutcome> {
    ensure!(!rtts.is_empty(), "none of {count} pings came back");
    let loss = 1.0 - rtts.len() as f64 / f64::from(count);
    rtts.resize(rtts.len().max(count.into()), ANSWER_MAX);
    rtts.sort_unstable();
    Ok(PingOutcome { p50: quantile(&rtts, 0.50), p99: quantile(&rtts, 0.99), loss })
}

/// The smallest of sorted times that a share of them does not exceed. There is at least one.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(quantile(&times, 0.50), Duration::from_micros(100));
        assert_eq!(quantile(&times, 0.99), Duration::from_micros(198));
        assert_eq!(quantile(&times[..1], 0.99), Duration::from_micros(1));
        assert_eq!(quantile(&times[..3], 0.5), Duration::from_micros(2));
    }

    #[test]
    fn a_ping_without_an_answer_is_a_slow_one() {
        let times = |answered: u64| (1..=answered).rev().map(Duration::from_micros).collect::<Vec<_>>();
        let all = outcome(times(300), 300).unwrap();
        assert_eq!((all.p50, all.p99), (Duration::from_micros(150), Duration::from_micros(297)));
        assert!(all.loss.abs() < 1e-12);
        let most = outcome(times(296), 300).unwrap();
        assert_eq!((most.p50, most.p99), (Duration::from_micros(150), ANSWER_MAX), "four of 300 are over one percent");
        assert!((most.loss - 4.0 / 300.0).abs() < 1e-12);
        assert!(outcome(Vec::new(), 300).unwrap_err().to_string().contains("none of 300"));
    }
}
