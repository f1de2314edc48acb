//! Any number of paths, of any quality, that change at any time.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::path;
use crate::gateway::paths::table::{HOLD, Paths, Way};
use crate::gateway::paths::{Path, PathChoice, PathKind};
use crate::seam::Moment;

const STEP: Duration = Duration::from_millis(5);
/// Inner packets that are sent in a second.
const PACKETS: f64 = 40.0;

/// How one way carries, each direction for itself.
#[derive(Clone, Copy, Debug)]
struct Weather {
    round_trip_ms: f64,
    jitter_ms: f64,
    lost_away: f64,
    lost_back: f64,
}

impl Weather {
    fn draw(rng: &mut ChaCha12Rng) -> Self {
        let round_trip_ms = match rng.random_range(0..10) {
            0 => 700.0,
            1..4 => rng.random_range(100.0..400.0),
            _ => rng.random_range(1.0..100.0),
        };
        let loss = |rng: &mut ChaCha12Rng| match rng.random_range(0..12) {
            0 => 1.0,
            1 => rng.random_range(0.02..0.3),
            2 | 3 => rng.random_range(0.0..0.02),
            _ => 0.0,
        };
        let (lost_away, lost_back) = (loss(rng), loss(rng));
        Self { round_trip_ms, jitter_ms: round_trip_ms * rng.random_range(0.0..0.2), lost_away, lost_back }
    }

    fn is_dead(&self) -> bool {
        self.lost_away >= 1.0 || self.lost_back >= 1.0
    }

    /// Whether it loses so little that it is always known to be there.
    fn is_sound(&self) -> bool {
        self.lost_away < 0.02 && self.lost_back < 0.02
    }

    fn cost(&self) -> f64 {
        self.round_trip_ms + 2.0 * self.jitter_ms + 1_500.0 * self.lost_away
    }
}

struct Road {
    way: Way,
    weather: Weather,
    since: Moment,
    arrived: u32,
}

struct Sky {
    rng: ChaCha12Rng,
    now: Moment,
    paths: Paths,
    roads: Vec<Road>,
    answers: Vec<(Moment, Way, u32, u32)>,
    seq: u32,
    owed: f64,
    /// The dead way that carries though a sound one is there, and since when.
    stranded: Option<(Way, Moment)>,
    chosen: Vec<Moment>,
}

impl Sky {
    fn new(seed: u64) -> Self {
        let mut rng: ChaCha12Rng = rand::SeedableRng::seed_from_u64(seed);
        let now = Moment::from_nanos(10_000_000_000);
        let mut paths = Paths::new(PathChoice::Auto, now);
        let relay = Weather { lost_away: 0.0, lost_back: 0.0, ..Weather::draw(&mut rng) };
        let mut roads = vec![Road { way: Way::Relay, weather: relay, since: now, arrived: 0 }];
        for number in 0..rng.random_range(1..6) {
            let kind = if rng.random_range(0..4) == 0 { PathKind::Lan } else { PathKind::Direct };
            let path = path(kind, number);
            paths.add(now, path);
            roads.push(Road { way: Way::Straight(path), weather: Weather::draw(&mut rng), since: now, arrived: 0 });
        }
        Self { rng, now, paths, roads, answers: Vec::new(), seq: 0, owed: 0.0, stranded: None, chosen: Vec::new() }
    }

    fn road(&mut self, way: Way) -> &mut Road {
        self.roads.iter_mut().find(|road| road.way == way).expect("it is one of them")
    }

    fn carrying(&self) -> Way {
        self.paths.carrying().copied().map_or(Way::Relay, Way::Straight)
    }

    fn lost(&mut self, share: f64) -> bool {
        self.rng.random_range(0.0..1.0) < share
    }

