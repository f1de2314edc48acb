//! Interfaces and their addresses as the kernel has them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use super::netlink::{Attributes, Message, Netlink, append_attribute, read_u32};
use super::watch::{DefaultRoute, FAR_IPV4, FAR_IPV6, GATHER, Snapshot};
use super::{Interface, Network, OURS_PREFIX, Outside};

/// Of `struct ifinfomsg`, `struct ifaddrmsg` and `struct rtmsg`.
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
const ROUTE_BYTES: usize = 12;
/// Attribute of a link: most segments that a packet is cut into.
const IFLA_GSO_MAX_SEGS: u16 = 40;
/// What the kernel calls a TUN interface (`IFLA_INFO_KIND`).
const TUN: &[u8] = b"tun";

/// Of an IPv6 address (`IFA_F_...`): not to be used yet, or not at all.
const UNUSABLE: u32 = libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED;

/// Sets into how many segments at most a packet of an interface may be cut, and how many packets wait in it.
pub(super) fn set_limits(name: &str, segments: u32, queue: u32) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(name)?;
    let mut body = vec![0; LINK_BYTES];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    append_attribute(&mut body, libc::IFLA_TXQLEN, &queue.to_ne_bytes());
    append_attribute(&mut body, IFLA_GSO_MAX_SEGS, &segments.to_ne_bytes());
    Netlink::open(0)?.tell(libc::RTM_NEWLINK, &body)
}

/// All interfaces with their addresses, in the kernel's order.
pub(super) fn list() -> io::Result<Vec<Interface>> {
    list_by(&mut Netlink::open(0)?)
}

/// The same over a connection that is there.
fn list_by(netlink: &mut Netlink) -> io::Result<Vec<Interface>> {
    let mut interfaces =
        netlink.list(libc::RTM_GETLINK, &[0; LINK_BYTES], Vec::new, |interfaces: &mut Vec<Interface>, message| {
            interfaces.extend(read_link(message));
        })?;
    let addresses =
        netlink.list(libc::RTM_GETADDR, &[0; ADDRESS_BYTES], Vec::new, |addresses: &mut Vec<_>, message| {
            addresses.extend(read_address(message));
        })?;
    for (index, network) in addresses {
        // One that came between the two lists is in the next listing.
        if let Some(interface) = interfaces.iter_mut().find(|interface| interface.index == index) {
            interface.networks.push(network);
        }
    }
    Ok(interfaces)
}

/// All that matters of the network, as seen by what is bound as `outside` says.
pub(super) fn look(outside: &Outside) -> io::Result<Snapshot> {
    let mut netlink = Netlink::open(0)?;
    let interfaces = list_by(&mut netlink)?;
    let tied = outside.interface(&interfaces).map(|interface| interface.index);
    let mut route = |to: IpAddr| match (outside, tied) {
        // The interface is away.
        (Outside::Interface { .. }, None) => Ok(None),
        _ => route_to(&mut netlink, to, tied),
    };
    let (ipv4, ipv6) = (route(FAR_IPV4.into())?, route(FAR_IPV6.into())?);
    Ok(Snapshot { interfaces, ipv4, ipv6 })
}

/// The way that datagrams take to an address; `None` if there is none.
fn route_to(netlink: &mut Netlink, to: IpAddr, by: Option<u32>) -> io::Result<Option<DefaultRoute>> {
    let (family, bytes) = match to {
        IpAddr::V4(to) => (libc::AF_INET, to.octets().to_vec()),
        IpAddr::V6(to) => (libc::AF_INET6, to.octets().to_vec()),
    };
    let mut question = vec![0; ROUTE_BYTES];
    question[0] = u8::try_from(family).expect("a small number");
    question[1] = u8::try_from(bytes.len() * 8).expect("128 at most");
    append_attribute(&mut question, libc::RTA_DST, &bytes);
    if let Some(interface) = by {
        append_attribute(&mut question, libc::RTA_OIF, &interface.to_ne_bytes());
    }
    let gone = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ENODEV, libc::EACCES, libc::EINVAL, libc::EAFNOSUPPORT];
    match netlink.ask(libc::RTM_GETROUTE, &question, read_route) {
        Err(error) if error.raw_os_error().is_some_and(|number| gone.contains(&number)) => Ok(None),
        answer => answer,
    }
}

/// Reads `RTM_NEWROUTE`.
fn read_route(message: &Message<'_>) -> Option<DefaultRoute> {
    let [family, _, _, _, _, _, _, kind, ..] = *message.body else { return None };
    if message.kind != libc::RTM_NEWROUTE || kind != libc::RTN_UNICAST {
        return None;
    }
    let (mut interface, mut router, mut source) = (None, None, None);
    for (attribute, value) in Attributes(message.body.get(ROUTE_BYTES..)?) {
        match attribute {
            libc::RTA_OIF => interface = read_u32(value, 0),
            libc::RTA_GATEWAY => router = read_ip(family.into(), value),
            libc::RTA_PREFSRC => source = read_ip(family.into(), value),
            _ => {}
        }
    }
    Some(DefaultRoute { interface: interface?, router, source })
}

/// Calls `changed` when something was told that may matter: for all that is told within [`GATHER`] once. Ends when it says so.
pub(super) fn watch(mut changed: impl FnMut() -> bool) -> io::Result<()> {
    let groups = libc::RTMGRP_LINK
        | libc::RTMGRP_IPV4_IFADDR
        | libc::RTMGRP_IPV6_IFADDR
        | libc::RTMGRP_IPV4_ROUTE
        | libc::RTMGRP_IPV6_ROUTE;
    let mut netlink = Netlink::open(u32::try_from(groups).expect("bits"))?;
    loop {
        // What changed before the connection stood was not told.
        if !changed() {
            return Ok(());
        }
        while !netlink.hear(None, matters)? {}
        let start = Instant::now();
        while let Some(left) = GATHER.checked_sub(start.elapsed()) {
            netlink.hear(Some(left), matters)?;
        }
    }
}

