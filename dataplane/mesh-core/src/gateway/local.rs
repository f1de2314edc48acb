//! Our addresses outside, as the program tells them.

use std::net::IpAddr;

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
