//! The machine's network interfaces: which one the gateway sends by, and whether the virtual network is in the way of one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use serde::Serialize;

/// An interface with its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
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
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// All interfaces that have addresses.
#[cfg(target_os = "linux")]
pub fn list() -> std::io::Result<Vec<Interface>> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for entry in nix::ifaddrs::getifaddrs()? {
        let ip = |address: Option<&nix::sys::socket::SockaddrStorage>| -> Option<IpAddr> {
            let address = address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        };
        let Some(address) = ip(entry.address.as_ref()) else { continue };
        let prefix = match ip(entry.netmask.as_ref()) {
            Some(IpAddr::V4(mask)) => mask.to_bits().leading_ones(),
            Some(IpAddr::V6(mask)) => mask.to_bits().leading_ones(),
            None => {
                if address.is_ipv4() {
                    32
                } else {
                    128
                }
            }
        };
        let network = Network { address, prefix: u8::try_from(prefix).expect("at most 128") };
        match interfaces.iter_mut().find(|interface| interface.name == entry.interface_name) {
            Some(interface) => interface.networks.push(network),
            None => interfaces.push(Interface { name: entry.interface_name, networks: vec![network] }),
        }
    }
    Ok(interfaces)
}

/// Windows: interfaces are not listed; an address serves as `-iface`.
#[cfg(windows)]
pub fn list() -> std::io::Result<Vec<Interface>> {
    Ok(Vec::new())
}

/// What the gateway sends by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// One interface, by its addresses.
    Interface {
        /// Its name.
        name: String,
        /// Its first IPv4 address, or the one asked for.
        ipv4: Option<Ipv4Addr>,
        /// Its first IPv6 address that reaches beyond the link, or the one asked for.
        ipv6: Option<Ipv6Addr>,
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
        let mut holders = interfaces.iter();
        let holder = holders.find(|interface| interface.networks.iter().any(|network| network.address == address));
        let (name, others) = match holder {
            Some(interface) => (interface.name.clone(), usable(interface)),
            // No list to look it up in: binding to it will tell.
            None if interfaces.is_empty() => (wanted.to_owned(), (None, None)),
            None => return Err(format!("-iface {wanted}: no interface has this address: {}", offer(interfaces))),
        };
        return Ok(match address {
            IpAddr::V4(ipv4) => Outside::Interface { name, ipv4: Some(ipv4), ipv6: others.1 },
            IpAddr::V6(ipv6) => Outside::Interface { name, ipv4: others.0, ipv6: Some(ipv6) },
        });
    }
    match interfaces.iter().find(|interface| interface.name == wanted).map(usable) {
        Some((ipv4, ipv6)) if ipv4.is_some() || ipv6.is_some() => {
            Ok(Outside::Interface { name: wanted.to_owned(), ipv4, ipv6 })
        }
        _ if !given => Ok(Outside::Routed),
        Some(_) => Err(format!("-iface {wanted}: the interface has no address to send from: {}", offer(interfaces))),
        None => Err(format!("-iface {wanted}: no such interface with an address: {}", offer(interfaces))),
    }
}

