//! Which ports the NAT of a peer may have given to its new sockets, most likely ones first.

use std::net::{SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;

use rand::{Rng, RngExt};

/// Ports that are tried in one search.
pub(super) const PORTS: usize = 1024;
/// Ports that NATs give.
const RANGE: RangeInclusive<u16> = 1024..=65_535;
/// Ports that systems give to sockets that ask for none (Linux). A NAT that keeps ports gives no others.
const SYSTEM_RANGE: RangeInclusive<u16> = 32_768..=60_999;
/// Of the ports tried, so many are from there where the NAT keeps them.
const SYSTEM_PORTS: usize = 640;
/// Two ports that are that close were given one after the other.
const SEQUENCE_STEP_MAX: i32 = 64;
/// Ports after the last one of a sequence, and on either side of one that is alone.
const SEQUENCE_PORTS: i32 = 512;
const NEIGHBOURS: i32 = 8;

/// The ports to try at the address of a peer, which the transfer sees at `seen` and which names itself at `named`.
pub(super) fn guess(seen: SocketAddrV4, named: &[SocketAddr], rng: &mut impl Rng) -> Vec<u16> {
    let mut picked = Picked { ports: Vec::with_capacity(PORTS), known: vec![0; 1024].into_boxed_slice() };
    let outside = named.iter().filter(|place| place.ip() == *seen.ip()).map(SocketAddr::port);
    let outside: Vec<i32> = std::iter::once(seen.port()).chain(outside).map(i32::from).collect();
    let kept = named.iter().any(|place| place.ip() != *seen.ip() && place.port() == seen.port());

    let first = outside[0];
    let near = |port: &&i32| (1..=SEQUENCE_STEP_MAX).contains(&(**port - first).abs());
    if let Some(next) = outside.iter().filter(near).min_by_key(|port| (**port - first).abs()) {
        let step = (next - first).signum();
        let last = outside.iter().filter(|port| (**port - first).abs() <= SEQUENCE_PORTS);
        let last = last.max_by_key(|port| (**port - first) * step).copied().unwrap_or(first);
        (1..=SEQUENCE_PORTS).for_each(|number| picked.take(last + number * step));
    }
    for port in outside {
        (1..=NEIGHBOURS).for_each(|distance| {
            picked.take(port + distance);
            picked.take(port - distance);
        });
    }
    if kept {
        let end = PORTS.min(picked.ports.len() + SYSTEM_PORTS);
        picked.draw(&SYSTEM_RANGE, end, rng);
    }
    picked.draw(&RANGE, PORTS, rng);
    picked.ports
}

/// Ports in order, each once.
struct Picked {
    ports: Vec<u16>,
    /// A bit for each that is among them.
    known: Box<[u64]>,
}

impl Picked {
    /// Takes a port, unless it is known, no port that a NAT gives, or one too many.
    fn take(&mut self, port: i32) {
        let Some(port) = u16::try_from(port).ok().filter(|port| RANGE.contains(port)) else { return };
        let (word, bit) = (usize::from(port / 64), 1 << (port % 64));
        if self.ports.len() < PORTS && self.known[word] & bit == 0 {
            self.known[word] |= bit;
            self.ports.push(port);
        }
    }

    /// Draws from a range that has far more of them until there are so many.
    fn draw(&mut self, range: &RangeInclusive<u16>, end: usize, rng: &mut impl Rng) {
        while self.ports.len() < end {
            self.take(i32::from(rng.random_range(range.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{SocketAddr, SocketAddrV4};

    use super::{PORTS, SEQUENCE_PORTS, SYSTEM_RANGE, guess};
    use crate::session::random::Generator;

    fn guessed(seen: &str, named: &[&str]) -> Vec<u16> {
        let named: Vec<SocketAddr> = named.iter().map(|place| place.parse().unwrap()).collect();
        let seen: SocketAddrV4 = seen.parse().unwrap();
        let ports = guess(seen, &named, &mut Generator::from_seed([5; 32]));
        assert_eq!(ports.len(), PORTS);
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), PORTS, "each once");
        assert!(ports.iter().all(|port| *port >= 1024));
        ports
    }

    #[test]
    fn without_a_sign_ports_are_drawn_from_all() {
        let ports = guessed("198.51.100.1:40000", &["10.0.0.7:50000", "198.51.100.1:9000"]);
        for quarter in 0..4 {
            let range = 1024 + quarter * 16_128..1024 + (quarter + 1) * 16_128;
            let count = ports.iter().filter(|port| range.contains(&u32::from(**port))).count();
            assert!((180..340).contains(&count), "{count} of them in {range:?}");
        }
        for near in [39_999, 40_001, 8_999, 9_008] {
            assert!(ports[..40].contains(&near), "{near} is tried among the first");
        }
    }

    #[test]
    fn a_sequence_is_followed_from_its_last_port_in_its_direction() {
        let up = guessed("198.51.100.1:40000", &["198.51.100.1:40003", "198.51.100.1:40020"]);
        assert_eq!((up[0], up[1]), (40_021, 40_022));
        let down = guessed("198.51.100.1:40000", &["198.51.100.1:39998"]);
        assert_eq!((down[0], down[1]), (39_997, 39_996));
        let end = guessed("198.51.100.1:65530", &["198.51.100.1:65535"]);
        assert!(end.len() == PORTS && SEQUENCE_PORTS > 0, "the end of the range is no trouble");
    }

    #[test]
    fn a_nat_that_keeps_ports_gives_those_of_the_system() {
        let ports = guessed("198.51.100.1:61234", &["10.0.0.7:61234", "198.51.100.1:9000"]);
        let count = ports.iter().filter(|port| SYSTEM_RANGE.contains(port)).count();
        assert!(count >= 740, "{count}");
    }
}
