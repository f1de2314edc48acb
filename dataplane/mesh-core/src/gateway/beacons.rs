//! Beacons: gateways of one namespace find each other on a local network, with no transfer at all.
//!
//! A beacon tells the members of the namespace who is there and at which port, and outsiders nothing. It proves nothing of its
//! sender's address: what it says is a place to begin a handshake at, when there is a packet for that peer and no better way.
//! Beacons are few: three soon after the start and after each change of the network, then one every 20 seconds. Whoever hears one
//! of a sender that is new answers it alone, so that both know of each other at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_wire::beacon::Beacon;
use mesh_wire::message::Message;

use super::local::{self, BeaconSocket};
use super::outside::reason;
use super::paths::is_place;
use super::peers::Claim;
use super::timers::Bucket;
use super::{Gateway, Outgoing};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment, SocketId};
use crate::session::beacon::{self, Sealer};

/// Pauses after the first beacons, and between later ones.
const FIRST_PAUSES: [Duration; 3] = [Duration::from_millis(700), Duration::from_millis(1500), Duration::from_secs(5)];
const PAUSE: Duration = Duration::from_secs(20);
/// Interfaces and families that beacons go out by, at most.
const SOCKETS_MAX: usize = 32;
/// Senders that are remembered at once, and for how long.
const SENDERS_MAX: usize = 1024;
const SENDER_TIME: Duration = Duration::from_secs(120);
/// Beacons that are opened each second, and at once.
const OPENED_PER_SECOND: u32 = 200;
const OPENED_BURST: u32 = 400;
/// Answers to new senders each second, and at once.
const ANSWERS_PER_SECOND: u32 = 20;
const ANSWERS_BURST: u32 = 100;

/// Between two handshakes with one peer because of what beacons say.
const HINT_INTERVAL: Duration = Duration::from_secs(1);
/// A peer that answered on a straight path so lately has not begun anew.
const ALIVE_TIME: Duration = Duration::from_secs(2);

/// A sender that was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    counter: u64,
    at: Moment,
}

/// Beacons sent and heard.
#[derive(Debug)]
pub(super) struct Beacons {
    sealer: Sealer,
    /// Where they come and go.
    sockets: local::Beacons,
    sent: usize,
    next_at: Option<Moment>,
    heard: HashMap<[u8; 16], Heard, ahash::RandomState>,
    opened: Bucket,
    answers: Bucket,
}

impl Beacons {
    pub(super) fn new(now: Moment, sealer: Sealer, [a, b, c, d]: [u64; 4]) -> Self {
        Self {
            sealer,
            sockets: local::Beacons::default(),
            sent: 0,
            next_at: None,
            heard: HashMap::with_hasher(ahash::RandomState::with_seeds(d, c, b, a)),
            opened: Bucket::new(now, OPENED_PER_SECOND, OPENED_BURST),
            answers: Bucket::new(now, ANSWERS_PER_SECOND, ANSWERS_BURST),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.next_at
    }

    /// Notes a beacon. Whether its sender is new.
    ///
    /// # Errors
    /// [`DropReason::Replayed`] when a later one of the same start was heard, [`DropReason::Busy`] when too many senders are known.
    fn note(&mut self, now: Moment, sender: &[u8; 16], counter: u64) -> Result<bool, DropReason> {
        if let Some(heard) = self.heard.get_mut(sender) {
            if counter <= heard.counter {
                return Err(DropReason::Replayed);
            }
            let new = now.since(heard.at) >= SENDER_TIME;
            *heard = Heard { counter, at: now };
            return Ok(new);
        }
        if self.heard.len() >= SENDERS_MAX {
            self.heard.retain(|_, heard| now.since(heard.at) < SENDER_TIME);
            if self.heard.len() >= SENDERS_MAX {
                return Err(DropReason::Busy);
            }
        }
        self.heard.insert(*sender, Heard { counter, at: now });
        Ok(true)
    }
}

impl Gateway {
    /// Other sockets serve for beacons from now on; those before were closed. With none, there are no beacons.
    pub fn set_beacons(&mut self, now: Moment, sockets: local::Beacons) {
        let beacons = &mut self.beacons;
        beacons.sockets = sockets;
        beacons.sockets.sending.truncate(SOCKETS_MAX);
        self.begin_beacons(now);
    }

    /// The sockets for beacons.
    pub fn beacons(&self) -> &local::Beacons {
        &self.beacons.sockets
    }

