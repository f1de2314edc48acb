//! `bench latency`: how long datagrams take through a relay that is idle, half busy, and nearly full.
//!
//! The load is laid out beforehand at a share of the relay's own loss-free maximum, and each delay counts from the moment a datagram
//! was due, so a relay that stalls cannot hide it (coordinated omission). The end of a delay is the kernel's own timestamp on arrival at
//! the receiver's interface: neither the generator's nor the sink's turn on their core is in it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Cell;
use super::rig::LOAD_PROCESSOR;
use super::stage::{CONTROL, Stage};
use crate::figure::{Better, Figure, Measures};
use crate::load::{DATAGRAM_PORTS, Pace, Tap};
use crate::report::Point;
use crate::rounds::{CellInfo, Experiment, Lineup, Trial};

/// Shares of the maximum at which is measured, in percent; 0 stands for [`IDLE_PER_SECOND`].
pub const LOADS: [u32; 4] = [0, 50, 80, 95];
/// The rate that counts as no load, in datagrams a second.
pub const IDLE_PER_SECOND: u64 = 1_000;

/// The cells of a run without a choice: singles and whole trains.
pub const DEFAULT: [&str; 2] = ["wire-1200-b1-f32-n1", "nic-1400-b16-f32-n1"];

/// The figure whose ratio ranks the systems.
pub const HEADLINE: &str = "p99";

/// The figures of a trial, in the order to show.
pub fn figures() -> Vec<Figure> {
    let percentile = |key: &str, share: &str| {
        let meaning = format!("{share} of the datagrams took no longer than this from the moment they were due");
        Figure::new(key, key, "µs", Better::Lower, &meaning)
    };
    vec![
        percentile("p50", "50 %"),
        percentile("p90", "90 %"),
        percentile("p99", "99 %"),
        percentile("p99.9", "99.9 %"),
        Figure::new("rate", "rate", "kpps", Better::Neither, "datagrams sent each second"),
        Figure::new("loss", "loss", "%", Better::Lower, "datagrams that did not arrive"),
        Figure::new(
            "late",
            "late",
            "µs",
            Better::Neither,
            "99 % of the datagrams left the generator no later than this after they were due; it is part of every delay",
        ),
    ]
}

/// The bench.
pub struct LatencyBench {
    stage: Stage,
    cells: Vec<Cell>,
    length: Duration,
    step: Duration,
    /// What runs, with who takes part: the programs and their maximum stay for all loads of a cell.
    open: Option<(Cell, Lineup)>,
}

impl LatencyBench {
    /// On a stage; a trial lasts `length`, a step of the search for the maximum `step`.
    pub fn new(stage: Stage, cells: Vec<Cell>, length: Duration, step: Duration) -> Self {
        Self { stage, cells, length, step, open: None }
    }

    fn at(&self, number: usize) -> (Cell, u32) {
        (self.cells[number / LOADS.len()], LOADS[number % LOADS.len()])
    }
}

impl Experiment for LatencyBench {
    fn cells(&self) -> Vec<CellInfo> {
        let numbers = 0..self.cells.len() * LOADS.len();
        let info = |number| {
            let (cell, load) = self.at(number);
            let how = if load == 0 { "idle".into() } else { format!("at {load} % of each relay's own maximum") };
            CellInfo {
                name: format!("{cell}@{load}%"),
                about: format!("{}, {how}", cell.about()),
                point: Some(Point {
                    group: cell.to_string(),
                    axis: "load, % of the maximum".into(),
                    at: f64::from(load),
                }),
            }
        };
        numbers.map(info).collect()
    }

    fn open(&mut self, number: usize) -> Result<Lineup> {
        let cell = self.at(number).0;
        if let Some((open, lineup)) = &self.open
            && *open == cell
        {
            return Ok(lineup.clone());
        }
        let lineup = self.stage.open(cell)?;
        self.open = Some((cell, lineup.clone()));
        Ok(lineup)
    }

    fn trial(&mut self, number: usize, system: &str, _round: u32) -> Result<Trial> {
        let (cell, load) = self.at(number);
        self.stage.tend(system)?;
        let rate = match load {
            0 => IDLE_PER_SECOND,
            share => (self.stage.peak(cell, system, self.step)? * f64::from(share) / 100.0) as u64,
        };
        ensure!(rate > 0, "it carries nothing without loss");
        let mut tap = Tap::new(self.stage.rig().right.b(), DATAGRAM_PORTS, LOAD_PROCESSOR)?;
        let (sent, count) = self.stage.send(cell, system, Pace::PerSecond(rate), self.length)?;
        let seen = tap.take(sent.run)?;
        ensure!(seen.received > 0, "of {} datagrams sent none arrived", sent.datagrams);
        let mut measures = Measures::new();
        for (key, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            measures.insert(key.into(), seen.latency.value_at_quantile(quantile) as f64 / 1e3);
        }
        measures.insert("rate".into(), sent.per_second() / 1e3);
        measures.insert("late".into(), sent.late_p99.as_secs_f64() * 1e6);
        let lost = sent.datagrams as f64 - count.datagrams(cell.payload);
        measures.insert("loss".into(), (100.0 * lost / sent.datagrams as f64).max(0.0));
        // The tap reads when the generator leaves it time; what it misses is not in the percentiles.
        let notes = if seen.dropped == 0 { Vec::new() } else { vec!["sampled".into()] };
        Ok(Trial { measures, notes })
    }

    fn control(&mut self, number: usize) -> Result<f64> {
        self.stage.tend(CONTROL)?;
        let saturation = self.stage.saturate(self.at(number).0, CONTROL, self.step * 2)?;
        Ok(saturation.each(saturation.relay))
    }

    fn close(&mut self, number: usize) {
        let next = number + 1;
        if next == self.cells.len() * LOADS.len() || self.at(next).0 != self.at(number).0 {
            self.stage.close();
            self.open = None;
        }
    }
}
