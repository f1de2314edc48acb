//! Our own relay: the program `transfer` as it is shipped, started with the command line its users type.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_lab::Process;
use tempfile::TempDir;

use super::super::rig::{LOAD_PROCESSOR, RELAY_PROCESSOR, first_port};
use super::super::{Cell, Found, Rig, Running, System};
use super::program;
use crate::enrol::Enrolled;
use crate::load::Flow;
use crate::report::{Absent, SystemInfo};

/// How long it may take to end: it takes its rings down, so that its ports are free for the next cell.
const END: Duration = Duration::from_secs(5);

/// The transfer with one of its engines.
#[derive(Clone, Copy, Debug)]
pub enum Ours {
    /// `-engine uring`.
    Uring,
    /// `-engine mmsg`.
    Mmsg,
    /// `-engine portable`.
    Portable,
    /// `-engine uring -spread all`, on the relay's processor and the generator's: its two data threads share the load. What it costs
    /// for each datagram can be compared, its rate cannot.
    Spread,
    /// `-engine uring` on the generator's processor: what the half of [`Ours::Spread`] costs that has to share it. A namespace on two
    /// threads is compared with the mean of one thread here and one there.
    Beside,
    /// Another build of the transfer, with its `-engine uring`: to see what a change is worth, in one run.
    Other(usize),
    /// The build with the feature `ablation` and `-engine uring`, told to leave a technique out: to see what it is worth.
    Without(usize),
}

/// What [`Ours::Spread`] is called.
pub(super) const SPREAD: &str = "uring-spread";

/// What [`Ours::Beside`] is called.
pub(super) const BESIDE: &str = "uring-beside";

/// Other builds, and the variables that name them.
const OTHERS: [(&str, &str); 3] =
    [("other", "XTASK_PEER_OTHER"), ("other-two", "XTASK_PEER_OTHER_TWO"), ("other-three", "XTASK_PEER_OTHER_THREE")];

/// What the build with the feature `ablation` is told by.
const WITHOUT_VARIABLE: &str = "EASYMESH_WITHOUT";
/// Names that build; `cargo xtask bench` makes one and says where it is.
const ABLATION_VARIABLE: &str = "XTASK_PEER_ABLATION";

/// What [`Ours::Without`] is called, before the technique.
const WITHOUT: &str = "uring-without-";
/// The first is that build with every technique: it must cost what `uring` does, or the others are to be compared with it.
pub(super) const ABLATIONS: [&str; 13] = [
    "uring-without-nothing",
    "uring-without-gro",
    "uring-without-gso",
    "uring-without-gather",
    "uring-without-pace",
    "uring-without-flush-with-wait",
    "uring-without-op-send",
    "uring-without-lifo",
    "uring-without-shallow",
    "uring-without-sources",
    "uring-without-fair",
    "uring-without-defer-taskrun",
    "uring-without-ring-fd",
];

/// What [`Ours::Other`] is called.
pub(super) const OTHER_NAMES: [&str; OTHERS.len()] = [OTHERS[0].0, OTHERS[1].0, OTHERS[2].0];

impl System for Ours {
    fn name(&self) -> &'static str {
        match self {
            Ours::Uring => "uring",
            Ours::Mmsg => "mmsg",
            Ours::Portable => "portable",
            Ours::Spread => SPREAD,
            Ours::Beside => BESIDE,
            Ours::Other(number) => OTHERS[*number].0,
            Ours::Without(number) => ABLATIONS[*number],
        }
    }

    fn find(&self) -> Result<Found> {
        let name = self.name();
        let program = self.program()?;
        if !program.is_file() {
            let how = match self {
                Ours::Other(number) => format!("{}=/path of another build of the transfer", OTHERS[*number].1),
                Ours::Without(_) => {
                    format!(
                        "{ABLATION_VARIABLE}=/path of a transfer built with the feature `ablation`; `cargo xtask bench` makes one"
                    )
                }
                Ours::Uring | Ours::Mmsg | Ours::Portable | Ours::Spread | Ours::Beside => {
                    format!("cargo build --release -p transfer, so that there is {}", program.display())
                }
            };
            return Ok(Err(Absent { name: name.to_owned(), how }));
        }
        let engine = self.engine();
        let how = self.technique().map_or("as shipped".to_owned(), |technique| format!("without {technique}"));
        Ok(Ok(SystemInfo {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ours: true,
            about: format!(
                "EasyMesh's transfer with -engine {engine}, {how}; every datagram's sender and receiver are checked."
            ),
        }))
    }

    fn unable(&self, _cell: &Cell) -> Option<String> {
        None
    }

    fn start(&self, rig: &Rig, cell: &Cell, number: u16) -> Result<Box<dyn Running>> {
        let transfer = self.serve(rig, first_port(number), cell.namespaces)?;
        let enrolled =
            Enrolled::new(rig, program::listen(number), &transfer.token, cell.flows, cell.namespaces, number)
                .with_context(|| format!("register {} clients", cell.flows))?;
        Ok(Box::new(Serving { enrolled, transfer }))
    }
}

