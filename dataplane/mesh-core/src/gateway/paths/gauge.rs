//! What is known of how well a path carries: round-trip time, its variation, and loss in the direction away from us.
//!
//! Times are smoothed as TCP smooths them (RFC 6298). Loss is counted, not guessed from missing answers: a probe says nothing of
//! which direction lost it, but each answer tells how many frames had arrived by then, of all that were sent, data included. So
//! a path that loses on the way back only is not blamed for it, and a busy path is known exactly.

use std::collections::VecDeque;
use std::time::Duration;

use crate::seam::Moment;

/// Probes whose answers count, at most.
const OUTSTANDING_MAX: usize = 32;
/// What was lost longer ago than this counts less than a third, as long as so many frames are remembered; not at all after a while.
const LOSS_MEMORY: Duration = Duration::from_secs(3);
const LOSS_FRAMES_KEPT: f64 = 20.0;
const LOSS_FORGOTTEN: Duration = Duration::from_secs(30);
/// Frames that loss is a share of, at least: one lost of a few is chance.
const LOSS_FRAMES_MIN: f64 = 10.0;
/// Frames that one probe overtakes, at most, beside those that are sent until the next one.
const OVERTAKEN_MAX: u32 = 64;
/// An answer that takes longer than this, and longer than four usual ones, is missed.
const ANSWER_LEAST: Duration = Duration::from_millis(1000);
const ANSWER_MOST: Duration = Duration::from_millis(2000);
/// One that takes longer than this, and longer than two usual ones, is late.
const LATE_LEAST: Duration = Duration::from_millis(300);
/// A path that answers so much later than at best, and half as late again, has become slower.
const SLOWER: Duration = Duration::from_millis(5);
/// So many probes have to be unanswered, too.
const MISSED_MIN: usize = 4;

/// A probe that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    seq: u32,
    at: Moment,
    /// Frames sent before it.
    sent: u32,
}

/// Measurements of one path.
#[derive(Clone, Debug, Default)]
pub(in crate::gateway) struct Gauge {
    /// Frames sent and received, modulo 2^32.
    sent: u32,
    received: u32,
    outstanding: VecDeque<Outstanding>,
    smoothed: Option<Duration>,
    /// The least that it was since the path was last silent.
    fastest: Option<Duration>,
    variation: Duration,
    /// Frames sent and arrived by the last probe that was answered, as both sides count.
    counted: Option<(u32, u32)>,
    /// Frames of late and those of them that were lost; both fade.
    frames: f64,
    lost: f64,
    answered_at: Option<Moment>,
    /// Answers in a row.
    streak: u32,
}

impl Gauge {
    /// Notes frames that are sent on the path.
    pub(in crate::gateway) fn note_sent(&mut self, frames: u32) {
        self.sent = self.sent.wrapping_add(frames);
    }

    /// Notes a frame that was sent at `at`, now that it has arrived: what it said of the frames before them, probes that left later
    /// said without it.
    pub(in crate::gateway) fn note_sent_at(&mut self, at: Moment) {
        self.note_sent(1);
        for probe in self.outstanding.iter_mut().filter(|probe| probe.at > at) {
            probe.sent = probe.sent.wrapping_add(1);
        }
    }

