//! What the program around a gateway should know or do.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use mesh_wire::message::RefusedReason;
use mesh_wire::route::Slot;

use super::paths::PathKind;
use crate::seam::SocketId;
use crate::session::PublicKey;

/// Events that wait to be taken, at most; the oldest give way.
const EVENTS_MAX: usize = 1024;

/// Something happened that concerns the program or its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Resolve the transfer's name and call [`super::Gateway::set_transfer`]. Asked at the start, and each second while the
    /// transfer does not answer; there is at most one of these waiting.
    ResolveTransfer,
    /// The virtual address is held.
    Registered {
        /// The transfer's address.
        transfer: SocketAddr,
        /// Where it sees us. Over TCP that is a loopback address of its own machine, and nobody can reach us there.
        observed: SocketAddr,
        /// Our place in its table.
        slot: Slot,
        /// Whether this is the first time since the gateway's start.
        first: bool,
    },
    /// The transfer refuses the address. It is asked again each second; this is told once for each reason.
    Refused {
        /// Why.
        reason: RefusedReason,
        /// The address.
        ip4: Ipv4Addr,
        /// Whether it was never held since the gateway's start: then the program should end with an error.
        first: bool,
    },
    /// No answer for 5 s; told once until [`Event::TransferBack`].
    TransferSilent {
        /// The addresses that were tried; empty: its name never resolved.
        tried: Vec<SocketAddr>,
    },
    /// It answers again.
    TransferBack,
    /// UDP to the transfer gets no answer, or does again: connect a bridge over TCP and call [`super::Gateway::set_stream`], or take
    /// it down. Said only where there is a socket for it.
    StreamWanted(bool),
    /// The registration goes over TCP now, or over UDP again.
    OverTcp {
        /// The transfer's address.
        transfer: SocketAddr,
        /// Which of the two.
        over_tcp: bool,
    },
    /// Its static key is not the one that was pinned: nothing is done with it. Told once until it answers with the right one.
    TransferKeyChanged,
    /// It, or something in its place, speaks other versions of the wire. Told once until it answers.
    VersionMismatch {
        /// Lowest version spoken there.
        lowest: u8,
        /// Highest version spoken there.
        highest: u8,
    },
    /// A session with a peer exists.
    PeerUp {
        /// Its virtual address.
        ip4: Ipv4Addr,
        /// Its static key.
        key: PublicKey,
        /// Whether the key is vouched for.
        verified: bool,
    },
    /// The session with a peer ended.
    PeerDown {
        /// Its virtual address.
        ip4: Ipv4Addr,
    },
    /// Another path carries what we send to a peer.
    PathChanged {
        /// Its virtual address.
        ip4: Ipv4Addr,
        /// Kind of the path.
        kind: PathKind,
        /// Where the peer is, unless a relay forwards.
        endpoint: Option<SocketAddr>,
    },
    /// Set the MTU of the virtual interface: the paths to peers in use carry more than before, or less for a while. At most one a
    /// second.
    InsideMtu {
        /// In bytes, 1280 at least.
        bytes: u16,
    },
    /// Open so many more sockets for IPv4, bound and tied as the one there is but each to a port of the system's choice, and call
    /// [`super::Gateway::sockets_opened`] with those that could be; it is no failure if none could.
    OpenSockets {
        /// How many.
        count: u32,
    },
    /// Close these, which were opened so.
    CloseSockets(Vec<SocketId>),
    /// Derive the [`crate::session::mac::ObserverKey`] of the namespace of this port, from the same token, and call
    /// [`super::Gateway::set_observer_key`].
    ObserverKeyWanted {
        /// Another port of the transfer.
        port: u16,
    },
    /// Neither of us and a peer offers a cipher that the other accepts. Told once until there is a session with it.
    NoCommonCipher {
        /// Its virtual address.
        ip4: Ipv4Addr,
    },
    /// Someone in the place of a peer has another key than was vouched for.
    Impostor {
        /// The virtual address it claims.
        ip4: Ipv4Addr,
    },
}

/// Appends `event`.
pub(super) fn tell(events: &mut VecDeque<Event>, event: Event) {
    if event == Event::ResolveTransfer && events.contains(&event) {
        return;
    }
    if events.len() == EVENTS_MAX {
        events.pop_front();
    }
    events.push_back(event);
}
