//! n2n: edges and a supernode. Debian's is version 1, whose packets are Ethernet frames under Twofish.

use anyhow::Result;

use super::{LEFT, PREFIX, RIGHT};
use crate::tunnel::cell::{Path, TunnelCell};
use crate::tunnel::interface;
use crate::tunnel::rig::{Place, Rig};
use crate::tunnel::system::{Found, START_MAX, Tunnel, TunnelSystem};

const PORT: u16 = 7_777;
const INTERFACE: &str = "n2n0";

/// Two edges and a supernode.
pub(super) struct N2n;

impl TunnelSystem for N2n {
    fn name(&self) -> &'static str {
        "n2n"
    }

    fn find(&self) -> Result<Found> {
        let about = "ntop's overlay in C; version 1 carries Ethernet frames under Twofish. Relayed cells go through its own \
                     supernode: the edges have no route to each other.";
        super::find(self.name(), &["edge", "supernode"], about)
    }

    fn unable(&self, _cell: &TunnelCell) -> Option<String> {
        None
    }

    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel> {
        let (edge, supernode) = (super::program("edge")?, super::program("supernode")?);
        let mut processes = vec![super::start(rig, Place::Relay, &supernode, &["-l", &PORT.to_string()])?];
        for place in [Place::Left, Place::Right] {
            let words = words(place, cell.inner_mtu);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            processes.push(super::start(rig, place, &edge, &words)?);
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

/// The command line of an edge.
fn words(place: Place, inner_mtu: u16) -> Vec<String> {
    let (address, supernode, port, last) = match place {
        Place::Left | Place::Relay => (LEFT, Rig::RELAY, 50_001, 1),
        Place::Right => (RIGHT, Rig::RELAY_RIGHT, 50_002, 2),
    };
    let line = format!(
        "-d {INTERFACE} -a {address} -s 255.255.255.0 -c bench -k bench -l {supernode}:{PORT} -p {port} -M {inner_mtu} \
         -u 0 -g 0 -m 02:00:00:00:00:{last:02}"
    );
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_differ_in_address_port_and_hardware_address() {
        let [left, right] = [Place::Left, Place::Right].map(|place| words(place, 1_280).join(" "));
        assert!(
            left.contains("-a 10.9.0.1 ") && left.contains("-l 10.1.0.2:7777 ") && left.contains("-M 1280 "),
            "{left}"
        );
        assert!(right.contains("-a 10.9.0.2 ") && right.contains("-l 10.2.0.1:7777 "), "{right}");
        assert!(left.ends_with(":01") && right.ends_with(":02"));
        assert!(!left.contains("-f"), "version 1 would go into the background");
    }
}
