//! Who is attached to what, and by which addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Link;

/// One node of a [`crate::World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) usize);

/// One site of a [`super::Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub(super) usize);

/// What hosts and boxes are attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Net {
    /// The Internet.
    Internet,
    /// The local network inside a site.
    Lan(SiteId),
}

/// Something that is attached to a network: a node, or the box of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// A node.
    Node(NodeId),
    /// A site's box.
    Site(SiteId),
}

impl From<NodeId> for Point {
    fn from(node: NodeId) -> Self {
        Self::Node(node)
    }
}

impl From<SiteId> for Point {
    fn from(site: SiteId) -> Self {
        Self::Site(site)
    }
}

/// Where a host is attached, and as what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// The network.
    pub net: Net,
    /// Its IPv4 address there, if it has one.
    pub ip4: Option<Ipv4Addr>,
    /// Its IPv6 address there, if it has one. Public ones are reached from everywhere, others on the LAN only.
    pub ip6: Option<Ipv6Addr>,
    /// Its link: to the middle of the Internet, or the cable to the LAN.
    pub link: Link,
}

impl Place {
    /// A host with one address on the Internet.
    pub fn public(ip: IpAddr, link: Link) -> Self {
        Self { net: Net::Internet, ip4: None, ip6: None, link }.with(ip)
    }

    /// A host with one address inside a site.
    pub fn inside(site: SiteId, ip: IpAddr) -> Self {
        Self { net: Net::Lan(site), ip4: None, ip6: None, link: Link::CABLE }.with(ip)
    }

    /// The same with `ip` as its address of that family.
    #[must_use]
    pub fn with(self, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip4) => Self { ip4: Some(ip4), ..self },
            IpAddr::V6(ip6) => Self { ip6: Some(ip6), ..self },
        }
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ip4.map(IpAddr::V4).into_iter().chain(self.ip6.map(IpAddr::V6))
    }
}
