//! Paths that are probed as a gateway would, over ways whose delay and loss a test sets.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Paths, Switch, Way};
use crate::gateway::paths::{Path, PathChoice, PathKind};
use crate::seam::{Endpoint, Moment, SocketId};

fn path(kind: PathKind, number: u8) -> Path {
    let remote = SocketAddr::from(([192, 0, 2, number], 4000));
    Path::straight(kind, Endpoint { socket: SocketId(0), remote, local: None })
}

/// How one way carries.
#[derive(Clone, Copy)]
struct Quality {
    round_trip: Duration,
    /// One frame of so many is lost; 0: none.
    loses_one_of: u32,
    /// Nothing passes.
    dead: bool,
}

const fn quality(millis: u64) -> Quality {
    Quality { round_trip: Duration::from_millis(millis), loses_one_of: 0, dead: false }
}

/// A peer that answers, and the time.
struct Bench {
    paths: Paths,
    now: Moment,
    seq: u32,
    /// Answers under way: when, to what, how many frames had arrived.
    answers: Vec<(Moment, Way, u32, u32)>,
    /// Frames that arrived on each way.
    arrived: Vec<(Way, u32)>,
    in_use: bool,
    relay: bool,
    sent: Vec<(Moment, Way)>,
    switches: Vec<(Moment, Switch)>,
}

impl Bench {
    fn new(choice: PathChoice) -> Self {
        let now = Moment::from_nanos(10_000_000_000);
        Self {
            paths: Paths::new(choice, now),
            now,
            seq: 0,
            answers: Vec::new(),
            arrived: Vec::new(),
            in_use: true,
            relay: true,
            sent: Vec::new(),
            switches: Vec::new(),
        }
    }

    /// Runs for a time in steps of a millisecond; `carry` says how each way carries.
    fn run(&mut self, time: Duration, mut carry: impl FnMut(Moment, Way) -> Quality) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(1);
            let now = self.now;
            let due: Vec<_> = self.answers.iter().copied().filter(|(at, ..)| *at <= now).collect();
            self.answers.retain(|(at, ..)| *at > now);
            for (_, way, seq, received) in due {
                let from = match way {
                    Way::Relay => None,
                    Way::Straight(path) => Some(path.endpoint),
                };
                self.paths.answered(now, from.as_ref(), seq, received);
            }
            while let Some(way) = self.paths.due(now, self.in_use, self.relay) {
                self.seq += 1;
                self.paths.probed(now, way, self.seq, self.in_use, 1);
                self.sent.push((now, way));
                let quality = carry(now, way);
                if quality.dead {
                    continue;
                }
                if quality.loses_one_of > 0 && self.seq.is_multiple_of(quality.loses_one_of) {
                    continue;
                }
                let place = self.arrived.iter().position(|(known, _)| *known == way).unwrap_or_else(|| {
                    self.arrived.push((way, 0));
                    self.arrived.len() - 1
                });
                self.arrived[place].1 += 1;
                self.answers.push((now + quality.round_trip, way, self.seq, self.arrived[place].1));
            }
            if let Some(switch) = self.paths.review(now, self.relay) {
                self.switches.push((now, switch));
            }
            if let Some(next) = self.paths.next_timeout(now, self.in_use, self.relay) {
                assert!(next > now, "something is due at once that was not done");
            }
        }
    }

    fn kind(&self) -> PathKind {
        self.paths.carrying().map_or(PathKind::Relay, |path| path.kind)
    }
}

#[test]
fn a_path_carries_after_two_answers_and_the_local_one_is_preferred() {
    let mut bench = Bench::new(PathChoice::Auto);
    bench.paths.add(bench.now, path(PathKind::Direct, 1));
    bench.paths.add(bench.now, path(PathKind::Lan, 2));
    bench.run(Duration::from_millis(15), |_, _| quality(10));
    assert_eq!(bench.kind(), PathKind::Relay, "one answer is not enough");
    bench.run(Duration::from_millis(985), |_, _| quality(10));
    assert_eq!(bench.kind(), PathKind::Lan);
    assert!(bench.switches.len() <= 2, "{:?}", bench.switches);
}

