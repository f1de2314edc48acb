//! What a router may answer, and what is made of it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::iface;

/// For how long a mapping is asked for: a program that was killed leaves none for longer.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

/// Mappings of a shorter life are not worth the packets that keep them.
const LIFETIME_LEAST: Duration = Duration::from_secs(20);

/// What a router granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// The address and port that lead to ours.
    pub(super) outside: SocketAddrV4,
    /// For how long: from 20 s to [`LIFETIME`].
    pub(super) lifetime: Duration,
}

/// Why there is no mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Nobody answers.
    Silent,
    /// Who answers speaks another protocol.
    Unsupported,
    /// The router said no, or nonsense.
    No(String),
    /// The router is no way in from the Internet: its own address outside is not known there.
    NotPublic(Ipv4Addr),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("the router answers none of PCP, NAT-PMP and UPnP"),
            Self::Unsupported => f.write_str("the router speaks none of PCP, NAT-PMP and UPnP"),
            Self::No(why) => write!(f, "the router refuses: {why}"),
            Self::NotPublic(ip) => {
                write!(f, "the router's own address outside ({ip}) is not public: it is behind another")
            }
        }
    }
}

/// Judges what a router says it has granted.
pub(super) fn judge(ip: Ipv4Addr, port: u16, lifetime: Duration) -> Result<Granted, Refused> {
    if port == 0 {
        return Err(Refused::No("it gives port 0".into()));
    }
    if !may_be_public(ip) {
        return Err(Refused::NotPublic(ip));
    }
    if lifetime < LIFETIME_LEAST {
        return Err(Refused::No(format!("it gives a port for {} s", lifetime.as_secs())));
    }
    // However long it is to live, it is asked for again soon: the router may have been restarted.
    Ok(Granted { outside: SocketAddrV4::new(ip, port), lifetime: lifetime.min(LIFETIME) })
}

/// Whether an address can be somebody's on the Internet. Those for documentation can, as nobody has them but tests.
pub fn may_be_public(ip: Ipv4Addr) -> bool {
    let [first, second, third, _] = ip.octets();
    let nobody = first == 0 || ip.is_loopback() || ip.is_multicast() || first >= 240;
    let protocols = (first, second, third) == (192, 0, 0);
    !nobody && !protocols && (iface::is_public(ip) || ip.is_documentation())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

    #[test]
    fn only_addresses_of_the_internet_count() {
        for text in ["198.51.100.7", "8.8.8.8", "172.168.0.1", "223.255.255.1", "100.63.0.1"] {
            assert!(may_be_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            let ip = text.parse().unwrap();
            assert!(!may_be_public(ip), "{text}");
            assert_eq!(judge(ip, 1, LIFETIME), Err(Refused::NotPublic(ip)));
        }
    }

    #[test]
    fn nonsense_is_refused_and_a_life_without_end_is_cut() {
        assert!(matches!(judge(PUBLIC, 0, LIFETIME), Err(Refused::No(_))));
        for short in [0, 1, 19] {
            assert!(matches!(judge(PUBLIC, 1, Duration::from_secs(short)), Err(Refused::No(_))), "{short}");
        }
        for (said, kept) in [(20, 20), (120, 120), (600, 600), (7200, 600), (u32::MAX.into(), 600)] {
            let granted = judge(PUBLIC, 9, Duration::from_secs(said)).unwrap();
            assert_eq!(
                granted,
                Granted { outside: "198.51.100.7:9".parse().unwrap(), lifetime: Duration::from_secs(kept) }
            );
        }
    }
}
