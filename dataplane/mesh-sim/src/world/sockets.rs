//! The UDP sockets of a node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use mesh_core::seam::SocketId;
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

/// The address families of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Both: a dual-stack socket.
    Both,
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

impl Family {
    fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::Ipv4 => ip.is_ipv4(),
            Self::Ipv6 => ip.is_ipv6(),
        }
    }

    /// Which of the two tables of ports it is in: that of IPv4, that of IPv6.
    fn tables(self) -> impl Iterator<Item = bool> {
        [false, true].into_iter().filter(move |v6| match self {
            Self::Both => true,
            Self::Ipv4 => !v6,
            Self::Ipv6 => *v6,
        })
    }
}

/// The ports that Linux gives to sockets that ask for none.
pub(super) const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Sockets that a gateway opens while it runs have numbers from here on.
const EXTRA: SocketId = SocketId(1000);

/// Each is bound to a port of all of its host's addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    bound: BTreeMap<SocketId, (Family, u16)>,
    by_port: BTreeMap<(bool, u16), SocketId>,
}

impl Sockets {
    /// Dual-stack sockets on `ports`, numbered in this order.
    pub(super) fn on(ports: &[u16]) -> Self {
        let mut sockets = Self::default();
        for (number, port) in ports.iter().enumerate() {
            sockets.open(SocketId(u16::try_from(number).expect("a few thousand ports")), Family::Both, *port);
        }
        sockets
    }

    /// # Panics
    /// When the number or the port is taken.
    pub(super) fn open(&mut self, id: SocketId, family: Family, port: u16) {
        let before = self.bound.insert(id, (family, port));
        assert!(before.is_none(), "socket {} is open", id.0);
        for table in family.tables() {
            let before = self.by_port.insert((table, port), id);
            assert!(before.is_none(), "port {port} is taken");
        }
    }

    /// Opens so many more for IPv4, each on a free port of the host's choice.
    pub(super) fn open_more(&mut self, rng: &mut ChaCha12Rng, count: usize) -> Vec<SocketId> {
        let numbers: Vec<SocketId> =
            (EXTRA.0..).map(SocketId).filter(|id| !self.bound.contains_key(id)).take(count).collect();
        for id in &numbers {
            let port = self.free_port(rng, Family::Ipv4);
            self.open(*id, Family::Ipv4, port);
        }
        numbers
    }

    /// How many of these are open.
    pub(super) fn extra(&self) -> usize {
        self.bound.range(EXTRA..).count()
    }

    /// A port that a host gives to a socket that asks for none.
    pub(super) fn free_port(&self, rng: &mut ChaCha12Rng, family: Family) -> u16 {
        let draws = std::iter::repeat_with(|| rng.random_range(EPHEMERAL_PORTS)).take(100_000);
        draws.into_iter().find(|port| self.is_free(family, *port)).expect("a free port")
    }

    /// Whether there was one.
    pub(super) fn close(&mut self, id: SocketId) -> bool {
        let Some((family, port)) = self.bound.remove(&id) else { return false };
        for table in family.tables() {
            self.by_port.remove(&(table, port));
        }
        true
    }

    /// Which socket hears what is sent to `to`.
    pub(super) fn at(&self, to: SocketAddr) -> Option<SocketId> {
        self.by_port.get(&(to.is_ipv6(), to.port())).copied()
    }

    /// The port from which a socket sends to `remote`, if it can.
    pub(super) fn port_towards(&self, id: SocketId, remote: IpAddr) -> Option<u16> {
        self.bound.get(&id).filter(|(family, _)| family.has(remote)).map(|(_, port)| *port)
    }

    /// Whether a socket of `family` may be bound to `port`.
    pub(super) fn is_free(&self, family: Family, port: u16) -> bool {
        family.tables().all(|table| !self.by_port.contains_key(&(table, port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_ports_of_their_own_and_a_closed_socket_gives_its_port_back() {
        let ip4: SocketAddr = "192.0.2.1:7".parse().unwrap();
        let ip6: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
        let mut sockets = Sockets::on(&[]);
        sockets.open(SocketId(3), Family::Ipv4, 7);
        assert!(sockets.is_free(Family::Ipv6, 7) && !sockets.is_free(Family::Both, 7));
        sockets.open(SocketId(4), Family::Ipv6, 7);
        assert_eq!((sockets.at(ip4), sockets.at(ip6)), (Some(SocketId(3)), Some(SocketId(4))));
        assert_eq!(sockets.port_towards(SocketId(3), ip6.ip()), None);
        assert_eq!(sockets.port_towards(SocketId(4), ip6.ip()), Some(7));
        assert!(sockets.close(SocketId(3)) && !sockets.close(SocketId(3)));
        assert_eq!((sockets.at(ip4), sockets.at(ip6)), (None, Some(SocketId(4))));
        assert!(sockets.close(SocketId(4)) && sockets.is_free(Family::Both, 7));
    }
}
