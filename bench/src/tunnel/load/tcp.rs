//! TCP streams that carry as much as the tunnel lets them.
//!
//! Each stream has a thread at either end, as most programs have. All streams carry the same pattern, which is never copied by the
//! sender; the receiver compares the first and last bytes of every read with the pattern at their place in the stream, so that
//! bytes lost, doubled or moved are noticed at next to no cost.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Ends, Meter, Spent};
use crate::tunnel::cell::Congestion;
use crate::tunnel::rig::Place;
use crate::tunnel::sys;

/// How long either side waits for progress before the load has failed.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How long what is on its way may take to arrive once nobody sends any more.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Bytes of one write and of one read.
const CHUNK_BYTES: usize = 128 * 1024;
/// After so many bytes the pattern begins again: a prime, so that no loss of whole segments or buffers goes unnoticed.
const PATTERN_BYTES: usize = 1_048_573;
/// How many bytes are compared at either end of a read.
const COMPARED_BYTES: usize = 32;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct TcpLoad {
    /// How many streams at once, 1 to 64.
    pub streams: u16,
    /// Their congestion control, set on both ends before they connect.
    pub congestion: Congestion,
    /// How long they run before it counts.
    pub warm: Duration,
    /// How long it counts.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct TcpOutcome {
    /// Bytes of payload that arrived in the measured time, of each stream.
    pub bytes: Vec<u64>,
    /// The measured time.
    pub elapsed: Duration,
    /// What processors spent in that time.
    pub spent: Spent,
    /// Segments sent again in that time.
    pub retransmits: u64,
    /// Bytes of payload in a full segment.
    pub segment_bytes: u64,
    /// The congestion control as the kernel told it, of both ends of all streams.
    pub congestion: String,
    /// Bytes written by all streams from the first to the last; as many arrived.
    pub written: u64,
}

impl TcpOutcome {
    /// Bytes that arrived in the measured time.
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// How evenly the streams shared: 1 if all had the same, one over their number if one had all (Jain's index).
    pub fn fairness(&self) -> f64 {
        let (sum, squares) = self
            .bytes
            .iter()
            .map(|bytes| *bytes as f64)
            .fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        if squares == 0.0 { 1.0 } else { sum * sum / (squares * self.bytes.len() as f64) }
    }
}

/// What the receiver of a stream and who measures share.
struct Progress<'a> {
    received: AtomicU64,
    /// Nobody sends any more.
    stop: &'a AtomicBool,
}

impl<'a> Progress<'a> {
    fn new(stop: &'a AtomicBool) -> Self {
        Self { received: AtomicU64::new(0), stop }
    }
}

/// Runs the streams.
///
/// # Errors
/// The kernel does not take the congestion control, nothing moves for 10 s, or other bytes arrive than were sent.
#[expect(clippy::disallowed_methods, reason = "load runs for a time")]
pub fn tcp(ends: &Ends<'_>, load: &TcpLoad) -> Result<TcpOutcome> {
    let during = || {
        thread::sleep(load.time);
        Ok(())
    };
    tcp_during(ends, load, during).map(|(outcome, ())| outcome)
}

/// Runs the streams, and counts for as long as `during` takes, whatever [`TcpLoad::time`] says.
///
/// # Errors
/// As [`tcp`], or `during` fails.
pub(super) fn tcp_during<T>(
    ends: &Ends<'_>,
    load: &TcpLoad,
    during: impl FnOnce() -> Result<T>,
) -> Result<(TcpOutcome, T)> {
    let name = load.congestion.name();
    let listener = listen(ends, name)?;
    let address = listener.local_addr().context("ask for the port")?;
    let mut pairs = Vec::new();
    for _ in 0..load.streams {
        pairs.push(connect(ends, &listener, address, name).with_context(|| format!("connect to {address}"))?);
    }
    let (pattern, stop) = (pattern(), AtomicBool::new(false));
    let progress: Vec<Progress<'_>> = pairs.iter().map(|_| Progress::new(&stop)).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .iter()
            .zip(&progress)
            .map(|((near, far), progress)| {
                let (pattern, stop) = (&pattern, &stop);
                let receiver = scope.spawn(move || receive(far, pattern, progress));
                (scope.spawn(move || send(near, pattern, stop)), receiver)
            })
            .collect();
        let measured = measure(ends, &pairs, &progress, load, during);
        stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        for (sender, receiver) in threads {
            let (sent, received) = (sender.join(), receiver.join());
            // When the receiver has found a difference the sender fails as well, and says less.
            let received = received.map_err(|_| anyhow!("the receiver panicked"))??;
            let sent = sent.map_err(|_| anyhow!("the sender panicked"))??;
            ensure!(sent == received, "{sent} bytes were written and {received} arrived");
            written += sent;
        }
        let (measured, meanwhile) = measured?;
        Ok((TcpOutcome { written, congestion: name.to_owned(), ..measured }, meanwhile))
    })
}

