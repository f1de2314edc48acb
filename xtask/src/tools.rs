//! cargo's plug-ins, each in exactly one version: the one on the machine if it is that, else built into `target/tools`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::workspace::Workspace;

/// A plug-in of cargo.
pub(crate) struct Tool {
    /// Of the package and of its program.
    name: &'static str,
    version: &'static str,
    /// What `cargo install` needs besides name and version.
    install: &'static [&'static str],
}

/// Runs the tests, each in its own process, and ends those that hang.
pub(crate) const NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    version: "0.9.143",
    install: &["--no-default-features", "--features=default-no-update"],
};
/// Checks licences, sources and advisories.
pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", install: &[] };

impl Tool {
    /// The program, built first if the machine does not have it.
    pub(crate) fn get(&self, workspace: &Workspace) -> Result<PathBuf> {
        let tools = workspace.target.join("tools");
        let built = tools.join("bin").join(self.name);
        for candidate in [PathBuf::from(self.name), built.clone()] {
            if self.is(&candidate) {
                return Ok(candidate);
            }
        }
        println!("{} {} is not here: building it into {}", self.name, self.version, tools.display());
        // It is built once and run a few times: a quick build is worth more than a quick program.
        let mut install = command::cargo();
        install.args(["install", "--locked", "--force", "--version", self.version, "--root"]).arg(&tools);
        install.args(self.install).arg(self.name);
        install.env("CARGO_TARGET_DIR", tools.join("build")).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
        install.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        install.env("CARGO_PROFILE_RELEASE_DEBUG", "false").env("CARGO_PROFILE_RELEASE_STRIP", "true");
        command::succeed(&mut install)?;
        std::fs::remove_dir_all(tools.join("build")).context("remove what building the tool left")?;
        ensure!(self.is(&built), "{} is not {} {}", built.display(), self.name, self.version);
        Ok(built)
    }

    fn is(&self, candidate: &PathBuf) -> bool {
        let output = command::program(candidate).arg("--version").output();
        output.is_ok_and(|output| self.says(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Whether this is what the wanted version answers to `--version`: name, version, perhaps a commit.
    fn says(&self, answer: &str) -> bool {
        let mut words = answer.split_whitespace();
        words.next() == Some(self.name) && words.next() == Some(self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_version_is_taken() {
        let tool = Tool { name: "cargo-thing", version: "1.2.3", install: &[] };
        assert!(tool.says("cargo-thing 1.2.3 (60fa45f63 2026-08-04)\nrelease: 1.2.3\n"));
        assert!(tool.says("cargo-thing 1.2.3\n"));
        assert!(!tool.says("cargo-thing 1.2.30\n"));
        assert!(!tool.says("other-thing 1.2.3\n"));
        assert!(!tool.says(""));
    }
}
