//! Rivals that crates.io carries: built from source by `cargo install`, one after the other, each with the lock file
//! its authors published.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::debian::COMPILER_OF_PROTOCOLS;
use super::{Cost, Outcome};
use crate::command;

/// A crate with a program, in exactly one version.
pub(super) struct Crate {
    /// As it is asked for on the command line, and on crates.io.
    pub(super) name: &'static str,
    version: &'static str,
    /// The program of it that the bench runs.
    program: &'static str,
    /// For what the bench has it.
    purpose: &'static str,
    /// What `cargo install` needs besides name and version.
    features: &'static [&'static str],
    /// For the compiler, on x86-64: what the crate does not compile without.
    x86_64_flags: &'static str,
    /// For the compiler, on 64-bit ARM.
    aarch64_flags: &'static str,
    /// Whether its build runs the compiler of protocol buffers.
    needs_protoc: bool,
    cost: Cost,
}

/// A crate that needs nothing special.
const PLAIN: Crate = Crate {
    name: "",
    version: "",
    program: "",
    purpose: "",
    features: &[],
    x86_64_flags: "",
    aarch64_flags: "",
    needs_protoc: false,
    cost: Cost { download: 0, disk: 0, processor_seconds: 0 },
};

const MB: u64 = 1_000_000;

/// The costs were measured in November 2026 on a busy virtual machine with two cores of an AMD EPYC, by rustc 1.95 with
/// one job: they are processor time, not time on the clock. turn-server was built from nothing. boringtun, gotatun and
/// easytier found some dependencies built before; the first two were rounded up for that, the third hardly shares any.
/// quilkin's is what its dependencies took and an estimate for the crate itself. The smallest is first, so that
/// something is there soon.
pub(super) const CRATES: [Crate; 5] = [
    Crate {
        name: "boringtun-cli",
        version: "0.7.1",
        program: "boringtun-cli",
        purpose: "tunnel",
        cost: Cost { download: 26 * MB, disk: 250 * MB, processor_seconds: 70 },
        ..PLAIN
    },
    Crate {
        name: "turn-server",
        version: "4.1.5",
        program: "turn-server",
        purpose: "relay: TURN",
        features: &["--no-default-features", "--features=udp"],
        cost: Cost { download: 46 * MB, disk: 260 * MB, processor_seconds: 95 },
        ..PLAIN
    },
    Crate {
        name: "gotatun-cli",
        version: "0.10.2",
        program: "gotatun",
        purpose: "tunnel",
        cost: Cost { download: 41 * MB, disk: 450 * MB, processor_seconds: 150 },
        ..PLAIN
    },
    Crate {
        name: "easytier",
        version: "2.0.3",
        program: "easytier-core",
        purpose: "tunnel with relays",
        needs_protoc: true,
        cost: Cost { download: 47 * MB, disk: 1_500 * MB, processor_seconds: 460 },
        ..PLAIN
    },
    Crate {
        name: "quilkin",
        version: "0.10.0",
        program: "quilkin",
        purpose: "relay: UDP proxy by io_uring",
        // Of its own repository; its hash function does not compile without.
        x86_64_flags: "-Ctarget-feature=+aes,+avx2",
        aarch64_flags: "-Ctarget-feature=+aes,+neon",
        needs_protoc: true,
        cost: Cost { download: 48 * MB, disk: 1_500 * MB, processor_seconds: 700 },
        ..PLAIN
    },
];

/// What there is to do for the crates.
pub(super) struct Plan {
    folder: PathBuf,
    there: Vec<&'static Crate>,
    wanted: Vec<&'static Crate>,
}

impl Plan {
    /// Looks what is missing in `folder`.
    pub(super) fn make(crates: &[&'static Crate], folder: PathBuf) -> Self {
        let (there, wanted) = crates.iter().copied().partition(|krate| krate.is_installed(&folder));
        Self { folder, there, wanted }
    }

    /// Whether one that will be built runs the compiler of protocol buffers, and the machine has none.
    pub(super) fn lacks_protoc(&self) -> bool {
        self.wanted.iter().any(|krate| krate.needs_protoc) && !has_protoc_of_its_own()
    }

    /// Says what will be built; returns what that costs.
    pub(super) fn say(&self) -> Cost {
        let all = Cost::sum(self.wanted.iter().map(|krate| krate.cost));
        if !self.wanted.is_empty() {
            println!("from crates.io, built from source one after the other:");
            for krate in &self.wanted {
                println!("  {} {} ({}): {}", krate.name, krate.version, krate.purpose, krate.cost.spoken());
            }
            println!("  in all: {}", all.spoken());
        }
        all
    }

    /// Builds into `cargo/bin` of the folder.
    pub(super) fn run(self) -> Vec<Outcome> {
        let was_there = self.there.into_iter().map(|krate| krate.outcome(Ok("was there".into())));
        let built = self.wanted.into_iter().map(|krate| {
            println!("\nbuilding {} {}", krate.name, krate.version);
            let start = Instant::now();
            let result = krate.build(&self.folder);
            krate.outcome(result.map(|()| format!("built in {} seconds", start.elapsed().as_secs())))
        });
        was_there.chain(built).collect()
    }
}

/// Whether the machine has a compiler of protocol buffers that builds find by themselves.
fn has_protoc_of_its_own() -> bool {
    env::var_os("PROTOC").is_some() || command::program("protoc").arg("--version").output().is_ok()
}

impl Crate {
    fn outcome(&self, result: Result<String>) -> Outcome {
        Outcome { name: format!("{} {}", self.name, self.version), result }
    }

