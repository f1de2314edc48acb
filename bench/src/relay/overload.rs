//! `bench overload`: what a relay still delivers when it is offered more than it can carry, and what it loses when it is not.
//!
//! A good relay under too much load delivers as much as at its best; a bad one spends its time on datagrams that it then drops. Each
//! system is offered multiples of its own loss-free maximum, and what it delivers is a share of its own *peak*: the most it delivered
//! at any of them. This is done twice. *Apart*, the kernel's receive work is done by another core, as with a card that has a queue of
//! its own for each core. *Own*, it is done by the relay's core, before the relay itself has a turn: receive livelock is real there
//! (Mogul and Ramakrishnan, "Eliminating Receive Livelock in an Interrupt-driven Kernel", 1997).

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Cell;
use super::rig::LOAD_PROCESSOR;
use super::stage::{CONTROL, Stage};
use crate::figure::{Better, Figure, Measures};
use crate::load::{DATAGRAM_PORTS, Pace, Tap};
use crate::rounds::{CellInfo, Experiment, Lineup, Trial};

/// The cells of a run without a choice: singles and whole trains of many.
pub const DEFAULT: [&str; 2] = ["wire-1200-b1-f32-n1", "nic-1400-b16-f32-n1"];

/// The figure whose ratio ranks the systems.
pub const HEADLINE: &str = "kept_own";

/// Multiples of the loss-free maximum that are offered, to find the peak and what is left of it.
const OFFERED: [f64; 6] = [0.8, 1.0, 1.2, 1.5, 2.0, 3.0];
/// The multiple of the peak at which goodput is judged where the relay's core does all the work.
const OVERLOAD: f64 = 1.5;
/// The multiple that is shown beside it.
const FLOOD: f64 = 3.0;
/// Below this multiple of the peak the generator cannot overload a relay.
const OVERLOADED: f64 = 1.3;
/// The share of the loss-free maximum at which nothing may be lost.
const SAFE: f64 = 0.8;
/// Order is looked at with at most so many datagrams a second, so that the tap can read them beside the generator.
const LOOKED_AT_MOST: f64 = 100_000.0;

/// The figures of a trial, in the order to show.
pub fn figures() -> Vec<Figure> {
    use Better::{Higher, Lower, Neither};
    vec![
        Figure::new("peak", "peak", "kpps", Higher, "the most it delivered, with the receive work on the other core"),
        Figure::new(
            "offered",
            "offered",
            "x",
            Neither,
            "all that the generator offered, as a multiple of that peak; below 1.3 it is no overload, and `kept` is missing",
        ),
        Figure::new("kept", "kept", "of peak", Higher, "what was delivered of all that the generator offered"),
        Figure::new(
            "peak_own",
            "own peak",
            "kpps",
            Higher,
            "the most it delivered, with the receive work on its own core",
        ),
        Figure::new(
            "kept_own",
            "own, at 1.5x",
            "of own peak",
            Higher,
            "what was delivered when 1.5 times that was offered",
        ),
        Figure::new(
            "kept_flood",
            "own, at 3x",
            "of own peak",
            Higher,
            "what was delivered when 3 times that was offered",
        ),
        Figure::new("loss", "loss at 80 %", "%", Lower, "datagrams lost at 80 % of the loss-free maximum"),
        Figure::new(
            "reordered",
            "reordered",
            "%",
            Lower,
            "datagrams that arrive after a later one of their flow (RFC 4737), at that rate (100 kpps at most) and in overload",
        ),
    ]
}

/// The bench.
pub struct OverloadBench {
    stage: Stage,
    cells: Vec<Cell>,
    /// How long each load lasts.
    length: Duration,
    /// Whether the kernel allows to steer receive work.
    steering: bool,
}

impl OverloadBench {
    /// On a stage; each load lasts `length`. Without `steering` the figures of the relay's own core are left out.
    pub fn new(stage: Stage, cells: Vec<Cell>, length: Duration, steering: bool) -> Self {
        Self { stage, cells, length, steering }
    }

    /// What is delivered of a rate, in datagrams a second, and the rate that was sent.
    fn deliver(&mut self, cell: Cell, system: &str, pace: Pace) -> Result<(f64, f64)> {
        let (sent, count) = self.stage.send(cell, system, pace, self.length)?;
        let seconds = sent.elapsed.as_secs_f64();
        Ok((count.datagrams(cell.payload) / seconds, sent.per_second()))
    }

