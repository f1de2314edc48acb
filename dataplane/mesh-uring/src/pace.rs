//! How long a wait lets trains gather.
//!
//! Under a middling load each train would wake the thread alone: a sleep, a wake and a system call for each. When several are to be
//! expected within [`WINDOW`], the kernel is asked to let that many gather, for so long at most. Below that rate nothing is delayed:
//! a train that comes alone wakes the thread at once.

use std::time::{Duration, Instant};

use crate::sys::Collect;

/// How long a train may wait for others.
const WINDOW: Duration = Duration::from_micros(200);

/// Trains that are waited for at most; more are there when the thread is late anyway.
const TRAINS_MAX: u32 = 32;

/// Fewer than these, and it is not worth waiting: a sleep that a timer may end costs twice one that only a train ends.
const TRAINS_MIN: u32 = 8;

/// The rate of the trains that came.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the thread went to sleep last, and the trains since.
    since: Option<Instant>,
    trains: u32,
    /// Smoothed time between two trains, in nanoseconds.
    interval: u64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { since: None, trains: 0, interval: u64::MAX }
    }

    /// Notes trains that were handed out.
    pub(crate) fn note(&mut self, trains: usize) {
        self.trains = self.trains.saturating_add(trains as u32);
    }

    /// How to wait, when the thread is about to, and the kernel has so many receive buffers: it can let no more trains gather.
    pub(crate) fn collect(&mut self, now: Instant, timeout: Option<Duration>, buffers: u16) -> Collect {
        let trains = std::mem::take(&mut self.trains);
        let since = self.since.replace(now);
        let Some(passed) = since.map(|since| now.duration_since(since).as_nanos() as u64) else {
            return Collect::Wait(timeout);
        };
        let interval = passed / u64::from(trains.max(1));
        self.interval = match self.interval {
            // After a pause the rate is what it is now.
            u64::MAX => interval,
            old => old - old / 4 + interval / 4,
        };
        let most = TRAINS_MAX.min(u32::from(buffers));
        let expected = (WINDOW.as_nanos() as u64 / self.interval.max(1)).min(u64::from(most)) as u32;
        if expected < TRAINS_MIN || timeout.is_some_and(|timeout| timeout <= WINDOW) {
            return Collect::Wait(timeout);
        }
        Collect::Gather(expected, WINDOW.as_micros() as u32, timeout)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Pace;
    use crate::sys::Collect;

    /// How the last of 100 waits is, when so many trains came at each, so far apart.
    fn last(trains: usize, apart: Duration, timeout: Option<Duration>) -> Collect {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        let mut collect = pace.collect(now, timeout, 64);
        for _ in 0..100 {
            pace.note(trains);
            now += apart;
            collect = pace.collect(now, timeout, 64);
        }
        collect
    }

    #[test]
    fn trains_that_come_alone_are_not_waited_with() {
        for apart in [Duration::from_micros(30), Duration::from_millis(1), Duration::from_secs(1)] {
            assert!(matches!(last(1, apart, None), Collect::Wait(None)), "{apart:?}");
        }
        assert!(matches!(last(0, Duration::from_micros(10_000), None), Collect::Wait(None)));
    }

    #[test]
    fn where_several_are_to_be_expected_they_gather() {
        assert!(matches!(last(1, Duration::from_micros(10), None), Collect::Gather(15..=20, 200, None)));
        assert!(matches!(last(100, Duration::from_micros(100), None), Collect::Gather(32, 200, None)));
    }

    /// With a ring for ten long trains a wait for 32 always took its whole time: the thread slept while its sockets overflowed.
    #[test]
    fn no_more_trains_are_waited_for_than_there_are_buffers() {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        let mut collect_with = |buffers| {
            pace.note(32);
            now += Duration::from_micros(100);
            pace.collect(now, None, buffers)
        };
        collect_with(64);
        assert!(matches!(collect_with(64), Collect::Gather(32, 200, None)));
        assert!(matches!(collect_with(10), Collect::Gather(10, 200, None)));
        assert!(matches!(collect_with(7), Collect::Wait(None)));
    }

    #[test]
    fn the_first_train_after_a_pause_is_not_delayed_for_long() {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        for _ in 0..100 {
            pace.note(10);
            now += Duration::from_micros(50);
            pace.collect(now, None, 64);
        }
        now += Duration::from_secs(1);
        assert!(matches!(pace.collect(now, None, 64), Collect::Wait(None)), "the load is over");
    }

    #[test]
    fn a_timer_that_is_near_is_not_overslept() {
        let near = Some(Duration::from_micros(200));
        assert!(matches!(last(10, Duration::from_micros(50), near), Collect::Wait(_)));
    }
}
