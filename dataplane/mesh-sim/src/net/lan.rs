//! The network inside a site: who is on it, and what is for all of them.

use std::net::{IpAddr, Ipv4Addr};

use super::Link;
use super::address::is_group;

/// A local network.
pub(super) struct Lan {
    /// The way between any two hosts on it, or a host and the site's box.
    pub(super) link: Link,
    /// The box's own address on it.
    pub(super) box_ip4: Ipv4Addr,
    prefix: u8,
}

impl Lan {
    /// # Panics
    /// When the prefix is longer than 30 bits: there is no room for a host beside the box.
    pub(super) fn new(link: Link, box_ip4: Ipv4Addr, prefix: u8) -> Self {
        assert!(prefix <= 30, "a LAN of /{prefix} has no room for a host");
        Self { link, box_ip4, prefix }
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// Whether hosts look for `ip` on the LAN itself and not behind the box.
    pub(super) fn is_on_link(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => (ip.to_bits() ^ self.box_ip4.to_bits()) & self.mask() == 0,
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
    }

    /// Whether a datagram to `ip` is for every host on the LAN: a multicast address, or the broadcast address of all
    /// networks or of this one.
    pub(super) fn is_for_all(&self, ip: IpAddr) -> bool {
        let broadcast = IpAddr::V4(Ipv4Addr::from_bits(self.box_ip4.to_bits() | !self.mask()));
        is_group(ip) || ip == broadcast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_decides_what_is_on_the_lan_and_what_is_for_all() {
        let lan = Lan::new(Link::LAN, Ipv4Addr::new(10, 1, 2, 1), 23);
        let is = |text: &str| {
            let ip = text.parse().unwrap();
            (lan.is_on_link(ip), lan.is_for_all(ip))
        };
        assert_eq!(is("10.1.2.77"), (true, false));
        assert_eq!(is("10.1.3.254"), (true, false));
        assert_eq!(is("10.1.3.255"), (true, true));
        assert_eq!(is("10.1.4.1"), (false, false));
        assert_eq!(is("255.255.255.255"), (false, true));
        assert_eq!(is("fe80::7"), (true, false));
        assert_eq!(is("2001:db8::7"), (false, false));
        let wide = Lan::new(Link::LAN, Ipv4Addr::new(10, 1, 2, 1), 0);
        assert!(wide.is_on_link(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))), "a prefix of no bits holds everything");
    }
}
