//! A TCP copy that checks every byte and tells its rate.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::Host;
use crate::random::word;

/// How long either side waits for progress before the copy has failed.
const STALL_MAX: Duration = Duration::from_secs(15);

/// Bytes per read and write.
const CHUNK_BYTES: usize = 256 * 1024;

/// What came of a TCP copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyReport {
    /// Bytes that arrived, all as they were sent.
    pub bytes: u64,
    /// Time from the first byte written to the last byte checked.
    pub elapsed: Duration,
}

impl CopyReport {
    /// The rate of the payload in bits per second.
    #[must_use]
    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl fmt::Display for CopyReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (megabytes, seconds) = (self.bytes as f64 / 1e6, self.elapsed.as_secs_f64());
        write!(formatter, "{megabytes:.1} MB in {seconds:.2} s, {:.1} Mbit/s, intact", self.bits_per_second() / 1e6)
    }
}

/// Copies `bytes` of a pseudo-random stream by TCP from one host to the address `address` of another, and compares
/// each with what was sent. The stream follows from `seed` and never repeats, so a byte lost, doubled, moved or
/// changed anywhere is noticed.
///
/// # Errors
/// The connection fails, nothing moves for 15 s, or a byte differs; the error names the first such byte.
pub fn tcp_copy(from: &Host, to: &Host, address: IpAddr, bytes: u64, seed: u64) -> Result<CopyReport> {
    let listener = to.tcp_listen(SocketAddr::new(address, 0))?;
    let server = listener.local_addr().context("ask for the port")?;
    let copy = thread::scope(|scope| -> Result<CopyReport> {
        let receiver = scope.spawn(|| receive(&listener, bytes, seed));
        let stream = from.tcp_connect(server, STALL_MAX)?;
        let start = Instant::now();
        let sent = send(stream, bytes, seed).with_context(|| format!("send to {server}"));
        let received = receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
        // When the receiver has found a difference the sender fails as well, and says less.
        received.with_context(|| format!("receive on {server}"))?;
        sent?;
        Ok(CopyReport { bytes, elapsed: start.elapsed() })
    });
    copy.with_context(|| format!("copy {bytes} bytes from {} to {} (seed {seed})", from.name(), to.name()))
}

fn send(mut stream: TcpStream, bytes: u64, seed: u64) -> Result<()> {
    stream.set_write_timeout(Some(STALL_MAX)).context("set a time limit")?;
    stream.set_read_timeout(Some(STALL_MAX)).context("set a time limit")?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < bytes {
        let length = chunk_length(bytes - at);
        fill(&mut chunk[..length], seed, at);
        stream.write_all(&chunk[..length]).with_context(|| format!("write at byte {at}"))?;
        at += length as u64;
    }
    stream.shutdown(std::net::Shutdown::Write).context("end the stream")?;
    // The other side closes once it has checked the last byte.
    let closed = stream.read(&mut chunk).context("wait for the receiver")?;
    if closed == 0 { Ok(()) } else { bail!("the receiver sent {closed} bytes") }
}

fn receive(listener: &TcpListener, bytes: u64, seed: u64) -> Result<()> {
    let mut ends = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(STALL_MAX).unwrap_or(PollTimeout::MAX);
    if poll(&mut ends, limit).context("wait for a connection")? == 0 {
        bail!("no connection came within {STALL_MAX:?}");
    }
    let (mut stream, _) = listener.accept().context("accept a connection")?;
    stream.set_read_timeout(Some(STALL_MAX)).context("set a time limit")?;
    let (mut chunk, mut expected) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut at = 0;
    loop {
        let length = stream.read(&mut chunk).with_context(|| format!("read at byte {at}"))?;
        if length == 0 {
            break;
        }
        fill(&mut expected[..length], seed, at);
        if chunk[..length] != expected[..length] {
            let first = chunk.iter().zip(&expected).position(|(found, expected)| found != expected);
            bail!("byte {} is not what was sent", at + first.unwrap_or_default() as u64);
        }
        at += length as u64;
    }
    if at == bytes { Ok(()) } else { bail!("the stream ended after {at} bytes") }
}

fn chunk_length(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES)
}

/// The bytes of the stream from `offset` on: eight at a time from the number of their word.
fn fill(buffer: &mut [u8], seed: u64, offset: u64) {
    let skipped = (offset % 8) as usize;
    let head = ((8 - skipped) % 8).min(buffer.len());
    let (first, rest) = buffer.split_at_mut(head);
    first.copy_from_slice(&word(seed, offset / 8).to_le_bytes()[skipped..skipped + head]);
    for (number, part) in (offset.div_ceil(8)..).zip(rest.chunks_mut(8)) {
        part.copy_from_slice(&word(seed, number).to_le_bytes()[..part.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_the_same_however_it_is_cut() {
        let mut whole = vec![0; 100];
        fill(&mut whole, 7, 0);
        for start in 0..40 {
            for length in 0..40 {
                let mut part = vec![0; length];
                fill(&mut part, 7, start as u64);
                assert_eq!(part, whole[start..start + length]);
            }
        }
    }
}
