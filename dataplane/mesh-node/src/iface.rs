//! The machine's network interfaces: which one the gateway sends by, and whether the virtual network is in the way of one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;
use socket2::{Domain, Socket, Type};

pub mod candidates;
pub mod watch;

#[cfg(target_os = "linux")]
#[path = "iface/linux.rs"]
mod imp;
#[cfg(windows)]
#[path = "iface/windows.rs"]
mod imp;
#[cfg(target_os = "linux")]
mod netlink;

/// The virtual interfaces of gateways are called so, with a number.
pub const OURS_PREFIX: &str = "mesh";

/// An interface with its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number, which no other interface has while it is there. One that is made anew has another.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is switched on and has a carrier.
    pub up: bool,
    /// Whether it leads to this machine only.
    pub loopback: bool,
    /// Whether it takes multicasts.
    pub multicast: bool,
    /// Whether it is the virtual interface of a gateway, this one or another.
    pub ours: bool,
    /// The longest IP packet that it sends, in bytes; `None`: not known.
    pub mtu: Option<u32>,
    /// Its addresses, in the system's order.
    pub networks: Vec<Network>,
}

/// An address with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The interface's address.
    pub address: IpAddr,
    /// In bits.
    pub prefix: u8,
    /// The address by which all of the network are reached, where it has one.
    pub broadcast: Option<Ipv4Addr>,
    /// Whether anything may be sent from it: an IPv6 address is tried first whether another machine has it.
    pub usable: bool,
    /// Whether it goes soon: nothing new begins with it.
    pub deprecated: bool,
    /// Whether it is one of those that change every day, so that nobody knows the machine by it.
    pub temporary: bool,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Sets into how many segments at most a packet of an interface may be cut, and how many packets wait in it.
///
/// # Errors
/// What the kernel says.
#[cfg(target_os = "linux")]
pub fn set_limits(name: &str, segments: u32, queue: u32) -> std::io::Result<()> {
    imp::set_limits(name, segments, queue)
}

/// All interfaces, those without addresses too.
///
/// # Errors
/// The system does not tell.
pub fn list() -> std::io::Result<Vec<Interface>> {
    imp::list()
}

/// What the gateway sends by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// One interface, whatever addresses it has.
    Interface {
        /// Its name.
        name: String,
        /// The address that was asked for: sent from while the interface has it.
        preferred: Option<IpAddr>,
    },
    /// Whatever the routing table says for each destination.
    Routed,
}

/// Finds `wanted` (a name or an address). One that nobody asked for by name (`given` is false) may be missing.
///
/// # Errors
/// One line that names what there is.
pub fn choose(interfaces: &[Interface], wanted: &str, given: bool) -> Result<Outside, String> {
    if let Ok(address) = wanted.parse::<IpAddr>() {
        let holder = interfaces.iter().find(|interface| interface.has(address));
        let name = match holder {
            Some(interface) => interface.name.clone(),
            // No list to look it up in: binding to it will tell.
            None if interfaces.is_empty() => wanted.to_owned(),
            None => return Err(format!("-iface {wanted}: no interface has this address: {}", offer(interfaces))),
        };
        return Ok(Outside::Interface { name, preferred: Some(address) });
    }
    match interfaces.iter().find(|interface| interface.name == wanted).map(usable) {
        Some((ipv4, ipv6)) if ipv4.is_some() || ipv6.is_some() => {
            Ok(Outside::Interface { name: wanted.to_owned(), preferred: None })
        }
        _ if !given => Ok(Outside::Routed),
        Some(_) => Err(format!("-iface {wanted}: the interface has no address to send from: {}", offer(interfaces))),
        None => Err(format!("-iface {wanted}: no such interface with an address: {}", offer(interfaces))),
    }
}

impl Outside {
    /// The interface that was chosen, if one was and it is there.
    pub fn interface<'a>(&self, interfaces: &'a [Interface]) -> Option<&'a Interface> {
        match self {
            Self::Interface { name, .. } => interfaces.iter().find(|interface| interface.name == *name),
            Self::Routed => None,
        }
    }
}

impl Interface {
    /// Whether this is one of its addresses.
    pub fn has(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.address == address)
    }
}

