//! The slot table: all that the forwarding path reads.
//!
//! It holds who may send from where, and nothing secret, so that it can be mirrored elsewhere by updates. A place is 40 bytes:
//! the table's socket is known, and what most holders have in common of their endpoints is an [exit](super::exits).

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_wire::route::Slot;
use rand::Rng;

use super::exits::{ExitNumber, Exits};
use crate::seam::{Endpoint, SocketId};

/// Most slots of a namespace: index 0 is nobody's.
pub(super) const SLOTS_MAX: usize = 65_535;

/// One place of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Datagrams forwarded from here.
    pub(super) datagrams: u64,
    /// Bytes of those, UDP payload only.
    pub(super) bytes: u64,
    /// Where the holder proved itself.
    ip: Ip,
    port: u16,
    /// Which holder of this place.
    generation: u16,
    /// The rest of its endpoint; `None`: the place is vacant.
    exit: Option<ExitNumber>,
}

impl Place {
    fn vacant(generation: u16) -> Self {
        Self { datagrams: 0, bytes: 0, ip: Ip([0; 2]), port: 0, generation, exit: None }
    }
}

/// An IP address as two words, that of an IPv4 address as it is mapped into IPv6: made and compared in a few instructions. Its
/// family is that of the place's exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ip([u64; 2]);

impl Ip {
    fn of(remote: &SocketAddr) -> Self {
        match remote {
            SocketAddr::V4(remote) => Self::of_v4(*remote.ip()),
            SocketAddr::V6(remote) => Self::of_v6(*remote.ip()),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])])
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let octets = ip.octets();
        let word = |at: usize| octets[at..].first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
        Self([word(0), word(8)])
    }

    fn v4(self) -> Ipv4Addr {
        let [_, _, _, _, a, b, c, d] = self.0[1].to_ne_bytes();
        Ipv4Addr::new(a, b, c, d)
    }

    fn v6(self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.0[0].to_ne_bytes());
        octets[8..].copy_from_slice(&self.0[1].to_ne_bytes());
        Ipv6Addr::from(octets)
    }
}

/// The places of one namespace. An empty table holds no memory.
#[derive(Debug)]
pub(super) struct SlotTable {
    /// By index less one.
    places: Vec<Place>,
    /// The socket of the namespace.
    socket: SocketId,
    exits: Exits,
    /// Vacant indexes. First in, first out: a place rests as long as possible before it is used again.
    vacant: VecDeque<u32>,
    /// Indexes of places that changed and whose change is not told yet; `None`: nobody wants to know.
    journal: Option<Box<Journal>>,
}

/// Changes of a table that are not told yet, and the number of them in all tables of a transfer.
#[derive(Debug)]
struct Journal {
    indexes: VecDeque<u32>,
    pending: Arc<AtomicUsize>,
}

/// A journal goes with its table: what it held is pending no more.
impl Drop for Journal {
    fn drop(&mut self) {
        self.pending.fetch_sub(self.indexes.len(), Ordering::Relaxed);
    }
}

impl SlotTable {
    /// The table of the namespace that `socket` stands for.
    pub(super) fn new(socket: SocketId) -> Self {
        Self { places: Vec::new(), socket, exits: Exits::default(), vacant: VecDeque::new(), journal: None }
    }

    /// The place of `slot`, where that generation holds it.
    pub(super) fn get(&self, slot: Slot) -> Option<&Place> {
        let place = self.places.get((slot.index as usize).wrapping_sub(1))?;
        (place.exit.is_some() && place.generation == slot.generation).then_some(place)
    }

    /// The slot of this index in its generation, if it is held.
    pub(super) fn holder(&self, index: u32) -> Option<Slot> {
        let place = self.places.get((index as usize).wrapping_sub(1))?;
        place.exit.is_some().then_some(Slot { index, generation: place.generation })
    }

    /// Whether the holder of `place` proved itself at `remote`.
    pub(super) fn is_at(&self, place: &Place, remote: &SocketAddr) -> bool {
        match remote {
            SocketAddr::V4(remote) => place.port == remote.port() && place.ip == Ip::of_v4(*remote.ip()),
            SocketAddr::V6(remote) => {
                let in_zone = |exit| match &self.exits.like(exit).remote {
                    SocketAddr::V6(like) => {
                        like.scope_id() == remote.scope_id() && like.flowinfo() == remote.flowinfo()
                    }
                    SocketAddr::V4(_) => false,
                };
                place.port == remote.port() && place.ip == Ip::of_v6(*remote.ip()) && place.exit.is_some_and(in_zone)
            }
        }
    }

    /// Where the holder of `place` proved itself; `None`: it is vacant.
    pub(super) fn endpoint(&self, place: &Place) -> Option<Endpoint> {
        let mut endpoint = *self.exits.like(place.exit?);
        match &mut endpoint.remote {
            SocketAddr::V4(remote) => {
                remote.set_ip(place.ip.v4());
                remote.set_port(place.port);
            }
            SocketAddr::V6(remote) => {
                remote.set_ip(place.ip.v6());
                remote.set_port(place.port);
            }
        }
        Some(endpoint)
    }

    /// Where the holder of `slot` proved itself.
    pub(super) fn endpoint_of(&self, slot: Slot) -> Option<Endpoint> {
        self.endpoint(self.get(slot)?)
    }

