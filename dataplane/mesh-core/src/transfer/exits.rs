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

/// From which of our addresses, and for IPv6 into which zone, datagrams leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Exit {
    /// The local address that was asked, where the socket reports it.
    pub(super) local: Option<IpAddr>,
    /// Of the remote address; zero for IPv4.
    pub(super) scope_id: u32,
    /// Of the remote address; zero for IPv4.
    pub(super) flowinfo: u32,
}

impl Exit {
    /// The exit to an endpoint.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let (scope_id, flowinfo) = match endpoint.remote {
            SocketAddr::V4(_) => (0, 0),
            SocketAddr::V6(remote) => (remote.scope_id(), remote.flowinfo()),
        };
        Self { local: endpoint.local, scope_id, flowinfo }
    }
}

/// The exits of one table, each with how many have it.
#[derive(Debug, Default)]
pub(super) struct Exits {
    /// By number less one.
    exits: Vec<(Exit, u32)>,
    numbers: BTreeMap<Exit, ExitNumber>,
    vacant: Vec<ExitNumber>,
}

impl Exits {
    /// The exit of this number, which somebody has.
    pub(super) fn get(&self, number: ExitNumber) -> &Exit {
        &self.exits[number.index()].0
    }

    /// The number of `exit`, for one more who has it. At most 65,535 have one at a time.
    pub(super) fn take(&mut self, exit: Exit) -> ExitNumber {
        if let Some(&number) = self.numbers.get(&exit) {
            self.exits[number.index()].1 += 1;
            return number;
        }
        let number = match self.vacant.pop() {
            Some(number) => {
                self.exits[number.index()] = (exit, 1);
                number
            }
            None => {
                self.exits.push((exit, 1));
                let number = u16::try_from(self.exits.len()).ok().and_then(NonZeroU16::new);
                ExitNumber(number.expect("no more exits than slots"))
            }
        };
        self.numbers.insert(exit, number);
        number
    }

    /// One who had it has it no more.
    pub(super) fn give_back(&mut self, number: ExitNumber) {
        let (exit, uses) = &mut self.exits[number.index()];
        *uses -= 1;
        if *uses == 0 {
            self.numbers.remove(exit);
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

    fn exit(last: u8) -> Exit {
        Exit { local: Some(IpAddr::from([192, 0, 2, last])), scope_id: 0, flowinfo: 0 }
    }

    #[test]
    fn exit_is_held_once_and_its_number_is_used_again() {
        let mut exits = Exits::default();
        let (a, b) = (exits.take(exit(1)), exits.take(exit(2)));
        assert_eq!(exits.take(exit(1)), a);
        exits.give_back(a);
        assert_eq!((exits.get(a), exits.get(b)), (&exit(1), &exit(2)), "another still has it");
        exits.give_back(a);
        assert_eq!(exits.take(exit(3)), a);
        assert_eq!((exits.get(a), exits.exits.len(), exits.numbers.len()), (&exit(3), 2, 2));
    }

    #[test]
    fn as_many_as_there_are_slots_find_a_number() {
        let mut exits = Exits::default();
        let all = |n: u16| Exit { scope_id: u32::from(n), ..exit(1) };
        for n in 1..=u16::MAX {
            exits.take(all(n));
        }
        let last = exits.numbers[&all(9)];
        exits.give_back(last);
        assert_eq!(exits.take(exit(7)), last);
    }
}
