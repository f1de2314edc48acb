//! Whether several sockets of an engine are in use: short turns are for others, and where there are none, long ones gather more.

use std::time::{Duration, Instant};

/// How long a socket counts as being in use after a train: people ping once a second.
const WINDOW: Duration = Duration::from_secs(10);

/// Turns between two looks at the clock.
const TURNS: u32 = 1024;

/// What was received of late.
#[derive(Debug, Default)]
pub struct Company {
    /// The socket of the last train.
    last: Option<u16>,
    /// Whether a train of another one came in this turn.
    met: bool,
    until: Option<Instant>,
    turns: u32,
}

impl Company {
    /// Notes a train.
    pub fn note(&mut self, socket: u16) {
        self.met |= self.last.replace(socket).is_some_and(|last| last != socket);
    }

    /// Notes that a turn has all its trains. Looks at the clock, by `now`, where it must.
    pub fn end_turn(&mut self, now: impl FnOnce() -> Instant) {
        self.turns = (self.turns + 1) % TURNS;
        if self.met {
            self.met = false;
            self.until = Some(now() + WINDOW);
        } else if self.turns == 0
            && let Some(until) = self.until
            && now() >= until
        {
            self.until = None;
        }
    }

    /// Whether two sockets or more have had trains in the last ten seconds. Where next to nothing comes it may say so for longer.
    pub fn is_there(&self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Company, TURNS};

    #[test]
    fn company_is_there_for_some_seconds_after_each_word_of_another() {
        let (mut company, start) = (Company::default(), Instant::now());
        let turns = |company: &mut Company, count, seconds, sockets: &[u16]| {
            for _ in 0..count {
                sockets.iter().for_each(|socket| company.note(*socket));
                company.end_turn(|| start + Duration::from_secs(seconds));
            }
            company.is_there()
        };
        assert!(!turns(&mut company, 5_000, 0, &[7, 7, 7]), "a socket alone");
        assert!(turns(&mut company, 1, 1, &[7, 3, 7]));
        assert!(turns(&mut company, TURNS, 9, &[7]));
        assert!(!turns(&mut company, TURNS, 12, &[7]));
        assert!(turns(&mut company, 1, 13, &[3]), "in turns of its own, too");
    }
}
