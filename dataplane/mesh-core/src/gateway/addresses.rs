//! Sockets and names as they are configured, and sockets that are exchanged for others.

use std::net::SocketAddr;

use mesh_wire::message::NAME_BYTES_MAX;

use super::{Event, Gateway, Outgoing};
use crate::seam::{Endpoint, Moment, SocketId};

/// The number of no socket: an engine drops what is sent by it, and counts it.
const NO_SOCKET: SocketId = SocketId(u16::MAX);

/// The engine's sockets that the gateway sends by. One dual-stack socket may serve both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// For IPv4 remotes.
    pub ipv4: Option<SocketId>,
    /// For IPv6 remotes.
    pub ipv6: Option<SocketId>,
    /// Their ports; 0 where there is no socket, or nobody is to be told of it.
    pub ports: (u16, u16),
    /// Bound to a loopback address, for the bridge to a transfer that is reached over TCP and for nothing else; `None`: the
    /// transfer is reached over UDP only.
    pub stream: Option<SocketId>,
}

impl Sockets {
    /// How `remote` is sent to; `None` when there is no socket of its family.
    pub(super) fn endpoint(&self, remote: SocketAddr) -> Option<Endpoint> {
        let socket = if remote.is_ipv4() { self.ipv4 } else { self.ipv6 }?;
        Some(Endpoint { socket, remote, local: None })
    }

    /// Whether `socket` is one of these.
    pub(super) fn has(&self, socket: SocketId) -> bool {
        [self.ipv4, self.ipv6].contains(&Some(socket))
    }

    /// Moves an endpoint from a socket of `before` to the one that serves its family now; whether it has one. Other endpoints stay.
    fn adopt(&self, before: &Self, endpoint: &mut Endpoint) -> bool {
        let ours = [before.ipv4, before.ipv6, Some(NO_SOCKET)].contains(&Some(endpoint.socket));
        if !ours {
            return true;
        }
        // The local address that was asked belongs to the socket that is gone.
        let moved = self.endpoint(endpoint.remote);
        *endpoint = moved.unwrap_or(Endpoint { socket: NO_SOCKET, local: None, ..*endpoint });
        moved.is_some()
    }
}

impl Gateway {
    /// The sockets it sends by.
    pub fn sockets(&self) -> Sockets {
        self.sockets
    }

    /// Other sockets serve from now on: those before were closed, because the interface they were tied to is another. What is known of
    /// the transfer and what waits to be sent moves to the socket of its family; what waits for a family that has none is dropped.
    /// The transfer is asked for a sign of life at once. The socket for a stream concerns no interface, and stays.
    pub fn set_sockets(&mut self, now: Moment, sockets: Sockets) {
        let sockets = Sockets { stream: self.sockets.stream, ..sockets };
        let before = std::mem::replace(&mut self.sockets, sockets);
        if let Some(control) = &mut self.relay.control {
            sockets.adopt(&before, &mut control.endpoint);
        }
        if let Some(endpoint) = self.relay.attempt.as_mut().and_then(|attempt| attempt.endpoint_mut()) {
            sockets.adopt(&before, endpoint);
        }
        for endpoint in self.relay.fallback.beside_mut().into_iter().flatten() {
            sockets.adopt(&before, endpoint);
        }
        self.outbox.retain_mut(|outgoing| match outgoing {
            Outgoing::Send { to, .. } => sockets.adopt(&before, to),
            Outgoing::Deliver(_) => true,
        });
        for held in &mut self.held {
            sockets.adopt(&before, &mut held.from);
        }
        for id in self.peers.ids() {
            if let Some(peer) = self.peers.get_mut(id) {
                let straight = peer.adopt(|endpoint| sockets.adopt(&before, endpoint));
                self.peers.straight -= u32::from(straight);
            }
        }
        self.forget_searches(now);
        self.observe(now);
        self.collect_candidates(now);
        // Addresses of a family without a socket were left out when the name was resolved.
        self.tell(Event::ResolveTransfer);
        self.relay_network_changed(now);
    }
}

/// Whether two endpoints are the same remote over the same socket, whichever local address it asked.
pub(super) fn same(one: &Endpoint, other: &Endpoint) -> bool {
    one.remote == other.remote && one.socket == other.socket
}

/// A name that fits the wire: without control characters, cut at a character.
pub(super) fn shorten(name: String) -> String {
    let mut name: String = name.chars().filter(|character| !character.is_control()).collect();
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name
}
