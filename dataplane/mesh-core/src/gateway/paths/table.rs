//! The paths of one peer, and when each is to be probed; `table/choice.rs`: which one carries.

mod choice;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::gauge::Gauge;
use super::size::Size;
use super::{OuterSize, Path, PathChoice, PathKind};
use crate::gateway::addresses::same;
use crate::seam::{Endpoint, Moment, SocketId};

/// Paths without a relay that are known of one peer, at most.
const STRAIGHT_MAX: usize = 16;

/// Probes to a place that never answered, in one round; a pause follows each of them.
const TRIES: u8 = 3;
const TRY_PAUSES: [Duration; TRIES as usize] =
    [Duration::from_millis(200), Duration::from_millis(600), Duration::from_secs(1)];
/// Rounds are repeated while the relay carries; the pause doubles.
const ROUND_FIRST: Duration = Duration::from_secs(5);
const ROUND_MOST: Duration = Duration::from_secs(320);

/// Between two probes: of the path that carries; of one that could, while that one is in doubt, and while it is well; of one that
/// is about to prove itself.
const CARRYING: Duration = Duration::from_millis(200);
const SPARE: Duration = Duration::from_secs(1);
const SPARE_OF_WELL: Duration = Duration::from_secs(10);
const RELAY_OF_WELL: Duration = Duration::from_secs(30);
const PROVING: Duration = Duration::from_millis(100);
/// Of every path while the peer is not in use: often enough to keep a NAT's mapping (RFC 4787: two minutes at least, but 30 s
/// are common).
const IDLE: Duration = Duration::from_secs(20);
/// Of a path that fell silent; the pause doubles.
const SILENT_FIRST: Duration = Duration::from_secs(1);
const SILENT_MOST: Duration = Duration::from_secs(30);
/// Probes after which a silent path by a socket of its own is not worth the socket: a minute.
const SILENT_DEAD: u32 = 10;

/// Answers in a row after which a path may carry: for the first time, and after it fell silent. That doubles each time.
const NEEDED_FIRST: u32 = 2;
const NEEDED_AGAIN: u32 = 8;
const NEEDED_MOST: u32 = 64;

/// What a path costs beside its round-trip time, in milliseconds: for twice its jitter, for each share of loss, and by kind.
const COST_OF_LOSS: f64 = 1_500.0;
const COST_OF_RELAY: f64 = 5.0;
const WORTH_OF_LAN: f64 = 10.0;

/// Another path has to be better by the larger of these, for this time, and the last change of mind so long ago.
const MARGIN_MS: f64 = 5.0;
const MARGIN_SHARE: f64 = 0.2;
const BETTER_FOR: Duration = Duration::from_secs(3);
const HOLD: Duration = Duration::from_secs(60);
/// A path is known after so many answers in a row.
const WELL_AFTER: u32 = 15;
/// A path that loses more than this, and more than twice what the other one does, is left sooner.
const LOSSY: f64 = 0.08;
const BETTER_THAN_LOSSY_FOR: Duration = Duration::from_millis(500);

/// A path without a relay.
#[derive(Debug)]
struct Straight {
    path: Path,
    gauge: Gauge,
    stage: Stage,
    next_at: Moment,
    /// Answers in a row that it needs to carry.
    needed: u32,
    size: Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It never answered; so many probes went out in this round.
    Untried(u8),
    /// It answers.
    Proven,
    /// It did once; so many probes went out since.
    Silent(u32),
}

impl Straight {
    fn is_ready(&self) -> bool {
        self.stage == Stage::Proven && self.gauge.streak() >= self.needed
    }

    fn pause(&self, in_use: bool, carries: bool, well: bool, stretch: u32) -> Duration {
        match self.stage {
            Stage::Untried(sent) => TRY_PAUSES[usize::from(sent.min(TRIES - 1))],
            Stage::Silent(sent) => SILENT_FIRST.saturating_mul(1 << (sent / 2).min(8)).min(SILENT_MOST),
            Stage::Proven if self.gauge.streak() < self.needed => PROVING,
            Stage::Proven if !in_use => IDLE,
            // However many are probed, what may be silent is to be known soon.
            Stage::Proven if carries && self.gauge.waits() => CARRYING,
            Stage::Proven if carries => CARRYING * stretch,
            Stage::Proven if well => SPARE_OF_WELL,
            Stage::Proven => SPARE * stretch,
        }
    }

    fn is_due(&self, now: Moment) -> bool {
        self.next_at <= now && self.stage != Stage::Untried(TRIES)
    }
}

