//! How a peer is reached: through a relay from the first packet, and without one as soon as a better path has proven itself.
//!
//! - `candidates.rs`: where we may be reached, as peers are told, and which of their places are tried;
//! - `gauge.rs`: what is known of how well a path carries;
//! - `table.rs`: the paths of one peer, when each is probed, and which one carries;
//! - `probing.rs`: probes and their answers;
//! - `size.rs`: how long the packets are that a path carries;
//! - `search.rs` with `ports.rs`: peers whose NAT shows nobody a place that is good for others.
//!
//! A path counts only after a probe on it was answered on it, under the keys of the session. While it carries traffic it is
//! probed several times a second, and left for the relay within two seconds of falling silent in either direction; then it
//! has to prove itself for longer before it carries again.

mod budget;
mod candidates;
mod gauge;
mod ports;
mod probing;
mod search;
mod size;
mod table;

use std::net::SocketAddr;

use mesh_wire::route::{Destination, Route, Slot};
use mesh_wire::sealed::OVERHEAD_BYTES;
use serde::{Deserialize, Serialize};

pub(super) use self::budget::Unproven;
pub(super) use self::candidates::{Candidates, Exchange, is_place};
pub(super) use self::search::{PeerSearch, Search};
pub use self::search::{SEARCH_SOCKETS, SEARCH_SOCKETS_KEPT, SearchState};
pub(super) use self::size::{Fit, INSIDE_BYTES_MIN, OUTER_BYTES_USUAL};
use self::size::{IPV4_UDP_BYTES, IPV6_UDP_BYTES};
pub use self::size::{OUTER_BYTES_ASSUMED, OuterSize, PROBED_BYTES};
pub(super) use self::table::Paths;
use super::local::LocalAddress;
use crate::seam::Endpoint;

/// New endpoints of peers that are asked whether it is they, each second and at once, of all peers.
pub(super) const STRANGERS_PER_SECOND: u32 = 4;
pub(super) const STRANGERS_BURST: u32 = 64;

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

impl PathKind {
    /// Of a path to `endpoint` without a relay.
    pub(super) fn of(endpoint: &Endpoint, local: &[LocalAddress]) -> Self {
        let neighbour = local.iter().any(|local| local.is_neighbour(endpoint.remote.ip()));
        if neighbour { Self::Lan } else { Self::Direct }
    }
}

/// Which paths may carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathChoice {
    /// The best one.
    #[default]
    Auto,
    /// The relay alone: nothing else is tried, and peers are told of no place.
    Relay,
    /// Only without a relay, be it on the local network or not.
    Direct,
    /// Only on the local network.
    Lan,
}

impl PathChoice {
    /// Whether a path of this kind may carry.
    pub const fn allows(self, kind: PathKind) -> bool {
        matches!(
            (self, kind),
            (Self::Auto, _)
                | (Self::Relay, PathKind::Relay)
                | (Self::Direct, PathKind::Direct | PathKind::Lan)
                | (Self::Lan, PathKind::Lan)
        )
    }
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

    /// Straight to the peer.
    pub(super) const fn straight(kind: PathKind, endpoint: Endpoint) -> Self {
        Self { kind, endpoint, route: Route::DIRECT }
    }

    /// The longest inner packet that travels in one outer packet of `outer` bytes, in bytes.
    pub(super) const fn inner_bytes(&self, outer: u16) -> usize {
        let headers = if self.endpoint.remote.is_ipv4() { IPV4_UDP_BYTES } else { IPV6_UDP_BYTES };
        (outer as usize).saturating_sub(headers + OVERHEAD_BYTES)
    }
}

/// A path to a peer, as status shows it.
#[derive(Clone, Debug, Serialize)]
pub struct PathStatus {
    /// What kind.
    pub kind: PathKind,
    /// Where datagrams are sent: the peer, or its relay.
    pub endpoint: Option<SocketAddr>,
    /// Whether it carries what we send.
    pub active: bool,
    /// Whether it has proven itself in both directions, and is not silent.
    pub proven: bool,
    /// Smoothed round-trip time, in microseconds, where it was measured.
    pub rtt_micros: Option<u64>,
    /// Mean deviation of round-trip times, in microseconds.
    pub jitter_micros: u64,
    /// Frames lost of a thousand on the way to the peer, of late.
    pub loss_permille: u16,
    /// The longest IP packet that it is known to carry to the peer, IP and UDP headers included, in bytes: what every path is assumed
    /// to carry, until it has proven more; or what the user has set.
    pub mtu_bytes: u16,
}
