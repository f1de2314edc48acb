//! Batches of frames in and out of packet sockets, with the header that keeps trains and unfinished checksums whole.
#![expect(unsafe_code, reason = "recvmmsg and sendmmsg into buffers that are used again have no safe wrapper")]

use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;

/// Frames per system call: a frame's share of its cost is then small.
pub(crate) const BATCH: usize = 64;

/// Room for a frame: the longest train (65,536 bytes unless the limit of an interface is raised) and its headers.
const FRAME_BYTES_MAX: usize = 66 * 1024;

/// The length of `struct virtio_net_hdr`, which precedes every frame of these sockets:
/// ```text
/// | flags 1 | gso_type 1 | hdr_len 2 | gso_size 2 | csum_start 2 | csum_offset 2 |
/// ```
/// Numbers are in the machine's byte order.
pub(crate) const TRAIN_HEADER_BYTES: usize = 10;

/// Flag: the checksum is unfinished, `csum_start` is where the bytes it covers begin.
const NEEDS_CSUM: u8 = 1;

/// The kinds of trains; 0 is a single packet, and the highest bit a remark on TCP's congestion signal.
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// Room for one control message with a `timespec`, aligned as control messages are.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Frames received together.
pub(crate) struct Batch {
    buffer: Vec<u8>,
    controls: Vec<Control>,
    received: Vec<Received>,
}

/// What is known of a received frame beside its bytes.
#[derive(Clone, Copy)]
struct Received {
    length: usize,
    truncated: bool,
    at: Duration,
}

/// A received frame.
#[derive(Clone, Copy)]
pub(crate) struct RawFrame<'a> {
    /// Its header of [`TRAIN_HEADER_BYTES`] and its bytes, as [`send`] takes them.
    pub(crate) bytes: &'a [u8],
    /// When the kernel had it, by the wall clock, since 1970.
    pub(crate) at: Duration,
    /// Whether its end is missing.
    pub(crate) truncated: bool,
}

