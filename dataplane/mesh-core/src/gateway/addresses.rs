//! Sockets and names as they are configured.

use std::net::SocketAddr;

use mesh_wire::message::NAME_BYTES_MAX;

use crate::seam::{Endpoint, SocketId};

/// The engine's sockets that the gateway sends by. One dual-stack socket may serve both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// For IPv4 remotes.
    pub ipv4: Option<SocketId>,
    /// For IPv6 remotes.
    pub ipv6: Option<SocketId>,
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
