//! Two probes on the Internet, sites with probes inside, and the words to speak of who hears whom.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use mesh_core::seam::Moment;
use mesh_sim::net::{Dependence, NatConfig, NatStatus, Ports};
use mesh_sim::world::Heard;
use mesh_sim::{Link, NodeId, Place, SiteConfig, SiteId, World};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The two remotes, each with sockets on ports 1000 and 1001.
pub(crate) const ONE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(crate) const TWO: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The outside address of the site that most tests have.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The port that hosts inside use.
pub(crate) const PORT: u16 = 5000;

/// Longer than any datagram here takes to its end.
const WAIT: Duration = Duration::from_millis(200);

pub(crate) fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((ip, port))
}

/// The same, where only IPv4 will do.
pub(crate) fn at4(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}

pub(crate) fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is no IPv4 address"),
    }
}

/// Address `last` of the LAN that sites have here.
pub(crate) fn inside(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, last)
}

/// The strictest kind with random ports, where that is what a test does not look at.
pub(crate) const STRICT: NatConfig =
    NatConfig { ports: Ports::FullyRandom, ..NatConfig::new(Dependence::AddressAndPort, Dependence::AddressAndPort) };
/// The most open kind.
pub(crate) const OPEN: NatConfig = NatConfig::new(Dependence::Nothing, Dependence::Nothing);

/// Someone heard a datagram.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) node: NodeId,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) took: Duration,
}

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) one: NodeId,
    pub(crate) two: NodeId,
    probes: Vec<NodeId>,
    heard: Vec<(NodeId, Heard)>,
    /// Makes every datagram differ.
    count: u64,
}

impl Scene {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let [one, two] = [ONE, TWO].map(|ip| world.add_probe(Place::public(ip.into(), Link::CLEAN), &[1000, 1001]));
        Self { world, one, two, probes: vec![one, two], heard: Vec::new(), count: 0 }
    }

    /// The same, with a home behind a NAT and one host in it.
    pub(crate) fn with_home(seed: u64, nat: NatConfig) -> (Self, SiteId, NodeId) {
        let mut scene = Self::new(seed);
        let home = scene.world.net.add_site(SiteConfig::home(nat, OUTSIDE));
        let host = scene.host(home, 10);
        (scene, home, host)
    }

    /// A host on address `last` of a site's LAN, with a socket on [`PORT`] and the next one.
    pub(crate) fn host(&mut self, site: SiteId, last: u8) -> NodeId {
        self.add(Place::inside(site, inside(last).into()), &[PORT, PORT + 1])
    }

    pub(crate) fn add(&mut self, place: Place, ports: &[u16]) -> NodeId {
        let node = self.world.add_probe(place, ports);
        self.probes.push(node);
        node
    }

    /// Sends a datagram; what it carries is returned.
    pub(crate) fn send(&mut self, from: NodeId, port: u16, to: SocketAddr) -> [u8; 8] {
        self.count += 1;
        let bytes = self.count.to_be_bytes();
        self.world.probe(from, port, to, &bytes);
        bytes
    }

    /// Who heard a datagram that was sent at `sent`, and where it came from.
    pub(crate) fn arrivals(&mut self, sent: Moment, bytes: &[u8]) -> Vec<Arrival> {
        for node in &self.probes {
            self.heard.extend(self.world.take_heard(*node).into_iter().map(|heard| (*node, heard)));
        }
        let heard = self.heard.extract_if(.., |(_, heard)| heard.bytes == bytes);
        let arrival =
            |(node, heard): (_, Heard)| Arrival { node, from: heard.from, to: heard.to, took: heard.at.since(sent) };
        heard.map(arrival).collect()
    }

    /// Sends a datagram and waits for it: who heard it.
    pub(crate) fn carry(&mut self, from: NodeId, port: u16, to: SocketAddr) -> Vec<Arrival> {
        let sent = self.world.now();
        let bytes = self.send(from, port, to);
        self.world.run_for(WAIT);
        self.arrivals(sent, &bytes)
    }

    /// Sends a datagram to a remote: where that sees it come from, `None` when it does not.
    pub(crate) fn seen(&mut self, from: NodeId, port: u16, to: SocketAddr) -> Option<SocketAddr> {
        let arrivals = self.carry(from, port, to);
        assert!(arrivals.len() <= 1, "one datagram was sent: {arrivals:?}");
        arrivals.first().map(|arrival| arrival.from)
    }

    /// Whether a datagram from `from` to `to` gets to `host`, and to nobody else.
    pub(crate) fn reaches(&mut self, from: NodeId, port: u16, to: SocketAddr, host: NodeId) -> bool {
        let arrivals = self.carry(from, port, to);
        assert!(arrivals.iter().all(|arrival| arrival.node == host), "it is for {host:?}: {arrivals:?}");
        assert!(arrivals.len() <= 1, "one datagram was sent: {arrivals:?}");
        !arrivals.is_empty()
    }

    pub(crate) fn nat(&mut self, site: SiteId) -> NatStatus {
        let now = self.world.now();
        self.world.net.nat_status(site, now)
    }

    /// Where a host inside a site is reached from `remote`, as the site's box has it.
    pub(crate) fn mapping(&mut self, site: SiteId, inside: SocketAddrV4, remote: SocketAddrV4) -> Option<SocketAddr> {
        let now = self.world.now();
        self.world.net.mapping(site, now, inside, remote).map(SocketAddr::V4)
    }
}

/// The address of `socket`, with another port.
pub(crate) fn port_of(address: SocketAddr, ip: Ipv4Addr) -> u16 {
    assert_eq!(address.ip(), IpAddr::V4(ip), "an address of the box");
    address.port()
}
