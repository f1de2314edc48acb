//! EasyMesh as shipped, with the command lines of its README, and with a flag or two more.

mod status;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mesh_lab::Process;

use crate::report::{Absent, SystemInfo};
use crate::tunnel::cell::{Path, TunnelCell};
use crate::tunnel::rig::{Place, Rig};
use crate::tunnel::system::{Found, START_MAX, Tunnel, TunnelSystem, run_once};

/// The token of the README.
const TOKEN: &str = "s^I^ghGjkB7Zm$q14NWhxfQdS5E&FG7R";
/// The transfer's name in the README.
const NAME: &str = "you.domain.com";
const LEFT: Ipv4Addr = Ipv4Addr::new(172, 168, 3, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(172, 168, 3, 2);

/// By how much the interface of a gateway is smaller than the network outside is told to be: 48 bytes for IPv6 and UDP, 44 of ours.
const OVERHEAD: u16 = 48 + 44;

/// How often a gateway is asked whether its path is the one wanted.
const ASK: Duration = Duration::from_millis(50);

/// A transfer and two gateways with one engine.
pub(super) struct EasyMesh {
    name: &'static str,
    engine: &'static str,
    /// What gateways are told besides: a flag and its value. A gateway that does not know the flag is another one's.
    flag: Option<(&'static str, &'static str)>,
    /// The cipher that sessions must have, as `gateway status` tells it.
    cipher: Option<&'static str>,
    /// Whether it goes through the transfer in cells of the direct path too.
    relayed: bool,
    about: &'static str,
}

const PLAIN: EasyMesh =
    EasyMesh { name: super::REFERENCE, engine: "uring", flag: None, cipher: None, relayed: false, about: "" };

impl EasyMesh {
    pub(super) const URING: Self = PLAIN;
    pub(super) const RELAYED: Self = Self {
        name: super::RELAYED,
        relayed: true,
        about: " Through its transfer beside those who go directly, so that both are measured in one round.",
        ..PLAIN
    };
    pub(super) const CHACHA: Self = Self {
        name: super::CHACHA,
        flag: Some(("-cipher", "chacha")),
        cipher: Some(status::CHACHA),
        about: " With the cipher that WireGuard has.",
        ..PLAIN
    };
    pub(super) const OFF: Self = Self {
        name: "easymesh-off",
        flag: Some(("-offload", "off")),
        about: " Its interface takes and gives single packets.",
        ..PLAIN
    };
    pub(super) const PORTABLE: Self = Self { name: "easymesh-portable", engine: "portable", ..PLAIN };

    /// Starts one of the programs; its log files go to the host's own folder, which ends with it.
    fn start_one(&self, rig: &Rig, place: Place, program: &str, line: &[&str]) -> Result<Process> {
        let mut command = rig.command(place, folder().join(program));
        command.args(line).args(["-engine", self.engine]).env("EASYMESH_LOG", "/run/state");
        rig.host(place).spawn(command)
    }

    /// What the gateways are told beyond the README's line.
    fn words(&self, path: Path, inner_mtu: u16) -> Vec<String> {
        let pinned = match path {
            Path::Relayed => "relay",
            // The transfer introduces them to each other; it may not carry, be the path good or bad.
            Path::Direct => "direct",
        };
        // Told always: else each path finds out what it carries, and the interface follows.
        let size = ["-mtu".to_owned(), (inner_mtu + OVERHEAD).to_string()];
        let more = self.flag.map(|(flag, value)| [flag.to_owned(), value.to_owned()]);
        let words = [["-path".to_owned(), pinned.to_owned()]].into_iter().chain([size]).chain(more);
        words.flatten().collect()
    }
}

/// Where the release programs are: the folder `EASYMESH_PROGRAMS`, else the workspace's.
fn folder() -> PathBuf {
    let workspace = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release");
    std::env::var_os("EASYMESH_PROGRAMS").map_or_else(workspace, PathBuf::from)
}

/// The inner MTUs there can be: from what IPv6 needs to what fits into the packets of the links.
fn sizes() -> std::ops::RangeInclusive<u16> {
    TunnelCell::INNER_MTU..=Rig::LINK_MTU as u16 - OVERHEAD
}

/// Whether a usage text lists a flag.
fn lists(usage: &str, flag: &str) -> bool {
    usage.lines().any(|line| line.split_whitespace().next() == Some(flag))
}

impl TunnelSystem for EasyMesh {
    fn name(&self) -> &'static str {
        self.name
    }

    fn find(&self) -> Result<Found> {
        for program in ["transfer", "gateway"] {
            let path = folder().join(program);
            ensure!(path.exists(), "{} is missing: cargo build --release", path.display());
        }
        if let Some((flag, _)) = self.flag {
            let mut help = Command::new(folder().join("gateway"));
            help.arg("-help");
            if !lists(&run_once(help, "")?, flag) {
                return Ok(Err(Absent { name: self.name.into(), how: format!("build a gateway that knows {flag}") }));
            }
        }
        let flag = self.flag.map(|(flag, value)| format!(" {flag} {value}")).unwrap_or_default();
        let about = format!(
            "This project, as built for release, with the README's command lines and -engine {}{flag}. In cells of 1,280 \
             bytes no larger size is told to it: while none is proven, it keeps TCP to inner packets of 1,208.{}",
            self.engine, self.about
        );
        Ok(Ok(SystemInfo { name: self.name.into(), version: env!("CARGO_PKG_VERSION").into(), ours: true, about }))
    }

    fn path(&self, cell: &TunnelCell) -> Path {
        if self.relayed { Path::Relayed } else { cell.path }
    }

    fn unable(&self, cell: &TunnelCell) -> Option<String> {
        if self.relayed && cell.path == Path::Relayed {
            return Some(format!("{} is relayed there", super::REFERENCE));
        }
        let sizes = sizes();
        (!sizes.contains(&cell.inner_mtu))
            .then(|| format!("its inner MTU follows from the outer one: {} to {}", sizes.start(), sizes.end()))
    }

    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel> {
        ensure!(sizes().contains(&cell.inner_mtu), "an inner MTU it does not have");
        let names = [(Place::Left, Rig::RELAY), (Place::Relay, Rig::RELAY), (Place::Right, Rig::RELAY_RIGHT)];
        for (place, address) in names {
            rig.host(place).set_name(NAME, address.into())?;
        }
        let line = ["-public", NAME, "-bind", "8000", "-nums", "1000", "-token", TOKEN];
        let mut transfer = self.start_one(rig, Place::Relay, "transfer", &line)?;
        transfer.wait_for_line("join with", START_MAX).context("the transfer did not start")?;
        let mut processes = vec![transfer];
        let words = self.words(rig.path, cell.inner_mtu);
        for (place, address) in [(Place::Left, LEFT), (Place::Right, RIGHT)] {
            let address = address.to_string();
            let mut line = vec!["-ip", &address, "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", TOKEN];
            line.extend(words.iter().map(String::as_str));
            processes.push(self.start_one(rig, place, "gateway", &line)?);
        }
        for gateway in &mut processes[1..] {
            gateway.wait_for_line("registered", START_MAX).context("a gateway did not register")?;
        }
        for place in [Place::Left, Place::Right] {
            let interfaces = rig.host(place).list_interfaces()?;
            let mesh = interfaces.iter().find(|interface| interface.name == "mesh0").context("there is no mesh0")?;
            ensure!(mesh.mtu == u32::from(cell.inner_mtu), "mesh0 has an MTU of {}, not {}", mesh.mtu, cell.inner_mtu);
        }
        let relay = (rig.path == Path::Relayed).then_some(0);
        Ok(Tunnel { left: LEFT, right: RIGHT, processes, relay })
    }

    #[expect(clippy::disallowed_methods, reason = "gateways tell a change of path to who asks for their status only")]
    fn confirm(&self, rig: &Rig, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        for (place, peer) in [(Place::Left, RIGHT), (Place::Right, LEFT)] {
            loop {
                let mut ask = rig.command(place, folder().join("gateway"));
                ask.args(["status", "-json"]);
                let status = run_once(ask, "").context("ask a gateway for its status")?;
                let Some(why) = status::objection(&status, peer, rig.path, self.cipher)? else { break };
                if Instant::now() > deadline {
                    bail!("the gateway in {} is not where it should be: {why}", rig.host(place).name());
                }
                thread::sleep(ASK);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_it_cannot_do_are_told_with_the_reason() {
        let unable = |system: EasyMesh, name: &str| system.unable(&name.parse().unwrap());
        for name in ["relayed-tcp1-bbr-nic", "relayed-ping-veth-1408", "direct-ping-veth", "direct-tcp1-bbr-veth-1380"]
        {
            assert_eq!(unable(EasyMesh::URING, name), None, "{name}");
        }
        for name in ["relayed-ping-veth-1409", "direct-ping-veth-1279"] {
            assert!(unable(EasyMesh::URING, name).unwrap().contains("1280 to 1408"), "{name}");
        }
        assert_eq!(unable(EasyMesh::RELAYED, "direct-ping-veth"), None);
        assert!(unable(EasyMesh::RELAYED, "relayed-ping-veth").unwrap().contains("easymesh is relayed"));
    }

    #[test]
    fn the_relayed_one_goes_through_the_relay_in_cells_of_any_path() {
        let cell = "direct-tcp1-bbr-veth-1380".parse().unwrap();
        assert_eq!(
            [EasyMesh::URING, EasyMesh::RELAYED].map(|system| system.path(&cell)),
            [Path::Direct, Path::Relayed]
        );
    }

    #[test]
    fn gateways_are_told_path_and_size_and_what_makes_the_system() {
        let words = |system: EasyMesh, path, inner_mtu| system.words(path, inner_mtu).join(" ");
        assert_eq!(words(EasyMesh::URING, Path::Relayed, 1_280), "-path relay -mtu 1372");
        assert_eq!(words(EasyMesh::URING, Path::Direct, 1_380), "-path direct -mtu 1472");
        assert_eq!(words(EasyMesh::PORTABLE, Path::Relayed, 1_408), "-path relay -mtu 1500");
        assert_eq!(words(EasyMesh::CHACHA, Path::Direct, 1_380), "-path direct -mtu 1472 -cipher chacha");
        assert_eq!(words(EasyMesh::OFF, Path::Direct, 1_280), "-path direct -mtu 1372 -offload off");
    }

    #[test]
    fn a_flag_is_known_where_the_usage_lists_it() {
        let usage = "Further flags:\n  -cipher string\n        see -offload too (default \"auto\")\n  -mtu int\n";
        assert!(lists(usage, "-cipher") && lists(usage, "-mtu"));
        assert!(!lists(usage, "-offload") && !lists(usage, "-cip"));
    }
}