/// Waits for the end of the warm-up, then for `during`, and tells what happened in that time.
#[expect(clippy::disallowed_methods, reason = "load runs for a time")]
fn measure<T>(
    ends: &Ends<'_>,
    pairs: &[(TcpStream, TcpStream)],
    progress: &[Progress<'_>],
    load: &TcpLoad,
    during: impl FnOnce() -> Result<T>,
) -> Result<(TcpOutcome, T)> {
    let received = || progress.iter().map(|stream| stream.received.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let facts = || pairs.iter().map(|(near, _)| sys::tcp_info(near.as_fd())).collect::<Result<Vec<_>>>();
    thread::sleep(load.warm);
    let (facts_before, meter_before, before, start) = (facts()?, Meter::read(ends)?, received(), Instant::now());
    let meanwhile = during()?;
    let (elapsed, after, meter_after, facts_after) = (start.elapsed(), received(), Meter::read(ends)?, facts()?);
    let again = |facts: &[sys::TcpInfo]| facts.iter().map(|stream| stream.retransmits).sum::<u64>();
    let outcome = TcpOutcome {
        bytes: after.iter().zip(&before).map(|(after, before)| after - before).collect(),
        elapsed,
        spent: meter_after.since(&meter_before),
        retransmits: again(&facts_after) - again(&facts_before),
        segment_bytes: facts_after.iter().map(|stream| stream.segment_bytes).min().unwrap_or_default(),
        congestion: String::new(),
        written: 0,
    };
    Ok((outcome, meanwhile))
}

/// A socket with the congestion control wanted, bound to an inner address.
fn socket(address: SocketAddr, congestion: &str) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).context("open a TCP socket")?;
    socket.set_tcp_congestion(congestion.as_bytes()).with_context(|| {
        format!("set congestion control {congestion} (`modprobe tcp_{congestion}` as root, or it is not in the kernel)")
    })?;
    socket.bind(&address.into()).with_context(|| format!("bind {address}"))?;
    Ok(socket)
}

fn listen(ends: &Ends<'_>, congestion: &str) -> Result<TcpListener> {
    ends.to.run(|| {
        let socket = socket(SocketAddr::new(ends.destination.into(), 0), congestion)?;
        socket.listen(64).context("listen")?;
        Ok(socket.into())
    })
}

fn connect(
    ends: &Ends<'_>,
    listener: &TcpListener,
    address: SocketAddr,
    congestion: &str,
) -> Result<(TcpStream, TcpStream)> {
    let near: TcpStream = ends.from.run(|| {
        let socket = socket(SocketAddr::new(ends.source.into(), 0), congestion)?;
        socket.connect_timeout(&address.into(), STALL_MAX)?;
        Ok(socket.into())
    })?;
    // The connection is complete, so it is there to be accepted.
    let (far, _) = listener.accept().context("accept")?;
    for stream in [&near, &far] {
        let told = SockRef::from(stream).tcp_congestion().context("read the congestion control back")?;
        let told: Vec<u8> = told.into_iter().take_while(|byte| *byte != 0).collect();
        ensure!(
            told == congestion.as_bytes(),
            "asked for congestion control {congestion}, the kernel has set {:?}",
            String::from_utf8_lossy(&told)
        );
    }
    near.set_write_timeout(Some(STALL_MAX)).context("set a time limit")?;
    far.set_read_timeout(Some(STALL_MAX)).context("set a time limit")?;
    Ok((near, far))
}

