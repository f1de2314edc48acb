//! The sockets by which a gateway reaches the network outside.
//!
//! They are bound to no address but, where one was chosen, to an interface: an address that changes (a new lease, another Wi-Fi)
//! concerns them not. Only an interface that is made anew, or an address that was asked for and comes or goes, asks for other
//! sockets; [`Places`] says which are wanted, and whoever compares it with what there is knows when.
//!
//! Both families have one port, and keep it over restarts: what a router remembers of us, and the rules of firewalls, stay good. It is
//! derived from the gateway's key: nothing has to be written that could be lost, and the key's lock sees to it that no two gateways
//! of one machine want the same.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use mesh_core::session::PublicKey;
use socket2::{Domain, Socket, Type};

use crate::iface::{self, Interface, Outside};
use crate::imp;

/// Ports of its own that a gateway has: one after the other is tried.
const PORTS: usize = 8;

/// Our ports begin here: above those that Linux gives to whoever asks for any (32768 to 60999), so that they are free when we come back.
const FIRST_PORT: u16 = 61_000;

/// For how long the first port may be busy at the start: a killed predecessor keeps it until the kernel has torn its ring down.
const TEARDOWN: Duration = Duration::from_millis(500);
const TEARDOWN_POLL: Duration = Duration::from_millis(20);

/// Ports of the system's choice that are tried for one that both families have.
const ANY_PORT_ATTEMPTS: u32 = 8;

/// Where the socket of one family is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of the interface that it is tied to; `None`: to none.
    pub interface: Option<u32>,
    /// Its local address; unspecified: all.
    pub address: IpAddr,
}

/// Where the sockets of both families are bound; `None` for a family without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// That for IPv4.
    pub ipv4: Option<Place>,
    /// That for IPv6.
    pub ipv6: Option<Place>,
}

impl Places {
    /// Where the sockets are to be for `outside`, as the interfaces are now; `None` while its interface is not there. Where sockets
    /// `can` not `be tied` to an interface, its addresses take that part.
    pub fn wanted(outside: &Outside, interfaces: &[Interface], can_be_tied: bool) -> Option<Self> {
        let any = |interface| {
            let place = |address| Some(Place { interface, address });
            Self { ipv4: place(Ipv4Addr::UNSPECIFIED.into()), ipv6: place(Ipv6Addr::UNSPECIFIED.into()) }
        };
        let Outside::Interface { name, preferred } = outside else { return Some(any(None)) };
        let Some(interface) = interfaces.iter().find(|interface| interface.name == *name) else {
            // Where interfaces cannot be listed, an address may do all the same.
            return preferred.filter(|_| interfaces.is_empty()).map(Self::at);
        };
        let mut places = if can_be_tied {
            any(Some(interface.index))
        } else {
            let (ipv4, ipv6) = iface::usable(interface);
            let place = |address| Place { interface: None, address };
            Self { ipv4: ipv4.map(|ip| place(ip.into())), ipv6: ipv6.map(|ip| place(ip.into())) }
        };
        let there =
            |address: &IpAddr| interface.networks.iter().any(|network| network.address == *address && network.usable);
        if let Some(address) = preferred.filter(there) {
            let place = if address.is_ipv4() { &mut places.ipv4 } else { &mut places.ipv6 };
            *place = Some(Place { interface: place.and_then(|place| place.interface), address });
        }
        Some(places)
    }

    fn at(address: IpAddr) -> Self {
        let place = Some(Place { interface: None, address });
        if address.is_ipv4() { Self { ipv4: place, ipv6: None } } else { Self { ipv4: None, ipv6: place } }
    }
}

/// Whether a socket can be tied to an interface here.
pub fn can_be_tied(interface: u32) -> bool {
    let tied = Socket::new(Domain::IPV4, Type::DGRAM, None).and_then(|socket| imp::tie(&socket, false, interface));
    tied.inspect_err(|error| tracing::info!(%error, "sockets cannot be tied to an interface")).is_ok()
}

/// The ports of a gateway with this key, best first.
pub fn ports(key: &PublicKey) -> [u16; PORTS] {
    // A public key is as good as random, and there are two bytes of it for each.
    let (pairs, _) = key.as_chunks::<2>();
    std::array::from_fn(|number| FIRST_PORT + u16::from_le_bytes(pairs[number]) % (u16::MAX - FIRST_PORT + 1))
}

/// The bound sockets.
#[derive(Debug, Default)]
pub struct Bound {
    /// At most one of each family.
    pub sockets: Vec<UdpSocket>,
    /// The places for which there is a socket, or never will be one: a host may lack a family.
    pub settled: Places,
}

