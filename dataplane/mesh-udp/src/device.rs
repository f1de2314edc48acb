//! Sockets that are tied to one interface, whatever addresses it has.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::set_option;

/// How a socket is tied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// It sends by the interface, and hears nothing of others.
    Both,
    /// It sends by the interface, and hears what comes by others too.
    Sending,
}

/// Ties a fresh socket to the interface of this number. An interface that is made anew has another number: the socket then needs a
/// successor.
///
/// `SO_BINDTOIFINDEX` needs no right on a socket that was never tied (Linux 5.7); where it is refused, `IP_UNICAST_IF` needs none at all.
///
/// # Errors
/// The kernel has neither, or no interface can have this number. That there is one now is not looked at: it may go at any time.
pub fn tie(socket: BorrowedFd<'_>, v6: bool, interface: u32) -> io::Result<Tie> {
    let number = i32::try_from(interface).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    if set_option(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, number).is_ok() {
        return Ok(Tie::Both);
    }
    send_by(socket, v6, number).map(|()| Tie::Sending)
}

/// Lets a socket send by an interface only.
fn send_by(socket: BorrowedFd<'_>, v6: bool, interface: i32) -> io::Result<()> {
    // In network byte order, as the interface itself has it on Windows, where this option comes from.
    let number = interface.to_be();
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_IF, number)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_UNICAST_IF, number)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::{Tie, send_by, tie};

    /// The loopback has this number in every network namespace.
    const LOOPBACK: u32 = 1;

    fn socket(v6: bool) -> Option<UdpSocket> {
        UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }).ok()
    }

    fn reaches_the_loopback(sender: &UdpSocket, v6: bool) -> bool {
        let Ok(receiver) = UdpSocket::bind(if v6 { "[::1]:0" } else { "127.0.0.1:0" }) else { return true };
        receiver.set_nonblocking(true).unwrap();
        let to = receiver.local_addr().unwrap();
        sender.send_to(b"x", to).is_ok_and(|_| receiver.recv(&mut [0; 8]).is_ok())
    }

    #[test]
    fn tied_sockets_send_by_their_interface() {
        for v6 in [false, true] {
            let Some(tied) = socket(v6) else { continue };
            assert_eq!(tie(tied.as_fd(), v6, LOOPBACK).unwrap(), Tie::Both, "Linux 5.7 or later");
            assert!(reaches_the_loopback(&tied, v6), "IPv6 {v6}");
            let Some(sending) = socket(v6) else { continue };
            send_by(sending.as_fd(), v6, LOOPBACK as i32).unwrap();
            assert!(reaches_the_loopback(&sending, v6), "IPv6 {v6}");
        }
    }

    #[test]
    fn by_an_interface_that_is_not_there_nothing_is_reached() {
        let tied = socket(false).unwrap();
        tie(tied.as_fd(), false, 0x7fff_fff0).unwrap();
        assert!(!reaches_the_loopback(&tied, false));
        assert!(tie(socket(false).unwrap().as_fd(), false, u32::MAX).is_err(), "no interface can have this number");
    }
}
