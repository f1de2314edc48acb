//! Rounds: every system in turn, again and again, so that what changes on the machine changes for all.
//!
//! A figure of one system says little on a shared machine; the ratio of two systems measured seconds apart says much. So ratios are
//! made within a round, and their median and range are taken over rounds. A control system runs before and after the others of a
//! round: when its own cost moved meanwhile by more than a tenth, the machine was disturbed, and the round does not count.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use crate::figure::{Better, Figure, Measures, Spread};
use crate::report::{CellReport, Goal, Outcome, Point, Report, Round};

/// By how much the control may move within a round that counts, as a share of the smaller of its two figures.
pub const CONTROL_MAY_MOVE: f64 = 0.10;

/// What can be measured: cells, systems, and one trial of one system in one cell.
pub trait Experiment {
    /// The cells, in the order to measure them.
    fn cells(&self) -> Vec<CellInfo>;

    /// Prepares a cell, and starts what is to be measured in it.
    ///
    /// # Errors
    /// The rig cannot be built. A system that does not start is no error: it is named in [`Lineup::failed`].
    fn open(&mut self, cell: usize) -> Result<Lineup>;

    /// Measures one system once.
    ///
    /// # Errors
    /// The system failed: it is left out of the further rounds of this cell, and the run fails in the end.
    fn trial(&mut self, cell: usize, system: &str, round: u32) -> Result<Trial>;

    /// Measures the control once: the value of its headline figure.
    ///
    /// # Errors
    /// The control failed; without it no round counts, so the cell ends.
    fn control(&mut self, cell: usize) -> Result<f64>;

    /// What the project is to reach, and what the report tells of it.
    fn goals(&self, _report: &Report) -> Vec<Goal> {
        Vec::new()
    }

    /// Ends what [`Experiment::open`] started. Called also when the cell failed.
    fn close(&mut self, cell: usize);
}

/// A cell, for the report.
#[derive(Clone, Debug, PartialEq)]
pub struct CellInfo {
    /// Its name.
    pub name: String,
    /// In words.
    pub about: String,
    /// Where it stands on a curve, if on any.
    pub point: Option<Point>,
}

/// Who takes part in a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineup {
    /// The systems that run, in the order to measure them.
    pub able: Vec<String>,
    /// Those that cannot do the cell, and why.
    pub unable: Vec<(String, String)>,
    /// Those that should have started and did not, and why.
    pub failed: Vec<(String, String)>,
}

/// What a trial yields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trial {
    /// The figures.
    pub measures: Measures,
    /// What limits their meaning: `generator-limited`.
    pub notes: Vec<String>,
}

/// How to run.
pub struct Plan<'a> {
    /// How many rounds in each cell; at least 1.
    pub rounds: u32,
    /// The system ratios compare with, where it takes part; else the first that does.
    pub reference: String,
    /// Whether somebody asked to stop. Asked before every trial.
    pub stopped: &'a dyn Fn() -> bool,
    /// Told of what goes on.
    pub watch: &'a mut dyn Watch,
}

/// Told of what goes on, for progress bars and partial results.
pub trait Watch {
    /// A cell begins: its name and how many trials it will take.
    fn cell(&mut self, name: &str, trials: u64);
    /// A trial begins.
    fn trial(&mut self, round: u32, system: &str);
    /// A round has ended; the report holds all there is until now.
    fn saved(&mut self, report: &Report);
}

/// Measures the cells that the report does not hold yet and adds them to it. When somebody asks to stop, the rounds that were
/// complete until then stay in the report, and it is not [`Report::complete`].
///
/// # Errors
/// A rig could not be built. What was measured before is in the report.
pub fn run(experiment: &mut dyn Experiment, plan: &mut Plan<'_>, report: &mut Report) -> Result<()> {
    let began = Instant::now();
    let before = report.seconds;
    report.complete = false;
    // A cell that was stopped in the middle is measured again, whole.
    report
        .cells
        .retain(|cell| cell.rounds.is_empty() || cell.rounds.len() >= plan.rounds as usize || !cell.failed.is_empty());
    for (number, info) in experiment.cells().into_iter().enumerate() {
        if report.cells.iter().any(|cell| cell.name == info.name) {
            continue;
        }
        if (plan.stopped)() {
            return Ok(());
        }
        let ended = run_cell(experiment, plan, report, number, info);
        experiment.close(number);
        report.goals = experiment.goals(report);
        report.seconds = before + began.elapsed().as_secs_f64();
        plan.watch.saved(report);
        if !ended? {
            return Ok(());
        }
    }
    report.complete = true;
    Ok(())
}

