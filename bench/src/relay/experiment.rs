//! The relay bench as an [`Experiment`]: cells, systems, and how one trial is made.
//!
//! Each trial is two loads. The first is a *saturation*, unless the cell has a rate: the generator sends as fast as it can, and the relay
//! takes what it can. The receive softirqs of the relay's host run on the generator's core, and the relay's own threads are charged. In
//! the second they are steered to the relay's core, and the core is charged. The first trial of a system also searches its loss-free
//! maximum, and looks at what would disturb a cost: system calls, trains, loss and order.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Cell;
use super::rig::LOAD_PROCESSOR;
use super::stage::{CONTROL, Stage};
use crate::cost::{Events, events::COUNTING};
use crate::figure::{Better, Figure, Measures};
use crate::load::{DATAGRAM_PORTS, Pace, Tap};
use crate::rounds::{CellInfo, Experiment, Lineup, Trial};

/// How long trials last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// A saturation in which the process cost is measured, and one of the control.
    pub saturation: Duration,
    /// A load in which the core cost is measured. All of a cell together have to be longer than 2 s, or the ticks of `/proc/stat` show.
    pub core: Duration,
    /// In how many rounds the core cost is measured, from the first on.
    pub core_rounds: u32,
    /// One step of the search for the loss-free maximum.
    pub step: Duration,
}

/// The figures of a trial, in the order to show.
pub fn figures() -> Vec<Figure> {
    use Better::{Higher, Lower, Neither};
    vec![
        Figure::new(
            "relay_ns",
            "relay ns",
            "",
            Lower,
            "processor time of the relay's own threads for each datagram delivered, at saturation; receive softirqs run on the \
             generator's core and are not in it",
        ),
        Figure::new(
            "core_ns",
            "core ns",
            "",
            Lower,
            "busy time of the relay's core for each datagram delivered, with all receive work of the relay's host steered to that core; \
             at the highest rate that passes so without loss, because at a higher one receiving leaves no time to relay",
        ),
        Figure::new("core_kpps", "core rate", "kpps", Higher, "the rate at which the core cost was measured"),
        Figure::new(
            "loss_free",
            "loss-free maximum",
            "kpps",
            Higher,
            "the highest rate at which no more than 0.1 % is lost, by six halvings",
        ),
        Figure::new(
            "goodput",
            "goodput at overload",
            "kpps",
            Higher,
            "datagrams delivered each second while the generator sends as fast as it can",
        ),
        Figure::new(
            "overload",
            "offered",
            "x",
            Neither,
            "what the generator offered then, as a multiple of the loss-free maximum",
        ),
        Figure::new("gbit", "goodput", "Gbit/s", Higher, "the goodput in bits of UDP payload"),
        Figure::new(
            "cpu_s_per_gb",
            "machine",
            "CPU s/GB",
            Lower,
            "busy time of the whole machine, generator and sink included, for each 10^9 bytes of UDP payload delivered",
        ),
        Figure::new(
            "calls",
            "system calls",
            "per datagram",
            Lower,
            "system calls of the relay for each datagram, at saturation",
        ),
        Figure::new(
            "completions",
            "completions",
            "per datagram",
            Lower,
            "completions of io_uring for each datagram, at saturation",
        ),
        Figure::new(
            "train_in",
            "train in",
            "datagrams",
            Neither,
            "datagrams in each buffer the relay's host receives, at half of the loss-free maximum (100 kpps at most) or at the cell's rate",
        ),
        Figure::new(
            "train_out",
            "train out",
            "datagrams",
            Neither,
            "datagrams in each buffer that arrives at the receiver, at saturation",
        ),
        Figure::new(
            "loss",
            "loss",
            "%",
            Lower,
            "datagrams lost at half of the loss-free maximum (100 kpps at most) or at the cell's rate",
        ),
        Figure::new(
            "p99",
            "p99",
            "µs",
            Lower,
            "99 % of the datagrams took no longer than this from the moment they were due, at that rate",
        ),
        Figure::new(
            "reordered",
            "reordered",
            "%",
            Lower,
            "datagrams that arrive after a later one of their flow (RFC 4737), at half of the loss-free maximum (100 kpps at most) or at the cell's rate",
        ),
    ]
}

/// The figure whose ratio ranks the systems.
pub const HEADLINE: &str = "relay_ns";

/// The bench.
pub struct RelayBench {
    stage: Stage,
    cells: Vec<Cell>,
    lengths: Lengths,
    allowed: Allowed,
}

/// Trains, loss and order are looked at with half of the loss-free maximum, and at no more datagrams a second than the taps can read
/// beside the generator.
const LOOKED_AT_MOST: f64 = 100_000.0;

/// What the kernel allows to measure; root of the machine may all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// To count system calls and completions.
    pub events: bool,
    /// To steer the receive work of a host to a core.
    pub steering: bool,
}

impl RelayBench {
    /// On a stage. Figures that need what is not allowed are left out.
    pub fn new(stage: Stage, cells: Vec<Cell>, lengths: Lengths, allowed: Allowed) -> Self {
        Self { stage, cells, lengths, allowed }
    }