    fn step(&mut self, seed: u64) {
        self.now = self.now + STEP;
        let now = self.now;
        for (_, way, seq, received) in self.answers.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            let from = match way {
                Way::Relay => None,
                Way::Straight(Path { endpoint, .. }) => Some(endpoint),
            };
            self.paths.answered(now, from.as_ref(), seq, received);
        }
        self.owed += PACKETS * STEP.as_secs_f64();
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            self.paths.note_sent(1);
            let way = self.carrying();
            let share = self.road(way).weather.lost_away;
            let arrives = !self.lost(share);
            self.road(way).arrived += u32::from(arrives);
        }
        while let Some(way) = self.paths.due(now, true, true) {
            self.seq += 1;
            self.paths.probed(now, way, self.seq, true, 1);
            let weather = self.road(way).weather;
            if self.lost(weather.lost_away) {
                continue;
            }
            self.road(way).arrived += 1;
            let arrived = self.road(way).arrived;
            if !self.lost(weather.lost_back) {
                let late = weather.round_trip_ms + self.rng.random_range(0.0..=weather.jitter_ms);
                let mut at = now + Duration::from_secs_f64(late / 1e3);
                self.answers.push((at, way, self.seq, arrived));
                if self.rng.random_range(0..20) == 0 {
                    // Twice.
                    at = at + STEP;
                    self.answers.push((at, way, self.seq, arrived));
                }
            }
        }
        let before = self.carrying();
        if self.paths.review(now, true).is_some() {
            let road = self.road(before);
            let settled = now.since(road.since) >= Duration::from_secs(4);
            if settled && road.weather.is_sound() {
                self.chosen.push(now);
            }
        }
        let next = self.paths.next_timeout(now, true, true);
        assert!(next.is_none_or(|next| next > now), "seed {seed}: something is due at once that was not done");
        self.look(seed);
    }

    fn look(&mut self, seed: u64) {
        let now = self.now;
        let carrying = self.carrying();
        let road = self.road(carrying);
        let dead = road.weather.is_dead() && now.since(road.since) >= STEP;
        let long = Duration::from_secs(15);
        let sound =
            |road: &Road| road.weather.is_sound() && now.since(road.since) >= long && self.paths.is_ready(road.way);
        if !dead || !self.roads.iter().any(sound) {
            self.stranded = None;
            return;
        }
        // Several may have died together: each is left soon.
        let since = self.stranded.filter(|(way, _)| *way == carrying).map_or(now, |(_, since)| since);
        self.stranded = Some((carrying, since));
        assert!(
            now.since(since) <= Duration::from_secs(3),
            "seed {seed}: at {now:?} {carrying:?} is dead and carries since {since:?}"
        );
    }
}

impl Paths {
    /// Whether a way has proven itself.
    fn is_ready(&self, way: Way) -> bool {
        match way {
            Way::Relay => true,
            Way::Straight(path) => self.find(&path.endpoint).is_some_and(|place| self.straight[place].is_ready()),
        }
    }
}

#[test]
fn no_weather_leaves_traffic_on_a_dead_path_or_tosses_it_about_or_keeps_it_on_a_bad_one() {
    for seed in 0..60 {
        let mut sky = Sky::new(seed);
        for _ in 0..12 {
            // Changes of one way at a time, then none for long.
            for _ in 0..sky.rng.random_range(0..6) {
                let which = sky.rng.random_range(0..sky.roads.len());
                let weather = Weather::draw(&mut sky.rng);
                let now = sky.now;
                let road = &mut sky.roads[which];
                (road.weather, road.since) = (weather, now);
                for _ in 0..sky.rng.random_range(20..4_000) {
                    sky.step(seed);
                }
            }
            let calm = HOLD * 2 + Duration::from_secs(40);
            let end = sky.now + calm;
            while sky.now < end {
                sky.step(seed);
            }
            let carrying = sky.carrying();
            let Weather { lost_away, .. } = sky.road(carrying).weather;
            if carrying != Way::Relay && lost_away < 0.1 {
                // A straight path that is well is compared with others rarely.
                continue;
            }
            let cost = sky.road(carrying).weather.cost();
            let sound = sky.roads.iter().filter(|road| road.weather.is_sound() && sky.paths.is_ready(road.way));
            let best = sound.map(|road| road.weather.cost()).fold(f64::INFINITY, f64::min);
            assert!(
                best.is_infinite() || cost <= best * 1.5 + 35.0,
                "seed {seed}: at {:?} {carrying:?} costs {cost}, and another one {best}",
                sky.now
            );
        }
        // Off the relay at first, and away from one that loses: each of these may come in between.
        for times in sky.chosen.windows(4) {
            assert!(times[3].since(times[0]) >= HOLD, "seed {seed}: {times:?}");
        }
    }
}
