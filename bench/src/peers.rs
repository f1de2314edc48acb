//! The programs of others: where they are, which version they are, and what they need around them to run.
//!
//! A program is looked for in this order:
//! 1. the variable `XTASK_PEER_<NAME>` (`XTASK_PEER_WIREGUARD_GO=/path`): set, it decides alone, and must name
//!    something runnable;
//! 2. the folder that `cargo xtask bench peers` fills: `$XTASK_PEERS`, else `target/peers` of this workspace. Each set
//!    of Debian's packages is unpacked into a folder of its own in `debian`, crates.io's programs are in `cargo/bin`;
//! 3. the `PATH`.
//!
//! Nothing is installed or downloaded here. What is in none of the three is [`Absent`], which is no error: a report
//! lists it.

use std::ffi::{OsStr, OsString};
use std::io::{PipeReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fmt, fs, thread};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Names the folder of the unpacked and built programs, if it is not `target/peers`.
const FOLDER_VARIABLE: &str = "XTASK_PEERS";
/// How long a program may take to tell its version. The slowest takes 0.1 s on a busy machine of two cores.
const VERSION_TIME_MAX: Duration = Duration::from_secs(10);
/// How much is read of what a program prints when asked for its version.
const VERSION_BYTES_MAX: u64 = 16 * 1024;

/// A program of others that is here and runs.
#[derive(Clone, Debug)]
pub struct Peer {
    /// As given to [`find`].
    pub name: &'static str,
    /// The program, by its absolute path.
    pub program: PathBuf,
    /// What it says of itself: `1.22.1`.
    pub version: String,
    /// What must be set to run it: where the libraries it was unpacked with are.
    pub environment: Vec<(OsString, OsString)>,
    /// What stands for `/` in the paths of its package: the folder it was unpacked into, or `/` itself.
    pub root: PathBuf,
}

impl Peer {
    /// A command that runs it, with its environment and without standard input.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::null()).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Another file of its package, `path` as the package has it (`usr/lib/nginx/modules/ngx_stream_module.so`); `None`
    /// if there is none.
    pub fn file(&self, path: &str) -> Option<PathBuf> {
        Some(self.root.join(path)).filter(|file| file.is_file())
    }
}

/// A program of others that is not on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// As given to [`find`].
    pub name: &'static str,
    /// The line that gets it, and the one that names it where it already is.
    pub how: String,
}

impl fmt::Display for Absent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} is absent: {}", self.name, self.how)
    }
}

/// What is known of a program before it is looked for.
struct Known {
    name: &'static str,
    /// The file's name, which is not always the peer's.
    program: &'static str,
    source: Source,
    /// What makes it tell its version and end.
    version: &'static [&'static str],
}

/// Who carries a program, and so where `cargo xtask bench peers` puts it.
#[derive(Clone, Copy)]
enum Source {
    /// The name of the set, which is the folder in `debian`, and the folder of the program within.
    Debian { set: &'static str, folder: &'static str },
    /// The crate.
    CratesIo(&'static str),
}

impl Source {
    /// The word after `cargo xtask bench peers`.
    fn name(self) -> &'static str {
        match self {
            Self::Debian { set, .. } => set,
            Self::CratesIo(name) => name,
        }
    }
}

const fn debian(
    name: &'static str,
    program: &'static str,
    set: &'static str,
    folder: &'static str,
    version: &'static [&'static str],
) -> Known {
    Known { name, program, source: Source::Debian { set, folder }, version }
}

const fn crates_io(name: &'static str, program: &'static str, package: &'static str) -> Known {
    Known { name, program, source: Source::CratesIo(package), version: &["--version"] }
}

