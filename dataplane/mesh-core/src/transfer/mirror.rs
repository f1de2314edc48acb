//! Namespaces that several data threads share: one is *home* to it, the others forward by a *mirror* of its slot table.
//!
//! The kernel spreads the datagrams of such a port over the threads' sockets by the sender's address, so that all of one sender are
//! one thread's and stay in order. A thread with a mirror forwards what its table lets pass, as the home would; everything else
//! (handshakes, control messages, whatever its table does not know) it hands to the home. The home writes each change of its table
//! to a journal, and the threads with mirrors are told of it before the datagram that was the cause is answered: who learns of a
//! slot from an answer finds every mirror knowing it.
//!
//! Nothing is locked: changes and what is handed over are messages, and none is sent for a datagram that is forwarded.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mesh_wire::frame::FrameType;

use super::forward::{self, Verdict};
use super::slots::{Place, SlotTable};
use super::{Reply, Transfer, observe};
use crate::drops::DropReason;
use crate::seam::{Action, Arrival, Endpoint, Moment, Slab, SocketId};
use crate::session::mac::ObserverKey;
use crate::session::token::NamespaceKeys;

/// Datagrams that wait to be handed over at one time; what does not fit is lost, as on any network.
const HANDED_MAX: usize = 256;

/// Longest datagram that is handed over. Control messages and handshakes have at most 1200 bytes; a longer datagram of a member whom
/// the mirror does not know yet is sent again by whoever wants it to arrive.
const HANDED_BYTES_MAX: usize = 2048;

/// A namespace that another thread is home to.
#[derive(Debug)]
pub(super) struct Mirror {
    number: u16,
    keys: Arc<NamespaceKeys>,
    slots: SlotTable,
    datagrams: u64,
    bytes: u64,
}

/// A change of a slot table, for the mirrors of its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotChange {
    /// Number of the namespace.
    pub namespace: u16,
    /// Which place, from 1.
    pub index: u32,
    /// Generation and addresses of who holds it now; `None`: nobody.
    pub holder: Option<(u16, SocketAddr, Option<IpAddr>)>,
}

/// A datagram that a thread with a mirror could not deal with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Number of the namespace.
    pub namespace: u16,
    /// Who sent it.
    pub remote: SocketAddr,
    /// The local address that was asked.
    pub local: Option<IpAddr>,
    /// TOS byte of its outer header.
    pub tos: u8,
    /// Itself.
    pub datagram: Vec<u8>,
}

/// What a mirror has forwarded: its part of the counts of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareStatus {
    /// Number of the namespace.
    pub namespace: u16,
    /// Datagrams forwarded here.
    pub datagrams_forwarded: u64,
    /// Bytes of those, UDP payload only.
    pub bytes_forwarded: u64,
    /// Slot, datagrams and bytes of each member of which any were forwarded here.
    pub members: Vec<(u32, u64, u64)>,
}

impl Transfer {
    /// Keeps a journal of the slots of a namespace from now on: [`Transfer::poll_slot_change`] tells of it. To be called before
    /// the first member. `false`: there is no such namespace.
    pub fn share_namespace(&mut self, socket: SocketId) -> bool {
        let Some(space) = self.spaces.get_mut(socket) else { return false };
        space.slots.keep_journal(&self.changes_pending);
        self.shared.insert(space.number, socket);
        true
    }

    /// Lets the socket `socket` stand for a mirror of the namespace `namespace` with these keys, which another thread is home to.
    pub fn add_mirror(&mut self, socket: SocketId, namespace: u16, keys: impl Into<Arc<NamespaceKeys>>) {
        self.remove_namespace(socket);
        let at = usize::from(socket.0);
        if self.mirrors.len() <= at {
            self.mirrors.resize_with(at + 1, || None);
        }
        self.mirrored.insert(namespace, socket);
        let (keys, slots) = (keys.into(), SlotTable::new(socket));
        self.mirrors[at] = Some(Box::new(Mirror { number: namespace, keys, slots, datagrams: 0, bytes: 0 }));
    }

    /// The next change of a table that is mirrored elsewhere.
    pub fn poll_slot_change(&mut self) -> Option<SlotChange> {
        if self.changes_pending.load(Ordering::Relaxed) == 0 {
            return None;
        }
        for &socket in self.shared.values() {
            let Some(space) = self.spaces.get_mut(socket) else { continue };
            if let Some((index, holder)) = space.slots.journaled() {
                let holder = holder.map(|(generation, endpoint)| (generation, endpoint.remote, endpoint.local));
                return Some(SlotChange { namespace: space.number, index, holder });
            }
        }
        None
    }

    /// Takes a change of the home's table over. One of a namespace without a mirror here is no one's.
    pub fn mirror_slot(&mut self, change: &SlotChange) {
        let Some(&socket) = self.mirrored.get(&change.namespace) else { return };
        let Some(Some(mirror)) = self.mirrors.get_mut(usize::from(socket.0)) else { return };
        let endpoint = change.holder.map(|(_, remote, local)| Endpoint { socket, remote, local });
        mirror.slots.copy(change.index, change.holder.map_or(0, |(generation, ..)| generation), endpoint);
    }

