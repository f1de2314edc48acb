//! Our own relay: the program `transfer` as it is shipped, started with the command line its users type.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_lab::Process;
use tempfile::TempDir;

use super::super::rig::first_port;
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
}

impl System for Ours {
    fn name(&self) -> &'static str {
        match self {
            Ours::Uring => "uring",
            Ours::Mmsg => "mmsg",
            Ours::Portable => "portable",
        }
    }

    fn find(&self) -> Result<Found> {
        let name = self.name();
        let program = transfer()?;
        if !program.is_file() {
            let how = format!("cargo build --release -p transfer, so that there is {}", program.display());
            return Ok(Err(Absent { name: name.to_owned(), how }));
        }
        Ok(Ok(SystemInfo {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ours: true,
            about: format!(
                "EasyMesh's transfer with -engine {name}, as shipped; every datagram's sender and receiver are checked."
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
    /// Starts the transfer alone, in the relay's host, with so many ports from `first` on, and returns when all are served.
    ///
    /// # Errors
    /// It does not start.
    pub fn serve(&self, rig: &Rig, first: u16, namespaces: u16) -> Result<Transfer> {
        let folder = program::folder()?;
        let token = format!("{:032x}", rand::random::<u128>());
        let mut command = program::command(rig, transfer()?)?;
        command.arg("-public").arg(Rig::RELAY.to_string()).arg("-bind").arg(first.to_string());
        command.arg("-nums").arg(namespaces.to_string()).arg("-token").arg(&token);
        command.arg("-engine").arg(self.name());
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
