//! `cargo xtask demo`: builds the programs and the demonstration, then becomes the demonstration.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{command, programs};

/// Runs `demo` of package `mesh-lab` with the two programs; its exit code is ours.
pub(crate) fn run(keep: bool, engine: Option<&str>) -> Result<ExitCode> {
    if !cfg!(target_os = "linux") {
        bail!("the demo needs the network namespaces of Linux");
    }
    let workspace = Workspace::load()?;
    programs::build()?;
    command::succeed(command::cargo().args(["build", "--release", "--package=mesh-lab", "--bin=demo"]))?;

    let folder = programs::folder(&workspace);
    let mut demo = command::program(folder.join("demo"));
    demo.arg("--transfer").arg(folder.join("transfer")).arg("--gateway").arg(folder.join("gateway"));
    if keep {
        demo.arg("--keep");
    }
    if let Some(engine) = engine {
        demo.args(["--engine", engine]);
    }
    become_program(demo)
}

/// Replaces this process, so that Ctrl-C, signals and the exit code are the demonstration's own.
#[cfg(unix)]
pub(crate) fn become_program(mut program: std::process::Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(program.exec().into())
}

#[cfg(not(unix))]
pub(crate) fn become_program(mut program: std::process::Command) -> Result<ExitCode> {
    command::succeed(&mut program)?;
    Ok(ExitCode::SUCCESS)
}
