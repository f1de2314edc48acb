//! The sockets by which gateways of one local network hear of each other.
//!
//! All gateways of a machine share the port that beacons arrive at, one socket for each family. Each interface has sockets of its own to send
//! by, because the engines know no other way to choose one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use mesh_core::gateway::{BEACON_GROUP_IPV4, BEACON_GROUP_IPV6, BEACON_PORT};
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};

use crate::iface::watch::Snapshot;
use crate::iface::{Interface, Outside};
use crate::imp;

/// Interfaces with beacons, at most. Linux lets a socket be a member of 20 groups.
pub const LANES_MAX: usize = 16;

/// Sockets that are open at most: two that hear, two for each interface.
pub const SOCKETS_MAX: usize = 2 + 2 * LANES_MAX;

/// An interface with beacons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Its number.
    pub interface: u32,
    /// The address that IPv4 multicasts leave from; `None`: there is no IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// Whether there is IPv6.
    pub ipv6: bool,
    /// The broadcast addresses of its IPv4 networks.
    pub broadcasts: Vec<Ipv4Addr>,
}

/// The interfaces that are to have beacons: the chosen one, or all that are up and take multicasts; none of a virtual network of ours.
/// Those by which the machine reaches the Internet come first.
pub fn lanes(outside: &Outside, snapshot: &Snapshot) -> Vec<Lane> {
    let chosen = outside.interface(&snapshot.interfaces);
    let is_chosen = |interface: &&Interface| match outside {
        Outside::Interface { .. } => chosen == Some(*interface),
        Outside::Routed => !interface.loopback,
    };
    let ways: Vec<u32> = [snapshot.ipv4, snapshot.ipv6].into_iter().flatten().map(|route| route.interface).collect();
    let suits = |interface: &&Interface| interface.up && interface.multicast && !interface.ours;
    let mut interfaces: Vec<&Interface> = snapshot.interfaces.iter().filter(is_chosen).filter(suits).collect();
    interfaces.sort_by_key(|interface| !ways.contains(&interface.index));
    interfaces.into_iter().filter_map(lane).take(LANES_MAX).collect()
}

fn lane(interface: &Interface) -> Option<Lane> {
    // Addresses of the link do as well: beacons do not leave it.
    let mut lane = Lane { interface: interface.index, ipv4: None, ipv6: false, broadcasts: Vec::new() };
    for network in interface.networks.iter().filter(|network| network.usable) {
        match network.address {
            IpAddr::V4(address) => {
                lane.ipv4.get_or_insert(address);
                lane.broadcasts.extend(network.broadcast.filter(|broadcast| !lane.broadcasts.contains(broadcast)));
            }
            IpAddr::V6(_) => lane.ipv6 = true,
        }
    }
    lane.broadcasts.truncate(BROADCASTS_MAX);
    (lane.ipv4.is_some() || lane.ipv6).then_some(lane)
}

/// Broadcast addresses of one interface that are sent to, at most.
const BROADCASTS_MAX: usize = 4;

/// A socket that sends beacons by one interface.
#[derive(Debug)]
pub struct Sending {
    /// The socket.
    pub socket: UdpSocket,
    /// The number of the interface.
    pub interface: u32,
    /// Where it sends them.
    pub to: Vec<SocketAddr>,
}

/// The bound sockets.
#[derive(Debug, Default)]
pub struct Opened {
    /// Those that hear beacons: at most one of each family.
    pub hearing: Vec<UdpSocket>,
    /// Those that send them.
    pub sending: Vec<Sending>,
    /// Why a family has none: another program has the port for itself.
    pub refused: Option<io::Error>,
}

/// Opens the sockets for these interfaces. Without one that hears in a family, none sends in it.
pub fn open(lanes: &[Lane], outside: &Outside) -> Opened {
    let mut opened = Opened::default();
    // Of a chosen interface only its own beacons are heard, broadcasts too.
    let tied = match (outside, lanes) {
        (Outside::Interface { .. }, [lane]) => Some(lane.interface),
        _ => None,
    };
    let with = |v6: bool| lanes.iter().filter(move |lane| if v6 { lane.ipv6 } else { lane.ipv4.is_some() });
    for v6 in [false, true] {
        if with(v6).next().is_none() {
            continue;
        }
        match hear(v6, with(v6), tied) {
            Ok(socket) => opened.hearing.push(socket),
            Err(error) => {
                opened.refused = opened.refused.or(Some(error));
                continue;
            }
        }
        for lane in with(v6) {
            match send(v6, lane) {
                Ok(socket) => opened.sending.push(Sending {
                    socket,
                    interface: lane.interface,
                    to: if v6 { lane.ipv6_destinations() } else { lane.ipv4_destinations() },
                }),
                // It has gone since it was listed: there will be word of that.
                Err(error) => tracing::info!(interface = lane.interface, %error, "no beacons by an interface"),
            }
        }
    }
    opened
}

impl Lane {
    fn ipv4_destinations(&self) -> Vec<SocketAddr> {
        let all = [BEACON_GROUP_IPV4].into_iter().chain(self.broadcasts.iter().copied());
        all.map(|to| (to, BEACON_PORT).into()).collect()
    }

