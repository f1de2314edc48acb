//! EasyTier: nodes that forward for each other, over UDP here.

use anyhow::Result;

use super::{LEFT, RIGHT};
use crate::tunnel::cell::{Path, TunnelCell};
use crate::tunnel::rig::{Place, Rig};
use crate::tunnel::system::{Found, Tunnel, TunnelSystem};

const PORT: u16 = 11_010;

/// By how much its interface is smaller than it was told, as it encrypts.
const MTU_LESS: u16 = 20;

/// Two nodes, and a third between them on a relayed path.
pub(super) struct EasyTier;

impl TunnelSystem for EasyTier {
    fn name(&self) -> &'static str {
        "easytier"
    }

    fn find(&self) -> Result<Found> {
        let about = "EasyTier in Rust, UDP, AES-GCM. Relayed cells go through a third node (--disable-p2p).";
        super::find(self.name(), &["easytier"], about)
    }

    fn unable(&self, _cell: &TunnelCell) -> Option<String> {
        None
    }

    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel> {
        let easytier = super::program("easytier")?;
        let places = [Place::Relay, Place::Right, Place::Left];
        let mut processes = Vec::new();
        for place in places.into_iter().filter(|place| *place != Place::Relay || rig.path == Path::Relayed) {
            let words = words(place, rig.path, cell.inner_mtu);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            processes.push(super::start(rig, place, &easytier, &words)?);
        }
        let relay = (rig.path == Path::Relayed).then_some(0);
        Ok(Tunnel { left: LEFT, right: RIGHT, processes, relay })
    }
}

/// The command line of a node.
fn words(place: Place, path: Path, inner_mtu: u16) -> Vec<String> {
    let listen = format!("--listeners udp://0.0.0.0:{PORT}");
    let mtu = inner_mtu + MTU_LESS;
    let tun = |address| format!("--ipv4 {address} --dev-name tier0 --mtu {mtu}");
    let own = match (path, place) {
        (_, Place::Relay) => format!("{listen} --no-tun"),
        (Path::Relayed, Place::Left) => {
            format!("{} --no-listener --disable-p2p --peers udp://{}:{PORT}", tun(LEFT), Rig::RELAY)
        }
        (Path::Relayed, Place::Right) => {
            format!("{} --no-listener --disable-p2p --peers udp://{}:{PORT}", tun(RIGHT), Rig::RELAY_RIGHT)
        }
        (Path::Direct, Place::Left) => format!("{} --no-listener --peers udp://{}:{PORT}", tun(LEFT), Rig::RIGHT),
        (Path::Direct, Place::Right) => format!("{} {listen}", tun(RIGHT)),
    };
    let line = format!(
        "{own} --network-name bench --network-secret bench --disable-ipv6 --default-protocol udp --console-log-level warn"
    );
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_the_relay_or_each_other() {
        let line = |place, path| words(place, path, 1_280).join(" ");
        let left = line(Place::Left, Path::Relayed);
        assert!(left.contains("--peers udp://10.1.0.2:11010") && left.contains("--disable-p2p"), "{left}");
        assert!(left.contains("--ipv4 10.9.0.1 ") && left.contains("--mtu 1300 "), "{left}");
        assert!(line(Place::Left, Path::Direct).contains("--peers udp://10.2.0.2:11010"));
        assert!(!line(Place::Right, Path::Direct).contains("--peers"));
        assert!(line(Place::Relay, Path::Relayed).contains("--no-tun"));
    }
}
