//! What is to happen, in the order of time; at one moment, in the order in which it was noted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mesh_core::seam::Moment;
use mesh_core::session::jobs::Done;

use crate::net::{Datagram, Hop, NodeId};

pub(super) enum Event {
    /// A datagram comes to a host or a box.
    Travel { hop: Hop, datagram: Datagram },
    /// A machine wanted to be called at this time.
    Timer { node: NodeId, life: u32 },
    /// A helper thread has done its work.
    Job { node: NodeId, life: u32, done: Done },
    /// The name of a gateway's transfer is resolved.
    Resolved { node: NodeId, life: u32 },
    /// The host behind a gateway sends an inner packet.
    Inside { node: NodeId, life: u32, packet: Vec<u8> },
}

impl Event {
    /// Which machine it is for, if it is for one: its node, and how many have lived there before it.
    pub(super) fn machine(&self) -> Option<(NodeId, u32)> {
        match self {
            Self::Travel { .. } => None,
            Self::Timer { node, life } | Self::Resolved { node, life } => Some((*node, *life)),
            Self::Job { node, life, .. } | Self::Inside { node, life, .. } => Some((*node, *life)),
        }
    }
}

struct Queued {
    at: Moment,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[derive(Default)]
pub(super) struct Queue {
    order: u64,
    heap: BinaryHeap<Reverse<Queued>>,
}

impl Queue {
    pub(super) fn push(&mut self, at: Moment, event: Event) {
        self.order += 1;
        self.heap.push(Reverse(Queued { at, order: self.order, event }));
    }

    /// The next event, if it is due by `end`.
    pub(super) fn pop(&mut self, end: Moment) -> Option<(Moment, Event)> {
        let Reverse(next) = self.heap.peek()?;
        if next.at > end {
            return None;
        }
        self.heap.pop().map(|Reverse(next)| (next.at, next.event))
    }

    /// The next event, if it is due at `now` and a datagram for the host of `node` that `wanted` says yes to.
    pub(super) fn pop_datagram(
        &mut self,
        now: Moment,
        node: NodeId,
        wanted: impl Fn(&Datagram) -> bool,
    ) -> Option<Datagram> {
        let Reverse(next) = self.heap.peek()?;
        let Event::Travel { hop: Hop::Host(host), datagram } = &next.event else { return None };
        if next.at != now || *host != node || !wanted(datagram) {
            return None;
        }
        let Event::Travel { datagram, .. } = self.heap.pop()?.0.event else { return None };
        Some(datagram)
    }
}
