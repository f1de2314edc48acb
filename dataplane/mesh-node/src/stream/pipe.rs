//! What a bridge does: frames from TCP become datagrams, datagrams become frames of TCP.
//!
//! Both directions are one task, and none of them waits for the other:
//!
//! - from TCP: what was read is cut into frames, each sent as a datagram. While the socket's buffer is full no more is
//!   read, so that TCP itself slows its sender down;
//! - to TCP: datagrams are read as they come, and stand in a queue of bounded depth until the connection takes them. A
//!   frame that does not fit is dropped and counted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::net::Shutdown;
use std::time::Duration;

use mesh_wire::frame::{self, FirstByte, FrameType};
use mesh_wire::stream::{FRAME_BYTES_MAX, Frames, LENGTH_BYTES, length};
use socket2::SockRef;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep_until, timeout};

use super::Counts;

/// Frames that wait for a connection, in bytes: two superpackets and their neighbours. At 10 Mbit/s they wait for 0.2
/// s.
pub(super) const QUEUE_BYTES: usize = 256 * 1024;
/// Memory that a queue keeps while it is empty.
const KEPT_BYTES: usize = 4096;
/// Read at once from either side.
const READ_BYTES: usize = 64 * 1024;
const _: () = assert!(READ_BYTES >= FRAME_BYTES_MAX);
/// Datagrams read before the other direction has its turn.
const DATAGRAMS_EACH: u32 = 64;
/// Receive buffer that the UDP socket of a bridge asks for, in bytes: what an engine sends in a turn comes all at once.
pub(super) const RECEIVE_BYTES: usize = 1024 * 1024;
/// How long the last frames may take to leave.
const FINISH_TIME: Duration = Duration::from_millis(200);
/// After this time without another one there is none.
const LAST_WORDS_TIME: Duration = Duration::from_millis(10);

/// Memory to read into, shared by all bridges of a thread: none of them holds it while it waits.
pub(super) type Scratch = RefCell<Box<[u8]>>;

/// Scratch memory for one thread.
pub(super) fn scratch() -> Scratch {
    RefCell::new(vec![0; READ_BYTES].into())
}

/// For how long a bridge stays that nobody needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until the first answer to what came by TCP.
    pub(super) unanswered: Duration,
    /// Between two frames from TCP.
    pub(super) idle: Duration,
}

