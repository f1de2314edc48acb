//! From inside to outside: the packets that a superpacket stands for.
//!
//! What Linux does when it segments in software (`tcp_gso_segment`, `__udp_gso_segment` and `inet_gso_segment`) is done
//! here, one packet at a time, each written where it is wanted. A packet's checksum field holds the sum of its pseudo
//! header, not complemented: it travels with [`CHECKSUM_PARTIAL`](mesh_wire::sealed::flags::CHECKSUM_PARTIAL), and the
//! far side either asks its interface to go on from there, or calls [`complete`](super::complete).

use super::checksum::{fold, sum};
use super::layout::{HEADERS_MAX, Layout, Transport, double_word, put_word, tcp};
use super::virtio::VirtioHeader;
use crate::drops::DropReason;
use crate::gateway::ip::IPV6_BYTES;

/// Gives the packets of one superpacket, in order.
#[derive(Debug)]
pub(in crate::gateway) struct Cutter<'a> {
    layout: Layout,
    /// The headers of the next packet.
    template: [u8; HEADERS_MAX],
    /// The sum of the IPv4 header without length, identification and checksum.
    header_sum: u64,
    /// Identification of the next packet, IPv4.
    id: u16,
    /// FIN and PSH of the superpacket, which are for the last packet.
    last_flags: u8,
    payload: &'a [u8],
    payload_bytes: usize,
    /// Payload written so far.
    written: usize,
}

impl<'a> Cutter<'a> {
    /// Begins with `packet`, in front of which `header` was found.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`]: the header asks for no cut; or the packet is no whole TCP or UDP packet of the kind
    /// that it says, is a fragment, has IPv6 extension headers or no payload; or the checksum is to be completed
    /// elsewhere than in its transport header. Linux itself cuts TCP whose checksum was not left to be completed, and
    /// so does this; never UDP.
    pub(in crate::gateway) fn new(packet: &'a [u8], header: &VirtioHeader) -> Result<Self, DropReason> {
        let cut = header.cut.ok_or(DropReason::BadOffload)?;
        let layout = Layout::read(packet).ok_or(DropReason::BadOffload)?;
        let checksum_fits = match header.checksum {
            Some(partial) => partial == layout.partial(),
            None => layout.transport == Transport::Tcp,
        };
        let (headers, payload) = packet.split_at(layout.header_bytes);
        if cut.kind != layout.kind() || !checksum_fits || cut.payload_bytes == 0 || payload.is_empty() {
            return Err(DropReason::BadOffload);
        }
        let mut template = [0; HEADERS_MAX];
        template[..layout.header_bytes].copy_from_slice(headers);
        let (mut header_sum, mut id, mut last_flags) = (0, 0, 0);
        if !layout.v6 {
            id = u16::from_be_bytes([headers[4], headers[5]]);
            header_sum = u64::from(sum(&headers[..2]))
                + u64::from(sum(&headers[6..10]))
                + u64::from(sum(&headers[12..layout.transport_at]));
        }
        if layout.transport == Transport::Tcp {
            let flags = &mut template[layout.transport_at + 13];
            last_flags = *flags & (tcp::FIN | tcp::PSH);
            *flags &= !(tcp::FIN | tcp::PSH);
        }
        let payload_bytes = usize::from(cut.payload_bytes).min(payload.len());
        let mut cutter = Self { layout, template, header_sum, id, last_flags, payload, payload_bytes, written: 0 };
        cutter.set_length(payload_bytes);
        Ok(cutter)
    }

    /// How many packets there are. At least one.
    pub(in crate::gateway) fn segments(&self) -> usize {
        self.payload.len().div_ceil(self.payload_bytes)
    }

    /// Bytes of the longest packet, which is the first.
    pub(in crate::gateway) fn longest(&self) -> usize {
        self.layout.header_bytes + self.payload_bytes
    }

    /// Bytes of all packets together.
    pub(in crate::gateway) fn total_bytes(&self) -> usize {
        self.segments() * self.layout.header_bytes + self.payload.len()
    }

    /// Writes the next packet to the start of `out`, which must have room for it, and says how long it is. `None` after
    /// the last.
    pub(in crate::gateway) fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        let left = self.payload.len() - self.written;
        if left == 0 {
            return None;
        }
        let Layout { transport, transport_at, header_bytes, v6 } = self.layout;
        let bytes = left.min(self.payload_bytes);
        if bytes < self.payload_bytes {
            self.set_length(bytes);
        }
        if bytes == left && transport == Transport::Tcp {
            self.template[transport_at + 13] |= self.last_flags;
        }
        if !v6 {
            put_word(&mut self.template, 4, self.id);
            let length = u64::from(u16::from_be_bytes([self.template[2], self.template[3]]));
            put_word(&mut self.template, 10, !fold(self.header_sum + length + u64::from(self.id)));
        }
        let (headers, payload) = out[..header_bytes + bytes].split_at_mut(header_bytes);
        headers.copy_from_slice(&self.template[..header_bytes]);
        payload.copy_from_slice(&self.payload[self.written..self.written + bytes]);

        self.written += bytes;
        self.id = self.id.wrapping_add(1);
        if transport == Transport::Tcp {
            let sequence = double_word(&self.template, transport_at + 4);
            let next = sequence.wrapping_add(u32::try_from(bytes).expect("a payload of a packet"));
            self.template[transport_at + 4..transport_at + 8].copy_from_slice(&next.to_be_bytes());
            self.template[transport_at + 13] &= !tcp::CWR;
        }
        Some(header_bytes + bytes)
    }

    /// Writes what depends on the length of the payload into the template: the lengths, and the pseudo header's sum.
    fn set_length(&mut self, payload_bytes: usize) {
        let Layout { transport, transport_at, header_bytes, v6 } = self.layout;
        let length = |bytes: usize| u16::try_from(bytes).expect("no longer than the superpacket");
        let transport_bytes = header_bytes - transport_at + payload_bytes;
        if v6 {
            put_word(&mut self.template, 4, length(header_bytes - IPV6_BYTES + payload_bytes));
        } else {
            put_word(&mut self.template, 2, length(header_bytes + payload_bytes));
        }
        if transport == Transport::Udp {
            put_word(&mut self.template, transport_at + 4, length(transport_bytes));
        }
        let pseudo = self.layout.pseudo_sum(&self.template, transport_bytes);
        put_word(&mut self.template, self.layout.checksum_at(), pseudo);
    }
}