impl Ours {
    fn engine(&self) -> &'static str {
        match self {
            Ours::Uring | Ours::Spread | Ours::Beside | Ours::Other(_) | Ours::Without(_) => "uring",
            Ours::Mmsg => "mmsg",
            Ours::Portable => "portable",
        }
    }

    /// The technique that is left out, if that is what it is for.
    fn technique(&self) -> Option<&'static str> {
        let Ours::Without(number) = self else { return None };
        ABLATIONS[*number].strip_prefix(WITHOUT)
    }

    /// Where the program lies: beside this one, or where it is said.
    fn program(&self) -> Result<PathBuf> {
        match self {
            Ours::Other(number) => Ok(std::env::var_os(OTHERS[*number].1).map(PathBuf::from).unwrap_or_default()),
            Ours::Without(_) => Ok(std::env::var_os(ABLATION_VARIABLE).map(PathBuf::from).unwrap_or_default()),
            Ours::Uring | Ours::Mmsg | Ours::Portable | Ours::Spread | Ours::Beside => transfer(),
        }
    }

    /// Starts the transfer alone, in the relay's host, with so many ports from `first` on, and returns when all are served.
    ///
    /// # Errors
    /// It does not start.
    pub fn serve(&self, rig: &Rig, first: u16, namespaces: u16) -> Result<Transfer> {
        let folder = program::folder()?;
        let token = format!("{:032x}", rand::random::<u128>());
        let mut command = match self {
            Ours::Spread => program::command_on(rig, self.program()?, &[RELAY_PROCESSOR, LOAD_PROCESSOR])?,
            Ours::Beside => program::command_on(rig, self.program()?, &[LOAD_PROCESSOR])?,
            Ours::Uring | Ours::Mmsg | Ours::Portable | Ours::Other(_) | Ours::Without(_) => {
                program::command(rig, self.program()?)?
            }
        };
        if let Some(technique) = self.technique() {
            command.env(WITHOUT_VARIABLE, technique.trim_start_matches("nothing"));
        }
        if matches!(self, Ours::Spread) {
            command.args(["-spread", "all"]);
        }
        command.arg("-public").arg(Rig::RELAY.to_string()).arg("-bind").arg(first.to_string());
        command.arg("-nums").arg(namespaces.to_string()).arg("-token").arg(&token);
        command.arg("-engine").arg(self.engine());
        command.arg("-log").arg(folder.path().join("log")).arg("-state").arg(folder.path().join("state"));
        let mut process = rig.relay.spawn(command)?;
        program::until_said(&mut process, "join with")?;
        Ok(Transfer { process: [process], token, _folder: folder })
    }
}

/// Where the transfer lies: beside this program.
fn transfer() -> Result<PathBuf> {
    Ok(std::env::current_exe().context("find this program")?.with_file_name("transfer"))
}

/// A transfer with its clients. Fields are dropped in this order: clients say goodbye to a transfer that lives.
struct Serving {
    enrolled: Enrolled,
    transfer: Transfer,
}

/// A transfer that runs; dropping it has it end by itself.
pub struct Transfer {
    process: [Process; 1],
    token: String,
    _folder: TempDir,
}

impl Transfer {
    /// The program.
    pub fn process(&self) -> &Process {
        &self.process[0]
    }

    /// What its clients must know.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // If it does not end, it is killed when the process is dropped.
        let _ = self.process[0].terminate(END);
    }
}

impl Running for Serving {
    fn processes(&self) -> &[Process] {
        &self.transfer.process
    }

    fn flows(&self) -> &[Flow] {
        self.enrolled.flows()
    }

    fn tend(&mut self) -> Result<()> {
        program::lives(&mut self.transfer.process[0])?;
        self.enrolled.tend()
    }
}

#[cfg(test)]
mod tests {
    use mesh_uring::Technique;

    use super::*;

    #[test]
    fn every_technique_has_its_system() {
        let techniques: Vec<_> = Technique::ALL.iter().map(|technique| technique.name()).collect();
        let systems =
            (0..ABLATIONS.len()).map(|number| Ours::Without(number).technique().expect("a name with its prefix"));
        assert!(systems.eq(["nothing"].into_iter().chain(techniques)));
    }

    #[test]
    fn what_is_absent_says_how_to_get_it() {
        let Err(absent) = Ours::Without(1).find().unwrap() else { panic!("no variable names it in tests") };
        assert_eq!(absent.name, "uring-without-gro");
        assert!(absent.how.contains("XTASK_PEER_ABLATION="), "{}", absent.how);
    }
}
