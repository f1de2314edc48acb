//! How far a run is.

use std::cell::Cell;
use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Two bars on stderr, one for the cell and one for the run with the time left; off a terminal, a plain line for each cell.
///
/// The bars are drawn when something happens and not by a thread of their own: that would be work beside the measurement, and a
/// process with threads cannot enter a user namespace.
pub struct Progress {
    /// Nothing where stderr is no terminal.
    bars: Option<Bars>,
    /// Whether a trial is under way.
    running: Cell<bool>,
}

struct Bars {
    all: MultiProgress,
    cell: ProgressBar,
    run: ProgressBar,
}

impl Progress {
    /// For a run of so many trials.
    pub fn new(total_trials: u64) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| Bars::new(total_trials, ProgressDrawTarget::stderr()));
        Self { bars, running: Cell::new(false) }
    }

    /// A cell of so many trials begins.
    pub fn start(&self, label: &str, trials: u64) {
        self.end_trial();
        match &self.bars {
            Some(bars) => bars.start(label, trials),
            None => self.line(&format!("{label}: {trials} trials")),
        }
    }

    /// A trial begins, and the one before it is done: `round 2 of 5: recvmmsg`.
    pub fn trial(&self, text: &str) {
        self.end_trial();
        self.running.set(true);
        if let Some(bars) = &self.bars {
            bars.cell.set_message(text.to_owned());
            bars.run.tick();
        }
    }

    /// A line that stays, above the bars.
    pub fn line(&self, text: &str) {
        match &self.bars {
            // A terminal that went away takes no line; the run goes on.
            Some(bars) => drop(bars.all.println(text)),
            None => eprintln!("{text}"),
        }
    }

    /// The run is over: the bars go.
    pub fn finish(&self) {
        self.end_trial();
        if let Some(bars) = &self.bars {
            bars.cell.finish_and_clear();
            bars.run.finish_and_clear();
        }
    }

    fn end_trial(&self) {
        if self.running.replace(false)
            && let Some(bars) = &self.bars
        {
            bars.cell.inc(1);
            bars.run.inc(1);
        }
    }
}

impl Drop for Progress {
    /// A run that ends by an error leaves no bars behind either.
    fn drop(&mut self) {
        self.finish();
    }
}

impl Bars {
    fn new(total_trials: u64, target: ProgressDrawTarget) -> Self {
        let style = |template| {
            ProgressStyle::with_template(template).expect("the template is well formed").progress_chars("=> ")
        };
        let all = MultiProgress::with_draw_target(target);
        let (cell, run) = (ProgressBar::new(0), ProgressBar::new(total_trials));
        cell.set_style(style("{prefix} [{bar:24}] {pos}/{len} {wide_msg}"));
        run.set_style(style("all cells [{bar:24}] {pos}/{len} trials, {elapsed} gone, {eta} left"));
        Self { cell: all.add(cell), run: all.add(run), all }
    }

    fn start(&self, label: &str, trials: u64) {
        self.cell.reset();
        self.cell.set_length(trials);
        self.cell.set_prefix(label.to_owned());
        self.cell.set_message("");
        self.run.tick();
    }
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    #[test]
    fn bars_show_the_cell_the_trial_and_the_run_and_then_go() {
        let term = InMemoryTerm::new(6, 100);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let progress = Progress { bars: Some(Bars::new(8, target)), running: Cell::new(false) };
        progress.start("nic-1400", 4);
        progress.trial("round 1 of 2: <ring>");
        progress.trial("round 1 of 2: control");
        let shown = term.contents();
        assert!(shown.contains("nic-1400 [") && shown.contains("1/4 round 1 of 2: control"), "{shown}");
        assert!(shown.contains("1/8 trials"), "{shown}");
        progress.line("a rival is absent");
        progress.start("wire-64", 4);
        let shown = term.contents();
        assert!(shown.contains("a rival is absent"), "{shown}");
        assert!(shown.contains("wire-64 [") && shown.contains("0/4") && shown.contains("2/8 trials"), "{shown}");
        progress.finish();
        assert_eq!(term.contents().trim(), "a rival is absent");
    }
}
