//! What is sent to places that nobody has vouched for. A peer may name any place; that must not make a cannon of us.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::seam::Moment;

/// Packets to one unproven IP in one window, from all sockets and about all peers.
const PACKETS: u8 = 6;
/// The same where a transfer sees the peer at that IP now, for each peer.
const PACKETS_VOUCHED: u8 = 48;
const WINDOW: Duration = Duration::from_secs(10);
/// IPs that are remembered. While there are more, further ones get nothing; where a transfer sees a peer there is room for as many
/// again, as peers name what they like.
const IPS_MAX: usize = 512;

/// How much was sent to which IP of late.
#[derive(Debug)]
pub(in crate::gateway) struct Unproven {
    ips: HashMap<IpAddr, (Moment, u8), ahash::RandomState>,
}

impl Unproven {
    /// Nothing was sent. `seeds` key the hash.
    pub(in crate::gateway) fn new([a, b, c, d]: [u64; 4]) -> Self {
        Self { ips: HashMap::with_hasher(ahash::RandomState::with_seeds(c, a, d, b)) }
    }

    /// Takes leave to send one packet to `ip`, where a transfer sees its holder now or not.
    pub(in crate::gateway) fn take(&mut self, now: Moment, ip: IpAddr, vouched: bool) -> bool {
        let room = if vouched { 2 * IPS_MAX } else { IPS_MAX };
        if self.ips.len() >= room && !self.ips.contains_key(&ip) {
            self.ips.retain(|_, (since, _)| now.since(*since) < WINDOW);
            if self.ips.len() >= room {
                return false;
            }
        }
        let (since, packets) = self.ips.entry(ip).or_insert((now, 0));
        if now.since(*since) >= WINDOW {
            (*since, *packets) = (now, 0);
        }
        let most = if vouched { PACKETS_VOUCHED } else { PACKETS };
        if *packets >= most {
            return false;
        }
        *packets += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::{IPS_MAX, PACKETS, PACKETS_VOUCHED, Unproven, WINDOW};
    use crate::seam::Moment;

    const START: Moment = Moment::from_nanos(1_000_000_000);

    fn granted(unproven: &mut Unproven, now: Moment, ip: u32, vouched: bool) -> usize {
        (0..100).filter(|_| unproven.take(now, IpAddr::V4(Ipv4Addr::from_bits(ip)), vouched)).count()
    }

    #[test]
    fn an_ip_gets_few_packets_in_a_window_and_more_where_its_holder_is_seen() {
        let mut unproven = Unproven::new([1, 2, 3, 4]);
        assert_eq!(granted(&mut unproven, START, 1, false), usize::from(PACKETS));
        assert_eq!(granted(&mut unproven, START, 2, true), usize::from(PACKETS_VOUCHED));
        assert_eq!(granted(&mut unproven, START + WINDOW / 2, 1, false), 0);
        assert_eq!(granted(&mut unproven, START + WINDOW, 1, false), usize::from(PACKETS));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut unproven = Unproven::new([1, 2, 3, 4]);
        let all: usize = (0..10_000).map(|ip| granted(&mut unproven, START, ip, false)).sum();
        assert_eq!(all, IPS_MAX * usize::from(PACKETS));
        assert!(unproven.ips.len() <= IPS_MAX);
        let all: usize = (20_000..30_000).map(|ip| granted(&mut unproven, START, ip, true)).sum();
        assert_eq!(all, IPS_MAX * usize::from(PACKETS_VOUCHED), "as many again where somebody is seen");
        assert!(granted(&mut unproven, START + WINDOW + Duration::from_secs(1), 77_777, false) > 0);
    }
}
