//! The addresses of this machine at which a peer may reach it, if it is near enough.

use std::net::IpAddr;

use mesh_core::gateway::{LOCAL_ADDRESSES_MAX, LocalAddress};

use super::watch::Snapshot;
use super::{Interface, Network, Outside};

/// The addresses of the chosen interface, or of all that are up: private and global ones, those first by which the machine reaches
/// the Internet. None of the loopback, of a link alone, or of a virtual network of ours; at most 16.
pub fn local_addresses(outside: &Outside, snapshot: &Snapshot) -> Vec<LocalAddress> {
    let interfaces: Vec<&Interface> = match outside {
        Outside::Interface { .. } => outside.interface(&snapshot.interfaces).into_iter().collect(),
        Outside::Routed => snapshot.interfaces.iter().filter(|interface| !interface.loopback).collect(),
    };
    // A socket that is bound to the one address hears nothing at others of its family.
    let bound = match outside {
        Outside::Interface { preferred, .. } => {
            preferred.filter(|asked| interfaces.iter().any(|interface| interface.has(*asked)))
        }
        Outside::Routed => None,
    };
    let mut found: Vec<(&Interface, &Network)> = interfaces
        .into_iter()
        .filter(|interface| interface.up && !interface.ours)
        .flat_map(|interface| interface.networks.iter().map(move |network| (interface, network)))
        .filter(|(_, network)| network.usable && reaches_beyond_the_link(network.address))
        .filter(|(_, network)| {
            bound.is_none_or(|bound| bound == network.address || bound.is_ipv4() != network.address.is_ipv4())
        })
        .collect();
    let routes = [snapshot.ipv4, snapshot.ipv6].into_iter().flatten();
    let (ways, sources): (Vec<u32>, Vec<Option<IpAddr>>) = routes.map(|route| (route.interface, route.source)).unzip();
    // What the system would send from comes first, what goes soon last; else the system's own order.
    found.sort_by_key(|(interface, network)| {
        (network.deprecated, !sources.contains(&Some(network.address)), !ways.contains(&interface.index))
    });
    let to_local = |(interface, network): (&Interface, &Network)| LocalAddress {
        address: network.address,
        prefix: network.prefix,
        interface: interface.index,
    };
    found.into_iter().take(LOCAL_ADDRESSES_MAX).map(to_local).collect()
}

/// The longest IP packet that the chosen interface sends, or any of those that are up and may be used, in bytes; `None`: not known.
pub fn longest_packet(outside: &Outside, interfaces: &[Interface]) -> Option<u16> {
    let used = |interface: &&Interface| match outside {
        Outside::Interface { name, .. } => interface.name == *name,
        Outside::Routed => interface.up && !interface.loopback && !interface.ours && !interface.networks.is_empty(),
    };
    let longest = interfaces.iter().filter(used).filter_map(|interface| interface.mtu).max()?;
    Some(u16::try_from(longest).unwrap_or(u16::MAX))
}

fn reaches_beyond_the_link(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let link = match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !special && !link
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iface::tests::{interface, machine, network};
    use crate::iface::watch::DefaultRoute;

    fn addresses(outside: &Outside, snapshot: &Snapshot) -> Vec<String> {
        let line = |local: &LocalAddress| format!("{}/{} {}", local.address, local.prefix, local.interface);
        local_addresses(outside, snapshot).iter().map(line).collect()
    }

    fn by(name: &str, preferred: Option<&str>) -> Outside {
        Outside::Interface { name: name.into(), preferred: preferred.map(|address| address.parse().unwrap()) }
    }

    fn snapshot() -> Snapshot {
        let mut interfaces = machine();
        interfaces.push(interface(5, "mesh0", &["172.168.3.1/16", "fd11::1/64"]));
        interfaces.push(interface(6, "usb0", &["169.254.3.4/16", "10.0.0.7/8"]));
        Snapshot { interfaces, ipv4: None, ipv6: None }
    }

    #[test]
    fn the_longest_packet_is_that_of_what_is_sent_by() {
        let mut interfaces = machine();
        let name = |name: &str| Outside::Interface { name: name.into(), preferred: None };
        assert_eq!(longest_packet(&Outside::Routed, &interfaces), Some(1500), "the loopback is none");
        interfaces[1].mtu = Some(1400);
        assert_eq!(longest_packet(&name("ens3"), &interfaces), Some(1400));
        assert_eq!(longest_packet(&Outside::Routed, &interfaces), Some(1500), "paths by others may carry more");
        interfaces[1].mtu = Some(100_000);
        assert_eq!(longest_packet(&name("ens3"), &interfaces), Some(u16::MAX));
        interfaces[1].mtu = None;
        assert_eq!(longest_packet(&name("ens3"), &interfaces), None);
        assert_eq!(longest_packet(&name("gone"), &interfaces), None);
    }

    #[test]
    fn what_leads_nowhere_or_into_our_own_network_is_left_out() {
        let all = ["192.168.3.2/24 2", "2001:db8::2/64 2", "172.17.0.1/16 3", "10.0.0.7/8 6"];
        assert_eq!(addresses(&Outside::Routed, &snapshot()), all);
        assert_eq!(addresses(&by("ens3", None), &snapshot()), all[..2]);
        assert_eq!(addresses(&by("wlan0", None), &snapshot()), [""; 0]);
        let mut down = snapshot();
        down.interfaces[1].up = false;
        assert_eq!(addresses(&by("ens3", None), &down), [""; 0]);
    }

    #[test]
    fn the_order_is_that_of_the_system() {
        let mut snapshot = snapshot();
        let networks = &mut snapshot.interfaces[1].networks;
        networks.extend([network("2001:db8::3/64"), network("2001:db8::4/64"), network("2001:db8::5/64")]);
        (networks[2].deprecated, networks[4].temporary, networks[5].usable) = (true, true, false);
        let source = "2001:db8::4".parse().ok();
        snapshot.ipv6 = Some(DefaultRoute { interface: 2, router: None, source });
        snapshot.ipv4 = Some(DefaultRoute { interface: 6, router: None, source: "10.0.0.7".parse().ok() });
        let order = [
            "2001:db8::4/64 2",
            "10.0.0.7/8 6",
            "192.168.3.2/24 2",
            "2001:db8::3/64 2",
            "172.17.0.1/16 3",
            "2001:db8::2/64 2",
        ];
        assert_eq!(addresses(&Outside::Routed, &snapshot), order);
    }

    #[test]
    fn of_the_family_of_an_address_that_was_asked_for_there_is_no_other() {
        let mut snapshot = snapshot();
        snapshot.interfaces[1].networks.push(network("192.168.3.9/24"));
        let asked = by("ens3", Some("192.168.3.9"));
        assert_eq!(addresses(&asked, &snapshot), ["2001:db8::2/64 2", "192.168.3.9/24 2"]);
        snapshot.interfaces[1].networks.pop();
        assert_eq!(addresses(&asked, &snapshot), ["192.168.3.2/24 2", "2001:db8::2/64 2"]);
    }

    #[test]
    fn there_are_at_most_sixteen() {
        let mut snapshot = snapshot();
        let many: Vec<String> = (1..100).map(|host| format!("10.1.0.{host}/24")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        snapshot.interfaces.push(interface(9, "eth9", &many));
        assert_eq!(local_addresses(&Outside::Routed, &snapshot).len(), LOCAL_ADDRESSES_MAX);
    }
}
