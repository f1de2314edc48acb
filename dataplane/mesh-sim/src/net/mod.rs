//! What lies between the hosts: the Internet, sites with their boxes and local networks, and what each does to a
//! datagram.
//!
//! A datagram leaves its host, crosses the network it is on, and comes to another host there or to a box; the box looks
//! at it at that moment, and it goes on from there. So the order of what passes a box is the order in time, and a way
//! is found with what is known where the datagram is. Nothing is ever told of one that is lost.
//!
//! - `points.rs`: who is attached to what; `carry.rs`: how a datagram finds its way;
//! - `nat.rs`, `ports.rs`: translation; `firewall.rs`: guarding without it; `site.rs`: the box that does either;
//! - `lan.rs`: who hears whom inside a site; `path.rs`: pairs of points with a way of their own;
//! - `link.rs`: delay, loss and what else a way does.

mod address;
mod carry;
mod firewall;
mod lan;
mod link;
mod nat;
mod path;
mod points;
mod ports;
mod site;
mod timeouts;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use mesh_core::seam::Moment;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

pub use self::firewall::FirewallConfig;
pub use self::link::Link;
pub use self::nat::{Dependence, Hairpin, NatConfig, NatStatus};
pub use self::points::{Net, NodeId, Place, Point, SiteId};
pub use self::ports::Ports;
pub use self::site::SiteConfig;
pub use self::timeouts::Timeouts;

pub(crate) use self::carry::{Datagram, Hop, Travel};

use self::nat::Nat;
use self::path::Paths;
use self::site::Site;

struct Host {
    place: Place,
    /// Whether it is there and its interface is up.
    up: bool,
}

