//! What all programs share: how they are started and waited for, and what runs then.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use mesh_lab::{Host, Process};
use mesh_wire::frame::FrameType;
use mesh_wire::route::{Destination, Route, Slot};
use tempfile::TempDir;

use super::super::rig::{RELAY_PROCESSOR, first_port};
use super::super::{Cell, Found, Rig, Running};
use super::turn::Clients;
use crate::load::{Flow, Head};
use crate::peers::{self, Peer};
use crate::report::{Absent, SystemInfo};
use crate::rivals;

/// How long a program may take to start.
pub(super) const START: Duration = Duration::from_secs(10);
/// How often it is looked for whether a port is bound.
const LOOK: Duration = Duration::from_millis(5);

/// A relay that is one program.
pub(super) struct Carrier {
    flows: Vec<Flow>,
    /// Clients that keep the program's registrations alive.
    clients: Vec<Clients>,
    program: [Process; 1],
    /// What it writes before bodies.
    head_bytes: usize,
    /// Its files; gone when it has ended.
    _folder: Option<TempDir>,
}

impl Carrier {
    pub(super) fn new(program: Process, flows: Vec<Flow>) -> Self {
        Self { flows, clients: Vec::new(), program: [program], head_bytes: 0, _folder: None }
    }

    pub(super) fn with_clients(self, clients: impl IntoIterator<Item = Clients>) -> Self {
        Self { clients: clients.into_iter().collect(), ..self }
    }

    pub(super) fn with_head_bytes(self, head_bytes: usize) -> Self {
        Self { head_bytes, ..self }
    }

    pub(super) fn with_folder(self, folder: TempDir) -> Self {
        Self { _folder: Some(folder), ..self }
    }
}

impl Running for Carrier {
    fn processes(&self) -> &[Process] {
        &self.program
    }

    fn flows(&self) -> &[Flow] {
        &self.flows
    }

    fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    fn tend(&mut self) -> Result<()> {
        lives(&mut self.program[0])?;
        self.clients.iter_mut().try_for_each(Clients::tend)
    }
}

/// Looks for a program of others.
pub(super) fn found(name: &str, about: &str) -> Result<Found> {
    Ok(match peers::find(name)? {
        Ok(peer) => {
            Ok(SystemInfo { name: name.to_owned(), version: peer.version, ours: false, about: about.to_owned() })
        }
        Err(absent) => Err(Absent { name: name.to_owned(), how: absent.how }),
    })
}

/// A program of others, which has been found before.
pub(super) fn peer(name: &str) -> Result<Peer> {
    peers::find(name)?.map_err(|absent| anyhow!("{absent}"))
}