    /// The cost of the core that does all the work.
    fn steered(&mut self, cell: Cell, system: &str) -> Result<Measures> {
        let rate = match cell.rate {
            Some(rate) => rate.into(),
            None => self.stage.peak(cell, system, self.lengths.step)? as u64,
        };
        ensure!(rate > 0, "with its receive work on its own core it carries nothing without loss");
        let outcome = self.stage.load(cell, system, Pace::PerSecond(rate), self.lengths.core)?;
        Ok(Measures::from([
            ("core_ns".into(), outcome.each(outcome.core)),
            ("core_kpps".into(), outcome.per_second() / 1e3),
        ]))
    }

    /// System calls and completions, trains, loss and order: what is looked at once in a cell, outside of cost trials.
    fn look(&mut self, cell: Cell, system: &str, pace: Pace, measures: &mut Measures) -> Result<()> {
        let processes = self.stage.processes(system)?;
        if self.allowed.events && !processes.is_empty() {
            let mut events = Events::of(processes)?;
            let seen = self.stage.load(cell, system, pace, COUNTING)?;
            let (calls, completions) = events.read()?.per(seen.datagrams as u64);
            measures.insert("calls".into(), calls);
            measures.insert("completions".into(), completions);
        }
        let rig = self.stage.rig();
        let mut incoming = Tap::new(rig.left.b(), DATAGRAM_PORTS, LOAD_PROCESSOR)?;
        let mut outgoing = Tap::new(rig.right.b(), DATAGRAM_PORTS, LOAD_PROCESSOR)?;
        let rate = match cell.rate {
            Some(rate) => rate.into(),
            None => (self.stage.peak(cell, system, self.lengths.step)? / 2.0).clamp(1.0, LOOKED_AT_MOST) as u64,
        };
        let pace = Pace::PerSecond(rate);
        let (sent, count) = self.stage.send(cell, system, pace, self.lengths.step.max(COUNTING))?;
        let lost = sent.datagrams as f64 - count.datagrams(cell.payload);
        measures.insert("loss".into(), (100.0 * lost / sent.datagrams as f64).max(0.0));
        let (incoming, outgoing) = (incoming.take(sent.run)?, outgoing.take(sent.run)?);
        measures.extend(mean_train(&incoming.trains).map(|value| ("train_in".into(), value)));
        if outgoing.dropped == 0 && outgoing.received > 0 {
            ensure!(outgoing.misplaced == 0, "{} datagrams arrived where another flow's belong", outgoing.misplaced);
            measures.insert("p99".into(), outgoing.latency.value_at_quantile(0.99) as f64 / 1e3);
            measures.insert("reordered".into(), 100.0 * outgoing.reordered as f64 / outgoing.received as f64);
        }
        Ok(())
    }
}

/// Datagrams in a frame on average, from how many frames had how many; nothing without a frame.
fn mean_train(trains: &BTreeMap<u16, u64>) -> Option<f64> {
    let frames: u64 = trains.values().sum();
    let datagrams: u64 = trains.iter().map(|(length, frames)| u64::from(*length) * frames).sum();
    (frames > 0).then(|| datagrams as f64 / frames as f64)
}

impl Experiment for RelayBench {
    fn cells(&self) -> Vec<CellInfo> {
        let info = |cell: &Cell| CellInfo { name: cell.to_string(), about: cell.about(), point: None };
        self.cells.iter().map(info).collect()
    }

    fn open(&mut self, cell: usize) -> Result<Lineup> {
        self.stage.open(self.cells[cell])
    }

    fn trial(&mut self, cell: usize, system: &str, round: u32) -> Result<Trial> {
        let cell = self.cells[cell];
        let Lengths { saturation, step, .. } = self.lengths;
        self.stage.tend(system)?;
        let (mut measures, mut notes) = (Measures::new(), Vec::new());
        // The kernel has no program: its work is seen on the core only.
        let kernel = self.stage.processes(system)?.is_empty();
        let pace = cell.rate.map_or(Pace::Full, |rate| Pace::PerSecond(rate.into()));
        let first = self.stage.load(cell, system, pace, saturation)?;
        if !kernel {
            measures.insert("relay_ns".into(), first.each(first.relay));
        }
        if cell.rate.is_none() {
            let peak = self.stage.peak(cell, system, step)?;
            if round == 1 {
                measures.insert("loss_free".into(), peak / 1e3);
            }
            if peak > 0.0 {
                measures.insert("overload".into(), first.sent.per_second() / peak);
            }
        }
        if round == 1 {
            self.look(cell, system, pace, &mut measures)?;
        }
        measures.insert("goodput".into(), first.per_second() / 1e3);
        measures.insert("train_out".into(), first.train);
        measures.insert("gbit".into(), first.bytes * 8.0 / first.sent.elapsed.as_secs_f64() / 1e9);
        measures.insert("cpu_s_per_gb".into(), first.machine.as_secs_f64() / (first.bytes / 1e9));
        let limited = cell.rate.is_none() && !kernel && first.generator_limited(first.relay);
        if self.allowed.steering && round <= self.lengths.core_rounds {
            self.stage.steer(true)?;
            let steered = self.steered(cell, system);
            self.stage.steer(false)?;
            measures.extend(steered?);
        }
        if limited {
            notes.push("generator-limited".into());
        }
        Ok(Trial { measures, notes })
    }

    fn control(&mut self, cell: usize) -> Result<f64> {
        self.stage.tend(CONTROL)?;
        let saturation = self.stage.saturate(self.cells[cell], CONTROL, self.lengths.saturation)?;
        Ok(saturation.each(saturation.relay))
    }

    fn close(&mut self, _cell: usize) {
        self.stage.close();
    }
}
