//! What a receive tells beside the payload: the name and the control messages as the kernel writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for the source address: `sockaddr_in6` has 28 bytes.
pub const NAME_BYTES: usize = 32;
/// Room for control messages: segment size and TOS (24 each), packet info (40 by IPv6, 32 by IPv4), and 24 to spare.
pub const CONTROL_BYTES: usize = 112;

/// What a receive tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The sender. IPv4 is always `SocketAddr::V4`, whatever the family of the socket.
    pub remote: SocketAddr,
    /// The local address that was asked, where the socket reports it.
    pub local: Option<IpAddr>,
    /// Bytes of payload.
    pub length: usize,
    /// Stride of the datagrams in bytes, from 1 to `length` (1 for an empty datagram).
    pub segment_bytes: usize,
    /// The TOS byte of the outer header; zero where unknown.
    pub tos: u8,
}

/// Reads a name and control messages of a receive of `length` bytes; `flags` are those of the message. `None` if the payload or
/// what is told of it was cut, or makes no sense.
pub fn parse(name: &[u8], control: &[u8], length: usize, flags: i32) -> Option<Received> {
    if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return None;
    }
    let mut received =
        Received { remote: parse_name(name)?, local: None, length, segment_bytes: length.max(1), tos: 0 };
    for message in (ControlMessages { bytes: control }) {
        match (message.level, message.kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let bytes = usize::try_from(read_u32(message.data, 0)?).ok()?;
                if (1..length).contains(&bytes) {
                    received.segment_bytes = bytes;
                }
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => received.tos = *message.data.first()?,
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => received.tos = read_u32(message.data, 0)? as u8,
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // struct in_pktinfo: interface, local address to answer from, address in the header.
                let local: [u8; 4] = message.data.get(4..8)?.try_into().ok()?;
                received.local = Some(Ipv4Addr::from(local).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let local: [u8; 16] = message.data.get(..16)?.try_into().ok()?;
                received.local = Some(Ipv6Addr::from(local).to_canonical());
            }
            _ => {}
        }
    }
    Some(received)
}

/// A `sockaddr_in` or `sockaddr_in6`; a mapped IPv4 address becomes an IPv4 one.
fn parse_name(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(name.get(..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(ip.into(), port).into())
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            let ip = Ipv6Addr::from(ip);
            Some(match ip.to_ipv4_mapped() {
                Some(ip) => SocketAddrV4::new(ip, port).into(),
                // The scope matters for link-local addresses only, and is zero else.
                None => SocketAddrV6::new(ip, port, 0, read_u32(name, 24)?).into(),
            })
        }
        _ => None,
    }
}

/// One control message.
struct ControlMessage<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
}

/// Walks over `struct cmsghdr`s: a length of pointer size that includes the header, level and type, data, padding.
struct ControlMessages<'a> {
    bytes: &'a [u8],
}

const CMSG_ALIGN: usize = size_of::<usize>();
const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();

impl<'a> Iterator for ControlMessages<'a> {
    type Item = ControlMessage<'a>;

    fn next(&mut self) -> Option<ControlMessage<'a>> {
        let length = usize::from_ne_bytes(self.bytes.get(..size_of::<usize>())?.try_into().ok()?);
        let data = self.bytes.get(CMSG_HEADER..length)?;
        let level = read_u32(self.bytes, CMSG_HEADER - 8)?.cast_signed();
        let kind = read_u32(self.bytes, CMSG_HEADER - 4)?.cast_signed();
        self.bytes = self.bytes.get(length.next_multiple_of(CMSG_ALIGN)..).unwrap_or_default();
        Some(ControlMessage { level, kind, data })
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    //! Control messages as the kernel writes them, and as it never should.

    use std::net::SocketAddr;

    use super::{CONTROL_BYTES, NAME_BYTES, Received, parse};

    /// The name `127.0.0.1:7`.
    fn name() -> [u8; NAME_BYTES] {
        let mut bytes = [0; NAME_BYTES];
        bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        bytes[2..8].copy_from_slice(&[0, 7, 127, 0, 0, 1]);
        bytes
    }

    fn control(messages: &[(i32, i32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (level, kind, data) in messages {
            bytes.extend_from_slice(&(16 + data.len()).to_ne_bytes());
            bytes.extend_from_slice(&level.to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    fn parsed(messages: &[(i32, i32, &[u8])], length: usize, flags: i32) -> Option<Received> {
        parse(&name(), &control(messages), length, flags)
    }

    #[test]
    fn segment_size_tos_and_local_address_are_read() {
        let gro = 100_i32.to_ne_bytes();
        let mut info = [0; 12];
        info[4..8].copy_from_slice(&[127, 0, 0, 2]);
        let messages: [(i32, i32, &[u8]); 3] = [
            (libc::SOL_UDP, libc::UDP_GRO, &gro),
            (libc::IPPROTO_IP, libc::IP_TOS, &[0xb8]),
            (libc::IPPROTO_IP, libc::IP_PKTINFO, &info),
        ];
        let received = parsed(&messages, 250, 0).unwrap();
        assert_eq!((received.length, received.segment_bytes, received.tos), (250, 100, 0xb8));
        assert_eq!(received.remote, SocketAddr::from(([127, 0, 0, 1], 7)));
        assert_eq!(received.local, Some([127, 0, 0, 2].into()));
    }

    #[test]
    fn a_datagram_alone_is_its_own_stride_and_an_empty_one_has_stride_one() {
        assert_eq!(parsed(&[], 250, 0).unwrap().segment_bytes, 250);
        let received = parsed(&[], 0, 0).unwrap();
        assert_eq!((received.length, received.segment_bytes), (0, 1));
    }

    #[test]
    fn what_was_cut_is_refused() {
        assert_eq!(parsed(&[], 10, libc::MSG_TRUNC), None);
        assert_eq!(parsed(&[], 10, libc::MSG_CTRUNC), None);
        assert_eq!(parse(&name()[..3], &[], 10, 0), None);
    }

    #[test]
    fn nonsense_in_control_messages_ends_the_walk() {
        let mut bytes = control(&[(libc::IPPROTO_IP, libc::IP_TOS, &[4])]);
        for length in [0_usize, 1, 15, CONTROL_BYTES + 1, usize::MAX] {
            bytes[..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(parse(&name(), &bytes, 1, 0).unwrap().tos, 0);
        }
    }
}
