//! What is measured, seen from the bench: a tunnel that can be started and then carries packets of applications.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mesh_lab::{Ping, Process};

use super::cell::{Path, TunnelCell};
use super::rig::Rig;
use crate::report::{Absent, SystemInfo};

/// Whether a system is on this machine.
pub type Found = Result<SystemInfo, Absent>;

/// How long a system may take from its start to the first ping that comes back.
pub const START_MAX: Duration = Duration::from_secs(20);

/// A tunnel that can be measured.
pub trait TunnelSystem {
    /// Its name in all tables: lower case, no spaces.
    fn name(&self) -> &'static str;

    /// Looks for it.
    ///
    /// # Errors
    /// It was named by a variable, and what that names cannot be run. That it is not installed is no error.
    fn find(&self) -> Result<Found>;

    /// The way its packets take in a cell: that of the cell, unless the system is there to be compared with those who take it.
    fn path(&self, cell: &TunnelCell) -> Path {
        cell.path
    }

    /// Why it cannot do a cell, if so, in half a sentence: `it has no relay`.
    fn unable(&self, cell: &TunnelCell) -> Option<String>;

    /// Starts it for the path and inner MTU of a cell, in hosts of its own, each program on the core of its place. What it returns
    /// need not carry packets yet: see [`Tunnel::wait_until_answering`].
    ///
    /// # Errors
    /// A program cannot be started, or does not get as far as its interface.
    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel>;

    /// Makes sure that a tunnel which answers takes the way of its rig; asked before each cell. Where a system has one way only there
    /// is nothing to ask.
    ///
    /// # Errors
    /// It takes another way for longer than `limit`, or does not tell.
    fn confirm(&self, _rig: &Rig, _limit: Duration) -> Result<()> {
        Ok(())
    }
}

/// A tunnel that runs. Dropping it ends its programs.
#[derive(Debug)]
pub struct Tunnel {
    /// The inner address of the left end, where load comes from.
    pub left: Ipv4Addr,
    /// The inner address of the right end, where it goes.
    pub right: Ipv4Addr,
    /// Its programs; none if the kernel does it all.
    pub processes: Vec<Process>,
    /// Which of them carries packets from one end to the other, if one does: its place in `processes`.
    pub relay: Option<usize>,
}

impl Tunnel {
    /// Notices a program that has ended.
    ///
    /// # Errors
    /// One has; the error holds its last line.
    pub fn tend(&mut self) -> Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.try_wait()? {
                bail!("a program has ended ({status}); its last line: {}", last_line(process));
            }
        }
        Ok(())
    }

    /// Pings the right end until a whole inner packet and a small one have come back.
    ///
    /// # Errors
    /// A program ends meanwhile, or `limit` passes; the error holds the last line of each.
    pub fn wait_until_answering(&mut self, rig: &Rig, cell: &TunnelCell, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let timeout = Duration::from_millis(200);
        let small = Ping { count: 1, interval: Duration::ZERO, timeout, ..Ping::default() };
        // 20 bytes of IPv4 header and 8 of ICMP.
        let whole = Ping { size: usize::from(cell.inner_mtu).saturating_sub(28), ..small };
        let mut wanted = [small, whole, whole].into_iter();
        let mut next = wanted.next();
        while let Some(ping) = next {
            self.tend()?;
            if rig.left.ping(IpAddr::V4(self.right), ping)?.received > 0 {
                next = wanted.next();
            } else if Instant::now() > deadline {
                let lines: Vec<String> = self.processes.iter().map(last_line).collect();
                bail!("no answer to a ping of {} bytes within {limit:?}; last lines: {}", ping.size, lines.join(" | "));
            }
        }
        Ok(())
    }
}

/// The last line a program has printed.
pub(crate) fn last_line(process: &Process) -> String {
    process.output().lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(it printed nothing)").to_owned()
}

/// Runs a command that prepares something, with `input`, and returns what it printed.
///
/// # Errors
/// It cannot be started or fails; the error holds its last line.
pub(crate) fn run_once(mut command: std::process::Command, input: &str) -> Result<String> {
    use std::io::Write as _;
    use std::process::Stdio;

    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    // Inputs are a few lines: they fit into the pipe, so nobody waits for the other. A program that reads none is no failure.
    let _ = child.stdin.take().context("a pipe was asked for")?.write_all(input.as_bytes());
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        bail!(
            "{program} failed ({}): {}",
            output.status,
            err.lines().chain(out.lines()).last().unwrap_or("it printed nothing")
        );
    }
    Ok(text(&output.stdout))
}
