//! A datagram on its way: from its host across a network to a box, and on from there, until it comes to a host or is
//! lost.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::seam::Moment;

use super::site::Outward;
use super::{Link, Net, Network, NodeId, Point, SiteId, address};

/// Time a datagram takes from a host to itself.
const LOOPBACK: Duration = Duration::from_micros(10);

/// A datagram on its way, as it looks at the point where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

impl Datagram {
    /// Length of the IP packet that carries it.
    pub(crate) fn ip_bytes(&self) -> usize {
        let header = if self.to.is_ipv4() { 20 } else { 40 };
        header + 8 + self.bytes.len()
    }
}

/// Where a datagram comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// A host.
    Host(NodeId),
    /// A box, from inside.
    Inside(SiteId),
    /// A box, from outside.
    Outside(SiteId),
}

/// A datagram comes to a hop at a time.
#[derive(Debug)]
pub(crate) struct Travel {
    pub(crate) at: Moment,
    pub(crate) hop: Hop,
    pub(crate) datagram: Datagram,
}

impl Network {
    /// Who on the Internet has the address of a datagram that is there from nowhere.
    pub(crate) fn at_its_end(&self, datagram: &Datagram) -> Option<Hop> {
        Some(entering(*self.routes.get(&(Net::Internet, datagram.to.ip()))?))
    }

    /// A node sends a datagram: where and when it comes next. Several, or nowhere.
    pub(crate) fn send(&mut self, now: Moment, node: NodeId, datagram: Datagram, travels: &mut Vec<Travel>) {
        let to = datagram.to.ip();
        if to.is_loopback() || self.hosts[node.0].place.addresses().any(|own| own == to) {
            travels.push(Travel { at: now + LOOPBACK, hop: Hop::Host(node), datagram });
        } else {
            self.leave(now, Point::Node(node), datagram, travels);
        }
    }

    /// A datagram has come to a box: where it comes next.
    pub(crate) fn pass(&mut self, now: Moment, hop: Hop, datagram: Datagram, travels: &mut Vec<Travel>) {
        match hop {
            Hop::Host(_) => {}
            Hop::Inside(site) => match self.sites[site.0].outward(now, &mut self.rng, datagram) {
                Outward::On(datagram) => self.leave(now, Point::Site(site), datagram, travels),
                Outward::Back(datagram) => self.cross_lan(now, site, None, datagram, travels),
                Outward::Lost => {}
            },
            Hop::Outside(site) => {
                if let Some(datagram) = self.sites[site.0].inward(now, datagram) {
                    self.cross_lan(now, site, None, datagram, travels);
                }
            }
        }
    }

    /// A datagram leaves a point for the network that it is attached to.
    fn leave(&mut self, now: Moment, from: Point, datagram: Datagram, travels: &mut Vec<Travel>) {
        match self.net_of(from) {
            Net::Internet => self.cross_internet(now, from, datagram, travels),
            Net::Lan(site) => self.cross_lan(now, site, Some(from), datagram, travels),
        }
    }

    fn cross_internet(&mut self, now: Moment, from: Point, datagram: Datagram, travels: &mut Vec<Travel>) {
        if !address::is_public(datagram.from.ip()) {
            return;
        }
        let Some(&to) = self.routes.get(&(Net::Internet, datagram.to.ip())) else { return };
        let (near, far) = (self.link_of(from), self.link_of(to));
        let Some((first, second)) = self.paths.links((from, near), (to, far)) else { return };
        let links: Vec<Link> = std::iter::once(first).chain(second).collect();
        self.cross(now, &links, entering(to), datagram, travels);
    }

    /// A datagram crosses a LAN, from a point on it or from its box.
    fn cross_lan(
        &mut self,
        now: Moment,
        site: SiteId,
        from: Option<Point>,
        datagram: Datagram,
        travels: &mut Vec<Travel>,
    ) {
        let to = datagram.to.ip();
        let net = Net::Lan(site);
        let lan = &self.sites[site.0].lan;
        let near = from.map_or(Link::CABLE, |from| self.link_of(from));
        if lan.is_for_all(to) {
            let across = lan.link;
            for node in (0..self.hosts.len()).map(NodeId) {
                let place = &self.hosts[node.0].place;
                if place.net == net && from != Some(Point::Node(node)) {
                    let links = [near, across, place.link];
                    self.cross(now, &links, Hop::Host(node), datagram.clone(), travels);
                }
            }
            return;
        }
        match self.routes.get(&(net, to)) {
            // The box itself runs nothing that could be asked.
            Some(Point::Site(inner)) if *inner == site => {}
            Some(&point) => {
                let links = [near, lan.link, self.link_of(point)];
                self.cross(now, &links, entering(point), datagram, travels);
            }
            // Nobody answers for it on the LAN, and the box sends nothing back to where it came from.
            None if lan.is_on_link(to) || from.is_none() => {}
            None => {
                let links = [near, lan.link];
                self.cross(now, &links, Hop::Inside(site), datagram, travels);
            }
        }
    }

    fn cross(&mut self, now: Moment, links: &[Link], hop: Hop, datagram: Datagram, travels: &mut Vec<Travel>) {
        let mut copies = Link::cross_all(links, &mut self.rng, datagram.ip_bytes());
        let Some(last) = copies.pop() else { return };
        travels.extend(copies.iter().map(|time| Travel { at: now + *time, hop, datagram: datagram.clone() }));
        travels.push(Travel { at: now + last, hop, datagram });
    }
}

/// How a datagram comes to a point from the network that the point is attached to.
fn entering(point: Point) -> Hop {
    match point {
        Point::Node(node) => Hop::Host(node),
        Point::Site(site) => Hop::Outside(site),
    }
}
