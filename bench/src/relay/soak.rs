//! `bench soak`: a relay under half of its maximum for minutes on end; memory, files, cost, loss and delay minute by minute.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Cell;
use super::rig::LOAD_PROCESSOR;
use super::stage::Stage;
use crate::cost::program::{processor_time, resident};
use crate::figure::{Better, Figure, Measures};
use crate::load::{DATAGRAM_PORTS, Pace, Tap};
use crate::report::Point;
use crate::rounds::{CellInfo, Experiment, Lineup, Trial};

/// The cell of a run without a choice: trains and singles of many clients in several namespaces.
pub const DEFAULT: &str = "nic-1200-b4-f32-n1";

/// The figure whose ratio ranks the systems.
pub const HEADLINE: &str = "relay_ns";

/// Clients are tended at least this often while load runs.
const STRETCH: Duration = Duration::from_secs(10);
/// A step of the search for the maximum, and how long order and delay are looked at in each minute.
const STEP: Duration = Duration::from_millis(500);
/// What memory may grow by after the first minute: a tenth, and this.
const GROWTH_BYTES: u64 = 1 << 20;

/// The figures of a minute, in the order to show.
pub fn figures() -> Vec<Figure> {
    use Better::{Higher, Lower, Neither};
    vec![
        Figure::new(
            "relay_ns",
            "relay ns",
            "",
            Lower,
            "processor time of the relay's own threads for each datagram delivered",
        ),
        Figure::new("goodput", "goodput", "kpps", Higher, "datagrams delivered each second"),
        Figure::new("loss", "loss", "%", Lower, "datagrams that did not arrive"),
        Figure::new(
            "reordered",
            "reordered",
            "%",
            Lower,
            "datagrams after a later one of their flow (RFC 4737), in half a second",
        ),
        Figure::new("p99", "p99", "µs", Lower, "99 % of the datagrams took no longer than this, in half a second"),
        Figure::new("rss", "memory", "MiB", Lower, "resident memory of the relay at the end of the minute"),
        Figure::new("files", "files", "", Neither, "open files of the relay at the end of the minute"),
        Figure::new("threads", "threads", "", Neither, "threads of the relay at the end of the minute"),
    ]
}

/// The bench.
pub struct SoakBench {
    stage: Stage,
    cell: Cell,
    minutes: u32,
    minute: Duration,
    lineup: Option<Lineup>,
    /// Memory of each system at the end of its first minute.
    first: Vec<(String, u64)>,
}

impl SoakBench {
    /// On a stage, for so many stretches of load, each of length `minute`.
    pub fn new(stage: Stage, cell: Cell, minutes: u32, minute: Duration) -> Self {
        Self { stage, cell, minutes, minute, lineup: None, first: Vec::new() }
    }
}

impl Experiment for SoakBench {
    fn cells(&self) -> Vec<CellInfo> {
        let point = |minute| Point { group: "soak".into(), axis: "minute".into(), at: f64::from(minute) };
        let info = |minute| CellInfo {
            name: format!("minute-{minute}"),
            about: format!("{}, at half of the maximum, minute {minute}", self.cell.about()),
            point: Some(point(minute)),
        };
        (1..=self.minutes).map(info).collect()
    }

    fn open(&mut self, _number: usize) -> Result<Lineup> {
        // The programs run from the first minute to the last.
        if self.lineup.is_none() {
            self.lineup = Some(self.stage.open(self.cell)?);
        }
        self.lineup.clone().context("it was just opened")
    }

    fn trial(&mut self, _number: usize, system: &str, _round: u32) -> Result<Trial> {
        let processes = self.stage.processes(system)?;
        let rate = (self.stage.peak(self.cell, system, STEP)? / 2.0) as u64;
        ensure!(rate > 0, "it carries nothing without loss");
        let used = || processes.iter().map(|process| processor_time(*process)).sum::<Result<Duration>>();
        let (mut sent, mut arrived, mut elapsed, mut time) = (0, 0.0, Duration::ZERO, Duration::ZERO);
        while elapsed < self.minute {
            self.stage.tend(system)?;
            let before = used()?;
            let length = STRETCH.min(self.minute - elapsed);
            let (part, count) = self.stage.send(self.cell, system, Pace::PerSecond(rate), length)?;
            time += used()?.saturating_sub(before);
            sent += part.datagrams;
            arrived += count.datagrams(self.cell.payload);
            elapsed += part.elapsed.max(length);
        }
        ensure!(arrived > 0.0, "of {sent} datagrams sent none arrived");
        let mut tap = Tap::new(self.stage.rig().right.b(), DATAGRAM_PORTS, LOAD_PROCESSOR)?;
        let (look, _) = self.stage.send(self.cell, system, Pace::PerSecond(rate), STEP)?;
        let seen = tap.take(look.run)?;
        let mut measures = Measures::from([
            ("goodput".into(), arrived / elapsed.as_secs_f64() / 1e3),
            ("loss".into(), 100.0 * (sent as f64 - arrived).max(0.0) / sent as f64),
            ("p99".into(), seen.latency.value_at_quantile(0.99) as f64 / 1e3),
            ("reordered".into(), 100.0 * seen.reordered as f64 / seen.received.max(1) as f64),
        ]);
        if let [process, ..] = processes[..] {
            let memory = resident(process)?;
            measures.insert("relay_ns".into(), time.as_nanos() as f64 / arrived);
            measures.insert("rss".into(), memory as f64 / f64::from(1 << 20));
            measures.insert("files".into(), entries(&format!("/proc/{process}/fd"))?);
            measures.insert("threads".into(), entries(&format!("/proc/{process}/task"))?);
            match self.first.iter().find(|(name, _)| name == system) {
                None => self.first.push((system.to_owned(), memory)),
                Some((_, first)) => {
                    ensure!(
                        memory <= first + first / 10 + GROWTH_BYTES,
                        "its memory grew from {first} to {memory} bytes"
                    );
                }
            }
        }
        Ok(Trial { measures, notes: Vec::new() })
    }

    fn control(&mut self, _number: usize) -> Result<f64> {
        // Minutes are compared with each other, not with another system.
        Ok(1.0)
    }

    fn close(&mut self, number: usize) {
        if number + 1 == self.minutes as usize {
            self.stage.close();
        }
    }
}

fn entries(folder: &str) -> Result<f64> {
    Ok(fs::read_dir(folder).with_context(|| format!("read {folder}"))?.count() as f64)
}
