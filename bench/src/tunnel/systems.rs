//! The systems: ours, none at all, and programs of others.
//!
//! All get inner networks of their own hosts, so all have the same: [`LEFT`] and [`RIGHT`] of `PREFIX` bits. Programs of others
//! have their authors' defaults but for the inner MTU, large socket buffers where there is a setting, and AES-256-GCM where there is
//! a choice of ciphers. Every program has one core, so settings for more threads stay as they are.

mod easymesh;
mod easytier;
mod n2n;
mod nebula;
mod openvpn;
mod raw;
mod relaying;
mod tinc;
mod wireguard;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path as FilePath;
use std::process::Command;

use anyhow::{Context as _, Result};
use mesh_lab::{Host, Process};

use super::rig::{Place, Rig};
use super::system::{Found, TunnelSystem, run_once};
use crate::peers::{self, Peer};
use crate::report::{Absent, SystemInfo};

/// The inner address of the left end.
pub const LEFT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The inner address of the right end.
pub const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The inner address of a relay that has one.
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);
/// Bits of the inner network's prefix.
const PREFIX: u8 = 24;

/// Where configurations are, in every host its own.
const FOLDER: &str = "/run/bench";

/// The name of the system without a tunnel, which rounds begin and end with.
pub const CONTROL: &str = "raw";
/// The name of the system that ratios compare with.
pub const REFERENCE: &str = "easymesh";
/// The name of ours where it goes through its transfer in cells of the direct path too.
pub const RELAYED: &str = "easymesh-relayed";
/// The name of ours with the cipher that WireGuard has.
pub const CHACHA: &str = "easymesh-chacha";
/// The systems of `--quick`.
pub const QUICK_SYSTEMS: [&str; 6] = [REFERENCE, RELAYED, CHACHA, CONTROL, "wireguard-go", "nebula"];

/// All systems, in the order to show.
pub fn all() -> Vec<Box<dyn TunnelSystem>> {
    vec![
        Box::new(easymesh::EasyMesh::URING),
        Box::new(easymesh::EasyMesh::RELAYED),
        Box::new(easymesh::EasyMesh::CHACHA),
        Box::new(easymesh::EasyMesh::OFF),
        Box::new(easymesh::EasyMesh::PORTABLE),
        Box::new(raw::Raw),
        Box::new(wireguard::WireGuard::GO),
        Box::new(wireguard::WireGuard::BORINGTUN),
        Box::new(wireguard::WireGuard::GOTATUN),
        Box::new(nebula::Nebula),
        Box::new(n2n::N2n),
        Box::new(tinc::Tinc),
        Box::new(openvpn::OpenVpn),
        Box::new(easytier::EasyTier),
    ]
}

/// A system of others is here if all its programs are.
fn find(name: &str, programs: &[&str], about: &str) -> Result<Found> {
    let mut version = None;
    for program in programs {
        match peers::find(program)? {
            Ok(peer) => version = version.or(Some(peer.version)),
            Err(absent) => return Ok(Err(Absent { name: name.to_owned(), how: absent.how })),
        }
    }
    let version = version.unwrap_or_default();
    Ok(Ok(SystemInfo { name: name.to_owned(), version, ours: false, about: about.to_owned() }))
}

/// A program of others that has been found before.
fn program(name: &str) -> Result<Peer> {
    peers::find(name)?.map_err(|absent| anyhow::anyhow!("{absent}"))
}

/// Prepares a program of others for the host of a place.
fn command(rig: &Rig, place: Place, peer: &Peer, words: &[&str]) -> Command {
    let mut command = rig.command(place, &peer.program);
    command.envs(peer.environment.iter().map(|(name, value)| (name, value))).args(words);
    command
}

/// Starts a program of others in the host of a place.
fn start(rig: &Rig, place: Place, peer: &Peer, words: &[&str]) -> Result<Process> {
    rig.host(place).spawn(command(rig, place, peer, words))
}

/// Runs a program of others in the middle host, to prepare something.
fn run_words(rig: &Rig, peer: &Peer, words: &[&str]) -> Result<()> {
    run_once(command(rig, Place::Relay, peer, words), "").map(drop)
}

/// Writes files below [`FOLDER`] of a host, for root only, as keys have to be.
fn write(host: &Host, files: &[(&str, String)]) -> Result<()> {
    host.run(|| {
        for (name, text) in files {
            let path = FilePath::new(FOLDER).join(name);
            let folder = path.parent().expect("a file in a folder has one");
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .with_context(|| format!("close {} to others", path.display()))?;
        }
        Ok(())
    })
}

/// Reads a file below [`FOLDER`] of a host.
fn read(host: &Host, name: &str) -> Result<String> {
    host.run(|| fs::read_to_string(FilePath::new(FOLDER).join(name)).with_context(|| format!("read {name}")))
}
