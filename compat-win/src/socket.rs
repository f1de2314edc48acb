//! One UDP socket: trains in, trains out, with offloads where the system has them.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::task::{self, Context, Poll};

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::Endpoint;
use crate::ready::{Ready, Source};

/// Trains asked for in one receive call.
pub(crate) const RECEIVE_BATCH: usize = quinn_udp::BATCH_SIZE;

/// Receive and send buffer asked for each socket, in bytes as the system counts them. Limits, not memory taken: a few
/// trains that arrive together are more than what systems grant by themselves (208 KiB on Linux, 64 KiB on Windows).
const RECEIVE_BYTES: usize = 8 << 20;
const SEND_BYTES: usize = 4 << 20;

/// `WSAEINVAL`: what Windows answers to a segmented send that it cannot carry out.
const WSAEINVAL: i32 = 10022;

/// A socket with its place in the ready list.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: UdpSocket,
    /// `None`: plain sends and receives.
    offload: Option<UdpSocketState>,
    /// Most datagrams in one segmented send; 1 without the offload.
    segments_max: usize,
    is_ipv6: bool,
    local_address: bool,
    source: Arc<Source>,
    waker: task::Waker,
    /// Runs that wait for this socket to become writable.
    pub(crate) held: usize,
    /// The socket would block, found out in this pass over what is held.
    pub(crate) blocked: bool,
}

/// What became of a send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Operations that the kernel accepted.
    pub(crate) sends: u64,
    /// Datagrams that left.
    pub(crate) datagrams: u64,
    /// Bytes in them.
    pub(crate) sent_bytes: u64,
    /// Datagrams that the kernel refused.
    pub(crate) failed: u64,
    /// Bytes of the run that are settled, sent or refused; fewer than the run has if the send buffer is full.
    pub(crate) settled_bytes: usize,
    /// The send buffer is full.
    pub(crate) full: bool,
}

