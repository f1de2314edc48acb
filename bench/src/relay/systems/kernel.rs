//! The kernel itself, told by nftables: what forwarding costs when no program sees a datagram.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use mesh_lab::{Host, Process};
use tempfile::TempDir;

use super::super::rig::{PORTS_EACH, first_port};
use super::super::{Cell, Found, Rig, Running, System};
use super::{program, rivals};
use crate::load::Flow;
use crate::peers::Peer;
use crate::report::{Absent, SystemInfo};

/// The program that tells the kernel.
const NFT: &str = "nft";

/// How the kernel relays. A flow is told by the port it comes from, in a map as any other port could be in it.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    /// Destination and source translated for each connection, by its connection tracking.
    Nat,
    /// Addresses and ports set in each datagram, without tracking.
    Stateless,
}

impl System for Kernel {
    fn name(&self) -> &'static str {
        match self {
            Kernel::Nat => "nft",
            Kernel::Stateless => "nft-stateless",
        }
    }

    fn find(&self) -> Result<Found> {
        let about = match self {
            Kernel::Nat => {
                "The kernel by nftables, destination and source NAT with connection tracking; no program runs."
            }
            Kernel::Stateless => {
                "The kernel by nftables, addresses and ports set in each datagram, no connection tracking."
            }
        };
        Ok(program::found(NFT, about)?
            .map(|info| SystemInfo { name: self.name().to_owned(), ..info })
            .map_err(|absent| Absent { name: self.name().to_owned(), ..absent }))
    }

    fn unable(&self, _cell: &Cell) -> Option<String> {
        None
    }

    fn start(&self, rig: &Rig, cell: &Cell, number: u16) -> Result<Box<dyn Running>> {
        let flows = program::flows(cell, number);
        let name = format!("relay{number}");
        let folder = program::folder()?;
        let rules = program::write(&folder, "rules", &self.rules(&name, number, &flows)?)?;
        let mut table = Table {
            flows,
            name,
            rules,
            host: rig.relay.clone(),
            peer: program::peer(NFT)?,
            loaded: false,
            _folder: folder,
        };
        // Rules that the kernel refuses are told of at once.
        table.turn(true)?;
        table.turn(false)?;
        Ok(Box::new(table))
    }
}

impl Kernel {
    /// The rules of a table. What is not of this relay stays untracked.
    fn rules(self, table: &str, number: u16, flows: &[Flow]) -> Result<String> {
        let first = first_port(number);
        let ours = format!("udp dport {first}-{}", first + PORTS_EACH - 1);
        let mut map = String::new();
        for flow in flows {
            write!(map, "{}{} : {}", if map.is_empty() { "" } else { ", " }, flow.from.port(), flow.arrives.port())?;
        }
        let (relay, out, receiver) = (Rig::RELAY, Rig::RELAY_OUT, Rig::RECEIVER);
        let map = format!("map receivers {{ type inet_service : inet_service; elements = {{ {map} }}; }}");
        Ok(match self {
            Kernel::Nat => format!(
                "table ip {table} {{
                    {map}
                    chain others {{ type filter hook prerouting priority raw; ip daddr {relay} {ours} accept; notrack; }}
                    chain own {{ type filter hook output priority raw; notrack; }}
                    chain in {{ type nat hook prerouting priority dstnat;
                        ip daddr {relay} {ours} dnat to {receiver} : udp sport map @receivers; }}
                    chain out {{ type nat hook postrouting priority srcnat; ip daddr {receiver} {ours} snat to {out}; }}
                }}"
            ),
            Kernel::Stateless => format!(
                "table ip {table} {{
                    {map}
                    chain in {{ type filter hook prerouting priority raw;
                        ip daddr {relay} {ours} notrack udp dport set udp sport map @receivers ip daddr set {receiver}; }}
                    chain out {{ type filter hook postrouting priority srcnat;
                        ip saddr {sender} ip daddr {receiver} {ours} ip saddr set {out}; }}
                }}",
                sender = Rig::SENDER
            ),
        })
    }
}

/// A table in the relay's host. Dropping it removes it.
///
/// It is there in its own turn only: connection tracking, and even two comparisons, cost every datagram that another relay sends.
struct Table {
    flows: Vec<Flow>,
    name: String,
    rules: PathBuf,
    host: Host,
    peer: Peer,
    loaded: bool,
    _folder: TempDir,
}

impl Table {
    /// Runs `nft` in the host.
    fn nft(&self, arguments: &[&OsStr]) -> Result<()> {
        let mut command = self.host.command(&self.peer.program);
        command.envs(self.peer.environment.iter().map(|(name, value)| (name, value))).args(arguments);
        rivals::finish(self.host.spawn(command)?)
    }
}

impl Running for Table {
    fn processes(&self) -> &[Process] {
        &[]
    }

    fn flows(&self) -> &[Flow] {
        &self.flows
    }

    fn tend(&mut self) -> Result<()> {
        Ok(())
    }

    fn turn(&mut self, own: bool) -> Result<()> {
        if own && !self.loaded {
            self.nft(&["-f".as_ref(), self.rules.as_os_str()]).context("load the rules")?;
        } else if !own && self.loaded {
            self.nft(&["delete", "table", "ip", &self.name].map(OsStr::new)).context("remove the rules")?;
        }
        self.loaded = own;
        Ok(())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // It ends with the host at the latest.
        let _ = self.turn(false);
    }
}
