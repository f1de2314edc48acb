//! What a link does to the datagrams that cross it.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

/// The way between one point and the middle of the Internet, across a local network, or along a cable; both directions
/// alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Time every datagram takes.
    pub delay: Duration,
    /// Up to this much more, drawn for each datagram: datagrams overtake each other.
    pub jitter: Duration,
    /// Share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplication: f64,
    /// Longest IP packet in bytes, headers included; longer ones vanish, and nobody is told.
    pub mtu: usize,
    /// Whether anything passes at all.
    pub up: bool,
}

impl Link {
    /// 5 ms, and nothing else happens.
    pub const CLEAN: Self = Self {
        delay: Duration::from_millis(5),
        jitter: Duration::ZERO,
        loss: 0.0,
        duplication: 0.0,
        mtu: 1500,
        up: true,
    };

    /// A bad day: jitter, loss, duplicates.
    pub const ROUGH: Self = Self {
        delay: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        loss: 0.03,
        duplication: 0.02,
        mtu: 1500,
        up: true,
    };

    /// A local network: 0.2 ms.
    pub const LAN: Self = Self { delay: Duration::from_micros(200), ..Self::CLEAN };

    /// The last metre of a host on a local network: it takes no time.
    pub const CABLE: Self = Self { delay: Duration::ZERO, ..Self::CLEAN };

    /// When each copy of one datagram arrives after crossing this link: none when it is lost.
    fn cross(&self, rng: &mut ChaCha12Rng, ip_bytes: usize, copies: &mut Vec<Duration>) {
        if !self.up || ip_bytes > self.mtu || rng.random_bool(self.loss) {
            return;
        }
        let count = if rng.random_bool(self.duplication) { 2 } else { 1 };
        for _ in 0..count {
            let jitter = self.jitter.mul_f64(rng.random::<f64>());
            copies.push(self.delay + jitter);
        }
    }

    /// When each copy of one datagram arrives after crossing all of `links` in turn.
    pub(super) fn cross_all(links: &[Self], rng: &mut ChaCha12Rng, ip_bytes: usize) -> Vec<Duration> {
        let mut copies = vec![Duration::ZERO];
        for link in links {
            let mut further = Vec::with_capacity(copies.len());
            for time in copies {
                let first = further.len();
                link.cross(rng, ip_bytes, &mut further);
                for copy in &mut further[first..] {
                    *copy += time;
                }
            }
            copies = further;
        }
        copies
    }
}
