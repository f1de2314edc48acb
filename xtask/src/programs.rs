//! The two programs, as a user would build them.

use anyhow::Result;

use crate::command;
use crate::workspace::Workspace;

/// Tells the tests where the programs are: the folder that holds `transfer` and `gateway`.
pub(crate) const FOLDER_VARIABLE: &str = "EASYMESH_PROGRAMS";

/// Builds `transfer` and `gateway` in release.
pub(crate) fn build() -> Result<()> {
    command::succeed(command::cargo().args(["build", "--release", "--package=transfer", "--package=gateway"]))
}

/// The folder [`build`] puts them in.
pub(crate) fn folder(workspace: &Workspace) -> std::path::PathBuf {
    workspace.target.join("release")
}
