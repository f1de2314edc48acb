//! The header of a send: name and control messages as the kernel reads them.

use std::net::{IpAddr, SocketAddr};

use crate::gather::Run;

/// Room for what a send tells beside the payload: segment size and TOS (24 each) and packet info (40).
const CONTROL_BYTES: usize = 96;

/// Addressed and stamped: the header of a send with the memory it points to, except the payload.
#[derive(Debug)]
pub struct Envelope {
    header: libc::msghdr,
    name: Name,
    control: Control,
}

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Debug)]
#[repr(C, align(8))]
struct Name([u8; 28]);

/// Control messages.
#[derive(Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Envelope {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "an envelope is made to be filled")]
    pub fn new() -> Self {
        let header = libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: std::ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Self { header, name: Name([0; 28]), control: Control([0; CONTROL_BYTES]) }
    }

    /// What `sendmsg` takes; it points into this envelope and to the iovecs told at [`Envelope::address`].
    pub fn header(&self) -> *const libc::msghdr {
        &raw const self.header
    }

    /// Fills everything in. The envelope must not move between here and the submission. `v6` is the family of the socket;
    /// `local` is told where the system would choose another address to leave from.
    pub fn address(&mut self, v6: bool, run: &Run, local: Option<IpAddr>, segmented: bool, iovecs: &mut [libc::iovec]) {
        let name_bytes = self.name.fill(v6, run.to.remote);
        let mut control_bytes = 0;
        if segmented {
            let bytes = u16::try_from(run.segment_bytes).expect("two segments fit one datagram's limit");
            self.control.append(&mut control_bytes, libc::SOL_UDP, libc::UDP_SEGMENT, &[&bytes.to_ne_bytes()]);
        }
        // What goes to an IPv4 address takes the options of IPv4, from a dual-stack socket too.
        if run.tos != 0 {
            let (level, kind) = match run.to.remote {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            self.control.append(&mut control_bytes, level, kind, &[&i32::from(run.tos).to_ne_bytes()]);
        }
        match (local, run.to.remote) {
            (Some(IpAddr::V4(local)), SocketAddr::V4(_)) => {
                // struct in_pktinfo: interface (any), local address, address in the header (of receives only).
                let data: [&[u8]; 3] = [&[0; 4], &local.octets(), &[0; 4]];
                self.control.append(&mut control_bytes, libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
            }
            (Some(IpAddr::V6(local)), SocketAddr::V6(_)) => {
                let data: [&[u8]; 2] = [&local.octets(), &[0; 4]];
                self.control.append(&mut control_bytes, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
            }
            // An address of the other family says nothing about where to leave from.
            (Some(IpAddr::V4(_)), SocketAddr::V6(_)) | (Some(IpAddr::V6(_)), SocketAddr::V4(_)) | (None, _) => {}
        }
        self.header.msg_name = (&raw mut self.name.0).cast();
        self.header.msg_namelen = name_bytes as libc::socklen_t;
        self.header.msg_iov = iovecs.as_mut_ptr();
        self.header.msg_iovlen = iovecs.len();
        let control: *mut libc::c_void = (&raw mut self.control.0).cast();
        self.header.msg_control = if control_bytes == 0 { std::ptr::null_mut() } else { control };
        self.header.msg_controllen = control_bytes;
    }
}

impl Envelope {
    /// Fills in the address alone, for a send that tells nothing else; returns where it is and its length. The envelope must not move
    /// between here and the submission.
    pub fn address_alone(&mut self, v6: bool, remote: SocketAddr) -> (*const libc::sockaddr, libc::socklen_t) {
        let bytes = self.name.fill(v6, remote);
        ((&raw const self.name.0).cast(), bytes as libc::socklen_t)
    }
}

impl Name {
    /// Writes the address as a socket of this family takes it; returns its length.
    fn fill(&mut self, v6: bool, remote: SocketAddr) -> usize {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET } as libc::sa_family_t;
        self.0 = [0; 28];
        self.0[..2].copy_from_slice(&family.to_ne_bytes());
        self.0[2..4].copy_from_slice(&remote.port().to_be_bytes());
        match (v6, remote) {
            (false, SocketAddr::V4(remote)) => {
                self.0[4..8].copy_from_slice(&remote.ip().octets());
                16
            }
            (true, SocketAddr::V4(remote)) => {
                self.0[8..24].copy_from_slice(&remote.ip().to_ipv6_mapped().octets());
                28
            }
            // From an IPv4 socket this fails, as it must: the address is left out.
            (false, SocketAddr::V6(_)) => 0,
            (true, SocketAddr::V6(remote)) => {
                self.0[8..24].copy_from_slice(&remote.ip().octets());
                self.0[24..28].copy_from_slice(&remote.scope_id().to_ne_bytes());
                28
            }
        }
    }
}

impl Control {
    /// Appends one `cmsghdr` with its data and padding.
    fn append(&mut self, end: &mut usize, level: i32, kind: i32, data: &[&[u8]]) {
        const HEADER: usize = size_of::<libc::cmsghdr>();
        let start = *end;
        let bytes = HEADER + data.iter().map(|part| part.len()).sum::<usize>();
        self.0[start..start + size_of::<usize>()].copy_from_slice(&bytes.to_ne_bytes());
        self.0[start + HEADER - 8..start + HEADER - 4].copy_from_slice(&level.to_ne_bytes());
        self.0[start + HEADER - 4..start + HEADER].copy_from_slice(&kind.to_ne_bytes());
        let mut at = start + HEADER;
        for part in data {
            self.0[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        *end = at.next_multiple_of(size_of::<usize>());
        self.0[at..*end].fill(0);
    }
}