impl Socket {
    /// Takes a bound socket. Must be called within the runtime.
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        index: u16,
        local_address: bool,
        offload: bool,
        ready: &Arc<Ready>,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let is_ipv6 = socket.local_addr()?.is_ipv6();
        enlarge_buffers(&socket);
        let socket = UdpSocket::from_std(socket)?;
        let offload = if offload { offload_state(&socket) } else { None };
        let segments_max = offload.as_ref().map_or(1, UdpSocketState::max_gso_segments);
        let source = Source::new(u32::from(index), ready);
        let waker = task::Waker::from(Arc::clone(&source));
        let socket =
            Self { socket, offload, segments_max, is_ipv6, local_address, source, waker, held: 0, blocked: false };
        socket.wait_readable();
        Ok(socket)
    }

    /// See [`Source::taken`].
    pub(crate) fn taken(&self) {
        self.source.taken();
    }

    /// Puts the socket back on the list: there may be more to read.
    pub(crate) fn push(&self) {
        self.source.push();
    }

    /// How many trains one receive call can return.
    pub(crate) fn receive_batch(&self) -> usize {
        if self.offload.is_some() { RECEIVE_BATCH } else { 1 }
    }

    /// Receives as many trains as there are buffers and trains; the number of them.
    pub(crate) fn receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        if let Some(offload) = &self.offload {
            return offload.recv((&self.socket).into(), buffers, metas);
        }
        let [buffer, ..] = buffers else { return Ok(0) };
        let (bytes, remote) = self.socket.try_recv_from(buffer)?;
        let meta = &mut metas[0];
        *meta = RecvMeta::default();
        meta.addr = remote;
        meta.len = bytes;
        meta.stride = bytes;
        Ok(1)
    }

    /// The endpoint that a train came from.
    pub(crate) fn endpoint(&self, index: u16, meta: &RecvMeta) -> Endpoint {
        let remote = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
        let remote = match (remote, meta.addr) {
            // The scope of a link-local address is part of where an answer must go.
            (SocketAddr::V6(_), SocketAddr::V6(scoped)) => {
                SocketAddr::V6(SocketAddrV6::new(*scoped.ip(), scoped.port(), 0, scoped.scope_id()))
            }
            (remote, _) => remote,
        };
        let local = meta.dst_ip.filter(|_| self.local_address).map(|ip| ip.to_canonical());
        Endpoint { socket: index, remote, local }
    }

    /// The socket is drained: lists itself when something arrives.
    pub(crate) fn wait_readable(&self) {
        clear(&self.socket, Interest::READABLE);
        if let Poll::Ready(Ok(())) = self.socket.poll_recv_ready(&mut Context::from_waker(&self.waker)) {
            self.source.push();
        }
    }

    /// The send buffer is full: lists itself when it takes more.
    pub(crate) fn wait_writable(&self) {
        clear(&self.socket, Interest::WRITABLE);
        if let Poll::Ready(Ok(())) = self.socket.poll_send_ready(&mut Context::from_waker(&self.waker)) {
            self.source.push();
        }
    }

    /// Whether datagrams that lie apart are worth copying together.
    pub(crate) fn sends_trains(&self) -> bool {
        self.segments_max > 1
    }

    /// Whether one receive can bring several datagrams at once.
    pub(crate) fn receives_trains(&self) -> bool {
        self.offload.as_ref().is_some_and(|offload| offload.gro_segments() > 1)
    }

    /// Sends `contents`, cut every `segment_bytes`.
    pub(crate) fn send(&mut self, to: &Endpoint, contents: &[u8], segment_bytes: usize, tos: u8) -> Sent {
        let segments = contents.len().div_ceil(segment_bytes).max(1);
        let mut sent = Sent::default();
        let Some(remote) = self.remote(to) else {
            sent.failed = segments as u64;
            sent.settled_bytes = contents.len();
            return sent;
        };
        let local = to.local.filter(|_| self.local_address);
        let mut segmentation_refused = false;
        if segments > 1 && segments <= self.segments_max {
            match self.try_send(remote, local, contents, Some(segment_bytes), tos) {
                Ok(()) => {
                    sent.sends = 1;
                    sent.datagrams = segments as u64;
                    sent.sent_bytes = contents.len() as u64;
                    sent.settled_bytes = contents.len();
                    return sent;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sent.full = true;
                    return sent;
                }
                Err(error) if quinn_udp::is_msg_size_err(&error) => {
                    // Too long for the link; only a shorter last one may still fit.
                    let long = contents.len() / segment_bytes;
                    sent.failed = long as u64;
                    sent.settled_bytes = long * segment_bytes;
                }
                // No segmentation on this route, or an address that is refused: one by one tells which.
                Err(error) => segmentation_refused = is_invalid(&error),
            }
        }
        let address_refused = self.send_singly(remote, local, contents, segment_bytes, tos, &mut sent);
        if (segmentation_refused || address_refused) && self.offload.is_some() {
            // quinn-udp takes such an error for a kernel of old and leaves out more than it must from then on.
            self.offload = offload_state(&self.socket);
        }
        if segmentation_refused && !address_refused && sent.datagrams > 0 {
            tracing::info!("the system refuses segmented sends on this socket, going on without");
            self.segments_max = 1;
        }
        sent
    }

    /// Sends what `sent` leaves of `contents`, one datagram at a time. Whether the system called one of them invalid.
    fn send_singly(
        &self,
        remote: SocketAddr,
        local: Option<IpAddr>,
        contents: &[u8],
        segment_bytes: usize,
        tos: u8,
        sent: &mut Sent,
    ) -> bool {
        let mut refused = false;
        loop {
            let rest = &contents[sent.settled_bytes..];
            if rest.is_empty() && !contents.is_empty() {
                break;
            }
            let datagram = &rest[..rest.len().min(segment_bytes)];
            match self.try_send(remote, local, datagram, None, tos) {
                Ok(()) => {
                    sent.sends += 1;
                    sent.datagrams += 1;
                    sent.sent_bytes += datagram.len() as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sent.full = true;
                    break;
                }
                Err(error) => {
                    refused |= is_invalid(&error);
                    sent.failed += 1;
                    tracing::trace!(%remote, %error, "datagram refused");
                }
            }
            sent.settled_bytes += datagram.len();
            if contents.is_empty() {
                break;
            }
        }
        refused
    }

    fn try_send(
        &self,
        remote: SocketAddr,
        local: Option<IpAddr>,
        contents: &[u8],
        segment_size: Option<usize>,
        tos: u8,
    ) -> io::Result<()> {
        // Windows reports here that an earlier datagram found no one; this one was not sent, so it is tried once more.
        for _ in 0..2 {
            let result = match &self.offload {
                Some(offload) => {
                    let ecn = EcnCodepoint::from_bits(tos);
                    let transmit = Transmit { destination: remote, ecn, contents, segment_size, src_ip: local };
                    offload.try_send((&self.socket).into(), &transmit)
                }
                None => SockRef::from(&self.socket).send_to(contents, &remote.into()).map(drop),
            };
            match result {
                Err(error) if is_earlier_datagram(&error) => {}
                result => return result,
            }
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// The address as this socket's family wants it; `None` if it cannot be reached from here.
    fn remote(&self, to: &Endpoint) -> Option<SocketAddr> {
        if to.remote.port() == 0 {
            return None;
        }
        match to.remote {
            SocketAddr::V4(remote) if self.is_ipv6 => {
                Some(SocketAddrV6::new(remote.ip().to_ipv6_mapped(), remote.port(), 0, 0).into())
            }
            SocketAddr::V4(remote) => Some(remote.into()),
            SocketAddr::V6(remote) => self.is_ipv6.then_some(remote.into()),
        }
    }
}

/// Errors that tell of an earlier datagram that was answered with "port unreachable".
pub(crate) fn is_earlier_datagram(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

fn is_invalid(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    if error.raw_os_error() == Some(nix::libc::EIO) {
        return true;
    }
    error.kind() == io::ErrorKind::InvalidInput || error.raw_os_error() == Some(WSAEINVAL)
}

/// Tells tokio that the socket would block.
fn clear(socket: &UdpSocket, interest: Interest) {
    let blocked: io::Result<()> = socket.try_io(interest, || Err(io::ErrorKind::WouldBlock.into()));
    debug_assert!(blocked.is_err(), "the closure always says that it would block");
}

/// Sets the options that offloads need. `None` where the system refuses them: IPv4 sockets under Wine, some sandboxes.
fn offload_state(socket: &UdpSocket) -> Option<UdpSocketState> {
    match UdpSocketState::new(socket.into()) {
        Ok(state) => {
            // quinn-udp asks for a time stamp on each datagram; nobody reads it here.
            #[cfg(target_os = "linux")]
            if let Err(error) =
                nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::ReceiveTimestampns, &false)
            {
                tracing::debug!(%error, "cannot turn time stamps off");
            }
            Some(state)
        }
        Err(error) => {
            tracing::debug!(%error, "no offloads for this socket, plain sends and receives instead");
            None
        }
    }
}

/// Asks for larger buffers. What the system grants is enough to run: with less, more is lost of what arrives in bursts.
fn enlarge_buffers(socket: &std::net::UdpSocket) {
    let reference = SockRef::from(socket);
    let asked = [reference.set_recv_buffer_size(RECEIVE_BYTES), reference.set_send_buffer_size(SEND_BYTES)];
    for refused in asked.into_iter().filter_map(Result::err) {
        tracing::debug!(%refused, "a socket keeps the system's buffers");
    }
    // Beyond the system's limit, for whoever may.
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        _ = setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BYTES);
        _ = setsockopt(socket, sockopt::SndBufForce, &SEND_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_larger_buffers_than_the_system_gives_by_itself() -> io::Result<()> {
        let sizes = |socket: &std::net::UdpSocket| {
            let socket = SockRef::from(socket);
            io::Result::Ok((socket.recv_buffer_size()?, socket.send_buffer_size()?))
        };
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let before = sizes(&socket)?;
        enlarge_buffers(&socket);
        let after = sizes(&socket)?;
        assert!(after.0 > before.0 && after.1 > before.1, "{before:?}, then {after:?}");
        Ok(())
    }
}
