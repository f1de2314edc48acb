//! Where we may be reached without a relay, as peers are told; and what they are told of each other's places.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_wire::message::{CANDIDATES_MAX, Candidate, CandidateKind, Mapping};

use crate::gateway::local::LocalAddress;
use crate::seam::Moment;

/// What peers say of where they see us, remembered: the first ones.
const SEEN_MAX: usize = 8;
/// How long it counts.
const SEEN_TIME: Duration = Duration::from_secs(300);
/// What one peer says of it is news so often at most: each is told to all peers.
const SEEN_NEWS_INTERVAL: Duration = Duration::from_secs(10);

/// A place where somebody outside has seen us.
#[derive(Clone, Copy, Debug)]
struct Seen {
    endpoint: SocketAddr,
    /// Who: a second port of the transfer; or a peer, whose port is left out, as one peer has several.
    by: SocketAddr,
    at: Moment,
    /// Since when it is this endpoint.
    since: Moment,
}

/// What our places are made of.
#[derive(Clone, Copy, Debug)]
pub(in crate::gateway) struct Sources<'a> {
    /// Our addresses.
    pub(in crate::gateway) local: &'a [LocalAddress],
    /// The port of our socket for IPv4, and of that for IPv6; 0: there is none.
    pub(in crate::gateway) ports: (u16, u16),
    /// Where the transfer sees us, and the transfer.
    pub(in crate::gateway) observed: Option<(SocketAddr, SocketAddr)>,
    /// What the router maps to us.
    pub(in crate::gateway) mapped: Option<SocketAddr>,
}

/// Our places.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Candidates {
    number: u32,
    list: Vec<Candidate>,
    mapping: Mapping,
    seen: Vec<Seen>,
}

impl Candidates {
    /// Number of the present list; 0 before the first.
    pub(in crate::gateway) fn number(&self) -> u32 {
        self.number
    }

    pub(in crate::gateway) fn list(&self) -> &[Candidate] {
        &self.list
    }

    /// How our NAT maps, as far as what others see tells it.
    pub(in crate::gateway) fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Somebody at `by` sees us at `endpoint`. Whether that is news.
    pub(in crate::gateway) fn note_seen(&mut self, now: Moment, endpoint: SocketAddr, by: SocketAddr) -> bool {
        self.seen.retain(|seen| now.since(seen.at) < SEEN_TIME);
        if let Some(known) =
            self.seen.iter_mut().find(|seen| seen.by == by && seen.endpoint.is_ipv4() == endpoint.is_ipv4())
        {
            known.at = now;
            if known.endpoint == endpoint || now.since(known.since) < SEEN_NEWS_INTERVAL {
                return false;
            }
            (known.endpoint, known.since) = (endpoint, now);
            return true;
        }
        if self.seen.len() == SEEN_MAX {
            // Behind some NATs each peer sees another port: those known do for all, and do not change by the second.
            return false;
        }
        self.seen.push(Seen { endpoint, by, at: now, since: now });
        true
    }

    /// What somebody saw counts no more.
    pub(in crate::gateway) fn forget_seen_by(&mut self, by: SocketAddr) {
        self.seen.retain(|seen| seen.by != by);
    }

    /// The network or our place in it has changed: what was seen before tells nothing.
    pub(in crate::gateway) fn forget_seen(&mut self) {
        self.seen.clear();
    }

    /// Makes the list anew. Whether it has changed.
    pub(in crate::gateway) fn collect(&mut self, sources: &Sources<'_>) -> bool {
        let mut list: Vec<Candidate> = Vec::new();
        let mut add = |kind, endpoint: SocketAddr| {
            let known = list.iter().any(|candidate| candidate.endpoint == endpoint);
            if !known && list.len() < CANDIDATES_MAX && is_place(&endpoint) {
                list.push(Candidate { kind, endpoint });
            }
        };
        for local in sources.local {
            let port = if local.address.is_ipv4() { sources.ports.0 } else { sources.ports.1 };
            add(CandidateKind::Host, SocketAddr::new(local.address, port));
        }
        if let Some(mapped) = sources.mapped {
            add(CandidateKind::Mapped, mapped);
        }
        if let Some((observed, _)) = sources.observed {
            add(CandidateKind::Observed, observed);
        }
        for seen in &self.seen {
            add(CandidateKind::Seen, seen.endpoint);
        }
        let mapping = self.infer(sources);
        let news = list != self.list || mapping != self.mapping;
        if news {
            (self.list, self.mapping) = (list, mapping);
            self.number += 1;
        }
        news
    }

