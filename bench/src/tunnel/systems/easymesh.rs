//! EasyMesh as shipped, with the command lines of its README.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::Process;

use crate::report::SystemInfo;
use crate::tunnel::cell::{Path, TunnelCell};
use crate::tunnel::rig::{Place, Rig};
use crate::tunnel::system::{Found, START_MAX, Tunnel, TunnelSystem};

/// The token of the README.
const TOKEN: &str = "s^I^ghGjkB7Zm$q14NWhxfQdS5E&FG7R";
/// The transfer's name in the README.
const NAME: &str = "you.domain.com";
const LEFT: Ipv4Addr = Ipv4Addr::new(172, 168, 3, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(172, 168, 3, 2);

/// A transfer and two gateways with one engine.
pub(super) struct EasyMesh {
    name: &'static str,
    engine: &'static str,
}

impl EasyMesh {
    pub(super) const URING: Self = Self { name: super::REFERENCE, engine: "uring" };
    pub(super) const PORTABLE: Self = Self { name: "easymesh-portable", engine: "portable" };

    /// Starts one of the programs; its log files go to the host's own folder, which ends with it.
    fn start_one(&self, rig: &Rig, place: Place, program: &str, line: &[&str]) -> Result<Process> {
        let mut command = rig.command(place, folder().join(program));
        command.args(line).args(["-engine", self.engine]).env("EASYMESH_LOG", "/run/state");
        rig.host(place).spawn(command)
    }
}

/// Where the release programs are: the folder `EASYMESH_PROGRAMS`, else the workspace's.
fn folder() -> PathBuf {
    let workspace = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release");
    std::env::var_os("EASYMESH_PROGRAMS").map_or_else(workspace, PathBuf::from)
}

/// What the gateway is told of the network outside, for an inner MTU.
fn size_flags(inner_mtu: u16) -> Option<&'static [&'static str]> {
    match inner_mtu {
        TunnelCell::INNER_MTU => Some(&[]),
        TunnelCell::INNER_MTU_OF_1500 => Some(&["-mtu", "1500"]),
        _ => None,
    }
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
        let about = format!(
            "This project, as built for release, with the README's command lines and -engine {}. While no larger size is \
             proven, it keeps TCP to inner packets of 1,208 bytes on an interface of 1,280.",
            self.engine
        );
        Ok(Ok(SystemInfo { name: self.name.into(), version: env!("CARGO_PKG_VERSION").into(), ours: true, about }))
    }

    fn unable(&self, cell: &TunnelCell) -> Option<String> {
        if cell.path == Path::Direct {
            return Some("it has no direct path yet".into());
        }
        let sizes = [TunnelCell::INNER_MTU, TunnelCell::INNER_MTU_OF_1500];
        size_flags(cell.inner_mtu)
            .is_none()
            .then(|| format!("its inner MTU follows from the outer one: {} or {}", sizes[0], sizes[1]))
    }

    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel> {
        let size = size_flags(cell.inner_mtu).context("an inner MTU it does not have")?;
        let names = [(Place::Left, Rig::RELAY), (Place::Relay, Rig::RELAY), (Place::Right, Rig::RELAY_RIGHT)];
        for (place, address) in names {
            rig.host(place).set_name(NAME, address.into())?;
        }
        let line = ["-public", NAME, "-bind", "8000", "-nums", "1000", "-token", TOKEN];
        let mut transfer = self.start_one(rig, Place::Relay, "transfer", &line)?;
        transfer.wait_for_line("join with", START_MAX).context("the transfer did not start")?;
        let mut processes = vec![transfer];
        for (place, address) in [(Place::Left, LEFT), (Place::Right, RIGHT)] {
            let address = address.to_string();
            let line =
                ["-ip", &address, "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", TOKEN, "-path", "relay"];
            processes.push(self.start_one(rig, place, "gateway", &[&line, size].concat())?);
        }
        for gateway in &mut processes[1..] {
            gateway.wait_for_line("registered", START_MAX).context("a gateway did not register")?;
        }
        for place in [Place::Left, Place::Right] {
            let interfaces = rig.host(place).list_interfaces()?;
            let mesh = interfaces.iter().find(|interface| interface.name == "mesh0").context("there is no mesh0")?;
            ensure!(mesh.mtu == u32::from(cell.inner_mtu), "mesh0 has an MTU of {}, not {}", mesh.mtu, cell.inner_mtu);
        }
        Ok(Tunnel { left: LEFT, right: RIGHT, processes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_it_cannot_do_are_told_with_the_reason() {
        let unable = |name: &str| EasyMesh::URING.unable(&name.parse().unwrap());
        assert_eq!(unable("relayed-tcp1-bbr-nic"), None);
        assert_eq!(unable("relayed-ping-veth-1408"), None);
        assert!(unable("direct-ping-veth").unwrap().contains("direct"));
        assert!(unable("relayed-ping-veth-1400").unwrap().contains("1408"));
    }
}
