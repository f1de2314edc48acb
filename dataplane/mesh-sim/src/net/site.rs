//! A site: a local network, and the box between it and the network it is attached to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_core::seam::Moment;
use rand_chacha::ChaCha12Rng;

use super::firewall::{Firewall, FirewallConfig};
use super::lan::Lan;
use super::nat::{Hairpin, Nat, NatConfig};
use super::{Datagram, Link, Net};

/// What a site is made from.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    /// What its box is attached to: the Internet, or the network inside another site, as behind a carrier's NAT.
    pub net: Net,
    /// The box's link there.
    pub link: Link,
    /// The way between two hosts inside, and between each of them and the box.
    pub lan: Link,
    /// The box's address inside, and the length of the prefix that hosts have in common with it, in bits; at most 30.
    pub inside: (Ipv4Addr, u8),
    /// How IPv4 is translated, if it is, and to which addresses. Without, public addresses of inside hosts are reached
    /// as they are.
    pub nat: Option<(NatConfig, Vec<Ipv4Addr>)>,
    /// What guards the addresses that are not translated: all of IPv6, and IPv4 without NAT. `None`: nothing does.
    pub firewall: Option<FirewallConfig>,
}

impl SiteConfig {
    /// A home on the Internet: 192.168.1.0/24 behind a NAT with one outside address, and a firewall for IPv6.
    pub fn home(nat: NatConfig, outside: Ipv4Addr) -> Self {
        Self {
            net: Net::Internet,
            link: Link::CLEAN,
            lan: Link::LAN,
            inside: (Ipv4Addr::new(192, 168, 1, 1), 24),
            nat: Some((nat, vec![outside])),
            firewall: Some(FirewallConfig::LINUX),
        }
    }
}

/// What the box makes of a datagram from inside.
pub(super) enum Outward {
    /// It goes on to the network outside.
    On(Datagram),
    /// It is for a host inside.
    Back(Datagram),
    Lost,
}

/// A box and its LAN.
pub(super) struct Site {
    pub(super) net: Net,
    pub(super) link: Link,
    pub(super) lan: Lan,
    pub(super) udp_blocked: bool,
    pub(super) nat: Option<Nat>,
    pub(super) firewall: Option<Firewall>,
}

impl Site {
    pub(super) fn new(config: SiteConfig, rng: &mut ChaCha12Rng) -> Self {
        let (box_ip4, prefix) = config.inside;
        Self {
            net: config.net,
            link: config.link,
            lan: Lan::new(config.lan, box_ip4, prefix),
            udp_blocked: false,
            nat: config.nat.map(|(nat, pool)| Nat::new(nat, pool, rng)),
            firewall: config.firewall.map(Firewall::new),
        }
    }

    /// The box's own addresses outside.
    pub(super) fn pool(&self) -> &[Ipv4Addr] {
        self.nat.as_ref().map_or(&[], Nat::pool)
    }

    /// A datagram from inside has come to the box.
    pub(super) fn outward(&mut self, now: Moment, rng: &mut ChaCha12Rng, mut datagram: Datagram) -> Outward {
        if self.udp_blocked {
            return Outward::Lost;
        }
        match (datagram.from, datagram.to, &mut self.nat) {
            (SocketAddr::V4(inside), SocketAddr::V4(remote), Some(nat)) => {
                let turned = nat.pool().contains(remote.ip());
                match nat.config().hairpin {
                    Hairpin::None if turned => return Outward::Lost,
                    Hairpin::InternalSource if turned => {
                        let Some(to) = nat.owner(now, remote) else { return Outward::Lost };
                        datagram.to = SocketAddr::V4(to);
                        return Outward::Back(datagram);
                    }
                    Hairpin::None | Hairpin::InternalSource | Hairpin::ExternalSource => {}
                }
                let Some(outside) = nat.outbound(now, rng, inside, remote) else { return Outward::Lost };
                datagram.from = SocketAddr::V4(outside);
                if !turned {
                    return Outward::On(datagram);
                }
                let Some(to) = nat.inbound(now, remote, outside) else { return Outward::Lost };
                datagram.to = SocketAddr::V4(to);
                Outward::Back(datagram)
            }
            (inside, remote, _) => {
                let passes = self.firewall.as_mut().is_none_or(|firewall| firewall.outbound(now, inside, remote));
                if passes { Outward::On(datagram) } else { Outward::Lost }
            }
        }
    }

    /// A datagram from outside has come to the box: what goes on to the LAN.
    pub(super) fn inward(&mut self, now: Moment, mut datagram: Datagram) -> Option<Datagram> {
        if self.udp_blocked {
            return None;
        }
        match (datagram.from, datagram.to, &mut self.nat) {
            (SocketAddr::V4(remote), SocketAddr::V4(outside), Some(nat)) => {
                datagram.to = SocketAddr::V4(nat.inbound(now, outside, remote)?);
                Some(datagram)
            }
            (remote, inside, _) => {
                let passes = self.firewall.as_mut().is_none_or(|firewall| firewall.inbound(now, inside, remote));
                passes.then_some(datagram)
            }
        }
    }

    /// Whether `ip` of a host inside is known as it is to the network outside.
    pub(super) fn shows(&self, ip: IpAddr) -> bool {
        ip.is_ipv6() || self.nat.is_none()
    }
}
