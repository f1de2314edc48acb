//! How a peer is reached. Today by way of a relay; direct and LAN paths take the same shape.

use mesh_wire::route::{Destination, Route, Slot};
use mesh_wire::sealed::OVERHEAD_BYTES;
use serde::Serialize;

use crate::seam::Endpoint;

/// Outer packet that every path is assumed to carry until it proves more, in bytes: the minimum MTU of IPv6 (RFC 8200).
pub const OUTER_BYTES_ASSUMED: u16 = 1280;
/// Least MTU of an interface that has IPv6, in bytes.
const INSIDE_BYTES_MIN: u16 = 1280;
/// Outer IP and UDP headers, in bytes.
const IPV4_UDP_BYTES: usize = 28;
const IPV6_UDP_BYTES: usize = 48;

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

/// What kind of path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// A transfer forwards.
    Relay,
    /// Straight to the peer over the Internet.
    Direct,
    /// Straight to the peer over a local network.
    Lan,
}

/// One way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) kind: PathKind,
    /// Where datagrams are sent: the peer, or its relay.
    pub(super) endpoint: Endpoint,
    /// What their headers say.
    pub(super) route: Route,
}

impl Path {
    /// Through the transfer at `endpoint`, where we hold `ours` and the peer `theirs`.
    pub(super) const fn relayed(endpoint: Endpoint, ours: Slot, theirs: Slot) -> Self {
        let route = Route { destination: Destination::here(theirs), source: ours };
        Self { kind: PathKind::Relay, endpoint, route }
    }

    /// The longest inner packet that travels in one piece, in bytes.
    pub(super) const fn inner_bytes(&self, outer: OuterSize) -> usize {
        let headers = if self.endpoint.remote.is_ipv4() { IPV4_UDP_BYTES } else { IPV6_UDP_BYTES };
        outer.bytes() as usize - headers - OVERHEAD_BYTES
    }
}
