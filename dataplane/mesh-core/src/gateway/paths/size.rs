//! How long the packets are that a path carries: nobody fragments, and nobody is believed who says that a packet was too long,
//! since anybody could say it. Instead each path that carries is asked, by probes of the length in question that the peer answers
//! (DPLPMTUD, RFC 8899); what is not proven so is taken to be [`OUTER_BYTES_ASSUMED`].
//!
//! - `size/search.rs`: which lengths of one path are asked for, and when;
//! - `size/fit.rs`: whether a packet goes in one piece, as two halves, or back to its sender;
//! - `size/probes.rs`: the probes and their answers.

mod fit;
mod probes;
mod search;

use mesh_wire::sealed::OVERHEAD_BYTES;

pub(in crate::gateway) use self::fit::Fit;
use self::search::OUTER_BYTES_MAX;
pub(in crate::gateway) use self::search::OUTER_BYTES_USUAL;
pub use self::search::PROBED_BYTES;
pub(in crate::gateway) use self::search::Size;

/// Outer packet that every path is assumed to carry until it proves more, in bytes: the minimum MTU of IPv6 (RFC 8200).
pub const OUTER_BYTES_ASSUMED: u16 = 1280;
/// Least MTU of an interface that has IPv6, in bytes.
pub(in crate::gateway) const INSIDE_BYTES_MIN: u16 = 1280;
/// Outer IP and UDP headers, in bytes.
pub(super) const IPV4_UDP_BYTES: usize = 28;
pub(super) const IPV6_UDP_BYTES: usize = 48;

/// The outer packet that paths are taken to carry, IP and UDP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OuterSize {
    /// [`OUTER_BYTES_ASSUMED`], until a path has proven more.
    #[default]
    Assumed,
    /// Set by the user, in bytes: no path is asked. Values below 576 count as 576.
    Fixed(u16),
}

impl OuterSize {
    /// In bytes.
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Assumed => OUTER_BYTES_ASSUMED,
            Self::Fixed(bytes) if bytes < 576 => 576,
            Self::Fixed(bytes) => bytes,
        }
    }

    /// The MTU that the virtual interface begins with: what fits over either family in one piece, but at least 1280, which IPv6 needs.
    pub const fn inside_mtu(self) -> u16 {
        inside_mtu(self.bytes())
    }
}

/// The longest inner packet that an outer one of `outer` bytes carries over either family, in bytes, but at least 1280. So it stays
/// good when the path that carries changes from one family to the other.
pub(in crate::gateway) const fn inside_mtu(outer: u16) -> u16 {
    let fits = outer.saturating_sub((IPV6_UDP_BYTES + OVERHEAD_BYTES) as u16);
    if fits < INSIDE_BYTES_MIN { INSIDE_BYTES_MIN } else { fits }
}
