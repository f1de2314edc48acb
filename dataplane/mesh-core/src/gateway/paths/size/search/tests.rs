//! The search alone, over ways whose length and delay a test sets.

use std::net::SocketAddr;
use std::time::Duration;

use super::{OUTER_BYTES_USUAL, RAISE, Size};
use crate::gateway::paths::{Path, PathKind};
use crate::seam::{Endpoint, Moment, SocketId};

const START: Moment = Moment::from_nanos(5_000_000_000);
const STEP: Duration = Duration::from_millis(10);

fn path(port: u16) -> Path {
    let remote = SocketAddr::from(([192, 0, 2, 1], port));
    Path::straight(PathKind::Direct, Endpoint { socket: SocketId(0), remote, local: None })
}

/// A path that carries outer packets of so many bytes, and one who uses it.
struct Way {
    size: Size,
    path: Path,
    now: Moment,
    limit: u16,
    carries: u16,
    round_trip: Duration,
    /// Whether long packets go.
    busy: bool,
    /// Whether the path is known to lose packets.
    lossy: bool,
    /// Of each so many probes one is lost; 0: none.
    lose_each: u32,
    asked: u32,
    bytes: u64,
    /// Answers under way: when they come, number and payload.
    answers: Vec<(Moment, u32, usize)>,
}

