//! `cargo xtask test`: what CI runs. Every step is timed, a step that fails does not end the run, a step that cannot be
//! tried counts as failed, and the last line is `N passed, N failed`.
//!
//! Each crate is compiled four times, and none of them twice: by clippy (no code), for the tests, in release for the
//! tests that start the programs, and by clippy for Windows.

use std::ffi::OsStr;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::flags::Selection;
use crate::report::{Outcome, Report};
use crate::workspace::Workspace;
use crate::{command, counts, debian, junit, programs, tidy, tools, windows};

/// Runs what was selected; fails if anything in it did.
pub(crate) fn run(selection: &Selection) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let mut report = Report::default();
    if *selection == Selection::All {
        source_checks(&mut report, &workspace);
    }
    tests(&mut report, &workspace, selection);
    if *selection == Selection::All {
        documentation(&mut report);
        report.step("counts", || counts::check().map(|()| Outcome::one()));
        for_windows(&mut report, &workspace);
    }
    Ok(report.finish())
}

fn source_checks(report: &mut Report, workspace: &Workspace) {
    report.step("format", || check(&["fmt", "--all", "--check"]));
    report.step("tidy", || tidy::check(workspace));
    report.step("clippy", || check(&["clippy", "--workspace", "--all-targets", "--keep-going", "--", "-Dwarnings"]));
}

/// The tests, after all they need: Debian's packages, nextest, the programs in release.
fn tests(report: &mut Report, workspace: &Workspace, selection: &Selection) {
    report.step("packages", debian::ensure_packages);
    let mut nextest = None;
    report.step("nextest", || {
        nextest = Some(tools::NEXTEST.get(workspace)?);
        Ok(Outcome::one())
    });
    let built = report.step("programs", || programs::build().map(|()| Outcome::one()));
    match nextest {
        None => report.not_run("tests", "there is no nextest"),
        Some(_) if !built => report.not_run("tests", "the programs did not build"),
        Some(nextest) => {
            report.step("tests", || run_nextest(nextest.as_os_str(), workspace, selection));
        }
    }
}

fn run_nextest(nextest: &OsStr, workspace: &Workspace, selection: &Selection) -> Result<Outcome> {
    let (profile, name) = match selection {
        Selection::All => ("default", None),
        Selection::Named(name) => ("default", Some(name)),
        Selection::Long(name) => ("long", name.as_ref()),
    };
    // nextest keeps its results here whatever CARGO_TARGET_DIR says.
    let results = workspace.root.join("target/nextest").join(profile).join("junit.xml");
    if results.exists() {
        fs::remove_file(&results).with_context(|| format!("remove {}", results.display()))?;
    }
    let mut run = command::program(nextest);
    run.args(["nextest", "run", "--workspace", "--no-fail-fast", "--profile", profile]).args(name);
    // A name that fits no test is a mistake.
    run.arg(if name.is_some() { "--no-tests=fail" } else { "--no-tests=pass" });
    run.env(programs::FOLDER_VARIABLE, programs::folder(workspace));
    let ended = command::succeed(&mut run);
    let outcome = fs::read_to_string(&results).map(|text| junit::outcome(&text)).unwrap_or_default();
    match ended {
        // What nextest itself complains about, beside or instead of tests.
        Err(error) if outcome.failed.is_empty() => Err(error),
        _ => Ok(outcome),
    }
}

fn documentation(report: &mut Report) {
    report.step("documentation tests", || {
        let mut run = command::cargo();
        let (good, text) = command::shown_output(run.args(["test", "--doc", "--workspace", "--no-fail-fast"]))?;
        let outcome = junit::documentation_outcome(&text);
        if !good && outcome.failed.is_empty() {
            bail!("they did not build");
        }
        Ok(outcome)
    });
    report.step("documentation", || {
        let mut doc = command::cargo();
        doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings");
        command::succeed(&mut doc).map(|()| Outcome::one())
    });
}

fn for_windows(report: &mut Report, workspace: &Workspace) {
    if report.step("windows setup", || windows::ensure_ready(workspace).map(|()| Outcome::one())) {
        report.step("windows check", || windows::check(workspace).map(|()| Outcome::one()));
    } else {
        report.not_run("windows check", "its set-up failed");
    }
}

/// One check that cargo makes.
fn check(arguments: &[&str]) -> Result<Outcome> {
    command::succeed(command::cargo().args(arguments)).map(|()| Outcome::one())
}
