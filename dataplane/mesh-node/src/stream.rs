//! Frames over TCP, where a network lets no UDP pass.
//!
//! Neither engines nor state machines know of TCP. A *bridge* passes frames between a TCP connection and a UDP socket
//! on a loopback address, so that what is behind it looks like any other endpoint:
//!
//! ```text
//!  gateway                                                     transfer
//! +--------+ UDP, loopback +--------+      TCP       +--------+ UDP, loopback +--------+
//! | engine | <-----------> | bridge | <------------> | bridge | <-----------> | engine |
//! +--------+               +--------+ length, frame  +--------+               +--------+
//! ```
//!
//! - [`listen`] is the transfer's: one thread listens on the TCP port of every namespace, and gives each connection a
//!   bridge;
//! - [`connect`] is the gateway's: a thread keeps one connection for as long as the state machine wants one;
//! - `pipe.rs` is what a bridge does, on either side. Whatever does not fit is dropped and counted, as on any network:
//!   a stream never makes frames wait for longer than its queue is deep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use socket2::{SockRef, TcpKeepalive};

use self::pipe::Ended;

pub mod connect;
pub mod listen;
mod pipe;
mod source;

/// TCP asks for a sign of life after this time of silence, and again at this interval.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// What the kernel may hold of a connection beyond what is on its way, in bytes. More would be frames that grow old
/// where nobody can drop them.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 * 1024;

/// What bridges have done since the start of the program.
#[derive(Debug, Default)]
pub struct Counts {
    connections: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
    malformed: AtomicU64,
    frames_in: AtomicU64,
    bytes_in: AtomicU64,
    frames_out: AtomicU64,
    bytes_out: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Why a bridge ended.
    fn note(&self, ended: &Ended) {
        match ended {
            Ended::Unanswered => Self::add(&self.unanswered, 1),
            Ended::Malformed => Self::add(&self.malformed, 1),
            Ended::Closed | Ended::Idle | Ended::Failed(_) => {}
        }
    }

    /// As they are now.
    pub fn report(&self) -> StreamReport {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StreamReport {
            connections: get(&self.connections),
            accepted: get(&self.accepted),
            refused: get(&self.refused),
            unanswered: get(&self.unanswered),
            malformed: get(&self.malformed),
            frames_in: get(&self.frames_in),
            bytes_in: get(&self.bytes_in),
            frames_out: get(&self.frames_out),
            bytes_out: get(&self.bytes_out),
            dropped: get(&self.dropped),
        }
    }
}

/// A connection that is counted for as long as it is there.
#[derive(Debug)]
struct Present(Arc<Counts>);

impl Present {
    fn new(counts: &Arc<Counts>) -> Self {
        Counts::add(&counts.connections, 1);
        Counts::add(&counts.accepted, 1);
        Self(Arc::clone(counts))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a program says of its bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// Connections at present.
    pub connections: u64,
    /// Connections made since the start.
    pub accepted: u64,
    /// Connections turned away because there were too many.
    pub refused: u64,
    /// Connections ended because what they sent earned no answer.
    pub unanswered: u64,
    /// Connections ended because they sent something else than frames.
    pub malformed: u64,
    /// Frames that came by TCP.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that left by TCP.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames dropped because a queue was full, or there was no connection.
    pub dropped: u64,
}

/// Sets what every connection has: nothing waits for more to be sent with, and a dead one is noticed.
fn prepare(socket: &SockRef<'_>) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    let mut refused = [socket.set_tcp_nodelay(true).err(), socket.set_tcp_keepalive(&keepalive).err()];
    // A stream works without, only worse.
    if let Some(error) = refused.iter_mut().find_map(Option::take) {
        tracing::debug!(%error, "a connection does not take its options");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = socket.set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::debug!(%error, "what a connection has not sent is not bounded");
    }
}

#[cfg(test)]
mod tests;
