//! A stateful firewall without translation: what a router does for IPv6, and a cloud's security group for its hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use mesh_core::seam::Moment;

use super::timeouts::Timeouts;

/// What a firewall is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirewallConfig {
    /// How long it remembers a flow.
    pub timeouts: Timeouts,
    /// Most flows it remembers; a new one is refused when there are so many.
    pub entries_max: usize,
}

impl FirewallConfig {
    /// A home router on Linux.
    pub const LINUX: Self = Self { timeouts: Timeouts::LINUX, entries_max: 16_384 };
}

/// An address and port inside, and one outside.
type Flow = (SocketAddr, SocketAddr);

struct Entry {
    expires: Moment,
    answered: bool,
}

/// Lets in what comes from an address and port to which the same inside address and port has sent.
pub(super) struct Firewall {
    config: FirewallConfig,
    flows: BTreeMap<Flow, Entry>,
    due: BTreeSet<(Moment, Flow)>,
}

impl Firewall {
    pub(super) fn new(config: FirewallConfig) -> Self {
        Self { config, flows: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// Whether a datagram may go out; from then on its answers may come in.
    pub(super) fn outbound(&mut self, now: Moment, inside: SocketAddr, remote: SocketAddr) -> bool {
        self.expire(now);
        let flow = (inside, remote);
        if !self.flows.contains_key(&flow) && self.flows.len() >= self.config.entries_max {
            return false;
        }
        let entry = self.flows.entry(flow).or_insert(Entry { expires: now, answered: false });
        self.due.remove(&(entry.expires, flow));
        entry.expires = self.config.timeouts.end(now, entry.answered);
        self.due.insert((entry.expires, flow));
        true
    }

    /// Whether a datagram may come in.
    pub(super) fn inbound(&mut self, now: Moment, inside: SocketAddr, remote: SocketAddr) -> bool {
        self.expire(now);
        let flow = (inside, remote);
        let Some(entry) = self.flows.get_mut(&flow) else { return false };
        entry.answered = true;
        if self.config.timeouts.inbound_refreshes {
            self.due.remove(&(entry.expires, flow));
            entry.expires = self.config.timeouts.end(now, true);
            self.due.insert((entry.expires, flow));
        }
        true
    }

    /// Flows it remembers.
    pub(super) fn entries(&mut self, now: Moment) -> usize {
        self.expire(now);
        self.flows.len()
    }

    /// Forgets everything.
    pub(super) fn flush(&mut self) {
        self.flows.clear();
        self.due.clear();
    }

    fn expire(&mut self, now: Moment) {
        while let Some(&(at, flow)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, flow));
            self.flows.remove(&flow);
        }
    }
}
