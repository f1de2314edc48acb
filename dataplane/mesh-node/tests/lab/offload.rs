//! Gateways whose virtual interface has offloads, and such whose interface has none: what is cut at one end and
//! gathered at the other is the same, bit by bit.

mod alive;
mod checksums;
mod copies;
mod stream;
mod udp;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::Process;

use crate::fixture::{Site, assert_quiet, ip, status};

/// The settings of `-offload` at the two ends.
const COMBINATIONS: [[&str; 2]; 4] = [["auto", "auto"], ["auto", "off"], ["off", "auto"], ["off", "off"]];
/// Both ends send by the path that they are to send by within this time.
const SETTLED: Duration = Duration::from_secs(10);

/// Two offices on a switch, a gateway on each, and a transfer in the cloud.
struct Pair {
    site: Site,
    transfer: Process,
    gateways: [Process; 2],
    /// The addresses of the gateways, IPv4 and IPv6.
    addresses: [[IpAddr; 2]; 2],
}

impl Pair {
    /// Gateways with these flags beside the walkthrough's. `path` is `lan`, which is the direct one here, or `relay`.
    fn new(name: &str, path: &str, flags: [&[&str]; 2]) -> Result<Self> {
        let site = Site::new(name, 2)?;
        let transfer = site.transfer("2", &[])?;
        let allowed = ["-path", if path == "relay" { "relay" } else { "auto" }];
        let gateways =
            [site.gateway(0, &[flags[0], &allowed].concat())?, site.gateway(1, &[flags[1], &allowed].concat())?];
        let addresses = [addresses(&site, 0)?, addresses(&site, 1)?];
        let pair = Self { site, transfer, gateways, addresses };
        pair.settle(path)?;
        Ok(pair)
    }

    /// Waits until both send by this path. Pings go all the while: paths are measured often only while they are used,
    /// and on a busy machine the first measures may speak for the other path.
    fn settle(&self, path: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            self.site.ping_until_answered(0, 1, SETTLED)?;
            let on_path = |(of, other): (usize, usize)| -> Result<bool> {
                let (status, other) = (status(&self.site.offices[of], "gateway")?, ip(other).to_string());
                let mut peers = status["peers"].as_array().context("peers are listed")?.iter();
                Ok(peers.any(|peer| peer["path"] == path && peer["ip4"] == other.as_str()))
            };
            if on_path((0, 1))? && on_path((1, 0))? {
                return Ok(());
            }
            ensure!(start.elapsed() < SETTLED, "not on the path {path} within {SETTLED:?}");
        }
    }

    /// The bytes that fit into one packet of the virtual interface, at both ends.
    fn mtu(&self) -> Result<usize> {
        let mut least = usize::MAX;
        for office in &self.site.offices {
            let interfaces = office.list_interfaces()?;
            let mesh = interfaces.iter().find(|interface| interface.name == "mesh0").context("mesh0")?;
            least = least.min(mesh.mtu as usize);
        }
        Ok(least)
    }

    /// Nobody complained, no packet was refused for what its offload header said, and the interfaces have the offloads
    /// that they were asked for.
    fn assert_healthy(&self, offload: [&str; 2]) -> Result<()> {
        for process in self.gateways.iter().chain([&self.transfer]) {
            assert_quiet(process);
        }
        for (office, offload) in self.site.offices.iter().zip(offload) {
            let status = status(office, "gateway")?;
            let has = status["inside_offloads"].as_array().context("offloads are told")?.len();
            ensure!((has > 0) == (offload == "auto"), "-offload {offload}: {}", status["inside_offloads"]);
            for reason in ["bad-offload", "bad-inner-packet"] {
                let count = status["drops"][reason].as_u64().unwrap_or(0);
                ensure!(count == 0, "{reason}: {count} packets were dropped: {}", status["drops"]);
            }
        }
        Ok(())
    }
}

/// IPv4 and IPv6 address of a gateway. The latter is there at most a moment after the former.
fn addresses(site: &Site, number: usize) -> Result<[IpAddr; 2]> {
    let start = Instant::now();
    loop {
        let interfaces = site.offices[number].list_interfaces()?;
        let mesh = interfaces.iter().find(|interface| interface.name == "mesh0").context("mesh0")?;
        let own = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.octets()[0] == 0xfd);
        if let Some(ula) = mesh.addresses.iter().map(|(address, _)| *address).find(own) {
            return Ok([IpAddr::V4(ip(number)), ula]);
        }
        ensure!(start.elapsed() < SETTLED, "a gateway without IPv6: {mesh}");
    }
}
