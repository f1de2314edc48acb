//! Session indexes: what others write into the frames they send us.
//!
//! An index is a place in a table with random high bits, so that finding its owner is an array access and a comparison, and an
//! index of an earlier start, or of an earlier holder of the place, hits nothing.

use std::collections::VecDeque;

use rand::Rng;

/// Bits that name the place.
const PLACE_BITS: u32 = 18;
const PLACES_MAX: usize = 1 << PLACE_BITS;

/// Whose an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A session of this peer.
    Session(u32),
    /// Our handshake with this peer, before its session exists.
    Asking(u32),
    /// A peer's handshake with us: its place among [`super::answers::Answers`].
    Answering(u32),
    /// Our handshake with the transfer, and the session it made, until that is in use.
    Registering,
    /// The session with the transfer.
    Control,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    index: u32,
    owner: Option<Owner>,
}

/// All session indexes of a gateway.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    places: Vec<Place>,
    /// First in, first out: a place rests as long as possible.
    vacant: VecDeque<u32>,
}

impl Indexes {
    /// A new index for `owner`; `None` when all are taken.
    pub(super) fn allocate(&mut self, owner: Owner, rng: &mut impl Rng) -> Option<u32> {
        let place = match self.vacant.pop_front() {
            Some(place) => place,
            None if self.places.len() < PLACES_MAX => {
                self.places.push(Place { index: 0, owner: None });
                u32::try_from(self.places.len() - 1).expect("at most 2^18 places")
            }
            None => return None,
        };
        let index = rng.next_u32() << PLACE_BITS | place;
        self.places[place as usize] = Place { index, owner: Some(owner) };
        Some(index)
    }

    /// Whose `index` is.
    pub(super) fn owner(&self, index: u32) -> Option<Owner> {
        let place = self.places.get(place(index))?;
        if place.index == index { place.owner } else { None }
    }

    /// Gives `index`, which is taken, to another owner.
    pub(super) fn hand_over(&mut self, index: u32, owner: Owner) {
        if let Some(place) = self.places.get_mut(place(index))
            && place.index == index
            && place.owner.is_some()
        {
            place.owner = Some(owner);
        }
    }

    /// Frees `index`.
    pub(super) fn release(&mut self, index: u32) {
        let at = place(index);
        if let Some(place) = self.places.get_mut(at)
            && place.index == index
            && place.owner.take().is_some()
        {
            self.vacant.push_back(u32::try_from(at).expect("at most 2^18 places"));
        }
    }

    /// How many are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.places.iter().filter(|place| place.owner.is_some()).count()
    }
}

const fn place(index: u32) -> usize {
    (index & ((1 << PLACE_BITS) - 1)) as usize
}
