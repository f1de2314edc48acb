//! Who is at the other end of a connection, and by which address the relay knows them apart.
//!
//! The relay bounds what one address may order. It sees connections come from this machine, so each bridge sends from
//! an address in 127.0.0.0/8 that follows from its client's: an IPv4 address, or the /64 of an IPv6 one, which one host
//! has to itself. Which follows from which is known to this process alone: nobody can choose to share another's.

use std::cell::OnceCell;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::ports;

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

/// How long an answer may take that this machine gives itself.
const ANSWER_TIME: Duration = Duration::from_millis(200);

/// Gives each source an address of its own, nearly always. Where the machine answers to no loopback address but
/// 127.0.0.1, all have that.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    hasher: RandomState,
    /// Whether others than 127.0.0.1 are of use: found out when the first is wanted.
    usable: OnceCell<bool>,
}

impl Addresses {
    /// The loopback address of a source: never one that has a meaning, as 127.255.255.255.
    pub(super) fn of(&self, source: &Source) -> Ipv4Addr {
        let address = self.derived(source);
        let usable = || {
            let found = answers_to(address);
            if let Err(error) = &found {
                tracing::info!(%error, "the relay does not tell gateways apart that come by TCP");
            }
            found.is_ok()
        };
        if *self.usable.get_or_init(usable) { address } else { Ipv4Addr::LOCALHOST }
    }

    fn derived(&self, source: &Source) -> Ipv4Addr {
        let hash = self.hasher.hash_one(source);
        let below = |modulus: u64, shift: u32| ((hash >> shift) % modulus) as u8;
        // 127.1.0.1 to 127.254.255.254.
        Ipv4Addr::new(127, 1 + below(254, 0), below(256, 16), 1 + below(254, 32))
    }
}

/// Finds out whether a socket like the relay's, which is bound to all addresses, answers a loopback address from where
/// it was asked.
///
/// # Errors
/// It does not, or the machine does not have the address.
fn answers_to(address: Ipv4Addr) -> io::Result<()> {
    let relay = ports::bind(0)?;
    let asking = UdpSocket::bind((address, 0))?;
    asking.connect((Ipv4Addr::LOCALHOST, relay.local_addr()?.port()))?;
    for socket in [&relay, &asking] {
        socket.set_read_timeout(Some(ANSWER_TIME))?;
    }
    asking.send(&[1])?;
    let (_, asker) = relay.recv_from(&mut [0; 8])?;
    relay.send_to(&[2], asker)?;
    asking.recv(&mut [0; 8]).map(drop)
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
    fn a_machine_without_other_loopback_addresses_has_one() {
        #[cfg(target_os = "linux")]
        assert!(answers_to(Ipv4Addr::new(127, 3, 4, 5)).is_ok(), "Linux has the whole network");
        assert!(answers_to(Ipv4Addr::new(192, 0, 2, 1)).is_err(), "an address of somebody else");
        let without = Addresses { hasher: RandomState::new(), usable: OnceCell::from(false) };
        assert_eq!(without.of(&of("192.0.2.7")), Ipv4Addr::LOCALHOST);
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
