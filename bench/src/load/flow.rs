//! A flow: one stream of datagrams through a relay.

use std::net::SocketAddrV4;

use mesh_wire::route::ROUTE_BYTES;

/// One stream of datagrams: from a client in the sending host, through a relay, to a client in the receiving host.
///
/// A datagram is `head` and a body. The body has the layout of a data frame of the real wire ([`super::frame`]), and as many bytes as
/// the cell's payload says; `head` is what some rivals want before it (ChannelData of TURN). What leaves the relay is the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where its datagrams come from, in the sending host.
    pub from: SocketAddrV4,
    /// Where they are sent: a port of the relay.
    pub to: SocketAddrV4,
    /// Where they must arrive, in the receiving host.
    pub arrives: SocketAddrV4,
    /// What the relay wants before the body; the same for each datagram of one payload size, made by the system.
    pub head: Head,
    /// The first bytes of the body: destination and source, as the relay assigned them or as a rival reads them.
    pub route: [u8; ROUTE_BYTES],
}

/// What a relay wants before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Head {
    /// Nothing.
    #[default]
    Nothing,
    /// A ChannelData header of TURN (RFC 8656, section 12.4): this channel number, then the length of the body.
    Channel(u16),
}