/// Every program that can be looked for. The sets are those of `xtask/src/peers`.
const KNOWN: [Known; 17] = [
    debian("coturn", "turnserver", "coturn", "usr/bin", &["--version"]),
    debian("edge", "edge", "n2n", "usr/sbin", &["-h"]),
    debian("nebula", "nebula", "nebula", "usr/bin", &["-version"]),
    debian("nebula-cert", "nebula-cert", "nebula", "usr/bin", &["-version"]),
    debian("nft", "nft", "nftables", "usr/sbin", &["--version"]),
    debian("nginx", "nginx", "nginx", "usr/sbin", &["-v"]),
    debian("openvpn", "openvpn", "openvpn", "usr/sbin", &["--version"]),
    debian("socat", "socat", "socat", "usr/bin", &["-V"]),
    debian("supernode", "supernode", "n2n", "usr/bin", &["-h"]),
    debian("tinc", "tincd", "tinc", "usr/sbin", &["--version"]),
    debian("wg", "wg", "wireguard-tools", "usr/bin", &["--version"]),
    debian("wireguard-go", "wireguard-go", "wireguard-go", "usr/bin", &["--version"]),
    crates_io("boringtun", "boringtun-cli", "boringtun-cli"),
    crates_io("easytier", "easytier-core", "easytier"),
    crates_io("gotatun", "gotatun", "gotatun-cli"),
    crates_io("quilkin", "quilkin", "quilkin"),
    crates_io("turn-server", "turn-server", "turn-server"),
];

/// The names [`find`] knows, in alphabetical order within Debian's and crates.io's.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

/// Looks for a program and asks it for its version: `match find("nginx")? { Ok(peer) => .., Err(absent) => .. }`.
///
/// # Errors What must not pass for absence: a name that is not in [`names`]; a variable that names nothing runnable; a
/// program that is there and does not tell its version within 10 seconds.
pub fn find(name: &str) -> Result<Result<Peer, Absent>> {
    let known = KNOWN.iter().find(|known| known.name == name).with_context(|| format!("no rival is called {name}"))?;
    let places = Places {
        variable: env::var_os(known.variable()),
        peers: env::var_os(FOLDER_VARIABLE).map_or_else(default_folder, PathBuf::from),
        path: env::var_os("PATH").unwrap_or_default(),
    };
    known.find(&places)
}

/// `target/peers` of this workspace, whatever `CARGO_TARGET_DIR` says: the builds take long enough to be made once.
fn default_folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is a folder of the workspace");
    workspace.join("target/peers")
}

/// Where to look, in this order.
struct Places {
    /// The value of the program's own variable.
    variable: Option<OsString>,
    /// What `cargo xtask bench peers` fills.
    peers: PathBuf,
    /// As the shell has it.
    path: OsString,
}

/// Where a program is, its version not yet known.
struct Place {
    program: PathBuf,
    root: PathBuf,
}

impl Known {
    fn variable(&self) -> String {
        format!("XTASK_PEER_{}", self.name.to_uppercase().replace('-', "_"))
    }

    fn find(&self, places: &Places) -> Result<Result<Peer, Absent>> {
        let Some(Place { program, root }) = self.place(places)? else { return Ok(Err(self.absent())) };
        let program = std::path::absolute(program)?;
        let environment = library_path(&root)?;
        let mut peer = Peer { name: self.name, program, version: String::new(), environment, root };
        let said = said(peer.command().args(self.version))
            .with_context(|| format!("{} does not run: {}", self.name, peer.program.display()))?;
        peer.version = version_in(&said)
            .with_context(|| {
                let first = said.lines().next().unwrap_or("nothing");
                format!("{} is there, but told no version; it said: {first}", peer.program.display())
            })?
            .to_owned();
        Ok(Ok(peer))
    }

