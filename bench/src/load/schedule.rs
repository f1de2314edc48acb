//! When each datagram is due.

use std::time::Duration;

use mesh_wire::sealed::OVERHEAD_BYTES;

/// When each datagram is due: a fixed rate, laid out before the first is sent.
///
/// A sender that falls behind sends what is due without waiting, and a delay is measured from the moment a datagram was *due*, not
/// from when it left. Else a system that stalls would be measured only when it does not (coordinated omission).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    per_second: u64,
}

impl Schedule {
    /// `per_second` datagrams a second; 0 counts as 1.
    pub fn new(per_second: u64) -> Self {
        Self { per_second: per_second.max(1) }
    }

    /// How long after the start datagram `number` (from 0) is due, rounded up to nanoseconds. Rounding never adds up: each is
    /// computed from the start.
    pub fn due(&self, number: u64) -> Duration {
        let seconds = number / self.per_second;
        let nanos = (u128::from(number % self.per_second) * 1_000_000_000).div_ceil(u128::from(self.per_second));
        Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(nanos).expect("at most a second"))
    }

    /// How many datagrams are due when `elapsed` has passed, those sent already included.
    pub fn due_by(&self, elapsed: Duration) -> u64 {
        let whole = elapsed.as_secs().saturating_mul(self.per_second);
        let part = u128::from(elapsed.subsec_nanos()) * u128::from(self.per_second) / 1_000_000_000;
        whole.saturating_add(u64::try_from(part).expect("below the rate")).saturating_add(1)
    }
}

/// Bytes of UDP payload that carry an inner packet of `inner_bytes`: what a load generator must send to stand for it.
pub const fn datagram_bytes(inner_bytes: usize) -> usize {
    inner_bytes + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_spread_evenly_and_do_not_drift() {
        let schedule = Schedule::new(3);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(1), Duration::from_nanos(333_333_334));
        assert_eq!(schedule.due(3_000_000), Duration::from_secs(1_000_000));
    }

    #[test]
    fn what_is_due_follows_the_clock_whatever_was_sent() {
        let schedule = Schedule::new(1_000);
        assert_eq!(schedule.due_by(Duration::ZERO), 1);
        assert_eq!(schedule.due_by(Duration::from_millis(10)), 11);
        assert_eq!(schedule.due_by(Duration::from_secs(60)), 60_001);
        for schedule in [1, 3, 7, 1_000, 999_983, 1_000_000_000].map(Schedule::new) {
            for number in [0, 1, 2, 999, 1_000, 123_456] {
                assert_eq!(schedule.due_by(schedule.due(number)), number + 1, "{schedule:?}");
            }
        }
    }

    #[test]
    fn sealing_adds_44_bytes() {
        assert_eq!(datagram_bytes(1_156), 1_200);
    }
}
