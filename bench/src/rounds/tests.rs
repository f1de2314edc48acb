use std::cell::Cell;

use super::*;
use crate::report::SystemInfo;

/// Systems with fixed costs on a machine whose speed changes from trial to trial.
struct Fake {
    costs: Vec<(&'static str, f64)>,
    /// The control's figures, in turn.
    control: Vec<f64>,
    controls: usize,
    trials: Vec<String>,
    fails: Option<(&'static str, u32)>,
    open: Option<usize>,
}

impl Fake {
    fn new(costs: &[(&'static str, f64)], control: &[f64]) -> Self {
        Self {
            costs: costs.to_vec(),
            control: control.to_vec(),
            controls: 0,
            trials: Vec::new(),
            fails: None,
            open: None,
        }
    }
}

impl Experiment for Fake {
    fn cells(&self) -> Vec<CellInfo> {
        ["first", "second"].map(|name| CellInfo { name: name.into(), about: String::new(), point: None }).to_vec()
    }

    fn open(&mut self, cell: usize) -> Result<Lineup> {
        assert_eq!(self.open.replace(cell), None, "the cell before was closed");
        let able = self.costs.iter().map(|(name, _)| (*name).to_owned()).collect();
        Ok(Lineup { able, unable: vec![("nginx".into(), "it has one port".into())], failed: Vec::new() })
    }

    fn trial(&mut self, _cell: usize, system: &str, round: u32) -> Result<Trial> {
        self.trials.push(format!("{round}{system}"));
        if self.fails == Some((self.costs.iter().find(|(name, _)| *name == system).unwrap().0, round)) {
            anyhow::bail!("it hung");
        }
        // The machine is slower by a tenth in each round: ratios within a round do not see it.
        let (_, cost) = self.costs.iter().find(|(name, _)| *name == system).unwrap();
        let measures = Measures::from([("cost".into(), cost * (1.0 + 0.1 * f64::from(round)))]);
        Ok(Trial { measures, notes: vec!["noted".into()] })
    }

    fn control(&mut self, _cell: usize) -> Result<f64> {
        self.controls += 1;
        Ok(self.control[(self.controls - 1) % self.control.len()])
    }

    fn close(&mut self, cell: usize) {
        assert_eq!(self.open.take(), Some(cell));
    }
}

#[derive(Default)]
struct Quiet {
    saves: usize,
}

impl Watch for Quiet {
    fn cell(&mut self, _name: &str, _trials: u64) {}
    fn trial(&mut self, _round: u32, _system: &str) {}
    fn saved(&mut self, _report: &Report) {
        self.saves += 1;
    }
}

fn report(systems: &[&str]) -> Report {
    let info =
        |name: &&str| SystemInfo { name: (*name).into(), version: String::new(), ours: false, about: String::new() };
    Report {
        bench: "relay".into(),
        title: String::new(),
        about: String::new(),
        command: String::new(),
        started: 0,
        seconds: 0.0,
        machine: Vec::new(),
        settings: Vec::new(),
        systems: systems.iter().map(info).collect(),
        absent: Vec::new(),
        figures: vec![Figure::new("cost", "cost", "ns", Better::Lower, "what it costs")],
        headline: "cost".into(),
        cells: Vec::new(),
        goals: Vec::new(),
        complete: false,
    }
}

fn run_all(fake: &mut Fake, rounds: u32, report: &mut Report, stopped: &dyn Fn() -> bool) -> Quiet {
    let mut watch = Quiet::default();
    let mut plan = Plan { rounds, reference: "ours".into(), stopped, watch: &mut watch };
    run(fake, &mut plan, report).unwrap();
    watch
}

#[test]
fn systems_take_turns_and_ratios_are_made_within_a_round() {
    let mut fake = Fake::new(&[("slow", 300.0), ("ours", 100.0)], &[50.0, 52.0]);
    let mut report = report(&["ours", "slow"]);
    run_all(&mut fake, 3, &mut report, &|| false);
    assert_eq!(fake.trials[..6], ["1slow", "1ours", "2ours", "2slow", "3slow", "3ours"]);
    assert!(report.complete);
    let cell = &report.cells[0];
    assert_eq!((cell.reference.as_str(), cell.rounds.len(), cell.too_noisy), ("ours", 3, false));
    assert_eq!(cell.unable, [("nginx".to_owned(), "it has one port".to_owned())]);
    let [ours, slow] = &cell.outcomes[..] else { panic!("{:?}", cell.outcomes) };
    let close = |value: f64, wanted: f64| (value - wanted).abs() < 1e-9;
    let ratio = slow.ratio.unwrap();
    assert!(close(ratio.min, 1.0 / 3.0) && close(ratio.max, 1.0 / 3.0), "three times the cost: {ratio:?}");
    assert!(close(ours.ratio.unwrap().median, 1.0));
    assert!(close(slow.figures["cost"].median, 360.0), "the median of 330, 360 and 390");
    assert_eq!(slow.notes, ["noted"], "each note once");
}

#[test]
fn a_round_in_which_the_control_moved_does_not_count() {
    // Rounds 1 and 3 are quiet; in round 2 the machine slowed down.
    let mut fake = Fake::new(&[("ours", 100.0)], &[50.0, 50.0, 50.0, 56.0, 55.0, 50.0]);
    let mut told = report(&["ours"]);
    run_all(&mut fake, 3, &mut told, &|| false);
    let cell = &told.cells[0];
    assert_eq!(cell.rounds.iter().map(|round| round.accepted).collect::<Vec<_>>(), [true, false, true]);
    assert!((cell.rounds[1].control_moved - 0.12).abs() < 1e-9);
    assert_eq!(cell.outcomes[0].figures["cost"].count, 2);
    assert!(!cell.too_noisy);

    let mut fake = Fake::new(&[("ours", 100.0)], &[50.0, 60.0, 50.0, 60.0, 50.0, 50.0]);
    let mut told = report(&["ours"]);
    run_all(&mut fake, 3, &mut told, &|| false);
    assert!(told.cells[0].too_noisy, "two of three were rejected");
    let mut fake = Fake::new(&[("ours", 100.0)], &[50.0, 60.0]);
    let mut told = report(&["ours"]);
    run_all(&mut fake, 2, &mut told, &|| false);
    assert_eq!(told.cells[0].outcomes[0].figures["cost"].count, 2, "none was accepted: all are shown, marked");
    assert!(told.cells[0].too_noisy);
}

#[test]
fn a_system_that_fails_is_left_out_and_named() {
    let mut fake = Fake::new(&[("ours", 100.0), ("bad", 100.0)], &[50.0]);
    fake.fails = Some(("bad", 2));
    let mut report = report(&["ours", "bad"]);
    run_all(&mut fake, 3, &mut report, &|| false);
    let cell = &report.cells[0];
    assert_eq!(cell.failed, [("bad".to_owned(), "it hung".to_owned())]);
    assert_eq!(cell.outcomes[0].figures["cost"].count, 3);
    assert_eq!(cell.outcomes[1].figures["cost"].count, 1, "what it did before stays");
    assert!(report.complete, "the other cell was measured too");
}

#[test]
fn who_stops_keeps_whole_rounds_and_may_go_on() {
    let left = Cell::new(7);
    let stopped = || {
        left.set(left.get() - 1);
        left.get() < 0
    };
    let mut fake = Fake::new(&[("ours", 100.0), ("slow", 300.0)], &[50.0]);
    let mut report = report(&["ours", "slow"]);
    let watch = run_all(&mut fake, 2, &mut report, &stopped);
    assert!(!report.complete);
    assert_eq!((report.cells.len(), report.cells[0].rounds.len()), (1, 1), "the second round was not whole");
    assert_eq!((fake.open, watch.saves), (None, 1), "the cell was closed and the rest saved");

    run_all(&mut fake, 2, &mut report, &|| false);
    assert!(report.complete);
    assert_eq!(report.cells.iter().map(|cell| cell.rounds.len()).collect::<Vec<_>>(), [2, 2]);
    let trials = fake.trials.len();
    run_all(&mut fake, 2, &mut report, &|| false);
    assert_eq!(fake.trials.len(), trials, "what is measured is not measured again");
}