/// All that is between hosts. Its randomness is its own: what it draws changes no key of a machine.
pub struct Network {
    rng: ChaCha12Rng,
    hosts: Vec<Host>,
    sites: Vec<Site>,
    /// Who has an address in a network, or leads to it.
    routes: BTreeMap<(Net, IpAddr), Point>,
    paths: Paths,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        // The world draws from the first stream.
        rng.set_stream(1);
        Self { rng, hosts: Vec::new(), sites: Vec::new(), routes: BTreeMap::new(), paths: Paths::default() }
    }

    /// Adds a site.
    ///
    /// # Panics
    /// When an outside address is taken, or is private and the box on the Internet; when the inside prefix is longer
    /// than 30 bits; when the NAT has no outside address or its behaviours contradict each other, see [`NatConfig`].
    pub fn add_site(&mut self, config: SiteConfig) -> SiteId {
        let id = SiteId(self.sites.len());
        let site = Site::new(config, &mut self.rng);
        self.sites.push(site);
        let box_ip4 = IpAddr::V4(self.sites[id.0].lan.box_ip4);
        self.routes.insert((Net::Lan(id), box_ip4), Point::Site(id));
        self.announce_pool(id);
        id
    }

    /// Changes the link of a site's box to the network outside.
    pub fn set_uplink(&mut self, site: SiteId, link: Link) {
        self.sites[site.0].link = link;
    }

    /// Changes the quality of the local network inside a site.
    pub fn set_lan(&mut self, site: SiteId, link: Link) {
        self.sites[site.0].lan.link = link;
    }

    /// Lets a site's box pass no UDP, in neither direction, or lets it pass again. What stays inside is not concerned.
    pub fn set_udp_blocked(&mut self, site: SiteId, blocked: bool) {
        self.sites[site.0].udp_blocked = blocked;
    }

    /// Gives the way across the Internet between two points, in both directions, a quality of its own instead of that
    /// of their links. Their links still count where they are down, or carry only shorter packets. A point inside a
    /// site stands for the outermost box that it is behind at the time of this call; between two points behind the same
    /// box nothing changes.
    pub fn set_path(&mut self, one: impl Into<Point>, other: impl Into<Point>, quality: Link) {
        let (one, other) = (one.into(), other.into());
        self.set_path_one_way(one, other, quality);
        self.set_path_one_way(other, one, quality);
    }

    /// The same in one direction.
    pub fn set_path_one_way(&mut self, from: impl Into<Point>, to: impl Into<Point>, quality: Link) {
        let (from, to) = (self.outermost(from.into()), self.outermost(to.into()));
        self.paths.set(from, to, Some(quality));
    }

    /// Gives the way between two points the quality of their links again.
    pub fn clear_path(&mut self, one: impl Into<Point>, other: impl Into<Point>) {
        let (one, other) = (self.outermost(one.into()), self.outermost(other.into()));
        self.paths.set(one, other, None);
        self.paths.set(other, one, None);
    }

    /// Blocks the way across the Internet from one point to another, or opens it again; the way back is not concerned.
    /// Points inside sites count as in [`Network::set_path`].
    pub fn set_blocked(&mut self, from: impl Into<Point>, to: impl Into<Point>, blocked: bool) {
        let (from, to) = (self.outermost(from.into()), self.outermost(to.into()));
        self.paths.set_blocked(from, to, blocked);
    }

    /// Lets a site's box forget all mappings and flows, as at a restart. Ports may be given again: where they are
    /// preserved, the next datagram out brings back the mapping that was.
    pub fn flush(&mut self, site: SiteId) {
        self.forget(site, Nat::flush);
    }

    /// The same, and none of the outside addresses and ports that mappings have is given again until the next flush or
    /// rebinding: every inside host finds itself at another one.
    pub fn rebind(&mut self, site: SiteId) {
        self.forget(site, Nat::rebind);
    }

    fn forget(&mut self, site: SiteId, how: fn(&mut Nat)) {
        let site = &mut self.sites[site.0];
        if let Some(nat) = &mut site.nat {
            how(nat);
        }
        if let Some(firewall) = &mut site.firewall {
            firewall.flush();
        }
    }

    /// Gives a site's box other outside addresses; its NAT forgets everything.
    ///
    /// # Panics
    /// When it has no NAT, or as [`Network::add_site`] does.
    pub fn set_outside(&mut self, site: SiteId, pool: Vec<Ipv4Addr>) {
        self.withdraw_pool(site);
        self.sites[site.0].nat.as_mut().expect("a box without NAT has no outside addresses").set_pool(pool);
        self.announce_pool(site);
    }

    /// How full a site's NAT is, and was at most.
    ///
    /// # Panics
    /// When it has none.
    pub fn nat_status(&mut self, site: SiteId, now: Moment) -> NatStatus {
        self.sites[site.0].nat.as_mut().expect("a NAT").status(now)
    }

    /// The outside address and port that an inside one has for `remote`, if it has.
    ///
    /// # Panics
    /// When the site has no NAT.
    pub fn mapping(
        &mut self,
        site: SiteId,
        now: Moment,
        inside: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> Option<SocketAddrV4> {
        self.sites[site.0].nat.as_mut().expect("a NAT").find(now, inside, remote)
    }

    /// Flows that a site's firewall remembers; none where there is no firewall.
    pub fn firewall_entries(&mut self, site: SiteId, now: Moment) -> usize {
        self.sites[site.0].firewall.as_mut().map_or(0, |firewall| firewall.entries(now))
    }

    /// Where a node is attached; its addresses count while it is up.
    pub fn place(&self, node: NodeId) -> &Place {
        &self.hosts[node.0].place
    }

    pub(crate) fn set_link(&mut self, node: NodeId, link: Link) {
        self.hosts[node.0].place.link = link;
    }

    /// Adds the next node's host.
    pub(crate) fn add_host(&mut self, place: Place) -> NodeId {
        let id = NodeId(self.hosts.len());
        self.hosts.push(Host { place, up: false });
        self.set_up(id, true);
        id
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.hosts[node.0].up
    }

    pub(crate) fn set_up(&mut self, node: NodeId, up: bool) {
        let Host { place, up: was } = &mut self.hosts[node.0];
        if std::mem::replace(was, up) == up {
            return;
        }
        let (net, addresses) = (place.net, place.addresses());
        for ip in addresses {
            if up {
                self.announce(net, ip, Point::Node(node));
            } else {
                self.withdraw(net, ip);
            }
        }
    }

    pub(crate) fn move_host(&mut self, node: NodeId, place: Place) {
        let up = self.is_up(node);
        self.set_up(node, false);
        self.hosts[node.0].place = place;
        self.set_up(node, up);
    }

    /// The address by which a node sends to `remote`; `None` when it cannot.
    pub(crate) fn source(&self, node: NodeId, remote: IpAddr) -> Option<IpAddr> {
        let Host { place, up } = &self.hosts[node.0];
        match remote {
            _ if remote.is_loopback() => Some(remote),
            _ if !up => None,
            IpAddr::V4(_) => place.ip4.map(IpAddr::V4),
            IpAddr::V6(_) => place.ip6.map(IpAddr::V6),
        }
    }

    /// Whether a datagram to `ip` that comes to a node is for it.
    pub(crate) fn accepts(&self, node: NodeId, ip: IpAddr) -> bool {
        let Host { place, up } = &self.hosts[node.0];
        let for_all = || match place.net {
            Net::Internet => false,
            Net::Lan(site) => self.sites[site.0].lan.is_for_all(ip),
        };
        ip.is_loopback() || (*up && (place.addresses().any(|own| own == ip) || for_all()))
    }

    fn link_of(&self, point: Point) -> Link {
        match point {
            Point::Node(node) => self.hosts[node.0].place.link,
            Point::Site(site) => self.sites[site.0].link,
        }
    }

    fn net_of(&self, point: Point) -> Net {
        match point {
            Point::Node(node) => self.hosts[node.0].place.net,
            Point::Site(site) => self.sites[site.0].net,
        }
    }

    /// The point on the Internet that a point is behind, or is itself.
    fn outermost(&self, mut point: Point) -> Point {
        while let Net::Lan(site) = self.net_of(point) {
            point = Point::Site(site);
        }
        point
    }

    fn announce_pool(&mut self, site: SiteId) {
        let net = self.sites[site.0].net;
        for ip in self.sites[site.0].pool().to_vec() {
            self.announce(net, IpAddr::V4(ip), Point::Site(site));
        }
    }

    fn withdraw_pool(&mut self, site: SiteId) {
        let net = self.sites[site.0].net;
        for ip in self.sites[site.0].pool().to_vec() {
            self.withdraw(net, IpAddr::V4(ip));
        }
    }

    /// Lets `ip` be found at `point`, on its network and on all outside that know the address as it is.
    fn announce(&mut self, net: Net, ip: IpAddr, point: Point) {
        assert!(net != Net::Internet || address::is_public(ip), "{ip} leads nowhere on the Internet");
        let before = self.routes.insert((net, ip), point);
        assert!(before.is_none(), "{ip} is taken in {net:?}, by {before:?}");
        if let Some((net, site)) = self.beyond(net, ip) {
            self.announce(net, ip, Point::Site(site));
        }
    }

    fn withdraw(&mut self, net: Net, ip: IpAddr) {
        self.routes.remove(&(net, ip));
        if let Some((net, _)) = self.beyond(net, ip) {
            self.withdraw(net, ip);
        }
    }

    /// The next network outside that knows `ip` as it is, and the site it leads to from there.
    fn beyond(&self, net: Net, ip: IpAddr) -> Option<(Net, SiteId)> {
        let Net::Lan(site) = net else { return None };
        let known = address::is_public(ip) && self.sites[site.0].shows(ip);
        known.then(|| (self.sites[site.0].net, site))
    }
}
