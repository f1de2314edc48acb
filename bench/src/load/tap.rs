//! The reading sink: looks at each datagram that arrives, with the kernel's time stamp.
//!
//! A packet socket sees frames before the [`Counter`](super::Counter) drops them, so that both can be at work. Its thread runs only
//! while nobody else wants its processor, and reads what has gathered every `PAUSE`: the time stamps are the kernel's, so reading
//! late costs no precision. It has to be fast enough on average, else the socket overflows; that is told ([`Seen::dropped`]).

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hdrhistogram::Histogram;
use libc::sock_filter;
use mesh_lab::Interface;

use super::Head;
use super::frame::{FIRST_BYTE, Stamp};
use super::frames::{ETHERNET_BYTES, FRAME_HEAD_BYTES, IPV4_BYTES, UDP_BYTES};
use super::generator::Sent;
use super::sys::{self, GSO_UDP_L4, Inbox, Received, VNET_BYTES};

/// Between two looks at a busy socket.
const PAUSE: Duration = Duration::from_millis(1);
/// Frames the kernel keeps for the tap.
const SOCKET_BUFFER_BYTES: usize = 64 << 20;
/// Frames read by one system call: a thread that runs when idle gives way between two.
const FRAMES_EACH: usize = 16;
/// The longest superpacket.
const FRAME_BYTES_MAX: usize = VNET_BYTES + ETHERNET_BYTES + 65_535;

/// Runs that are remembered; the oldest give way.
const RUNS_MAX: usize = 64;
/// Flows of a run.
const FLOWS_MAX: u32 = 1 << 16;
/// Datagrams of a flow: 2^30 take 128 MiB.
const SEQUENCES_MAX: u64 = 1 << 30;

/// What a tap has seen of one run.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Datagrams that arrived, each counted once.
    pub received: u64,
    /// Arrivals of datagrams that were there already.
    pub duplicates: u64,
    /// Datagrams that arrived after one that was sent after them in the same flow (RFC 4737, section 3.3).
    pub reordered: u64,
    /// Datagrams that did not arrive, though later ones of the same flow did.
    pub missing: u64,
    /// Arrivals at another port than the first of the same flow.
    pub misplaced: u64,
    /// How many frames had how many datagrams.
    pub trains: BTreeMap<u16, u64>,
    /// Nanoseconds from when a datagram was due until the kernel received it.
    pub latency: Histogram<u64>,
    /// When the first one arrived, and the last one, since 1970.
    pub period: Option<(Duration, Duration)>,
    /// What arrived of each flow, by its number.
    pub flows: Vec<FlowSeen>,
    /// Frames of whatever run that the tap itself had no room for since the last [`Tap::take`]. Unless it is 0, the figures are of no
    /// use.
    pub dropped: u64,
}

/// What a tap has seen of one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowSeen {
    /// Datagrams that arrived, each counted once.
    pub received: u64,
    /// The port that the first one was for; 0 if none arrived.
    pub port: u16,
}

impl Seen {
    /// Datagrams that were sent and did not arrive.
    pub fn lost(&self, sent: &Sent) -> u64 {
        sent.datagrams.saturating_sub(self.received)
    }
}

/// Reads what arrives on an interface, on a thread of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Tap {
    questions: Sender<Question>,
    /// A byte for each question; closed at the end.
    bell: UnixStream,
    reader: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Question {
    run: u32,
    answer: Sender<Seen>,
}

impl Tap {
    /// Reads from now on the data frames that arrive on `interface` for these UDP ports, as they are or in ChannelData, on
    /// `processor`.
    ///
    /// # Errors
    /// The interface is gone, or packet sockets are refused.
    pub fn new(interface: &Interface, ports: RangeInclusive<u16>, processor: usize) -> Result<Self> {
        let socket = sys::receiving_socket(interface, SOCKET_BUFFER_BYTES, &filter(&ports))?;
        let (bell, door) = UnixStream::pair().context("make a pair of sockets")?;
        door.set_nonblocking(true).context("make a pair of sockets")?;
        let (questions, asked) = channel();
        let work = move || {
            sys::pin(processor)?;
            sys::run_when_idle().context("run when idle")?;
            Reader { socket, runs: BTreeMap::new(), dropped: 0 }.read(&door, &asked)
        };
        let reader = thread::Builder::new().name("tap".to_owned()).spawn(work).context("start a thread")?;
        Ok(Self { questions, bell, reader: Some(reader) })
    }

