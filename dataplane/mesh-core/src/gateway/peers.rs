//! The peer table: who is known, in which state, and what waits for them. All of it bounded.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::message::PeerRecord;
use mesh_wire::route::Slot;

use super::handshake::Asking;
use super::local::LocalAddress;
use super::outbound::Published;
use super::paths::{Exchange, Path, PathChoice, PathKind, Paths, PeerSearch};
use super::relay::Relay;
use super::timers::Timers;
use crate::seam::{Endpoint, Moment};
use crate::session::PublicKey;
use crate::session::keyring::Keyring;

/// Peers that are known at once: a whole /16.
pub(super) const PEERS_MAX: usize = 65_536;
/// Packets that wait for one peer's session.
pub(super) const QUEUE_PACKETS_MAX: usize = 32;
/// Packets that wait in all.
pub(super) const QUEUED_PACKETS_MAX: usize = 1024;
/// How long a packet waits.
pub(super) const QUEUE_TIME: Duration = Duration::from_secs(5);
/// How long it is remembered that nobody holds an address.
pub(super) const ABSENT_TIME: Duration = Duration::from_secs(2);
/// Lookups each second, and at once: a thousand peers are found within three seconds. With those below it is less than the
/// transfer lets one member ask, which has to do for everything.
pub(super) const LOOKUPS_PER_SECOND: u32 = 140;
pub(super) const LOOKUPS_BURST: u32 = 640;
/// The same, to learn who is at a slot that a handshake came from.
pub(super) const SLOT_LOOKUPS_PER_SECOND: u32 = 40;
pub(super) const SLOT_LOOKUPS_BURST: u32 = 256;
/// A lookup subscribes for 300 s; it is renewed before that.
pub(super) const LOOKUP_RENEWED: Duration = Duration::from_secs(240);
/// How long it counts what a peer says of itself on our own network.
pub(super) const CLAIM_TIME: Duration = Duration::from_secs(120);
/// After the transfer was restarted, or a session died, a peer that it does not know may still be on its way back.
pub(super) const ABSENT_GRACE: Duration = Duration::from_secs(5);

/// What a peer says of itself, under the token's keys alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) key: PublicKey,
    pub(super) boot: u64,
    /// Where it was heard.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) at: Moment,
    /// Whether a handshake has shown, or the transfer has said, that it has the key. In a beacon anybody can name any.
    pub(super) proven: bool,
}

/// A packet that waits for a session.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) since: Moment,
    pub(super) bytes: Box<[u8]>,
}

/// A question to the transfer that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup {
    /// Its number.
    pub(super) request: u32,
    /// How often it was asked.
    pub(super) attempt: u32,
    /// When it is asked, or asked again.
    pub(super) next_at: Moment,
}

/// Counters of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) packets_in: u64,
    pub(super) bytes_in: u64,
    pub(super) packets_out: u64,
    pub(super) bytes_out: u64,
}

/// Probing of a session under which nothing came back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probing {
    /// Probes sent.
    pub(super) sent: u32,
    /// When the next one is due, or the session is given up.
    pub(super) next_at: Moment,
}

