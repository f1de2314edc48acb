//! The kernel's lists of interfaces, addresses and routes, asked for by netlink (rtnetlink(7)).
//!
//! Only what is needed of the messages is read, by hand: what the kernel adds to them in years to come is passed over.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto, setsockopt, socket,
};
use nix::sys::time::TimeVal;

/// Room for what the kernel writes at once: it fills 32 KiB at most when it lists.
const BUFFER_BYTES: usize = 64 * 1024;
/// Of a message (`struct nlmsghdr`) and of an attribute (`struct rtattr`).
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_BYTES: usize = 4;
/// The kernel answers while it is asked. Whatever keeps it longer than this, in seconds, is not waited for.
const PATIENCE_SECONDS: i64 = 2;
/// A list that changed while it was read is read again, so often at most.
const LISTINGS: u32 = 5;

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// What it tells, as `RTM_NEWLINK`.
    pub(super) kind: u16,
    flags: u16,
    sequence: u32,
    /// All behind its header.
    pub(super) body: &'a [u8],
}

/// Walks over messages; what is cut or makes no sense ends the walk.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(read_u32(self.0, 0)?).ok()?;
        let body = self.0.get(HEADER_BYTES..length)?;
        let message =
            Message { kind: read_u16(self.0, 4)?, flags: read_u16(self.0, 6)?, sequence: read_u32(self.0, 8)?, body };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// Walks over attributes, as kind and value.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(read_u16(self.0, 0)?);
        // The two highest bits say how the value is written.
        let kind = read_u16(self.0, 2)? & 0x3fff;
        let value = self.0.get(ATTRIBUTE_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Appends an attribute.
pub(super) fn append_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_BYTES + value.len()).expect("attributes of questions are short");
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A connection to the kernel, in the network namespace of the thread that made it.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// A connection that hears of changes in these groups (bits `RTMGRP_...`; 0: only answers).
    pub(super) fn open(groups: u32) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE_SECONDS, 0))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Lists everything of a kind (`RTM_GETLINK`, ...): `each` is handed every message of the answer, `start` called before the
    /// first of them, again where the list changed while it was read.
    pub(super) fn list<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut start: impl FnMut() -> T,
        mut each: impl FnMut(&mut T, &Message<'_>),
    ) -> io::Result<T> {
        for _ in 0..LISTINGS {
            let mut list = start();
            self.send(kind, libc::NLM_F_DUMP, body)?;
            let mut changed = false;
            while !self.receive_answers(|message| {
                changed |= i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0;
                each(&mut list, message);
            })? {}
            if !changed {
                return Ok(list);
            }
        }
        Err(io::Error::new(ErrorKind::Interrupted, "the network does not stop to change"))
    }

    /// Asks one question; the answer is one message, handed to `read`.
    ///
    /// # Errors
    /// What the kernel answers instead: `ENETUNREACH` where no route leads.
    pub(super) fn ask<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.send(kind, 0, body)?;
        let mut answer = None;
        self.receive_answers(|message| answer = read(message))?;
        Ok(answer)
    }

    /// Asks for a change (`RTM_NEWLINK`, ...), and waits until it is made.
    ///
    /// # Errors
    /// What the kernel answers: `EPERM`, or that it does not know what is asked for.
    pub(super) fn tell(&mut self, kind: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, libc::NLM_F_ACK, body)?;
        while !self.receive_answers(|_| ())? {}
        Ok(())
    }

    /// Waits for what the groups tell, for `patience` at most or without end; whether `matters` says so of any of it, or more was told
    /// than there was room for.
    pub(super) fn hear(
        &mut self,
        patience: Option<Duration>,
        matters: impl Fn(&Message<'_>) -> bool,
    ) -> io::Result<bool> {
        let timeout =
            patience.map_or(PollTimeout::NONE, |patience| PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX));
        let told = match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(told) => told > 0,
            Err(Errno::EINTR) => false,
            Err(error) => return Err(error.into()),
        };
        if !told {
            return Ok(false);
        }
        match self.receive() {
            Ok(length) => Ok(Messages(&self.buffer[..length]).any(|message| matters(&message))),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, kind: u16, flags: i32, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER_BYTES + body.len()).expect("questions are short");
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).expect("flags have 16 bits");
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(body);
        sendto(self.socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// Receives a part of the answer to the last question; whether it was the last one.
    fn receive_answers(&mut self, mut each: impl FnMut(&Message<'_>)) -> io::Result<bool> {
        let length = self.receive()?;
        let mut ended = false;
        for message in Messages(&self.buffer[..length]).filter(|message| message.sequence == self.sequence) {
            match i32::from(message.kind) {
                libc::NLMSG_DONE => return Ok(true),
                libc::NLMSG_ERROR => {
                    let number = read_u32(message.body, 0).unwrap_or(0).cast_signed().wrapping_neg();
                    return if number == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(number)) };
                }
                _ => each(&message),
            }
            ended |= i32::from(message.flags) & libc::NLM_F_MULTI == 0;
        }
        Ok(ended)
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut self.buffer) {
                // Nobody but the kernel (0) has anything to tell.
                Ok((length, from)) if from.is_none_or(|from| from.pid() == 0) => return Ok(length),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_and_attributes_are_walked_over() {
        let bytes = [message(16, b"abcde"), message(20, b"")].concat();
        let read: Vec<(u16, Vec<u8>)> = Messages(&bytes).map(|message| (message.kind, message.body.to_vec())).collect();
        assert_eq!(read, [(16, b"abcde".to_vec()), (20, vec![])]);
        let mut attributes = Vec::new();
        append_attribute(&mut attributes, 3, b"eth0\0");
        append_attribute(&mut attributes, 0x8000 | 18, &[1, 2, 3, 4]);
        assert_eq!(attributes.len(), 20);
        let read: Vec<_> = Attributes(&attributes).collect();
        assert_eq!(read, [(3, &b"eth0\0"[..]), (18, &[1, 2, 3, 4][..])]);
    }

    #[test]
    fn what_is_cut_or_makes_no_sense_ends_the_walk() {
        let good = message(16, &[9; 12]);
        for length in 0..good.len() {
            assert_eq!(Messages(&good[..length]).count(), 0, "{length}");
        }
        for length in [0_u32, 1, 15, 29, 1 << 31, u32::MAX] {
            let mut bytes = good.clone();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Messages(&bytes).count(), 0, "{length}");
        }
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut bytes = vec![0; 8];
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Attributes(&bytes).count(), 0, "{length}");
        }
    }

    #[test]
    fn a_question_that_makes_no_sense_is_refused_and_the_next_one_answered() {
        let mut netlink = Netlink::open(0).unwrap();
        assert!(netlink.ask(libc::RTM_GETROUTE, &[255; 12], |_| Some(())).is_err());
        let links = netlink.list(libc::RTM_GETLINK, &[0; 16], || 0, |links, _| *links += 1).unwrap();
        assert!(links > 0, "there is a loopback");
    }
}
