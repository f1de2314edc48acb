//! Whether a packet goes in one piece, as two halves, or back to its sender.
//!
//! Each peer has its own answer: one bad path makes no packets to others shorter. A packet of up to 1280 bytes passes always, because
//! IPv6 and QUIC need that much: as two halves, if it must. A longer one goes as two halves where its sender lets routers cut it
//! (IPv4 without "don't fragment"), and while the size is being searched, which takes a moment, and after which whoever sends it would
//! long remember having been refused. Else its sender is told what passes.

use mesh_wire::half::{HALF_HEADER_BYTES, cut};

use super::{INSIDE_BYTES_MIN, OUTER_BYTES_ASSUMED, OuterSize, Size};
use crate::gateway::paths::{Path, Paths};

/// How a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Fit {
    /// In one piece.
    Whole,
    /// As two halves.
    Halves,
    /// Not at all: packets of so many bytes would.
    TooBig(u16),
}

/// The same by the longest packet that goes in one piece, `whole` bytes. `searching`: whether that may be more in a moment.
pub(super) fn fit(packet: &[u8], whole: usize, searching: bool) -> Fit {
    if packet.len() <= whole {
        return Fit::Whole;
    }
    let by_halves = whole.saturating_sub(HALF_HEADER_BYTES) * 2;
    let least = usize::from(INSIDE_BYTES_MIN);
    let passes = packet.len() <= least || searching || may_be_cut(packet);
    if passes && HALF_HEADER_BYTES + cut(packet.len()) <= whole {
        return Fit::Halves;
    }
    let would = if searching { by_halves } else { whole.max(least.min(by_halves)) };
    Fit::TooBig(u16::try_from(would).unwrap_or(u16::MAX))
}

/// Whether the sender of a packet lets routers cut it (RFC 791: the flag "don't fragment" is not set).
fn may_be_cut(packet: &[u8]) -> bool {
    matches!(packet, [first, _, _, _, _, _, flags, ..] if first >> 4 == 4 && flags & 0x40 == 0)
}

impl Paths {
    /// How a packet goes by the path that carries.
    pub(in crate::gateway) fn fit(&mut self, path: &Path, outer: OuterSize, packet: &[u8]) -> Fit {
        let OuterSize::Assumed = outer else {
            return fit(packet, path.inner_bytes(outer.bytes()), false);
        };
        if packet.len() <= path.inner_bytes(OUTER_BYTES_ASSUMED) {
            return Fit::Whole;
        }
        let size = self.size_mut();
        let (whole, searching) = size.of_path(path);
        let fit = fit(packet, whole, searching);
        if fit == Fit::Whole {
            size.note_used();
        }
        fit
    }

    /// The longest packet that goes by the path that carries in one piece, in bytes.
    pub(in crate::gateway) fn whole_bytes(&self, path: &Path, outer: OuterSize) -> usize {
        match outer {
            OuterSize::Assumed => self.size().of_path(path).0,
            OuterSize::Fixed(_) => path.inner_bytes(outer.bytes()),
        }
    }

    /// Notes that a packet of so many bytes went in one piece.
    pub(in crate::gateway) fn note_whole(&mut self, path: &Path, bytes: usize) {
        if bytes > path.inner_bytes(OUTER_BYTES_ASSUMED) {
            self.size_mut().note_used();
        }
    }

    /// The longest packet that TCP may be let send by the path that carries, in bytes: what goes in one piece. While the size is
    /// searched, the other direction serves as a hint; where it leads astray, what is too long goes as halves or is refused.
    pub(in crate::gateway) fn segment_bytes(&self, path: &Path, outer: OuterSize) -> usize {
        let OuterSize::Assumed = outer else { return path.inner_bytes(outer.bytes()) };
        let size = self.size();
        let (whole, searching) = size.of_path(path);
        let hint = if searching && size.heard() > OUTER_BYTES_ASSUMED { path.inner_bytes(size.heard()) } else { 0 };
        whole.max(hint)
    }
}

impl Size {
    /// The longest outer packet that `path` is known to carry, in bytes.
    pub(in crate::gateway::paths) fn shown(&self, path: &Path, outer: OuterSize) -> u16 {
        if outer == OuterSize::Assumed && self.is_of(path) { self.proven() } else { outer.bytes() }
    }

    /// The longest inner packet that goes by `path` in one piece, in bytes, and whether that may be more in a moment.
    fn of_path(&self, path: &Path) -> (usize, bool) {
        if self.is_of(path) {
            (path.inner_bytes(self.proven()), self.is_searching())
        } else {
            (path.inner_bytes(OUTER_BYTES_ASSUMED), true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fit, fit};

    fn packet(version: u8, bytes: usize, flags: u8) -> Vec<u8> {
        let mut packet = vec![0; bytes];
        (packet[0], packet[6]) = (version << 4, flags);
        packet
    }

    #[test]
    fn what_fits_goes_in_one_piece() {
        assert_eq!(fit(&packet(6, 1408, 0), 1408, false), Fit::Whole);
        assert_eq!(fit(&packet(6, 100, 0), 1188, true), Fit::Whole);
    }

    #[test]
    fn what_ipv6_needs_passes_whatever_the_path() {
        for whole in [1188, 1208, 1279, 700] {
            assert_eq!(fit(&packet(6, 1280, 0), whole, false), Fit::Halves, "{whole}");
            assert_eq!(fit(&packet(6, 1281, 0), whole, false), Fit::TooBig(1280), "{whole}");
        }
        // Of the least that a user may set halves carry less.
        assert!(matches!(fit(&packet(6, 1280, 0), 500, false), Fit::TooBig(bytes) if (980..1000).contains(&bytes)));
    }

    #[test]
    fn what_may_be_cut_is_cut_and_what_may_not_is_refused() {
        assert_eq!(fit(&packet(4, 1400, 0), 1208, false), Fit::Halves);
        assert_eq!(fit(&packet(4, 1400, 0x40), 1208, false), Fit::TooBig(1280));
        assert_eq!(fit(&packet(4, 1400, 0x40), 1328, false), Fit::TooBig(1328));
        assert_eq!(fit(&packet(6, 1400, 0), 1328, false), Fit::TooBig(1328), "nobody cuts IPv6");
    }

    #[test]
    fn nobody_is_refused_while_it_is_not_known() {
        assert_eq!(fit(&packet(6, 1408, 0), 1188, true), Fit::Halves);
        let Fit::TooBig(bytes) = fit(&packet(6, 8908, 0), 1188, true) else { panic!("two halves are not enough") };
        assert_eq!(fit(&packet(6, usize::from(bytes), 0), 1188, true), Fit::Halves);
    }
}
