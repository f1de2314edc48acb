//! Pings through an idle tunnel, one every two milliseconds.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_lab::Ping;

use super::Ends;

/// Time from one ping to the next, counted from when each is due: a late answer delays none.
const INTERVAL: Duration = Duration::from_millis(2);

/// Pings before those that count: they wake whatever sleeps after a while, and find neighbours.
const WARM: u16 = 20;

/// What came of pings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PingOutcome {
    /// The median round-trip time.
    pub p50: Duration,
    /// The round-trip time that one in a hundred exceeds.
    pub p99: Duration,
    /// Share of pings without an answer within a second: 0 to 1.
    pub loss: f64,
}

/// Pings for a while.
///
/// # Errors
/// Raw sockets are refused, or no ping came back.
pub fn ping(ends: &Ends<'_>, time: Duration) -> Result<PingOutcome> {
    let of = |count| Ping { count, interval: INTERVAL, ..Ping::default() };
    ends.from.ping(ends.destination.into(), of(WARM))?;
    let count = (time.as_nanos() / INTERVAL.as_nanos()).clamp(1, u16::MAX.into()) as u16;
    let report = ends.from.ping(ends.destination.into(), of(count))?;
    let mut rtts = report.rtts;
    rtts.sort_unstable();
    ensure!(!rtts.is_empty(), "none of {count} pings came back");
    let loss = 1.0 - f64::from(report.received) / f64::from(count);
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
}
