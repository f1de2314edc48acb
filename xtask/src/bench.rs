//! `cargo xtask bench`: builds the programs and the bench, then becomes the bench.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::counts::{SLOW_FEATURES, SLOW_VARIABLE};
use crate::workspace::Workspace;
use crate::{command, demo, programs};

/// Tells the bench where the transfer is that can go without techniques.
const ABLATION_VARIABLE: &str = "XTASK_PEER_ABLATION";

/// Whether these words name a system that is ours without one of its techniques.
fn asks_for_ablations(words: &[String]) -> bool {
    words.iter().flat_map(|word| word.split([',', '='])).any(|name| name == "ablations" || name.contains("-without-"))
}

/// Builds the transfer that can be told to go without techniques, in a folder of its own; where it is.
fn build_ablation(workspace: &Workspace) -> Result<PathBuf> {
    let target = workspace.target.join("ablation");
    let mut build = command::cargo();
    build.args(["build", "--release", "--package=transfer", "--bin=transfer", "--features=transfer/ablation"]);
    command::succeed(build.arg("--target-dir").arg(&target))?;
    Ok(target.join("release/transfer"))
}

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
    if asks_for_ablations(words) && env::var_os(ABLATION_VARIABLE).is_none() {
        bench.env(ABLATION_VARIABLE, build_ablation(&workspace)?);
    }
    demo::become_program(bench)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_without_techniques_is_made_for_who_asks() {
        let asks = |words: &str| asks_for_ablations(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(asks("relay --systems uring,ablations --rounds 3"));
        assert!(asks("relay --systems=uring-without-gro"));
        assert!(!asks("relay --systems uring,mmsg --cells wire-64"));
        assert!(!asks("relay"));
    }
}