/// What the gateway knows of one virtual address.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) ip4: Ipv4Addr,
    /// What the transfer vouches for; `None`: not known, or nobody.
    pub(super) record: Option<PeerRecord>,
    /// What it says of itself, where nobody vouches for it.
    claimed: Option<Claim>,
    /// Somebody who says to be it waits for the transfer's word.
    pub(super) called: bool,
    /// Which start of the transfer, counted by us, the record's slot belongs to.
    pub(super) transfer_epoch: u32,
    /// When the record was last told.
    pub(super) learned_at: Option<Moment>,
    /// Number of the last change of it that was told.
    pub(super) changed: Option<u32>,
    /// Changes may have been missed: ask again when convenient.
    pub(super) refresh: bool,
    pub(super) lookup: Option<Lookup>,
    /// Until then nobody holds the address.
    pub(super) absent_until: Option<Moment>,
    /// Since when the address was looked for in vain, while it may still come back.
    pub(super) missing_since: Option<Moment>,
    pub(super) keyring: Option<Keyring>,
    pub(super) asking: Option<Asking>,
    /// When our next handshake may begin: after a failure, or while the peer's own is under way.
    pub(super) ask_at: Option<Moment>,
    /// We gave way to a handshake of the peer's that has not come to an end. Not twice: it may be a recording.
    pub(super) yielded: bool,
    /// The last handshake with it ended because there is no cipher in common.
    pub(super) no_common_cipher: bool,
    /// The newest handshake of the peer's that came to an end: the peer's start, and its number there. Older ones are recordings.
    pub(super) hello: Option<(u64, u64)>,
    pub(super) queue: VecDeque<Queued>,
    pub(super) traffic: Traffic,
    /// Last inner packet in either direction.
    pub(super) used_at: Moment,
    /// First packet sent since the last one came.
    pub(super) unanswered_since: Option<Moment>,
    pub(super) received_at: Option<Moment>,
    pub(super) probing: Option<Probing>,
    /// Whether [`super::Event::PeerUp`] was told and not yet [`super::Event::PeerDown`].
    pub(super) up: bool,
    /// Numbers the packets that go as halves.
    pub(super) half_id: u16,
    /// The first half of the packet that waits longest was sent.
    pub(super) half_sent: bool,
    /// When a Confirm was last repeated.
    pub(super) confirmed_at: Option<Moment>,
    /// What the half that sends knows of it.
    pub(super) published: Option<Published>,
    /// Whether it is on the list of those that may have changed.
    touched: bool,
    /// The ways to it.
    pub(super) paths: Paths,
    /// What it and we know of each other's places.
    pub(super) exchange: Exchange,
    /// What came of searches for a way to it.
    pub(super) search: PeerSearch,
}

impl Peer {
    fn new(ip4: Ipv4Addr, choice: PathChoice, now: Moment) -> Self {
        Self {
            ip4,
            record: None,
            claimed: None,
            called: false,
            transfer_epoch: 0,
            learned_at: None,
            changed: None,
            refresh: false,
            lookup: None,
            absent_until: None,
            missing_since: None,
            keyring: None,
            asking: None,
            ask_at: None,
            yielded: false,
            no_common_cipher: false,
            hello: None,
            queue: VecDeque::new(),
            traffic: Traffic::default(),
            used_at: now,
            unanswered_since: None,
            received_at: None,
            probing: None,
            up: false,
            half_id: 0,
            half_sent: false,
            confirmed_at: None,
            published: None,
            touched: false,
            paths: Paths::new(choice, now),
            exchange: Exchange::default(),
            search: PeerSearch::default(),
        }
    }

    /// The slot it is reached at.
    pub(super) fn slot(&self) -> Option<Slot> {
        self.record.as_ref().map(|record| record.slot)
    }

    /// The key that is vouched for; else the one that it showed first.
    pub(super) fn key(&self) -> Option<&PublicKey> {
        let claimed = self.claimed.as_ref().map(|claim| &claim.key);
        self.record.as_ref().map(|record| &record.key).or(claimed)
    }

    /// The start of it that is known.
    pub(super) fn boot(&self) -> Option<u64> {
        let claimed = self.claimed.as_ref().map(|claim| claim.boot);
        self.record.as_ref().map(|record| record.boot).or(claimed)
    }

    /// Notes another start of it.
    pub(super) fn set_boot(&mut self, boot: u64) {
        if let Some(record) = &mut self.record {
            record.boot = boot;
        }
        if let Some(claim) = &mut self.claimed {
            claim.boot = boot;
        }
    }

    pub(super) fn claimed(&self) -> Option<&Claim> {
        self.claimed.as_ref()
    }

    /// Whether the holder of a key may be it, who shows that it has the key (`proven`), or only names it: unless another key is
    /// known to be it, one that is vouched for, or that came first and was heard of late.
    pub(super) fn may_be(&self, now: Moment, key: &PublicKey, proven: bool) -> bool {
        if self.key().is_none_or(|known| known == key) {
            return true;
        }
        let gives_way = |claimed: &Claim| proven && !claimed.proven || now.since(claimed.at) >= CLAIM_TIME;
        self.record.is_none() && !self.has_session() && self.claimed.as_ref().is_some_and(gives_way)
    }

