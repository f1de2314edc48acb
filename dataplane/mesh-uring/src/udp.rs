//! UDP sockets: their options, and what a receive tells beside the payload.
//!
//! A multishot receive lays a slot out like this ([`HEADING_BYTES`] before the payload):
//!
//! ```text
//! +--------------------+--------------------+--------------------------+--------------------
//! | io_uring_recvmsg_  | source address     | control messages         | payload: the train
//! | out, 16 bytes      | NAME_BYTES         | CONTROL_BYTES            |
//! +--------------------+--------------------+--------------------------+--------------------
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use crate::config::Config;
use crate::sys::{get_option, set_option};

/// `struct io_uring_recvmsg_out`: lengths of name, control and payload, and flags, 32 bits each.
const OUT_BYTES: usize = 16;
/// Room for the source address: `sockaddr_in6` has 28 bytes.
pub(crate) const NAME_BYTES: usize = 32;
/// Room for control messages: segment size and TOS (24 each), packet info (40 by IPv6, 32 by IPv4), and 24 to spare.
pub(crate) const CONTROL_BYTES: usize = 112;
/// Bytes of a slot before the payload.
pub(crate) const HEADING_BYTES: usize = OUT_BYTES + NAME_BYTES + CONTROL_BYTES;

/// Buffer sizes that a socket has, as the kernel counts them (payload and its bookkeeping).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBuffers {
    /// Receive buffer in bytes.
    pub receive_bytes: u32,
    /// Send buffer in bytes.
    pub send_bytes: u32,
}

/// What the engine knows of one of its sockets.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) socket: UdpSocket,
    /// Whether addresses are given to it as IPv6.
    pub(crate) v6: bool,
    /// Datagrams that one send can carry: 1 where the kernel or the device cannot cut.
    pub(crate) segments_max: usize,
    /// Whether the kernel joins what arrives into trains.
    pub(crate) joins: bool,
    pub(crate) buffers: SocketBuffers,
    /// Tells the receive at hand from those of the number's earlier owners.
    pub(crate) generation: u32,
    /// Failures of the receive without a success in between.
    pub(crate) failures: u8,
    /// Whether its receive is in flight.
    pub(crate) armed: bool,
}

/// Sets the options the engine needs.
pub(crate) fn prepare(socket: UdpSocket, local_address: bool, generation: u32, config: &Config) -> io::Result<Socket> {
    let v6 = socket.local_addr()?.is_ipv6();
    let fd = socket.as_fd();
    // Nobody fragments, and the path MTU is the business of who sends: an oversize datagram is refused.
    set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
    // On a dual-stack socket the IPv4 options serve for what arrives by IPv4.
    set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
    if v6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    }
    match (local_address, v6) {
        (true, true) => set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
        (true, false) => set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
        (false, _) => {}
    }
    let (mut segments_max, mut joins) = (1, false);
    if config.offload {
        // A kernel without these (before 5.0 and 4.18) receives and sends datagrams one by one.
        joins = set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        if get_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok() {
            segments_max = crate::gather::SEGMENTS_MAX;
        }
    }
    let buffers = SocketBuffers {
        receive_bytes: buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, config.socket_receive_bytes)?,
        send_bytes: buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, config.socket_send_bytes)?,
    };
    Ok(Socket { socket, v6, segments_max, joins, buffers, generation, failures: 0, armed: false })
}

/// Enlarges a buffer, past the system's limit where permitted. Returns what it has then.
fn buffer(fd: BorrowedFd<'_>, force: i32, ask: i32, bytes: u32) -> io::Result<u32> {
    // The kernel doubles what is asked, to account for its bookkeeping, and tells the double.
    let half = i32::try_from(bytes / 2).unwrap_or(i32::MAX);
    if bytes > 0 && set_option(fd, libc::SOL_SOCKET, force, half).is_err() {
        set_option(fd, libc::SOL_SOCKET, ask, half)?;
    }
    Ok(get_option(fd, libc::SOL_SOCKET, ask)?.unsigned_abs())
}

/// What a receive tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    pub(crate) length: usize,
    pub(crate) segment_bytes: usize,
    pub(crate) tos: u8,
}

/// Reads the heading of a slot; `filled` is how many bytes the kernel says it wrote. `None` if the payload or what is told of it
/// was cut, or makes no sense.
pub(crate) fn parse(heading: &[u8; HEADING_BYTES], filled: usize) -> Option<Received> {
    let length = filled.checked_sub(HEADING_BYTES)?;
    let (out, rest) = heading.split_at(OUT_BYTES);
    let (name, control) = rest.split_at(NAME_BYTES);
    let control_bytes = (read_u32(out, 4)? as usize).min(CONTROL_BYTES);
    let flags = read_u32(out, 12)?.cast_signed();
    if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return None;
    }
    let mut received =
        Received { remote: parse_name(name)?, local: None, length, segment_bytes: length.max(1), tos: 0 };
    for message in (ControlMessages { bytes: control.get(..control_bytes)? }) {
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
mod tests;
