//! Exits: what an endpoint has beside its address and port, held once for all who have the same.
//!
//! A machine has few addresses, so the holders of a namespace's slots share a handful of exits. There are never more of them than
//! holders: one that nobody has any more is vacant.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use crate::seam::Endpoint;

/// Which exit of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExitNumber(NonZeroU16);

/// What endpoints of the same exit have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Exit {
    /// The local address that was asked, where the socket reports it.
    local: Option<IpAddr>,
    /// Scope and flow of the remote address; `None`: it is of IPv4.
    zone: Option<(u32, u32)>,
}

impl Exit {
    fn of(endpoint: &Endpoint) -> Self {
        let zone = match endpoint.remote {
            SocketAddr::V4(_) => None,
            SocketAddr::V6(remote) => Some((remote.scope_id(), remote.flowinfo())),
        };
        Self { local: endpoint.local, zone }
    }
}

/// The exits of one table.
#[derive(Debug, Default)]
pub(super) struct Exits {
    /// By number less one.
    exits: Vec<Shared>,
    numbers: BTreeMap<Exit, ExitNumber>,
    vacant: Vec<ExitNumber>,
}

#[derive(Debug)]
struct Shared {
    /// Some endpoint with this exit: whole, so that another is it with another address and port.
    like: Endpoint,
    /// How many have it.
    holders: u32,
}

impl Exits {
    /// An endpoint with the exit of this number, which somebody has: of the right family, with any address and port.
    pub(super) fn like(&self, number: ExitNumber) -> &Endpoint {
        &self.exits[number.index()].like
    }

    /// The number of the exit of `endpoint`, for one more who has it. At most 65,535 have one at a time.
    pub(super) fn take(&mut self, endpoint: &Endpoint) -> ExitNumber {
        let exit = Exit::of(endpoint);
        if let Some(&number) = self.numbers.get(&exit) {
            self.exits[number.index()].holders += 1;
            return number;
        }
        let shared = Shared { like: *endpoint, holders: 1 };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.exits[number.index()] = shared;
                number
            }
            None => {
                self.exits.push(shared);
                let number = u16::try_from(self.exits.len()).ok().and_then(NonZeroU16::new);
                ExitNumber(number.expect("no more exits than slots"))
            }
        };
        self.numbers.insert(exit, number);
        number
    }

    /// One who had it has it no more.
    pub(super) fn give_back(&mut self, number: ExitNumber) {
        let Shared { like, holders } = &mut self.exits[number.index()];
        *holders -= 1;
        if *holders == 0 {
            self.numbers.remove(&Exit::of(like));
            self.vacant.push(number);
        }
    }
}

impl ExitNumber {
    fn index(self) -> usize {
        usize::from(self.0.get()) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::SocketId;

    fn asked(local: [u8; 4]) -> Endpoint {
        Endpoint { socket: SocketId(0), remote: SocketAddr::from(([203, 0, 113, 7], 5000)), local: Some(local.into()) }
    }

    #[test]
    fn exit_is_held_once_and_its_number_is_used_again() {
        let [first, second, third] = [1, 2, 3].map(|last| asked([192, 0, 2, last]));
        let mut exits = Exits::default();
        let (a, b) = (exits.take(&first), exits.take(&second));
        let elsewhere = Endpoint { remote: SocketAddr::from(([203, 0, 113, 8], 6000)), ..first };
        assert_eq!(exits.take(&elsewhere), a, "the remote address is not part of it");
        exits.give_back(a);
        assert_eq!((exits.like(a), exits.like(b)), (&first, &second), "another still has it");
        exits.give_back(a);
        assert_eq!(exits.take(&third), a);
        assert_eq!((exits.like(a), exits.exits.len(), exits.numbers.len()), (&third, 2, 2));
    }

    #[test]
    fn zones_of_ipv6_and_ipv4_are_told_apart() {
        let mut exits = Exits::default();
        let numbers = ["192.0.2.1:1", "[::]:1", "[fe80::1%3]:1", "[fe80::1%4]:1"].map(|remote| {
            let remote = remote.parse().unwrap();
            let number = exits.take(&Endpoint { socket: SocketId(0), remote, local: None });
            assert_eq!(exits.like(number).remote, remote);
            number
        });
        assert!((1..4).all(|n| !numbers[..n].contains(&numbers[n])));
    }

    #[test]
    fn as_many_as_there_are_slots_find_a_number() {
        let mut exits = Exits::default();
        let all = |n: u16| asked([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
        for n in 1..=u16::MAX {
            exits.take(&all(n));
        }
        let last = exits.numbers[&Exit::of(&all(9))];
        exits.give_back(last);
        assert_eq!(exits.take(&asked([192, 0, 2, 1])), last);
    }
}
