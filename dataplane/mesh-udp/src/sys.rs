#![expect(unsafe_code, reason = "socket options that nix does not name")]
//! Socket options by number.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Sets a socket option that is one integer.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads the four bytes of `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads a socket option that is one integer.
pub(crate) fn get_option(socket: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<i32> {
    let mut values = [0];
    get_options(socket, level, option, &mut values)?;
    Ok(values[0])
}

/// Reads a socket option that is several integers; returns how many there were.
pub(crate) fn get_options(socket: BorrowedFd<'_>, level: i32, option: i32, values: &mut [i32]) -> io::Result<usize> {
    let mut bytes = size_of_val(values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes to `values`, and the length to `bytes`; both outlive the call.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, values.as_mut_ptr().cast(), &raw mut bytes) };
    if result == 0 { Ok(bytes as usize / size_of::<i32>()) } else { Err(io::Error::last_os_error()) }
}
