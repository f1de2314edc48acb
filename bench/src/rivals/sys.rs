#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg without work for each datagram, and a step between fork and exec"
)]
//! The few system calls made by hand.

use std::cell::UnsafeCell;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr::null_mut;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::{DATAGRAM_BYTES, Routes};

/// Datagrams that one call receives or sends at most.
const BATCH: usize = 64;

/// Whether a receive waits for the first datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    /// Until there is one; it then takes what else is there.
    Wait,
    /// No: it takes what is there.
    Now,
}

/// Buffers and headers for one `recvmmsg` and one `sendmmsg` after the other. All is laid out once; for each datagram a length and
/// a pointer to the address are set.
///
/// What headers point to is never freed: a program makes one or two of these, for all its life.
pub(super) struct Batch {
    buffers: &'static [UnsafeCell<[u8; DATAGRAM_BYTES]>],
    addresses: &'static [libc::sockaddr_in],
    /// What each header to send points to: a part of a buffer.
    parts: &'static [UnsafeCell<libc::iovec>],
    receive: Vec<libc::mmsghdr>,
    send: Vec<libc::mmsghdr>,
}

impl Batch {
    pub(super) fn new(routes: &Routes) -> Self {
        let addresses: Vec<libc::sockaddr_in> = routes.0.iter().copied().map(socket_address).collect();
        let cells: Vec<_> = (0..BATCH).map(|_| UnsafeCell::new([0; DATAGRAM_BYTES])).collect();
        let buffers: &'static [UnsafeCell<_>] = cells.leak();
        let part = |buffer: &UnsafeCell<[u8; DATAGRAM_BYTES]>| {
            UnsafeCell::new(libc::iovec { iov_base: buffer.get().cast(), iov_len: DATAGRAM_BYTES })
        };
        let parts = |count: usize| -> &'static [UnsafeCell<libc::iovec>] {
            buffers.iter().take(count).map(part).collect::<Vec<_>>().leak()
        };
        let headers = |parts: &[UnsafeCell<libc::iovec>]| -> Vec<_> { parts.iter().map(header).collect() };
        let send = parts(BATCH);
        Self { buffers, addresses: addresses.leak(), parts: send, receive: headers(parts(BATCH)), send: headers(send) }
    }

    /// Receives up to [`BATCH`] datagrams from a socket and sends them from there to where they go. Returns how many were received.
    /// What cannot be sent is lost, as on any network.
    pub(super) fn forward(&mut self, socket: BorrowedFd<'_>, receive: Receive) -> io::Result<usize> {
        let flags = match receive {
            Receive::Wait => libc::MSG_WAITFORONE,
            Receive::Now => libc::MSG_DONTWAIT,
        };
        let headers = self.receive.as_mut_ptr();
        // SAFETY: `headers` are BATCH valid headers, exclusively borrowed; each points to a vector of one part that is a whole
        // buffer, none to a name or control data. Those live for ever, and no reference into them exists during the call.
        let received = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, BATCH as u32, flags, null_mut()) };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            let nothing = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            return if nothing { Ok(0) } else { Err(error) };
        };
        let queued = self.route(received);
        self.send(socket, queued);
        Ok(received)
    }

    /// Makes the first headers to send of what was received. Returns how many.
    fn route(&mut self, received: usize) -> usize {
        let mut queued = 0;
        for (header, buffer) in self.receive[..received].iter().zip(self.buffers) {
            let length = header.msg_len as usize;
            // SAFETY: the kernel writes to buffers during a call of recvmmsg only, and nobody else does.
            let bytes = unsafe { &*buffer.get() };
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let Some(number) = super::flow(&bytes[..length], self.addresses.len()).filter(|_| whole) else { continue };
            let part = libc::iovec { iov_base: buffer.get().cast(), iov_len: length };
            // SAFETY: the kernel reads parts during a call of sendmmsg only, and no reference to them exists.
            unsafe { self.parts[queued].get().write(part) };
            let head = &mut self.send[queued].msg_hdr;
            head.msg_name = (&raw const self.addresses[number]).cast_mut().cast();
            head.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            queued += 1;
        }
        queued
    }

    /// Sends what the first `queued` headers say.
    fn send(&mut self, socket: BorrowedFd<'_>, queued: usize) {
        let mut rest = &mut self.send[..queued];
        while !rest.is_empty() {
            // SAFETY: `rest` are as many valid headers as told, exclusively borrowed; each points to an address, which the kernel
            // only reads, and to a vector of one part within a buffer. Those live for ever, and nobody writes them meanwhile.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
            let passed = match usize::try_from(sent) {
                Ok(sent) => sent,
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => 0,
                // It failed at the first.
                Err(_) => 1,
            };
            rest = &mut rest[passed..];
        }
    }
}

/// A header for one part; a name is set for each send.
fn header(part: &UnsafeCell<libc::iovec>) -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is integers and pointers, for which zero is a value.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_iov = part.get();
    header.msg_hdr.msg_iovlen = 1;
    header
}

/// An address as the kernel reads it.
fn socket_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// Has a program start on some processors and stay there, with all its threads.
///
/// # Errors
/// There is no such processor.
pub(crate) fn pin(command: &mut Command, processors: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &processor in processors {
        set.set(processor)?;
    }
    let step = move || sched_setaffinity(Pid::from_raw(0), &set).map_err(io::Error::from);
    // SAFETY: between fork and exec the step makes one system call with what it holds: no allocation, no lock.
    unsafe { command.pre_exec(step) };
    Ok(())
}
