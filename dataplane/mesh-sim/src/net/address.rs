//! Which addresses the Internet knows, and which are for many.

use std::net::{IpAddr, Ipv4Addr};

/// Whether the Internet carries datagrams from and to `ip`. Documentation addresses (RFC 5737, RFC 3849) count as
/// public: they are what scenarios use.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && second & 0b1100_0000 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared || first == 0 || first >= 224)
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

/// Whether a datagram to `ip` is for every host of the network it was sent on.
pub(super) fn is_group(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_special_addresses_are_not_public() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for ip in ["192.0.2.1", "198.51.0.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "2001:db8::1"] {
            assert!(public(ip), "{ip}");
        }
        for ip in ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.127.255.1", "169.254.0.1", "127.0.0.1"] {
            assert!(!public(ip), "{ip}");
        }
        for ip in ["0.0.0.0", "239.1.2.3", "240.0.0.1", "255.255.255.255", "fd00::1", "fe80::1", "::1", "ff02::1"] {
            assert!(!public(ip), "{ip}");
        }
    }

    #[test]
    fn groups_are_multicast_and_the_limited_broadcast() {
        let group = |text: &str| is_group(text.parse().unwrap());
        assert!(group("239.1.2.3") && group("224.0.0.1") && group("255.255.255.255") && group("ff02::1"));
        assert!(!group("192.168.1.255") && !group("240.0.0.1") && !group("fe80::1"));
    }
}
