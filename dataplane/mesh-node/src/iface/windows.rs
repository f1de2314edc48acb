//! Interfaces and their addresses as Windows has them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use super::watch::{DefaultRoute, FAR_IPV4, FAR_IPV6, GATHER, Snapshot};
use super::{Interface, Network, OURS_PREFIX, Outside};

/// How often the interfaces are looked at: what Windows tells of changes is not listened to.
const LOOK: Duration = Duration::from_secs(1);

/// All interfaces with their addresses. They are named as people know them ("Ethernet 2"), not by their identifiers.
pub(super) fn list() -> io::Result<Vec<Interface>> {
    Ok(netdev::get_interfaces().into_iter().map(read).collect())
}

/// All that matters of the network, as seen by what is bound as `outside` says.
pub(super) fn look(outside: &Outside) -> io::Result<Snapshot> {
    let all = netdev::get_interfaces();
    let interfaces: Vec<Interface> = all.iter().cloned().map(read).collect();
    let tied = outside.interface(&interfaces).map(|interface| interface.index);
    let way = |far: IpAddr| {
        // That of the chosen interface; else of the one that the system would send by.
        let source = super::route_by(outside, (far, 9).into())?.address;
        let index =
            tied.or_else(|| interfaces.iter().find(|interface| interface.has(source)).map(|found| found.index))?;
        let routers = all.iter().find(|interface| interface.index == index)?.gateway.as_ref()?;
        let router = match far {
            IpAddr::V4(_) => routers.ipv4.first().copied().map(IpAddr::V4),
            IpAddr::V6(_) => routers.ipv6.first().copied().map(IpAddr::V6),
        };
        Some(DefaultRoute { interface: index, router, source: Some(source) })
    };
    let (ipv4, ipv6) = (way(FAR_IPV4.into()), way(FAR_IPV6.into()));
    Ok(Snapshot { interfaces, ipv4, ipv6 })
}

/// Calls `changed` each second; it finds out itself whether anything has changed. Ends when it says so.
pub(super) fn watch(mut changed: impl FnMut() -> bool) -> io::Result<()> {
    while changed() {
        thread::park_timeout(LOOK.max(GATHER));
    }
    Ok(())
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
    let ours = name.starts_with(OURS_PREFIX);
    Interface { index: interface.index, up, loopback, multicast, ours, mtu: interface.mtu, name, networks }
}
