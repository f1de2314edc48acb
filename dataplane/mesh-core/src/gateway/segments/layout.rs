//! Where the headers of a TCP or UDP packet lie, and its checksums.

use super::checksum::{fold, sum};
use super::virtio::{CutKind, Partial};
use crate::gateway::ip::{IPV4_BYTES, IPV6_BYTES, protocol};

/// Bytes of a TCP header without options.
pub(super) const TCP_BYTES: usize = 20;
/// Bytes of a UDP header.
pub(super) const UDP_BYTES: usize = 8;
/// The longest headers there are: IPv4 and TCP, each with 40 bytes of options.
pub(super) const HEADERS_MAX: usize = 60 + 60;

/// Flags of a TCP header, in its byte 13.
pub(super) mod tcp {
    pub(in crate::gateway::segments) const FIN: u8 = 0x01;
    pub(in crate::gateway::segments) const SYN: u8 = 0x02;
    pub(in crate::gateway::segments) const RST: u8 = 0x04;
    pub(in crate::gateway::segments) const PSH: u8 = 0x08;
    pub(in crate::gateway::segments) const URG: u8 = 0x20;
    pub(in crate::gateway::segments) const CWR: u8 = 0x80;
}

/// The transports whose packets are cut and joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Where in its header the checksum is.
    pub(super) const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }
}

/// Where the headers of a packet lie that is whole, TCP or UDP, and no fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// IPv6, else IPv4.
    pub(super) v6: bool,
    /// What follows the IP header.
    pub(super) transport: Transport,
    /// Where it starts: the bytes of the IP header. At most 60.
    pub(super) transport_at: usize,
    /// Bytes of both headers: where the payload starts. At most [`HEADERS_MAX`].
    pub(super) header_bytes: usize,
}

impl Layout {
    /// Reads the headers. `None` for what is not TCP or UDP right behind the IP header (IPv4 options may lie between,
    /// IPv6 extension headers may not), for fragments, and where a length does not fit the bytes at hand.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let (v6, protocol, transport_at) = match packet.first()? >> 4 {
            4 => {
                let header: &[u8; IPV4_BYTES] = packet.first_chunk()?;
                let header_bytes = usize::from(header[0] & 0x0f) * 4;
                let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
                let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
                if header_bytes < IPV4_BYTES || fragment != 0 || total != packet.len() {
                    return None;
                }
                (false, header[9], header_bytes)
            }
            6 => {
                let header: &[u8; IPV6_BYTES] = packet.first_chunk()?;
                if IPV6_BYTES + usize::from(u16::from_be_bytes([header[4], header[5]])) != packet.len() {
                    return None;
                }
                (true, header[6], IPV6_BYTES)
            }
            _ => return None,
        };
        let segment = packet.get(transport_at..)?;
        let (transport, transport_bytes) = match protocol {
            protocol::TCP => {
                let header: &[u8; TCP_BYTES] = segment.first_chunk()?;
                let bytes = usize::from(header[12] >> 4) * 4;
                if bytes < TCP_BYTES || bytes > segment.len() {
                    return None;
                }
                (Transport::Tcp, bytes)
            }
            protocol::UDP => {
                let header: &[u8; UDP_BYTES] = segment.first_chunk()?;
                if usize::from(u16::from_be_bytes([header[4], header[5]])) != segment.len() {
                    return None;
                }
                (Transport::Udp, UDP_BYTES)
            }
            _ => return None,
        };
        Some(Self { v6, transport, transport_at, header_bytes: transport_at + transport_bytes })
    }

    /// Where the transport's checksum field is.
    pub(super) const fn checksum_at(&self) -> usize {
        self.transport_at + self.transport.checksum_offset()
    }

    /// How an interface is asked to complete the transport's checksum.
    pub(super) fn partial(&self) -> Partial {
        Partial {
            start: u16::try_from(self.transport_at).expect("at most 60"),
            offset: u16::try_from(self.transport.checksum_offset()).expect("at most 16"),
        }
    }

    /// What several of such packets are together.
    pub(super) const fn kind(&self) -> CutKind {
        match (self.transport, self.v6) {
            (Transport::Tcp, false) => CutKind::Tcp4,
            (Transport::Tcp, true) => CutKind::Tcp6,
            (Transport::Udp, _) => CutKind::Udp,
        }
    }

    /// Both IP addresses.
    pub(super) fn addresses<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        if self.v6 { &packet[8..IPV6_BYTES] } else { &packet[12..IPV4_BYTES] }
    }

    /// Both ports.
    pub(super) fn ports<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        &packet[self.transport_at..self.transport_at + 4]
    }

    /// The sum of the pseudo header (RFC 9293, section 3.1, and RFC 8200, section 8.1) of such a packet whose transport
    /// header and payload are `transport_bytes` long. Not complemented: this is what the field of a partial checksum
    /// holds.
    pub(super) fn pseudo_sum(&self, packet: &[u8], transport_bytes: usize) -> u16 {
        let addresses = u64::from(sum(self.addresses(packet)));
        fold(addresses + u64::from(self.transport.protocol()) + transport_bytes as u64)
    }

    /// What the complete checksum of the transport has to be. The field itself is not read.
    pub(super) fn checksum(&self, packet: &[u8]) -> u16 {
        let at = self.checksum_at();
        let segment = &packet[self.transport_at..];
        // The field starts at an even byte of its header: the pieces' words are those of the whole.
        let before = sum(&packet[self.transport_at..at]);
        let behind = sum(&packet[at + 2..]);
        let pseudo = self.pseudo_sum(packet, segment.len());
        let checksum = !fold(u64::from(pseudo) + u64::from(before) + u64::from(behind));
        match (self.transport, checksum) {
            // Zero would say that there is none (RFC 768).
            (Transport::Udp, 0) => 0xffff,
            _ => checksum,
        }
    }
}

/// What the checksum of an IPv4 header has to be. The field itself is not read.
pub(super) fn ipv4_checksum(header: &[u8]) -> u16 {
    !fold(u64::from(sum(&header[..10])) + u64::from(sum(&header[12..])))
}

/// The 16-bit number at a place of a header.
pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The 32-bit number at a place of a header.
pub(super) fn double_word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes a 16-bit number into a header.
pub(super) fn put_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