    /// RFC 5780 asks one server at two ports and two addresses; here it is whoever sees us. Of IPv4 alone: others are rarely
    /// translated.
    fn infer(&self, sources: &Sources<'_>) -> Mapping {
        let of_transfer = sources.observed.into_iter();
        let of_peers = self.seen.iter().map(|seen| (seen.endpoint, seen.by));
        let outside: Vec<(SocketAddr, SocketAddr)> = of_transfer
            .chain(of_peers)
            .filter(|(endpoint, _)| endpoint.is_ipv4() && is_public(&endpoint.ip()))
            .collect();
        let Some((first, by)) = outside.first() else { return Mapping::Unknown };
        if sources.local.iter().any(|local| local.address == first.ip()) && first.port() == sources.ports.0 {
            return Mapping::EndpointIndependent;
        }
        let mut others =
            outside.iter().filter(|(endpoint, other)| other != by && endpoint.ip() == first.ip()).peekable();
        if others.peek().is_none() {
            return Mapping::Unknown;
        }
        let mut elsewhere = false;
        for (endpoint, other) in others {
            if endpoint.port() != first.port() {
                return Mapping::EndpointDependent;
            }
            elsewhere |= other.ip() != by.ip();
        }
        // Two ports of one address say nothing of other addresses.
        if elsewhere { Mapping::EndpointIndependent } else { Mapping::PortIndependent }
    }
}

/// Whether a datagram to it can reach a gateway: one host, one port, not this host itself, no scope that has to be told.
pub(in crate::gateway) fn is_place(endpoint: &SocketAddr) -> bool {
    let address = match endpoint.ip() {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => {
            !ip.is_loopback()
                && !ip.is_multicast()
                && !ip.is_unspecified()
                && !ip.is_unicast_link_local()
                && ip.to_ipv4_mapped().is_none()
        }
    };
    address && endpoint.port() != 0
}

/// Whether an address is one of the Internet, as far as it tells by itself.
fn is_public(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // RFC 6598: between a customer and its carrier.
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !ip.is_private() && !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified() && !shared
        }
        IpAddr::V6(ip) => !ip.is_unique_local() && !ip.is_unicast_link_local() && !ip.is_loopback(),
    }
}

/// First wait for the acknowledgement of a list; it doubles.
const REPEAT_FIRST: Duration = Duration::from_millis(500);
const REPEAT_MOST: Duration = Duration::from_secs(20);
/// A peer that says nothing to so many is of a version that knows none.
const REPEATS_MAX: u32 = 6;
/// Between two lists that are sent because the peer's last one was not the one that was expected.
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);

/// What one peer knows of our places, and we of its.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Exchange {
    /// Number of our list that the peer has.
    acknowledged: u32,
    /// Number of the peer's list that we have.
    pub(in crate::gateway) theirs: u32,
    /// How the peer's NAT maps.
    pub(in crate::gateway) mapping: Mapping,
    /// Whether it has named a place.
    pub(in crate::gateway) has_places: bool,
    repeats: u32,
    tell_at: Option<Moment>,
    told_at: Option<Moment>,
}

impl Exchange {
    /// The peer is to be told.
    pub(in crate::gateway) fn begin(&mut self, now: Moment) {
        self.repeats = 0;
        self.tell_at = Some(now);
    }

    /// When it is to be told, or told again.
    pub(in crate::gateway) fn next_timeout(&self) -> Option<Moment> {
        self.tell_at
    }

    /// Whether it is to be told now, our list being number `number`. Notes when to repeat it.
    pub(in crate::gateway) fn is_due(&mut self, now: Moment, number: u32) -> bool {
        if self.tell_at.is_none_or(|at| at > now) {
            return false;
        }
        self.told_at = Some(now);
        let repeat = self.acknowledged != number && self.repeats < REPEATS_MAX;
        self.tell_at = repeat.then(|| now + super::super::timers::backoff(REPEAT_FIRST, REPEAT_MOST, self.repeats));
        self.repeats += 1;
        true
    }

    /// Takes a list of the peer's: its number, and which of ours it has. Whether it is a new one.
    pub(in crate::gateway) fn take(&mut self, now: Moment, number: u32, acknowledged: u32, ours: u32) -> bool {
        let news = number > self.theirs;
        self.theirs = self.theirs.max(number);
        self.acknowledged = acknowledged;
        let known = acknowledged == ours;
        if known {
            self.tell_at = None;
        }
        if news || !known {
            let earliest = self.told_at.map_or(now, |at| at + ANSWER_INTERVAL);
            self.tell_at = Some(earliest.max(now));
        }
        news
    }
}

#[cfg(test)]
mod tests;
