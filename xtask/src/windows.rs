//! `cargo xtask windows`: the workspace compiled for x86_64-pc-windows-gnu.
//!
//! The compiler is Debian's, unpacked beside the system by `xtask/windows/setup.sh` into a folder that outlives
//! `cargo clean`. Its work goes to `target/win`: two compilers in one target folder would evict each other's.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::flags::WindowsAction;
use crate::workspace::Workspace;

/// Names the folder of the compiler.
const FOLDER_VARIABLE: &str = "EASYMESH_WINRUST";
/// Of that folder; the same number is in setup.sh.
const LAYOUT: &str = "layout 1,";

/// Packages that are not for Windows: engines and laboratory of Linux, and what drives them.
const LINUX_ONLY: [&str; 6] = ["bench", "mesh-lab", "mesh-mmsg", "mesh-udp", "mesh-uring", "xtask"];

/// Runs one action.
pub(crate) fn run(action: WindowsAction) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    match action {
        WindowsAction::Setup => setup(&workspace)?,
        WindowsAction::Check => {
            ensure_ready(&workspace)?;
            check(&workspace)?;
        }
        WindowsAction::Build => {
            ensure_ready(&workspace)?;
            build(&workspace)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets the compiler up if there is none; takes the one that is there without asking the network for a newer one.
pub(crate) fn ensure_ready(workspace: &Workspace) -> Result<()> {
    let contents = fs::read_to_string(folder()?.join("ready")).unwrap_or_default();
    if contents.starts_with(LAYOUT) { Ok(()) } else { setup(workspace) }
}

/// Sets the compiler up, or renews it when Debian has a newer one.
fn setup(workspace: &Workspace) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the compiler for Windows is set up on x86_64 Linux with Debian's package manager only");
    }
    let script = workspace.root.join("xtask/windows/setup.sh");
    command::succeed(command::program("bash").arg(script).arg(folder()?)).context("set up the compiler for Windows")
}

/// Clippy over all code that Windows compiles, tests included; a warning is an error.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut clippy = wincargo(workspace)?;
    clippy.args(["clippy", "--workspace", "--all-targets", "--keep-going"]);
    clippy.args(LINUX_ONLY.iter().map(|package| format!("--exclude={package}")));
    // How `cargo clippy -- -D warnings` tells clippy; that form needs a cargo-clippy of the same version.
    clippy.env("CLIPPY_ARGS", "-Dwarnings");
    command::succeed(&mut clippy)
}

/// The two programs, release.
fn build(workspace: &Workspace) -> Result<()> {
    command::succeed(wincargo(workspace)?.args(["build", "--release", "--package=transfer", "--package=gateway"]))?;
    println!("built in {}", workspace.target.join("win/x86_64-pc-windows-gnu/release").display());
    Ok(())
}

fn wincargo(workspace: &Workspace) -> Result<Command> {
    let mut wincargo = command::program(folder()?.join("bin/wincargo"));
    wincargo.env("CARGO_TARGET_DIR", &workspace.target);
    Ok(wincargo)
}

/// Where the compiler is: `$EASYMESH_WINRUST`, else in the user's cache folder.
fn folder() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable(FOLDER_VARIABLE) {
        return Ok(folder);
    }
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let cache = cache.with_context(|| format!("set {FOLDER_VARIABLE} or HOME: the compiler needs a folder"))?;
    Ok(cache.join("easymesh/winrust"))
}
