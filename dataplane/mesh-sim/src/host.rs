//! Inner packets of the hosts behind simulated gateways: ICMP echo, and plain UDP with a marker.

use std::net::Ipv4Addr;

const IPV4_HEADER: usize = 20;
const ICMP: u8 = 1;
const UDP: u8 = 17;
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;

/// What an inner packet is to the test that reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inner {
    /// "Are you there?" from this address.
    EchoRequest {
        /// Sender.
        from: Ipv4Addr,
        /// Number of the request.
        sequence: u16,
    },
    /// The answer.
    EchoReply {
        /// Sender.
        from: Ipv4Addr,
        /// Number of the request.
        sequence: u16,
    },
    /// ICMP destination unreachable, with its code.
    Unreachable {
        /// RFC 792: 1 host, 4 too big.
        code: u8,
    },
    /// A UDP datagram.
    Udp {
        /// Sender.
        from: Ipv4Addr,
        /// Payload.
        payload: Vec<u8>,
    },
    /// Anything else.
    Other,
}

/// Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(IPV4_HEADER + payload.len()).expect("test packets are short");
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// An ICMP echo request of `data_bytes` bytes of data.
pub fn echo_request(from: Ipv4Addr, to: Ipv4Addr, sequence: u16, data_bytes: usize) -> Vec<u8> {
    let mut icmp = vec![ECHO_REQUEST, 0, 0, 0, 0x12, 0x34];
    icmp.extend_from_slice(&sequence.to_be_bytes());
    icmp.resize(8 + data_bytes, b'#');
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, ICMP, &icmp)
}

/// The reply to a request that [`read`] recognised.
pub fn echo_reply(request: &[u8]) -> Vec<u8> {
    let header = usize::from(request[0] & 0x0f) * 4;
    let address = |at: usize| Ipv4Addr::new(request[at], request[at + 1], request[at + 2], request[at + 3]);
    let mut icmp = request[header..].to_vec();
    icmp[0] = ECHO_REPLY;
    icmp[2..4].copy_from_slice(&[0, 0]);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(address(16), address(12), ICMP, &icmp)
}

/// A UDP datagram without checksum (RFC 768 allows it over IPv4).
pub fn udp(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("test packets are short");
    let mut datagram = vec![0x13, 0x88, 0x13, 0x88];
    datagram.extend_from_slice(&length.to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    ipv4(from, to, UDP, &datagram)
}

/// Reads an inner packet as far as tests need it; checks the checksums on the way.
///
/// # Panics
/// When an IPv4 header or ICMP checksum is wrong: no gateway may deliver such a packet here.
pub fn read(packet: &[u8]) -> Inner {
    if packet.len() < IPV4_HEADER || packet[0] >> 4 != 4 {
        return Inner::Other;
    }
    let header = usize::from(packet[0] & 0x0f) * 4;
    assert_eq!(checksum(&packet[..header]), 0, "the inner IPv4 header checksum is wrong");
    let from = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
    let body = &packet[header..];
    match packet[9] {
        ICMP if body.len() >= 8 => {
            assert_eq!(checksum(body), 0, "the inner ICMP checksum is wrong");
            let sequence = u16::from_be_bytes([body[6], body[7]]);
            match body[0] {
                ECHO_REQUEST => Inner::EchoRequest { from, sequence },
                ECHO_REPLY => Inner::EchoReply { from, sequence },
                UNREACHABLE => Inner::Unreachable { code: body[1] },
                _ => Inner::Other,
            }
        }
        UDP if body.len() >= 8 => Inner::Udp { from, payload: body[8..].to_vec() },
        _ => Inner::Other,
    }
}
