//! Our addresses outside, as the program tells them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::seam::SocketId;

/// Local addresses that count.
pub const LOCAL_ADDRESSES_MAX: usize = 16;

/// An address of an interface that the gateway may be reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix, in bits: who is in it is reached without a router.
    pub prefix: u8,
    /// The system's number of the interface.
    pub interface: u32,
}

impl LocalAddress {
    /// Whether `ip` is in the same network.
    pub fn is_neighbour(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let different = (own.to_bits() ^ other.to_bits()).checked_shr(32 - u32::from(self.prefix.min(32)));
                // A shift by all 32 bits leaves nothing to differ.
                different.unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let different = (own.to_bits() ^ other.to_bits()).checked_shr(128 - u32::from(self.prefix.min(128)));
                different.unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The UDP port that beacons are sent to.
pub const BEACON_PORT: u16 = 48_021;
/// The multicast group of beacons by IPv4, one of those that no router passes on (RFC 2365).
pub const BEACON_GROUP_IPV4: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 77);
/// The multicast group of beacons by IPv6, on the link.
pub const BEACON_GROUP_IPV6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x4d45, 0x5348);

/// A way to send a beacon to all on one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeaconSocket {
    /// The engine's socket: what it sends leaves by this interface only, and is passed on by no router.
    pub socket: SocketId,
    /// The system's number of the interface.
    pub interface: u32,
    /// Where to: a multicast group, or the broadcast address of an IPv4 network, and [`BEACON_PORT`].
    pub to: SocketAddr,
}

/// The engine's sockets for beacons. Neither serves for anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beacons {
    /// Where beacons arrive: at most one socket for each family. Whatever else arrives there, or at those that send, is a stranger's.
    pub hearing: Vec<SocketId>,
    /// How beacons are sent: each of them, for a beacon to reach all. Several may have one socket.
    pub sending: Vec<BeaconSocket>,
}

#[cfg(test)]
mod tests {
    use super::LocalAddress;

    #[test]
    fn neighbours_share_the_prefix() {
        let is = |own: &str, prefix, other: &str| {
            LocalAddress { address: own.parse().unwrap(), prefix, interface: 1 }.is_neighbour(other.parse().unwrap())
        };
        assert!(is("192.168.1.7", 24, "192.168.1.200"));
        assert!(!is("192.168.1.7", 24, "192.168.2.7"));
        assert!(is("10.1.2.3", 8, "10.9.9.9"));
        assert!(!is("192.168.1.7", 32, "192.168.1.8"));
        assert!(is("192.168.1.7", 0, "8.8.8.8"));
        assert!(is("2001:db8::1", 64, "2001:db8::2"));
        assert!(!is("2001:db8::1", 64, "2001:db8:0:1::2"));
        assert!(!is("2001:db8::1", 64, "192.168.1.1"));
    }
}