    /// What has arrived of a run so far; it is forgotten by the tap. Frames that the kernel received before this call count.
    ///
    /// # Errors
    /// The interface went away.
    pub fn take(&mut self, run: u32) -> Result<Seen> {
        let (answer, answered) = channel();
        let asked = self.questions.send(Question { run, answer });
        if asked.is_ok() {
            // The bell may be full: then the tap is awake.
            let _ = std::io::Write::write(&mut self.bell, &[1]);
            if let Ok(seen) = answered.recv() {
                return Ok(seen);
            }
        }
        let reader = self.reader.take().context("the tap has ended")?;
        reader.join().map_err(|_| anyhow!("the tap panicked"))??;
        Err(anyhow!("the tap has ended"))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.bell.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Lets data frames to these ports pass that come from elsewhere.
fn filter(ports: &RangeInclusive<u16>) -> [sock_filter; 15] {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_ABS;
    const JUMP: u32 = libc::BPF_JMP | libc::BPF_K;
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code as u16, jt, jf, k };
    let load = |size: u32, at: u32| instruction(LOAD | size, at, 0, 0);
    let packet_kind = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
    let at = |offset: usize| u32::try_from(offset).expect("within the first headers");
    let udp = ETHERNET_BYTES + IPV4_BYTES;
    // Either number of a jump skips so many instructions: to the last one, which refuses, or to the one before.
    [
        load(libc::BPF_B, packet_kind),
        instruction(JUMP | libc::BPF_JEQ, u32::from(libc::PACKET_HOST), 0, 12),
        load(libc::BPF_H, at(ETHERNET_BYTES - 2)),
        instruction(JUMP | libc::BPF_JEQ, 0x0800, 0, 10),
        load(libc::BPF_B, at(ETHERNET_BYTES + 9)),
        instruction(JUMP | libc::BPF_JEQ, 17, 0, 8),
        load(libc::BPF_H, at(udp + 2)),
        instruction(JUMP | libc::BPF_JGE, u32::from(*ports.start()), 0, 6),
        instruction(JUMP | libc::BPF_JGT, u32::from(*ports.end()), 5, 0),
        load(libc::BPF_B, at(udp + UDP_BYTES)),
        instruction(JUMP | libc::BPF_JEQ, u32::from(FIRST_BYTE), 2, 0),
        instruction(JUMP | libc::BPF_JGE, u32::from(*Head::CHANNEL_FIRST_BYTES.start()), 0, 2),
        instruction(JUMP | libc::BPF_JGT, u32::from(*Head::CHANNEL_FIRST_BYTES.end()), 1, 0),
        instruction(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

/// The thread of a tap.
struct Reader {
    socket: OwnedFd,
    runs: BTreeMap<u32, Run>,
    dropped: u64,
}

impl Reader {
    fn read(mut self, door: &UnixStream, asked: &Receiver<Question>) -> Result<()> {
        let mut inbox = Inbox::new(FRAMES_EACH, FRAME_BYTES_MAX);
        loop {
            let question = match asked.try_recv() {
                Ok(question) => Some(question),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return Ok(()),
            };
            // Asked before: whatever had arrived by then is read.
            let mut idle = true;
            while inbox.receive(&self.socket, |frame| take_frame(&mut self.runs, &frame)).context("read a frame")? > 0 {
                idle = false;
            }
            if let Some(Question { run, answer }) = question {
                self.dropped += sys::packet_drops(&self.socket).context("ask for lost frames")?;
                let seen = self.runs.remove(&run).unwrap_or_default().finish(std::mem::take(&mut self.dropped));
                // Whoever asked may have given up.
                let _ = answer.send(seen);
            } else if idle {
                sys::wait_for_either(&self.socket, door).context("wait for frames")?;
                let mut rings = [0; 64];
                match std::io::Read::read(&mut &*door, &mut rings) {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error).context("wait for frames"),
                }
            } else {
                thread::park_timeout(PAUSE);
            }
        }
    }
}

/// Takes one frame, a train or not.
fn take_frame(runs: &mut BTreeMap<u32, Run>, frame: &Received<'_>) {
    let Some((head, payload)) = frame.bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else { return };
    let gso_bytes = usize::from(u16::from_ne_bytes([head[4], head[5]]));
    let each = if head[1] == GSO_UDP_L4 && gso_bytes > 0 { gso_bytes } else { payload.len() };
    let port = u16::from_be_bytes([head[FRAME_HEAD_BYTES - 6], head[FRAME_HEAD_BYTES - 5]]);
    let mut of_run = BTreeMap::<u32, u16>::new();
    for datagram in payload.chunks(each.max(1)) {
        let Some(stamp) = Stamp::read(Head::skip(datagram)) else { continue };
        if stamp.flow >= FLOWS_MAX || stamp.sequence >= SEQUENCES_MAX {
            continue;
        }
        if !runs.contains_key(&stamp.run) && runs.len() == RUNS_MAX {
            runs.pop_first();
        }
        runs.entry(stamp.run).or_default().arrival(&stamp, port, frame.at);
        *of_run.entry(stamp.run).or_default() += 1;
    }
    for (run, datagrams) in of_run {
        if let Some(run) = runs.get_mut(&run) {
            *run.trains.entry(datagrams).or_default() += 1;
        }
    }
}

/// One run, while it is being read.
#[derive(Debug)]
struct Run {
    flows: Vec<Flow>,
    duplicates: u64,
    reordered: u64,
    misplaced: u64,
    trains: BTreeMap<u16, u64>,
    latency: Histogram<u64>,
    period: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Flow {
    seen: FlowSeen,
    /// The lowest place above all that arrived.
    next: u64,
    /// A bit for each place.
    arrived: Vec<u64>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            flows: Vec::new(),
            duplicates: 0,
            reordered: 0,
            misplaced: 0,
            trains: BTreeMap::new(),
            latency: super::delays(),
            period: None,
        }
    }
}

impl Run {
    fn arrival(&mut self, stamp: &Stamp, port: u16, at: u64) {
        let number = usize::try_from(stamp.flow).expect("below 2^16");
        if self.flows.len() <= number {
            self.flows.resize_with(number + 1, Flow::default);
        }
        let flow = &mut self.flows[number];
        if flow.seen.received == 0 {
            flow.seen.port = port;
        } else if flow.seen.port != port {
            self.misplaced += 1;
        }
        let word = usize::try_from(stamp.sequence / 64).expect("below 2^30");
        let bit = 1 << (stamp.sequence % 64);
        if flow.arrived.len() <= word {
            flow.arrived.resize(word + 1, 0);
        }
        if flow.arrived[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        flow.arrived[word] |= bit;
        flow.seen.received += 1;
        if stamp.sequence < flow.next {
            self.reordered += 1;
        } else {
            flow.next = stamp.sequence + 1;
        }
        self.latency.saturating_record(at.saturating_sub(stamp.due));
        let (first, last) = self.period.unwrap_or((at, at));
        self.period = Some((first.min(at), last.max(at)));
    }

    fn finish(self, dropped: u64) -> Seen {
        let Self { flows, duplicates, reordered, misplaced, trains, latency, period } = self;
        let received = flows.iter().map(|flow| flow.seen.received).sum();
        let highest: u64 = flows.iter().map(|flow| flow.next).sum();
        Seen {
            received,
            duplicates,
            reordered,
            missing: highest - received,
            misplaced,
            trains,
            latency,
            period: period.map(|(first, last)| (Duration::from_nanos(first), Duration::from_nanos(last))),
            flows: flows.into_iter().map(|flow| flow.seen).collect(),
            dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of one run and flow to port 3000, with datagrams of these places.
    fn frame(places: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEAD_BYTES];
        if places.len() > 1 {
            bytes[1] = GSO_UDP_L4;
            bytes[4..6].copy_from_slice(&100_u16.to_ne_bytes());
        }
        bytes[FRAME_HEAD_BYTES - 6..FRAME_HEAD_BYTES - 4].copy_from_slice(&3_000_u16.to_be_bytes());
        for sequence in places {
            let mut body = vec![0; 100];
            let front = body.first_chunk_mut().expect("a body is longer than its front");
            Stamp { flow: 1, sequence: *sequence, due: 1_000, run: 7 }.write(&[FIRST_BYTE; 16], front);
            bytes.extend(body);
        }
        bytes
    }

    fn seen(frames: &[&[u64]]) -> Seen {
        let mut runs = BTreeMap::new();
        for places in frames {
            take_frame(&mut runs, &Received { bytes: &frame(places), at: 5_000_001_000 });
        }
        runs.remove(&7).unwrap_or_default().finish(0)
    }

    #[test]
    fn what_arrives_in_order_is_received() {
        let seen = seen(&[&[0], &[1, 2, 3], &[4]]);
        assert_eq!((seen.received, seen.duplicates, seen.reordered, seen.missing, seen.misplaced), (5, 0, 0, 0, 0));
        assert_eq!(seen.trains, BTreeMap::from([(1, 2), (3, 1)]));
        assert_eq!(seen.latency.len(), 5);
        assert!(seen.latency.equivalent(seen.latency.max(), 5_000_000_000), "due at 1000 ns, it came 5 s later");
        assert_eq!(seen.flows, [FlowSeen::default(), FlowSeen { received: 5, port: 3_000 }]);
    }

    #[test]
    fn channel_data_is_read_as_what_is_in_it() {
        let mut bytes = vec![0; FRAME_HEAD_BYTES];
        bytes[1] = GSO_UDP_L4;
        bytes[4..6].copy_from_slice(&104_u16.to_ne_bytes());
        for sequence in 0..3 {
            let whole = frame(&[sequence]);
            bytes.extend([0x40, 0x02, 0, 100]);
            bytes.extend(&whole[FRAME_HEAD_BYTES..]);
        }
        let mut runs = BTreeMap::new();
        take_frame(&mut runs, &Received { bytes: &bytes, at: 0 });
        let seen = runs.remove(&7).unwrap_or_default().finish(0);
        assert_eq!((seen.received, seen.missing, seen.trains), (3, 0, BTreeMap::from([(3, 1)])));
    }

    #[test]
    fn a_late_datagram_is_reordered_and_one_that_comes_twice_a_duplicate() {
        let seen = seen(&[&[0], &[3], &[2], &[2], &[5]]);
        assert_eq!((seen.received, seen.duplicates, seen.reordered, seen.missing), (4, 1, 1, 2));
    }

    #[test]
    fn what_is_no_body_counts_nowhere() {
        let mut runs = BTreeMap::new();
        let whole = frame(&[0]);
        for bytes in [&[][..], &whole[..FRAME_HEAD_BYTES], &whole[..FRAME_HEAD_BYTES + 63], &frame(&[u64::MAX])] {
            take_frame(&mut runs, &Received { bytes, at: 0 });
        }
        assert!(runs.is_empty());
    }

    #[test]
    fn runs_are_bounded() {
        let mut runs = BTreeMap::new();
        for run in 0..1_000_u32 {
            let mut bytes = frame(&[0]);
            bytes[FRAME_HEAD_BYTES + 36..FRAME_HEAD_BYTES + 40].copy_from_slice(&run.to_be_bytes());
            take_frame(&mut runs, &Received { bytes: &bytes, at: 0 });
        }
        assert_eq!(runs.len(), RUNS_MAX);
        assert!(runs.contains_key(&999));
    }
}