impl Bound {
    /// Their addresses and ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// The port of both.
    pub fn port(&self) -> Option<u16> {
        self.addresses().first().map(SocketAddr::port)
    }
}

/// Binds a socket for each family that is wanted and that the host has: on the first of `ports` that is free for both, else on one of
/// the system's choice.
///
/// # Errors
/// One line: no family could be bound.
pub fn bind(places: &Places, ports: &[u16]) -> anyhow::Result<Bound> {
    for &port in ports {
        match bind_both(places, port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other.map_err(|error| refused(places, &error)),
        }
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        match bind_both(places, 0) {
            // The port that was free for IPv4 is not for IPv6.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < ANY_PORT_ATTEMPTS => {}
            other => return other.map_err(|error| refused(places, &error)),
        }
    }
}

/// The same at the start of the program: a predecessor that was killed may hold the first port for a moment.
///
/// # Errors
/// As [`bind`].
pub fn bind_at_start(places: &Places, ports: &[u16]) -> anyhow::Result<Bound> {
    let start = Instant::now();
    while let [first, ..] = ports
        && start.elapsed() < TEARDOWN
    {
        match bind_both(places, *first) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::park_timeout(TEARDOWN_POLL),
            other => return other.map_err(|error| refused(places, &error)),
        }
    }
    bind(places, ports)
}

fn refused(places: &Places, error: &io::Error) -> anyhow::Error {
    let from: Vec<String> =
        [places.ipv4, places.ipv6].into_iter().flatten().map(|place| place.address.to_string()).collect();
    anyhow!("cannot send from {}: {error}: choose another -iface", from.join(" and "))
}