    /// It says who it is. `false` when it may not be. Where it is not told, it is where it was.
    pub(super) fn claim(&mut self, claim: Claim) -> bool {
        if !self.may_be(claim.at, &claim.key, claim.proven) {
            return false;
        }
        if self.key().is_some_and(|key| *key != claim.key) {
            self.claimed = None;
            self.keyring = None;
            self.hello = None;
        }
        let (endpoint, proven) = self.claimed.as_ref().map_or((None, false), |known| (known.endpoint, known.proven));
        self.claimed = Some(Claim { endpoint: claim.endpoint.or(endpoint), proven: claim.proven || proven, ..claim });
        true
    }

    /// A handshake has shown that it has the key that it is known by.
    pub(super) fn prove_claim(&mut self) {
        if let Some(claim) = &mut self.claimed {
            claim.proven = true;
        }
    }

    /// Nobody answered who has the key that it is known by: if that was only named, others may name theirs.
    pub(super) fn doubt_claim(&mut self) {
        self.claimed.take_if(|claim| !claim.proven);
    }

    /// Its endpoints have moved to other sockets, as `adopt` does it; those for which it is false are gone. Whether the path that
    /// carried is among them.
    pub(super) fn adopt(&mut self, mut adopt: impl FnMut(&mut Endpoint) -> bool) -> bool {
        if let Some(claim) = &mut self.claimed
            && let Some(endpoint) = &mut claim.endpoint
            && !adopt(endpoint)
        {
            claim.endpoint = None;
        }
        let carried = self.paths.carrying().is_some();
        self.paths.adopt(adopt);
        carried && self.paths.carrying().is_none()
    }

    /// What it said of itself counts no more.
    pub(super) fn forget_claim(&mut self) {
        self.claimed = None;
    }

    /// The path that a message of a handshake takes, which was sent `turn` times: through the relay, if that is there, and in turn
    /// where it was heard of late, as one of them may lead nowhere; else where it was heard last.
    pub(super) fn path_of_handshakes(
        &self,
        now: Moment,
        relay: &Relay,
        local: &[LocalAddress],
        turn: u32,
    ) -> Option<Path> {
        // Whoever is to be reached by the relay alone is not even asked elsewhere.
        let claim = self.claimed.as_ref().filter(|_| self.paths.choice() != PathChoice::Relay);
        let claimed = |claim: &Claim| {
            let endpoint = claim.endpoint?;
            Some(Path::straight(PathKind::of(&endpoint, local), endpoint))
        };
        let carrying = self.paths.carrying().copied();
        if relay.is_healthy()
            && let Some(relayed) = self.relayed(relay)
        {
            let of_late = claim.filter(|claim| now.since(claim.at) < CLAIM_TIME).and_then(claimed);
            return carrying.or(of_late).filter(|_| !turn.is_multiple_of(2)).or(Some(relayed));
        }
        carrying.or_else(|| claim.and_then(claimed)).or_else(|| self.relayed(relay))
    }

    /// Whether a handshake of this start and number is older than one that came to an end.
    pub(super) fn is_outdated(&self, boot: u64, number: u64) -> bool {
        self.hello.is_some_and(|(newest_boot, newest)| newest_boot == boot && number <= newest)
    }

    /// The path that carries packets to it.
    pub(super) fn path(&self, relay: &Relay) -> Option<Path> {
        match self.paths.carrying() {
            Some(straight) => Some(*straight),
            None if !self.paths.choice().allows(PathKind::Relay) => None,
            None => self.relayed(relay),
        }
    }

    /// The path that messages to it take: through the relay even where packets may not.
    pub(super) fn path_of_messages(&self, relay: &Relay) -> Option<Path> {
        self.paths.carrying().copied().or_else(|| self.relayed(relay))
    }

    /// The path through the relay.
    pub(super) fn relayed(&self, relay: &Relay) -> Option<Path> {
        // Slots of an earlier start of the transfer mean nothing.
        if self.transfer_epoch == relay.epoch() { relay.path_to(self) } else { None }
    }

