//! A relay for tunnels that have none: the kernel of the middle host sends their datagrams on (nftables, DNAT and masquerade).

use anyhow::{Context as _, Result};

use super::{command, program};
use crate::peers;
use crate::tunnel::cell::{Path, TunnelCell};
use crate::tunnel::rig::{Place, Rig};
use crate::tunnel::system::run_once;

/// The program that loads the rules.
const PROGRAM: &str = "nft";

/// What the reports say of systems relayed this way.
pub(super) const ABOUT: &str = "Relayed cells: it has no relay of its own, so the middle host's kernel sends its datagrams on \
                                (nftables DNAT), as a rented router would.";

/// Why such a system cannot do a cell, if so.
pub(super) fn unable(cell: &TunnelCell) -> Option<String> {
    let missing = || matches!(peers::find(PROGRAM), Ok(Err(_)));
    (cell.path == Path::Relayed && missing())
        .then(|| format!("it has no relay of its own, and {PROGRAM} for one is not installed"))
}

/// For a relayed path: what comes to the UDP port of the middle host goes on to the right gateway, and answers go back.
pub(super) fn relay_port(rig: &Rig, port: u16) -> Result<()> {
    if rig.path == Path::Direct {
        return Ok(());
    }
    rig.forward()?;
    let load = command(rig, Place::Relay, &program(PROGRAM)?, &["-f", "-"]);
    run_once(load, &rules(port)).context("load the rules that relay")?;
    Ok(())
}

fn rules(port: u16) -> String {
    let (relay, right) = (Rig::RELAY, Rig::RIGHT);
    format!(
        "table ip relay {{\n\
         chain in {{ type nat hook prerouting priority dstnat; ip daddr {relay} udp dport {port} dnat to {right}:{port}; }}\n\
         chain out {{ type nat hook postrouting priority srcnat; ip daddr {right} udp dport {port} masquerade; }}\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn rules_name_the_port_and_the_right_gateway() {
        let rules = super::rules(51_820);
        assert!(rules.contains("ip daddr 10.1.0.2 udp dport 51820 dnat to 10.2.0.2:51820;"), "{rules}");
        assert_eq!(rules.matches('{').count(), rules.matches('}').count());
    }
}
