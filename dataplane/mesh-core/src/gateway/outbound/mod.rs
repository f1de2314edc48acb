//! The half of a gateway that carries packets from the virtual interface to the network, on a thread of its own.
//!
//! It knows no handshake, no timer and no path but what it is told: for each peer with a session a [`Lane`], that is a key to seal
//! with and where to send. Whatever it cannot seal at once (no lane, too long, not for a peer) it hands to the [`Gateway`], which
//! deals with it as if it had read it itself. Both seal with the same session, whose counter is handed out atomically; nothing
//! else is shared but counts.
//!
//! [`Gateway`]: super::Gateway

mod lane;
mod publish;

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;

pub use self::lane::{Lane, LaneChange};
pub(super) use self::lane::{Published, Tally};

use super::ip::{Network, Whereto};
use super::sealing::{self, Packet};
use crate::drops::DropReason;
use crate::node::Node;
use crate::seam::{Action, Arrival, Moment, Offloads, Origin, Slab, SocketId};
use crate::session::jobs::{Done, Job};

/// What the gateway has to hear of.
#[derive(Debug)]
pub enum OutboundEvent {
    /// Packets go to this peer, for the first time in a while: see [`Gateway::sends_to`](super::Gateway::sends_to).
    Sends(Ipv4Addr),
    /// A packet as it was read, for the gateway to deal with.
    Packet(Box<[u8]>),
}

/// The half of a gateway that seals what comes from the virtual interface. Made by [`Gateway::outbound`](super::Gateway::outbound).
#[derive(Debug)]
pub struct Outbound {
    network: Network,
    offloads: Offloads,
    lanes: HashMap<Ipv4Addr, Lane, ahash::RandomState>,
    events: VecDeque<OutboundEvent>,
}

impl Outbound {
    pub(super) fn new(network: Network, offloads: Offloads, [a, b, c, d]: [u64; 4]) -> Self {
        let lanes = HashMap::with_hasher(ahash::RandomState::with_seeds(a, b, c, d));
        Self { network, offloads, lanes, events: VecDeque::new() }
    }

    /// What the gateway told of a peer.
    pub fn change(&mut self, change: LaneChange) {
        match change.lane {
            Some(lane) => self.lanes.insert(change.ip4, lane),
            None => self.lanes.remove(&change.ip4),
        };
    }

    /// A socket of the engine's is closed: what went by it is the gateway's to send, until it tells of another lane.
    pub fn forget_socket(&mut self, socket: SocketId) {
        self.lanes.retain(|_, lane| lane.socket() != socket);
    }

    /// What the gateway has to hear of, oldest first. At most two for each packet taken: to be emptied in each turn.
    pub fn poll_event(&mut self) -> Option<OutboundEvent> {
        self.events.pop_front()
    }

    /// Seals a packet, if that is all there is to do about it.
    fn seal(&mut self, bytes: &mut [u8], slab: &mut Slab<'_>, actions: &mut Vec<Action>) -> Result<(), DropReason> {
        let mut packet = Packet::read(bytes, self.offloads)?;
        let inner = *packet.inner();
        if !self.network.belongs_to(inner.source, self.network.ip4()) {
            return Err(DropReason::SourceNotOurs);
        }
        let Whereto::Peer(ip4) = self.network.whereto(inner.destination) else { return Err(DropReason::OutOfNetwork) };
        let lane = self.lanes.get(&ip4).ok_or(DropReason::UnknownSession)?;
        let sealed = sealing::seal(&lane.seal_to(), &mut packet, slab, actions)?;
        if lane.count(sealed, packet.len()) {
            self.events.push_back(OutboundEvent::Sends(ip4));
        }
        Ok(())
    }
}

impl Node for Outbound {
    fn handle(
        &mut self,
        _: Moment,
        arrival: &Arrival,
        bytes: &mut [u8],
        slab: &mut Slab<'_>,
        actions: &mut Vec<Action>,
    ) {
        debug_assert_eq!(arrival.origin, Origin::Inside, "its sockets only send");
        if self.seal(bytes, slab, actions).is_err() {
            // Why, the gateway finds out again, counts, and tells the sender where that is due.
            self.events.push_back(OutboundEvent::Packet((&*bytes).into()));
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        None
    }

    fn handle_timeout(&mut self, _: Moment) {}

    fn poll_transmit(&mut self, _: Moment, _: &mut Slab<'_>) -> Option<Action> {
        None
    }

    fn poll_job(&mut self) -> Option<Job> {
        None
    }

    fn handle_job(&mut self, _: Moment, _: Done) {}
}