/// What is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Way {
    /// The relay.
    Relay,
    /// A path without one.
    Straight(Path),
}

/// Which path carries has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Switch {
    pub(in crate::gateway) from: PathKind,
    pub(in crate::gateway) to: PathKind,
}

/// The paths of one peer.
#[derive(Debug)]
pub(in crate::gateway) struct Paths {
    choice: PathChoice,
    straight: Vec<Straight>,
    /// Which of them carries; `None`: the relay.
    carries: Option<usize>,
    relay: Gauge,
    relay_size: Size,
    relay_next_at: Moment,
    /// A path that is better than the one that carries, and since when.
    better: Option<(Option<usize>, Moment)>,
    /// When the last change was made because another path was better.
    changed_at: Option<Moment>,
    /// When that was because the one before lost much. It is not repeated soon: where each path loses as soon as it carries, the
    /// change is no remedy.
    fled_at: Option<Moment>,
    rounds: u32,
    round_at: Option<Moment>,
    was_well: bool,
    was_late: bool,
}

impl Paths {
    /// The relay alone is known.
    pub(in crate::gateway) fn new(choice: PathChoice, now: Moment) -> Self {
        Self {
            choice,
            straight: Vec::new(),
            carries: None,
            relay: Gauge::default(),
            relay_size: Size::default(),
            relay_next_at: now,
            better: None,
            changed_at: None,
            fled_at: None,
            rounds: 0,
            round_at: None,
            was_well: false,
            was_late: false,
        }
    }

    pub(in crate::gateway) fn choice(&self) -> PathChoice {
        self.choice
    }

    /// The path without a relay that carries.
    pub(in crate::gateway) fn carrying(&self) -> Option<&Path> {
        self.carries.map(|place| &self.straight[place].path)
    }

    /// Whether there is anything to probe, or to compare the relay with.
    pub(in crate::gateway) fn is_relay_alone(&self) -> bool {
        self.straight.is_empty()
    }

    fn find(&self, endpoint: &Endpoint) -> Option<usize> {
        self.straight.iter().position(|straight| same(&straight.path.endpoint, endpoint))
    }

    /// Whether `endpoint` is one end of a path that is known.
    pub(in crate::gateway) fn knows(&self, endpoint: &Endpoint) -> bool {
        self.find(endpoint).is_some()
    }

    /// Whether any path without the relay answers.
    pub(in crate::gateway) fn is_proven(&self) -> bool {
        self.straight.iter().any(|straight| straight.stage == Stage::Proven)
    }

    /// Whether a frame of the peer came from `ip`, by a path that has not fallen silent since.
    pub(in crate::gateway) fn is_heard_at(&self, ip: IpAddr) -> bool {
        let heard = |straight: &Straight| {
            straight.path.endpoint.remote.ip() == ip
                && straight.gauge.received() > 0
                && !matches!(straight.stage, Stage::Silent(_) | Stage::Untried(TRIES))
        };
        self.straight.iter().any(heard)
    }

    /// Whether a path leaves by `socket`.
    pub(in crate::gateway) fn uses(&self, socket: SocketId) -> bool {
        self.straight.iter().any(|straight| straight.path.endpoint.socket == socket)
    }

    /// Forgets the paths by `socket` that never answered, or do not any more.
    pub(in crate::gateway) fn forget_dead(&mut self, socket: SocketId) {
        let dead = |straight: &Straight| {
            straight.path.endpoint.socket == socket
                && match straight.stage {
                    Stage::Untried(sent) => sent == TRIES,
                    Stage::Silent(sent) => sent >= SILENT_DEAD,
                    Stage::Proven => false,
                }
        };
        while let Some(place) = self.straight.iter().position(dead).filter(|place| self.carries != Some(*place)) {
            self.remove(place);
        }
    }

    /// Where the peer may be.
    pub(in crate::gateway) fn remotes(&self) -> impl Iterator<Item = SocketAddr> {
        self.straight.iter().map(|straight| straight.path.endpoint.remote)
    }

    /// Whether `endpoint` has answered a probe.
    pub(in crate::gateway) fn has_proven(&self, endpoint: &Endpoint) -> bool {
        self.find(endpoint).is_some_and(|place| !matches!(self.straight[place].stage, Stage::Untried(_)))
    }

    /// Notes frames sent to the peer on the path that carries.
    pub(in crate::gateway) fn note_sent(&mut self, frames: u32) {
        match self.carries {
            Some(place) => self.straight[place].gauge.note_sent(frames),
            None => self.relay.note_sent(frames),
        }
    }

