//! Ways between two points of the Internet that differ from what the points' links make of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Link, Point};

/// What is set for pairs of points, each direction apart.
#[derive(Default)]
pub(super) struct Paths {
    qualities: BTreeMap<(Point, Point), Link>,
    blocked: BTreeSet<(Point, Point)>,
}

impl Paths {
    pub(super) fn set(&mut self, from: Point, to: Point, quality: Option<Link>) {
        match quality {
            Some(quality) => self.qualities.insert((from, to), quality),
            None => self.qualities.remove(&(from, to)),
        };
    }

    pub(super) fn set_blocked(&mut self, from: Point, to: Point, blocked: bool) {
        if blocked {
            self.blocked.insert((from, to));
        } else {
            self.blocked.remove(&(from, to));
        }
    }

    /// The links that a datagram crosses one after the other on its way between points whose own links are `near` and
    /// `far`; `None` when none passes.
    pub(super) fn links(&self, from: (Point, Link), to: (Point, Link)) -> Option<(Link, Option<Link>)> {
        let ((from, near), (to, far)) = (from, to);
        if self.blocked.contains(&(from, to)) {
            return None;
        }
        match self.qualities.get(&(from, to)) {
            Some(quality) => {
                // The way is longer or shorter than usual, but it still goes through the cables at its ends.
                let mtu = quality.mtu.min(near.mtu).min(far.mtu);
                Some((Link { mtu, up: quality.up && near.up && far.up, ..*quality }, None))
            }
            None => Some((near, Some(far))),
        }
    }
}
