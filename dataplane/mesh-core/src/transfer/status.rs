//! What a transfer shows of itself: its status, whole, and events as they occur. Field names are the schema of `--json`.

use std::net::{Ipv4Addr, SocketAddr};

use mesh_wire::message::RefusedReason;
use serde::Serialize;

use super::Transfer;
use super::namespace::Namespace;
use crate::drops::Drops;
use crate::seam::Moment;

/// The state of a transfer at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Seconds since the transfer started.
    pub uptime_seconds: u64,
    /// All namespaces, by socket.
    pub namespaces: Vec<NamespaceStatus>,
    /// What was done since the start.
    pub counters: Counters,
    /// Datagrams dropped since the start, by reason; reasons that did not occur are left out.
    pub drops: Drops,
    /// Handshakes under way, or finished less than five seconds ago.
    pub handshakes_pending: usize,
    /// Control sessions: one for each member, and old ones that still end.
    pub control_sessions: usize,
}

/// What a transfer has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Datagrams forwarded from gateway to gateway.
    pub datagrams_forwarded: u64,
    /// Bytes of those, UDP payload only.
    pub bytes_forwarded: u64,
    /// Runs they were forwarded in: one send each.
    pub runs_forwarded: u64,
    /// Handshakes finished.
    pub handshakes: u64,
    /// Addresses that were asked to prove themselves.
    pub cookies_sent: u64,
    /// "Register again" notices sent.
    pub notices_sent: u64,
    /// Lookups answered.
    pub lookups: u64,
    /// Registrations refused.
    pub refused: u64,
}

impl Counters {
    /// Counts a run that was forwarded.
    pub(super) fn note_run(&mut self, datagrams: u64, bytes: u64) {
        self.datagrams_forwarded += datagrams;
        self.bytes_forwarded += bytes;
        self.runs_forwarded += 1;
    }
}

/// One namespace.
#[derive(Clone, Debug, Serialize)]
pub struct NamespaceStatus {
    /// Its number: the UDP port.
    pub namespace: u16,
    /// Gateways that hold an address, by slot.
    pub members: Vec<MemberStatus>,
    /// Datagrams forwarded since the start.
    pub datagrams_forwarded: u64,
    /// Bytes of those, UDP payload only.
    pub bytes_forwarded: u64,
}

/// One gateway.
#[derive(Clone, Debug, Serialize)]
pub struct MemberStatus {
    /// Its virtual address.
    pub ip: Ipv4Addr,
    /// Its name; may be empty.
    pub name: String,
    /// The address it is reached at.
    pub endpoint: Option<SocketAddr>,
    /// Its slot.
    pub slot: u32,
    /// Seconds it has held its address, earlier starts of the transfer included.
    pub age_seconds: u64,
    /// Seconds since its last authenticated word.
    pub heard_seconds: u64,
    /// Datagrams forwarded from it, since it took its slot.
    pub datagrams_forwarded: u64,
    /// Bytes of those, UDP payload only.
    pub bytes_forwarded: u64,
}

/// What a person may want to know at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A gateway registered.
    Joined {
        /// Number of the namespace.
        namespace: u16,
        /// Its virtual address.
        ip4: Ipv4Addr,
        /// Its name; may be empty.
        name: String,
        /// Where it is.
        endpoint: SocketAddr,
        /// Its slot.
        slot: u32,
    },
    /// A gateway is reached at another address now.
    Moved {
        /// Number of the namespace.
        namespace: u16,
        /// Its virtual address.
        ip4: Ipv4Addr,
        /// Where it is.
        endpoint: SocketAddr,
    },
    /// A gateway's address is free, or another's.
    Left {
        /// Number of the namespace.
        namespace: u16,
        /// Its virtual address.
        ip4: Ipv4Addr,
        /// Its name; may be empty.
        name: String,
        /// Why.
        reason: LeftReason,
    },
    /// A gateway was refused.
    Refused {
        /// Number of the namespace.
        namespace: u16,
        /// The address it asked for.
        ip4: Ipv4Addr,
        /// Its name; may be empty.
        name: String,
        /// Where it is.
        endpoint: SocketAddr,
        /// Why.
        reason: Refusal,
    },
}

/// Why a gateway left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftReason {
    /// It said so.
    Goodbye,
    /// It said nothing for 120 s.
    Silent,
    /// Another gateway showed an older right to its address.
    Displaced,
}

impl LeftReason {
    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Goodbye => "goodbye",
            Self::Silent => "silent",
            Self::Displaced => "displaced",
        }
    }
}

/// Why a gateway was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another key holds the address.
    AddressTaken,
    /// Another live start has the same key: a cloned machine.
    KeyInUse,
    /// The namespace is full.
    Full,
    /// Not an address that can be held.
    BadAddress,
}

impl Refusal {
    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddressTaken => "address-taken",
            Self::KeyInUse => "key-in-use",
            Self::Full => "full",
            Self::BadAddress => "bad-address",
        }
    }
}

impl From<RefusedReason> for Refusal {
    fn from(reason: RefusedReason) -> Self {
        match reason {
            RefusedReason::AddressTaken => Self::AddressTaken,
            RefusedReason::KeyInUse => Self::KeyInUse,
            RefusedReason::Full => Self::Full,
            RefusedReason::BadAddress => Self::BadAddress,
        }
    }
}

impl Transfer {
    /// The state of everything, for people and tools. It goes through all members: not for each packet.
    pub fn status(&self, now: Moment) -> Status {
        let namespaces = self.spaces.iter().map(|space| {
            let members = space.members.iter().map(|(index, member)| {
                let place = space.slots.holder(index).and_then(|slot| space.slots.get(slot));
                MemberStatus {
                    ip: member.ip4(),
                    name: member.name.as_str().to_owned(),
                    endpoint: place.and_then(|place| space.slots.endpoint(place)).map(|endpoint| endpoint.remote),
                    slot: index,
                    age_seconds: member.age(now).as_secs(),
                    heard_seconds: now.since(member.heard()).as_secs(),
                    datagrams_forwarded: place.map_or(0, |place| place.datagrams),
                    bytes_forwarded: place.map_or(0, |place| place.bytes),
                }
            });
            NamespaceStatus {
                namespace: space.number,
                members: members.collect(),
                datagrams_forwarded: space.datagrams,
                bytes_forwarded: space.bytes,
            }
        });
        Status {
            uptime_seconds: now.since(self.started).as_secs(),
            namespaces: namespaces.collect(),
            counters: self.counters,
            drops: self.drops.clone(),
            handshakes_pending: self.handshakes.len(),
            control_sessions: self.spaces.iter().map(Namespace::links).sum(),
        }
    }
}