    fn ipv6_destinations(&self) -> Vec<SocketAddr> {
        vec![SocketAddrV6::new(BEACON_GROUP_IPV6, BEACON_PORT, 0, self.interface).into()]
    }
}

/// A socket at the port of beacons, in their group on each of the interfaces.
fn hear<'a>(v6: bool, lanes: impl Iterator<Item = &'a Lane>, tied: Option<u32>) -> io::Result<UdpSocket> {
    let socket = fresh(v6)?;
    // Several gateways of this machine hear beacons, and each hears all.
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    if v6 {
        // Not what other programs asked for on other interfaces. (Linux 4.20.)
        socket.set_multicast_all_v6(false).or_else(|error| tolerate(error, libc::ENOPROTOOPT))?;
    } else {
        socket.set_multicast_all_v4(false)?;
    }
    if let Some(interface) = tied {
        imp::tie(&socket, v6, interface)?;
    }
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    socket.bind(&SocketAddr::new(any, BEACON_PORT).into())?;
    for lane in lanes {
        let joined = if v6 {
            socket.join_multicast_v6(&BEACON_GROUP_IPV6, lane.interface)
        } else {
            socket.join_multicast_v4_n(&BEACON_GROUP_IPV4, &InterfaceIndexOrAddress::Index(lane.interface))
        };
        if let Err(error) = joined {
            tracing::info!(interface = lane.interface, %error, "no beacons are heard by an interface");
        }
    }
    Ok(socket.into())
}

/// A socket that sends by one interface, to no router's other side.
fn send(v6: bool, lane: &Lane) -> io::Result<UdpSocket> {
    let socket = fresh(v6)?;
    imp::tie(&socket, v6, lane.interface)?;
    let any: IpAddr = if v6 {
        socket.set_multicast_if_v6(lane.interface)?;
        socket.set_multicast_hops_v6(1)?;
        socket.set_multicast_loop_v6(true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        if let Some(address) = lane.ipv4 {
            socket.set_multicast_if_v4(&address)?;
        }
        socket.set_multicast_ttl_v4(1)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_broadcast(true)?;
        Ipv4Addr::UNSPECIFIED.into()
    };
    socket.bind(&SocketAddr::new(any, 0).into())?;
    Ok(socket.into())
}

fn fresh(v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(if v6 { Domain::IPV6 } else { Domain::IPV4 }, Type::DGRAM, None)?;
    if v6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Takes one kind of error for none.
#[cfg(target_os = "linux")]
fn tolerate(error: io::Error, number: i32) -> io::Result<()> {
    if error.raw_os_error() == Some(number) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iface::tests::{interface, machine};
    use crate::iface::watch::DefaultRoute;

    fn snapshot() -> Snapshot {
        let mut interfaces = machine();
        interfaces.push(interface(5, "mesh0", &["172.168.3.1/16"]));
        interfaces[1].networks[0].broadcast = Some([192, 168, 3, 255].into());
        interfaces[2].up = false;
        Snapshot { interfaces, ipv4: None, ipv6: None }
    }

    fn by(name: &str) -> Outside {
        Outside::Interface { name: name.into(), preferred: None }
    }

    #[test]
    fn interfaces_that_are_up_and_not_ours_have_beacons() {
        let ens3 = Lane {
            interface: 2,
            ipv4: Some([192, 168, 3, 2].into()),
            ipv6: true,
            broadcasts: vec![[192, 168, 3, 255].into()],
        };
        let wlan0 = Lane { interface: 4, ipv4: None, ipv6: true, broadcasts: vec![] };
        assert_eq!(lanes(&Outside::Routed, &snapshot()), [ens3.clone(), wlan0.clone()]);
        assert_eq!(lanes(&by("wlan0"), &snapshot()), std::slice::from_ref(&wlan0));
        assert_eq!(lanes(&by("docker0"), &snapshot()), [], "it is down");
        assert_eq!(lanes(&by("eth7"), &snapshot()), [], "it is not there");
        let mut snapshot = snapshot();
        snapshot.ipv6 = Some(DefaultRoute { interface: 4, router: None, source: None });
        assert_eq!(lanes(&Outside::Routed, &snapshot), [wlan0, ens3], "the way out first");
        for interface in &mut snapshot.interfaces {
            interface.multicast = false;
        }
        assert_eq!(lanes(&Outside::Routed, &snapshot), []);
    }

    #[test]
    fn a_machine_with_many_interfaces_has_sixteen_with_beacons() {
        let mut snapshot = snapshot();
        for index in 10..60 {
            snapshot.interfaces.push(interface(index, &format!("veth{index}"), &["10.0.0.1/24"]));
        }
        assert_eq!(lanes(&Outside::Routed, &snapshot).len(), LANES_MAX);
    }

    #[test]
    fn a_beacon_goes_to_the_group_and_to_each_network() {
        let broadcasts = vec![[10, 0, 0, 255].into(), [10, 0, 1, 255].into()];
        let lane = Lane { interface: 7, ipv4: Some([10, 0, 0, 1].into()), ipv6: true, broadcasts };
        let shown: Vec<String> = lane.ipv4_destinations().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["239.255.77.77:48021", "10.0.0.255:48021", "10.0.1.255:48021"]);
        assert_eq!(lane.ipv6_destinations()[0].to_string(), "[ff02::4d45:5348%7]:48021");
    }
}