    /// Whether a socket is for beacons alone.
    pub(super) fn is_for_beacons(&self, socket: SocketId) -> bool {
        let sockets = &self.beacons.sockets;
        let main = [self.sockets.ipv4, self.sockets.ipv6].contains(&Some(socket));
        !main && (sockets.hearing.contains(&socket) || sockets.sending.iter().any(|one| one.socket == socket))
    }

    /// Beacons begin anew: somebody else may be there.
    pub(super) fn begin_beacons(&mut self, now: Moment) {
        self.beacons.sent = 0;
        self.beacons.next_at = (self.takes_straight && !self.beacons.sockets.sending.is_empty()).then_some(now);
        self.tend_beacons(now);
    }

    /// Sends beacons when they are due.
    pub(super) fn tend_beacons(&mut self, now: Moment) {
        if self.stopped || self.beacons.next_at.is_none_or(|at| at > now) {
            return;
        }
        let pause = FIRST_PAUSES.get(self.beacons.sent).copied().unwrap_or(PAUSE);
        self.beacons.sent = self.beacons.sent.saturating_add(1);
        self.beacons.next_at = Some(now + pause);
        for number in 0..self.beacons.sockets.sending.len() {
            let BeaconSocket { socket, to, .. } = self.beacons.sockets.sending[number];
            self.send_beacon(Endpoint { socket, remote: to, local: None });
        }
    }

    fn send_beacon(&mut self, to: Endpoint) {
        let (v4, v6) = self.sockets.ports;
        let port = if to.remote.is_ipv4() { v4 } else { v6 };
        if port == 0 {
            return;
        }
        let presence =
            Message::Presence { ip4: self.network.ip4(), key: *self.static_key.public(), boot: self.boot, port };
        let bytes = self.beacons.sealer.seal(&presence.to_vec());
        self.push(Outgoing::Send { bytes, to });
    }

    /// Takes a beacon.
    pub(super) fn handle_beacon(&mut self, now: Moment, from: &Endpoint, datagram: &[u8]) -> Result<(), DropReason> {
        if !self.takes_straight {
            return Err(DropReason::UnexpectedType);
        }
        let beacon = Beacon::parse(datagram).map_err(reason)?;
        if beacon.sender == *self.beacons.sealer.sender() {
            // Our own, which the network brings back.
            return Ok(());
        }
        if !self.local.iter().any(|local| local.is_neighbour(from.remote.ip())) {
            // The socket that answers come to is open to the whole Internet.
            return Err(DropReason::UnknownEndpoint);
        }
        if !self.beacons.opened.take(now) {
            return Err(DropReason::RateLimited);
        }
        let message = beacon::open(&self.keys, &beacon).map_err(|_| DropReason::WrongToken)?;
        let Ok(Some(Message::Presence { ip4, key, boot, port })) = Message::decode(&message) else {
            return Err(DropReason::Malformed);
        };
        let remote = SocketAddr::new(from.remote.ip(), port);
        if !self.can_be_peer(ip4) || !is_place(&remote) {
            return Err(DropReason::WrongEndpoint);
        }
        let endpoint = self.sockets.endpoint(remote).ok_or(DropReason::UnknownEndpoint)?;
        let new = self.beacons.note(now, &beacon.sender, beacon.counter)?;
        let id = self.peers.find_or_add(ip4, now).ok_or(DropReason::TooManyPeers)?;
        let peer = self.peers.get_mut(id).ok_or(DropReason::TooManyPeers)?;
        let restarted = peer.boot().is_some_and(|known| known != boot) && !peer.paths.is_alive(now, ALIVE_TIME);
        if !peer.claim(Claim { key, boot, endpoint: Some(endpoint), at: now, proven: false }) {
            return Err(DropReason::Impostor);
        }
        if peer.has_session() {
            self.add_path(now, id, &endpoint);
        }
        if restarted
            && let Some(peer) = self.peers.get_mut(id)
            && peer.has_session()
            && peer.asking.is_none()
            && peer.ask_at.is_none_or(|at| at <= now)
        {
            // A hint, as it may be a recording: the session stays until there is another one, and there are few.
            peer.ask_at = Some(now + HINT_INTERVAL);
            self.ask(now, id);
        }
        if new && self.beacons.answers.take(now) {
            self.send_beacon(endpoint);
        }
        self.tend_peer(now, id);
        Ok(())
    }
}