/// Why a bridge ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The other end closed the connection.
    Closed,
    /// The other end sent something else than frames.
    Malformed,
    /// What came by TCP earned no answer.
    Unanswered,
    /// Nothing came by TCP for long.
    Idle,
    /// The connection broke, or what is behind the datagrams is gone.
    Failed(io::Error),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the other end closed it"),
            Self::Malformed => f.write_str("the other end sends something else"),
            Self::Unanswered => f.write_str("nothing it sent was answered"),
            Self::Idle => f.write_str("nothing came for too long"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// The queue towards TCP.
#[derive(Debug, Default)]
struct Queue(VecDeque<u8>);

impl Queue {
    /// Whether the frame found room.
    fn push(&mut self, frame: &[u8]) -> bool {
        let Ok(length) = length(frame.len()) else { return false };
        let bytes = self.0.len() + LENGTH_BYTES + frame.len();
        if bytes > QUEUE_BYTES {
            return false;
        }
        if bytes > self.0.capacity() {
            // Twice as much each time, but never more than it may hold.
            let room = (2 * self.0.capacity()).clamp(bytes, QUEUE_BYTES);
            self.0.reserve_exact(room - self.0.len());
        }
        self.0.extend(length);
        self.0.extend(frame);
        true
    }

    /// Writes as much as the connection takes.
    fn write(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while !self.0.is_empty() {
            let (first, second) = self.0.as_slices();
            match tcp.try_write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(bytes) => drop(self.0.drain(..bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.0.shrink_to(KEPT_BYTES);
        Ok(())
    }
}

/// One connection, and the socket that stands for it.
#[derive(Debug)]
pub(super) struct Pipe<'a> {
    tcp: TcpStream,
    udp: &'a UdpSocket,
    counts: &'a Counts,
    scratch: &'a Scratch,
    /// Nothing: it stays until it is dropped, whoever is behind the datagrams.
    patience: Option<Patience>,
    frames: Frames,
    /// A frame that the socket's buffer had no room for.
    held: Option<Vec<u8>>,
    queue: Queue,
    /// Whether anything came back for what came by TCP.
    answered: bool,
    /// Whether a frame came by TCP since that was last asked, and when it was found out.
    heard: bool,
    heard_at: Instant,
}

impl<'a> Pipe<'a> {
    /// `udp` is connected to whom the datagrams are for.
    pub(super) fn new(
        tcp: TcpStream,
        udp: &'a UdpSocket,
        counts: &'a Counts,
        scratch: &'a Scratch,
        patience: Option<Patience>,
    ) -> Self {
        let (frames, queue, held) = (Frames::default(), Queue::default(), None);
        let (answered, heard, heard_at) = (false, false, Instant::now());
        Self { tcp, udp, counts, scratch, patience, frames, held, queue, answered, heard, heard_at }
    }

    /// Whether anything came back for what came by TCP that is not given to strangers too.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Passes frames both ways until the connection ends, or was of no use to anybody for too long. It can be dropped
    /// at any time, and called again then: nothing is lost. `answered` is called once, at the first answer.
    pub(super) async fn carry(&mut self, mut answered: impl FnMut()) -> Ended {
        let patience = self.patience;
        let deadline = sleep_until(Instant::now() + patience.map_or(Duration::ZERO, |patience| patience.unanswered));
        tokio::pin!(deadline);
        loop {
            let was_answered = self.answered;
            let step = tokio::select! {
                ready = self.tcp.readable(), if self.held.is_none() => ready.map(|()| self.read()).and_then(|read| read),
                ready = self.udp.writable(), if self.held.is_some() => ready.map(|()| self.forward()),
                ready = self.udp.readable() => ready.and_then(|()| self.collect()).map(|()| None),
                ready = self.tcp.writable(), if !self.queue.0.is_empty() => {
                    ready.and_then(|()| self.queue.write(&self.tcp)).map(|()| None)
                }
                () = &mut deadline, if patience.is_some() => {
                    let Some(patience) = patience else { continue };
                    if !self.answered {
                        return Ended::Unanswered;
                    }
                    // Looked at twice in the time: no frame costs a look at the clock.
                    let now = Instant::now();
                    if mem::take(&mut self.heard) {
                        self.heard_at = now;
                    } else if now - self.heard_at >= patience.idle {
                        return Ended::Idle;
                    }
                    deadline.as_mut().reset(now + patience.idle / 2);
                    Ok(None)
                }
            };
            match step {
                Ok(None) => {}
                Ok(Some(ended)) => return ended,
                Err(error) => return Ended::Failed(error),
            }
            if self.answered && !was_answered {
                answered();
            }
        }
    }

    /// Takes what the datagrams' side has still said, and sees it on its way, as far as that takes no time.
    pub(super) async fn finish(&mut self) {
        let last_words = async {
            self.flush().await?;
            // What is there is known only after the runtime has looked.
            while let Ok(ready) = timeout(LAST_WORDS_TIME, self.udp.readable()).await {
                ready?;
                self.collect()?;
                self.flush().await?;
            }
            SockRef::from(&self.tcp).shutdown(Shutdown::Write)
        };
        // Nobody waits for these frames any more, and the connection is closed either way.
        if let Ok(Err(error)) = timeout(FINISH_TIME, last_words).await {
            tracing::debug!(%error, "the last frames of a stream are lost");
        }
    }

    /// Writes all of the queue.
    async fn flush(&mut self) -> io::Result<()> {
        while !self.queue.0.is_empty() {
            self.tcp.writable().await?;
            self.queue.write(&self.tcp)?;
        }
        Ok(())
    }

    /// Reads from TCP once. `Some`: the bridge has ended.
    fn read(&mut self) -> io::Result<Option<Ended>> {
        let mut scratch = self.scratch.borrow_mut();
        match self.tcp.try_read(&mut scratch) {
            Ok(0) => return Ok(Some(Ended::Closed)),
            Ok(bytes) => self.frames.feed(&scratch[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        drop(scratch);
        Ok(self.forward())
    }

    /// Sends the frames that are whole, as far as the socket takes them.
    fn forward(&mut self) -> Option<Ended> {
        let (udp, counts) = (self.udp, self.counts);
        if let Some(frame) = &self.held {
            match send(udp, counts, frame) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if self.patience.is_some() => return Some(Ended::Failed(error)),
                Ok(()) => self.held = None,
                Err(_) => {
                    Counts::add(&counts.dropped, 1);
                    self.held = None;
                }
            }
        }
        loop {
            let frame = match self.frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => return None,
                Err(_) => return Some(Ended::Malformed),
            };
            match send(udp, counts, frame) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.held = Some(frame.to_vec());
                    return None;
                }
                Err(error) if self.patience.is_some() => return Some(Ended::Failed(error)),
                Ok(()) => self.heard = true,
                Err(_) => Counts::add(&counts.dropped, 1),
            }
        }
    }

    /// Takes datagrams that have come, and writes them.
    fn collect(&mut self) -> io::Result<()> {
        let mut scratch = self.scratch.borrow_mut();
        for _ in 0..DATAGRAMS_EACH {
            let frame = match self.udp.try_recv(&mut scratch) {
                Ok(bytes) => &scratch[..bytes],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_refused(&error) && self.patience.is_some() => return Err(error),
                // Of one datagram, not of the socket.
                Err(_) => continue,
            };
            self.answered |= frame.first().is_some_and(|first| is_answer(*first));
            if self.queue.push(frame) {
                Counts::add(&self.counts.frames_out, 1);
                Counts::add(&self.counts.bytes_out, frame.len() as u64);
            } else {
                Counts::add(&self.counts.dropped, 1);
            }
        }
        drop(scratch);
        self.queue.write(&self.tcp)
    }
}

/// Sends a frame as a datagram.
///
/// # Errors
/// The socket's buffer is full, or nobody is there to receive.
fn send(udp: &UdpSocket, counts: &Counts, frame: &[u8]) -> io::Result<()> {
    match udp.try_send(frame) {
        Ok(_) => {
            Counts::add(&counts.frames_in, 1);
            Counts::add(&counts.bytes_in, frame.len() as u64);
            Ok(())
        }
        Err(error) if is_refused(&error) || error.kind() == io::ErrorKind::WouldBlock => Err(error),
        // A frame that this machine does not carry, or not now.
        Err(_) => {
            Counts::add(&counts.dropped, 1);
            Ok(())
        }
    }
}

/// Whether the port that the socket is connected to is nobody's: the engine behind it has ended.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

/// Whether a frame that begins so is an answer to someone with the token: hints are given to anybody.
fn is_answer(first: u8) -> bool {
    match frame::classify(first) {
        FirstByte::Frame(FrameType::RegisterAgain | FrameType::Error) => false,
        FirstByte::Frame(_) => true,
        FirstByte::UnknownType | FirstByte::FirstEdition | FirstByte::OtherVersion(_) => false,
    }
}
