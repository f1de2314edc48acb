//! Links: the control sessions with gateways, one for each finished handshake.
//!
//! A link that serves no member is a guest: it ends by itself, a while after the last time it asked for an address. Guests are
//! bounded: beyond [`GUESTS_KEPT`] of a namespace none stays longer for asking, beyond [`GUESTS_MAX`] none that was refused stays.

use std::time::Duration;

use mesh_wire::message::Message;
use mesh_wire::route::{Route, Slot};
use mesh_wire::sealed::{HEADER_BYTES, SealedHeader};
use mesh_wire::{TAG_BYTES, frame::FrameType};

use super::Transfer;
use super::handshake::HANDSHAKE_LIFE;
use super::limits::SmallBucket;
use super::namespace::Namespace;
use super::timers::Timer;
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment, SocketId};
use crate::session::PublicKey;
use crate::session::aead::RawKeys;
use crate::session::replay::SmallWindow;

/// Control messages at once from one gateway, and the time for each more: 200 a second. A gateway that joins looks up whom it
/// talks to.
const MESSAGES_BURST: u32 = 1000;
const MESSAGE_MILLIS: u32 = 5;

/// Most messages under one key, far beyond what a session sends between two rekeys.
const COUNTER_MAX: u32 = 1 << 28;

/// Links of a namespace without a member that stay as long as they ask.
const GUESTS_KEPT: usize = 1024;
/// Links of a namespace without a member.
const GUESTS_MAX: usize = 4096;

/// Which link: the socket of its namespace, and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId {
    pub(super) socket: SocketId,
    pub(super) index: u32,
}

/// A control session. Keys are kept as they were derived and expanded for each message: links are many and mostly quiet.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) state: LinkState,
    pub(super) keys: RawKeys,
}

/// What changes of a link, and what it is called. Apart from the keys, as both fit together where many are kept.
#[derive(Debug)]
pub(super) struct LinkState {
    /// What the other side may still ask.
    pub(super) rate: SmallBucket<MESSAGE_MILLIS, MESSAGES_BURST>,
    /// What the other side calls it when it writes to us.
    pub(super) index: u32,
    /// What we call it when we write.
    peer_index: u32,
    sent: u32,
    window: SmallWindow,
}

/// A link that no member is told things on: its gateway was refused or displaced, or has another one by now.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) link: Link,
    /// Who is at the other end.
    pub(super) key: PublicKey,
    /// Where it proved itself.
    pub(super) endpoint: Endpoint,
    /// The slot of the member it served; [`Slot::NONE`] if it never did.
    pub(super) slot: Slot,
    /// When it ends.
    pub(super) ends: Moment,
}

/// A link and whose it is.
pub(super) struct Party<'a> {
    pub(super) state: &'a mut LinkState,
    keys: &'a RawKeys,
    /// Who is at the other end.
    pub(super) key: PublicKey,
    /// Where it proved itself.
    pub(super) endpoint: Endpoint,
    /// The slot of the member it serves or served; [`Slot::NONE`] if it never did.
    pub(super) slot: Slot,
    /// Whether the member is told things on it.
    pub(super) serves: bool,
}

/// A control message that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    /// The message; `None`: of a kind that is not known.
    pub(super) message: Option<Message>,
    /// No later one was opened before.
    pub(super) newest: bool,
}

impl Link {
    pub(super) fn new(now: Moment, index: u32, peer_index: u32, keys: RawKeys) -> Self {
        let rate = SmallBucket::new(now);
        Self { state: LinkState { rate, index, peer_index, sent: 0, window: SmallWindow::new() }, keys }
    }
}

impl Party<'_> {
    /// Seals a message, or `None` when the keys are used up.
    pub(super) fn seal(&mut self, message: &Message) -> Option<Vec<u8>> {
        if self.state.sent >= COUNTER_MAX {
            return None;
        }
        let counter = u64::from(self.state.sent);
        self.state.sent += 1;
        let header = SealedHeader {
            frame: FrameType::Control,
            flags: 0,
            route: Route::DIRECT,
            receiver_index: self.state.peer_index,
            counter,
        }
        .emit();
        let mut datagram = Vec::with_capacity(256);
        datagram.extend_from_slice(&header);
        message.encode(&mut datagram);
        let tag = self.keys.seal(counter, &header, &mut datagram[HEADER_BYTES..]);
        datagram.extend_from_slice(&tag);
        Some(datagram)
    }

    /// Seals an answer to a request that came in a datagram of `room` bytes.
    ///
    /// # Errors
    /// [`DropReason::Unpadded`] when the answer would be longer.
    pub(super) fn seal_answer(&mut self, message: &Message, room: usize) -> Result<Vec<u8>, DropReason> {
        // The counter of an answer that is not sent is lost, and nothing else.
        let sealed = self.seal(message).ok_or(DropReason::PastLimit)?;
        if sealed.len() > room { Err(DropReason::Unpadded) } else { Ok(sealed) }
    }

    /// Opens a control frame, in place.
    pub(super) fn open(&mut self, header: &SealedHeader, datagram: &mut [u8]) -> Result<Opened, DropReason> {
        self.state.window.check(header.counter).map_err(|_| DropReason::Replayed)?;
        debug_assert!(datagram.len() >= HEADER_BYTES + TAG_BYTES, "`SealedHeader::parse` saw to it");
        let (associated, body) = datagram.split_at_mut(HEADER_BYTES);
        let length = self.keys.open(header.counter, associated, body).map_err(|_| DropReason::NotAuthentic)?;
        let newest = header.counter >= self.state.window.next();
        self.state.window.commit(header.counter);
        let message = Message::decode(&body[..length]).map_err(|_| DropReason::Malformed)?;
        Ok(Opened { message, newest })
    }
}

