//! `cargo xtask bench`: builds the programs and the bench, then becomes the bench.

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::counts::{SLOW_FEATURES, SLOW_VARIABLE};
use crate::workspace::Workspace;
use crate::{command, demo, programs};

/// Runs the program `bench` with these words; its exit code is ours.
///
/// With `EASYMESH_SLOW_RELAY` set to a number of steps the transfer is built with the feature `slow`, in a folder of its own.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    if !cfg!(target_os = "linux") {
        bail!("the bench needs the network namespaces of Linux");
    }
    let workspace = Workspace::load()?;
    let mut folder = programs::folder(&workspace);
    let mut build = command::cargo();
    build.args(["build", "--release", "--package=bench", "--bin=bench"]);
    if env::var_os(SLOW_VARIABLE).is_some() {
        folder = workspace.target.join("slow/release");
        build.args(["--package=transfer", "--package=gateway", "--bin=transfer", "--bin=gateway", SLOW_FEATURES]);
        build.arg("--target-dir").arg(workspace.target.join("slow"));
    } else {
        programs::build()?;
    }
    command::succeed(&mut build)?;
    let mut bench = command::program(folder.join("bench"));
    bench.args(words).env(programs::FOLDER_VARIABLE, &folder);
    demo::become_program(bench)
}