fn usable(interface: &Interface) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let mut ipv4 = interface.networks.iter().filter_map(|network| match network.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let mut ipv6 = interface.networks.iter().filter_map(|network| match network.address {
        IpAddr::V6(address) if !address.is_unicast_link_local() => Some(address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    (ipv4.next(), ipv6.next())
}

/// What could be given instead.
fn offer(interfaces: &[Interface]) -> String {
    let usable = interfaces.iter().filter(|interface| !is_loopback(interface) && usable(interface) != (None, None));
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

fn is_loopback(interface: &Interface) -> bool {
    interface.networks.iter().any(|network| network.address.is_loopback())
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

/// How datagrams leave that are tied to no interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The interface, where it could be found out.
    pub interface: Option<String>,
    /// The address they have there.
    pub address: IpAddr,
}

/// What the routing table sends by to `remote`; `None` if nothing leads there. Nothing is sent to find out.
pub fn route_to(remote: SocketAddr) -> Option<Route> {
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    let address = socket.local_addr().ok()?.ip();
    Some(Route { interface: holder(&list().unwrap_or_default(), address), address })
}

/// The name of the interface that has an address.
fn holder(interfaces: &[Interface], address: IpAddr) -> Option<String> {
    let holds = |interface: &&Interface| interface.networks.iter().any(|network| network.address == address);
    interfaces.iter().find(holds).map(|interface| interface.name.clone())
}

/// Whether the host can be asked at several addresses of one family: then answers must leave from the one that was asked.
pub fn has_several_addresses(interfaces: &[Interface]) -> bool {
    let count = |is_family: fn(&IpAddr) -> bool| {
        let addresses =
            interfaces.iter().filter(|interface| !is_loopback(interface)).flat_map(|interface| &interface.networks);
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
mod tests {
    use super::*;

    fn machine() -> Vec<Interface> {
        let interface = |name: &str, networks: &[(&str, u8)]| Interface {
            name: name.into(),
            networks: networks
                .iter()
                .map(|(address, prefix)| Network { address: address.parse().unwrap(), prefix: *prefix })
                .collect(),
        };
        vec![
            interface("lo", &[("127.0.0.1", 8), ("::1", 128)]),
            interface("ens3", &[("192.168.3.2", 24), ("fe80::1", 64), ("2001:db8::2", 64)]),
            interface("docker0", &[("172.17.0.1", 16)]),
            interface("wlan0", &[("fe80::2", 64)]),
        ]
    }

    #[test]
    fn an_interface_is_found_by_name_and_by_address() {
        let ens3 = Outside::Interface {
            name: "ens3".into(),
            ipv4: Some(Ipv4Addr::new(192, 168, 3, 2)),
            ipv6: Some("2001:db8::2".parse().unwrap()),
        };
        for wanted in ["ens3", "192.168.3.2", "2001:db8::2"] {
            assert_eq!(choose(&machine(), wanted, true).as_ref(), Ok(&ens3), "{wanted}");
        }
    }

    #[test]
    fn only_the_default_may_be_missing() {
        assert_eq!(choose(&machine(), "eth0", false), Ok(Outside::Routed));
        for wanted in ["eth0", "wlan0", "10.0.0.1"] {
            let why = choose(&machine(), wanted, true).unwrap_err();
            assert!(
                why.contains(wanted) && why.ends_with("give one of ens3 (192.168.3.2), docker0 (172.17.0.1)"),
                "{why}"
            );
        }
    }

    #[test]
    fn an_overlap_is_named() {
        let named = |ip: &str, prefix| {
            overlap(&machine(), ip.parse().unwrap(), prefix).map(|(interface, _)| interface.name.clone())
        };
        assert_eq!(named("172.168.0.1", 16), None);
        assert_eq!(named("172.17.3.1", 24).as_deref(), Some("docker0"));
        assert_eq!(named("172.16.0.1", 12).as_deref(), Some("docker0"));
        assert_eq!(named("192.168.0.1", 16).as_deref(), Some("ens3"));
        assert_eq!(named("192.168.4.1", 24), None);
    }

    #[test]
    fn public_space_is_known() {
        for (ip, public) in [
            ("172.168.0.1", true),
            ("172.31.0.1", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("192.168.1.1", false),
            ("11.0.0.1", true),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }

    #[test]
    fn several_addresses_are_counted_by_family() {
        let mut machine = machine();
        assert!(has_several_addresses(&machine));
        machine.retain(|interface| interface.name != "docker0");
        assert!(!has_several_addresses(&machine));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_a_loopback_and_a_route_to_itself() {
        let interfaces = list().unwrap();
        assert!(interfaces.iter().any(is_loopback), "{interfaces:?}");
        let address = IpAddr::from([127, 0, 0, 1]);
        let route = Route { interface: Some("lo".into()), address };
        assert_eq!(route_to("127.0.0.7:9".parse().unwrap()), Some(route));
    }

    #[test]
    fn the_holder_of_an_address_is_named() {
        assert_eq!(holder(&machine(), "2001:db8::2".parse().unwrap()).as_deref(), Some("ens3"));
        assert_eq!(holder(&machine(), "10.9.9.9".parse().unwrap()), None);
    }
}
