//! Captures of an interface, and frames sent raw: what an eavesdropper and a forger on the cable can do.

use std::fs::File;
use std::io::{BufWriter, IoSliceMut, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, recvmsg, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeSpec;

use crate::host::Host;
use crate::sys;

/// Bytes of frames a capture keeps; what comes after is counted as lost.
const CAPTURE_BYTES_MAX: usize = 1 << 30;

/// Frames a capture keeps, for the sake of many small ones.
const CAPTURE_FRAMES_MAX: usize = 4_000_000;

/// Room in the kernel for frames not yet read: asked for by privilege, else what the system allows.
const SOCKET_BUFFER_BYTES: usize = 64 << 20;

/// The longest frame: the largest superpacket of today's kernels and its link header fit.
const FRAME_BYTES_MAX: usize = 1 << 18;

/// `ARPHRD_ETHER`: frames of such interfaces begin with an Ethernet header; those of a TUN with the IP header.
const ARPHRD_ETHER: u16 = 1;

/// A frame seen on an interface.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When the kernel saw it, by the wall clock.
    pub at: SystemTime,
    /// Whether the host sent it; else the host received it (or, on a switch, passed it).
    pub outgoing: bool,
    /// Its bytes from the link header on; a TUN interface has no link header.
    pub bytes: Vec<u8>,
}

/// A capture under way, both directions of one interface. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    reader: Option<JoinHandle<Result<Recording>>>,
    /// Closing this end stops the reader.
    stopper: Option<UnixStream>,
}

/// What a capture has seen.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The frames in the order of the kernel.
    pub frames: Vec<Frame>,
    /// Frames that passed but were not kept, for lack of room. A search that finds nothing proves nothing unless
    /// this is 0.
    pub lost: u64,
    ethernet: bool,
}

impl Host {
    /// Records every frame of an interface, in both directions, from the return of this call on.
    ///
    /// The frames are as the host's kernel has them: with segmentation offload a frame can be far longer than the
    /// MTU, and checksums may be unfinished.
    ///
    /// # Errors
    /// There is no such interface, or packet sockets are refused.
    pub fn capture(&self, interface: &str) -> Result<Capture> {
        let (socket, wake, stopper) = self.run(|| {
            let socket = packet_socket(interface, libc::ETH_P_ALL as u16)?;
            let (wake, stopper) = UnixStream::pair().context("make a pair of sockets")?;
            Ok((socket, wake, stopper))
        })?;
        let reader = thread::Builder::new().name("capture".to_owned()).spawn(move || record(&socket, &wake));
        Ok(Capture { reader: Some(reader.context("start a thread")?), stopper: Some(stopper) })
    }

    /// A way to send raw frames out of an interface, as if the host had made them.
    ///
    /// # Errors
    /// There is no such interface, or packet sockets are refused.
    pub fn injector(&self, interface: &str) -> Result<Injector> {
        // Protocol 0 receives nothing, so that nothing piles up in the socket.
        Ok(Injector { socket: self.run(|| packet_socket(interface, 0))? })
    }
}

impl Capture {
    /// Ends the capture. Frames that passed before this call are in the result.
    ///
    /// # Errors
    /// The interface went away meanwhile.
    pub fn stop(mut self) -> Result<Recording> {
        self.finish()
    }

    fn finish(&mut self) -> Result<Recording> {
        self.stopper = None;
        let reader = self.reader.take().context("the capture has ended")?;
        reader.join().map_err(|_| anyhow!("the thread of a capture panicked"))?
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.reader.is_some() {
            let _ = self.finish();
        }
    }
}

impl Recording {
    /// The first frame in which `pattern` occurs anywhere.
    #[must_use]
    pub fn find(&self, pattern: &[u8]) -> Option<&Frame> {
        self.frames.iter().find(|frame| contains(&frame.bytes, pattern))
    }

    /// Writes the frames as a pcap file, for any tool that reads those.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_pcap(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
        let mut file = BufWriter::new(file);
        self.write_pcap_to(&mut file).and_then(|()| file.flush()).with_context(|| format!("write {}", path.display()))
    }

    /// The classic format, version 2.4, with times in microseconds.
    fn write_pcap_to(&self, file: &mut impl std::io::Write) -> std::io::Result<()> {
        const LINKTYPE_ETHERNET: u32 = 1;
        const LINKTYPE_RAW: u32 = 101;
        let link_type = if self.ethernet { LINKTYPE_ETHERNET } else { LINKTYPE_RAW };
        file.write_all(&0xa1b2_c3d4_u32.to_ne_bytes())?;
        file.write_all(&2_u16.to_ne_bytes())?;
        file.write_all(&4_u16.to_ne_bytes())?;
        for word in [0, 0, FRAME_BYTES_MAX as u32, link_type] {
            file.write_all(&word.to_ne_bytes())?;
        }
        for frame in &self.frames {
            let since = frame.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let length = frame.bytes.len() as u32;
            // The format ends with the seconds of 32 bits, in the year 2106.
            for word in [since.as_secs() as u32, since.subsec_micros(), length, length] {
                file.write_all(&word.to_ne_bytes())?;
            }
            file.write_all(&frame.bytes)?;
        }
        Ok(())
    }
}

