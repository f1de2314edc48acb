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
use super::limits::Bucket;
use super::timers::Timer;
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment};
use crate::session::PublicKey;
use crate::session::aead::RawKeys;
use crate::session::replay::SmallWindow;

/// Control messages each second from one gateway, and at once. A gateway that joins looks up whom it talks to.
const MESSAGES_PER_SECOND: u32 = 200;
const MESSAGES_BURST: u32 = 1000;

/// Most messages under one key, far beyond what a session sends between two rekeys.
const COUNTER_MAX: u64 = 1 << 28;

/// Links of a namespace without a member that stay as long as they ask.
const GUESTS_KEPT: usize = 1024;
/// Links of a namespace without a member.
const GUESTS_MAX: usize = 4096;

/// A control session. Keys are kept as they were derived and expanded for each message: links are many and mostly quiet.
#[derive(Debug)]
pub(super) struct Link {
    /// Who is at the other end.
    pub(super) key: PublicKey,
    /// Where it proved itself; its socket stands for the namespace.
    pub(super) endpoint: Endpoint,
    /// The slot of the member this link serves; [`Slot::NONE`] while it serves none.
    pub(super) slot: Slot,
    /// When it ends, unless a member holds it.
    pub(super) ends: Option<Moment>,
    /// What the other side may still ask.
    pub(super) rate: Bucket,
    peer_index: u32,
    keys: RawKeys,
    window: SmallWindow,
    sent: u64,
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
    pub(super) fn new(key: PublicKey, endpoint: Endpoint, peer_index: u32, keys: RawKeys) -> Self {
        Self {
            key,
            endpoint,
            slot: Slot::NONE,
            ends: None,
            rate: Bucket::new(MESSAGES_PER_SECOND, MESSAGES_BURST),
            peer_index,
            keys,
            window: SmallWindow::new(),
            sent: 0,
        }
    }

    /// Seals a message, or `None` when the keys are used up.
    pub(super) fn seal(&mut self, message: &Message) -> Option<Vec<u8>> {
        if self.sent >= COUNTER_MAX {
            return None;
        }
        let counter = self.sent;
        self.sent += 1;
        let header = SealedHeader {
            frame: FrameType::Control,
            flags: 0,
            route: Route::DIRECT,
            receiver_index: self.peer_index,
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
        self.window.check(header.counter).map_err(|_| DropReason::Replayed)?;
        debug_assert!(datagram.len() >= HEADER_BYTES + TAG_BYTES, "`SealedHeader::parse` saw to it");
        let (associated, body) = datagram.split_at_mut(HEADER_BYTES);
        let length = self.keys.open(header.counter, associated, body).map_err(|_| DropReason::NotAuthentic)?;
        let newest = header.counter >= self.window.next();
        self.window.commit(header.counter);
        let message = Message::decode(&body[..length]).map_err(|_| DropReason::Malformed)?;
        Ok(Opened { message, newest })
    }
}

impl Transfer {
    /// Adds the link of a handshake that has just finished. It is a guest until a member holds it.
    pub(super) fn add_link(&mut self, now: Moment, index: u32, link: Link) {
        self.links.insert(index, link);
        self.retire(now, index, HANDSHAKE_LIFE);
    }

    /// Lets a link serve a member, for as long as that holds it.
    pub(super) fn adopt(&mut self, index: u32, slot: Slot) {
        if let Some(link) = self.links.get_mut(&index) {
            link.slot = slot;
        }
        self.keep_link(index);
    }

    /// Ends a link after `life`.
    pub(super) fn retire(&mut self, now: Moment, index: u32, life: Duration) {
        self.keep_link(index);
        if life.is_zero() {
            self.links.remove(&index);
            return;
        }
        let Some(link) = self.links.get_mut(&index) else { return };
        link.ends = Some(now + life);
        self.timers.set(now + life, Timer::Link(index));
        if let Some(space) = self.spaces.get_mut(link.endpoint.socket) {
            space.guests += 1;
        }
    }

    /// Ends a link now.
    pub(super) fn end_link(&mut self, index: u32) {
        self.keep_link(index);
        self.links.remove(&index);
    }

    /// A guest has asked again: it may stay, unless there are too many.
    pub(super) fn extend_link(&mut self, now: Moment, index: u32) {
        if self.guests_beside(index).is_some_and(|guests| guests <= GUESTS_KEPT) {
            self.retire(now, index, HANDSHAKE_LIFE);
        }
    }

    /// A link was refused: if it is a guest and there are too many, it ends.
    pub(super) fn dismiss_guest(&mut self, index: u32) {
        if self.guests_beside(index).is_some_and(|guests| guests > GUESTS_MAX) {
            self.end_link(index);
        }
    }

    /// How many guests there are where this link is one.
    fn guests_beside(&self, index: u32) -> Option<usize> {
        let link = self.links.get(&index).filter(|link| link.ends.is_some())?;
        self.spaces.get(link.endpoint.socket).map(|space| space.guests)
    }

    /// Takes back that a link ends.
    fn keep_link(&mut self, index: u32) {
        let Some(link) = self.links.get_mut(&index) else { return };
        let Some(ends) = link.ends.take() else { return };
        self.timers.cancel(ends, Timer::Link(index));
        if let Some(space) = self.spaces.get_mut(link.endpoint.socket) {
            space.guests -= 1;
        }
    }
}