/// A program of others to be started in the relay's host on the relay's processor.
pub(super) fn peer_command(rig: &Rig, peer: &Peer) -> Result<Command> {
    let mut command = command(rig, &peer.program)?;
    command.envs(peer.environment.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// A program to be started in the relay's host on the relay's processor.
pub(super) fn command(rig: &Rig, program: impl AsRef<Path>) -> Result<Command> {
    command_on(rig, program, &[RELAY_PROCESSOR])
}

/// A program to be started in the relay's host on these processors.
pub(super) fn command_on(rig: &Rig, program: impl AsRef<Path>, processors: &[usize]) -> Result<Command> {
    let mut command = rig.relay.command(program.as_ref());
    rivals::pin(&mut command, processors).with_context(|| format!("pin it to processors {processors:?}"))?;
    Ok(command)
}

/// Waits until a program has printed a line that contains `text`.
pub(super) fn until_said(program: &mut Process, text: &str) -> Result<()> {
    if program.wait_for_line(text, START).is_ok() {
        return Ok(());
    }
    lives(program)?;
    bail!("it did not say {text:?} in {START:?}; {}", last_word(program));
}

/// Waits until a program has bound a UDP port in a host, on this address or on all.
#[expect(clippy::disallowed_methods, reason = "a poll: nobody tells when a program of others has bound a port")]
pub(super) fn until_bound(program: &mut Process, host: &Host, address: SocketAddrV4) -> Result<()> {
    let deadline = Instant::now() + START;
    while !is_bound(host, address)? {
        lives(program)?;
        if Instant::now() > deadline {
            bail!("it did not bind UDP {address} in {START:?}; {}", last_word(program));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether a UDP socket of a host is bound to an address, or to its port on all addresses.
fn is_bound(host: &Host, address: SocketAddrV4) -> Result<bool> {
    let table = |name: &str| {
        let path = format!("/proc/thread-self/net/{name}");
        host.run(|| std::fs::read_to_string(&path).with_context(|| format!("read {path}")))
    };
    // A socket on all addresses may be one of IPv6 that takes both.
    Ok(lists(&table("udp")?, address) || lists(&table("udp6")?, address))
}

/// Whether a table in the format of `/proc/net/udp` has a socket bound to an address, or to its port on all.
fn lists(table: &str, address: SocketAddrV4) -> bool {
    // The four bytes of the address stand there as one number of this machine's byte order.
    let number = u32::from_ne_bytes(address.ip().octets());
    let port = format!("{:04X}", address.port());
    let own = format!("{number:08X}");
    let locals = table.lines().filter_map(|line| line.split_whitespace().nth(1)?.split_once(':'));
    locals.into_iter().any(|(ip, at)| at == port && (ip == own || ip.bytes().all(|digit| digit == b'0')))
}

/// Fails if a program has ended.
pub(super) fn lives(program: &mut Process) -> Result<()> {
    match program.try_wait()? {
        None => Ok(()),
        Some(status) => bail!("it has ended ({status}); {}", last_word(program)),
    }
}

/// What a program printed last, for an error.
pub(super) fn last_word(program: &Process) -> String {
    match program.output().lines().rev().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!("its last line: {line}"),
        None => "it printed nothing".to_owned(),
    }
}

/// A file of a program's own folder.
pub(super) fn write(folder: &TempDir, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.path().join(name);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// An empty folder for a program's files.
pub(super) fn folder() -> Result<TempDir> {
    tempfile::Builder::new().prefix("bench-").tempdir().context("make a folder for its files")
}

/// Where the program of a number listens: the first of its ports.
pub(super) fn listen(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Rig::RELAY, first_port(number))
}

/// Where the datagrams of a flow arrive.
pub(super) fn arrives(number: u16, flow: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Rig::RECEIVER, first_port(number) + flow)
}

/// The flows of a cell, spread over the namespaces as they are sent to our own relay. They carry their number where the slot of a
/// destination stands.
pub(super) fn flows(cell: &Cell, number: u16) -> Vec<Flow> {
    let first = first_port(number);
    let flow = |flow: u16| Flow {
        from: SocketAddrV4::new(Rig::SENDER, first + flow),
        to: SocketAddrV4::new(Rig::RELAY, first + flow % cell.namespaces),
        arrives: arrives(number, flow),
        head: Head::Nothing,
        route: Route { destination: Destination::here(Slot { index: flow.into(), generation: 0 }), source: Slot::NONE }
            .emit(FrameType::Data, 0),
    };
    (0..cell.flows).map(flow).collect()
}

/// Why a program with one port cannot do a cell.
pub(super) fn one_port_only(cell: &Cell) -> Option<String> {
    (cell.namespaces > 1).then(|| "it has one port".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_port_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue\n 1: 0200010A:07D0 00000000:0000 07\n 2: 00000000:1F90 00000000:0000 07\n";
        let listed = |address: &str| lists(table, address.parse().unwrap());
        if cfg!(target_endian = "little") {
            assert!(listed("10.1.0.2:2000"));
            assert!(!listed("10.1.0.3:2000") && !listed("10.1.0.2:2001"));
        }
        assert!(listed("10.1.0.2:8080"), "it is bound on all addresses");
    }

    #[test]
    fn flows_are_spread_over_namespaces_and_say_their_number() {
        let flows = flows(&"wire-64-b1-f5-n2".parse().unwrap(), 3);
        let ports: Vec<_> = flows.iter().map(|flow| (flow.from.port(), flow.to.port(), flow.arrives.port())).collect();
        assert_eq!(
            ports,
            [(5000, 5000, 5000), (5001, 5001, 5001), (5002, 5000, 5002), (5003, 5001, 5003), (5004, 5000, 5004)]
        );
        let slots: Vec<_> =
            flows.iter().map(|flow| Route::parse(&flow.route).unwrap().destination.slot.index).collect();
        assert_eq!(slots, [0, 1, 2, 3, 4]);
    }
}