/// Binds both families to one port (0: any).
///
/// # Errors
/// `AddrInUse` when one of them cannot have the port; what the first says when neither can be bound.
fn bind_both(places: &Places, port: u16) -> io::Result<Bound> {
    let is_busy = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let mut bound = Bound { sockets: Vec::new(), settled: *places };
    let mut refused = None;
    for place in [&mut bound.settled.ipv4, &mut bound.settled.ipv6] {
        let Some(wanted) = *place else { continue };
        let port = bound.sockets.first().map_or(Ok(port), |socket| socket.local_addr().map(|own| own.port()))?;
        match bind_one(wanted, port) {
            Ok(socket) => bound.sockets.push(socket),
            Err(error) if is_busy(&error) => return Err(error),
            Err(error) => {
                // An address may come back; a family that is not there for any address does not.
                if !wanted.address.is_unspecified() {
                    *place = None;
                }
                refused = refused.or(Some(error));
            }
        }
    }
    match refused {
        Some(error) if bound.sockets.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

/// Binds so many more sockets as `place` asks for, each to a port of the system's choice; fewer when the system refuses.
pub fn bind_more(place: Place, count: usize) -> Vec<UdpSocket> {
    let refused = |error: &io::Error| tracing::info!(%error, "a socket for the search is refused");
    (0..count).map_while(|_| bind_one(place, 0).inspect_err(refused).ok()).collect()
}

fn bind_one(place: Place, port: u16) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(place.address, port);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(interface) = place.interface {
        imp::tie(&socket, address.is_ipv6(), interface)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iface::tests::machine;

    fn place(interface: Option<u32>, address: &str) -> Option<Place> {
        Some(Place { interface, address: address.parse().unwrap() })
    }

    fn by(name: &str, preferred: Option<&str>) -> Outside {
        Outside::Interface { name: name.into(), preferred: preferred.map(|address| address.parse().unwrap()) }
    }

    #[test]
    fn sockets_are_tied_to_the_interface_and_to_no_address() {
        let any = Places { ipv4: place(None, "0.0.0.0"), ipv6: place(None, "::") };
        assert_eq!(Places::wanted(&Outside::Routed, &machine(), true), Some(any));
        let ens3 = Places { ipv4: place(Some(2), "0.0.0.0"), ipv6: place(Some(2), "::") };
        assert_eq!(Places::wanted(&by("ens3", None), &machine(), true), Some(ens3));
        let mut machine = machine();
        machine[1].networks.clear();
        assert_eq!(Places::wanted(&by("ens3", None), &machine, true), Some(ens3), "addresses do not matter");
        machine[1].index = 9;
        assert_ne!(Places::wanted(&by("ens3", None), &machine, true), Some(ens3), "an interface made anew does");
        machine.remove(1);
        assert_eq!(Places::wanted(&by("ens3", None), &machine, true), None);
    }

    #[test]
    fn an_address_that_was_asked_for_is_bound_while_it_is_there() {
        let wanted = by("ens3", Some("192.168.3.2"));
        let there = Places { ipv4: place(Some(2), "192.168.3.2"), ipv6: place(Some(2), "::") };
        assert_eq!(Places::wanted(&wanted, &machine(), true), Some(there));
        let mut machine = machine();
        machine[1].networks.remove(0);
        let gone = Places { ipv4: place(Some(2), "0.0.0.0"), ipv6: place(Some(2), "::") };
        assert_eq!(Places::wanted(&wanted, &machine, true), Some(gone));
        let alone = Places { ipv4: place(None, "192.168.3.2"), ipv6: None };
        assert_eq!(Places::wanted(&wanted, &[], true), Some(alone), "nothing could be listed");
    }

    #[test]
    fn addresses_take_the_part_of_the_interface_where_sockets_cannot_be_tied() {
        let ens3 = Places { ipv4: place(None, "192.168.3.2"), ipv6: place(None, "2001:db8::2") };
        assert_eq!(Places::wanted(&by("ens3", None), &machine(), false), Some(ens3));
        let docker = Places { ipv4: place(None, "172.17.0.1"), ipv6: None };
        assert_eq!(Places::wanted(&by("docker0", None), &machine(), false), Some(docker));
    }

    #[test]
    fn ports_belong_to_the_key() {
        let key: PublicKey = std::array::from_fn(|byte| (byte as u8).wrapping_mul(37));
        let (first, again) = (ports(&key), ports(&key));
        assert_eq!(first, again);
        assert_ne!(first, ports(&[8; 32]));
        assert!(first.iter().all(|port| *port >= FIRST_PORT));
        // All of the range is used.
        assert_eq!(ports(&[0xff; 32])[0], FIRST_PORT + 65_535 % 4_536);
        assert_eq!(ports(&[0; 32])[0], FIRST_PORT);
    }

    #[test]
    fn both_families_have_one_port_and_keep_it() {
        let any = Places::wanted(&Outside::Routed, &[], true).unwrap();
        let key: PublicKey = rand::random();
        let bound = bind(&any, &ports(&key)).unwrap();
        let port = bound.port().unwrap();
        assert!(ports(&key).contains(&port));
        assert_eq!(bound.settled, any);
        assert!(bound.addresses().iter().all(|address| address.port() == port), "{bound:?}");
        drop(bound);
        assert_eq!(bind(&any, &[port]).unwrap().port(), Some(port));
    }

    #[test]
    fn more_sockets_have_ports_of_their_own() {
        let any = Places::wanted(&Outside::Routed, &[], true).unwrap();
        let sockets = bind_more(any.ipv4.unwrap(), 40);
        let ports: std::collections::BTreeSet<u16> =
            sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!((sockets.len(), ports.len()), (40, 40));
        assert_eq!(bind_more(place(None, "192.0.2.77").unwrap(), 3).len(), 0, "an address that nobody has");
    }

    #[test]
    fn a_busy_port_gives_way_to_the_next_for_both_families() {
        let any = Places::wanted(&Outside::Routed, &[], true).unwrap();
        let Ok(busy) = UdpSocket::bind("[::]:0") else { return };
        let taken = busy.local_addr().unwrap().port();
        let bound = bind(&any, &[taken]).unwrap();
        let addresses = bound.addresses();
        assert_eq!(addresses.len(), 2);
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port() && address.port() != taken));
    }

    #[test]
    fn a_predecessor_is_waited_for() {
        let any = Places::wanted(&Outside::Routed, &[], true).unwrap();
        let predecessor = bind(&any, &[]).unwrap();
        let port = predecessor.port().unwrap();
        let ends = thread::spawn(move || {
            thread::park_timeout(TEARDOWN_POLL * 3);
            drop(predecessor);
        });
        assert_eq!(bind_at_start(&any, &[port]).unwrap().port(), Some(port));
        ends.join().unwrap();
    }

    #[test]
    fn an_address_that_is_not_there_now_is_not_settled() {
        let places = Places { ipv4: place(None, "127.0.0.1"), ipv6: place(None, "2001:db8::77") };
        let bound = bind(&places, &[]).unwrap();
        assert_eq!(bound.settled, Places { ipv4: place(None, "127.0.0.1"), ipv6: None });
        assert_eq!(bound.sockets.len(), 1);
    }

    #[test]
    fn an_address_that_nobody_has_is_named() {
        let why = bind(&Places::at("192.0.2.77".parse().unwrap()), &[]).unwrap_err().to_string();
        assert!(why.starts_with("cannot send from 192.0.2.77: ") && why.ends_with("choose another -iface"), "{why}");
    }
}
