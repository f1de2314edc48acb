//! Which local address the system would choose by itself.
//!
//! On a host with several addresses an answer must leave from the one that was asked. To tell the kernel so with each send costs a
//! control message, and is needed only where the kernel would choose another: on most hosts, never. What it would choose is asked
//! by connecting a socket that sends nothing, and remembered for two seconds, so that a change of routes is followed. (Where several routes of equal cost
//! are chosen by port, the answer may be that of another port.)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(2);

/// Remote addresses that are remembered; one more displaces another.
const PLACES: usize = 4096;

/// Questions each second at most. Who is not asked about is sent to with the control message, which is always right.
const QUESTIONS_PER_SECOND: u32 = 4096;

#[derive(Clone, Copy, Debug)]
struct Place {
    remote: IpAddr,
    /// What the system chooses; unspecified where it has no route.
    source: IpAddr,
    asked: Instant,
}

/// What is known of the system's choice.
#[derive(Debug)]
pub struct Sources {
    /// By a hash of the remote address. Empty until there is something to ask.
    places: Vec<Option<Place>>,
    now: Instant,
    second: Instant,
    questions: u32,
}

impl Sources {
    /// Nothing is known.
    #[expect(clippy::new_without_default, reason = "as of all parts of an engine")]
    pub fn new() -> Self {
        let now = Instant::now();
        Self { places: Vec::new(), now, second: now, questions: 0 }
    }

    /// Looks at the clock: once for each flush that has something to ask.
    pub fn tick(&mut self) {
        self.now = Instant::now();
        if self.now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.questions) = (self.now, 0);
        }
    }

    /// Whether what is sent to `remote` leaves from `local` without a word. `false` also where that is not known.
    pub fn is_chosen(&mut self, local: IpAddr, remote: SocketAddr) -> bool {
        if self.places.is_empty() {
            self.places = vec![None; PLACES];
        }
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let index = place_of(remote.ip());
        if let Some(place) = self.places[index]
            && place.remote == remote.ip()
            && self.now.duration_since(place.asked) < FRESH
        {
            return place.source == local;
        }
        if self.questions >= QUESTIONS_PER_SECOND {
            return false;
        }
        self.questions += 1;
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let source = ask(remote).map_or(unspecified, |source| source.to_canonical());
        self.places[index] = Some(Place { remote: remote.ip(), source, asked: self.now });
        source == local
    }
}

/// Asks the system.
fn ask(remote: SocketAddr) -> Option<IpAddr> {
    // Link-local addresses mean something on their link only.
    if matches!(remote.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        return None;
    }
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A socket keeps the source of its first connect: each question takes a new one.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn place_of(remote: IpAddr) -> usize {
    let bits = match remote {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 ^ (ip.to_bits() as u64).rotate_left(23),
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::{QUESTIONS_PER_SECOND, Sources};

    #[test]
    fn the_loopback_answers_from_the_address_that_is_asked_first() {
        let mut sources = Sources::new();
        sources.tick();
        let remote = "127.0.0.9:1".parse().unwrap();
        // For all of 127/8 the system chooses 127.0.0.1.
        assert!(sources.is_chosen("127.0.0.1".parse().unwrap(), remote));
        assert!(!sources.is_chosen("127.0.0.2".parse().unwrap(), remote));
        assert!(!sources.is_chosen("127.0.0.1".parse().unwrap(), "[::1]:1".parse().unwrap()));
    }

    #[test]
    fn questions_are_bounded_and_who_is_not_known_is_told() {
        let mut sources = Sources::new();
        sources.tick();
        sources.questions = QUESTIONS_PER_SECOND;
        assert!(!sources.is_chosen("127.0.0.1".parse().unwrap(), "127.0.0.9:1".parse().unwrap()));
    }
}
