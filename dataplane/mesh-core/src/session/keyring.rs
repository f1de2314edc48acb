//! The sessions of one peer, and the change from one to the next without losing a packet.
//!
//! A session goes through these hands:
//! 1. **next**: its keys open packets, but nothing is sealed with them yet. The initiator waits for the responder's Confirm (or
//!    any packet under the session), as before that the responder may not have the keys. The responder waits for the
//!    initiator's first packet. Either [promotes](Keyring::promote) it; a responder also does so after [`PATIENCE`], because
//!    the Final alone proved that the initiator has the keys.
//! 2. **current**: we seal with it. Where there is no current session a new one is current at once: it displaces nothing.
//! 3. **previous**: it opens what was still on its way, for [`PREVIOUS_LIFE`].
//!
//! Both sides may have begun a handshake at the same time. Then both sessions may come to be, and both sides must settle on the
//! same one: the one begun by the lower static key. The other one only receives.

use std::sync::Arc;
use std::time::Duration;

use super::PublicKey;
use super::aead::{OpenError, OpeningKey, RawKeys, TAG_BYTES};
use super::cipher::Cipher;
use super::replay::{Replayed, Window};
use super::sealer::Sealer;
use crate::seam::Moment;

/// Age at which the initiator of a session makes a new one; the responder waits [`RESPONDER_WAITS`] longer.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// What the responder of a session leaves the initiator to begin.
pub const RESPONDER_WAITS: Duration = Duration::from_secs(10);
/// Packets, of either direction, at which the initiator of a session makes a new one.
pub const REKEY_PACKETS: u64 = 1 << 27;
/// Packets at which the responder does, should the initiator not have: half way from there to the end.
pub const RESPONDER_REKEY_PACKETS: u64 = REKEY_PACKETS + (PACKETS_MAX - REKEY_PACKETS) / 2;
/// Packets after which nothing more is sealed or opened with a session.
pub const PACKETS_MAX: u64 = 1 << 28;
/// How long a session that was replaced still opens packets.
pub const PREVIOUS_LIFE: Duration = Duration::from_secs(10);
/// How long a responder waits for the first packet under a new session before it uses it anyway. Much less than
/// [`PREVIOUS_LIFE`], after which the initiator may have dropped the old one.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long an initiator waits for the Confirm of a new session before it gives it up.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// Two sessions begun by different sides within this time are of simultaneous handshakes.
pub const SIMULTANEOUS: Duration = Duration::from_secs(3);

const _: () = assert!(PATIENCE.as_secs() < PREVIOUS_LIFE.as_secs());
const _: () = assert!(REKEY_PACKETS < PACKETS_MAX);

/// Why a packet was not accepted under a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It came before, or too late to tell.
    Replayed(Replayed),
    /// Its counter lies beyond [`PACKETS_MAX`].
    PastLimit,
    /// It could not be opened.
    Unopened(OpenError),
}

/// Keys of both directions, agreed with a peer.
#[derive(Debug)]
pub struct Established {
    local_index: u32,
    cipher: Cipher,
    initiator: bool,
    created: Moment,
    sealer: Arc<Sealer>,
    opening: OpeningKey,
    window: Window,
}

impl Established {
    /// A session with the keys of a handshake that ended now. `local_index` is what the peer writes into packets to us,
    /// `remote_index` what we write into packets to it; `initiator` says whether we began the handshake.
    pub fn new(local_index: u32, remote_index: u32, initiator: bool, keys: &RawKeys, now: Moment) -> Self {
        Self {
            local_index,
            cipher: keys.cipher(),
            initiator,
            created: now,
            sealer: Arc::new(Sealer::new(remote_index, keys.sealing_key())),
            opening: keys.opening_key(),
            window: Window::new(),
        }
    }

    /// The index by which the peer names this session.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index by which we name this session to the peer.
    pub fn remote_index(&self) -> u32 {
        self.sealer.remote_index()
    }

    /// What seals its packets, to be shared with another thread.
    pub fn sealer(&self) -> &Arc<Sealer> {
        &self.sealer
    }

    /// The cipher in use.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Whether we began the handshake.
    pub fn initiator(&self) -> bool {
        self.initiator
    }

    /// When the handshake ended.
    pub fn created(&self) -> Moment {
        self.created
    }

    /// Packets sealed so far.
    pub fn sent(&self) -> u64 {
        self.sealer.sent()
    }

    /// See [`Sealer::reserve`].
    pub fn reserve(&self, packets: u64) -> Option<u64> {
        self.sealer.reserve(packets)
    }

