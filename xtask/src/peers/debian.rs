//! Rivals that Debian packages: resolved and downloaded by apt, which checks them, and unpacked by dpkg-deb. Neither
//! needs root.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{Outcome, bytes};
use crate::command;

/// Packages that are unpacked together, with what they depend on, into the folder of this name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Set {
    /// As it is asked for on the command line.
    pub(super) name: &'static str,
    packages: &'static [&'static str],
    /// For what the bench has it.
    purpose: &'static str,
}

/// What crates with protocol buffers are built with: the program and the definitions it looks for beside itself.
pub(super) const COMPILER_OF_PROTOCOLS: Set = Set {
    name: "protobuf-compiler",
    packages: &["protobuf-compiler", "libprotobuf-dev"],
    purpose: "builds easytier and quilkin",
};

/// Every set. The names, and where the programs lie in them, are known to `bench/src/peers.rs`.
pub(super) const SETS: [Set; 11] = [
    Set { name: "coturn", packages: &["coturn"], purpose: "relay: TURN" },
    Set { name: "nginx", packages: &["nginx", "libnginx-mod-stream"], purpose: "relay: UDP proxy" },
    Set { name: "socat", packages: &["socat"], purpose: "relay: the plainest" },
    Set { name: "wireguard-go", packages: &["wireguard-go"], purpose: "tunnel" },
    Set { name: "wireguard-tools", packages: &["wireguard-tools"], purpose: "configures the tunnels of WireGuard" },
    Set { name: "nebula", packages: &["nebula"], purpose: "tunnel with relays" },
    Set { name: "n2n", packages: &["n2n"], purpose: "tunnel with relays" },
    Set { name: "tinc", packages: &["tinc"], purpose: "tunnel with relays" },
    Set { name: "openvpn", packages: &["openvpn"], purpose: "tunnel" },
    Set { name: "nftables", packages: &["nftables"], purpose: "relay: the kernel itself" },
    COMPILER_OF_PROTOCOLS,
];

/// Unpacked, packages take this many times their download (3.5 for all of them together, November 2026).
const UNPACKED_TIMES: u64 = 4;
/// In a set's folder: which packages it holds.
const STAMP: &str = ".packages";

/// A package apt would download: `socat`, `1.7.4.4-2`, 375188.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    bytes: u64,
}

/// A set that is not there yet, or not in the version Debian has.
struct Wanted {
    set: &'static Set,
    packages: Vec<Package>,
}

impl Set {
    /// Whether it is no rival but needed to build one.
    pub(super) fn is_tool_of_builds(&self) -> bool {
        *self == COMPILER_OF_PROTOCOLS
    }

    fn outcome(&self, result: Result<String>) -> Outcome {
        Outcome { name: self.name.into(), result }
    }
}

/// What there is to do for the sets, and what is known already.
pub(super) struct Plan {
    folder: PathBuf,
    lists: Lists,
    wanted: Vec<Wanted>,
    outcomes: Vec<Outcome>,
}

