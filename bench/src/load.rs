//! Making and counting datagrams: flows, the generator, and the two sinks.
//!
//! The [`Generator`] hands whole frames to the kernel through a packet socket on the sending host's interface: trains leave as one
//! GSO buffer and are cut where the link mode says. What arrives is counted and dropped by a [`Counter`] at the ingress of the
//! receiving interface, so that the sink costs the relay's core next to nothing; where order, loss or delay of single datagrams
//! matter, a [`Tap`] reads them before that.

pub mod counter;
pub mod flow;
pub mod frame;
mod frames;
pub mod generator;
mod netfilter;
pub mod pings;
pub mod schedule;
mod sys;
pub mod tap;

use std::ops::RangeInclusive;

use hdrhistogram::Histogram;

pub use counter::{Count, Counter};
pub use flow::{Flow, Head};
pub use frames::BURST_MAX;
pub use generator::{Generator, Pace, Sent};
pub use pings::{Pinged, Pings};
pub use schedule::Schedule;
pub use sys::{run_first, set_priority};
pub use tap::{Seen, Tap};

use crate::relay::rig::first_port;

/// The ports of all systems, in each host.
pub const DATAGRAM_PORTS: RangeInclusive<u16> = first_port(0)..=first_port(30) - 1;

/// The longest delay that is told apart from longer ones, in nanoseconds: ten minutes.
const DELAY_MAX: u64 = 600_000_000_000;

/// A histogram of delays in nanoseconds, exact to three digits. It has its full size from the start, a quarter of a megabyte, because
/// `saturating_record` cuts off what it has no room for, and does not grow.
fn delays() -> Histogram<u64> {
    Histogram::new_with_bounds(1, DELAY_MAX, 3).expect("the bounds are in order, and three digits can be had")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_of_all_lengths_are_kept() {
        for nanos in [0, 1, 2_047, 50_000, 3_000_000_000, DELAY_MAX] {
            let mut delays = delays();
            delays.saturating_record(nanos);
            assert!(delays.max().abs_diff(nanos) <= nanos / 1_000, "{nanos} became {}", delays.max());
        }
        let mut delays = delays();
        delays.saturating_record(u64::MAX);
        assert!(delays.max() >= DELAY_MAX);
    }
}
