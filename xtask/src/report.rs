//! What a run of many steps adds up to: times, failing names, and the last line `N passed, N failed`.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

/// What one step adds to the sum.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Checks and tests that passed.
    pub(crate) passed: usize,
    /// Names of those that did not.
    pub(crate) failed: Vec<String>,
}

impl Outcome {
    /// A step that is one check, and passed.
    pub(crate) fn one() -> Self {
        Self { passed: 1, failed: Vec::new() }
    }
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Report {
    sum: Outcome,
    times: Vec<(String, Duration, bool)>,
}

impl Report {
    /// Runs one step and prints how long it took. Returns whether all of it passed; an error is one failed check.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Outcome>) -> bool {
        println!("== {name}");
        let start = Instant::now();
        let outcome = work().unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Outcome { passed: 0, failed: vec![format!("{name}: {error:#}")] }
        });
        let (time, good) = (start.elapsed(), outcome.failed.is_empty());
        println!("== {name}: {}, {}", if good { "good" } else { "failed" }, Seconds(time));
        self.times.push((name.to_owned(), time, good));
        self.sum.passed += outcome.passed;
        self.sum.failed.extend(outcome.failed);
        good
    }

    /// Counts a step that could not be tried as failed.
    pub(crate) fn not_run(&mut self, name: &str, reason: &str) {
        self.step(name, || anyhow::bail!("not run, since {reason}"));
    }

    /// Prints the times, the failing names and the sum.
    pub(crate) fn finish(self) -> ExitCode {
        println!("{self}");
        if self.sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out)?;
        for (name, time, good) in &self.times {
            writeln!(out, "{:>8}  {name}{}", Seconds(*time).to_string(), if *good { "" } else { "  (failed)" })?;
        }
        let whole = self.times.iter().map(|(_, time, _)| *time).sum();
        writeln!(out, "{:>8}  in all\n", Seconds(whole).to_string())?;
        for name in &self.sum.failed {
            writeln!(out, "failed: {name}")?;
        }
        write!(out, "{} passed, {} failed", self.sum.passed, self.sum.failed.len())
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.1} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_last_line_alone() {
        let mut report = Report::default();
        assert!(report.step("fmt", || Ok(Outcome::one())));
        assert!(!report.step("tests", || Ok(Outcome { passed: 40, failed: vec!["mesh-wire a::b".into()] })));
        assert!(!report.step("clippy", || anyhow::bail!("`cargo clippy` ended with 101")));
        let text = report.to_string();
        assert_eq!(text.lines().next_back(), Some("41 passed, 2 failed"));
        assert!(text.contains("\nfailed: mesh-wire a::b\nfailed: clippy: `cargo clippy` ended with 101\n"), "{text}");
        assert_eq!(report.finish(), ExitCode::FAILURE);
    }

    #[test]
    fn what_was_not_run_is_a_failure() {
        let mut report = Report::default();
        report.not_run("tests", "the programs did not build");
        assert!(report.to_string().ends_with("\n0 passed, 1 failed"));
    }

    #[test]
    fn a_run_without_failure_exits_with_0() {
        let mut report = Report::default();
        report.step("fmt", || Ok(Outcome::one()));
        assert!(report.to_string().ends_with("\n\n1 passed, 0 failed"));
        assert_eq!(report.finish(), ExitCode::SUCCESS);
    }
}