impl Plan {
    /// Asks apt what is missing in `folder`.
    pub(super) fn make(sets: &[&'static Set], folder: PathBuf) -> Self {
        let mut plan = Self { folder, lists: Lists::default(), wanted: Vec::new(), outcomes: Vec::new() };
        if sets.is_empty() {
            return plan;
        }
        println!("asking apt what is missing");
        let has_apt = command::program("apt-get").arg("--version").output().is_ok();
        for &set in sets {
            let missing = if has_apt {
                missing(set, &plan.folder, &mut plan.lists)
            } else {
                Err(anyhow!(
                    "this machine has no apt-get; a program it has elsewhere is named by XTASK_PEER_<NAME>=/path"
                ))
            };
            match missing {
                Ok(Missing::Packages(packages)) => plan.wanted.push(Wanted { set, packages }),
                Ok(Missing::Nothing(sentence)) => plan.outcomes.push(set.outcome(Ok(sentence.into()))),
                Err(error) => plan.outcomes.push(set.outcome(Err(error))),
            }
        }
        plan
    }

    /// Says what will be downloaded; returns how many bytes, and how many they will take on the disk.
    pub(super) fn say(&self) -> (u64, u64) {
        let size = |packages: &[Package]| packages.iter().map(|package| package.bytes).sum::<u64>();
        let all = self.wanted.iter().map(|wanted| size(&wanted.packages)).sum::<u64>();
        if !self.wanted.is_empty() {
            println!("from Debian, unpacked beside the system:");
            for Wanted { set, packages } in &self.wanted {
                let (version, size) = (own_version(set, packages), bytes(size(packages)));
                let count =
                    if packages.len() == 1 { "a package".into() } else { format!("{} packages", packages.len()) };
                println!("  {} {version} ({}): {count}, {size}", set.name, set.purpose);
            }
            println!("  in all: {} to download, {} of disk, about a minute", bytes(all), bytes(all * UNPACKED_TIMES));
        }
        (all, all * UNPACKED_TIMES)
    }

    /// Downloads and unpacks.
    pub(super) fn run(mut self) -> Vec<Outcome> {
        for Wanted { set, packages } in self.wanted {
            println!("unpacking {}", set.name);
            let result = install(set, packages, &self.folder, &mut self.lists);
            let result = result.map(|packages| format!("{} unpacked", own_version(set, &packages)));
            self.outcomes.push(set.outcome(result));
        }
        self.outcomes
    }
}

/// What there is to do for one set.
enum Missing {
    Packages(Vec<Package>),
    /// And why.
    Nothing(&'static str),
}

fn missing(set: &Set, folder: &Path, lists: &mut Lists) -> Result<Missing> {
    let packages = match resolve(set) {
        Ok(packages) => packages,
        Err(first) => {
            lists.renew().with_context(|| format!("{first:#}"))?;
            resolve(set)?
        }
    };
    if packages.is_empty() {
        return Ok(Missing::Nothing("installed in the system"));
    }
    let stamp = fs::read_to_string(folder.join(set.name).join(STAMP)).unwrap_or_default();
    Ok(if stamp == stamp_of(&packages) { Missing::Nothing("was there") } else { Missing::Packages(packages) })
}

/// The version of the package that gives the set its program.
fn own_version<'package>(set: &Set, packages: &'package [Package]) -> &'package str {
    let own = packages.iter().find(|package| set.packages.contains(&package.name.as_str()));
    own.map_or("?", |package| &package.version)
}

/// What apt would download to install the set on this machine; nothing if it is installed.
fn resolve(set: &Set) -> Result<Vec<Package>> {
    let mut apt = command::program("apt-get");
    // apt names only what is not in its folder of archives, so that is one where nothing is.
    apt.args(["install", "--print-uris", "-qq", "-y", "--no-install-recommends"]);
    apt.args(["-o", "Debug::NoLocking=1", "-o", "Dir::Cache::Archives=/nonexistent/"]).args(set.packages);
    read_uris(&run(&mut apt)?)
}

/// Reads lines of `'address' name_version_architecture.deb bytes [checksum]`.
fn read_uris(text: &str) -> Result<Vec<Package>> {
    let lines = text.lines().filter(|line| line.starts_with('\''));
    let read = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let mut file = words.next()?.split('_');
        // A colon cannot be in a file's name.
        let (name, version) = (file.next()?.to_owned(), file.next()?.replace("%3a", ":"));
        Some(Package { name, version, bytes: words.next()?.parse().ok()? })
    };
    lines
        .map(|line| read(line).with_context(|| format!("apt-get printed a line that is not understood: {line}")))
        .collect()
}

/// Makes the set in a folder beside the final one, and puts it there when it is complete. Returns what it holds.
fn install(set: &Set, packages: Vec<Package>, folder: &Path, lists: &mut Lists) -> Result<Vec<Package>> {
    let (new, old) = (folder.join(format!(".new-{}", set.name)), folder.join(format!(".old-{}", set.name)));
    // Left by a run that was interrupted.
    remove(&new)?;
    remove(&old)?;
    let made = make(set, packages, &new, lists);
    if made.is_err() {
        remove(&new)?;
    }
    let packages = made?;
    let there = folder.join(set.name);
    if there.exists() {
        fs::rename(&there, &old).with_context(|| format!("move {} away", there.display()))?;
    }
    fs::rename(&new, &there).with_context(|| format!("move the new {} into place", there.display()))?;
    remove(&old)?;
    Ok(packages)
}

