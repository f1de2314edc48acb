//! A report with two plain cells and a curve of four, of three systems; with rounds rejected, a system absent, one unable, one that
//! failed, and names that are markup if they are not escaped.

use std::collections::BTreeMap;

use bench::figure::{Better, Figure, Measures, Spread};
use bench::report::{Absent, CellReport, Goal, Outcome, Point, Report, Round, Seen, SystemInfo};

/// Our system, which is twice as good as the reference in each round.
pub(crate) const OURS: &str = "mesh <ring>";
/// What others compare with.
pub(crate) const REFERENCE: &str = "recv & send";
/// A slow one, of a tenth.
pub(crate) const SLOW: &str = "slow \"tool\"";
/// The cells of the curve stand at these places.
pub(crate) const PLACES: [f64; 4] = [1.0, 32.0, 200.0, 1_000.0];

/// The report.
pub(crate) fn report() -> Report {
    let figure = |key, title, unit, better, meaning| Figure::new(key, title, unit, better, meaning);
    let system = |name: &str, ours| SystemInfo {
        name: name.into(),
        version: "1.0 <beta>".into(),
        ours,
        about: format!("What {name} is."),
    };
    let mut report = Report {
        bench: "relay".into(),
        title: "Relays <side> by & side".into(),
        about: "First & foremost.\n\nThen <b>more</b>.".into(),
        command: "cargo xtask bench relay --cells 'a<b'".into(),
        started: 1_700_000_000,
        seconds: 754.25,
        machine: vec![("processor".into(), "Two <cores>".into()), ("kernel".into(), "6.18".into())],
        settings: vec![("link mode nic".into(), "Cut by the sender & gathered by the receiver.".into())],
        systems: vec![system(OURS, true), system(REFERENCE, false), system(SLOW, false)],
        absent: vec![Absent { name: "quil<kin>".into(), how: "cargo install \"quilkin\" && true".into() }],
        figures: vec![
            figure("rate", "loss-free", "kpps", Better::Higher, "How many & how fast, if <none> is lost."),
            figure("cost", "relay ns", "ns/datagram", Better::Lower, "What the relay's process spends."),
            figure("loss", "loss", "%", Better::Lower, "Share that never arrived."),
            figure("unused", "unused", "", Better::Neither, "A figure that no system has."),
        ],
        headline: "rate".into(),
        cells: Vec::new(),
        goals: goals(),
        complete: true,
    };
    let mut steady = cell("nic-1400-b16", 1.0, &[0.02, 0.14, 0.03, 0.01]);
    steady.failed.push((SLOW.into(), "ended by signal 11: \"<core>\u{1b}[0m\"".into()));
    steady.outcomes.retain(|outcome| outcome.system != SLOW);
    for round in &mut steady.rounds {
        round.measures.remove(SLOW);
    }
    steady.outcomes[0].notes.push("generator-limited".into());
    let mut noisy = cell("wire-64-b1", 2.0, &[0.3, 0.2, 0.02]);
    noisy.unable.push(("socket <cat>".into(), "it forwards one flow & no more".into()));
    report.cells.extend([steady, noisy]);
    for place in PLACES {
        let point = Point { group: "cost & flows".into(), axis: "flows <n>".into(), at: place };
        report
            .cells
            .push(CellReport { point: Some(point), ..cell(&format!("flows-{place}"), 1.0 + place.log10(), &[0.0; 3]) });
    }
    report
}

/// A cell in which everything is slower by a factor, with rounds in which the control moved by so much.
/// One that is reached, one that is reached as far as the stretch, one that is missed, one of a noisy machine, and one of which nothing
/// was seen.
fn goals() -> Vec<Goal> {
    let goal = |line: &str, better, target, median| Goal {
        line: line.into(),
        unit: "x".into(),
        better,
        target,
        stretch: None,
        seen: Seen::Median(Spread { min: median * 0.9, median, max: median * 1.1, count: 3 }),
        too_noisy: false,
        beside: Vec::new(),
    };
    let cheap = goal("cost, over <raw>", Better::Lower, 2.8, 2.0);
    vec![
        Goal { beside: vec![("nic & co".into(), Spread { min: 0.1, median: 0.25, max: 0.3, count: 3 })], ..cheap },
        Goal { stretch: Some(5.0), ..goal("rate, over tool 1", Better::Higher, 3.5, 5.5) },
        Goal { stretch: Some(6.0), unit: "ms".into(), ..goal("delay", Better::Lower, 8.0, 9.0) },
        Goal { too_noisy: true, ..goal("rate, over tool 2", Better::Higher, 3.5, 100.0) },
        Goal { seen: Seen::Nothing("rival absent".into()), ..goal("rate, over tool 3", Better::Higher, 10.0, 1.0) },
    ]
}

fn cell(name: &str, slower: f64, moved: &[f64]) -> CellReport {
    // In a round that does not count we trail.
    let ours = |moved: &f64| if *moved <= 0.1 { 2.0 } else { 0.3 };
    let round = |(index, moved): (usize, &f64)| Round {
        number: u32::try_from(index + 1).expect("a cell has a handful of rounds"),
        control_moved: *moved,
        accepted: *moved <= 0.1,
        measures: [(OURS, ours(moved)), (REFERENCE, 1.0), (SLOW, 0.1)]
            .map(|(system, rate)| (system.to_owned(), measures(rate, slower, index)))
            .into(),
    };
    let rounds: Vec<Round> = moved.iter().enumerate().map(round).collect();
    let spread = |system: &str, key: &str| {
        Spread::of(rounds.iter().filter(|round| round.accepted).map(|round| round.measures[system][key]))
    };
    let outcome = |(system, rate): (&str, f64)| Outcome {
        system: system.to_owned(),
        figures: ["rate", "cost", "loss"]
            .map(|key| (key.to_owned(), spread(system, key).expect("some round is accepted")))
            .into(),
        ratio: Some(Spread { min: rate * 0.999, median: rate, max: rate * 1.001, count: rounds.len() }),
        notes: Vec::new(),
    };
    CellReport {
        name: name.into(),
        about: format!("what {name} is in <words>"),
        point: None,
        reference: REFERENCE.into(),
        // Not in the order of merit.
        outcomes: [(OURS, 2.0), (SLOW, 0.1), (REFERENCE, 1.0)].map(outcome).into(),
        too_noisy: rounds.iter().filter(|round| !round.accepted).count() * 2 > rounds.len(),
        rounds,
        unable: Vec::new(),
        failed: Vec::new(),
    }
}

/// A machine that gets faster by a fifth with each round: figures move by over 10 %, ratios do not.
fn measures(rate: f64, slower: f64, round: usize) -> Measures {
    let rate = 1_234.5 * rate / slower * (1.0 + 0.2 * round as f64);
    BTreeMap::from([("rate".into(), rate), ("cost".into(), 1e6 / rate), ("loss".into(), 0.0)])
}
