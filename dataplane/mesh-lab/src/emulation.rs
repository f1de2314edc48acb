//! What an emulated link does to a frame: whether it arrives, and when.
//!
//! Never reads a clock or a socket: [`Line::admit`] is told when each frame came and how long it is on the wire.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::random::{Random, word};

/// The longest delay, and the longest jitter.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// The lowest rate in bits per second: a train of 64 KiB then takes 9 minutes.
const RATE_MIN: u64 = 1000;

/// Bytes an Ethernet frame takes on the wire beyond those from its header to its payload: preamble 8, check sequence
/// 4, gap 12 (IEEE 802.3).
const WIRE_OVERHEAD_BYTES: u64 = 24;

/// The shortest Ethernet frame without its check sequence; shorter ones are filled up.
const FRAME_BYTES_MIN: u64 = 60;

/// How an emulated link treats the frames of one direction. Change what matters:
/// `Emulation { delay: Duration::from_millis(10), ..Emulation::default() }`.
///
/// A frame waits in the queue for its turn, is on the wire for as long as `rate` makes it, is lost or not, and
/// arrives `delay` and some of `jitter` later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Emulation {
    /// From the end of a frame's transmission to its arrival, 0 to 60 s.
    pub delay: Duration,
    /// A frame is delayed by up to this more, evenly distributed; 0 to 60 s.
    pub jitter: Duration,
    /// Lets a frame of little jitter overtake one of much. Else it waits for those before it, so that dense traffic
    /// meets mostly the high end of the jitter.
    pub reorder: bool,
    /// The share of frames that get lost, 0 to 1, each independent of the others. A train that comes uncut
    /// ([`LinkMode::Veth`](crate::LinkMode::Veth)) is one frame.
    pub loss: f64,
    /// Bits per second on the wire, 1000 or more, or no limit. Counted as Ethernet does, with 24 bytes for preamble,
    /// check sequence and gap of each packet, also of those in a train.
    pub rate: Option<u64>,
    /// Bytes on the wire that may wait for their turn at `rate`; a frame that finds no room is dropped. One that
    /// finds the queue empty is taken whatever its length.
    pub queue_bytes: u64,
    /// What `loss` and `jitter` follow from: the same frames fare alike under the same seed. Each direction has its
    /// own numbers, which begin anew when this changes.
    pub seed: u64,
}

impl Default for Emulation {
    /// Frames pass as they come: no delay, no loss, no rate; a queue of 1 MiB once there is a rate.
    fn default() -> Emulation {
        let (delay, jitter) = (Duration::ZERO, Duration::ZERO);
        Emulation { delay, jitter, reorder: false, loss: 0.0, rate: None, queue_bytes: 1 << 20, seed: 1 }
    }
}

