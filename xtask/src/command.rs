//! How other programs are started: without standard input, and with the environment the user has.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A program that reads no standard input and sees the environment `cargo xtask` was started in.
///
/// cargo tells a program it runs about that program's package. Passed on, that would reach the build scripts of
/// dependencies that watch these variables (ring's does), which would then be rebuilt at every change between
/// `cargo xtask` and plain cargo.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    for (variable, _) in env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_PRIMARY_PACKAGE" {
            command.env_remove(&variable);
        }
    }
    command
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    program(env::var_os("CARGO").as_deref().unwrap_or(OsStr::new("cargo")))
}

/// Runs to the end; anything but exit code 0 is an error.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{} ended with {status}", spoken(command));
    Ok(())
}

/// Runs to the end and returns what was printed on standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{} ended with {}", spoken(command), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{} printed something that is not UTF-8", spoken(command)))
}

/// Runs to the end, shows standard output as it comes and returns it too, with whether the exit code was 0.
pub(crate) fn shown_output(command: &mut Command) -> Result<(bool, String)> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("start {command:?}"))?;
    let stdout = child.stdout.take().expect("it was piped above");
    let mut text = String::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.with_context(|| format!("read from {}", spoken(command)))?;
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().with_context(|| format!("wait for {}", spoken(command)))?;
    Ok((status.success(), text))
}

/// The command as a person would type it, for messages.
fn spoken(command: &Command) -> String {
    let program = command.get_program();
    let name = std::path::Path::new(program).file_name().unwrap_or(program);
    let words = std::iter::once(name).chain(command.get_args()).map(OsStr::to_string_lossy);
    format!("`{}`", words.collect::<Vec<_>>().join(" "))
}
