//! The slot table: all that the forwarding path reads.
//!
//! It holds who may send from where, and nothing secret, so that it can be mirrored elsewhere by updates.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_wire::route::Slot;
use rand::Rng;

use crate::seam::Endpoint;

/// Most slots of a namespace: index 0 is nobody's.
pub(super) const SLOTS_MAX: usize = 65_535;

/// One place of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Where the holder proved itself; `None`: the place is vacant.
    pub(super) endpoint: Option<Endpoint>,
    /// Which holder of this place.
    pub(super) generation: u16,
    /// Datagrams forwarded from here.
    pub(super) datagrams: u64,
    /// Bytes of those, UDP payload only.
    pub(super) bytes: u64,
}

/// A journal goes with its table: what it held is pending no more.
impl Drop for Journal {
    fn drop(&mut self) {
        self.pending.fetch_sub(self.indexes.len(), Ordering::Relaxed);
    }
}

/// The places of one namespace. An empty table holds no memory.
#[derive(Debug, Default)]
pub(super) struct SlotTable {
    /// By index less one.
    places: Vec<Place>,
    /// Vacant indexes. First in, first out: a place rests as long as possible before it is used again.
    vacant: VecDeque<u32>,
    /// Indexes of places that changed and whose change is not told yet; `None`: nobody wants to know.
    journal: Option<Journal>,
}

/// Changes of a table that are not told yet, and the number of them in all tables of a transfer.
#[derive(Debug)]
struct Journal {
    indexes: VecDeque<u32>,
    pending: Arc<AtomicUsize>,
}

impl SlotTable {
    /// The place of `slot`, where that generation holds it.
    pub(super) fn get(&self, slot: Slot) -> Option<(&Place, &Endpoint)> {
        let place = self.places.get((slot.index as usize).wrapping_sub(1))?;
        let endpoint = place.endpoint.as_ref()?;
        (place.generation == slot.generation).then_some((place, endpoint))
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Place> {
        let place = self.places.get_mut((slot.index as usize).wrapping_sub(1))?;
        (place.endpoint.is_some() && place.generation == slot.generation).then_some(place)
    }

    /// Takes a vacant place for `endpoint`, or `None` when all are held. A place used for the first time starts with a random
    /// generation, so that slots of an earlier start of the transfer are not taken for those of this one.
    pub(super) fn take(&mut self, endpoint: Endpoint, rng: &mut impl Rng) -> Option<Slot> {
        let index = match self.vacant.pop_front() {
            Some(index) => index,
            None if self.places.len() < SLOTS_MAX => {
                let generation = (rng.next_u32() >> 16) as u16;
                self.places.push(Place { endpoint: None, generation, datagrams: 0, bytes: 0 });
                u32::try_from(self.places.len()).expect("at most SLOTS_MAX")
            }
            None => return None,
        };
        let place = &mut self.places[index as usize - 1];
        *place =
            Place { endpoint: Some(endpoint), generation: place.generation.wrapping_add(1), datagrams: 0, bytes: 0 };
        let slot = Slot { index, generation: place.generation };
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
        if let Some(place) = self.get_mut(slot)
            && place.endpoint.replace(endpoint) != Some(endpoint)
        {
            self.changed(slot.index);
        }
    }

    /// Frees a place.
    pub(super) fn free(&mut self, slot: Slot) {
        if let Some(place) = self.get_mut(slot) {
            place.endpoint = None;
            self.vacant.push_back(slot.index);
            self.changed(slot.index);
        }
    }

    /// Notes changes from now on, for [`SlotTable::journaled`]; `pending` is how many of all tables are not told.
    pub(super) fn keep_journal(&mut self, pending: &Arc<AtomicUsize>) {
        self.journal.get_or_insert_with(|| Journal { indexes: VecDeque::new(), pending: Arc::clone(pending) });
    }

    /// The next place that changed, as it is now: who is told of each change in turn knows the table.
    pub(super) fn journaled(&mut self) -> Option<(u32, Place)> {
        let journal = self.journal.as_mut()?;
        let index = journal.indexes.pop_front()?;
        journal.pending.fetch_sub(1, Ordering::Relaxed);
        Some((index, *self.places.get(index as usize - 1)?))
    }

    /// Makes a place of a mirror like that of the home.
    pub(super) fn copy(&mut self, index: u32, generation: u16, endpoint: Option<Endpoint>) {
        let Some(at) = (index as usize).checked_sub(1).filter(|&at| at < SLOTS_MAX) else { return };
        if self.places.len() <= at {
            self.places.resize(at + 1, Place { endpoint: None, generation: 0, datagrams: 0, bytes: 0 });
        }
        let place = &mut self.places[at];
        if place.generation != generation || place.endpoint.is_none() {
            (place.datagrams, place.bytes) = (0, 0);
        }
        (place.endpoint, place.generation) = (endpoint, generation);
    }

    /// All places with their indexes.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, &Place)> {
        (1..).zip(&self.places)
    }

    fn changed(&mut self, index: u32) {
        if let Some(journal) = &mut self.journal {
            journal.indexes.push_back(index);
            journal.pending.fetch_add(1, Ordering::Relaxed);
        }
    }
}
