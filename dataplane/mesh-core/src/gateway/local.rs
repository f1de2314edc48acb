//! What the machine has of the network, as the program tells it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Gateway;
use crate::seam::{Moment, SocketId};

/// Local addresses that count.
pub const LOCAL_ADDRESSES_MAX: usize = 16;

/// An address of this machine at which a peer may reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddress {
    /// The address: neither of the loopback nor of a link alone, and none of the virtual network.
    pub address: IpAddr,
    /// Length of its network's prefix, in bits.
    pub prefix: u8,
    /// The system's number of its interface.
    pub interface: u32,
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

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Local {
    addresses: Vec<LocalAddress>,
    beacons: Beacons,
}

impl Gateway {
    /// The network outside is another than before, or has come back. `addresses` are those of this machine now, most preferred first; at
    /// most [`LOCAL_ADDRESSES_MAX`] count. The transfer is asked for a sign of life at once: it sees us elsewhere, perhaps.
    pub fn network_changed(&mut self, now: Moment, addresses: &[LocalAddress]) {
        self.local.addresses.clear();
        self.local.addresses.extend(addresses.iter().take(LOCAL_ADDRESSES_MAX));
        self.relay_network_changed(now);
    }

    /// Other sockets serve for beacons from now on; those before were closed. With none, there are no beacons.
    pub fn set_beacons(&mut self, _now: Moment, beacons: Beacons) {
        self.local.beacons = beacons;
    }

    /// The sockets for beacons.
    pub fn beacons(&self) -> &Beacons {
        &self.local.beacons
    }

    /// The addresses of this machine, most preferred first.
    pub fn local_addresses(&self) -> &[LocalAddress] {
        &self.local.addresses
    }
}