    /// Whether packets can be sealed for it.
    pub(super) fn has_session(&self) -> bool {
        self.keyring.as_ref().is_some_and(|keyring| keyring.current().is_some())
    }
}

/// All peers. A peer is named by its place, which stays as long as it is known.
#[derive(Debug)]
pub(super) struct Peers {
    places: Vec<Option<Box<Peer>>>,
    vacant: Vec<u32>,
    by_ip4: HashMap<Ipv4Addr, u32, ahash::RandomState>,
    by_slot: HashMap<Slot, u32, ahash::RandomState>,
    /// When each is to be looked at next.
    pub(super) timers: Timers,
    /// Packets that wait, of all peers.
    pub(super) queued: usize,
    /// Peers to whom a path without a relay carries.
    pub(super) straight: u32,
    touching: Touching,
    choice: PathChoice,
    pins: HashMap<Ipv4Addr, PathChoice>,
}

impl Peers {
    /// No peers. `seeds` key the hashes: whoever chooses addresses must not choose collisions. `choice` is for all but those with
    /// a pin.
    pub(super) fn new([a, b, c, d]: [u64; 4], choice: PathChoice, pins: Vec<(Ipv4Addr, PathChoice)>) -> Self {
        Self {
            places: Vec::new(),
            vacant: Vec::new(),
            by_ip4: HashMap::with_hasher(ahash::RandomState::with_seeds(a, b, c, d)),
            by_slot: HashMap::with_hasher(ahash::RandomState::with_seeds(b, a, d, c)),
            timers: Timers::default(),
            queued: 0,
            straight: 0,
            touching: Touching::default(),
            choice,
            pins: pins.into_iter().collect(),
        }
    }