    /// `None` if it is nowhere; an error if the variable promised otherwise.
    fn place(&self, places: &Places) -> Result<Option<Place>> {
        if let Some(named) = &places.variable {
            let program = PathBuf::from(named);
            if !is_runnable(&program) {
                bail!("{}={} names nothing that can be run", self.variable(), program.display());
            }
            return Ok(Some(Place { program, root: "/".into() }));
        }
        let unpacked = match self.source {
            Source::Debian { set, folder } => {
                let root = places.peers.join("debian").join(set);
                Place { program: root.join(folder).join(self.program), root }
            }
            Source::CratesIo(_) => {
                Place { program: places.peers.join("cargo/bin").join(self.program), root: "/".into() }
            }
        };
        if is_runnable(&unpacked.program) {
            return Ok(Some(unpacked));
        }
        let mut on_path = env::split_paths(&places.path).map(|folder| folder.join(self.program));
        let found = on_path.find(|program| is_runnable(program));
        Ok(found.map(|program| Place { program, root: "/".into() }))
    }

    fn absent(&self) -> Absent {
        let how = format!("cargo xtask bench peers {}, or {}=/path", self.source.name(), self.variable());
        Absent { name: self.name, how }
    }
}

fn is_runnable(program: &Path) -> bool {
    fs::metadata(program).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// `LD_LIBRARY_PATH` for what was unpacked into `root`: its folders of libraries, before those already set. Nothing for
/// `/`.
fn library_path(root: &Path) -> Result<Vec<(OsString, OsString)>> {
    const VARIABLE: &str = "LD_LIBRARY_PATH";
    if root == Path::new("/") {
        return Ok(Vec::new());
    }
    let mut folders = Vec::new();
    for parent in ["usr/lib", "lib"] {
        let Ok(entries) = fs::read_dir(root.join(parent)) else { continue };
        // One for each architecture, and a machine runs one: the order cannot matter.
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", root.display()))?;
            if entry.file_name().as_encoded_bytes().ends_with(b"-linux-gnu") {
                folders.push(std::path::absolute(entry.path())?);
            }
        }
    }
    if folders.is_empty() {
        return Ok(Vec::new());
    }
    let inherited = env::var_os(VARIABLE).filter(|value| !value.is_empty()).unwrap_or_default();
    folders.extend(env::split_paths(&inherited).filter(|folder| folder != OsStr::new("")));
    let value = env::join_paths(folders).context("a folder of libraries has a colon in its name")?;
    Ok(vec![(VARIABLE.into(), value)])
}

/// What a program prints, wherever it prints it and whatever its exit code: some end their help with 1.
fn said(command: &mut Command) -> Result<String> {
    said_within(command, VERSION_TIME_MAX)
}

fn said_within(command: &mut Command, limit: Duration) -> Result<String> {
    let (reader, writer) = std::io::pipe()?;
    let errors = writer.try_clone()?;
    // A group of its own: what hangs is ended with all that it started.
    let mut child = command.stdout(writer).stderr(errors).process_group(0).spawn()?;
    // The command holds the writing ends, and reading ends when the last one is closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, receiver) = mpsc::channel();
    let reading = thread::spawn(move || {
        let text = read_some(reader);
        // Nobody listens any more when the time was over.
        let _ = sender.send(text);
    });
    let text = receiver.recv_timeout(limit);
    let group = Pid::from_raw(i32::try_from(child.id()).context("a process number beyond 31 bits")?);
    // It has ended, or it hangs, or it printed more than is read of it: all that is left of it goes. A group that is
    // gone is fine.
    let _ = killpg(group, Signal::SIGKILL);
    child.wait()?;
    let Ok(text) = text else { bail!("no answer within {} seconds", limit.as_secs_f32()) };
    reading.join().expect("reading does not panic");
    text
}

fn read_some(reader: PipeReader) -> Result<String> {
    let mut bytes = Vec::new();
    reader.take(VERSION_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first word that looks like a version: `1.22.1` in `nginx version: nginx/1.22.1`.
fn version_in(said: &str) -> Option<&str> {
    said.split_whitespace().find_map(|word| {
        let word = word.rsplit('/').next()?;
        let word = word.strip_prefix("v.").or_else(|| word.strip_prefix('v')).unwrap_or(word);
        let word = word.trim_end_matches([',', ';', ':', ')']);
        (word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.')).then_some(word)
    })
}

#[cfg(test)]
mod tests;