/// Sends raw frames out of one interface.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
}

impl Injector {
    /// Sends one frame, from the link header on.
    ///
    /// # Errors
    /// The interface is down or gone, or the frame exceeds its MTU.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).context("send a raw frame")?;
        Ok(())
    }
}

/// A packet socket on an interface of this thread's host, with times, that takes frames of `protocol`; 0: none.
pub(crate) fn packet_socket(interface: &str, protocol: u16) -> Result<OwnedFd> {
    let index = if_nametoindex(interface).with_context(|| format!("capture on {interface}"))?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .context("open a packet socket (needs CAP_NET_RAW in the host)")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("ask for times")?;
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES).context("size a packet socket")?;
    }
    sys::bind_packet_socket(socket.as_fd(), index, protocol).with_context(|| format!("capture on {interface}"))?;
    Ok(socket)
}

/// Keeps what passes until the other end of `wake` is closed.
fn record(socket: &OwnedFd, wake: &UnixStream) -> Result<Recording> {
    let mut recording = Recording { ethernet: true, ..Recording::default() };
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut bytes_kept = 0;
    loop {
        let mut ends = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ends, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled.context("wait for frames")?,
        };
        // Looked at before the frames are read: whatever passed before the stop is read below.
        let stopped = ends[1].any().unwrap_or(true);
        while let Some((mut frame, ethernet)) = receive(socket, &mut buffer)? {
            recording.ethernet = ethernet;
            bytes_kept += frame.bytes.len();
            if bytes_kept > CAPTURE_BYTES_MAX || recording.frames.len() == CAPTURE_FRAMES_MAX {
                recording.lost += 1;
                continue;
            }
            frame.bytes.shrink_to_fit();
            recording.frames.push(frame);
        }
        if stopped {
            recording.lost += sys::packet_drops(socket.as_fd()).context("ask for lost frames")?;
            return Ok(recording);
        }
    }
}

/// The next frame, if there is one, and whether it has an Ethernet header.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<(Frame, bool)>> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT);
    let message = match received {
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        message => message.context("read a frame")?,
    };
    let mut at = SystemTime::UNIX_EPOCH;
    for part in message.cmsgs().context("read the time of a frame")? {
        if let ControlMessageOwned::ScmTimestampns(time) = part {
            at += Duration::from(time);
        }
    }
    let address = message.address;
    let outgoing = address.is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
    let ethernet = address.is_none_or(|address| address.hatype() == ARPHRD_ETHER);
    let length = message.bytes;
    Ok(Some((Frame { at, outgoing, bytes: buffer[..length].to_vec() }, ethernet)))
}

fn contains(bytes: &[u8], pattern: &[u8]) -> bool {
    pattern.is_empty() || bytes.windows(pattern.len()).any(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(frames: &[&[u8]]) -> Recording {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(5_000_007);
        let frame = |bytes: &&[u8]| Frame { at, outgoing: false, bytes: bytes.to_vec() };
        Recording { frames: frames.iter().map(frame).collect(), lost: 0, ethernet: true }
    }

    #[test]
    fn pattern_is_found_at_both_ends_and_not_across_frames() {
        let recording = recording(&[b"abc", b"def"]);
        for (pattern, found) in [("ab", true), ("ef", true), ("abc", true), ("cd", false), ("defg", false)] {
            assert_eq!(recording.find(pattern.as_bytes()).is_some(), found, "{pattern}");
        }
    }

    #[test]
    fn pcap_has_the_documented_layout() {
        let mut file = Vec::new();
        recording(&[b"abc"]).write_pcap_to(&mut file).unwrap();
        let words: Vec<u32> = file[..40].chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
        let version = u32::from_ne_bytes([2_u16.to_ne_bytes(), 4_u16.to_ne_bytes()].concat().try_into().unwrap());
        assert_eq!(words, [0xa1b2_c3d4, version, 0, 0, 1 << 18, 1, 5, 7, 3, 3]);
        assert_eq!(&file[40..], b"abc");
    }
}
