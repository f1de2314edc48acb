//! Sockets that send by one interface.
#![expect(unsafe_code, reason = "socket options that no safe crate names")]

use std::io;
use std::os::windows::io::{AsRawSocket as _, AsSocket};

use windows_sys::Win32::Networking::WinSock::{
    IP_UNICAST_IF, IPPROTO_IP, IPPROTO_IPV6, IPV6_UNICAST_IF, SOCKET, setsockopt,
};

/// Lets a socket send by the interface of this number only. It hears what comes by others too.
///
/// # Errors
/// There is no such interface.
pub fn send_by(socket: &impl AsSocket, v6: bool, interface: u32) -> io::Result<()> {
    // IPv4 wants the number in network byte order, IPv6 as it is.
    let (level, option, number) =
        if v6 { (IPPROTO_IPV6, IPV6_UNICAST_IF, interface) } else { (IPPROTO_IP, IP_UNICAST_IF, interface.to_be()) };
    let bytes = number.to_ne_bytes();
    let socket = socket.as_socket().as_raw_socket() as SOCKET;
    // SAFETY: the system reads the four bytes of `bytes`, which outlives the call.
    let result = unsafe { setsockopt(socket, level, option, bytes.as_ptr(), bytes.len() as i32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
