//! Leave to search: who may send to ports of a peer's public address that nobody has named, and that never many do so at once.
//!
//! A search makes the routers on both sides remember some hundred flows for half a minute, and whoever searches sends to an address that
//! may not be its peer's alone. So it is granted only towards an address where a member of the same namespace is seen at this moment;
//! an address takes part in one search at a time, on whichever side; and the next one waits until what routers remember of it is gone.
//! Namespaces whose homes are other threads are counted there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use mesh_wire::message::{Message, Target};
use mesh_wire::route::Slot;

use super::Transfer;
use super::links::LinkId;
use crate::drops::DropReason;
use crate::seam::Moment;

/// How long a grant lasts.
const GRANT: Duration = Duration::from_secs(8);
/// How long a router remembers a flow of UDP that nobody answered, and some more.
const FORGOTTEN: Duration = Duration::from_secs(35);
/// A search that cannot come to anything may be asked for again after this time: the peer may move.
const NEVER: Duration = Duration::from_secs(300);
/// Addresses that are remembered. While there are more, no further search is granted.
const ADDRESSES_MAX: usize = 8192;

/// The addresses that take part in a search, or did a moment ago, and until when they take part in no other.
#[derive(Debug, Default)]
pub(super) struct Searches(BTreeMap<IpAddr, Moment>);

impl Searches {
    /// Grants a search of `one` for `other`, or tells after which time it may be asked for again.
    fn grant(&mut self, now: Moment, one: IpAddr, other: IpAddr) -> Result<(), Duration> {
        let busy = |ip: &IpAddr| self.0.get(ip).map(|until| until.since(now)).filter(|wait| !wait.is_zero());
        if let Some(wait) = busy(&one).max(busy(&other)) {
            return Err(wait);
        }
        if self.0.len() + 2 > ADDRESSES_MAX {
            self.0.retain(|_, until| *until > now);
            if self.0.len() + 2 > ADDRESSES_MAX {
                return Err(GRANT + FORGOTTEN);
            }
        }
        for ip in [one, other] {
            self.0.insert(ip, now + GRANT + FORGOTTEN);
        }
        Ok(())
    }
}

impl Transfer {
    /// Answers the member at `slot`, which asks in a datagram of `room` bytes for leave to search for a peer.
    pub(super) fn search(
        &mut self,
        now: Moment,
        link: LinkId,
        slot: Slot,
        request: u32,
        target: Target,
        room: usize,
    ) -> Result<(), DropReason> {
        let space = self.spaces.get(link.socket).ok_or(DropReason::UnknownSocket)?;
        let found = match target {
            Target::Address(ip4) => space.holder(ip4).and_then(|slot| space.record(slot)),
            Target::Slot(slot) => space.record(slot),
        };
        let there = found.and_then(|peer| peer.observed);
        let here = space.record(slot).and_then(|member| member.observed);
        // What is translated is IPv4; and two behind one router find each other inside, or not at all.
        let granted = match (here, there) {
            (Some(here), Some(there)) if here.is_ipv4() && there.is_ipv4() && here.ip() != there.ip() => {
                self.searches.grant(now, here.ip(), there.ip()).map(|()| there)
            }
            _ => Err(NEVER),
        };
        let seconds = |time: Duration| u16::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u16::MAX);
        let answer = match granted {
            Ok(target) => Message::SearchGrant { request, target, seconds: seconds(GRANT) },
            Err(wait) => Message::SearchRefused { request, wait_seconds: seconds(wait) },
        };
        self.answer(link, &answer, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(1_000_000_000);

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn an_address_takes_part_in_one_search_at_a_time_on_whichever_side() {
        let mut searches = Searches::default();
        let all = GRANT + FORGOTTEN;
        assert_eq!(searches.grant(START, ip(1), ip(2)), Ok(()));
        for (one, other) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 4), (4, 2)] {
            assert_eq!(searches.grant(START, ip(one), ip(other)), Err(all), "{one} for {other}");
        }
        assert_eq!(searches.grant(START, ip(3), ip(4)), Ok(()), "others are not concerned");
        let late = START + (all - Duration::from_millis(1));
        assert_eq!(searches.grant(late, ip(2), ip(5)), Err(Duration::from_millis(1)));
        assert_eq!(searches.grant(START + all, ip(2), ip(5)), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let mut searches = Searches::default();
        let granted = (0..100_000).filter(|number| searches.grant(START, ip(2 * number), ip(2 * number + 1)).is_ok());
        assert_eq!(granted.count(), ADDRESSES_MAX / 2);
        assert!(searches.grant(START + GRANT + FORGOTTEN, ip(7_000_000), ip(7_000_001)).is_ok());
        assert_eq!(searches.0.len(), 2);
    }
}
