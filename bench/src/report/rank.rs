//! Who is first, and by how much.

use std::cmp::Ordering;

use crate::figure::{Better, Figure, Spread};

use super::model::{CellReport, Outcome, Report, Round};

/// How two systems compare over the rounds that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Better in every round.
    Ahead = 0,
    /// Sometimes better, sometimes worse.
    Even = 1,
    /// Worse in every round.
    Behind = 2,
}

impl Standing {
    /// What a ratio says, turned so that above 1 is better.
    pub(super) fn of(ratio: &Spread) -> Self {
        if ratio.min > 1.0 {
            Standing::Ahead
        } else if ratio.max < 1.0 {
            Standing::Behind
        } else {
            Standing::Even
        }
    }
}

/// The outcomes from the best to the worst: by ratio, and those without one last, by the headline figure itself.
pub(super) fn ranked<'a>(report: &Report, cell: &'a CellReport) -> Vec<&'a Outcome> {
    let mut outcomes: Vec<&Outcome> = cell.outcomes.iter().collect();
    let lower = lower_is_better(report);
    let value = |outcome: &Outcome| outcome.figures.get(&report.headline).map(|spread| spread.median);
    outcomes.sort_by(|one, other| {
        let ratio = |outcome: &Outcome| outcome.ratio.map(|ratio| ratio.median);
        let by_value = descending(value(one), value(other));
        let by_value =
            if lower && value(one).is_some() && value(other).is_some() { by_value.reverse() } else { by_value };
        descending(ratio(one), ratio(other)).then(by_value)
    });
    outcomes
}

/// The largest first, nothing last.
fn descending(one: Option<f64>, other: Option<f64>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => other.total_cmp(&one),
        (one, other) => other.is_some().cmp(&one.is_some()),
    }
}

/// The headline figure, if the report describes it.
pub(super) fn headline(report: &Report) -> Option<&Figure> {
    report.figures.iter().find(|figure| figure.key == report.headline)
}

/// What the headline figure is called, with its unit: `relay (ns)`.
pub(super) fn headline_name(report: &Report) -> String {
    match headline(report) {
        Some(Figure { title, unit, .. }) if unit.is_empty() => title.clone(),
        Some(Figure { title, unit, .. }) => format!("{title} ({unit})"),
        None => "headline figure".into(),
    }
}

/// Whether the system is this project's own.
pub(super) fn is_ours(report: &Report, system: &str) -> bool {
    report.systems.iter().any(|info| info.ours && info.name == system)
}

/// Which of our systems speaks for us in the cell: the first in the order of the report that was measured, whether or not another of
/// ours did better.
pub(super) fn speaker<'a>(report: &'a Report, cell: &CellReport) -> Option<&'a str> {
    let ours = report.systems.iter().filter(|info| info.ours).map(|info| info.name.as_str());
    ours.into_iter().find(|name| cell.outcomes.iter().any(|outcome| outcome.system == *name))
}

/// The headline figure of one system as a multiple of another's in the same round, so turned that above 1 is better. Nothing if they
/// never were in the same round.
pub(super) fn versus(report: &Report, cell: &CellReport, one: &str, other: &str) -> Option<Spread> {
    let lower = lower_is_better(report);
    let ratio = |round: &Round| {
        let value = |system: &str| round.measures.get(system)?.get(&report.headline).copied();
        let (one, other) = (value(one)?, value(other)?);
        Some(if lower { other / one } else { one / other })
    };
    Spread::of(cell.counted().filter_map(ratio))
}

/// Whether less of the headline figure is better, so that ratios are turned over.
pub(super) fn lower_is_better(report: &Report) -> bool {
    headline(report).is_some_and(|figure| figure.better == Better::Lower)
}