    /// The most that is delivered of several multiples of the loss-free maximum, in datagrams a second, as receive work is steered
    /// now.
    fn best(&mut self, cell: Cell, system: &str) -> Result<f64> {
        let most = self.stage.peak(cell, system, self.length)?;
        ensure!(most > 0.0, "it carries nothing without loss");
        let mut peak = 0.0f64;
        for multiple in OFFERED {
            let (delivered, _) = self.deliver(cell, system, Pace::PerSecond((most * multiple) as u64))?;
            peak = peak.max(delivered);
        }
        Ok(peak)
    }

    /// With the receive work on the other core.
    fn apart(&mut self, cell: Cell, system: &str, measures: &mut Measures) -> Result<()> {
        let peak = self.best(cell, system)?;
        let (delivered, offered) = self.deliver(cell, system, Pace::Full)?;
        let peak = peak.max(delivered);
        measures.insert("peak".into(), peak / 1e3);
        measures.insert("offered".into(), offered / peak);
        if offered >= peak * OVERLOADED {
            measures.insert("kept".into(), delivered / peak);
        }
        let most = self.stage.peak(cell, system, self.length)?;
        let (sent, count) = self.stage.send(cell, system, Pace::PerSecond((most * SAFE) as u64), self.length)?;
        let lost = sent.datagrams as f64 - count.datagrams(cell.payload);
        measures.insert("loss".into(), (100.0 * lost / sent.datagrams as f64).max(0.0));
        Ok(())
    }

    /// With the receive work on the relay's own core.
    fn own(&mut self, cell: Cell, system: &str, measures: &mut Measures) -> Result<()> {
        let peak = self.best(cell, system)?;
        measures.insert("peak_own".into(), peak / 1e3);
        for (key, multiple) in [("kept_own", OVERLOAD), ("kept_flood", FLOOD)] {
            let (delivered, offered) = self.deliver(cell, system, Pace::PerSecond((peak * multiple) as u64))?;
            // What the generator cannot offer says nothing.
            if offered >= peak * multiple * 0.95 {
                measures.insert(key.into(), delivered / peak);
            }
        }
        Ok(())
    }

    /// The larger share of datagrams that overtook others: at a quiet rate, and with all that the generator has.
    fn order(&mut self, cell: Cell, system: &str) -> Result<f64> {
        let quiet = (self.stage.peak(cell, system, self.length)? * SAFE).clamp(1.0, LOOKED_AT_MOST) as u64;
        let mut worst = 0.0f64;
        for pace in [Pace::PerSecond(quiet), Pace::Full] {
            let mut tap = Tap::new(self.stage.rig().right.b(), DATAGRAM_PORTS, LOAD_PROCESSOR)?;
            let (sent, _) = self.stage.send(cell, system, pace, self.length)?;
            // What the tap had no room for is not seen; what it saw came in the order in which it saw it.
            let seen = tap.take(sent.run)?;
            ensure!(seen.received > 0, "of {} datagrams sent none arrived", sent.datagrams);
            ensure!(seen.misplaced == 0, "{} datagrams arrived where another flow's belong", seen.misplaced);
            worst = worst.max(100.0 * seen.reordered as f64 / seen.received as f64);
        }
        Ok(worst)
    }
}

impl Experiment for OverloadBench {
    fn cells(&self) -> Vec<CellInfo> {
        let info = |cell: &Cell| CellInfo { name: cell.to_string(), about: cell.about(), point: None };
        self.cells.iter().map(info).collect()
    }

    fn open(&mut self, cell: usize) -> Result<Lineup> {
        self.stage.open(self.cells[cell])
    }

    fn trial(&mut self, cell: usize, system: &str, _round: u32) -> Result<Trial> {
        let cell = self.cells[cell];
        self.stage.tend(system)?;
        let mut measures = Measures::new();
        self.apart(cell, system, &mut measures)?;
        measures.insert("reordered".into(), self.order(cell, system)?);
        if self.steering {
            self.stage.tend(system)?;
            self.stage.steer(true)?;
            let own = self.own(cell, system, &mut measures);
            self.stage.steer(false)?;
            own?;
        }
        Ok(Trial { measures, notes: Vec::new() })
    }

    fn control(&mut self, cell: usize) -> Result<f64> {
        self.stage.tend(CONTROL)?;
        let saturation = self.stage.saturate(self.cells[cell], CONTROL, self.length)?;
        Ok(saturation.each(saturation.relay))
    }

    fn close(&mut self, _cell: usize) {
        self.stage.close();
    }
}