impl Way {
    fn new(carries: u16) -> Self {
        Self {
            size: Size::default(),
            path: path(1),
            now: START,
            limit: OUTER_BYTES_USUAL,
            carries,
            round_trip: Duration::from_millis(40),
            busy: false,
            lossy: false,
            lose_each: 0,
            asked: 0,
            bytes: 0,
            answers: Vec::new(),
        }
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        if self.busy {
            self.size.note_used();
        }
        for (_, seq, payload) in self.answers.extract_if(.., |(at, ..)| *at <= self.now).collect::<Vec<_>>() {
            self.size.answer(self.now, self.limit, seq, payload);
        }
        let mut lengths = Vec::new();
        self.size.tend(self.now, &self.path, self.limit, Some(self.round_trip), self.lossy, &mut lengths);
        for outer in lengths {
            assert!(outer <= self.limit, "{outer} bytes are more than our own network takes");
            self.asked += 1;
            self.bytes += u64::from(outer);
            let payload = usize::from(outer) - 28;
            self.size.probe(self.now, self.asked, outer, payload);
            let lost = self.lose_each > 0 && self.asked.is_multiple_of(self.lose_each);
            if outer <= self.carries && !lost {
                self.answers.push((self.now + self.round_trip, self.asked, payload));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// How long it takes until this is proven.
    fn until(&mut self, proven: u16, most: Duration) -> Duration {
        let start = self.now;
        while self.size.proven() != proven {
            self.step();
            assert!(self.now.since(start) <= most, "{} bytes after {most:?}, not {proven}", self.size.proven());
        }
        self.now.since(start)
    }
}

#[test]
fn ethernet_is_proven_after_one_round_trip_by_two_probes() {
    let mut way = Way::new(1500);
    let took = way.until(1500, Duration::from_millis(60));
    assert!(took >= way.round_trip);
    way.run(Duration::from_secs(60));
    assert_eq!(way.asked, 2);
    assert!(!way.size.is_searching());
}

#[test]
fn every_length_of_the_table_is_found_within_a_second() {
    for (carries, expect) in [
        (1280, 1280),
        (1349, 1280),
        (1350, 1350),
        (1400, 1400),
        (1420, 1420),
        (1460, 1452),
        (1480, 1480),
        (1492, 1492),
        (1499, 1492),
        (1500, 1500),
    ] {
        let mut way = Way::new(carries);
        way.until(expect, Duration::from_secs(1));
        way.run(Duration::from_secs(2));
        assert_eq!((way.size.proven(), way.size.is_searching()), (expect, false), "{carries}");
        assert!(way.bytes < 50_000, "{} bytes for {carries}", way.bytes);
    }
}

#[test]
fn what_our_own_network_takes_is_asked_for_and_no_more() {
    let mut way = Way::new(9000);
    way.limit = 1412;
    way.until(1412, Duration::from_millis(100));
    let mut way = Way::new(9000);
    way.limit = 9000;
    way.until(9000, Duration::from_millis(100));
    let mut way = Way::new(8900);
    way.limit = 9000;
    way.until(8896, Duration::from_secs(1));
}

#[test]
fn chance_does_not_make_a_path_shorter() {
    for lose_each in 3..6 {
        let mut way = Way { lose_each, busy: true, ..Way::new(1492) };
        way.until(1492, Duration::from_secs(2));
        for _ in 0..3000 {
            way.step();
            assert_eq!(way.size.proven(), 1492, "one of {lose_each} probes is lost");
        }
    }
}

#[test]
fn where_longer_packets_begin_to_vanish_the_size_falls_within_three_seconds_and_is_found_anew() {
    for round_trip in [1, 40, 300, 700] {
        let mut way = Way { busy: true, round_trip: Duration::from_millis(round_trip), ..Way::new(1500) };
        way.until(1500, Duration::from_secs(3));
        way.run(Duration::from_millis(1230));
        way.carries = 1400;
        way.until(1280, Duration::from_secs(3));
        way.until(1400, Duration::from_secs(3));
        way.run(Duration::from_secs(5));
        assert_eq!(way.size.proven(), 1400);
        // It was for a moment only.
        way.carries = 1500;
        way.until(1500, Duration::from_secs(15));
    }
}

#[test]
fn where_the_path_loses_packets_the_size_is_doubted_sooner() {
    for lossy in [false, true] {
        let mut way = Way { busy: true, lossy, ..Way::new(1500) };
        way.until(1500, Duration::from_secs(1));
        // Just confirmed.
        let asked = way.asked;
        while way.asked == asked {
            way.step();
        }
        way.run(way.round_trip + STEP);
        assert!(!way.size.is_doubted());
        way.carries = 1400;
        let start = way.now;
        while !way.size.is_doubted() {
            way.step();
        }
        let took = way.now.since(start).as_millis();
        assert!(if lossy { took <= 210 } else { took >= 500 }, "lossy {lossy}: {took} ms");
    }
}

#[test]
fn a_path_that_never_carries_longer_packets_again_is_asked_ever_more_rarely() {
    let mut way = Way { busy: true, ..Way::new(1500) };
    way.until(1500, Duration::from_secs(1));
    way.carries = 1300;
    way.until(1280, Duration::from_secs(3));
    way.run(Duration::from_secs(1200));
    let before = way.bytes;
    way.run(Duration::from_secs(1200));
    let rate = (way.bytes - before) / 1200;
    assert!(rate < 100, "{rate} bytes a second");
}

#[test]
fn nothing_is_asked_again_while_only_short_packets_go() {
    let mut way = Way::new(1400);
    way.run(Duration::from_secs(5));
    let asked = way.asked;
    way.run(RAISE - Duration::from_secs(10));
    assert_eq!(way.asked, asked);
    // Then it is looked whether it carries more.
    way.carries = 1500;
    way.until(1500, Duration::from_secs(12));
}

#[test]
fn confirming_is_one_probe_each_half_a_second_at_most() {
    let mut way = Way { busy: true, ..Way::new(1500) };
    way.run(Duration::from_secs(1));
    let asked = way.asked;
    way.run(Duration::from_secs(10));
    assert!((10..=20).contains(&(way.asked - asked)), "{}", way.asked - asked);
}

#[test]
fn a_raise_check_finds_that_a_path_carries_less() {
    let mut way = Way::new(1480);
    way.run(Duration::from_secs(5));
    way.carries = 1400;
    way.run(RAISE);
    assert_eq!(way.size.proven(), 1400);
}

#[test]
fn a_peer_that_knows_of_no_sizes_is_asked_ever_more_rarely() {
    let mut way = Way::new(0);
    way.run(Duration::from_secs(600));
    assert_eq!(way.size.proven(), 1280);
    assert!(!way.size.is_searching(), "packets do not go as halves for ever");
    let before = way.bytes;
    way.run(Duration::from_secs(3600));
    assert!((way.bytes - before) / 3600 < 5, "{} bytes in an hour", way.bytes - before);
    // It was the path.
    way.carries = 1500;
    way.until(1500, RAISE + Duration::from_secs(2));
}

#[test]
fn a_peer_that_begins_later_than_we_is_asked_again_when_it_asks() {
    let mut way = Way::new(0);
    way.run(Duration::from_secs(100));
    way.carries = 1500;
    way.size.hear(way.now, 1000);
    way.run(Duration::from_millis(500));
    assert_eq!(way.size.proven(), 1280, "a short one makes us ask nothing");
    way.size.hear(way.now, 1280);
    way.until(1500, Duration::from_secs(1));
}

#[test]
fn another_path_has_another_size() {
    let mut way = Way::new(1500);
    way.until(1500, Duration::from_secs(1));
    way.path = path(2);
    way.carries = 1400;
    way.step();
    assert_eq!((way.size.proven(), way.size.is_searching()), (1280, true));
    way.until(1400, Duration::from_secs(1));
}

#[test]
fn after_a_rest_the_size_is_confirmed_before_it_is_doubted() {
    let mut way = Way { busy: true, ..Way::new(1500) };
    way.run(Duration::from_secs(2));
    // Probes that were under way when the path ceased to carry.
    way.carries = 0;
    way.run(Duration::from_millis(900));
    way.now = way.now + Duration::from_secs(60);
    way.carries = 1500;
    for _ in 0..500 {
        way.step();
        assert_eq!(way.size.proven(), 1500);
    }
}

#[test]
fn answers_to_what_was_not_asked_prove_nothing() {
    let mut size = Size::default();
    let mut lengths = Vec::new();
    let now = START;
    size.tend(now, &path(1), 1500, None, false, &mut lengths);
    assert_eq!(lengths, [1280, 1500]);
    size.probe(now, 7, 1280, 1252);
    size.probe(now, 8, 1500, 1472);
    for (seq, payload) in [(9, 1472), (7, 1472), (8, 1252), (8, 8972), (8, 0)] {
        assert_eq!(size.answer(now, 1500, seq, payload), None, "{seq} of {payload} bytes");
    }
    assert_eq!(size.proven(), 1280);
    assert_eq!(size.answer(now, 1500, 8, 1472), Some(now));
    assert_eq!(size.proven(), 1500);
    assert_eq!(size.answer(now, 1500, 8, 1472), None, "twice");
}

#[test]
fn what_waits_for_answers_is_bounded() {
    let mut size = Size::default();
    size.tend(START, &path(1), 1500, None, false, &mut Vec::new());
    for seq in 0..1000 {
        size.probe(START, seq, 1500, 1472);
    }
    assert_eq!(size.outstanding.len(), super::OUTSTANDING_MAX);
}
