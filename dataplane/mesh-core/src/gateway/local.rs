//! What the machine has of the network, as the program tells it.

use std::net::IpAddr;

use super::Gateway;
use crate::seam::Moment;

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

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Local {
    addresses: Vec<LocalAddress>,
}

impl Gateway {
    /// The network outside is another than before, or has come back. `addresses` are those of this machine now, most preferred first; at
    /// most [`LOCAL_ADDRESSES_MAX`] count. The transfer is asked for a sign of life at once: it sees us elsewhere, perhaps.
    pub fn network_changed(&mut self, now: Moment, addresses: &[LocalAddress]) {
        self.local.addresses.clear();
        self.local.addresses.extend(addresses.iter().take(LOCAL_ADDRESSES_MAX));
        self.relay_network_changed(now);
    }

    /// The addresses of this machine, most preferred first.
    pub fn local_addresses(&self) -> &[LocalAddress] {
        &self.local.addresses
    }
}
