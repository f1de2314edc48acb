//! Who is it, and who has changed: a gateway asks for the peers it talks to, and is told of changes of those for a term.
//!
//! Changes are numbered for each gateway. None is repeated: a gateway that misses a number asks again.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::message::{Message, Target};
use mesh_wire::route::Slot;

use super::Transfer;
use crate::drops::DropReason;
use crate::seam::{Moment, SocketId};

/// How long a lookup subscribes to changes.
const TERM: Duration = Duration::from_secs(300);
/// Addresses that one member is told of. Beyond it a lookup is answered, and has to be repeated to learn of a change.
pub(super) const WATCHING_MAX: usize = 1024;

impl Transfer {
    /// Answers a lookup of the member at `slot`, which came in a datagram of `room` bytes, and subscribes the member.
    #[expect(clippy::too_many_arguments, reason = "who asks, whom for, and how")]
    pub(super) fn look_up(
        &mut self,
        now: Moment,
        link: u32,
        socket: SocketId,
        slot: Slot,
        request: u32,
        target: Target,
        room: usize,
    ) -> Result<(), DropReason> {
        let space = self.spaces.get_mut(socket).ok_or(DropReason::UnknownSocket)?;
        let found = match target {
            Target::Address(ip4) => space.holder(ip4),
            Target::Slot(slot) => space.member_at(slot),
        };
        let watched = match target {
            Target::Address(ip4) => Some(ip4),
            Target::Slot(_) => found.map(|member| member.ip4),
        };
        // What is sent after this answer has a higher number: should it be overtaken, its reader sees that it is old.
        let change = space.member_at(slot).map_or(0, |member| member.change);
        let answer = match found.map(|member| member.record()) {
            Some(peer) => Message::Found { request, change, peer },
            None => Message::NotFound { request, target },
        };
        if let (Some(ip4), Some(member)) = (watched, space.members.get_mut(&slot.index)) {
            if member.watching.len() >= WATCHING_MAX && !member.watching.contains_key(&ip4) {
                let watchers = &mut space.watchers;
                member.watching.retain(|ip4, until| {
                    let current = *until > now;
                    if !current {
                        watchers.remove(&(*ip4, slot.index));
                    }
                    current
                });
            }
            if member.watching.len() < WATCHING_MAX || member.watching.contains_key(&ip4) {
                member.watching.insert(ip4, now + TERM);
                space.watchers.insert((ip4, slot.index));
            }
        }
        self.counters.lookups += 1;
        self.answer(link, &answer, room)
    }

    /// Tells the watchers of `ip4` who holds it now.
    pub(super) fn announce(&mut self, socket: SocketId, now: Moment, ip4: Ipv4Addr) {
        let Some(space) = self.spaces.get_mut(socket) else { return };
        let peer = space.holder(ip4).map(|member| member.record());
        let watchers: Vec<u32> = space.watchers.range((ip4, 0)..=(ip4, u32::MAX)).map(|&(_, index)| index).collect();
        for index in watchers {
            let Some(space) = self.spaces.get_mut(socket) else { return };
            let Some(member) = space.members.get_mut(&index) else { continue };
            if member.watching.get(&ip4).is_none_or(|until| *until <= now) {
                member.watching.remove(&ip4);
                space.watchers.remove(&(ip4, index));
                continue;
            }
            // The number counts up even if the message finds no room: then its reader sees the gap.
            member.change = member.change.wrapping_add(1);
            let (link, number) = (member.link, member.change);
            self.say(link, &Message::Change { number, ip4, peer: peer.clone() });
        }
    }

    /// Ends all subscriptions of a member.
    pub(super) fn stop_watching(&mut self, socket: SocketId, index: u32) {
        let Some(space) = self.spaces.get_mut(socket) else { return };
        let Some(member) = space.members.get_mut(&index) else { return };
        for ip4 in std::mem::take(&mut member.watching).into_keys() {
            space.watchers.remove(&(ip4, index));
        }
    }
}
