//! What a gateway says of itself: the schema of `gateway status --json`, as far as the state machine knows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mesh_wire::message::{CandidateKind, Mapping};
use serde::Serialize;

use super::Gateway;
use super::paths::{PathKind, PathStatus, SearchState};
use crate::drops::{DropReason, Drops};
use crate::seam::Moment;

/// A gateway at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its virtual address.
    pub ip4: Ipv4Addr,
    /// Its unique local IPv6 address.
    pub ip6: Ipv6Addr,
    /// Its name; may be empty.
    pub name: String,
    /// The namespace: the port of the transfer.
    pub namespace: u16,
    /// The first 24 bits of its static key, in hexadecimal.
    pub key: String,
    /// MTU of the virtual interface, in bytes.
    pub inside_mtu: u16,
    /// Outer packet that paths are taken to carry, in bytes.
    pub outer_bytes: u16,
    /// Its transfer.
    pub transfer: TransferStatus,
    /// The network around it.
    pub network: NetworkStatus,
    /// Peers that are known, in order of their addresses.
    pub peers: Vec<PeerStatus>,
    /// Inner packets that wait for a session.
    pub packets_waiting: usize,
    /// Halves of packets that were given up because the other half did not come.
    pub halves_lost: u64,
    /// Datagrams and packets dropped, by reason.
    pub drops: Drops,
    /// Frames refused because they came before, or belong to no session of this start: the sum of two of the reasons.
    pub replayed: u64,
}

/// How the gateway stands with its transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Its name was not resolved yet.
    Resolving,
    /// A handshake is under way.
    Connecting,
    /// The virtual address is held.
    Registered,
    /// The virtual address is refused.
    Refused,
}

/// How a NAT chooses the outside port of one inside port (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MappingStatus {
    /// Not known.
    Unknown,
    /// The same for all destinations, or there is no NAT.
    EndpointIndependent,
    /// The same for two ports of the transfer; of other addresses nothing is known.
    PortIndependent,
    /// Another one for each destination.
    EndpointDependent,
}

impl From<Mapping> for MappingStatus {
    fn from(mapping: Mapping) -> Self {
        match mapping {
            Mapping::Unknown => Self::Unknown,
            Mapping::EndpointIndependent => Self::EndpointIndependent,
            Mapping::PortIndependent => Self::PortIndependent,
            Mapping::EndpointDependent => Self::EndpointDependent,
        }
    }
}

/// A gateway's transfer.
#[derive(Clone, Debug, Serialize)]
pub struct TransferStatus {
    /// How we stand with it.
    pub state: TransferState,
    /// Its address, once it answered; nothing while a connection over TCP is made anew.
    pub endpoint: Option<SocketAddr>,
    /// Whether it is reached over TCP, as UDP gets no answer.
    pub over_tcp: bool,
    /// Where it sees us; nothing over TCP, where it sees an address of its own machine.
    pub observed: Option<SocketAddr>,
    /// How our NAT chooses outside ports, as far as it is known.
    pub mapping: MappingStatus,
    /// Our slot in its table.
    pub slot: Option<u32>,
    /// Since when the address is held, in seconds.
    pub registered_seconds: Option<u64>,
    /// The first 24 bits of its static key, in hexadecimal.
    pub key: Option<String>,
    /// Cipher of the session with it.
    pub cipher: Option<&'static str>,
    /// For how long it has not answered, in seconds.
    pub silent_seconds: Option<u64>,
    /// How long its last answer took, in microseconds.
    pub rtt_micros: Option<u64>,
}

/// The network around a gateway, as far as it is known.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkStatus {
    /// Its own addresses outside, most preferred first.
    pub local: Vec<IpAddr>,
    /// Where peers are told that it may be reached.
    pub candidates: Vec<CandidateStatus>,
}

/// A place where a gateway may be reached.
#[derive(Clone, Debug, Serialize)]
pub struct CandidateStatus {
    /// How it is known: `host`, `observed` by the transfer, `mapped` by the router, or `seen` by peers.
    pub kind: &'static str,
    /// Where it is.
    pub endpoint: SocketAddr,
}

/// One peer.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Its virtual address.
    pub ip4: Ipv4Addr,
    /// Its name; may be empty.
    pub name: String,
    /// The first 24 bits of its static key, in hexadecimal; `None`: nobody is known to hold the address.
    pub key: Option<String>,
    /// Whether that key is vouched for.
    pub verified: bool,
    /// Whether there is a session.
    pub connected: bool,
    /// Kind of the path to it.
    pub path: Option<PathKind>,
    /// Where datagrams to it are sent: to itself or to a relay.
    pub endpoint: Option<SocketAddr>,
    /// Cipher of the session.
    pub cipher: Option<&'static str>,
    /// Why the last handshake with it came to nothing, where that will not change by itself: `no-common-cipher`.
    pub failure: Option<&'static str>,
    /// Age of the session's keys, in seconds.
    pub handshake_seconds: Option<u64>,
    /// Time since it was heard, in seconds.
    pub heard_seconds: Option<u64>,
    /// Smoothed round-trip time of that path, in microseconds, where it was measured.
    pub rtt_micros: Option<u64>,
    /// All paths that are known.
    pub paths: Vec<PathStatus>,
    /// How it stands with the search for a way through its NAT; `None`: none is wanted.
    pub search: Option<SearchState>,
    /// Inner packets received.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Inner packets sent.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Inner packets that wait for a session.
    pub packets_waiting: usize,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The first 24 bits of a key.
