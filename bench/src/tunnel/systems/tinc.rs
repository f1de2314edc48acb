//! tinc 1.0: nodes with RSA keys that forward for each other.

use anyhow::Result;

use super::{FOLDER, LEFT, PREFIX, RIGHT};
use crate::tunnel::cell::{Path, TunnelCell};
use crate::tunnel::interface;
use crate::tunnel::rig::{Place, Rig};
use crate::tunnel::system::{Found, START_MAX, Tunnel, TunnelSystem, run_once};

const INTERFACE: &str = "tinc0";

/// Two nodes, and a third between them on a relayed path.
pub(super) struct Tinc;

impl TunnelSystem for Tinc {
    fn name(&self) -> &'static str {
        "tinc"
    }

    fn find(&self) -> Result<Found> {
        let about = "tinc 1.0 in C, AES-256-CBC with SHA-256. Relayed cells go through a third node (IndirectData).";
        super::find(self.name(), &["tinc"], about)
    }

    fn unable(&self, _cell: &TunnelCell) -> Option<String> {
        None
    }

    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel> {
        let tincd = super::program("tinc")?;
        let places = if rig.path == Path::Relayed {
            vec![Place::Relay, Place::Right, Place::Left]
        } else {
            // Who does not connect starts first: a connection refused is tried again after 5 s only.
            vec![Place::Right, Place::Left]
        };
        let mut hosts = Vec::new();
        for place in &places {
            let (name, host) = (name(*place), rig.host(*place));
            super::write(
                host,
                &[("tinc.conf", node(*place, rig.path)), (&format!("hosts/{name}"), described(*place, rig.path))],
            )?;
            // It writes the private key to a file and appends the public one to its own description.
            run_once(super::command(rig, *place, &tincd, &["-c", FOLDER, "-K", "2048"]), "")?;
            hosts.push((format!("hosts/{name}"), super::read(host, &format!("hosts/{name}"))?));
        }
        let mut processes = Vec::new();
        for place in &places {
            let seen = hosts.iter().map(|(name, text)| (name.as_str(), addressed(name, text, *place, rig.path)));
            super::write(rig.host(*place), &seen.collect::<Vec<_>>())?;
            let words = ["-c", FOLDER, "--pidfile=/run/bench/pid", "-D"];
            processes.push(super::start(rig, *place, &tincd, &words)?);
        }
        for (place, address) in [(Place::Left, LEFT), (Place::Right, RIGHT)] {
            let host = rig.host(place);
            interface::wait_for(host, INTERFACE, START_MAX)?;
            interface::set_up(host, INTERFACE, address, PREFIX, cell.inner_mtu)?;
        }
        let relay = (rig.path == Path::Relayed).then_some(0);
        Ok(Tunnel { left: LEFT, right: RIGHT, processes, relay })
    }
}

fn name(place: Place) -> &'static str {
    match place {
        Place::Left => "left",
        Place::Relay => "relay",
        Place::Right => "right",
    }
}

/// `tinc.conf` of a node.
fn node(place: Place, path: Path) -> String {
    let own = format!("Name = {}\nInterface = {INTERFACE}\nMode = router\nAddressFamily = ipv4\n", name(place));
    let more = match (path, place) {
        (_, Place::Relay) => "DeviceType = dummy\n",
        (Path::Relayed, Place::Left | Place::Right) => "ConnectTo = relay\n",
        (Path::Direct, Place::Left) => "ConnectTo = right\n",
        (Path::Direct, Place::Right) => "",
    };
    own + more
}

/// What all nodes know of a node, but for its key and address.
fn described(place: Place, path: Path) -> String {
    let mut text = "Port = 655\nCipher = aes-256-cbc\nDigest = sha256\nCompression = 0\n".to_owned();
    if path == Path::Relayed {
        text += "IndirectData = yes\n";
    }
    match place {
        Place::Left => text += &format!("Subnet = {LEFT}/32\n"),
        Place::Right => text += &format!("Subnet = {RIGHT}/32\n"),
        Place::Relay => {}
    }
    text
}

/// The description `text` of a node as the node at `place` has it: with an address if that is to connect to it.
fn addressed(file: &str, text: &str, place: Place, path: Path) -> String {
    let address = match (file, path, place) {
        ("hosts/relay", Path::Relayed, Place::Left) => Some(Rig::RELAY),
        ("hosts/relay", Path::Relayed, Place::Right) => Some(Rig::RELAY_RIGHT),
        ("hosts/right", Path::Direct, Place::Left) => Some(Rig::RIGHT),
        _ => None,
    };
    address.map(|address| format!("Address = {address}\n")).unwrap_or_default() + text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_connect_to_the_relay_or_to_each_other() {
        assert!(node(Place::Left, Path::Relayed).contains("ConnectTo = relay"));
        assert!(node(Place::Right, Path::Relayed).contains("ConnectTo = relay"));
        assert!(node(Place::Left, Path::Direct).contains("ConnectTo = right"));
        assert!(!node(Place::Right, Path::Direct).contains("ConnectTo"));
        assert!(node(Place::Relay, Path::Relayed).contains("DeviceType = dummy"));
    }

    #[test]
    fn only_who_connects_knows_an_address() {
        let seen = |file, place, path| addressed(file, "Port = 655\n", place, path);
        assert_eq!(seen("hosts/relay", Place::Right, Path::Relayed), "Address = 10.2.0.1\nPort = 655\n");
        assert_eq!(seen("hosts/right", Place::Left, Path::Relayed), "Port = 655\n");
        assert_eq!(seen("hosts/right", Place::Left, Path::Direct), "Address = 10.2.0.2\nPort = 655\n");
        assert!(described(Place::Left, Path::Relayed).contains("IndirectData = yes"));
        assert!(!described(Place::Left, Path::Direct).contains("IndirectData"));
        assert!(!described(Place::Relay, Path::Relayed).contains("Subnet"));
    }
}
