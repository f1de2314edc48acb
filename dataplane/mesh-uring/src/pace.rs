//! How long a wait lets trains gather.
//!
//! Under a middling load each train would wake the thread alone: a sleep, a wake and a system call for each. When several are to be
//! expected within [`WINDOW`], the kernel is asked to let that many gather, for so long at most. Below that rate nothing is delayed:
//! a train that comes alone wakes the thread at once.
//!
//! When as many as were asked for are always there, the thread is behind, and the sockets hold more. Then it asks for twice as many,
//! and again: in a larger batch more datagrams of one destination meet and leave in one send, so that a thread that falls behind
//! becomes faster. As soon as fewer come than were asked for within the window, it asks for fewer.

use std::time::{Duration, Instant};

use crate::sys::Collect;

/// How long a train may wait for others.
const WINDOW: Duration = Duration::from_micros(200);

/// Trains that are waited for at most by a thread that keeps up.
const TRAINS_MAX: u32 = 32;

/// Trains that are waited for at most by a thread that is behind: what one batch takes.
const BEHIND_MAX: u32 = 256;

/// After a batch that was smaller than asked for, so many must be full before more is asked for again.
const PATIENCE: u32 = 16;

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
    /// What the last wait asked for; 0: a single train.
    asked: u32,
    /// How many times what is to be expected is asked for.
    depth: u32,
    /// Full batches to come before it is doubled.
    patience: u32,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { since: None, trains: 0, interval: u64::MAX, asked: 0, depth: 1, patience: 0 }
    }

    /// Notes trains that were handed out.
    pub(crate) fn note(&mut self, trains: usize) {
        self.trains = self.trains.saturating_add(trains as u32);
    }

    /// How to wait, when the thread is about to, and the kernel has so many receive buffers: it can let no more trains gather. `alone`:
    /// no other socket waits for the end of a long turn.
    pub(crate) fn collect(&mut self, now: Instant, timeout: Option<Duration>, buffers: u16, alone: bool) -> Collect {
        let trains = std::mem::take(&mut self.trains);
        let since = self.since.replace(now);
        let asked = std::mem::take(&mut self.asked);
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
        let expected = if alone { self.deepen(expected, asked, trains).min(buffers.into()) } else { expected };
        if expected < TRAINS_MIN || timeout.is_some_and(|timeout| timeout <= WINDOW) {
            return Collect::Wait(timeout);
        }
        self.asked = expected;
        Collect::Gather(expected, WINDOW.as_micros() as u32, timeout)
    }

    /// What to ask for where `expected` are to be expected, after `trains` came where `asked` were asked for.
    fn deepen(&mut self, expected: u32, asked: u32, trains: u32) -> u32 {
        if expected < TRAINS_MIN {
            (self.depth, self.patience) = (1, PATIENCE);
        } else if trains < asked {
            (self.depth, self.patience) = ((self.depth / 2).max(1), PATIENCE);
        } else if asked > 0 && self.patience > 0 {
            self.patience -= 1;
        } else if asked > 0 && expected * self.depth < BEHIND_MAX {
            self.depth *= 2;
        }
        (expected * self.depth).min(BEHIND_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BEHIND_MAX, PATIENCE, Pace, TRAINS_MAX};
    use crate::sys::Collect;

    const BUFFERS: u16 = 1024;

    /// How the last of 100 waits is, when so many trains came at each, so far apart.
    fn last(trains: usize, apart: Duration, timeout: Option<Duration>) -> Collect {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        let mut collect = pace.collect(now, timeout, BUFFERS, true);
        for _ in 0..100 {
            pace.note(trains);
            now += apart;
            collect = pace.collect(now, timeout, BUFFERS, true);
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
        assert!(matches!(last(100, Duration::from_micros(100), None), Collect::Gather(32.., 200, None)));
    }

    /// With a ring for ten long trains a wait for 32 always took its whole time: the thread slept while its sockets overflowed.
    #[test]
    fn no_more_trains_are_waited_for_than_there_are_buffers() {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        let mut collect_with = |buffers| {
            pace.note(32);
            now += Duration::from_micros(100);
            pace.collect(now, None, buffers, true)
        };
        collect_with(32);
        assert!(matches!(collect_with(32), Collect::Gather(32, 200, None)));
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
            pace.collect(now, None, BUFFERS, true);
        }
        now += Duration::from_secs(1);
        assert!(matches!(pace.collect(now, None, BUFFERS, true), Collect::Wait(None)), "the load is over");
    }

    #[test]
    fn a_timer_that_is_near_is_not_overslept() {
        let near = Some(Duration::from_micros(200));
        assert!(matches!(last(10, Duration::from_micros(50), near), Collect::Wait(_)));
    }
    /// What a thread asks for at last, 3 µs for each train, when as many come as `come` makes of what was asked for.
    fn asked_at_last(turns: u32, buffers: u16, come: impl Fn(u32) -> u32) -> u32 {
        let (mut pace, mut now, mut asked) = (Pace::new(), Instant::now(), 0);
        for _ in 0..turns {
            let trains = come(asked).max(1);
            pace.note(trains as usize);
            now += Duration::from_micros(3) * trains;
            let Collect::Gather(next, 200, None) = pace.collect(now, None, buffers, true) else { continue };
            asked = next;
        }
        asked
    }

    #[test]
    fn a_thread_that_is_behind_asks_for_more() {
        assert_eq!(asked_at_last(100, BUFFERS, |asked| asked), BEHIND_MAX);
        assert_eq!(asked_at_last(100, 40, |asked| asked), 40, "not for more than there are buffers");
    }

    #[test]
    fn a_thread_that_keeps_up_does_not() {
        for turns in 100..100 + 2 * PATIENCE {
            let asked = asked_at_last(turns, BUFFERS, |asked| asked.min(50));
            assert!((TRAINS_MAX..=2 * TRAINS_MAX).contains(&asked), "{asked}");
        }
    }
}