    /// Notes frames sent to the peer on a path that carries, or did.
    pub(in crate::gateway) fn note_sent_on(&mut self, path: &Path, frames: u32) {
        if path.kind == PathKind::Relay {
            self.relay.note_sent(frames);
        } else if let Some(place) = self.find(&path.endpoint) {
            self.straight[place].gauge.note_sent(frames);
        }
    }

    /// Notes a frame sent to an endpoint of the peer, or by the relay (`None`), whatever carries.
    pub(in crate::gateway) fn note_sent_to(&mut self, endpoint: Option<&Endpoint>) {
        match endpoint {
            None => self.relay.note_sent(1),
            Some(endpoint) => {
                if let Some(place) = self.find(endpoint) {
                    self.straight[place].gauge.note_sent(1);
                }
            }
        }
    }

    /// Notes an authentic frame of the peer, from an endpoint of its own or by the relay (`None`). `false` when the endpoint is
    /// not known.
    pub(in crate::gateway) fn note_received(&mut self, from: Option<&Endpoint>) -> bool {
        let Some(from) = from else {
            self.relay.note_received();
            return true;
        };
        let carrying = self.carries.filter(|&place| same(&self.straight[place].path.endpoint, from));
        match carrying.or_else(|| self.find(from)) {
            Some(place) => {
                self.straight[place].gauge.note_received();
                true
            }
            None => false,
        }
    }

    /// Frames received from an endpoint of the peer, or by the relay.
    pub(in crate::gateway) fn received(&self, from: Option<&Endpoint>) -> u32 {
        match from {
            None => self.relay.received(),
            Some(from) => self.find(from).map_or(0, |place| self.straight[place].gauge.received()),
        }
    }

    /// Adds a path to be tried at once. One that is known is tried anew if it never answered.
    pub(in crate::gateway) fn add(&mut self, now: Moment, path: Path) {
        if !self.choice.allows(path.kind) || path.kind == PathKind::Relay {
            return;
        }
        if let Some(place) = self.find(&path.endpoint) {
            let known = &mut self.straight[place];
            if let Stage::Untried(_) = known.stage {
                (known.stage, known.next_at) = (Stage::Untried(0), now);
            }
            return;
        }
        if self.straight.len() == STRAIGHT_MAX && !self.make_room() {
            return;
        }
        let (gauge, size) = (Gauge::default(), Size::default());
        self.straight.push(Straight {
            path,
            gauge,
            stage: Stage::Untried(0),
            next_at: now,
            needed: NEEDED_FIRST,
            size,
        });
        self.round_at.get_or_insert(now + ROUND_FIRST);
    }

    /// Forgets the path that is worth least, if one is worth nothing.
    fn make_room(&mut self) -> bool {
        let worth = |straight: &Straight| match straight.stage {
            Stage::Untried(TRIES) => 0,
            Stage::Silent(_) => 1,
            Stage::Untried(_) => 2,
            Stage::Proven => 3,
        };
        let least = (0..self.straight.len())
            .filter(|place| self.carries != Some(*place))
            .min_by_key(|&place| worth(&self.straight[place]));
        let Some(place) = least.filter(|&place| worth(&self.straight[place]) < 2) else { return false };
        self.remove(place);
        true
    }

    fn remove(&mut self, place: usize) {
        self.straight.remove(place);
        // Places after it have moved.
        self.carries =
            self.carries.filter(|carries| *carries != place).map(|carries| carries - usize::from(carries > place));
        self.better = None;
    }

    /// The endpoints have moved to other sockets, as `adopt` does it; those for which it is false are gone.
    pub(in crate::gateway) fn adopt(&mut self, mut adopt: impl FnMut(&mut Endpoint) -> bool) {
        let mut place = 0;
        while place < self.straight.len() {
            if adopt(&mut self.straight[place].path.endpoint) {
                place += 1;
            } else {
                self.remove(place);
            }
        }
    }

    /// All places are tried anew and all paths probed at once: the network has changed, or the peer told of new places.
    pub(in crate::gateway) fn try_all(&mut self, now: Moment) {
        for straight in &mut self.straight {
            straight.next_at = now;
            match &mut straight.stage {
                Stage::Untried(sent) => *sent = 0,
                Stage::Silent(sent) => *sent = 0,
                Stage::Proven => {}
            }
        }
        self.begin_rounds(now);
    }

    /// Places that never answered are tried again after a while.
    fn begin_rounds(&mut self, now: Moment) {
        self.rounds = 0;
        self.round_at = (!self.straight.is_empty()).then(|| now + ROUND_FIRST);
    }