    /// See [`Sealer::seal`].
    pub fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        self.sealer.seal(counter, header, body)
    }

    /// Opens a packet in place: the counter is checked, the packet authenticated, and the counter remembered, so that the same
    /// packet is refused next time, be it in the same train. Returns the length of the plaintext.
    pub fn open(&mut self, counter: u64, header: &[u8], body_and_tag: &mut [u8]) -> Result<usize, Refused> {
        if counter >= PACKETS_MAX {
            return Err(Refused::PastLimit);
        }
        self.window.check(counter).map_err(Refused::Replayed)?;
        let length = self.opening.open(counter, header, body_and_tag).map_err(Refused::Unopened)?;
        self.window.commit(counter);
        Ok(length)
    }

    /// One more than the highest counter that was authenticated: a packet whose counter is at least this is the newest.
    pub fn newest(&self) -> u64 {
        self.window.next()
    }
}

/// Which hand a session is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// We seal with it.
    Current,
    /// It opens what is still on its way.
    Previous,
    /// It opens, and waits to be [promoted](Keyring::promote) by the first authenticated packet.
    Next,
}

/// What became of a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Installed {
    /// We seal with it from here on.
    Current,
    /// It waits for its first packet.
    Next,
    /// It lost against a simultaneous handshake of our own: it opens packets for a while. Do not confirm it: should the peer,
    /// against all appearances, not have our session, it will try again and then be the only one.
    ReceiveOnly,
    /// It lost against a simultaneous handshake of the peer's and is gone. Do not send its Final.
    Discarded,
}

/// Local indices of sessions that are gone, to be released. At most four at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released([Option<u32>; 4]);

impl Released {
    fn add(&mut self, session: Option<Box<Established>>) {
        let Some(session) = session else { return };
        let free = self.0.iter_mut().find(|index| index.is_none()).expect("a keyring holds no more than four sessions");
        *free = Some(session.local_index);
    }
}

impl IntoIterator for Released {
    type Item = u32;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<u32>, 4>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// A session that only receives, and until when.
#[derive(Debug)]
struct Retired {
    session: Box<Established>,
    until: Moment,
}

/// All sessions with one peer.
#[derive(Debug)]
pub struct Keyring {
    /// Whether handshakes that we begin win over simultaneous ones of the peer.
    lower: bool,
    current: Option<Box<Established>>,
    next: Option<Box<Established>>,
    /// Two, for the one case of a simultaneous handshake during a change of keys. The older is the first.
    previous: [Option<Retired>; 2],
}

impl Keyring {
    /// An empty one, between our static key and the peer's.
    pub fn new(local: &PublicKey, remote: &PublicKey) -> Self {
        Self { lower: local < remote, current: None, next: None, previous: [None, None] }
    }

    /// Takes a session of which we are the initiator. Install it before the Final is sent.
    ///
    /// Without a current session it is current at once, and packets may follow the Final. During a change of keys the old
    /// session is used until the peer is heard under the new one, so that nothing that overtakes the Final, or follows a lost
    /// one, is lost.
    pub fn install_initiator(&mut self, session: Established, now: Moment) -> (Installed, Released) {
        debug_assert!(session.initiator, "the initiator's session");
        self.install(session, now)
    }

    /// Takes a session of which we are the responder, when its Final was read. It displaces nothing: while there is a current
    /// session, that one is used until the peer is heard under the new one.
    ///
    /// A peer that is known to have started anew (another boot number in its Identity) has none of the old sessions: then
    /// [`Keyring::clear`] comes first.
    pub fn install_responder(&mut self, session: Established, now: Moment) -> (Installed, Released) {
        debug_assert!(!session.initiator, "the responder's session");
        self.install(session, now)
    }

    fn install(&mut self, session: Established, now: Moment) -> (Installed, Released) {
        let mut released = Released::default();
        let session = Box::new(session);
        if self.current.is_none() {
            self.current = Some(session);
            return (Installed::Current, released);
        }
        let preferred = session.initiator == self.lower;
        if !preferred && self.has_rival(&session) {
            if session.initiator {
                released.add(Some(session));
                return (Installed::Discarded, released);
            }
            // The peer may be sending under it until it hears of ours.
            self.retire(session, now, &mut released);
            return (Installed::ReceiveOnly, released);
        }
        if let Some(displaced) = self.next.replace(session) {
            // It never was ours to send with, but the peer may have begun to.
            self.retire(displaced, now, &mut released);
        }
        (Installed::Next, released)
    }

    /// Whether a session that the other side began at the same time is in use or about to be.
    fn has_rival(&self, session: &Established) -> bool {
        [&self.current, &self.next].into_iter().flatten().any(|other| {
            let apart = session.created.since(other.created).max(other.created.since(session.created));
            other.initiator != session.initiator && apart < SIMULTANEOUS
        })
    }

