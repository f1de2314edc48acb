//! `cargo xtask deny`: licences, sources, bans and advisories, by the rules of `.deny.toml`.

use std::process::ExitCode;

use anyhow::Result;

use crate::command;
use crate::tools::DENY;
use crate::workspace::Workspace;

/// Runs cargo-deny; the advisories are read from the network.
pub(crate) fn run() -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let tool = DENY.get(&workspace)?;
    command::succeed(command::program(tool).arg("check").current_dir(&workspace.root))?;
    Ok(ExitCode::SUCCESS)
}