    /// Forgets all but the relay: the peer has begun anew.
    pub(in crate::gateway) fn clear(&mut self, now: Moment) {
        *self = Self::new(self.choice, now);
    }

    /// The next path that is due for a probe. The caller sends it and calls [`Paths::probed`].
    pub(in crate::gateway) fn due(&mut self, now: Moment, in_use: bool, relay: bool) -> Option<Way> {
        let (well, late) = (self.is_well(), self.gauge(self.carries).is_late(now));
        let worse = std::mem::replace(&mut self.was_well, well) && !well;
        if worse || !std::mem::replace(&mut self.was_late, late) && late {
            // What carries is in doubt: the others are measured at once.
            self.wake(now);
        }
        if in_use && self.carries.is_none() && !self.may_relay(relay) {
            // Nothing carries: what did is asked each second, and what never did in each of the shortest rounds.
            self.round_at = self.round_at.map(|at| at.min(now + ROUND_FIRST));
            for straight in self.straight.iter_mut().filter(|straight| matches!(straight.stage, Stage::Silent(_))) {
                straight.next_at = straight.next_at.min(now + SILENT_FIRST);
            }
        }
        if in_use && self.carries.is_none() && self.round_at.is_some_and(|at| at <= now) {
            self.rounds += 1;
            self.round_at = Some(now + ROUND_FIRST.saturating_mul(1 << self.rounds.min(8)).min(ROUND_MOST));
            for straight in &mut self.straight {
                if let Stage::Untried(_) = straight.stage {
                    (straight.stage, straight.next_at) = (Stage::Untried(0), now);
                }
            }
        }
        if let Some(straight) = self.straight.iter().find(|straight| straight.is_due(now)) {
            return Some(Way::Straight(straight.path));
        }
        (relay && self.compares() && self.relay_next_at <= now).then_some(Way::Relay)
    }

    /// Whether the relay is to be measured: there is something to compare it with.
    fn compares(&self) -> bool {
        self.straight.iter().any(|straight| straight.stage == Stage::Proven)
    }

    /// Whether a path without a relay carries, known for a while, that loses next to nothing and answers as fast as it did: others
    /// need not be measured often.
    fn is_well(&self) -> bool {
        let Some(place) = self.carries else { return false };
        let gauge = &self.straight[place].gauge;
        gauge.streak() >= WELL_AFTER && gauge.loss() < LOSSY / 2.0 && gauge.is_as_fast_as_ever()
    }

    /// Notes that a probe leaves, and returns how many frames were sent before it. `stretch` makes pauses longer where many peers
    /// are probed.
    pub(in crate::gateway) fn probed(&mut self, now: Moment, way: Way, seq: u32, in_use: bool, stretch: u32) -> u32 {
        let well = self.is_well();
        let Way::Straight(path) = way else {
            self.relay_next_at = now
                + match (in_use, well) {
                    (true, true) => RELAY_OF_WELL,
                    // While it carries, silence is to be known soon.
                    (true, false) if self.carries.is_none() && self.relay.waits() => CARRYING,
                    (true, false) if self.carries.is_none() => SPARE,
                    (true, false) => SPARE * stretch,
                    (false, _) => IDLE,
                };
            return self.relay.probe(now, seq);
        };
        let Some(place) = self.find(&path.endpoint) else { return 0 };
        let carries = self.carries == Some(place);
        let straight = &mut self.straight[place];
        straight.next_at = now + straight.pause(in_use, carries, well, stretch);
        match &mut straight.stage {
            Stage::Untried(sent) => *sent += 1,
            Stage::Silent(sent) => *sent = sent.saturating_add(1),
            Stage::Proven => {}
        }
        straight.gauge.probe(now, seq)
    }

    /// A place gets no probe in this round: nobody vouches for it, and it had enough.
    pub(in crate::gateway) fn pass_over(&mut self, path: &Path) {
        if let Some(place) = self.find(&path.endpoint) {
            self.straight[place].stage = Stage::Untried(TRIES);
        }
    }

    /// Takes the answer to a probe, which came from an endpoint of the peer or by the relay. `false` when it answers nothing that
    /// was asked there.
    pub(in crate::gateway) fn answered(
        &mut self,
        now: Moment,
        from: Option<&Endpoint>,
        seq: u32,
        received: u32,
    ) -> bool {
        let Some(from) = from else { return self.relay.answer(now, seq, received) };
        let Some(place) = self.find(from) else { return false };
        let straight = &mut self.straight[place];
        if !straight.gauge.answer(now, seq, received) {
            return false;
        }
        if straight.stage != Stage::Proven {
            straight.stage = Stage::Proven;
            straight.next_at = straight.next_at.min(now + PROVING);
        }
        true
    }