/// Measures one cell; false if somebody asked to stop before its last round.
fn run_cell(
    experiment: &mut dyn Experiment,
    plan: &mut Plan<'_>,
    report: &mut Report,
    number: usize,
    info: CellInfo,
) -> Result<bool> {
    let Lineup { mut able, unable, failed } = experiment.open(number)?;
    let trials = u64::from(plan.rounds) * (able.len() as u64 + 2);
    plan.watch.cell(&info.name, trials);
    let reference = able.iter().find(|system| **system == plan.reference).or(able.first()).cloned();
    let mut cell = CellReport {
        name: info.name,
        about: info.about,
        point: info.point,
        reference: reference.unwrap_or_default(),
        rounds: Vec::new(),
        outcomes: Vec::new(),
        too_noisy: false,
        unable,
        failed,
    };
    let mut notes = BTreeMap::new();
    let mut whole = true;
    for round in 1..=plan.rounds {
        if able.is_empty() {
            break;
        }
        match run_round(experiment, plan, number, round, &mut able, &mut notes, &mut cell.failed) {
            Ok(Some(round)) => cell.rounds.push(round),
            Ok(None) => {
                whole = false;
                break;
            }
            Err(error) => {
                cell.failed.push(("control".into(), format!("{error:#}")));
                break;
            }
        }
    }
    conclude(&mut cell, report, &notes);
    if !cell.rounds.is_empty() || !cell.failed.is_empty() || whole {
        report.cells.push(cell);
    }
    Ok(whole)
}

/// One round; nothing if somebody asked to stop.
fn run_round(
    experiment: &mut dyn Experiment,
    plan: &mut Plan<'_>,
    cell: usize,
    number: u32,
    able: &mut Vec<String>,
    notes: &mut BTreeMap<String, Vec<String>>,
    failed: &mut Vec<(String, String)>,
) -> Result<Option<Round>> {
    let control = |plan: &mut Plan<'_>, experiment: &mut dyn Experiment| -> Result<Option<f64>> {
        if (plan.stopped)() {
            return Ok(None);
        }
        plan.watch.trial(number, "control");
        experiment.control(cell).map(Some)
    };
    let Some(first) = control(plan, experiment)? else { return Ok(None) };
    let mut measures = BTreeMap::new();
    // Every other round goes backwards: who comes first is warm or cold by turns.
    let mut order = able.clone();
    if number.is_multiple_of(2) {
        order.reverse();
    }
    for system in order {
        if (plan.stopped)() {
            return Ok(None);
        }
        plan.watch.trial(number, &system);
        match experiment.trial(cell, &system, number) {
            Ok(trial) => {
                let known: &mut Vec<String> = notes.entry(system.clone()).or_default();
                known.extend(trial.notes.into_iter().filter(|note| !known.contains(note)).collect::<Vec<_>>());
                measures.insert(system, trial.measures);
            }
            // Ctrl-C reaches the programs too: one that ended for it has not failed.
            Err(_) if (plan.stopped)() => return Ok(None),
            Err(error) => {
                able.retain(|other| *other != system);
                failed.push((system, format!("{error:#}")));
            }
        }
    }
    let Some(last) = control(plan, experiment)? else { return Ok(None) };
    let control_moved = (first - last).abs() / first.min(last);
    Ok(Some(Round { number, control_moved, accepted: control_moved <= CONTROL_MAY_MOVE, measures }))
}

/// What follows from the rounds: medians of accepted ones.
fn conclude(cell: &mut CellReport, report: &Report, notes: &BTreeMap<String, Vec<String>>) {
    let accepted = cell.rounds.iter().filter(|round| round.accepted).count();
    cell.too_noisy = accepted * 2 < cell.rounds.len();
    let counted: Vec<&Round> = cell.counted().collect();
    let headline = report.figures.iter().find(|figure| figure.key == report.headline);
    let of = |round: &Round, system: &str, key: &str| round.measures.get(system)?.get(key).copied();
    let systems = report.systems.iter().map(|system| &system.name);
    let mut outcomes = Vec::new();
    for system in systems.filter(|system| counted.iter().any(|round| round.measures.contains_key(*system))) {
        let spread = |figure: &Figure| {
            let values = counted.iter().filter_map(|round| of(round, system, &figure.key));
            Some((figure.key.clone(), Spread::of(values)?))
        };
        let ratio = headline.and_then(|figure| {
            Spread::of(counted.iter().filter_map(|round| {
                let (own, other) = (of(round, system, &figure.key)?, of(round, &cell.reference, &figure.key)?);
                Some(if figure.better == Better::Lower { other / own } else { own / other })
            }))
        });
        outcomes.push(Outcome {
            system: system.clone(),
            figures: report.figures.iter().filter_map(spread).collect(),
            ratio,
            notes: notes.get(system).cloned().unwrap_or_default(),
        });
    }
    cell.outcomes = outcomes;
}

#[cfg(test)]
#[path = "rounds/tests.rs"]
mod tests;
