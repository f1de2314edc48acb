//! A relay slowed on purpose: what shows that the instruments see a slow relay. Only with the feature `slow`, which no shipped
//! program has.

use std::hint::black_box;

use super::Transfer;

/// How slow: not at all at first.
#[derive(Debug, Default)]
pub(super) struct Slow {
    steps: u32,
}

impl Slow {
    /// Does nothing useful for so many datagrams.
    pub(super) fn waste(&self, datagrams: u64) {
        for step in 0..u64::from(self.steps) * datagrams {
            black_box(step);
        }
    }
}

impl Transfer {
    /// The same, but it spends `steps` turns of an empty loop on each datagram that it forwards.
    #[must_use]
    pub fn slowed(mut self, steps: u32) -> Self {
        self.slow.steps = steps;
        self
    }
}
