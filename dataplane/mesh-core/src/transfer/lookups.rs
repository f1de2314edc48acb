//! Who is it, and who has changed: a gateway asks for the peers it talks to, and is told of changes of those for a term.
//!
//! Changes are numbered for each gateway. None is repeated: a gateway that misses a number asks again. Of an address that
//! changes all the time about one change a second is told, the last one always: each makes a message to every watcher.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::message::{Message, Target};
use mesh_wire::route::Slot;

use super::Transfer;
use super::links::LinkId;
use super::namespace::{Announced, Watching};
use super::timers::Timer;
use crate::drops::DropReason;
use crate::seam::{Moment, SocketId};

/// How long a lookup subscribes to changes.
const TERM: Duration = Duration::from_secs(300);
/// Time between two looks for subscriptions whose term is over.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(120);
/// Addresses that one member is told of. Beyond it a lookup is answered, and has to be repeated to learn of a change.
pub(super) const WATCHING_MAX: usize = 1024;
/// Addresses that all members of a namespace are told of. A member may watch one more while it watches fewer than are left: so
/// there is always room for one that watches few.
pub(super) const WATCHERS_MAX: usize = 262_144;
/// Changes of an address that are told at once: it left, came back, and was started anew.
const ANNOUNCED_AT_ONCE: u32 = 3;
/// The next one is told after this time.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

impl Transfer {
    /// Answers a lookup of the member at `slot`, which came in a datagram of `room` bytes, and subscribes the member.
    pub(super) fn look_up(
        &mut self,
        now: Moment,
        link: LinkId,
        slot: Slot,
        request: u32,
        target: Target,
        room: usize,
    ) -> Result<(), DropReason> {
        let socket = link.socket;
        let space = self.spaces.get_mut(socket).ok_or(DropReason::UnknownSocket)?;
        let found = match target {
            Target::Address(ip4) => space.holder(ip4).and_then(|slot| space.record(slot)),
            Target::Slot(slot) => space.record(slot),
        };
        let watched = match target {
            Target::Address(ip4) => Some(ip4),
            Target::Slot(_) => found.as_ref().map(|peer| peer.ip4),
        };
        // What is sent after this answer has a higher number: should it be overtaken, its reader sees that it is old.
        let change = space.member_at(slot).map_or(0, |member| member.change);
        let answer = match found {
            Some(peer) => Message::Found { request, change, peer },
            None => Message::NotFound { request, target },
        };
        if let (Some(ip4), Some(_)) = (watched, space.members.get(slot.index)) {
            let timers = &mut self.timers;
            let watching = space.watching.entry(slot.index).or_insert_with(|| {
                let timer = now + EXPIRE_INTERVAL;
                timers.set(timer, Timer::Watching(socket, slot.index));
                Watching { until: BTreeMap::new(), timer }
            });
            let (watching, watchers) = (&mut watching.until, &mut space.watchers);
            let has_room =
                |watching: usize, watchers: usize| watching < WATCHING_MAX.min(WATCHERS_MAX.saturating_sub(watchers));
            if !has_room(watching.len(), watchers.len()) && !watching.contains_key(&ip4) {
                drop_expired(now, slot.index, watching, watchers);
            }
            if has_room(watching.len(), watchers.len()) || watching.contains_key(&ip4) {
                watching.insert(ip4, now + TERM);
                watchers.insert((ip4, slot.index));
            }
        }
        self.counters.lookups += 1;
        self.answer(link, &answer, room)
    }

    /// Tells the watchers of `ip4` who holds it now; a little later, if they were told of changes a moment ago.
    pub(super) fn announce(&mut self, socket: SocketId, now: Moment, ip4: Ipv4Addr) {
        let Some(space) = self.spaces.get_mut(socket) else { return };
        match space.announced.get_mut(&ip4) {
            Some(recent) if recent.count >= ANNOUNCED_AT_ONCE => {
                recent.late = true;
                return;
            }
            Some(recent) => recent.count += 1,
            None if space.watchers.range((ip4, 0)..=(ip4, u32::MAX)).next().is_none() => return,
            None => {
                let ends = now + ANNOUNCE_INTERVAL;
                space.announced.insert(ip4, Announced { ends, count: 1, late: false });
                self.timers.set(ends, Timer::Announced(socket, ip4));
            }
        }
        self.tell_watchers(socket, now, ip4);
    }

    /// Changes of `ip4` may be told again: the last one is, if it was not.
    pub(super) fn announced_due(&mut self, now: Moment, socket: SocketId, ip4: Ipv4Addr) {
        let Some(space) = self.spaces.get_mut(socket) else { return };
        if space.announced.remove(&ip4).is_none_or(|recent| !recent.late) {
            return;
        }
        let ends = now + ANNOUNCE_INTERVAL;
        space.announced.insert(ip4, Announced { ends, count: ANNOUNCED_AT_ONCE, late: false });
        self.timers.set(ends, Timer::Announced(socket, ip4));
        self.tell_watchers(socket, now, ip4);
    }

    fn tell_watchers(&mut self, socket: SocketId, now: Moment, ip4: Ipv4Addr) {
        let Some(space) = self.spaces.get_mut(socket) else { return };
        let peer = space.holder(ip4).and_then(|slot| space.record(slot));
        let watchers: Vec<u32> = space.watchers.range((ip4, 0)..=(ip4, u32::MAX)).map(|&(_, index)| index).collect();
        for index in watchers {
            let Some(space) = self.spaces.get_mut(socket) else { return };
            let Some(member) = space.members.get_mut(index) else { continue };
            let until = space.watching.get_mut(&index).map(|watching| &mut watching.until);
            if until.as_ref().and_then(|until| until.get(&ip4)).is_none_or(|until| *until <= now) {
                if let Some(until) = until {
                    until.remove(&ip4);
                }
                space.watchers.remove(&(ip4, index));
                continue;
            }
            // The number counts up even if the message finds no room: then its reader sees the gap.
            member.change = member.change.wrapping_add(1);
            let (link, number) = (LinkId { socket, index: member.link() }, member.change);
            self.say(link, &Message::Change { number, ip4, peer: peer.clone() });
        }
    }

    /// Ends a member's subscriptions whose term is over.
    pub(super) fn watching_due(&mut self, now: Moment, socket: SocketId, index: u32) {
        let Some(space) = self.spaces.get_mut(socket) else { return };
        let Some(watching) = space.watching.get_mut(&index) else { return };
        drop_expired(now, index, &mut watching.until, &mut space.watchers);
        if watching.until.is_empty() {
            space.watching.remove(&index);
        } else {
            watching.timer = now + EXPIRE_INTERVAL;
            self.timers.set(watching.timer, Timer::Watching(socket, index));
        }
    }

    /// Ends all subscriptions of a member.
    pub(super) fn stop_watching(&mut self, socket: SocketId, index: u32) {
        let Some(space) = self.spaces.get_mut(socket) else { return };
        let Some(watching) = space.watching.remove(&index) else { return };
        self.timers.cancel(watching.timer, Timer::Watching(socket, index));
        for ip4 in watching.until.into_keys() {
            space.watchers.remove(&(ip4, index));
        }
    }
}

fn drop_expired(
    now: Moment,
    index: u32,
    watching: &mut BTreeMap<Ipv4Addr, Moment>,
    watchers: &mut BTreeSet<(Ipv4Addr, u32)>,
) {
    watching.retain(|ip4, until| {
        let current = *until > now;
        if !current {
            watchers.remove(&(*ip4, index));
        }
        current
    });
}
