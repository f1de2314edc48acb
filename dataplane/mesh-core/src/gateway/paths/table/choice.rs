//! Which path carries: what falls silent, what each costs, and when a change of mind is due.

use std::time::Duration;

use super::super::PathKind;
use super::super::gauge::Gauge;
use super::{
    BETTER_FOR, BETTER_THAN_LOSSY_FOR, COST_OF_LOSS, COST_OF_RELAY, HOLD, LOSSY, MARGIN_MS, MARGIN_SHARE, NEEDED_AGAIN,
    NEEDED_FIRST, NEEDED_MOST, PROVING, Paths, SILENT_FIRST, Stage, Switch, WORTH_OF_LAN,
};
use crate::seam::Moment;

impl Paths {
    /// Sees which paths have fallen silent, and which one is to carry. `relay`: whether there is one.
    pub(in crate::gateway) fn review(&mut self, now: Moment, relay: bool) -> Option<Switch> {
        for straight in &mut self.straight {
            if straight.stage == Stage::Proven && straight.gauge.is_silent(now) {
                straight.gauge.fall_silent();
                straight.stage = Stage::Silent(0);
                straight.next_at = now + SILENT_FIRST;
                straight.needed = if straight.needed == NEEDED_FIRST { NEEDED_AGAIN } else { straight.needed * 2 };
                straight.needed = straight.needed.min(NEEDED_MOST);
            }
        }
        let relay_silent = self.relay.is_silent(now);
        let kind = self.kind();
        let fell = self.carries.is_some_and(|place| self.straight[place].stage != Stage::Proven);
        let usable = relay && !relay_silent;
        // Those that are late may have died together with the one that carried.
        let in_time = self.best(now, usable && !self.relay.is_late(now), false);
        let best = if fell && in_time.is_some() { in_time } else { self.best(now, usable, true) };
        if fell {
            // Whatever there is; without anything the relay is where the next try begins.
            self.carries = best.flatten();
            self.better = None;
            self.watch(now);
            self.begin_rounds(now);
            return Some(Switch { from: kind, to: self.kind() });
        }
        let best = best?;
        if best == self.carries {
            self.better = None;
            return None;
        }
        let since = match self.better {
            Some((better, since)) if better == best => since,
            _ => now,
        };
        self.better = Some((best, since));
        if !self.is_to_change(now, best, since, usable) {
            return None;
        }
        if self.is_lossy_beside(best) {
            self.fled_at = Some(now);
        }
        // The first way off the relay is no change of mind.
        if self.carries.is_some() || self.changed_at.is_some() {
            self.changed_at = Some(now);
        }
        (self.carries, self.better) = (best, None);
        self.watch(now);
        self.begin_rounds(now);
        Some(Switch { from: kind, to: self.kind() })
    }

    /// What carries from here on is probed as such, not when it was its turn as a spare one. What it carried before may pass no more.
    fn watch(&mut self, now: Moment) {
        self.size_mut().forget();
        let next_at = self.carries.map_or(&mut self.relay_next_at, |place| &mut self.straight[place].next_at);
        *next_at = (*next_at).min(now + PROVING);
    }

    pub(super) fn is_to_change(&self, now: Moment, best: Option<usize>, since: Moment, relay: bool) -> bool {
        let (Some(cost_now), Some(cost_then)) = (self.cost(self.carries), self.cost(best)) else {
            // The relay was not measured yet: what needs no relay is taken.
            return best.is_some();
        };
        if self.carries.is_none() && !self.may_relay(relay) {
            return true;
        }
        if cost_now - cost_then < MARGIN_MS.max(MARGIN_SHARE * cost_now) {
            // Off the relay for as good a path, but not back and forth.
            let first = self.carries.is_none() && self.changed_at.is_none();
            return first && cost_then <= cost_now;
        }
        let lately = |at: Option<Moment>| at.is_some_and(|at| now.since(at) < HOLD);
        if self.is_lossy_beside(best) && !lately(self.fled_at) {
            return now.since(since) >= BETTER_THAN_LOSSY_FOR;
        }
        let held = lately(self.changed_at);
        let from_relay = self.carries.is_none() && self.changed_at.is_none();
        !held && (from_relay || now.since(since) >= BETTER_FOR)
    }

    /// Whether what carries loses much more than another path.
    fn is_lossy_beside(&self, other: Option<usize>) -> bool {
        if self.size().is_doubted() {
            // It may lose the long ones alone, which is known in a moment.
            return false;
        }
        let (loss, other) = (self.gauge(self.carries).loss(), self.gauge(other).loss());
        loss >= LOSSY && loss > 2.0 * other
    }

    /// Whether the relay may carry, where there is one.
    pub(super) fn may_relay(&self, relay: bool) -> bool {
        relay && self.choice.allows(PathKind::Relay)
    }

    pub(super) fn kind(&self) -> PathKind {
        self.carrying().map_or(PathKind::Relay, |path| path.kind)
    }

    pub(super) fn gauge(&self, way: Option<usize>) -> &Gauge {
        way.map_or(&self.relay, |place| &self.straight[place].gauge)
    }

    /// What a path costs, in milliseconds; `None` while it was not measured.
    pub(super) fn cost(&self, way: Option<usize>) -> Option<f64> {
        let gauge = self.gauge(way);
        let kind = way.map_or(PathKind::Relay, |place| self.straight[place].path.kind);
        let of_kind = match kind {
            PathKind::Relay => COST_OF_RELAY,
            PathKind::Direct => 0.0,
            PathKind::Lan => -WORTH_OF_LAN,
        };
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let cost = milliseconds(gauge.round_trip()?) + 2.0 * milliseconds(gauge.jitter()) + COST_OF_LOSS * gauge.loss();
        Some(cost + of_kind)
    }

    /// The cheapest path that may carry: `Some(None)` is the relay, `None` that there is none.
    /// Straight paths whose answer is late count only if that is told by `late`.
    pub(super) fn best(&self, now: Moment, relay: bool, late: bool) -> Option<Option<usize>> {
        let relay = self.may_relay(relay);
        let straight = (0..self.straight.len()).filter(|&place| {
            let straight = &self.straight[place];
            // Where there is nothing else, one that answers again carries at once.
            let ready = straight.is_ready() || !relay && straight.gauge.streak() >= NEEDED_FIRST;
            straight.stage == Stage::Proven
                && (late || !straight.gauge.is_late(now))
                && (ready || self.carries == Some(place))
                && self.choice.allows(straight.path.kind)
        });
        let cheapest = straight
            .filter_map(|place| Some((place, self.cost(Some(place))?)))
            .min_by(|(_, one), (_, other)| one.total_cmp(other));
        if !relay {
            return cheapest.map(|(place, _)| Some(place));
        }
        match (cheapest, self.cost(None)) {
            (Some((place, cost)), Some(of_relay)) if cost <= of_relay => Some(Some(place)),
            (Some((place, _)), None) => Some(Some(place)),
            _ => Some(None),
        }
    }
}
