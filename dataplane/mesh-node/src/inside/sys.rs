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
    nix::ioctl_write_ptr_bad!(tunsetvnethdrsz, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_ptr_bad!(tunsetvnetle, libc::TUNSETVNETLE, libc::c_int);
    nix::ioctl_write_int_bad!(tunsetoffload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_ptr_bad!(siocsifaddr6, libc::SIOCSIFADDR, libc::in6_ifreq);
    nix::ioctl_write_ptr_bad!(siocsifmtu, libc::SIOCSIFMTU, libc::ifreq);
}

/// Makes `driver`, an open `/dev/net/tun`, a queue of the interface `name`, which is made if it is not there. `header`: with a
/// virtio-net header in front of each packet.
pub(super) fn attach(driver: &impl AsFd, name: &str, header: bool) -> Result<(), Errno> {
    let header = if header { libc::IFF_VNET_HDR } else { 0 };
    let flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI | header).expect("the flags have 15 bits");
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

/// Sets the length of the header in front of each packet.
pub(super) fn set_header_bytes(queue: &impl AsFd, bytes: usize) -> Result<(), Errno> {
    let bytes = libc::c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open while it is borrowed; the kernel reads one `int`, and the pointer is to one.
    unsafe { ioctl::tunsetvnethdrsz(queue.as_fd().as_raw_fd(), &raw const bytes) }.map(drop)
}

/// Has the numbers of that header little-endian, whatever the machine's are.
pub(super) fn set_little_endian(queue: &impl AsFd) -> Result<(), Errno> {
    let yes: libc::c_int = 1;
    // SAFETY: the descriptor is open while it is borrowed; the kernel reads one `int`, and the pointer is to one.
    unsafe { ioctl::tunsetvnetle(queue.as_fd().as_raw_fd(), &raw const yes) }.map(drop)
}

/// Sets what the system may leave to the interface (`TUN_F_...`).
pub(super) fn set_offload(queue: &impl AsFd, features: u32) -> Result<(), Errno> {
    let features = libc::c_int::try_from(features).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open while it is borrowed; the argument is a number.
    unsafe { ioctl::tunsetoffload(queue.as_fd().as_raw_fd(), features) }.map(drop)
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
