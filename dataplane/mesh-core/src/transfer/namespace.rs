//! Namespaces: isolated virtual networks, one for each socket. An empty one costs a few hundred bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use mesh_wire::message::PeerRecord;
use mesh_wire::route::Slot;

use super::slots::SlotTable;
use crate::seam::{Endpoint, Moment, SocketId};
use crate::session::PublicKey;
use crate::session::token::NamespaceKeys;

/// One namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    /// Its number: the port.
    pub(super) number: u16,
    pub(super) keys: Arc<NamespaceKeys>,
    /// What the forwarding path reads.
    pub(super) slots: SlotTable,
    /// By index of their slots.
    pub(super) members: BTreeMap<u32, Member>,
    /// Who holds an address.
    pub(super) by_ip4: BTreeMap<Ipv4Addr, u32>,
    /// Who has a key.
    pub(super) by_key: BTreeMap<PublicKey, u32>,
    /// Addresses that only one key may hold.
    pub(super) reserved: BTreeMap<Ipv4Addr, PublicKey>,
    /// Who is told of changes of an address.
    pub(super) watchers: BTreeSet<(Ipv4Addr, u32)>,
    /// Addresses whose changes were told a moment ago.
    pub(super) announced: BTreeMap<Ipv4Addr, Announced>,
    /// Handshakes under way.
    pub(super) handshakes: usize,
    /// Links that no member holds.
    pub(super) guests: usize,
    /// Datagrams forwarded, since the start.
    pub(super) datagrams: u64,
    /// Bytes of those, UDP payload only.
    pub(super) bytes: u64,
}

/// A gateway that holds an address.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) slot: Slot,
    pub(super) key: PublicKey,
    pub(super) ip4: Ipv4Addr,
    pub(super) name: String,
    /// Random number of its start.
    pub(super) boot: u64,
    /// Number of its last request to register.
    pub(super) request: u32,
    /// Index of the link it is told things on.
    pub(super) link: u32,
    /// When it registered here.
    pub(super) since: Moment,
    /// How long it had held its address before, by its ticket; `None`: it came without one.
    pub(super) before: Option<Duration>,
    /// Its last authenticated word.
    pub(super) heard: Moment,
    /// When its lease is looked at next.
    pub(super) lease_timer: Moment,
    /// Number of the last change it was told.
    pub(super) change: u32,
    /// The addresses it is told of, and until when.
    pub(super) watching: BTreeMap<Ipv4Addr, Moment>,
    /// Another start with its key that wants its place.
    pub(super) rival: Option<Box<Rival>>,
    /// Where it seems to be now.
    pub(super) challenge: Option<Box<Challenge>>,
}

/// What a gateway asks for.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) request: u32,
    pub(super) boot: u64,
    pub(super) ip4: Ipv4Addr,
    pub(super) name: String,
    /// How long it had held the address by a good ticket.
    pub(super) ticket: Option<Duration>,
    /// Bytes of the datagram that it came in: the answer is not longer.
    pub(super) room: usize,
}

/// Another start of a gateway, waiting until the earlier one has shown that it is gone.
#[derive(Debug)]
pub(super) struct Rival {
    pub(super) link: u32,
    pub(super) claim: Claim,
    /// What the probes carry.
    pub(super) seq: u32,
    pub(super) probes: u32,
    /// When the next probe goes, or the wait ends.
    pub(super) timer: Moment,
}

/// An address whose changes were told to its watchers a moment ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    /// When that counts no more.
    pub(super) ends: Moment,
    /// How many were told meanwhile.
    pub(super) count: u32,
    /// Whether the last one was not, and has to be told then.
    pub(super) late: bool,
}

/// A question sent to an address that a member seems to have moved to.
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) to: Endpoint,
    /// What the probes carry.
    pub(super) seq: u32,
    pub(super) probes: u32,
    pub(super) since: Moment,
    /// The keepalive to answer once the address is proven: its number, and the bytes of its datagram.
    pub(super) keepalive: Option<(u32, usize)>,
}

impl Namespace {
    pub(super) fn new(socket: SocketId, number: u16, keys: Arc<NamespaceKeys>) -> Self {
        Self {
            number,
            keys,
            slots: SlotTable::new(socket),
            members: BTreeMap::new(),
            by_ip4: BTreeMap::new(),
            by_key: BTreeMap::new(),
            reserved: BTreeMap::new(),
            watchers: BTreeSet::new(),
            announced: BTreeMap::new(),
            handshakes: 0,
            guests: 0,
            datagrams: 0,
            bytes: 0,
        }
    }

    /// The member that holds `slot`, in that generation.
    pub(super) fn member_at(&self, slot: Slot) -> Option<&Member> {
        self.members.get(&slot.index).filter(|member| member.slot == slot)
    }

    /// The same, to be changed.
    pub(super) fn member_at_mut(&mut self, slot: Slot) -> Option<&mut Member> {
        self.members.get_mut(&slot.index).filter(|member| member.slot == slot)
    }

    /// The member that holds `ip4`.
    pub(super) fn holder(&self, ip4: Ipv4Addr) -> Option<&Member> {
        self.members.get(self.by_ip4.get(&ip4)?)
    }
}

impl Member {
    /// How long it has held its address.
    pub(super) fn age(&self, now: Moment) -> Duration {
        now.since(self.since) + self.before.unwrap_or_default()
    }

    /// What its peers are told.
    pub(super) fn record(&self) -> PeerRecord {
        PeerRecord { ip4: self.ip4, key: self.key, slot: self.slot, boot: self.boot, name: self.name.clone() }
    }
}
