//! Whole frames, ready for the wire: Ethernet, IPv4, UDP, head and body, and before them what the kernel wants to know of a train.

use std::net::Ipv4Addr;

use mesh_wire::route::ROUTE_BYTES;
use mesh_wire::sealed::HEADER_BYTES;

use super::frame::{BODY_BYTES_MAX, FRONT_BYTES, Stamp};
use super::sys::{GSO_UDP_L4, NEEDS_CSUM, VNET_BYTES};
use super::{Flow, Head};

pub(super) const ETHERNET_BYTES: usize = 14;
pub(super) const IPV4_BYTES: usize = 20;
pub(super) const UDP_BYTES: usize = 8;

/// Where each header begins, behind that of virtio.
const ETHERNET_AT: usize = VNET_BYTES;
const IPV4_AT: usize = ETHERNET_AT + ETHERNET_BYTES;
const UDP_AT: usize = IPV4_AT + IPV4_BYTES;

/// Bytes before the UDP payload.
pub(super) const FRAME_HEAD_BYTES: usize = UDP_AT + UDP_BYTES;

/// The longest burst: it is one frame, whatever the size of its datagrams.
pub const BURST_MAX: u16 = 40;
const _: () = assert!(BURST_MAX as usize * (Head::CHANNEL_BYTES + BODY_BYTES_MAX) + IPV4_BYTES + UDP_BYTES <= 65_535);

const _: () = assert!(FRONT_BYTES == HEADER_BYTES + 12);

/// The frames of one flow.
#[derive(Clone, Debug)]
pub(super) struct Template {
    head: [u8; FRAME_HEAD_BYTES],
    channel: Option<u16>,
    route: [u8; ROUTE_BYTES],
    number: u32,
    /// Sums of 16-bit words, for the checksums: the IPv4 header but its length, and the pseudo header but its length.
    ipv4_sum: u32,
    pseudo_sum: u32,
}

impl Template {
    /// For flow `number`, from one MAC address to another.
    pub(super) fn new(number: u32, flow: &Flow, from_mac: [u8; 6], to_mac: [u8; 6]) -> Self {
        let mut head = [0; FRAME_HEAD_BYTES];
        head[0] = NEEDS_CSUM;
        head[2..4].copy_from_slice(&length_16(FRAME_HEAD_BYTES - VNET_BYTES).to_ne_bytes());
        head[6..8].copy_from_slice(&length_16(UDP_AT - VNET_BYTES).to_ne_bytes());
        head[8..10].copy_from_slice(&6_u16.to_ne_bytes()); // the checksum lies 6 bytes into the UDP header

        head[ETHERNET_AT..][..6].copy_from_slice(&to_mac);
        head[ETHERNET_AT + 6..][..6].copy_from_slice(&from_mac);
        head[ETHERNET_AT + 12..][..2].copy_from_slice(&[0x08, 0x00]);

        let ipv4 = &mut head[IPV4_AT..UDP_AT];
        ipv4[0] = 0x45;
        ipv4[6] = 0x40; // do not fragment
        ipv4[8] = 64;
        ipv4[9] = UDP_PROTOCOL;
        ipv4[12..16].copy_from_slice(&flow.from.ip().octets());
        ipv4[16..20].copy_from_slice(&flow.to.ip().octets());
        let ipv4_sum = sum(ipv4);

        head[UDP_AT..][..2].copy_from_slice(&flow.from.port().to_be_bytes());
        head[UDP_AT + 2..][..2].copy_from_slice(&flow.to.port().to_be_bytes());

        let channel = match flow.head {
            Head::Nothing => None,
            Head::Channel(channel) => Some(channel),
        };
        let pseudo_sum = sum_of_addresses(*flow.from.ip(), *flow.to.ip()) + u32::from(UDP_PROTOCOL);
        Self { head, channel, route: flow.route, number, ipv4_sum, pseudo_sum }
    }

    /// Bytes of one datagram that carries a body of `body_bytes`.
    pub(super) fn datagram_bytes(&self, body_bytes: u16) -> usize {
        let head = if self.channel.is_some() { Head::CHANNEL_BYTES } else { 0 };
        head + usize::from(body_bytes)
    }

