//! What a run leaves: every round as it was, and what follows from the accepted ones. It is written as JSON, read back to go on with
//! a run that was stopped, and drawn as table and page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::figure::{Better, Figure, Measures, Spread};

/// The outcome of one `cargo xtask bench` of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `relay`, `tunnel`, `latency`, `scale` or `soak`.
    pub bench: String,
    /// One line for the head of the page.
    pub title: String,
    /// A few sentences for somebody who has never seen the project: what was measured and how to read it.
    pub about: String,
    /// The command line that made it.
    pub command: String,
    /// Seconds since 1970 at the start. It decides nothing.
    pub started: u64,
    /// Seconds the run took.
    pub seconds: f64,
    /// The machine: processor, cores, memory, kernel, mitigations, in the order to show.
    pub machine: Vec<(String, String)>,
    /// What was equal for all systems: sysctls, buffers, queue lengths, MTU, pinning, link modes.
    pub settings: Vec<(String, String)>,
    /// What was measured, in the order to show.
    pub systems: Vec<SystemInfo>,
    /// What could have been measured and is not installed.
    pub absent: Vec<Absent>,
    /// The figures, in the order to show.
    pub figures: Vec<Figure>,
    /// Key of the figure whose ratio ranks the systems.
    pub headline: String,
    /// One entry for each cell, in the order measured.
    pub cells: Vec<CellReport>,
    /// What the project is to reach and what was seen of it, in the order to show; nothing where no cell is about it.
    #[serde(default)]
    pub goals: Vec<Goal>,
    /// Whether all cells were measured; not so after Ctrl-C.
    pub complete: bool,
}

/// A system that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemInfo {
    /// Its name in all tables.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// Whether it is this project's own product.
    pub ours: bool,
    /// One sentence: what it is and how it was set up.
    pub about: String,
}

/// A system that is not installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// Its name.
    pub name: String,
    /// How to get it: a command.
    pub how: String,
}

/// One cell: its rounds, and what follows from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellReport {
    /// Its name, `nic-1400-b16-f32-n1`.
    pub name: String,
    /// In words: `1,400 bytes in bursts of 16 from 32 clients, link mode nic`.
    pub about: String,
    /// If the cell is a point of a curve: which curve, what the x axis is, and where on it.
    pub point: Option<Point>,
    /// The system that ratios compare with.
    pub reference: String,
    /// Every round, the rejected ones too.
    pub rounds: Vec<Round>,
    /// What follows, one for each system measured in the cell, in the order of [`Report::systems`].
    pub outcomes: Vec<Outcome>,
    /// Whether over half of the rounds were rejected: the figures must not be relied on.
    pub too_noisy: bool,
    /// Systems that cannot do this cell, and why.
    pub unable: Vec<(String, String)>,
    /// Systems that failed in it, and how. Any makes the run fail.
    pub failed: Vec<(String, String)>,
}

/// Where a cell stands on a curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Cells of one group are points of one curve for each system.
    pub group: String,
    /// The x axis, `flows`.
    pub axis: String,
    /// The place on it.
    pub at: f64,
}

/// One trial of each system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// From 1.
    pub number: u32,
    /// By how much the control system's headline figure differs between its trial before the others and the one after, as a share
    /// of the smaller: 0.1 is 10 %.
    pub control_moved: f64,
    /// Whether it counts: the control moved by no more than 10 %.
    pub accepted: bool,
    /// What each system yielded.
    pub measures: BTreeMap<String, Measures>,
}

/// What the accepted rounds say of one system in one cell. Where none was accepted it is made of all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The system.
    pub system: String,
    /// Its figures, by key.
    pub figures: BTreeMap<String, Spread>,
    /// The headline figure as a multiple of the reference's in the same round, so turned that above 1 is better than the reference.
    pub ratio: Option<Spread>,
    /// What limits the meaning: `generator-limited`.
    pub notes: Vec<String>,
}

/// Something that the project is to reach, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What is compared with what: `easymesh: goodput, over raw`.
    pub line: String,
    /// The unit of all its numbers: `x`, `ms`.
    pub unit: String,
    /// Which way is good: [`Better::Lower`] if the numbers are to be at most this, else at least.
    pub better: Better,
    /// What is to be reached.
    pub target: f64,
    /// What would be better still.
    pub stretch: Option<f64>,
    /// What was seen.
    pub seen: Seen,
    /// Whether it was seen on a machine that was too noisy to rely on it.
    pub too_noisy: bool,
    /// The same under other conditions, to know and not to reach: what they are called, and what was seen.
    pub beside: Vec<(String, Spread)>,
}

/// What a run saw of a [`Goal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// The median and range over the rounds that count.
    Median(Spread),
    /// Nothing, and why: `rival absent`.
    Nothing(String),
}

impl Goal {
    /// Whether the median reaches the target; nothing if nothing was seen.
    pub fn reached(&self) -> Option<bool> {
        match &self.seen {
            Seen::Median(spread) => Some(self.is_within(spread.median, self.target)),
            Seen::Nothing(_) => None,
        }
    }

    /// Whether the median reaches what would be better still.
    pub fn reached_stretch(&self) -> bool {
        match (&self.seen, self.stretch) {
            (Seen::Median(spread), Some(stretch)) => self.is_within(spread.median, stretch),
            (Seen::Median(_), None) | (Seen::Nothing(_), _) => false,
        }
    }

    fn is_within(&self, value: f64, limit: f64) -> bool {
        if self.better == Better::Lower { value <= limit } else { value >= limit }
    }

    /// In a word or two: `reached`, `missed`, `rival absent`.
    pub fn verdict(&self) -> &str {
        match &self.seen {
            Seen::Nothing(why) => why,
            Seen::Median(_) if self.too_noisy => "too noisy",
            Seen::Median(_) if self.reached_stretch() => "stretch reached",
            Seen::Median(_) if self.reached() == Some(true) => "reached",
            Seen::Median(_) => "missed",
        }
    }
}

impl CellReport {
    /// The rounds that figures are made of: the accepted ones, or all if none was.
    pub fn counted(&self) -> impl Iterator<Item = &Round> {
        let any = self.rounds.iter().any(|round| round.accepted);
        self.rounds.iter().filter(move |round| round.accepted || !any)
    }
}