    /// The next datagram for the home of its namespace.
    pub fn poll_handed(&mut self) -> Option<Handed> {
        self.handed.pop_front()
    }

    /// Counts a datagram that found no way to its home.
    pub fn drop_handed(&mut self, _handed: &Handed) {
        self.drops.count(DropReason::NoRoom);
    }

    /// Deals with a datagram that arrived on another thread, as if it had arrived here, at home.
    pub fn handle_handed(&mut self, now: Moment, handed: &mut Handed, slab: &mut Slab<'_>, actions: &mut Vec<Action>) {
        let Some(&socket) = self.shared.get(&handed.namespace) else {
            return self.drops.count(DropReason::UnknownSocket);
        };
        let from = Endpoint { socket, remote: handed.remote, local: handed.local };
        let datagram = &mut handed.datagram[..];
        let Some(space) = self.spaces.get_mut(socket) else { return self.drops.count(DropReason::UnknownSocket) };
        // What the mirror did not know yet, this table may.
        if let Verdict::Forward { source, to } = self.moves.judge(now, datagram, &from, &space.slots)
            && let Some(to) = space.slots.endpoint(to)
        {
            let Some(slab) = slab.append(datagram) else { return self.drops.count(DropReason::NoRoom) };
            space.slots.note(source, 1, datagram.len() as u64);
            space.datagrams += 1;
            space.bytes += datagram.len() as u64;
            self.counters.note_run(1, datagram.len() as u64);
            return actions.push(Action::Send { segment_bytes: slab.len().max(1), slab, to, tos: handed.tos });
        }
        let arrival = Arrival {
            origin: crate::seam::Origin::Outside(from),
            segment_bytes: datagram.len().max(1),
            tos: handed.tos,
        };
        self.receive_train(now, from, &arrival, datagram, &mut Reply { slab, actions });
    }

    /// A train for a namespace whose home is elsewhere.
    pub(super) fn receive_mirrored(
        &mut self,
        from: Endpoint,
        arrival: &Arrival,
        train: &[u8],
        reply: &mut Reply<'_, '_>,
    ) {
        let stride = arrival.segment_bytes.max(1);
        let mirror = self.mirrors.get_mut(usize::from(from.socket.0)).and_then(Option::as_deref_mut);
        let Some(mirror) = mirror else {
            return self.drops.count_many(DropReason::UnknownSocket, train.len().div_ceil(stride) as u64);
        };
        let mut at = 0;
        while at < train.len() {
            let mut end = (at + stride).min(train.len());
            match forward::judge(&train[at..end], &from, &mirror.slots) {
                Verdict::Forward { source, to } => {
                    let Some(to) = mirror.slots.endpoint(to) else { return };
                    end = forward::run_end(train, at, stride);
                    let (datagrams, bytes) = ((end - at).div_ceil(stride) as u64, (end - at) as u64);
                    mirror.slots.note(source, datagrams, bytes);
                    mirror.datagrams += datagrams;
                    mirror.bytes += bytes;
                    self.counters.note_run(datagrams, bytes);
                    reply.actions.push(Action::Forward { bytes: at..end, segment_bytes: stride, to, tos: arrival.tos });
                }
                Verdict::Receive if train[at] == FrameType::Observe.byte() => {
                    let key = ObserverKey::of(&mirror.keys);
                    if let Err(reason) = observe::answer(&key, from, &train[at..end], reply) {
                        self.drops.count(reason);
                    }
                }
                Verdict::Receive | Verdict::Refuse(..)
                    if self.handed.len() < HANDED_MAX && end - at <= HANDED_BYTES_MAX =>
                {
                    self.handed.push_back(Handed {
                        namespace: mirror.number,
                        remote: from.remote,
                        local: from.local,
                        tos: arrival.tos,
                        datagram: train[at..end].to_vec(),
                    });
                }
                Verdict::Receive | Verdict::Refuse(..) => self.drops.count(DropReason::NoRoom),
                Verdict::Drop(reason) => self.drops.count(reason),
            }
            at = end;
        }
    }

    /// What the mirrors here have forwarded.
    pub fn shares(&self) -> Vec<ShareStatus> {
        let used =
            |(index, place): (u32, &Place)| (place.datagrams > 0).then_some((index, place.datagrams, place.bytes));
        let share = |mirror: &Mirror| ShareStatus {
            namespace: mirror.number,
            datagrams_forwarded: mirror.datagrams,
            bytes_forwarded: mirror.bytes,
            members: mirror.slots.places().filter_map(used).collect(),
        };
        self.mirrors.iter().flatten().map(|mirror| share(mirror)).collect()
    }
}
