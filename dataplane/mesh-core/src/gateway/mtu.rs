//! The MTU of the virtual interface: it follows what paths to peers in use have proven.
//!
//! It is that of the *best* of these paths, because one bad path must not make packets to all others shorter; who sends too long a
//! packet to a peer behind a worse one is told so, or it goes as two halves (`paths/size/fit.rs`). It rises as soon as a path has
//! proven more, and falls when for a minute of traffic none of those in use carried so much: then there is nobody for whom it was
//! good. It counts what fits over IPv6, also where a path goes over IPv4, so that it stays when the path is another: 1408 bytes for
//! an outer packet of 1500. It is never below 1280, as Linux would take IPv6 from the interface for good.

use std::time::Duration;

use super::paths::INSIDE_BYTES_MIN;
use crate::seam::Moment;

/// It falls when no path in use carried so much for this time.
const FALL: Duration = Duration::from_secs(60);
/// When nothing was in use for this time, what was before says nothing.
const GAP: Duration = Duration::from_secs(5);
/// Between two changes.
const PAUSE: Duration = Duration::from_secs(1);

/// The MTU, and why.
#[derive(Debug)]
pub(super) struct InsideMtu {
    bytes: u16,
    /// A path in use last carried so much.
    reached_at: Moment,
    /// The most that others carried since.
    lesser: u16,
    followed_at: Moment,
    changed_at: Option<Moment>,
}

impl InsideMtu {
    pub(super) fn new(bytes: u16, now: Moment) -> Self {
        Self { bytes, reached_at: now, lesser: INSIDE_BYTES_MIN, followed_at: now, changed_at: None }
    }

    /// In bytes.
    pub(super) fn bytes(&self) -> u16 {
        self.bytes
    }

    /// A path to a peer in use carries inner packets of so many bytes; if it is not `settled`, it may carry more. Called each second
    /// at least for each of them. The new MTU, if it changes.
    pub(super) fn follow(&mut self, now: Moment, bytes: u16, settled: bool) -> Option<u16> {
        if now.since(self.followed_at) >= GAP {
            (self.reached_at, self.lesser) = (now, INSIDE_BYTES_MIN);
        }
        self.followed_at = now;
        let bytes = bytes.max(INSIDE_BYTES_MIN);
        if bytes >= self.bytes {
            (self.reached_at, self.lesser) = (now, INSIDE_BYTES_MIN);
        } else if settled {
            self.lesser = self.lesser.max(bytes);
        }
        let wanted = if bytes > self.bytes {
            bytes
        } else if now.since(self.reached_at) >= FALL {
            self.lesser
        } else {
            return None;
        };
        if self.changed_at.is_some_and(|at| now.since(at) < PAUSE) {
            return None;
        }
        self.bytes = wanted;
        self.changed_at = Some(now);
        (self.reached_at, self.lesser) = (now, INSIDE_BYTES_MIN);
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::InsideMtu;
    use crate::seam::Moment;

    const START: Moment = Moment::from_nanos(5_000_000_000);

    fn at(seconds: u64) -> Moment {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn it_rises_at_once_and_falls_after_a_minute_of_traffic_without_so_much() {
        let mut mtu = InsideMtu::new(1280, START);
        assert_eq!(mtu.follow(at(0), 1408, false), Some(1408));
        for second in 1..60 {
            assert_eq!(mtu.follow(at(second), 1308, true), None, "{second}");
        }
        assert_eq!(mtu.follow(at(60), 1280, true), Some(1308), "the best of what there was");
        assert_eq!(mtu.follow(at(62), 1408, true), Some(1408));
    }

    #[test]
    fn one_bad_path_takes_nothing_from_the_others() {
        let mut mtu = InsideMtu::new(1408, START);
        for second in 0..300 {
            assert_eq!(mtu.follow(at(second), 1280, true), None);
            assert_eq!(mtu.follow(at(second), 1408, true), None);
        }
        assert_eq!(mtu.bytes(), 1408);
    }

    #[test]
    fn silence_is_no_reason_to_fall() {
        let mut mtu = InsideMtu::new(1408, START);
        assert_eq!(mtu.follow(at(3_600), 1280, true), None);
        assert_eq!(mtu.follow(at(3_659), 1280, true), None, "a gap is silence, too");
        assert_eq!(mtu.bytes(), 1408);
    }

    #[test]
    fn it_changes_once_a_second_at_most_and_never_goes_below_what_ipv6_needs() {
        let mut mtu = InsideMtu::new(1280, START);
        assert_eq!(mtu.follow(at(0), 1308, true), Some(1308));
        assert_eq!(mtu.follow(at(0), 1408, true), None);
        assert_eq!(mtu.follow(at(1), 1408, true), Some(1408), "told at the next look");
        for second in 2..61 {
            assert_eq!(mtu.follow(at(second), 600, true), None);
        }
        assert_eq!(mtu.follow(at(61), 600, true), Some(1280));
    }
}