    /// The peer is in use again: what carries is asked at once whether it still does.
    pub(in crate::gateway) fn wake(&mut self, now: Moment) {
        self.relay_next_at = self.relay_next_at.min(now);
        for straight in self.straight.iter_mut().filter(|straight| straight.stage == Stage::Proven) {
            straight.next_at = straight.next_at.min(now);
        }
    }

    /// When to look again: the next probe, or when the path that carries is given up.
    pub(in crate::gateway) fn next_timeout(&self, now: Moment, in_use: bool, relay: bool) -> Option<Moment> {
        let probes = self.straight.iter().filter(|straight| straight.stage != Stage::Untried(TRIES));
        let silent = self.straight.iter().filter(|straight| straight.stage == Stage::Proven);
        let round = self.round_at.filter(|_| in_use && self.carries.is_none() && !self.straight.is_empty());
        // Of the relay only when it begins: it stays silent.
        let relay_silent = self.relay.silent_from().filter(|at| self.carries.is_none() && *at > now);
        let relay = (relay && self.compares()).then_some(self.relay_next_at);
        let better = self.better.map(|_| now + BETTER_THAN_LOSSY_FOR);
        let due = probes.map(|straight| straight.next_at);
        let silent = silent.filter_map(|straight| straight.gauge.silent_from());
        due.chain(silent).chain(round).chain(relay).chain(relay_silent).chain(better).min()
    }

    /// All paths as status shows them; the relay is at `relay`, and `outer` what paths are taken to carry.
    pub(in crate::gateway) fn status(&self, relay: Option<&Path>, outer: OuterSize) -> Vec<super::PathStatus> {
        let shown = |path: &Path, gauge: &Gauge, size: &Size, active: bool, proven: bool| super::PathStatus {
            kind: path.kind,
            endpoint: Some(path.endpoint.remote),
            active,
            proven,
            rtt_micros: gauge.round_trip().map(micros),
            jitter_micros: micros(gauge.jitter()),
            loss_permille: (gauge.loss() * 1e3).round() as u16,
            mtu_bytes: size.shown(path, outer),
        };
        let relay = relay
            .map(|path| shown(path, &self.relay, &self.relay_size, self.carries.is_none(), self.relay.streak() > 0));
        let straight = self.straight.iter().enumerate().map(|(place, straight)| {
            let proven = straight.stage == Stage::Proven;
            shown(&straight.path, &straight.gauge, &straight.size, self.carries == Some(place), proven)
        });
        relay.into_iter().chain(straight).collect()
    }

    /// Whether a path without a relay carries, and was answered within `time`.
    pub(in crate::gateway) fn is_alive(&self, now: Moment, time: Duration) -> bool {
        let answered = self.carries.and_then(|place| self.straight[place].gauge.answered_at());
        answered.is_some_and(|at| now.since(at) < time)
    }

    /// The size of the path that carries.
    pub(super) fn size(&self) -> &Size {
        self.carries.map_or(&self.relay_size, |place| &self.straight[place].size)
    }

    /// The same, to be changed.
    pub(super) fn size_mut(&mut self) -> &mut Size {
        self.carries.map_or(&mut self.relay_size, |place| &mut self.straight[place].size)
    }

    /// The size of the path to an endpoint of the peer or by the relay, and how well that path carries.
    pub(super) fn size_of(&mut self, from: Option<&Endpoint>) -> Option<(&mut Size, &mut Gauge)> {
        let Some(from) = from else { return Some((&mut self.relay_size, &mut self.relay)) };
        let straight = self.find(from).map(|place| &mut self.straight[place])?;
        Some((&mut straight.size, &mut straight.gauge))
    }

    /// The sizes of all paths.
    pub(super) fn sizes_mut(&mut self) -> impl Iterator<Item = &mut Size> {
        self.straight.iter_mut().map(|straight| &mut straight.size).chain([&mut self.relay_size])
    }

    /// The same, to be told more.
    pub(super) fn measured_mut(&mut self) -> &mut Gauge {
        self.carries.map_or(&mut self.relay, |place| &mut self.straight[place].gauge)
    }

    /// Whether what carries loses more than it should.
    pub(super) fn is_lossy(&self) -> bool {
        self.measured().loss() >= LOSSY
    }

    /// What carries, measured.
    pub(in crate::gateway) fn measured(&self) -> &Gauge {
        self.gauge(self.carries)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