    /// Whether it is there in this version, as cargo's own record has it.
    fn is_installed(&self, folder: &Path) -> bool {
        let root = root(folder);
        let record = fs::read_to_string(root.join(".crates.toml")).unwrap_or_default();
        self.is_recorded(&record) && root.join("bin").join(self.program).is_file()
    }

    fn is_recorded(&self, record: &str) -> bool {
        let start = format!("\"{} {} (", self.name, self.version);
        record.lines().any(|line| line.starts_with(&start))
    }

    fn build(&self, folder: &Path) -> Result<()> {
        // A folder of its own, gone once the program is there. What a failure leaves lets the next attempt go on from
        // there.
        let build = folder.join("build").join(self.name);
        let mut cargo = command::cargo();
        cargo.args(["install", "--locked", "--version", &format!("={}", self.version), "--root"]).arg(root(folder));
        cargo.args(self.features).arg(self.name).env("CARGO_TARGET_DIR", &build);
        // Neither the flags of who builds this workspace, nor any other than its authors'.
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", self.flags());
        if self.needs_protoc && !has_protoc_of_its_own() {
            add_protoc(&mut cargo, folder)?;
        }
        watch(&mut cargo)?;
        fs::remove_dir_all(&build).with_context(|| format!("remove what building left in {}", build.display()))
    }

    fn flags(&self) -> &'static str {
        match env::consts::ARCH {
            "x86_64" => self.x86_64_flags,
            "aarch64" => self.aarch64_flags,
            _ => "",
        }
    }
}

/// What cargo calls the root of installed programs.
fn root(folder: &Path) -> PathBuf {
    folder.join("cargo")
}

/// Lets the build find the compiler of protocol buffers that was unpacked from Debian, and that find its libraries.
fn add_protoc(cargo: &mut Command, folder: &Path) -> Result<()> {
    let unpacked = folder.join("debian").join(COMPILER_OF_PROTOCOLS.name).join("usr");
    let protoc = unpacked.join("bin/protoc");
    if !protoc.is_file() {
        bail!("it needs protoc, which could not be unpacked from Debian: install it, or set PROTOC");
    }
    let mut libraries = Vec::new();
    for entry in fs::read_dir(unpacked.join("lib")).context("read the folder of protoc's libraries")? {
        let path = entry?.path();
        if path.as_os_str().as_encoded_bytes().ends_with(b"-linux-gnu") {
            libraries.push(path);
        }
    }
    let inherited = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    libraries.extend(env::split_paths(&inherited).filter(|folder| !folder.as_os_str().is_empty()));
    cargo.env("PROTOC", protoc).env("LD_LIBRARY_PATH", env::join_paths(libraries)?);
    Ok(())
}

/// Runs cargo and shows what it says; if it fails, the first error it named is the reason.
fn watch(cargo: &mut Command) -> Result<()> {
    // Without colours, which come before the words.
    let mut child = cargo.env("CARGO_TERM_COLOR", "never").stderr(Stdio::piped()).spawn().context("start cargo")?;
    let stderr = child.stderr.take().expect("it was piped above");
    let mut reason = None;
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.context("read what cargo says")?;
        // A C compiler may print what is not UTF-8.
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        if reason.is_none() && line.starts_with("error") {
            reason = Some(line.into_owned());
        }
    }
    let status = child.wait().context("wait for cargo")?;
    if !status.success() {
        bail!("cargo install ended with {status}: {}", reason.as_deref().unwrap_or("it named no error"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_version_counts_as_there() {
        let quilkin = CRATES.iter().find(|krate| krate.name == "quilkin").unwrap();
        let record = |version: &str| {
            format!(
                "[v1]\n\"quilkin {version} (registry+https://github.com/rust-lang/crates.io-index)\" = [\"quilkin\"]\n"
            )
        };
        assert!(quilkin.is_recorded(&record("0.10.0")));
        assert!(!quilkin.is_recorded(&record("0.10.01")));
        assert!(!quilkin.is_recorded(&record("0.9.0")));
        assert!(!quilkin.is_recorded(""));
    }

    #[test]
    fn what_is_recorded_but_has_no_program_is_not_there() {
        let folder = env::temp_dir().join(format!("xtask-peers-record-{}", std::process::id()));
        let quilkin = CRATES.iter().find(|krate| krate.name == "quilkin").unwrap();
        fs::create_dir_all(folder.join("cargo/bin")).unwrap();
        fs::write(folder.join("cargo/.crates.toml"), "\"quilkin 0.10.0 (registry)\" = [\"quilkin\"]\n").unwrap();
        assert!(!quilkin.is_installed(&folder));
        fs::write(folder.join("cargo/bin/quilkin"), "").unwrap();
        assert!(quilkin.is_installed(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_failed_build_names_the_first_error() {
        let script = "echo Compiling a; echo 'error: no such thing'; echo 'error: could not compile'; exit 101";
        let error = watch(command::program("sh").args(["-c", &format!("({script}) >&2")])).unwrap_err();
        assert_eq!(error.to_string(), "cargo install ended with exit status: 101: error: no such thing");
        watch(command::program("sh").args(["-c", "echo Compiling a >&2"])).unwrap();
    }
}