impl Batch {
    pub(crate) fn new() -> Batch {
        Batch {
            buffer: vec![0; BATCH * FRAME_BYTES_MAX],
            controls: vec![Control([0; 64]); BATCH],
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Takes the frames at hand, up to [`BATCH`], in the place of those of the last call; 0 if there is none.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        // SAFETY: these are structures of integers and pointers, for which zero is a value.
        let mut parts: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let places = self.buffer.chunks_exact_mut(FRAME_BYTES_MAX).zip(&mut self.controls);
        for (((place, control), part), header) in places.zip(&mut parts).zip(&mut headers) {
            *part = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = control.0.len() as _;
        }
        // SAFETY: `headers` are as many as told; each points to a part of its own in `parts`, which points to a place
        // of its own in the buffer, and to a control buffer of its own. All outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        match Errno::result(count) {
            Ok(count) => {
                self.received.extend(headers.iter().take(count as usize).map(received));
                Ok(self.received.len())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The frames of the last call.
    pub(crate) fn frames(&self) -> impl Iterator<Item = RawFrame<'_>> {
        let places = self.buffer.chunks_exact(FRAME_BYTES_MAX).zip(&self.received);
        places.map(|(place, received)| {
            let &Received { length, truncated, at } = received;
            RawFrame { bytes: &place[..length], at, truncated }
        })
    }
}

/// Reads what the kernel has written to the header of a message, whose control buffer must still be there.
fn received(message: &libc::mmsghdr) -> Received {
    let length = (message.msg_len as usize).min(FRAME_BYTES_MAX);
    let truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
    let mut at = Duration::ZERO;
    // SAFETY: the kernel has set the length of the control buffer to what it wrote there, and the buffer lives.
    let control = unsafe { libc::CMSG_FIRSTHDR(&raw const message.msg_hdr) };
    // SAFETY: the pointer is null or to a whole header in the control buffer, which is aligned for it.
    if let Some(header) = unsafe { control.as_ref() }
        && (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)
    {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the data of a whole header begins here, in the same buffer.
        let data = unsafe { libc::CMSG_DATA(control) };
        // SAFETY: the kernel has written a timespec there; the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(data, time.as_mut_ptr().cast(), size_of::<libc::timespec>()) };
        // SAFETY: all its bytes are written, and every pattern of them is a timespec.
        let time = unsafe { time.assume_init() };
        at = Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    }
    Received { length, truncated, at }
}

/// Sends frames in this order, up to [`BATCH`] of them, and waits for room if there is none. Returns how many have
/// left: 0 says that the kernel refused the first; less than all says nothing of the next.
pub(crate) fn send(socket: BorrowedFd<'_>, frames: &[IoSlice<'_>]) -> usize {
    // SAFETY: a structure of integers and pointers, for which zero is a value.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
    let count = frames.len().min(BATCH);
    for (header, frame) in headers.iter_mut().zip(frames) {
        // An IoSlice is an iovec; sendmmsg only reads it.
        header.msg_hdr.msg_iov = std::ptr::from_ref(frame).cast_mut().cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    loop {
        // SAFETY: `count` of the headers are filled in, each with one iovec of a slice that outlives the call.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as libc::c_uint, 0) };
        match Errno::result(sent) {
            Err(Errno::EINTR) => {}
            sent => return sent.map_or(0, |sent| sent as usize),
        }
    }
}

/// If the frame is a train: the bytes of headers that each of its packets has, and those of payload.
pub(crate) fn train(bytes: &[u8]) -> Option<(u64, u64)> {
    let (header, frame) = bytes.split_at_checked(TRAIN_HEADER_BYTES)?;
    let number = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (flags, kind) = (header[0], header[1] & !GSO_ECN);
    let (linear_bytes, segment_bytes, checksum_start) = (number(2), number(4), number(6));
    let header_bytes = match kind {
        0 => return None,
        // How much of the frame lies in one piece in the kernel: the headers, at times more.
        _ if flags & NEEDS_CSUM == 0 => linear_bytes,
        // The data offset, in words of 4 bytes, is in the upper half of byte 12 (RFC 9293).
        GSO_TCPV4 | GSO_TCPV6 => checksum_start + usize::from(frame.get(checksum_start + 12)? >> 4) * 4,
        // The header of UDP (RFC 768).
        _ => checksum_start + 8,
    };
    Some((header_bytes as u64, segment_bytes as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flags: u8, kind: u8, numbers: [u16; 4], bytes: &[u8]) -> Vec<u8> {
        let numbers = numbers.iter().flat_map(|number| number.to_ne_bytes());
        [flags, kind].into_iter().chain(numbers).chain(bytes.iter().copied()).collect()
    }

    #[test]
    fn header_tells_the_parts_of_a_train() {
        let mut tcp = [0; 100];
        tcp[34 + 12] = 8 << 4;
        assert_eq!(train(&frame(NEEDS_CSUM, 0, [0, 0, 34, 6], &tcp)), None);
        assert_eq!(train(&frame(NEEDS_CSUM, GSO_TCPV4, [100, 1448, 34, 16], &tcp)), Some((66, 1448)));
        assert_eq!(train(&frame(NEEDS_CSUM, GSO_TCPV4 | GSO_ECN, [100, 1448, 34, 16], &tcp)), Some((66, 1448)));
        assert_eq!(train(&frame(NEEDS_CSUM, 5, [100, 1200, 34, 6], &tcp)), Some((42, 1200)));
        assert_eq!(train(&frame(0, GSO_TCPV6, [86, 1428, 0, 0], &tcp)), Some((86, 1428)));
        assert_eq!(train(&frame(NEEDS_CSUM, GSO_TCPV4, [100, 1448, 90, 16], &tcp)), None, "the offset is cut off");
        assert_eq!(train(&[0; TRAIN_HEADER_BYTES - 1]), None);
    }
}
