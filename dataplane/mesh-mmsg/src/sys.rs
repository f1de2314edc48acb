#![expect(unsafe_code, reason = "recvmmsg and sendmmsg with headers that are laid out once")]
//! The system calls made by hand, and the headers they take.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::null_mut;

use mesh_udp::area::Area;
use mesh_udp::control::{CONTROL_BYTES, NAME_BYTES};

use crate::engine::Engine;
use crate::slots::{SLOT_BYTES, Slots};

/// Messages of one call.
pub(crate) const MESSAGES: usize = 64;

/// What the kernel is told and tells of one message, beside the payload: a part (`struct iovec`), a name, control messages.
const PART_BYTES: usize = 16;
const STRIDE: usize = 192;
const _: () = assert!(PART_BYTES + NAME_BYTES + CONTROL_BYTES <= STRIDE && size_of::<libc::iovec>() == PART_BYTES);

/// Headers to receive with. Each stands before a slot; what they point to lies in mapped memory that lives as long.
pub(crate) struct Inbound {
    memory: Area,
    headers: Vec<libc::mmsghdr>,
    slots: Vec<u16>,
}

/// What the kernel told of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) slot: u16,
    pub(crate) length: usize,
    pub(crate) control_bytes: usize,
    pub(crate) flags: i32,
}

impl Inbound {
    pub(crate) fn new(slots: &mut Slots) -> io::Result<Self> {
        let memory = Area::new(MESSAGES * STRIDE)?;
        let mut inbound = Self { memory, headers: Vec::with_capacity(MESSAGES), slots: Vec::with_capacity(MESSAGES) };
        for index in 0..MESSAGES {
            // SAFETY: `mmsghdr` is integers and pointers, for which zero is a value.
            let header: libc::mmsghdr = unsafe { mem::zeroed() };
            inbound.headers.push(header);
            inbound.slots.push(slots.take().expect("there are more slots than headers"));
            inbound.refill(index, inbound.slots[index], slots);
        }
        Ok(inbound)
    }

    /// Has a header stand before `slot`.
    pub(crate) fn refill(&mut self, index: usize, slot: u16, slots: &Slots) {
        let base = index * STRIDE;
        let part = &mut self.memory.bytes_mut(base..base + PART_BYTES);
        part[..8].copy_from_slice(&slots.base(slot).expose_provenance().to_ne_bytes());
        part[8..].copy_from_slice(&SLOT_BYTES.to_ne_bytes());
        let name = base + PART_BYTES;
        let control = name + NAME_BYTES;
        let header = &mut self.headers[index].msg_hdr;
        header.msg_iov = self.memory.address(&(base..name)).cast();
        header.msg_iovlen = 1;
        header.msg_name = self.memory.address(&(name..control)).cast();
        header.msg_namelen = NAME_BYTES as libc::socklen_t;
        header.msg_control = self.memory.address(&(control..control + CONTROL_BYTES)).cast();
        header.msg_controllen = CONTROL_BYTES;
        header.msg_flags = 0;
        self.slots[index] = slot;
    }

    /// Receives up to `limit` messages without waiting; returns how many.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        let limit = limit.min(self.headers.len()) as u32;
        // SAFETY: there are at least `limit` headers, exclusively borrowed. Each points to its own place in `memory`, and its part
        // to a slot that stands behind no other header and that no train names; all of it is mapped as long as the engine lives,
        // and no reference into it exists during the call.
        let received = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), limit, libc::MSG_DONTWAIT, null_mut())
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// What was told of message `index` of the last receive.
    pub(crate) fn message(&self, index: usize) -> Message {
        let header = &self.headers[index];
        Message {
            slot: self.slots[index],
            length: header.msg_len as usize,
            control_bytes: header.msg_hdr.msg_controllen.min(CONTROL_BYTES),
            flags: header.msg_hdr.msg_flags,
        }
    }

    /// The name and the control messages of message `index` of the last receive.
    pub(crate) fn told(&self, index: usize) -> (&[u8], &[u8]) {
        let name = index * STRIDE + PART_BYTES;
        let control = name + NAME_BYTES;
        let message = self.message(index);
        (self.memory.bytes(name..control), self.memory.bytes(control..control + message.control_bytes))
    }
}

impl Engine {
    /// Hands the first `count` staged sends to one call, which does not wait; all leave by this socket. Returns how many were sent,
    /// the first ones.
    ///
    /// # Errors
    /// Why the first of them was not.
    pub(crate) fn transmit(&mut self, socket: u16, count: usize) -> io::Result<usize> {
        let Some(udp) = self.socket(socket) else { return Err(io::ErrorKind::NotConnected.into()) };
        let descriptor = udp.socket.as_raw_fd();
        let mut headers = mem::take(&mut self.headers);
        headers.clear();
        for send in self.staged.iter().take(count) {
            // SAFETY: the header is a field of the staged send, whole and borrowed.
            let msg_hdr = unsafe { send.envelope().header().read() };
            headers.push(libc::mmsghdr { msg_hdr, msg_len: 0 });
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: there are as many headers as told, exclusively borrowed. Name, control messages and parts of each lie in its
        // staged send, which does not move before the call has returned; the parts name slots and the slab of this engine, at
        // ranges within them, which nobody writes meanwhile: `self` is borrowed.
        let sent = unsafe { libc::sendmmsg(descriptor, headers.as_mut_ptr(), headers.len() as u32, flags) };
        let result = usize::try_from(sent).map_err(|_| io::Error::last_os_error());
        self.headers = headers;
        self.counters.enters += 1;
        result
    }

    /// Sends a held run without waiting.
    ///
    /// # Errors
    /// Why it was not sent.
    pub(crate) fn transmit_held(&mut self, slot: u16) -> io::Result<()> {
        self.counters.enters += 1;
        let letter = self.held.letter(slot);
        let Some(udp) = self.socket(letter.socket) else { return Err(io::ErrorKind::NotConnected.into()) };
        // SAFETY: header, name, control messages and iovec live in the letter, the bytes in memory of the held sends; neither is
        // touched during the call: `self` is borrowed.
        let sent =
            unsafe { libc::sendmsg(udp.socket.as_raw_fd(), letter.header(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