#[test]
fn a_place_that_never_answers_gets_three_probes_a_round_and_rounds_get_rare() {
    let mut bench = Bench::new(PathChoice::Auto);
    bench.paths.add(bench.now, path(PathKind::Direct, 1));
    let dead = Quality { dead: true, ..quality(1) };
    bench.run(Duration::from_secs(4), |_, _| dead);
    assert_eq!(bench.sent.len(), 3);
    bench.run(Duration::from_secs(636), |_, _| dead);
    assert_eq!(bench.sent.len(), 3 * 8, "after 5, 15, 35, 75, 155, 315 and 635 s");
    assert_eq!(bench.kind(), PathKind::Relay);
    bench.in_use = false;
    bench.run(Duration::from_secs(1000), |_, _| dead);
    assert_eq!(bench.sent.len(), 3 * 8, "nobody needs it");
}

#[test]
fn a_silent_path_is_left_within_a_second_and_a_half_and_has_to_prove_itself() {
    let mut bench = Bench::new(PathChoice::Auto);
    bench.paths.add(bench.now, path(PathKind::Direct, 1));
    let direct = Way::Straight(path(PathKind::Direct, 1));
    bench.run(Duration::from_secs(10), |_, _| quality(20));
    assert_eq!(bench.kind(), PathKind::Direct);
    let cut = bench.now;
    bench.run(Duration::from_secs(10), |_, way| Quality { dead: way == direct, ..quality(20) });
    assert_eq!(bench.kind(), PathKind::Relay);
    let (left, _) = *bench.switches.last().unwrap();
    assert!(left.since(cut) <= Duration::from_millis(1500), "{:?}", left.since(cut));
    let mended = bench.now;
    bench.run(Duration::from_secs(20), |_, _| quality(20));
    assert_eq!(bench.kind(), PathKind::Direct);
    let (back, _) = *bench.switches.last().unwrap();
    let proofs = bench.sent.iter().filter(|(at, way)| *way == direct && *at >= mended && *at < back).count();
    assert!(proofs >= 8, "back after {proofs} probes");
    assert_eq!(bench.switches.len(), 3, "{:?}", bench.switches);
}

#[test]
fn a_path_that_loses_is_left_for_a_slower_one_within_five_seconds() {
    let mut bench = Bench::new(PathChoice::Auto);
    bench.paths.add(bench.now, path(PathKind::Direct, 1));
    let carry = |loses| {
        move |_, way| match way {
            Way::Relay => quality(40),
            Way::Straight(_) => Quality { loses_one_of: loses, ..quality(10) },
        }
    };
    bench.run(Duration::from_secs(30), carry(0));
    assert_eq!(bench.kind(), PathKind::Direct);
    let start = bench.now;
    bench.run(Duration::from_secs(5), carry(3));
    assert_eq!(bench.kind(), PathKind::Relay);
    let (left, _) = *bench.switches.last().unwrap();
    assert!(left.since(start) < Duration::from_secs(4), "{:?}", left.since(start));
    bench.run(Duration::from_secs(50), carry(3));
    assert_eq!(bench.kind(), PathKind::Relay, "it still loses");
    bench.run(Duration::from_secs(90), carry(0));
    assert_eq!(bench.kind(), PathKind::Direct, "it is better again");
}

#[test]
fn paths_that_alternate_are_changed_once_a_minute_at_most() {
    let mut bench = Bench::new(PathChoice::Auto);
    bench.paths.add(bench.now, path(PathKind::Direct, 1));
    bench.paths.add(bench.now, path(PathKind::Direct, 2));
    let first = Way::Straight(path(PathKind::Direct, 1));
    // Ten seconds each: 18 and 22 ms, then 22 and 18; the relay is slower.
    bench.run(Duration::from_secs(600), |now, way| {
        let even = (now.as_nanos() / 10_000_000_000).is_multiple_of(2);
        quality(if way == Way::Relay {
            60
        } else if (way == first) == even {
            18
        } else {
            22
        })
    });
    assert_eq!(bench.switches.len(), 1, "a difference like that is none: {:?}", bench.switches);
    // 10 and 60 ms in turn: they are really different, and still.
    let before = bench.switches.len();
    bench.run(Duration::from_secs(600), |now, way| {
        let even = (now.as_nanos() / 10_000_000_000).is_multiple_of(2);
        quality(if way == Way::Relay {
            90
        } else if (way == first) == even {
            10
        } else {
            60
        })
    });
    assert!(bench.switches.len() - before <= 10, "{:?}", &bench.switches[before..]);
}

