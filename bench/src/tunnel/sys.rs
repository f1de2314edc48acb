//! System calls that have no safe wrapper here: a program's core, facts of a TCP connection, and datagrams by the dozen.
#![expect(unsafe_code, reason = "sendmmsg, recvmmsg, TCP_INFO and what runs between fork and exec")]

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Most datagrams in one call.
pub(crate) const BATCH: usize = 32;

/// The core `number` where the machine has it, else the last it has.
fn only(number: usize) -> Result<CpuSet> {
    let cores = sysconf(SysconfVar::_NPROCESSORS_ONLN)?.and_then(|cores| usize::try_from(cores).ok()).unwrap_or(1);
    let mut set = CpuSet::new();
    set.set(number.min(cores.max(1) - 1)).with_context(|| format!("core {number}"))?;
    Ok(set)
}

/// Lets a program start on one core; what it starts stays there as well.
pub(crate) fn start_on(command: &mut Command, core: usize) {
    let set = only(core);
    let pin = move || match &set {
        Ok(set) => sched_setaffinity(Pid::from_raw(0), set).map_err(io::Error::from),
        Err(_) => Err(Errno::EINVAL.into()),
    };
    // SAFETY: between fork and exec the closure makes one system call on memory it owns, and allocates nothing.
    unsafe { command.pre_exec(pin) };
}

/// Moves the calling thread to one core.
pub(crate) fn stay_on(core: usize) -> Result<()> {
    sched_setaffinity(Pid::from_raw(0), &only(core)?).with_context(|| format!("move a thread to core {core}"))
}

/// What the kernel tells of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpInfo {
    /// Segments sent again since the start.
    pub(crate) retransmits: u64,
    /// Bytes of payload in a full segment.
    pub(crate) segment_bytes: u64,
}

/// Asks for the facts of a connection.
pub(crate) fn tcp_info(socket: BorrowedFd<'_>) -> Result<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of the structure, and both outlive the call.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(asked).context("ask for the facts of a TCP connection")?;
    // SAFETY: it was zeroed, every field is a number, and any bytes the kernel wrote are numbers too.
    let info = unsafe { info.assume_init() };
    Ok(TcpInfo { retransmits: info.tcpi_total_retrans.into(), segment_bytes: info.tcpi_snd_mss.into() })
}

/// Buffers for datagrams of one size, sent or received [`BATCH`] at a time.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    size: usize,
}

impl Batch {
    /// Room for datagrams of up to `size` bytes each.
    pub(crate) fn new(size: usize) -> Self {
        Self { bytes: vec![0; size.max(1) * BATCH], size: size.max(1) }
    }

    /// Datagram `number`, below [`BATCH`].
    pub(crate) fn datagram_mut(&mut self, number: usize) -> &mut [u8] {
        &mut self.bytes[number * self.size..][..self.size]
    }

    /// The same, to read.
    pub(crate) fn datagram(&self, number: usize) -> &[u8] {
        &self.bytes[number * self.size..][..self.size]
    }

    /// Sends the first `count` datagrams on a connected socket; how many the kernel took before the first it refused.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        let count = count.min(BATCH);
        self.with_headers(|headers| {
            // SAFETY: each of the first `count` headers points to one vector, and that to a part of `bytes`; all outlive the call.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as _, 0) };
            Ok(Errno::result(sent)? as usize)
        })
    }

    /// Waits for a datagram and takes what else there is, up to [`BATCH`]; writes their sizes to `sizes`. A time limit of the
    /// socket ends the wait with `WouldBlock`.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, sizes: &mut [usize; BATCH]) -> io::Result<usize> {
        self.with_headers(|headers| {
            // SAFETY: each of the BATCH headers points to one vector, and that to a part of `bytes` which nobody else reads or
            // writes during the call; all outlive it.
            let received = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    BATCH as _,
                    libc::MSG_WAITFORONE as _,
                    std::ptr::null_mut(),
                )
            };
            let received = Errno::result(received)? as usize;
            for (size, header) in sizes.iter_mut().zip(&headers[..received]) {
                *size = header.msg_len as usize;
            }
            Ok(received)
        })
    }

    /// Hands out message headers, one for each datagram.
    fn with_headers<T>(&mut self, work: impl FnOnce(&mut [libc::mmsghdr; BATCH]) -> io::Result<T>) -> io::Result<T> {
        let size = self.size;
        let mut parts = self.bytes.chunks_exact_mut(size);
        let mut vectors: [libc::iovec; BATCH] = std::array::from_fn(|_| {
            let part = parts.next().expect("as many parts as headers");
            libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: size }
        });
        let mut vectors = vectors.iter_mut();
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|_| {
            // SAFETY: a header of zeros is a valid one without name, vectors and control data.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_iov = vectors.next().expect("as many vectors as headers");
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        work(&mut headers)
    }
}
