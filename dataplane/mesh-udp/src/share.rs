//! How many trains of a flooded socket one turn takes.
//!
//! Whoever else has a datagram on the same thread waits for the turn under way and, if the thread must first be told of it, for one
//! more. So a turn is short, whatever its trains cost: their cost is measured, because trains that the kernel must cut cost ten times
//! those that it need not, and single datagrams something else again.

use std::time::{Duration, Instant};

/// How long a turn with trains of a flooded socket is to last. A turn has a price of its own, some 1 µs of system calls.
const TURN: Duration = Duration::from_micros(64);

/// Fewer would cost too many system calls.
const TRAINS_MIN: u64 = 2;

/// More are never worth a turn.
const TRAINS_MAX: u64 = 256;

/// A turn that took so many times as long as its trains should have is not measured: the thread was interrupted.
const OUTLIER: u64 = 8;

/// The cost of trains of late.
#[derive(Debug)]
pub struct Share {
    /// Smoothed, in nanoseconds for each train.
    train_nanos: u64,
    /// The turn under way: since when, with how many trains.
    turn: Option<(Instant, u64)>,
}

impl Share {
    /// Before the first turn: eight trains are a turn.
    #[expect(clippy::new_without_default, reason = "as of all parts of an engine")]
    pub fn new() -> Self {
        Self { train_nanos: TURN.as_nanos() as u64 / 8, turn: None }
    }

    /// Notes that a turn begins with so many trains.
    pub fn begin(&mut self, now: Instant, trains: usize) {
        self.turn = Some((now, trains as u64));
    }

    /// Notes that everything the turn under way had to send was sent. Does nothing where none is.
    pub fn end(&mut self, now: Instant) {
        let Some((since, trains)) = self.turn.take().filter(|&(_, trains)| trains > 0) else { return };
        let nanos = (now.duration_since(since).as_nanos() as u64 / trains).min(self.train_nanos * OUTLIER);
        self.train_nanos = (self.train_nanos - self.train_nanos / 8 + nanos / 8).max(1);
    }

    /// Whether a turn was begun and has not ended.
    pub fn is_under_way(&self) -> bool {
        self.turn.is_some()
    }

    /// Forgets the turn under way: the thread is about to sleep.
    pub fn forget(&mut self) {
        self.turn = None;
    }

    /// Trains of flooded sockets that make a turn, from 2 to 256.
    pub fn trains(&self) -> u16 {
        (TURN.as_nanos() as u64 / self.train_nanos).clamp(TRAINS_MIN, TRAINS_MAX) as u16
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Share;

    /// After 100 turns whose trains took so long each.
    fn share_of(train: Duration) -> Share {
        let (mut share, mut now) = (Share::new(), Instant::now());
        for _ in 0..100 {
            share.begin(now, 4);
            now += train * 4;
            share.end(now);
        }
        share
    }

    #[test]
    fn a_turn_is_as_many_trains_as_take_its_time() {
        for (micros, trains) in [(1, 60..=70), (4, 15..=17), (33, 2..=2), (2_000, 2..=2), (0, 256..=256)] {
            let share = share_of(Duration::from_micros(micros));
            assert!(trains.contains(&share.trains()), "{micros} µs each: {}", share.trains());
        }
    }

    #[test]
    fn one_interruption_leaves_its_share() {
        let mut share = share_of(Duration::from_micros(4));
        let now = Instant::now();
        share.begin(now, 16);
        share.end(now + Duration::from_millis(40));
        assert!(share.trains() >= 8, "{}", share.trains());
        // A turn that sleeps is none.
        share.begin(now, 16);
        share.forget();
        share.end(now + Duration::from_secs(1));
        assert!(share.trains() >= 8, "{}", share.trains());
    }
}