/// Pseudo-random bytes, twice over less one chunk, so that a chunk can begin at any place.
fn pattern() -> Vec<u8> {
    let mut pattern = vec![0; PATTERN_BYTES];
    SmallRng::seed_from_u64(1).fill_bytes(&mut pattern);
    pattern.extend_from_within(..CHUNK_BYTES);
    pattern
}

/// Writes the pattern until told to stop; how much.
fn send(mut stream: &TcpStream, pattern: &[u8], stop: &AtomicBool) -> Result<u64> {
    sys::stay_on(Place::Left.core())?;
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let place = (at % PATTERN_BYTES as u64) as usize;
        match stream.write(&pattern[place..place + CHUNK_BYTES]) {
            Ok(written) => at += written as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("nothing was taken for {STALL_MAX:?} after {at} bytes");
            }
            Err(error) => return Err(error).with_context(|| format!("write at byte {at}")),
        }
    }
    stream.shutdown(Shutdown::Write).context("end the stream")?;
    Ok(at)
}

/// Reads to the end of a stream; how much.
fn receive(mut stream: &TcpStream, pattern: &[u8], progress: &Progress<'_>) -> Result<u64> {
    sys::stay_on(Place::Right.core())?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut at, mut drained_by) = (0, None);
    loop {
        if drained_by.is_none() && progress.stop.load(Ordering::Relaxed) {
            drained_by = Some(Instant::now() + DRAIN_MAX);
        }
        ensure!(
            drained_by.is_none_or(|time| Instant::now() < time),
            "what was sent did not arrive within {DRAIN_MAX:?}"
        );
        let length = match stream.read(&mut chunk) {
            Ok(0) => return Ok(at),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("nothing came for {STALL_MAX:?} after {at} bytes");
            }
            Err(error) => return Err(error).with_context(|| format!("read at byte {at}")),
        };
        let compared = COMPARED_BYTES.min(length);
        for (place, found) in [(0, &chunk[..compared]), (length - compared, &chunk[length - compared..length])] {
            let expected = ((at + place as u64) % PATTERN_BYTES as u64) as usize;
            ensure!(
                found == &pattern[expected..expected + compared],
                "byte {} is not what was sent",
                at + place as u64
            );
        }
        at += length as u64;
        progress.received.store(at, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(bytes: &[u64]) -> TcpOutcome {
        TcpOutcome {
            bytes: bytes.to_vec(),
            elapsed: Duration::from_secs(1),
            spent: Spent::default(),
            retransmits: 0,
            segment_bytes: 0,
            congestion: String::new(),
            written: 0,
        }
    }

    #[test]
    fn fairness_is_one_for_equals_and_a_share_for_one_that_has_all() {
        assert!((outcome(&[7, 7, 7, 7]).fairness() - 1.0).abs() < 1e-12);
        assert!((outcome(&[7, 0, 0, 0]).fairness() - 0.25).abs() < 1e-12);
        assert!((outcome(&[0, 0]).fairness() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn pattern_goes_on_where_it_begins_again() {
        let pattern = pattern();
        assert_eq!(pattern[PATTERN_BYTES..], pattern[..CHUNK_BYTES]);
        assert_ne!(pattern[..COMPARED_BYTES], pattern[1..=COMPARED_BYTES]);
    }

    #[test]
    fn a_congestion_control_that_the_kernel_lacks_is_an_error_that_names_it() {
        let why = format!("{:#}", socket("127.0.0.1:0".parse().unwrap(), "nosuch").unwrap_err());
        assert!(why.contains("modprobe tcp_nosuch"), "{why}");
        assert!(socket("127.0.0.1:0".parse().unwrap(), "reno").is_ok());
    }

    #[test]
    fn a_byte_too_few_in_a_stream_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let pattern = pattern();
        near.write_all(&pattern[..1_000]).unwrap();
        near.write_all(&pattern[1_001..5_000]).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let why = receive(&far, &pattern, &Progress::new(&AtomicBool::new(false))).unwrap_err().to_string();
        assert!(why.contains("is not what was sent"), "{why}");
    }
}