#[test]
fn the_relay_carries_where_it_is_much_faster() {
    let mut bench = Bench::new(PathChoice::Auto);
    bench.paths.add(bench.now, path(PathKind::Direct, 1));
    bench.run(Duration::from_secs(30), |_, way| quality(if way == Way::Relay { 30 } else { 150 }));
    assert_eq!(bench.kind(), PathKind::Relay);
}

#[test]
fn without_a_relay_what_there_is_carries() {
    let mut bench = Bench::new(PathChoice::Auto);
    bench.relay = false;
    bench.paths.add(bench.now, path(PathKind::Direct, 1));
    bench.run(Duration::from_secs(5), |_, _| quality(300));
    assert_eq!(bench.kind(), PathKind::Direct);
}

#[test]
fn pins_hold() {
    for (choice, kinds) in [
        (PathChoice::Relay, [PathKind::Relay, PathKind::Relay]),
        (PathChoice::Direct, [PathKind::Lan, PathKind::Direct]),
        (PathChoice::Lan, [PathKind::Lan, PathKind::Relay]),
    ] {
        let mut bench = Bench::new(choice);
        bench.paths.add(bench.now, path(PathKind::Direct, 1));
        bench.paths.add(bench.now, path(PathKind::Lan, 2));
        let lan = Way::Straight(path(PathKind::Lan, 2));
        let carry = |lan_is_dead: bool| {
            move |_, way| match way {
                Way::Relay => quality(1),
                way => Quality { dead: lan_is_dead && way == lan, ..quality(50) },
            }
        };
        bench.run(Duration::from_secs(5), carry(false));
        assert_eq!(bench.kind(), kinds[0], "{choice:?}");
        bench.run(Duration::from_secs(5), carry(true));
        assert_eq!(bench.kind(), kinds[1], "{choice:?}");
    }
}

#[test]
fn idle_paths_are_probed_every_twenty_seconds_and_at_once_when_they_are_used_again() {
    let mut bench = Bench::new(PathChoice::Auto);
    bench.paths.add(bench.now, path(PathKind::Direct, 1));
    bench.run(Duration::from_secs(5), |_, _| quality(20));
    bench.in_use = false;
    bench.run(Duration::from_secs(2), |_, _| quality(20));
    let (start, before) = (bench.now, bench.sent.len());
    bench.run(Duration::from_secs(100), |_, _| quality(20));
    let direct = bench.sent[before..].iter().filter(|(_, way)| *way != Way::Relay).count();
    assert!((4..=6).contains(&direct), "{direct} in {:?}", bench.now.since(start));
    bench.in_use = true;
    bench.paths.wake(bench.now);
    let cut = bench.now;
    bench.run(Duration::from_secs(3), |_, way| Quality { dead: way != Way::Relay, ..quality(20) });
    let (left, _) = *bench.switches.last().unwrap();
    assert!(left >= cut && left.since(cut) <= Duration::from_millis(1500), "a path that died meanwhile is left soon");
}

#[test]
fn there_are_sixteen_at_most_and_proven_ones_stay() {
    let mut bench = Bench::new(PathChoice::Auto);
    bench.paths.add(bench.now, path(PathKind::Direct, 0));
    bench.run(Duration::from_secs(5), |_, _| quality(20));
    for number in 1..=200 {
        bench.paths.add(bench.now, path(PathKind::Direct, number));
    }
    assert_eq!(bench.paths.straight.len(), 16);
    assert_eq!(bench.paths.carrying(), Some(&path(PathKind::Direct, 0)));
    bench.run(Duration::from_secs(4), |_, way| Quality {
        dead: way != Way::Relay && way != Way::Straight(path(PathKind::Direct, 0)),
        ..quality(20)
    });
    bench.paths.add(bench.now, path(PathKind::Direct, 250));
    assert!(bench.paths.knows(&path(PathKind::Direct, 250).endpoint), "those that do not answer make room");
    assert_eq!(bench.paths.carrying(), Some(&path(PathKind::Direct, 0)));
}
