//! Rivals written here, each a copy of this program; and the check that one of them is as good as plain C.

use anyhow::{Context as _, Result, ensure};
use mesh_lab::Process;

use super::super::{Cell, Found, Rig, Running, System};
use super::program::{self, Carrier};
use crate::report::{Absent, SystemInfo};
use crate::rivals::{READY, Rival};

/// Name of the check.
pub(super) const RECVMMSG_C: &str = "recvmmsg-c";
/// The check: the `recvmmsg` rival as plain C.
const SOURCE: &str = include_str!("../../../check/mmsg.c");

/// A rival that this program is when started as `bench rival`.
pub(super) struct Written(pub(super) Rival);

impl System for Written {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn find(&self) -> Result<Found> {
        Ok(Ok(SystemInfo {
            name: self.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ours: false,
            about: self.0.about().to_owned(),
        }))
    }

    fn unable(&self, cell: &Cell) -> Option<String> {
        if self.0.many_ports() { None } else { program::one_port_only(cell) }
    }

    fn start(&self, rig: &Rig, cell: &Cell, number: u16) -> Result<Box<dyn Running>> {
        let mut command = program::command(rig, std::env::current_exe().context("find this program")?)?;
        command.args(["rival", self.name()]);
        command.arg("--listen").arg(program::listen(number).to_string());
        command.arg("--ports").arg(cell.namespaces.to_string());
        command.arg("--to").arg(program::arrives(number, 0).to_string());
        command.arg("--flows").arg(cell.flows.to_string());
        let mut process = rig.relay.spawn(command)?;
        program::until_said(&mut process, READY)?;
        Ok(Box::new(Carrier::new(process, program::flows(cell, number))))
    }
}

/// The C program that does what the `recvmmsg` rival does. It shows whether that one is as good as it can be.
pub(super) struct RecvmmsgC;

impl System for RecvmmsgC {
    fn name(&self) -> &'static str {
        RECVMMSG_C
    }

    fn find(&self) -> Result<Found> {
        let absent = Absent { name: RECVMMSG_C.to_owned(), how: "install a C compiler that is called cc".to_owned() };
        let Ok(output) = std::process::Command::new("cc").arg("--version").output() else { return Ok(Err(absent)) };
        let said = String::from_utf8_lossy(&output.stdout);
        let Some(version) = said.lines().next().filter(|_| output.status.success()) else { return Ok(Err(absent)) };
        Ok(Ok(SystemInfo {
            name: RECVMMSG_C.to_owned(),
            version: format!("by {version}"),
            ours: false,
            about: "The recvmmsg rival as plain C, to check that the one in Rust is as good.".to_owned(),
        }))
    }

    fn unable(&self, cell: &Cell) -> Option<String> {
        program::one_port_only(cell)
    }

    fn start(&self, rig: &Rig, cell: &Cell, number: u16) -> Result<Box<dyn Running>> {
        let folder = program::folder()?;
        let source = program::write(&folder, "mmsg.c", SOURCE)?;
        let built = folder.path().join("mmsg");
        let mut compile = rig.relay.command("cc");
        compile.args(["-O2", "-o"]).arg(&built).arg(&source);
        finish(rig.relay.spawn(compile)?).context("compile mmsg.c")?;

        let (listen, to) = (program::listen(number), program::arrives(number, 0));
        let mut command = program::command(rig, &built)?;
        command.args([listen.ip().to_string(), listen.port().to_string()]);
        command.args([to.ip().to_string(), to.port().to_string(), cell.flows.to_string()]);
        let mut process = rig.relay.spawn(command)?;
        program::until_said(&mut process, READY)?;
        Ok(Box::new(Carrier::new(process, program::flows(cell, number)).with_folder(folder)))
    }
}

/// Waits for the end of a program that does one thing.
pub(super) fn finish(mut process: Process) -> Result<()> {
    let status = process.wait(program::START)?;
    ensure!(status.success(), "it failed ({status}); {}", program::last_word(&process));
    Ok(())
}
