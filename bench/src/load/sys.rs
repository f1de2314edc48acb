//! Packet sockets as `nix` does not offer them, and the priority of a thread.
//!
//! The functions are safe for every argument; the blocks say why.
#![expect(unsafe_code, reason = "options of packet sockets and batches of messages without a safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use mesh_lab::Interface;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt};

/// Bytes of the `virtio_net_hdr` before each frame.
pub(super) const VNET_BYTES: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum covers the pseudo header only.
pub(super) const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`: datagrams of equal size, the last one possibly shorter.
pub(super) const GSO_UDP_L4: u8 = 5;

/// Messages in one system call, at most.
pub(super) const BATCH_MAX: usize = 64;

/// Bytes of control data for one message: a time stamp, with room to spare.
const CONTROL_BYTES: usize = 64;

/// The MAC address and the place of an interface in its host.
pub(super) fn link_address(interface: &Interface) -> Result<LinkAddr> {
    let name = interface.name();
    let found = interface.host().run(|| {
        let mut addresses = getifaddrs().context("list the interfaces")?;
        let found = addresses.find_map(|entry| {
            let address = entry.address.filter(|_| entry.interface_name == name)?;
            address.as_link_addr().copied()
        });
        Ok(found)
    })?;
    found.with_context(|| format!("the host {} has no interface {name}", interface.host().name()))
}

/// Opens a packet socket with `virtio_net_hdr` on an interface, to send by: it receives nothing.
pub(super) fn sending_socket(interface: &Interface, buffer_bytes: usize) -> Result<OwnedFd> {
    let address = link_address(interface)?;
    let socket = interface.host().run(|| packet_socket(None))?;
    if setsockopt(&socket, sockopt::SndBufForce, &buffer_bytes).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &buffer_bytes).context("size a packet socket")?;
    }
    bind(socket.as_raw_fd(), &address).with_context(|| format!("send by {}", interface.name()))?;
    Ok(socket)
}

/// Opens a packet socket with `virtio_net_hdr` and time stamps on an interface, to receive what `filter` lets pass.
pub(super) fn receiving_socket(
    interface: &Interface,
    buffer_bytes: usize,
    filter: &[libc::sock_filter],
) -> Result<OwnedFd> {
    let address = link_address(interface)?;
    // Only a socket for every protocol sees frames before the ingress hook, where the counter drops them.
    let socket = interface.host().run(|| packet_socket(Some(SockProtocol::EthAll)))?;
    attach_filter(&socket, filter).context("attach a filter to a packet socket")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("ask for times")?;
    if setsockopt(&socket, sockopt::RcvBufForce, &buffer_bytes).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &buffer_bytes).context("size a packet socket")?;
    }
    bind(socket.as_raw_fd(), &address).with_context(|| format!("receive on {}", interface.name()))?;
    Ok(socket)
}

fn packet_socket(protocol: Option<SockProtocol>) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .context("open a packet socket (needs CAP_NET_RAW in the host)")?;
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of `on`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(result).context("ask for the header of virtio")?;
    Ok(socket)
}

fn attach_filter(socket: &OwnedFd, filter: &[libc::sock_filter]) -> Result<()> {
    let length = u16::try_from(filter.len()).context("a filter has at most 4,096 instructions")?;
    // The kernel only reads the filter.
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the pointer and the length are those of `program`, which names `filter` with its length; both outlive the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Frames that a packet socket had no room for since the last call.
pub(super) fn packet_drops(socket: &OwnedFd) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `statistics`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(u64::from(statistics.tp_drops))
}

/// Sends messages by one system call, at most [`BATCH_MAX`]; how many were taken. The memory can be reused at once.
///
/// # Errors
/// The first one is refused.
pub(super) fn send_many<'a>(socket: &OwnedFd, messages: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH_MAX];
    let mut count = 0;
    for (part, message) in parts.iter_mut().zip(messages) {
        // The kernel only reads it.
        *part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
        count += 1;
    }
    let mut headers = [empty_header(); BATCH_MAX];
    for (header, part) in headers.iter_mut().zip(&mut parts) {
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers name one part each, and these the messages, which live as long as 'a; packet sockets copy.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    Ok(Errno::result(sent)?.unsigned_abs() as usize)
}

/// Room for received messages.
pub(super) struct Inbox {
    memory: Vec<u8>,
    each: usize,
    control: Vec<[u64; CONTROL_BYTES / 8]>,
}

/// A received message.
pub(super) struct Received<'a> {
    /// Its bytes, as far as the filter and the room let them through.
    pub(super) bytes: &'a [u8],
    /// When the kernel received it, in nanoseconds since 1970.
    pub(super) at: u64,
}

impl Inbox {
    /// Room for `messages` (at most [`BATCH_MAX`]) of at most `each` bytes.
    pub(super) fn new(messages: usize, each: usize) -> Self {
        let messages = messages.min(BATCH_MAX);
        Self { memory: vec![0; messages * each], each, control: vec![[0; CONTROL_BYTES / 8]; messages] }
    }

    /// Reads what has arrived without waiting, and shows each message to `show`; how many there were.
    ///
    /// # Errors
    /// The interface went away.
    pub(super) fn receive(&mut self, socket: &OwnedFd, mut show: impl FnMut(Received<'_>)) -> io::Result<usize> {
        let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH_MAX];
        let mut headers = [empty_header(); BATCH_MAX];
        let room = self.memory.chunks_exact_mut(self.each).zip(&mut self.control);
        for (((memory, control), part), header) in room.zip(&mut parts).zip(&mut headers) {
            *part = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        }
        let count = self.control.len() as libc::c_uint;
        let (fd, none) = (socket.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: the first `count` headers name one part and one control buffer each, with their lengths, all borrowed from
        // `self` above and not touched until the call returns.
        let received = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, none) };
        let received = match Errno::result(received) {
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            received => received?.unsigned_abs() as usize,
        };
        for (memory, header) in self.memory.chunks_exact(self.each).zip(&headers).take(received) {
            let length = (header.msg_len as usize).min(memory.len());
            show(Received { bytes: &memory[..length], at: time_stamp(&header.msg_hdr) });
        }
        Ok(received)
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: zero is a value of every field: null pointers, lengths and flags.
    unsafe { std::mem::zeroed() }
}

/// The time that came with a message, in nanoseconds since 1970; 0 if none did.
fn time_stamp(header: &libc::msghdr) -> u64 {
    // SAFETY: `header` was filled in by recvmmsg, and its control buffer is borrowed still.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    if first.is_null() {
        return 0;
    }
    // SAFETY: it is not null, so a whole control header lies there, aligned as the buffer is.
    let control = unsafe { &*first };
    if control.cmsg_level != libc::SOL_SOCKET || control.cmsg_type != libc::SCM_TIMESTAMPNS {
        return 0;
    }
    // SAFETY: the data of a control message follows its header.
    let data = unsafe { libc::CMSG_DATA(first) };
    // SAFETY: the kernel wrote a timespec there, at any alignment.
    let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Lets this thread run only while no other wants its processor.
pub(super) fn run_when_idle() -> io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a complete sched_param, which outlives the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
    Errno::result(result)?;
    Ok(())
}

/// Lets this thread, and those it starts from now on, run before all of the usual kind on their processor, and before those of a lower
/// rank, from 1 to 99 (`SCHED_FIFO`). Whoever never sleeps leaves others 50 ms of each second.
///
/// # Errors
/// The kernel refuses: it takes root of the machine.
pub fn run_first(rank: i32) -> io::Result<()> {
    let rank = libc::sched_param { sched_priority: rank };
    // SAFETY: the pointer is to a complete sched_param, which outlives the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const rank) };
    Errno::result(result)?;
    Ok(())
}

/// Ties this thread to a processor.
pub(super) fn pin(processor: usize) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(processor).with_context(|| format!("there is no processor {processor}"))?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .with_context(|| format!("run on processor {processor}"))
}

/// Waits until data has come or `wake` is closed or written to.
pub(super) fn wait_for_either(socket: &OwnedFd, wake: &impl AsFd) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut ends = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ends, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sets the nice value of this process, which threads and programs it starts inherit.
///
/// # Errors
/// The kernel refuses: raising the priority takes root.
pub fn set_priority(nice: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
    Ok(())
}
