//! Runs the program `nft`, which loads rules of packet filters and address translation into a host.

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::host::Host;

/// Where Debian keeps programs for root, which other users do not have on their `PATH`.
const ROOT_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Has `nft` execute `script` in the host, all of it or nothing, and returns what it prints.
pub(crate) fn execute(host: &Host, script: &str) -> Result<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let program = find(env::split_paths(&path).chain(ROOT_FOLDERS.map(PathBuf::from)))?;
    let mut command = host.command(&program);
    command.args(["--file", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {} in {}", program.display(), host.name()))?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().context("wait for nft")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("nft refuses these rules in {} (kernel module nf_tables):\n{script}{said}", host.name());
    }
    written.context("hand the rules to nft")?;
    String::from_utf8(output.stdout).context("what nft prints is no text")
}

fn find(mut folders: impl Iterator<Item = PathBuf>) -> Result<PathBuf> {
    let found = folders.find_map(|folder| Some(folder.join("nft")).filter(|program| program.is_file()));
    found.context("there is no program nft: as root, run apt-get install nftables")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_is_told_with_its_package() {
        let missing = find([PathBuf::from("/proc")].into_iter()).unwrap_err().to_string();
        assert_eq!(missing, "there is no program nft: as root, run apt-get install nftables");
    }
}