/// Whether a message tells of an interface, an address or a default route. Other routes come and go by the thousand on some machines.
fn matters(message: &Message<'_>) -> bool {
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => true,
        // The length of the destination's prefix.
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => message.body.get(1) == Some(&0),
        _ => false,
    }
}

/// Reads `RTM_NEWLINK`.
fn read_link(message: &Message<'_>) -> Option<Interface> {
    if message.kind != libc::RTM_NEWLINK {
        return None;
    }
    let flags = read_u32(message.body, 8)?.cast_signed();
    let is = |flag: i32| flags & flag != 0;
    let (mut name, mut kind, mut mtu) = (None, None, None);
    for (attribute, value) in Attributes(message.body.get(LINK_BYTES..)?) {
        match attribute {
            libc::IFLA_IFNAME => name = Some(String::from_utf8_lossy(text(value)).into_owned()),
            libc::IFLA_MTU => mtu = read_u32(value, 0),
            libc::IFLA_LINKINFO => {
                kind = Attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND).map(|(_, kind)| text(kind));
            }
            _ => {}
        }
    }
    let name = name?;
    Some(Interface {
        index: read_u32(message.body, 4)?,
        up: is(libc::IFF_UP) && is(libc::IFF_RUNNING),
        loopback: is(libc::IFF_LOOPBACK),
        multicast: is(libc::IFF_MULTICAST),
        ours: kind == Some(TUN) && is_numbered(&name, OURS_PREFIX),
        mtu,
        name,
        networks: Vec::new(),
    })
}

/// Reads `RTM_NEWADDR`: the number of the interface, and the address.
fn read_address(message: &Message<'_>) -> Option<(u32, Network)> {
    if message.kind != libc::RTM_NEWADDR {
        return None;
    }
    let [family, prefix, flags, _scope, ..] = *message.body else { return None };
    let (family, mut flags) = (i32::from(family), u32::from(flags));
    let (mut own, mut other, mut broadcast) = (None, None, None);
    for (attribute, value) in Attributes(message.body.get(ADDRESS_BYTES..)?) {
        match attribute {
            // On a link between two, IFA_ADDRESS is the other end; elsewhere IPv6 tells no IFA_LOCAL.
            libc::IFA_LOCAL => own = read_ip(family, value),
            libc::IFA_ADDRESS => other = read_ip(family, value),
            libc::IFA_BROADCAST => broadcast = read_ip(family, value),
            libc::IFA_FLAGS => flags = read_u32(value, 0)?,
            _ => {}
        }
    }
    let address = own.or(other)?;
    // The flag of temporary IPv6 addresses is that of secondary IPv4 addresses too.
    let is_v6 = |flag: u32| address.is_ipv6() && flags & flag != 0;
    let network = Network {
        address,
        prefix,
        broadcast: match broadcast {
            Some(IpAddr::V4(broadcast)) => Some(broadcast),
            Some(IpAddr::V6(_)) | None => None,
        },
        usable: !is_v6(UNUSABLE),
        deprecated: is_v6(libc::IFA_F_DEPRECATED),
        temporary: is_v6(libc::IFA_F_TEMPORARY),
    };
    Some((read_u32(message.body, 4)?, network))
}

fn read_ip(family: i32, value: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

/// Text up to its zero.
fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// `prefix` and a number.
fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_what_getifaddrs_lists() {
        let mut ours: Vec<(String, IpAddr)> = Vec::new();
        for interface in list().unwrap() {
            assert_eq!(nix::net::if_::if_nametoindex(interface.name.as_str()), Ok(interface.index));
            ours.extend(interface.networks.iter().map(|network| (interface.name.clone(), network.address)));
        }
        let mut theirs: Vec<(String, IpAddr)> = Vec::new();
        for entry in nix::ifaddrs::getifaddrs().unwrap() {
            let Some(address) = &entry.address else { continue };
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
            theirs.extend(ip.map(|ip| (entry.interface_name.clone(), ip)));
        }
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs);
        assert!(ours.contains(&("lo".into(), Ipv4Addr::LOCALHOST.into())));
    }

    #[test]
    fn our_interfaces_are_known_by_name_and_kind() {
        assert!(is_numbered("mesh0", "mesh") && is_numbered("mesh17", "mesh"));
        assert!(!is_numbered("mesh", "mesh") && !is_numbered("mesh-lan", "mesh") && !is_numbered("eth0", "mesh"));
    }

    #[test]
    fn messages_that_are_cut_are_no_interface_and_no_address() {
        let body = [0xff; 40];
        for length in 0..body.len() {
            for kind in [libc::RTM_NEWLINK, libc::RTM_NEWADDR] {
                let mut bytes = vec![];
                bytes.extend_from_slice(&(16 + length as u32).to_ne_bytes());
                bytes.extend_from_slice(&kind.to_ne_bytes());
                bytes.extend_from_slice(&[0; 10]);
                bytes.extend_from_slice(&body[..length]);
                let message = super::super::netlink::Messages(&bytes).next().unwrap();
                assert_eq!(read_link(&message), None);
                assert_eq!(read_address(&message), None);
                assert_eq!(read_route(&message), None);
            }
        }
    }
}
