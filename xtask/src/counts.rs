//! `cargo xtask bench counts`: what a datagram costs in instructions, allocations and system calls, against the committed
//! `bench/counts.toml`. Nothing is timed, so other load on the machine does no harm.

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};

use crate::command;
use crate::workspace::Workspace;

/// Makes the relay slow in a test build, to show that the counts see it.
pub(crate) const SLOW_VARIABLE: &str = "EASYMESH_SLOW_RELAY";
/// What cargo is told to build so.
pub(crate) const SLOW_FEATURES: &str = "--features=transfer/slow,bench/slow";

/// Builds the program that counts and the transfer, in release, and compares; or makes the counts of now the baseline.
///
/// With `EASYMESH_SLOW_RELAY` set to a number of steps, both are built with the feature `slow`, in a folder of their own.
pub(crate) fn run(bless: bool) -> Result<ExitCode> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the counts are those of Linux on x86-64");
    }
    let slow = env::var_os(SLOW_VARIABLE).is_some();
    ensure!(!(slow && bless), "{SLOW_VARIABLE} is set: a slowed relay makes no baseline");
    let workspace = Workspace::load()?;
    let mut build = command::cargo();
    build.args(["build", "--release", "--package=transfer", "--package=bench", "--bin=transfer", "--bin=counts"]);
    let mut target = workspace.target;
    if slow {
        target.push("slow");
        build.args([SLOW_FEATURES, "--target-dir"]).arg(&target);
    }
    command::succeed(&mut build)?;

    let folder = target.join("release");
    let mut counts = command::program(folder.join("counts"));
    counts.arg("check").arg(workspace.root.join("bench/counts.toml")).arg(folder.join("transfer"));
    if bless {
        counts.arg("--bless");
    }
    Ok(if counts.status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For `cargo xtask test`: fails if a count is worse than the baseline.
pub(crate) fn check() -> Result<()> {
    ensure!(run(false)? == ExitCode::SUCCESS, "a count is worse than in bench/counts.toml");
    Ok(())
}
