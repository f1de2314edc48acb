//! The gateway's side: which lanes there are, and what went by them.

use std::net::Ipv4Addr;

use rand::Rng as _;

use super::{LaneChange, Outbound, Published, Tally};
use crate::drops::DropReason;
use crate::gateway::Gateway;
use crate::gateway::inside::TEND_INTERVAL;
use crate::gateway::peers::Peer;
use crate::gateway::sealing::SealTo;
use crate::seam::Moment;

impl Gateway {
    /// The half that carries packets from the virtual interface, to be run on a thread of its own. From here on
    /// [`Gateway::poll_lane`] tells what it has to know.
    pub fn outbound(&mut self) -> Outbound {
        self.peers.begin_touching();
        Outbound::new(self.network, self.offloads, std::array::from_fn(|_| self.rng.next_u64()))
    }

    /// What the half that sends has to know since it was last asked, peer by peer. To be asked in each turn, after everything else.
    pub fn poll_lane(&mut self) -> Option<LaneChange> {
        if !self.peers.is_touching() {
            return None;
        }
        let place = (self.relay.place(), self.relay.epoch());
        if self.published_place != place {
            self.published_place = place;
            self.peers.touch_all();
        }
        if let Some(ip4) = self.peers.take_removed() {
            return Some(LaneChange { ip4, lane: None });
        }
        while let Some(id) = self.peers.take_touched() {
            if let Some(change) = self.lane_change(id) {
                return Some(change);
            }
        }
        None
    }

    fn lane_change(&mut self, id: u32) -> Option<LaneChange> {
        let (relay, outer, stopped) = (&self.relay, self.outer, self.stopped);
        let peer = self.peers.get_mut_untouched(id)?;
        let path = peer.path(relay);
        // Packets that wait go first.
        let usable = path.filter(|_| peer.queue.is_empty() && !stopped);
        let session = peer.keyring.as_mut().and_then(|keyring| keyring.sealing());
        let Some((path, session)) = usable.as_ref().zip(session) else {
            let ip4 = peer.ip4;
            return peer.take_published().map(|()| LaneChange { ip4, lane: None });
        };
        let to = SealTo { sealer: session.sealer(), path, fits: peer.paths.whole_bytes(path, outer) };
        if peer.published.as_ref().is_some_and(|published| published.is(&to)) {
            return None;
        }
        let published = Published::new(&to, session.sealer());
        let lane = published.lane();
        _ = peer.take_published();
        peer.published = Some(published);
        Some(LaneChange { ip4: peer.ip4, lane: Some(lane) })
    }

    /// The half that sends has begun to send to a peer.
    pub fn sends_to(&mut self, now: Moment, ip4: Ipv4Addr) {
        let Some(id) = self.peers.find(ip4) else { return };
        if self.collect_sent(now, id) {
            self.peers.timers.by(id, now);
        }
    }

    /// Packets from the virtual interface were lost on their way here: there were too many.
    pub fn note_lost_inside(&mut self, packets: u64) {
        self.drops.count_many(DropReason::QueueFull, packets);
    }

    /// Takes to the books what the half that sends has sent to a peer. Whether there was something.
    pub(in crate::gateway) fn collect_sent(&mut self, now: Moment, id: u32) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let tally = peer.take_tally();
        if tally.packets == 0 {
            return false;
        }
        peer.use_now(now);
        peer.unanswered_since.get_or_insert(now);
        self.relay.used(now);
        true
    }

    /// A peer that nothing was sent to for a while: the next packet is told of.
    pub(in crate::gateway) fn rest_lane(&mut self, now: Moment, id: u32) {
        let peer = self.peers.get_mut_untouched(id);
        if let Some(peer) = peer.filter(|peer| now.since(peer.used_at) >= TEND_INTERVAL)
            && let Some(published) = &peer.published
            && !published.rest()
        {
            self.collect_sent(now, id);
        }
    }
}

impl Peer {
    /// What the half that sends has sent since the last look goes to the books.
    fn take_tally(&mut self) -> Tally {
        let Some(published) = &mut self.published else { return Tally::default() };
        let tally = published.read();
        let path = published.path;
        // Frames are counted modulo 2^32.
        self.paths.note_sent_on(&path, tally.frames as u32);
        self.paths.note_whole(&path, tally.longest);
        self.traffic.packets_out += tally.packets;
        self.traffic.bytes_out += tally.bytes;
        tally
    }

    /// Ends the lane, if there is one.
    fn take_published(&mut self) -> Option<()> {
        self.take_tally();
        self.published.take().map(drop)
    }
}
