//! UDP sockets: the options an engine needs, what the kernel granted, and what it counts of them.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use nix::sys::utsname::uname;

use crate::sys::{get_option, get_options, set_option};
use crate::{Technique, Without};

/// Buffer sizes that a socket has, as the kernel counts them (payload and its bookkeeping).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBuffers {
    /// Receive buffer in bytes.
    pub receive_bytes: u32,
    /// Send buffer in bytes.
    pub send_bytes: u32,
}

/// What is asked of the kernel for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Tell which local address was asked, and leave from there: for sockets bound to a wildcard on a host with several.
    pub local_address: bool,
    /// Whether anything is received on it: a copy of a socket that another engine receives on is only sent by.
    pub receives: bool,
    /// Let the kernel join and cut datagrams (`UDP_GRO`, `UDP_SEGMENT`) where it can.
    pub offload: bool,
    /// The buffers wished.
    pub buffers: SocketBuffers,
    /// What is left out.
    pub without: Without,
}

/// A prepared socket, and what the kernel granted it.
#[derive(Debug)]
pub struct Socket {
    /// The socket itself.
    pub socket: UdpSocket,
    /// Whether addresses are given to it as IPv6.
    pub v6: bool,
    /// Whether anything is received on it.
    pub receives: bool,
    /// Datagrams that one send can carry: 1 where the kernel or the device cannot cut.
    pub segments_max: usize,
    /// Whether the kernel joins what arrives into trains.
    pub joins: bool,
    /// The buffers it got.
    pub buffers: SocketBuffers,
}

impl Socket {
    /// Sets the options.
    ///
    /// # Errors
    /// When the socket takes not even the plainest ones.
    pub fn prepare(socket: UdpSocket, options: &SocketOptions) -> io::Result<Self> {
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
        match (options.local_address, v6) {
            (true, true) => set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
            (true, false) => set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
            (false, _) => {}
        }
        let (mut segments_max, mut joins) = (1, false);
        if options.offload {
            // A kernel without these (before 5.0 and 4.18) receives and sends datagrams one by one.
            let gro = !options.without.technique(Technique::Gro);
            joins = gro && set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
            let gso = !options.without.technique(Technique::Gso);
            if gso && get_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok() && !kernel_mangles_trains() {
                segments_max = crate::gather::SEGMENTS_MAX;
            }
        }
        let buffers = SocketBuffers {
            receive_bytes: buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.buffers.receive_bytes)?,
            send_bytes: buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, options.buffers.send_bytes)?,
        };
        Ok(Self { socket, v6, receives: options.receives, segments_max, joins, buffers })
    }

    /// Datagrams that the kernel has dropped of this socket since it was made: its receive buffer was full, or (rarely) the
    /// checksum wrong. It is the count that `SO_RXQ_OVFL` tells with each datagram, asked for only when somebody wants to know. Whoever
    /// receives on it counts them.
    pub fn receive_drops(&self) -> u32 {
        if !self.receives {
            return 0;
        }
        let mut memory = [0; MEMINFO_FIELDS];
        let known = get_options(self.socket.as_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, &mut memory);
        match known {
            Ok(fields) if fields > MEMINFO_DROPS => memory[MEMINFO_DROPS].cast_unsigned(),
            _ => 0,
        }
    }
}

/// Fields of `SO_MEMINFO`, and the place of the drops (`SK_MEMINFO_DROPS`).
const MEMINFO_FIELDS: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// Whether this kernel mangles the UDP headers of trains whose last datagram is as long as the others: Linux 7.0 to 7.1.4. There each
/// datagram is sent alone.
pub fn kernel_mangles_trains() -> bool {
    static MANGLES: OnceLock<bool> = OnceLock::new();
    *MANGLES.get_or_init(|| uname().is_ok_and(|system| system.release().to_str().is_some_and(mangles_trains)))
}

fn mangles_trains(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = [(); 3].map(|()| numbers.next().unwrap_or(0));
    ([7, 0, 0]..[7, 1, 5]).contains(&version)
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::{Socket, SocketBuffers, SocketOptions, mangles_trains};
    use crate::Without;

    #[test]
    fn kernels_that_mangle_trains_are_known_by_their_release() {
        for release in ["7.0.0", "7.0.12-generic", "7.1.0-rc7", "7.1.4", "7.1"] {
            assert!(mangles_trains(release), "{release}");
        }
        for release in ["6.18.44", "7.1.5", "7.2.0-rc1", "10.0.1", "", "unknown"] {
            assert!(!mangles_trains(release), "{release}");
        }
    }

    #[test]
    fn what_a_full_receive_buffer_drops_is_counted_by_the_kernel() {
        let options = SocketOptions {
            receives: true,
            local_address: false,
            offload: false,
            buffers: SocketBuffers { receive_bytes: 4096, send_bytes: 1 << 20 },
            without: Without::default(),
        };
        let socket = Socket::prepare(UdpSocket::bind("127.0.0.1:0").unwrap(), &options).unwrap();
        assert_eq!(socket.receive_drops(), 0);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.socket.local_addr().unwrap();
        let sent = 100;
        for _ in 0..sent {
            sender.send_to(&[0; 1000], to).unwrap();
        }
        socket.socket.set_nonblocking(true).unwrap();
        let mut arrived = 0;
        while socket.socket.recv(&mut [0; 1000]).is_ok() {
            arrived += 1;
        }
        assert!(arrived < sent, "4 KiB hold no {sent} datagrams");
        assert_eq!(socket.receive_drops(), sent - arrived);
    }
}