/// Downloads and unpacks into `new`, with the stamp last.
fn make(set: &Set, mut packages: Vec<Package>, new: &Path, lists: &mut Lists) -> Result<Vec<Package>> {
    let archives = new.join(".archives");
    fs::create_dir_all(&archives).with_context(|| format!("create {}", archives.display()))?;
    if let Err(first) = download(&packages, &archives) {
        // Debian removes a version when it has a newer one, and the lists may name the one that is gone.
        lists.renew().with_context(|| format!("{first:#}"))?;
        remove(&archives)?;
        fs::create_dir_all(&archives)?;
        packages = resolve(set)?;
        download(&packages, &archives)?;
    }
    let mut unpacked = 0;
    for archive in fs::read_dir(&archives)? {
        run(command::program("dpkg-deb").arg("--extract").arg(archive?.path()).arg(new))?;
        unpacked += 1;
    }
    ensure!(unpacked == packages.len(), "{unpacked} packages came, not {}", packages.len());
    remove(&archives)?;
    fs::write(new.join(STAMP), stamp_of(&packages))?;
    Ok(packages)
}

fn download(packages: &[Package], archives: &Path) -> Result<()> {
    let mut apt = command::program("apt-get");
    // As root, apt downloads as a user who may not write here: it would complain, and then do it as root.
    apt.args(["download", "-qq", "-o", "APT::Sandbox::User=root"]).current_dir(archives);
    apt.args(packages.iter().map(|package| format!("{}={}", package.name, package.version)));
    run(&mut apt).map(drop)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

fn stamp_of(packages: &[Package]) -> String {
    packages.iter().map(|package| format!("{} {}\n", package.name, package.version)).collect()
}

/// apt's lists of what Debian has, which only root can renew, once in a run.
#[derive(Default)]
struct Lists {
    renewed: bool,
}

impl Lists {
    fn renew(&mut self) -> Result<()> {
        if self.renewed {
            return Ok(());
        }
        if command::output(command::program("id").arg("-u"))?.trim() != "0" {
            bail!("apt's lists of packages may be old; as root, run: apt-get update");
        }
        println!("renewing apt's lists of packages");
        self.renewed = true;
        run(command::program("apt-get").args(["update", "-qq"])).map(drop)
    }
}

/// Runs to the end and returns what was printed on standard output; what it complains of becomes the error.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let program = Path::new(&program).file_name().unwrap_or(OsStr::new("?")).display();
    let output = command.output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint: Vec<_> = complaint.lines().map(|line| line.trim_start_matches("E: ")).collect();
        bail!("{program} ended with {}: {}", output.status, complaint.join("; "));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed something that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, bytes: u64) -> Package {
        Package { name: name.into(), version: version.into(), bytes }
    }

    #[test]
    fn what_apt_would_download_is_read_with_and_without_a_checksum() {
        let text = "\
'http://deb.example/pool/t/telnet_2.4-2_amd64.deb' inetutils-telnet_2%3a2.4-2+deb12u3_amd64.deb 120880 MD5Sum:8191
'http://deb.example/pool/s/socat_1.7.4.4-2_amd64.deb' socat_1.7.4.4-2_amd64.deb 375188 \n";
        let expected =
            [package("inetutils-telnet", "2:2.4-2+deb12u3", 120_880), package("socat", "1.7.4.4-2", 375_188)];
        assert_eq!(read_uris(text).unwrap(), expected);
        assert_eq!(read_uris("").unwrap(), []);
    }

    #[test]
    fn a_line_of_apt_that_is_not_understood_is_an_error() {
        for line in ["'http://deb.example/a.deb'", "'http://deb.example/a.deb' a.deb 12", "'a' a_1_all.deb many"] {
            let error = read_uris(line).unwrap_err().to_string();
            assert!(error.ends_with(line), "{error}");
        }
    }

    #[test]
    fn a_set_is_there_only_with_exactly_its_packages() {
        let (old, new) =
            ([package("tinc", "1.0.35", 1)], [package("tinc", "1.0.36", 1), package("liblzo2-2", "2.10", 2)]);
        assert_ne!(stamp_of(&old), stamp_of(&new));
        assert_eq!(stamp_of(&new), "tinc 1.0.36\nliblzo2-2 2.10\n");
    }

    #[test]
    fn what_a_program_complains_of_is_in_the_error() {
        let error = run(command::program("sh").args(["-c", "echo E: no such package >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh ended with exit status: 3: no such package");
    }
}
