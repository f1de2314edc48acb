//! Interfaces and their addresses as Windows has them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::{Interface, Network, OURS_PREFIX};

/// All interfaces with their addresses. They are named as people know them ("Ethernet 2"), not by their identifiers.
pub(super) fn list() -> io::Result<Vec<Interface>> {
    Ok(netdev::get_interfaces().into_iter().map(read).collect())
}

fn read(interface: netdev::Interface) -> Interface {
    let broadcast = |address: Ipv4Addr, prefix: u8| {
        // Nobody but the two ends is on a link of /31 or /32.
        (prefix < 31).then(|| Ipv4Addr::from_bits(address.to_bits() | (u32::MAX >> prefix)))
    };
    let ipv4 = interface.ipv4.iter().map(|net| Network {
        address: IpAddr::V4(net.addr()),
        prefix: net.prefix_len(),
        broadcast: broadcast(net.addr(), net.prefix_len()),
        usable: true,
        deprecated: false,
        temporary: false,
    });
    let flags = interface.ipv6_addr_flags.iter().map(Some).chain(std::iter::repeat(None));
    let ipv6 = interface.ipv6.iter().zip(flags).map(|(net, flags)| Network {
        address: IpAddr::V6(net.addr()),
        prefix: net.prefix_len(),
        broadcast: None,
        usable: flags.is_none_or(|flags| !flags.tentative && !flags.duplicated),
        deprecated: flags.is_some_and(|flags| flags.deprecated),
        temporary: flags.is_some_and(|flags| flags.temporary),
    });
    let networks = ipv4.chain(ipv6).collect();
    let (up, loopback, multicast) =
        (interface.is_up() && interface.is_running(), interface.is_loopback(), interface.is_multicast());
    let name = interface.friendly_name.unwrap_or(interface.name);
    Interface { index: interface.index, up, loopback, multicast, ours: name.starts_with(OURS_PREFIX), name, networks }
}
