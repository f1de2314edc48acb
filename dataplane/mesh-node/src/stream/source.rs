//! Who is at the other end of a connection, and by which address the relay knows them apart.
//!
//! The relay bounds what one address may order. It sees connections come from this machine, so each bridge sends from an address in
//! 127.0.0.0/8 that follows from its client's: an IPv4 address, or the /64 of an IPv6 one, which one host has to itself. Which
//! follows from which is known to this process alone: nobody can choose to share another's.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr};

/// Whoever shares it may be one: an IPv4 address as it is mapped into IPv6, or the /64 of an IPv6 address.
pub(super) type Source = [u8; 16];

/// What `client` counts as.
pub(super) fn source(client: IpAddr) -> Source {
    match client.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => {
            let mut source = ip.octets();
            source[8..].fill(0);
            source
        }
    }
}

/// Gives each source an address of its own, nearly always.
#[derive(Debug, Default)]
pub(super) struct Addresses(RandomState);

impl Addresses {
    /// The loopback address of a source: never one that has a meaning, as 127.0.0.1 and 127.255.255.255.
    pub(super) fn of(&self, source: &Source) -> Ipv4Addr {
        let hash = self.0.hash_one(source);
        let below = |modulus: u64, shift: u32| ((hash >> shift) % modulus) as u8;
        // 127.1.0.1 to 127.254.255.254.
        Ipv4Addr::new(127, 1 + below(254, 0), below(256, 16), 1 + below(254, 32))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(text: &str) -> Source {
        source(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_host_is_one_source_and_so_is_an_ipv4_address() {
        assert_eq!(of("192.0.2.7"), of("::ffff:192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
        assert_eq!(of("2001:db8:0:1::5"), of("2001:db8:0:1:ffff::6"));
        assert_ne!(of("2001:db8:0:1::5"), of("2001:db8:0:2::5"));
        assert_ne!(of("::"), of("0.0.0.0"));
    }

    #[test]
    fn sources_keep_their_addresses_apart_and_secret() {
        let (here, elsewhere) = (Addresses::default(), Addresses::default());
        let sources: Vec<Source> =
            (0..5000_u32).map(|number| source(Ipv4Addr::from_bits(number << 8).into())).collect();
        let addresses: BTreeSet<Ipv4Addr> = sources.iter().map(|source| here.of(source)).collect();
        // Of 16.5 million: two of five thousand meet in one case of three hundred, three pairs next to never.
        assert!(addresses.len() > 4990, "{} addresses", addresses.len());
        for address in &addresses {
            let [first, second, _, last] = address.octets();
            assert!(first == 127 && (1..=254).contains(&second) && (1..=254).contains(&last), "{address}");
        }
        assert!(sources.iter().all(|source| here.of(source) == here.of(source)));
        let same = sources.iter().filter(|source| here.of(source) == elsewhere.of(source)).count();
        assert!(same < 10, "{same} are the same under another key");
    }
}