impl Namespace {
    /// The link of this index, and whose it is.
    pub(super) fn party(&mut self, index: u32) -> Option<Party<'_>> {
        if let Some(place) = self.members.by_link(index) {
            let slot = self.slots.holder(place)?;
            let endpoint = self.slots.endpoint_of(slot)?;
            let member = self.members.get_mut(place)?;
            let key = *member.key();
            let (state, keys) = member.link_mut();
            return Some(Party { state, keys, key, endpoint, slot, serves: true });
        }
        let Guest { link: Link { state, keys }, key, endpoint, slot, .. } = &mut **self.guests.get_mut(&index)?;
        Some(Party { state, keys, key: *key, endpoint: *endpoint, slot: *slot, serves: false })
    }

    /// Whether there is a link of this index.
    pub(super) fn has_link(&self, index: u32) -> bool {
        self.members.by_link(index).is_some() || self.guests.contains_key(&index)
    }

    /// Whoever is at the other end of a link has proven itself at `endpoint`.
    pub(super) fn link_is_at(&mut self, index: u32, endpoint: Endpoint) {
        if let Some(guest) = self.guests.get_mut(&index) {
            guest.endpoint = endpoint;
        } else if let Some(slot) = self.members.by_link(index).and_then(|place| self.slots.holder(place)) {
            self.slots.move_to(slot, endpoint);
        }
    }

    /// Control sessions: one for each member, and guests.
    pub(super) fn links(&self) -> usize {
        self.members.len() + self.guests.len()
    }
}

impl Transfer {
    /// The link, and whose it is.
    pub(super) fn party(&mut self, id: LinkId) -> Option<Party<'_>> {
        self.spaces.get_mut(id.socket)?.party(id.index)
    }

    /// Adds a guest, who leaves after `life`.
    pub(super) fn add_guest(
        &mut self,
        now: Moment,
        life: Duration,
        link: Link,
        key: PublicKey,
        endpoint: Endpoint,
        slot: Slot,
    ) {
        let id = LinkId { socket: endpoint.socket, index: link.state.index };
        let Some(space) = self.spaces.get_mut(id.socket) else { return };
        let ends = now + life;
        space.guests.insert(id.index, Box::new(Guest { link, key, endpoint, slot, ends }));
        self.timers.set(ends, Timer::Link(id));
    }

    /// Takes a guest's link, to serve a member or to end.
    pub(super) fn take_guest(&mut self, id: LinkId) -> Option<Link> {
        let mut guest = self.spaces.get_mut(id.socket)?.guests.remove(&id.index)?;
        self.timers.cancel(guest.ends, Timer::Link(id));
        let keys = guest.link.keys.take();
        Some(Link { state: guest.link.state, keys })
    }

    /// A guest has asked again: it may stay, unless there are too many.
    pub(super) fn extend_stay(&mut self, now: Moment, id: LinkId) {
        let Some(space) = self.spaces.get_mut(id.socket) else { return };
        let count = space.guests.len();
        if let Some(guest) = space.guests.get_mut(&id.index)
            && count <= GUESTS_KEPT
        {
            let before = std::mem::replace(&mut guest.ends, now + HANDSHAKE_LIFE);
            self.timers.cancel(before, Timer::Link(id));
            self.timers.set(now + HANDSHAKE_LIFE, Timer::Link(id));
        }
    }

    /// Whether a link that has served a member may stay for a while as a guest.
    pub(super) fn has_guest_room(&self, socket: SocketId) -> bool {
        self.spaces.get(socket).is_some_and(|space| space.guests.len() < GUESTS_KEPT)
    }

    /// A link was refused: if it is a guest and there are too many, it ends.
    pub(super) fn dismiss_guest(&mut self, id: LinkId) {
        if self.spaces.get(id.socket).is_some_and(|space| space.guests.len() > GUESTS_MAX) {
            self.take_guest(id);
        }
    }
}
