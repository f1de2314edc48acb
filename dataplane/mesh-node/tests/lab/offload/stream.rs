//! Pseudo-random bytes, and connections that carry them both ways at once.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use mesh_lab::Host;

/// How long either end waits for progress before it has failed.
const STALL_MAX: Duration = Duration::from_secs(20);
/// After so many bytes the stream comes again: a prime, so that no packet, segment or window divides it.
const PERIOD: usize = 16_777_259;
/// The longest piece of it that is asked for at once.
const PIECE_BYTES_MAX: usize = 1 << 18;
/// Bytes per read: no multiple of what is written, or sent.
const READ_BYTES: usize = 100_003;

/// What is written, over and over: less than a segment, a segment and what is next to it, superpackets and what is next
/// to them.
const WRITES: [usize; 20] = [
    1, 1_447, 65_537, 2, 1_228, 1_240, 1_241, 100, 65_536, 17, 9_001, 3, 262_143, 1, 1, 2_480, 33_333, 65_535, 1_179,
    500,
];

static STREAM: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::with_capacity(PERIOD + PIECE_BYTES_MAX + 8);
    let mut state = 0x0123_4567_89ab_cdef_u64;
    while bytes.len() < PERIOD {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(PERIOD);
    bytes.extend_from_within(..PIECE_BYTES_MAX);
    bytes
});

/// The stream from `at` on. It never ends; at most 256 KiB at a time.
pub(super) fn bytes(at: u64, length: usize) -> &'static [u8] {
    assert!(length <= PIECE_BYTES_MAX, "{length} bytes at once");
    let start = usize::try_from(at % PERIOD as u64).expect("less than the period");
    &STREAM[start..start + length]
}

/// A copy to be made both ways at once over one connection.
#[derive(Debug)]
pub(super) struct Copy {
    /// Bytes each way.
    pub(super) bytes: u64,
    /// Whether each write leaves at once, however short.
    pub(super) no_delay: bool,
    /// Bytes that have arrived so far, both ways.
    pub(super) arrived: AtomicU64,
}

impl Copy {
    pub(super) fn new(bytes: u64, no_delay: bool) -> Self {
        Self { bytes, no_delay, arrived: AtomicU64::new(0) }
    }

    /// Connects from one host to `address`, behind which is the address `listen` of the other, and copies. Every byte
    /// is compared. How long it took.
    pub(super) fn run(&self, from: &Host, to: &Host, [address, listen]: [IpAddr; 2]) -> Result<Duration> {
        let listener = to.tcp_listen(SocketAddr::new(listen, 0))?;
        let port = listener.local_addr()?.port();
        let client = from.tcp_connect(SocketAddr::new(address, port), STALL_MAX)?;
        self.between(&client, &listener).with_context(|| format!("copy {} bytes both ways to {address}", self.bytes))
    }

    fn between(&self, client: &TcpStream, listener: &TcpListener) -> Result<Duration> {
        let (server, _) = listener.accept().context("accept")?;
        let start = Instant::now();
        let server = &server;
        // The two directions carry different parts of the stream.
        thread::scope(|scope| {
            let threads = [
                ("receive there", scope.spawn(|| self.receive(server, 0))),
                ("receive back", scope.spawn(|| self.receive(client, 1_234_567))),
                ("send there", scope.spawn(|| self.send(client, 0))),
                ("send back", scope.spawn(|| self.send(server, 1_234_567))),
            ];
            // A receiver says more than the sender that fails in consequence.
            let mut results = Vec::new();
            for (what, thread) in threads {
                let result = thread.join().map_err(|_| anyhow!("a panic"));
                results.push(result.flatten().context(what));
            }
            results.into_iter().collect::<Result<Vec<()>>>()
        })?;
        Ok(start.elapsed())
    }

    fn send(&self, mut stream: &TcpStream, seed: u64) -> Result<()> {
        stream.set_nodelay(self.no_delay)?;
        stream.set_write_timeout(Some(STALL_MAX))?;
        let (mut at, mut sizes) = (0, WRITES.iter().cycle());
        while at < self.bytes {
            let size = (*sizes.next().expect("a cycle") as u64).min(self.bytes - at);
            let piece = bytes(seed + at, usize::try_from(size).expect("a piece"));
            stream.write_all(piece).with_context(|| format!("at byte {at}"))?;
            at += size;
        }
        stream.shutdown(Shutdown::Write).context("end the stream")
    }

    fn receive(&self, mut stream: &TcpStream, seed: u64) -> Result<()> {
        stream.set_read_timeout(Some(STALL_MAX))?;
        let (mut buffer, mut at) = (vec![0; READ_BYTES], 0);
        loop {
            let length = stream.read(&mut buffer).with_context(|| format!("at byte {at}"))?;
            if length == 0 {
                break;
            }
            let expected = bytes(seed + at, length);
            if buffer[..length] != *expected {
                let differs = buffer.iter().zip(expected).position(|(found, expected)| found != expected);
                anyhow::bail!("byte {} is not what was sent", at + differs.unwrap_or_default() as u64);
            }
            at += length as u64;
            self.arrived.fetch_add(length as u64, Ordering::Relaxed);
        }
        ensure!(at == self.bytes, "the stream ended after {at} bytes");
        Ok(())
    }
}
