#![expect(unsafe_code, reason = "socket options, interfaces and a filter of system calls, by number")]
//! What the tests ask of the system by hand.

use std::io;
use std::mem::offset_of;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};

/// Sets a socket option that is one integer.
pub fn set_int(socket: &impl AsRawFd, level: i32, option: i32, value: i32) {
    // SAFETY: the kernel reads the four bytes of `value`.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    assert_eq!(result, 0, "setsockopt {level} {option}: {}", io::Error::last_os_error());
}

/// `struct ifreq` with an address or flags behind the name.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    data: [u8; 24],
}

impl InterfaceRequest {
    fn new(name: &str, data: &[u8]) -> Self {
        let mut request = Self { name: [0; libc::IFNAMSIZ], data: [0; 24] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request.data[..data.len()].copy_from_slice(data);
        request
    }

    fn call(mut self, on: &impl AsRawFd, what: libc::c_ulong) {
        // SAFETY: the kernel reads and writes one `ifreq`, which has this size and layout.
        let result = unsafe { libc::ioctl(on.as_raw_fd(), what, &raw mut self) };
        assert_eq!(result, 0, "ioctl {what:#x}: {}", io::Error::last_os_error());
    }
}

/// Makes a TUN or TAP interface (`IFF_TUN`, `IFF_TAP`) that is up, with an address of a /24.
pub fn interface(name: &str, kind: i32, address: [u8; 4]) -> OwnedFd {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    let flags = (kind | libc::IFF_NO_PI) as u16;
    InterfaceRequest::new(name, &flags.to_ne_bytes()).call(&device, libc::TUNSETIFF);
    let control = UdpSocket::bind("0.0.0.0:0").unwrap();
    let name_of = |address: [u8; 4]| {
        let mut name = [0; 16];
        name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        name[4..8].copy_from_slice(&address);
        name
    };
    InterfaceRequest::new(name, &name_of(address)).call(&control, libc::SIOCSIFADDR);
    InterfaceRequest::new(name, &name_of([255, 255, 255, 0])).call(&control, libc::SIOCSIFNETMASK);
    raise(name);
    let device = OwnedFd::from(device);
    // SAFETY: sets a flag of a descriptor we own.
    let result = unsafe { libc::fcntl(device.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(result, 0);
    device
}

/// Has an interface be up.
pub fn raise(name: &str) {
    set_flags(name, libc::IFF_UP | libc::IFF_RUNNING);
}

/// Has an interface be down.
pub fn lower(name: &str) {
    set_flags(name, 0);
}

fn set_flags(name: &str, flags: i32) {
    let control = UdpSocket::bind("0.0.0.0:0").unwrap();
    InterfaceRequest::new(name, &(flags as u16).to_ne_bytes()).call(&control, libc::SIOCSIFFLAGS);
}

/// Sets the longest packet of an interface.
pub fn set_mtu(name: &str, bytes: i32) {
    let control = UdpSocket::bind("0.0.0.0:0").unwrap();
    InterfaceRequest::new(name, &bytes.to_ne_bytes()).call(&control, libc::SIOCSIFMTU);
}

/// A TUN interface as [`interface`] makes it, with virtio-net headers and all segmentation offloads.
pub fn interface_with_offloads(name: &str, address: [u8; 4]) -> OwnedFd {
    let device = interface(name, libc::IFF_TUN | libc::IFF_VNET_HDR, address);
    for (request, value) in [(libc::TUNSETVNETHDRSZ, 10_i32), (libc::TUNSETVNETLE, 1)] {
        // SAFETY: the kernel reads one integer.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw const value) };
        assert_eq!(result, 0, "ioctl {request:#x}: {}", io::Error::last_os_error());
    }
    let tcp = libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let all = libc::TUN_F_CSUM | tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    // SAFETY: takes a number, and no memory.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(all)) };
    assert_eq!(result, 0, "TUNSETOFFLOAD (USO is there since Linux 6.2): {}", io::Error::last_os_error());
    device
}

/// Takes an interface away from under who has it open.
pub fn remove(name: &str) {
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    // nlmsghdr, and ifinfomsg.
    let mut message = [0_u8; 32];
    message[..4].copy_from_slice(&32_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&libc::RTM_DELLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message[20..24].copy_from_slice(&index.to_ne_bytes());
    let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
    let kind = nix::sys::socket::SockType::Raw;
    let family = nix::sys::socket::AddressFamily::Netlink;
    let kernel = nix::sys::socket::socket(family, kind, flags, nix::sys::socket::SockProtocol::NetlinkRoute).unwrap();
    nix::unistd::write(&kernel, &message).unwrap();
    let mut answer = [0; 256];
    nix::unistd::read(&kernel, &mut answer).unwrap();
    assert_eq!(answer[16..20], [0; 4], "{name} is not removed");
}

/// Has every `sendmmsg` of so many messages fail with `error`, on the calling thread and for the rest of its life.
pub fn refuse_sendmmsg_of(messages: u32, error: i32) {
    let count = offset_of!(libc::seccomp_data, args) + 2 * size_of::<u64>() + LOW_WORD;
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let equal = |k: u32, or_skip: u8| libc::sock_filter { jf: or_skip, ..step(libc::BPF_JMP | libc::BPF_JEQ, k) };
    let load = |at: usize| step(libc::BPF_LD | libc::BPF_ABS, at as u32);
    let mut filter = [
        load(offset_of!(libc::seccomp_data, nr)),
        equal(libc::SYS_sendmmsg as u32, 3),
        load(count),
        equal(messages, 1),
        step(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | error.unsigned_abs()),
        step(libc::BPF_RET, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: sets a flag of this thread.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0, "PR_SET_NO_NEW_PRIVS: {}", io::Error::last_os_error());
    // SAFETY: the kernel reads the program and its steps, which live until the call has returned.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "PR_SET_SECCOMP: {}", io::Error::last_os_error());
}

/// Where the lower half of a 64-bit argument lies.
const LOW_WORD: usize = if cfg!(target_endian = "little") { 0 } else { 4 };