    /// Notes a frame that came by the path.
    pub(in crate::gateway) fn note_received(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    /// Frames received, as an answer tells it.
    pub(in crate::gateway) fn received(&self) -> u32 {
        self.received
    }

    /// Notes that a probe leaves, and returns what it says of the frames before it.
    pub(in crate::gateway) fn probe(&mut self, now: Moment, seq: u32) -> u32 {
        if self.outstanding.len() == OUTSTANDING_MAX {
            // The oldest that is waited for tells since when there is no answer.
            self.outstanding.remove(1);
        }
        self.outstanding.push_back(Outstanding { seq, at: now, sent: self.sent });
        let before = self.sent;
        self.note_sent(1);
        before
    }

    /// Takes the answer to a probe of this path: `received` frames had come by then. `false` when no such probe is waited for.
    pub(in crate::gateway) fn answer(&mut self, now: Moment, seq: u32, received: u32) -> bool {
        let Some(place) = self.outstanding.iter().position(|probe| probe.seq == seq) else { return false };
        let probe = self.outstanding[place];
        // Those before it that are answered later would be counted twice.
        self.outstanding.drain(..=place);
        let taken = now.since(probe.at);
        if taken <= ANSWER_MOST {
            // What came later is missed already; it waited somewhere, as in the memory of a machine that slept.
            self.time(taken);
        }
        let sent = probe.sent.wrapping_add(1);
        if let Some((sent_before, received_before)) = self.counted.replace((sent, received)) {
            let (frames, arrived) = (sent.wrapping_sub(sent_before), received.wrapping_sub(received_before));
            // A count that went back, or on by much more than was sent, is another count: the peer began anew. By a little more it
            // goes where a probe had overtaken frames that were sent before it.
            if arrived <= frames.saturating_mul(2).saturating_add(OVERTAKEN_MAX) {
                self.fade(now);
                self.frames += f64::from(frames);
                self.lost = (self.lost + f64::from(frames) - f64::from(arrived)).max(0.0);
            }
        }
        self.answered_at = Some(now);
        self.streak = self.streak.saturating_add(1);
        true
    }

    fn time(&mut self, taken: Duration) {
        match self.smoothed {
            None => (self.smoothed, self.variation) = (Some(taken), taken / 2),
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(taken)) / 4;
                self.smoothed = Some((smoothed * 7 + taken) / 8);
            }
        }
        self.fastest = self.fastest.into_iter().chain(self.smoothed).min();
    }

    fn fade(&mut self, now: Moment) {
        let since = self.answered_at.map_or(Duration::ZERO, |at| now.since(at));
        let mut kept = (-since.as_secs_f64() / LOSS_MEMORY.as_secs_f64()).exp();
        if since < LOSS_FORGOTTEN {
            // A path that is probed rarely would never be known to lose.
            kept = kept.max((LOSS_FRAMES_KEPT / self.frames.max(1.0)).min(1.0));
        }
        self.frames *= kept;
        self.lost *= kept;
    }

    /// Whether a probe is not answered yet.
    pub(in crate::gateway) fn waits(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Smoothed round-trip time; `None` before the first answer.
    pub(in crate::gateway) fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Whether round trips take about as long as they did at best.
    pub(in crate::gateway) fn is_as_fast_as_ever(&self) -> bool {
        let Some((now, best)) = self.smoothed.zip(self.fastest) else { return false };
        now <= best + best / 2 + SLOWER
    }

    /// Mean deviation of round-trip times.
    pub(in crate::gateway) fn jitter(&self) -> Duration {
        self.variation
    }

    /// Share of frames that were lost on the way to the peer of late, from 0 to 1.
    pub(in crate::gateway) fn loss(&self) -> f64 {
        self.lost / self.frames.max(LOSS_FRAMES_MIN)
    }

    /// Answers since the path was last silent.
    pub(in crate::gateway) fn streak(&self) -> u32 {
        self.streak
    }

    /// When the last answer came.
    pub(in crate::gateway) fn answered_at(&self) -> Option<Moment> {
        self.answered_at
    }

    /// From when on the path counts as silent, if no answer comes; `None` while too few are waited for.
    pub(in crate::gateway) fn silent_from(&self) -> Option<Moment> {
        let oldest = self.outstanding.front()?;
        if self.outstanding.len() < MISSED_MIN {
            return None;
        }
        let usual = self.smoothed.unwrap_or_default() + 4 * self.variation;
        Some(oldest.at + (usual * 4).clamp(ANSWER_LEAST, ANSWER_MOST))
    }

    /// Whether an answer takes so long that it is doubtful whether it comes.
    pub(in crate::gateway) fn is_late(&self, now: Moment) -> bool {
        let usual = self.smoothed.unwrap_or_default() + 4 * self.variation;
        self.outstanding.front().is_some_and(|oldest| now.since(oldest.at) >= (usual * 2).max(LATE_LEAST))
    }

    /// Whether several probes in a row are unanswered for too long.
    pub(in crate::gateway) fn is_silent(&self, now: Moment) -> bool {
        self.silent_from().is_some_and(|from| now >= from)
    }

    /// What was lost says nothing of the path: the frames were too long for it.
    pub(in crate::gateway) fn forget_loss(&mut self) {
        self.counted = None;
        (self.frames, self.lost) = (0.0, 0.0);
    }

    /// The path is silent: what is asked from here on has to prove it anew. Counts go on.
    pub(in crate::gateway) fn fall_silent(&mut self) {
        self.outstanding.clear();
        self.streak = 0;
        self.fastest = None;
        // Loss while it was silent says nothing of it when it is back.
        self.forget_loss();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Gauge;
    use crate::seam::Moment;

    const START: Moment = Moment::from_nanos(5_000_000_000);

    /// Probes every 200 ms over a path that carries frames for which `arrives` says so, 10 of them between two probes.
    fn run(probes: u32, mut arrives: impl FnMut(u32) -> bool) -> Gauge {
        let (mut gauge, mut number, mut received) = (Gauge::default(), 0, 0);
        for seq in 0..probes {
            let now = START + Duration::from_millis(200) * seq;
            for _ in 0..10 {
                gauge.note_sent(1);
                received += u32::from(arrives(number));
                number += 1;
            }
            gauge.probe(now, seq);
            received += 1;
            assert!(gauge.answer(now + Duration::from_millis(20), seq, received));
        }
        gauge
    }

    #[test]
    fn loss_is_what_did_not_arrive_of_what_was_sent() {
        assert_eq!(run(50, |_| true).loss(), 0.0);
        let lossy = run(50, |number| number % 10 >= 3).loss();
        assert!((0.25..0.30).contains(&lossy), "{lossy}: 3 of 11 frames, the probes arrive");
        let was = run(50, |number| number > 250 || number % 2 == 0).loss();
        assert!(was < 0.1, "{was}: it lost half of them, but not of late");
    }

    #[test]
    fn a_peer_that_begins_anew_is_no_loss() {
        let mut gauge = run(10, |_| true);
        gauge.probe(START + Duration::from_secs(3), 99);
        assert!(gauge.answer(START + Duration::from_secs(3), 99, 1));
        assert_eq!(gauge.loss(), 0.0);
    }

    #[test]
    fn answers_to_nothing_that_was_asked_count_for_nothing() {
        let mut gauge = Gauge::default();
        gauge.probe(START, 7);
        assert!(!gauge.answer(START, 8, 1));
        assert!(gauge.answer(START + Duration::from_millis(30), 7, 1));
        assert!(!gauge.answer(START, 7, 1), "twice");
        assert_eq!((gauge.streak(), gauge.round_trip()), (1, Some(Duration::from_millis(30))));
    }

    #[test]
    fn four_unanswered_probes_and_a_second_are_silence() {
        let mut gauge = run(5, |_| true);
        let start = START + Duration::from_secs(2);
        for seq in 100..104 {
            assert_eq!(gauge.silent_from(), None, "{seq}");
            gauge.probe(start + Duration::from_millis(200) * (seq - 100), seq);
        }
        assert_eq!(gauge.silent_from(), Some(start + Duration::from_secs(1)));
        assert!(gauge.is_silent(start + Duration::from_secs(1)));
        for seq in 104..400 {
            gauge.probe(start + Duration::from_secs(1), seq);
        }
        assert!(gauge.is_silent(start + Duration::from_secs(1)), "however many are asked meanwhile");
        gauge.fall_silent();
        assert_eq!((gauge.silent_from(), gauge.streak()), (None, 0));
    }

    #[test]
    fn a_slow_path_has_more_time() {
        let mut gauge = Gauge::default();
        for seq in 0..20 {
            let now = START + Duration::from_millis(400) * seq;
            gauge.probe(now, seq);
            gauge.answer(now + Duration::from_millis(350), seq, seq + 1);
        }
        let start = START + Duration::from_secs(60);
        for seq in 100..104 {
            gauge.probe(start, seq);
        }
        let patience = gauge.silent_from().unwrap().since(start);
        assert!((1_300..=2_000).contains(&patience.as_millis()), "{patience:?}");
    }

    #[test]
    fn frames_that_are_overtaken_are_not_lost() {
        let (mut gauge, mut received) = (Gauge::default(), 0);
        for seq in 0..200 {
            let now = START + Duration::from_millis(200) * seq;
            gauge.note_sent(10);
            gauge.probe(now, seq);
            // Every other probe overtakes the last two frames before it.
            received += if seq % 2 == 0 { 9 } else { 13 };
            assert!(gauge.answer(now + Duration::from_millis(20), seq, received));
        }
        assert!(gauge.loss() < 0.04, "{}", gauge.loss());
    }

    #[test]
    fn an_answer_that_waited_while_the_machine_slept_says_nothing_of_the_path() {
        let mut gauge = run(20, |_| true);
        let usual = gauge.round_trip();
        let slept = START + Duration::from_secs(10);
        gauge.probe(slept, 100);
        assert!(gauge.answer(slept + Duration::from_secs(120), 100, 300));
        assert_eq!(gauge.round_trip(), usual);
        assert_eq!(gauge.answered_at(), Some(slept + Duration::from_secs(120)), "but that it is there");
    }
}