    pub(super) fn get(&self, id: u32) -> Option<&Peer> {
        self.places.get(id as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Peer> {
        let peer = self.places.get_mut(id as usize)?.as_deref_mut()?;
        self.touching.note(id, peer);
        Some(peer)
    }

    /// The same, by somebody who changes nothing that the half which sends has to know.
    pub(super) fn get_mut_untouched(&mut self, id: u32) -> Option<&mut Peer> {
        self.places.get_mut(id as usize)?.as_deref_mut()
    }

    pub(super) fn find(&self, ip4: Ipv4Addr) -> Option<u32> {
        self.by_ip4.get(&ip4).copied()
    }

    /// The peer in a slot of the transfer, of its present start.
    pub(super) fn find_slot(&self, slot: Slot) -> Option<u32> {
        self.by_slot.get(&slot).copied()
    }

    /// The peer with this address, made if need be; `None` when the table is full.
    pub(super) fn find_or_add(&mut self, ip4: Ipv4Addr, now: Moment) -> Option<u32> {
        if let Some(id) = self.find(ip4) {
            return Some(id);
        }
        let choice = self.pins.get(&ip4).copied().unwrap_or(self.choice);
        let peer = Some(Box::new(Peer::new(ip4, choice, now)));
        let id = match self.vacant.pop() {
            Some(id) => {
                self.places[id as usize] = peer;
                id
            }
            None if self.places.len() < PEERS_MAX => {
                self.places.push(peer);
                u32::try_from(self.places.len() - 1).expect("at most 65,536 peers")
            }
            None => return None,
        };
        self.by_ip4.insert(ip4, id);
        Some(id)
    }

    /// Forgets a peer that has no session, handshake or packet left.
    pub(super) fn remove(&mut self, id: u32) {
        self.set_record(id, None);
        if let Some(peer) = self.places.get_mut(id as usize).and_then(Option::take) {
            self.by_ip4.remove(&peer.ip4);
            self.queued -= peer.queue.len();
            self.straight -= u32::from(peer.paths.carrying().is_some());
            self.timers.clear(id);
            self.vacant.push(id);
            if peer.published.is_some() {
                self.touching.removed.push(peer.ip4);
            }
        }
    }

    /// Sets what is vouched for a peer, and where it is found by slot.
    pub(super) fn set_record(&mut self, id: u32, record: Option<PeerRecord>) {
        let Some(peer) = self.places.get_mut(id as usize).and_then(Option::as_deref_mut) else { return };
        self.touching.note(id, peer);
        if let Some(old) = peer.slot()
            && self.by_slot.get(&old) == Some(&id)
        {
            self.by_slot.remove(&old);
        }
        if let Some(record) = &record {
            self.by_slot.insert(record.slot, id);
        }
        peer.record = record;
    }

    /// A slot is a peer's no more.
    pub(super) fn forget_slot(&mut self, id: u32, slot: Slot) {
        if self.by_slot.get(&slot) == Some(&id) {
            self.by_slot.remove(&slot);
        }
    }

    /// Slots of an earlier start of the transfer mean nothing.
    pub(super) fn forget_slots(&mut self) {
        self.by_slot.clear();
    }

    /// Whether a change of this address was told that is newer than the change `number`.
    pub(super) fn has_changed_since(&self, ip4: Ipv4Addr, number: u32) -> bool {
        let changed = self.find(ip4).and_then(|id| self.get(id)).and_then(|peer| peer.changed);
        // Numbers wrap around.
        changed.is_some_and(|changed| (1..=u32::MAX / 2).contains(&changed.wrapping_sub(number)))
    }

    /// The numbers of changes so far mean nothing any more.
    pub(super) fn forget_changes(&mut self) {
        for peer in self.places.iter_mut().flatten() {
            peer.changed = None;
        }
    }

    /// All peers, in order of their places.
    pub(super) fn ids(&self) -> Vec<u32> {
        (0..).zip(&self.places).filter(|(_, peer)| peer.is_some()).map(|(id, _)| id).collect()
    }

    /// All peers, in order of their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.places.iter().flatten().map(|peer| &**peer)
    }

    /// Whether there is room for one more packet to wait for this peer.
    pub(super) fn has_room_to_wait(&self, id: u32) -> bool {
        self.queued < QUEUED_PACKETS_MAX && self.get(id).is_some_and(|peer| peer.queue.len() < QUEUE_PACKETS_MAX)
    }

    /// Lets a packet wait; the caller saw that there is room.
    pub(super) fn enqueue(&mut self, id: u32, now: Moment, packet: &[u8]) {
        if let Some(peer) = self.get_mut(id) {
            peer.queue.push_back(Queued { since: now, bytes: packet.into() });
            self.queued += 1;
        }
    }

    /// The packet of a peer that waits longest.
    pub(super) fn dequeue(&mut self, id: u32) -> Option<Queued> {
        let packet = self.get_mut(id)?.queue.pop_front()?;
        self.queued -= 1;
        Some(packet)
    }
}

/// Which peers may have changed since the half that sends was told of them.
#[derive(Debug, Default)]
struct Touching {
    /// Whether anybody asks.
    wanted: bool,
    /// Each once.
    touched: Vec<u32>,
    /// Those that it was told of, and that are forgotten.
    removed: Vec<Ipv4Addr>,
}

impl Touching {
    fn note(&mut self, id: u32, peer: &mut Peer) {
        if self.wanted && !peer.touched {
            peer.touched = true;
            self.touched.push(id);
        }
    }
}

impl Peers {
    /// From here on it is noted who may have changed.
    pub(super) fn begin_touching(&mut self) {
        self.touching.wanted = true;
        self.touch_all();
    }

    /// Whether it is noted who may have changed.
    pub(super) fn is_touching(&self) -> bool {
        self.touching.wanted
    }

    /// Notes that everybody may have changed.
    pub(super) fn touch_all(&mut self) {
        for (id, peer) in (0..).zip(&mut self.places) {
            if let Some(peer) = peer {
                self.touching.note(id, peer);
            }
        }
    }

    /// One that may have changed since this last told of it.
    pub(super) fn take_touched(&mut self) -> Option<u32> {
        let id = self.touching.touched.pop()?;
        // Its place may be empty, or another's by now: that one is touched too.
        if let Some(peer) = self.get_mut_untouched(id) {
            peer.touched = false;
        }
        Some(id)
    }

    /// One that was told of and is forgotten.
    pub(super) fn take_removed(&mut self) -> Option<Ipv4Addr> {
        self.touching.removed.pop()
    }
}
