//! Namespaces: isolated virtual networks, one for each socket. An empty one costs a few hundred bytes.
//! A member costs some 250; `tests/memory.rs` weighs it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use mesh_wire::message::PeerRecord;
use mesh_wire::route::Slot;

use super::links::Guest;
use super::members::{Member, Members};
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
    /// Another port of this transfer that members may ask where it sees them.
    pub(super) other_port: Option<u16>,
    /// What the forwarding path reads.
    pub(super) slots: SlotTable,
    pub(super) members: Members,
    /// When leases are looked at next; `None`: there are none.
    pub(super) leases_due: Option<Moment>,
    /// Links that no member is told things on, by index.
    pub(super) guests: BTreeMap<u32, Box<Guest>>,
    /// Other starts with the key of a member that want its place, by its slot's index. So are the next two: what few members have
    /// costs the others nothing.
    pub(super) rivals: BTreeMap<u32, Rival>,
    /// Where members seem to be now.
    pub(super) challenges: BTreeMap<u32, Challenge>,
    /// The addresses that members are told of.
    pub(super) watching: BTreeMap<u32, Watching>,
    /// Addresses that only one key may hold.
    pub(super) reserved: BTreeMap<Ipv4Addr, PublicKey>,
    /// Who is told of changes of an address.
    pub(super) watchers: BTreeSet<(Ipv4Addr, u32)>,
    /// Addresses whose changes were told a moment ago.
    pub(super) announced: BTreeMap<Ipv4Addr, Announced>,
    /// Handshakes under way.
    pub(super) handshakes: usize,
    /// Datagrams forwarded, since the start.
    pub(super) datagrams: u64,
    /// Bytes of those, UDP payload only.
    pub(super) bytes: u64,
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
    /// Index of its link.
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

/// What a member is told changes of.
#[derive(Debug)]
pub(super) struct Watching {
    /// The addresses, and until when.
    pub(super) until: BTreeMap<Ipv4Addr, Moment>,
    /// When it is looked at next for what has ended.
    pub(super) timer: Moment,
}

impl Namespace {
    /// An empty one. `hasher` has secret keys.
    pub(super) fn new(
        socket: SocketId,
        number: u16,
        keys: Arc<NamespaceKeys>,
        hasher: Arc<ahash::RandomState>,
    ) -> Self {
        Self {
            number,
            keys,
            other_port: None,
            slots: SlotTable::new(socket),
            members: Members::new(hasher),
            leases_due: None,
            guests: BTreeMap::new(),
            rivals: BTreeMap::new(),
            challenges: BTreeMap::new(),
            watching: BTreeMap::new(),
            reserved: BTreeMap::new(),
            watchers: BTreeSet::new(),
            announced: BTreeMap::new(),
            handshakes: 0,
            datagrams: 0,
            bytes: 0,
        }
    }

    /// The member that holds `slot`, in that generation.
    pub(super) fn member_at(&self, slot: Slot) -> Option<&Member> {
        self.slots.get(slot)?;
        self.members.get(slot.index)
    }

    /// The slot of the member that holds `ip4`.
    pub(super) fn holder(&self, ip4: Ipv4Addr) -> Option<Slot> {
        self.slots.holder(self.members.by_ip4(ip4)?)
    }

    /// What a member's peers are told of it.
    pub(super) fn record(&self, slot: Slot) -> Option<PeerRecord> {
        let member = self.member_at(slot)?;
        let (key, name) = (*member.key(), member.name.as_str().to_owned());
        // Who came over TCP is seen at this machine's own address.
        let endpoint = self.slots.endpoint_of(slot).map(|endpoint| endpoint.remote);
        let observed = endpoint.filter(|remote| !remote.ip().is_loopback());
        Some(PeerRecord { ip4: member.ip4(), key, slot, boot: member.boot, name, observed })
    }
}
