//! The ioctls that no crate offers, or only for a device that is its own.
#![expect(unsafe_code, reason = "ioctls take pointers")]

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

mod ioctl {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(siocsifaddr6, libc::SIOCSIFADDR, libc::in6_ifreq);
    nix::ioctl_write_ptr_bad!(siocsifmtu, libc::SIOCSIFMTU, libc::ifreq);
}

/// Makes `driver`, an open `/dev/net/tun`, a queue of the interface `name`, which is made if it is not there.
pub(super) fn attach(driver: &impl AsFd, name: &str) -> Result<(), Errno> {
    let flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("the flags have 16 bits");
    let request = request(name, libc::__c_anonymous_ifr_ifru { ifru_flags: flags });
    // SAFETY: the descriptor is open while it is borrowed; the kernel reads one `ifreq`, and the pointer is to one.
    unsafe { ioctl::tunsetiff(driver.as_fd().as_raw_fd(), &raw const request) }.map(drop)
}

/// Sets the MTU of the interface `name`.
pub(super) fn set_mtu(name: &str, bytes: u16) -> Result<(), Errno> {
    let request = request(name, libc::__c_anonymous_ifr_ifru { ifru_mtu: i32::from(bytes) });
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the socket is open while it is borrowed; the kernel reads one `ifreq`, and the pointer is to one.
    unsafe { ioctl::siocsifmtu(control.as_raw_fd(), &raw const request) }.map(drop)
}

/// What is asked about the interface `name`.
fn request(name: &str, asked: libc::__c_anonymous_ifr_ifru) -> libc::ifreq {
    let mut request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: asked };
    // The last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

/// Adds an IPv6 address to the interface `name`.
pub(super) fn add_ipv6(name: &str, address: Ipv6Addr, prefix: u8) -> Result<(), Errno> {
    let index = nix::net::if_::if_nametoindex(name)?;
    let request = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr { s6_addr: address.octets() },
        ifr6_prefixlen: u32::from(prefix),
        ifr6_ifindex: i32::try_from(index).map_err(|_| Errno::ENODEV)?,
    };
    let control = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the socket is open while it is borrowed; for an IPv6 socket the kernel reads one `in6_ifreq`.
    unsafe { ioctl::siocsifaddr6(control.as_raw_fd(), &raw const request) }.map(drop)
}
