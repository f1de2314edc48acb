//! Programs the tests call that come from Debian.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::report::Outcome;

/// A package, the program of it the tests call, and what for.
const PACKAGES: [(&str, &str, &str); 4] = [
    ("miniupnpd-nftables", "miniupnpd", "is the router that gives a gateway a port"),
    ("nftables", "nft", "translates and filters addresses in the laboratory"),
    ("strace", "strace", "shows which system calls the data threads of the ring engine make"),
    ("valgrind", "valgrind", "counts instructions"),
];

/// Installs what is missing, as root; else says which one line does it.
pub(crate) fn ensure_packages() -> Result<Outcome> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(_, program, _)| !on_path(program)).collect();
    if missing.is_empty() {
        return Ok(Outcome::one());
    }
    for (package, _, purpose) in &missing {
        println!("{package} is missing: it {purpose}");
    }
    let names: Vec<_> = missing.iter().map(|(package, _, _)| *package).collect();
    let line = format!("apt-get update && apt-get install -y --no-install-recommends {}", names.join(" "));
    if command::output(command::program("id").arg("-u"))?.trim() != "0" {
        bail!("as root, run: {line}");
    }
    let mut install = command::program("sh");
    install.args(["-c", &line]).env("DEBIAN_FRONTEND", "noninteractive");
    command::succeed(&mut install).context("install what the tests need")?;
    Ok(Outcome::one())
}

/// Also where Debian keeps programs for root, which other users lack on their `PATH`; the laboratory looks there too.
fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_on_the_path() {
        assert!(on_path("sh"));
        assert!(!on_path("no-program-has-this-name"));
    }
}