/// The addresses of an interface that what it sends comes from, by family, as far as they reach beyond the link.
pub fn usable(interface: &Interface) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let mut networks: Vec<&Network> = interface.networks.iter().filter(|network| network.usable).collect();
    // The system takes one that is going only if there is no other.
    networks.sort_by_key(|network| network.deprecated);
    let ipv4 = networks.iter().find_map(|network| match network.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let ipv6 = networks.iter().find_map(|network| match network.address {
        IpAddr::V6(address) if !address.is_unicast_link_local() => Some(address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    (ipv4, ipv6)
}

/// What could be given instead.
fn offer(interfaces: &[Interface]) -> String {
    let usable = interfaces.iter().filter(|interface| !interface.loopback && usable(interface) != (None, None));
    let names: Vec<String> = usable
        .map(|interface| {
            interface
                .networks
                .first()
                .map_or_else(|| interface.name.clone(), |network| format!("{} ({})", interface.name, network.address))
        })
        .collect();
    if names.is_empty() { "give the address of one".into() } else { format!("give one of {}", names.join(", ")) }
}

/// The first interface whose IPv4 network shares addresses with the virtual one.
pub fn overlap(interfaces: &[Interface], ip: Ipv4Addr, prefix: u8) -> Option<(&Interface, Network)> {
    interfaces.iter().find_map(|interface| {
        let shares = |network: &&Network| match network.address {
            // A default route's /0 on a point-to-point link names no network.
            IpAddr::V4(theirs) => {
                network.prefix > 0 && {
                    let bits = u32::from(prefix.min(network.prefix)).min(32);
                    (ip.to_bits() ^ theirs.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
                }
            }
            IpAddr::V6(_) => false,
        };
        interface.networks.iter().find(shares).map(|network| (interface, *network))
    })
}

/// How datagrams leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The interface, where it could be found out.
    pub interface: Option<String>,
    /// The address they have there.
    pub address: IpAddr,
}

/// What the routing table sends by to `remote`; `None` if nothing leads there. Nothing is sent to find out.
pub fn route_to(remote: SocketAddr) -> Option<Route> {
    let address = source_to(remote, None, None)?;
    Some(Route { interface: holder(&list().unwrap_or_default(), address), address })
}

/// What sockets that are bound as `outside` says send by to `remote`; `None` if nothing leads there.
pub fn route_by(outside: &Outside, remote: SocketAddr) -> Option<Route> {
    let Outside::Interface { name, preferred } = outside else { return route_to(remote) };
    let interfaces = list().unwrap_or_default();
    let interface = outside.interface(&interfaces)?;
    let preferred = preferred.filter(|address| address.is_ipv4() == remote.is_ipv4() && interface.has(*address));
    let address = source_to(remote, Some(interface.index), preferred)?;
    Some(Route { interface: Some(name.clone()), address })
}

/// The address that the system chooses for datagrams to `remote`, which leave by this interface.
fn source_to(remote: SocketAddr, interface: Option<u32>, bound: Option<IpAddr>) -> Option<IpAddr> {
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, None).ok()?;
    if let Some(interface) = interface {
        crate::imp::tie(&socket, remote.is_ipv6(), interface).ok()?;
    }
    socket.bind(&SocketAddr::new(bound.unwrap_or(any), 0).into()).ok()?;
    socket.connect(&remote.into()).ok()?;
    Some(socket.local_addr().ok()?.as_socket()?.ip())
}

/// The name of the interface that has an address.
fn holder(interfaces: &[Interface], address: IpAddr) -> Option<String> {
    interfaces.iter().find(|interface| interface.has(address)).map(|interface| interface.name.clone())
}

/// Whether the host can be asked at several addresses of one family: then answers must leave from the one that was asked.
pub fn has_several_addresses(interfaces: &[Interface]) -> bool {
    let count = |is_family: fn(&IpAddr) -> bool| {
        let addresses =
            interfaces.iter().filter(|interface| !interface.loopback).flat_map(|interface| &interface.networks);
        let reachable =
            |address: &&IpAddr| is_family(address) && !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        addresses.map(|network| &network.address).filter(reachable).count()
    };
    count(IpAddr::is_ipv4) > 1 || count(IpAddr::is_ipv6) > 1
}

/// Whether addresses of this network belong to someone on the Internet.
pub fn is_public(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    let shared = first == 100 && (64..128).contains(&second);
    let benchmarks = first == 198 && (18..20).contains(&second);
    !(ip.is_private() || ip.is_link_local() || shared || benchmarks || ip.is_documentation())
}

#[cfg(test)]
pub(crate) mod tests;