fn short([a, b, c, ..]: &[u8; 32]) -> String {
    format!("{a:02x}{b:02x}{c:02x}")
}

impl Gateway {
    /// What the gateway knows and did so far.
    pub fn status(&self, now: Moment) -> Status {
        let mut peers: Vec<PeerStatus> = self.peers.iter().map(|peer| self.peer_status(now, peer)).collect();
        peers.sort_by_key(|peer| peer.ip4);
        Status {
            ip4: self.network.ip4(),
            ip6: self.network.ip6(),
            name: self.name.clone(),
            namespace: self.keys.namespace(),
            key: short(self.static_key.public()),
            inside_mtu: self.inside_mtu.bytes(),
            outer_bytes: self.outer.bytes(),
            transfer: self.transfer_status(now),
            network: self.network_status(),
            peers,
            packets_waiting: self.peers.queued,
            halves_lost: self.joiner.lost(),
            drops: self.drops.clone(),
            replayed: self.drops.get(DropReason::Replayed) + self.drops.get(DropReason::UnknownSession),
        }
    }

    /// Datagrams and packets dropped so far, by reason.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    fn network_status(&self) -> NetworkStatus {
        let kind = |kind: CandidateKind| match kind {
            CandidateKind::Host => "host",
            CandidateKind::Observed => "observed",
            CandidateKind::Mapped => "mapped",
            CandidateKind::Seen => "seen",
        };
        let candidates = self.candidates.list().iter();
        NetworkStatus {
            local: self.local.iter().map(|local| local.address).collect(),
            candidates: candidates
                .map(|candidate| CandidateStatus { kind: kind(candidate.kind), endpoint: candidate.endpoint })
                .collect(),
        }
    }

    fn transfer_status(&self, now: Moment) -> TransferStatus {
        let relay = &self.relay;
        let registration = relay.registration();
        let state = if registration.is_some() {
            TransferState::Registered
        } else if relay.refused_reason().is_some() {
            TransferState::Refused
        } else if !relay.addresses.is_empty() {
            TransferState::Connecting
        } else {
            TransferState::Resolving
        };
        let control = relay.control.as_ref();
        TransferStatus {
            state,
            endpoint: control.and_then(|control| relay.shown(&control.endpoint)),
            over_tcp: relay.is_over_stream(),
            observed: registration.filter(|_| !relay.is_over_stream()).map(|registration| registration.observed),
            mapping: self.candidates.mapping().into(),
            slot: relay.place().map(|(_, slot)| slot.index),
            registered_seconds: registration.map(|registration| now.since(registration.since).as_secs()),
            key: relay.pinned().as_ref().map(short),
            cipher: control.map(|control| control.established.cipher().name()),
            silent_seconds: relay.silent_since.map(|since| now.since(since).as_secs()),
            rtt_micros: relay.keepalives.measured.map(micros),
        }
    }

    fn peer_status(&self, now: Moment, peer: &super::peers::Peer) -> PeerStatus {
        let session = peer.keyring.as_ref().and_then(|keyring| keyring.current());
        let path = peer.path_of_messages(&self.relay);
        let relayed = self.relay.path_to(peer);
        PeerStatus {
            ip4: peer.ip4,
            name: peer.record.as_ref().map(|record| record.name.clone()).unwrap_or_default(),
            key: peer.key().map(short),
            verified: peer.record.is_some(),
            connected: session.is_some(),
            path: path.map(|path| path.kind),
            endpoint: path.and_then(|path| self.relay.shown(&path.endpoint)),
            cipher: session.map(|session| session.cipher().name()),
            failure: peer.no_common_cipher.then_some(DropReason::NoCommonCipher.name()),
            handshake_seconds: session.map(|session| now.since(session.created()).as_secs()),
            heard_seconds: peer.received_at.map(|at| now.since(at).as_secs()),
            rtt_micros: peer.paths.measured().round_trip().map(micros),
            paths: peer.paths.status(relayed.as_ref(), self.outer),
            search: self.search_state(now, peer),
            packets_in: peer.traffic.packets_in,
            bytes_in: peer.traffic.bytes_in,
            packets_out: peer.traffic.packets_out,
            bytes_out: peer.traffic.bytes_out,
            packets_waiting: peer.queue.len(),
        }
    }
}
