//! How long the packets are that a path carries.

use mesh_wire::sealed::OVERHEAD_BYTES;

/// Outer packet that every path is assumed to carry until it proves more, in bytes: the minimum MTU of IPv6 (RFC 8200).
pub const OUTER_BYTES_ASSUMED: u16 = 1280;
/// Least MTU of an interface that has IPv6, in bytes.
const INSIDE_BYTES_MIN: u16 = 1280;
/// Outer IP and UDP headers, in bytes.
pub(super) const IPV4_UDP_BYTES: usize = 28;
pub(super) const IPV6_UDP_BYTES: usize = 48;

/// The outer packet that paths are taken to carry, IP and UDP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OuterSize {
    /// [`OUTER_BYTES_ASSUMED`]: no path has proven more.
    #[default]
    Assumed,
    /// Set by the user, in bytes; values below 576 count as 576.
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

    /// The MTU of the virtual interface: what fits over either family in one piece, but at least 1280, which IPv6 needs.
    pub const fn inside_mtu(self) -> u16 {
        let fits = self.bytes() - (IPV6_UDP_BYTES + OVERHEAD_BYTES) as u16;
        if fits < INSIDE_BYTES_MIN { INSIDE_BYTES_MIN } else { fits }
    }
}