    /// Counts what was forwarded from a slot.
    pub(super) fn note(&mut self, source: Slot, datagrams: u64, bytes: u64) {
        // Whoever forwards has just asked for it: its generation is not looked at a second time.
        if let Some(place) = self.places.get_mut((source.index as usize).wrapping_sub(1)) {
            place.datagrams += datagrams;
            place.bytes += bytes;
        }
    }

    /// Takes a vacant place for `endpoint`, or `None` when all are held. A place used for the first time starts with a random
    /// generation, so that slots of an earlier start of the transfer are not taken for those of this one.
    pub(super) fn take(&mut self, endpoint: Endpoint, rng: &mut impl Rng) -> Option<Slot> {
        let index = match self.vacant.pop_front() {
            Some(index) => index,
            None if self.places.len() < SLOTS_MAX => {
                let generation = (rng.next_u32() >> 16) as u16;
                self.make_room(self.places.len() + 1);
                self.places.push(Place::vacant(generation));
                u32::try_from(self.places.len()).expect("at most SLOTS_MAX")
            }
            None => return None,
        };
        let place = &mut self.places[index as usize - 1];
        *place = Place::vacant(place.generation.wrapping_add(1));
        let slot = Slot { index, generation: place.generation };
        self.settle(index, Some(endpoint));
        self.changed(index);
        Some(slot)
    }

    /// Gives a held place its next generation: what is sent to or from the old one is not forwarded any more, and its counts begin
    /// anew.
    pub(super) fn renew(&mut self, slot: Slot) -> Option<Slot> {
        let place = self.get_mut(slot)?;
        place.generation = place.generation.wrapping_add(1);
        (place.datagrams, place.bytes) = (0, 0);
        let renewed = Slot { index: slot.index, generation: place.generation };
        self.changed(slot.index);
        Some(renewed)
    }

    /// Lets the holder's endpoint be `endpoint`.
    pub(super) fn move_to(&mut self, slot: Slot, endpoint: Endpoint) {
        if self.endpoint_of(slot).is_some_and(|at| at != endpoint) {
            self.settle(slot.index, Some(endpoint));
            self.changed(slot.index);
        }
    }

    /// Frees a place.
    pub(super) fn free(&mut self, slot: Slot) {
        if self.get(slot).is_some() {
            self.settle(slot.index, None);
            self.vacant.push_back(slot.index);
            self.changed(slot.index);
        }
    }

    /// Notes changes from now on, for [`SlotTable::journaled`]; `pending` is how many of all tables are not told.
    pub(super) fn keep_journal(&mut self, pending: &Arc<AtomicUsize>) {
        self.journal
            .get_or_insert_with(|| Box::new(Journal { indexes: VecDeque::new(), pending: Arc::clone(pending) }));
    }

    /// The next place that changed, and generation and endpoint of who holds it now: who is told of each change in turn knows
    /// the table.
    pub(super) fn journaled(&mut self) -> Option<(u32, Option<(u16, Endpoint)>)> {
        let journal = self.journal.as_mut()?;
        let index = journal.indexes.pop_front()?;
        journal.pending.fetch_sub(1, Ordering::Relaxed);
        let place = self.places.get(index as usize - 1)?;
        Some((index, self.endpoint(place).map(|endpoint| (place.generation, endpoint))))
    }

    /// Makes a place of a mirror like that of the home.
    pub(super) fn copy(&mut self, index: u32, generation: u16, endpoint: Option<Endpoint>) {
        let Some(at) = (index as usize).checked_sub(1).filter(|&at| at < SLOTS_MAX) else { return };
        if self.places.len() <= at {
            self.make_room(at + 1);
            self.places.resize(at + 1, Place::vacant(0));
        }
        let place = &mut self.places[at];
        if place.generation != generation || place.exit.is_none() {
            (place.datagrams, place.bytes) = (0, 0);
        }
        place.generation = generation;
        self.settle(index, endpoint);
    }

    /// All places with their indexes.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, &Place)> {
        (1..).zip(&self.places)
    }

    /// Makes room for `count` places in all, a few more than that: what is left over is little, and what is
    /// moved is moved seldom.
    fn make_room(&mut self, count: usize) {
        const PLACES_AT_LEAST: usize = 16;
        let places = &mut self.places;
        if places.capacity() < count {
            let room = (places.len() + (places.len() / 32).max(PLACES_AT_LEAST)).min(SLOTS_MAX).max(count);
            places.reserve_exact(room - places.len());
        }
    }

    fn get_mut(&mut self, slot: Slot) -> Option<&mut Place> {
        let place = self.places.get_mut((slot.index as usize).wrapping_sub(1))?;
        (place.exit.is_some() && place.generation == slot.generation).then_some(place)
    }

    /// Writes an endpoint into a place, or none.
    fn settle(&mut self, index: u32, endpoint: Option<Endpoint>) {
        let place = &mut self.places[index as usize - 1];
        // The old exit first: so there are never more of them than places.
        if let Some(number) = place.exit.take() {
            self.exits.give_back(number);
        }
        let Some(endpoint) = endpoint else { return };
        debug_assert_eq!(endpoint.socket, self.socket, "one socket is one namespace");
        place.ip = Ip::of(&endpoint.remote);
        place.port = endpoint.remote.port();
        place.exit = Some(self.exits.take(&endpoint));
    }

    fn changed(&mut self, index: u32) {
        if let Some(journal) = &mut self.journal {
            journal.indexes.push_back(index);
            journal.pending.fetch_add(1, Ordering::Relaxed);
        }
    }
}
