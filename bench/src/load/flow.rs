//! A flow: one stream of datagrams through a relay.

use std::net::SocketAddrV4;
use std::ops::RangeInclusive;

use mesh_wire::route::ROUTE_BYTES;

/// One stream of datagrams: from a client in the sending host, through a relay, to a client in the receiving host.
///
/// A datagram is `head` and a body. The body has the layout of a data frame of the real wire ([`super::frame`]), and as many bytes as
/// the cell's payload says; `head` is what some rivals want before it (ChannelData of TURN). What leaves the relay is the body, with
/// ChannelData before it again where the receiver is a client of TURN too.
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

impl Head {
    /// Bytes of a ChannelData header.
    pub const CHANNEL_BYTES: usize = 4;
    /// With what a ChannelData header begins: the high bytes of all channel numbers (RFC 8656, section 12).
    pub const CHANNEL_FIRST_BYTES: RangeInclusive<u8> = 0x40..=0x4f;

    /// A datagram without its head.
    pub(super) fn skip(datagram: &[u8]) -> &[u8] {
        match datagram {
            [first, ..] if Self::CHANNEL_FIRST_BYTES.contains(first) => {
                datagram.get(Self::CHANNEL_BYTES..).unwrap_or_default()
            }
            _ => datagram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_as_channel_data_has_a_head() {
        assert_eq!(Head::skip(&[0x40, 0, 0, 1, 0x20]), [0x20]);
        assert!(Head::skip(&[0x4f, 0xff, 0, 0]).is_empty());
        assert!(Head::skip(&[0x40, 0]).is_empty());
        for body in [&[0x20, 1, 2, 3, 4][..], &[0x3f, 0, 0, 0], &[0x50, 0, 0, 0], &[]] {
            assert_eq!(Head::skip(body), body);
        }
    }
}