    /// Writes a frame of 1 to [`BURST_MAX`] datagrams; its length, with the header of virtio.
    pub(super) fn write(&self, memory: &mut [u8], train: Train) -> usize {
        let Train { body_bytes, count, sequence, due, run } = train;
        let each = self.datagram_bytes(body_bytes);
        let bytes = each * usize::from(count);
        memory[..FRAME_HEAD_BYTES].copy_from_slice(&self.head);
        if count > 1 {
            memory[1] = GSO_UDP_L4;
            memory[4..6].copy_from_slice(&length_16(each).to_ne_bytes());
        }
        let total = length_16(IPV4_BYTES + UDP_BYTES + bytes);
        memory[IPV4_AT + 2..][..2].copy_from_slice(&total.to_be_bytes());
        memory[IPV4_AT + 10..][..2].copy_from_slice(&(!fold(self.ipv4_sum + u32::from(total))).to_be_bytes());
        let udp = length_16(UDP_BYTES + bytes);
        memory[UDP_AT + 4..][..2].copy_from_slice(&udp.to_be_bytes());
        // Not complemented: the card, or whoever stands for it, adds the rest.
        memory[UDP_AT + 6..][..2].copy_from_slice(&fold(self.pseudo_sum + u32::from(udp)).to_be_bytes());

        let mut stamp = Stamp { flow: self.number, sequence, due, run };
        for datagram in memory[FRAME_HEAD_BYTES..][..bytes].chunks_exact_mut(each) {
            let body = match self.channel {
                None => datagram,
                Some(channel) => {
                    let (head, body) = datagram.split_at_mut(Head::CHANNEL_BYTES);
                    head[..2].copy_from_slice(&channel.to_be_bytes());
                    head[2..].copy_from_slice(&body_bytes.to_be_bytes());
                    body
                }
            };
            let front = body.first_chunk_mut().expect("a body has at least 64 bytes");
            stamp.write(&self.route, front);
            stamp.sequence += 1;
        }
        FRAME_HEAD_BYTES + bytes
    }
}

/// What one frame carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train {
    /// Bytes of each body.
    pub(super) body_bytes: u16,
    /// How many datagrams.
    pub(super) count: u16,
    /// The first one's place in its flow.
    pub(super) sequence: u64,
    /// When they are due.
    pub(super) due: u64,
    /// The run.
    pub(super) run: u32,
}

const UDP_PROTOCOL: u8 = 17;

fn length_16(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("a frame carries at most 65,535 bytes")
}

/// Adds up 16-bit words (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn sum_of_addresses(from: Ipv4Addr, to: Ipv4Addr) -> u32 {
    sum(&from.octets()) + sum(&to.octets())
}

fn fold(mut sum: u32) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;

    fn template(head: Head) -> Template {
        let at = |last, port| SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, last), port);
        let flow = Flow { from: at(1, 2_000), to: at(2, 3_000), arrives: at(3, 4_000), head, route: [0x20; 16] };
        Template::new(5, &flow, [1; 6], [2; 6])
    }

    fn write(head: Head, body_bytes: u16, count: u16) -> Vec<u8> {
        let mut memory = vec![0; 70_000];
        let length = template(head).write(&mut memory, Train { body_bytes, count, sequence: 9, due: 77, run: 3 });
        memory.truncate(length);
        memory
    }

    #[test]
    fn a_single_datagram_is_a_plain_frame() {
        let frame = write(Head::Nothing, 64, 1);
        assert_eq!(frame.len(), FRAME_HEAD_BYTES + 64);
        assert_eq!(frame[1], 0, "no train");
        assert_eq!(fold(sum(&frame[IPV4_AT..UDP_AT])), 0xffff, "the IPv4 checksum is whole");
        assert_eq!(frame[IPV4_AT + 2..IPV4_AT + 4], 92_u16.to_be_bytes());
        assert_eq!(frame[UDP_AT..FRAME_HEAD_BYTES - 2], [0x07, 0xd0, 0x0b, 0xb8, 0, 72]);
        let stamp = Stamp::read(&frame[FRAME_HEAD_BYTES..]);
        assert_eq!(stamp, Some(Stamp { flow: 5, sequence: 9, due: 77, run: 3 }));
    }

    #[test]
    fn a_train_numbers_its_datagrams() {
        let frame = write(Head::Nothing, 1_472, 40);
        assert_eq!(frame[1], GSO_UDP_L4);
        assert_eq!(frame[4..6], 1_472_u16.to_ne_bytes());
        let stamps = frame[FRAME_HEAD_BYTES..].chunks(1_472).map(|body| Stamp::read(body).unwrap().sequence);
        assert_eq!(stamps.collect::<Vec<_>>(), (9..49).collect::<Vec<_>>());
    }

    #[test]
    fn the_udp_checksum_is_that_of_the_pseudo_header() {
        let frame = write(Head::Nothing, 100, 1);
        let pseudo = sum(&[10, 1, 0, 1, 10, 1, 0, 2, 0, 17, 0, 108]);
        assert_eq!(frame[UDP_AT + 6..FRAME_HEAD_BYTES], fold(pseudo).to_be_bytes());
    }

    #[test]
    fn channel_data_has_its_header_before_each_body() {
        let frame = write(Head::Channel(0x4001), 200, 2);
        for datagram in frame[FRAME_HEAD_BYTES..].chunks(204) {
            assert_eq!(datagram[..4], [0x40, 0x01, 0, 200]);
            assert!(Stamp::read(&datagram[4..]).is_some());
        }
    }

    #[test]
    fn the_longest_burst_is_one_frame() {
        assert_eq!(write(Head::Channel(0x4000), 1_472, BURST_MAX).len(), FRAME_HEAD_BYTES + 40 * 1_476);
    }
}