    /// The session to seal with; `None` when a handshake is needed first, or the last one is used up.
    pub fn sealing(&mut self) -> Option<&mut Established> {
        self.current.as_deref_mut().filter(|session| !session.sealer.is_used_up())
    }

    /// The session that waits for its first packet. A responder seals its Confirm with it, and nothing else. (Where the Confirm
    /// is repeated, the session may have changed hands: [`Keyring::opening`] finds it by its index.)
    pub fn pending(&mut self) -> Option<&mut Established> {
        self.next.as_deref_mut()
    }

    /// The session that the peer names by `local_index`, to [open](Established::open) a packet with. When that succeeds and it
    /// is [`Slot::Next`], call [`Keyring::promote`].
    pub fn opening(&mut self, local_index: u32) -> Option<(&mut Established, Slot)> {
        let [older, newer] = &mut self.previous;
        let previous = [newer, older].into_iter().flatten().map(|retired| (&mut *retired.session, Slot::Previous));
        let current = self.current.as_deref_mut().map(|session| (session, Slot::Current));
        let next = self.next.as_deref_mut().map(|session| (session, Slot::Next));
        current.into_iter().chain(next).chain(previous).find(|(session, _)| session.local_index == local_index)
    }

    /// A packet was authenticated under the next session: seal with it from here on.
    ///
    /// An initiator should answer at once with a packet under the new session, an empty one if there is no other, so that the
    /// responder changes too.
    pub fn promote(&mut self, now: Moment) -> Released {
        let mut released = Released::default();
        if let Some(next) = self.next.take()
            && let Some(old) = self.current.replace(next)
        {
            self.retire(old, now, &mut released);
        }
        released
    }

    /// Does what time asks for: drops previous sessions, uses or gives up one that waited too long. Call it when
    /// [`Keyring::next_timeout`] is due.
    pub fn expire(&mut self, now: Moment) -> Released {
        let mut released = Released::default();
        if let Some(next) = &self.next {
            let age = now.since(next.created);
            if !next.initiator && age >= PATIENCE {
                released = self.promote(now);
            } else if next.initiator && age >= CONFIRM_WITHIN {
                released.add(self.next.take());
            }
        }
        for place in &mut self.previous {
            if let Some(retired) = place.take_if(|retired| retired.until <= now) {
                released.add(Some(retired.session));
            }
        }
        released
    }

    /// When [`Keyring::expire`] has something to do.
    pub fn next_timeout(&self) -> Option<Moment> {
        let next = self.next.iter().map(|next| next.created + if next.initiator { CONFIRM_WITHIN } else { PATIENCE });
        let previous = self.previous.iter().flatten().map(|retired| retired.until);
        next.chain(previous).min()
    }

    /// Whether it is time for a new handshake: the current session has reached its age or its number of packets, and no newer
    /// one is waiting. The side that began the session is asked first; the other one, should nothing happen, a little later.
    pub fn needs_rekey(&self, now: Moment) -> bool {
        let Some(current) = &self.current else { return false };
        if self.next.is_some() {
            return false;
        }
        let (age, packets) = if current.initiator {
            (REKEY_AFTER, REKEY_PACKETS)
        } else {
            (REKEY_AFTER + RESPONDER_WAITS, RESPONDER_REKEY_PACKETS)
        };
        now.since(current.created) >= age || current.sent().max(current.window.next()) >= packets
    }

    /// When [`Keyring::needs_rekey`] will say yes for age, if nothing changes.
    pub fn rekey_at(&self) -> Option<Moment> {
        if self.next.is_some() {
            return None;
        }
        let current = self.current.as_ref()?;
        Some(current.created + REKEY_AFTER + if current.initiator { Duration::ZERO } else { RESPONDER_WAITS })
    }

    /// The session we seal with, to look at.
    pub fn current(&self) -> Option<&Established> {
        self.current.as_deref()
    }

    /// Whether nothing can be opened.
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.next.is_none() && self.previous.iter().all(Option::is_none)
    }

    /// Drops every session, because the peer closed or is gone.
    pub fn clear(&mut self) -> Released {
        let mut released = Released::default();
        released.add(self.current.take());
        released.add(self.next.take());
        for place in &mut self.previous {
            released.add(place.take().map(|retired| retired.session));
        }
        released
    }

    /// Keeps `session` for receiving only; the oldest such session makes room.
    fn retire(&mut self, session: Box<Established>, now: Moment, released: &mut Released) {
        let retired = Retired { session, until: now + PREVIOUS_LIFE };
        let [older, newer] = &mut self.previous;
        if newer.is_some() {
            let evicted = std::mem::replace(older, newer.take());
            released.add(evicted.map(|retired| retired.session));
        }
        *newer = Some(retired);
    }
}

#[cfg(test)]
mod tests;