impl Emulation {
    /// # Errors
    /// A value is out of its range.
    pub(crate) fn check(&self) -> Result<()> {
        if self.delay > DELAY_MAX || self.jitter > DELAY_MAX {
            bail!("a delay of {:?} and a jitter of {:?}: at most {DELAY_MAX:?} each", self.delay, self.jitter);
        }
        if !(0.0..=1.0).contains(&self.loss) {
            bail!("a loss of {}: a share is from 0 to 1", self.loss);
        }
        match self.rate {
            Some(rate) if rate < RATE_MIN => bail!("a rate of {rate} bit/s: at least {RATE_MIN}"),
            Some(_) | None => Ok(()),
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It gets lost on the way.
    Lost,
    /// It finds no room in the queue.
    QueueFull,
    /// It arrives at this time.
    Arrives(Instant),
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Line {
    direction: u64,
    seed: u64,
    losses: Random,
    jitters: Random,
    /// When the transmitter has sent what it has taken.
    busy_until: Option<Instant>,
    /// When the last of the frames so far arrives.
    last_arrival: Option<Instant>,
}

impl Line {
    /// A line as no frame has passed yet; lines of different `direction` draw different numbers from one seed.
    pub(crate) fn new(seed: u64, direction: u64) -> Line {
        let numbers = |number| Random::new(word(seed, number));
        let (losses, jitters) = (numbers(2 * direction), numbers(2 * direction + 1));
        Line { direction, seed, losses, jitters, busy_until: None, last_arrival: None }
    }

    /// Decides on a frame of `wire_bytes` that came at `now`. Call it for the frames in the order they came.
    pub(crate) fn admit(&mut self, emulation: &Emulation, wire_bytes: u64, now: Instant) -> Fate {
        if emulation.seed != self.seed {
            let (busy_until, last_arrival) = (self.busy_until, self.last_arrival);
            *self = Line { busy_until, last_arrival, ..Line::new(emulation.seed, self.direction) };
        }
        // Drawn for every frame, so that the fate of one does not depend on the queue or on other settings.
        let (loss, jitter) = (self.losses.fraction(), self.jitters.fraction());
        let mut arrival = now;
        if let Some(rate) = emulation.rate {
            let start = self.busy_until.map_or(now, |free| free.max(now));
            let waiting_bytes = (start - now).as_nanos() * u128::from(rate) / 8_000_000_000;
            if waiting_bytes > 0 && waiting_bytes + u128::from(wire_bytes) > u128::from(emulation.queue_bytes) {
                return Fate::QueueFull;
            }
            arrival = start + transmission_time(wire_bytes, rate);
            self.busy_until = Some(arrival);
        }
        if loss < emulation.loss {
            return Fate::Lost;
        }
        arrival += emulation.delay + emulation.jitter.mul_f64(jitter);
        if !emulation.reorder {
            arrival = self.last_arrival.map_or(arrival, |last| arrival.max(last));
        }
        self.last_arrival = self.last_arrival.max(Some(arrival));
        Fate::Arrives(arrival)
    }
}

/// How long a frame is on the wire: nanoseconds fit 64 bits for any frame at any rate.
fn transmission_time(wire_bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(wire_bytes) * 8_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The bytes on the wire of a frame of `frame_bytes`, or of the packets that a train of this length is cut into:
/// each repeats `header_bytes` and has `segment_bytes` of payload, the last one what is left.
pub(crate) fn wire_bytes(frame_bytes: u64, train: Option<(u64, u64)>) -> u64 {
    let (segments, repeated) = match train {
        Some((header_bytes, segment_bytes)) if segment_bytes > 0 => {
            let segments = frame_bytes.saturating_sub(header_bytes).div_ceil(segment_bytes).max(1);
            (segments, (segments - 1) * header_bytes)
        }
        Some(_) | None => (1, 0),
    };
    (frame_bytes + repeated).max(segments * FRAME_BYTES_MIN) + segments * WIRE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn arrival(fate: Fate) -> Instant {
        if let Fate::Arrives(at) = fate { at } else { panic!("{fate:?}") }
    }

    #[test]
    fn delay_alone_moves_every_frame_by_it() {
        let (mut line, start) = (Line::new(1, 0), Instant::now());
        let slow = Emulation { delay: 10 * MS, ..Emulation::default() };
        assert_eq!(line.admit(&slow, 1000, start), Fate::Arrives(start + 10 * MS));
        assert_eq!(line.admit(&slow, 1000, start + MS), Fate::Arrives(start + 11 * MS));
        // A shorter delay lets nothing overtake.
        let fast = Emulation::default();
        assert_eq!(line.admit(&fast, 1000, start + 2 * MS), Fate::Arrives(start + 11 * MS));
        assert_eq!(line.admit(&fast, 1000, start + 20 * MS), Fate::Arrives(start + 20 * MS));
    }

    #[test]
    fn rate_spaces_frames_and_the_queue_is_bounded() {
        let (mut line, start) = (Line::new(1, 0), Instant::now());
        // 1000 bytes take 1 ms.
        let emulation = Emulation { rate: Some(8_000_000), queue_bytes: 3000, ..Emulation::default() };
        for number in 1..=3 {
            assert_eq!(line.admit(&emulation, 1000, start), Fate::Arrives(start + number * MS));
        }
        assert_eq!(line.admit(&emulation, 1000, start), Fate::QueueFull);
        assert_eq!(line.admit(&emulation, 1000, start + MS), Fate::Arrives(start + 4 * MS));
        // An empty queue takes what is longer than it.
        assert_eq!(line.admit(&emulation, 9000, start + 4 * MS), Fate::Arrives(start + 13 * MS));
        assert_eq!(line.admit(&emulation, 1, start + 4 * MS), Fate::QueueFull);
    }

    #[test]
    fn loss_follows_the_seed_and_differs_by_direction() {
        let start = Instant::now();
        let fates = |seed, direction, loss| {
            let (mut line, emulation) = (Line::new(7, direction), Emulation { loss, seed, ..Emulation::default() });
            (0..10_000).map(|_| line.admit(&emulation, 100, start) == Fate::Lost).collect::<Vec<_>>()
        };
        let lost = |fates: &[bool]| fates.iter().filter(|lost| **lost).count();
        assert_eq!(fates(3, 0, 0.1), fates(3, 0, 0.1));
        assert!(fates(3, 0, 0.1) != fates(3, 1, 0.1) && fates(3, 0, 0.1) != fates(4, 0, 0.1));
        // Six standard deviations of a binomial count with n = 10,000 and p = 0.1.
        assert!((820..1180).contains(&lost(&fates(3, 0, 0.1))));
        assert_eq!((lost(&fates(3, 0, 0.0)), lost(&fates(3, 0, 1.0))), (0, 10_000));
    }

    #[test]
    fn jitter_keeps_the_order_unless_told_otherwise() {
        let start = Instant::now();
        for reorder in [false, true] {
            let mut line = Line::new(1, 0);
            let emulation = Emulation { delay: 5 * MS, jitter: 4 * MS, reorder, ..Emulation::default() };
            let sent: Vec<_> = (0..1000).map(|number| start + MS * number / 10).collect();
            let arrivals: Vec<_> = sent.iter().map(|now| arrival(line.admit(&emulation, 100, *now))).collect();
            assert_eq!(arrivals.is_sorted(), !reorder);
            let delays = sent.iter().zip(&arrivals).map(|(sent, arrival)| *arrival - *sent);
            assert!(delays.clone().all(|delay| (5 * MS..9 * MS).contains(&delay)));
            assert!(delays.clone().max() > Some(8 * MS));
            assert!(!reorder || delays.clone().min() < Some(6 * MS));
        }
    }

    #[test]
    fn bytes_on_the_wire_are_those_of_every_packet_of_a_train() {
        assert_eq!(wire_bytes(1514, None), 1538);
        assert_eq!(wire_bytes(42, None), 84);
        assert_eq!(wire_bytes(42 + 10 * 1400, Some((42, 1400))), 10 * (42 + 1400 + 24));
        assert_eq!(wire_bytes(42 + 1401, Some((42, 1400))), (42 + 1400 + 24) + (42 + 1 + 24));
        assert_eq!(wire_bytes(1514, Some((42, 0))), 1538);
        assert_eq!(wire_bytes(10, Some((42, 1400))), 84);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let check = |emulation: Emulation, good: bool| assert_eq!(emulation.check().is_ok(), good, "{emulation:?}");
        check(Emulation::default(), true);
        check(Emulation { loss: 1.0, delay: DELAY_MAX, rate: Some(RATE_MIN), ..Emulation::default() }, true);
        for loss in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            check(Emulation { loss, ..Emulation::default() }, false);
        }
        check(Emulation { rate: Some(RATE_MIN - 1), ..Emulation::default() }, false);
        check(Emulation { delay: DELAY_MAX + MS, ..Emulation::default() }, false);
        check(Emulation { jitter: DELAY_MAX + MS, ..Emulation::default() }, false);
    }
}
