//! Crowds: many clients of a transfer, in many namespaces.

use std::fmt;
use std::net::{SocketAddr, SocketAddrV4};
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, ensure};
use mesh_core::session::token::StretchedToken;
use mesh_wire::frame::FrameType;
use mesh_wire::route::{Destination, Route};

use super::Rig;
use crate::enrol::fleet::{ClientId, Fleet};
use crate::load::{Flow, Head};

/// How many namespaces, and how many clients in each: `1000x10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Namespaces, that is ports: 1 to 4,000.
    pub namespaces: u16,
    /// Clients in each: 2 to 10,000, an even number. Half of them send and half receive.
    pub clients: u16,
}

/// Most clients in one namespace: each has a port of its own in the sender's or the receiver's host.
const CLIENTS_MAX: u16 = 10_000;

impl Crowd {
    /// All clients.
    pub fn sessions(self) -> usize {
        usize::from(self.namespaces) * usize::from(self.clients)
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.namespaces, self.clients)
    }
}

impl FromStr for Crowd {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('x').and_then(|(left, right)| Some((left.parse().ok()?, right.parse().ok()?)));
        let (namespaces, clients) =
            numbers.with_context(|| format!("{text:?} is not NAMESPACESxCLIENTS, as in 1000x10"))?;
        ensure!((1..=4_000).contains(&namespaces), "{text:?}: a transfer is measured with 1 to 4000 namespaces");
        ensure!(
            (2..=CLIENTS_MAX).contains(&clients) && clients % 2 == 0,
            "{text:?}: a namespace has 2, 4, … {CLIENTS_MAX} clients here"
        );
        Ok(Self { namespaces, clients })
    }
}

/// All clients of a crowd, with the places of those that send to each other.
pub(super) struct Clients {
    fleet: Fleet,
    /// Sender, receiver, the transfer's port, and the ports of both.
    pairs: Vec<(ClientId, ClientId, Pair)>,
}

#[derive(Clone, Copy)]
struct Pair {
    transfer: u16,
    from: u16,
    arrives: u16,
}

impl Clients {
    /// Registers them. One socket speaks for one client of each namespace.
    pub(super) fn join(rig: &Rig, crowd: Crowd, token: &StretchedToken, first: u16) -> Result<Self> {
        let mut fleet = Fleet::new(token)?;
        let mut pairs = Vec::new();
        for number in 0..crowd.clients / 2 {
            let port = first + number;
            let bind = |host: &mesh_lab::Host, address| host.udp(SocketAddr::V4(SocketAddrV4::new(address, port)));
            let sender = fleet.add_socket(bind(&rig.sender, Rig::SENDER)?)?;
            let receiver = fleet.add_socket(bind(&rig.receiver, Rig::RECEIVER)?)?;
            for namespace in 0..crowd.namespaces {
                let transfer = first + namespace;
                let from = fleet.add_client(sender, SocketAddrV4::new(Rig::RELAY, transfer))?;
                let to = fleet.add_client(receiver, SocketAddrV4::new(Rig::RELAY_OUT, transfer))?;
                pairs.push((from, to, Pair { transfer, from: port, arrives: port }));
            }
        }
        fleet.enrol()?;
        Ok(Self { fleet, pairs })
    }

    /// Keeps them registered; see [`Fleet::tend`].
    pub(super) fn tend(&mut self) -> Result<()> {
        self.fleet.tend()
    }

    /// Flows between `pairs` of them at most, spread evenly.
    pub(super) fn flows(&self, pairs: usize) -> Result<Vec<Flow>> {
        let stride = self.pairs.len().div_ceil(pairs);
        let flow = |(from, to, pair): &(ClientId, ClientId, Pair)| {
            let route =
                Route { destination: Destination::here(self.fleet.slot(*to)?), source: self.fleet.slot(*from)? };
            Ok(Flow {
                from: SocketAddrV4::new(Rig::SENDER, pair.from),
                to: SocketAddrV4::new(Rig::RELAY, pair.transfer),
                arrives: SocketAddrV4::new(Rig::RECEIVER, pair.arrives),
                head: Head::Nothing,
                route: route.emit(FrameType::Data, 0),
            })
        };
        self.pairs.iter().step_by(stride).map(flow).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::scale::{DEFAULT, QUICK};
    use super::super::side_by_side;
    use super::*;

    #[test]
    fn crowds_are_read_back_and_others_refused() {
        for name in DEFAULT.into_iter().chain(QUICK).chain(side_by_side::DEFAULT) {
            assert_eq!(name.parse::<Crowd>().unwrap().to_string(), name);
        }
        for name in ["", "10", "0x2", "4001x2", "1x0", "1x3", "1x10002", "ax2"] {
            assert!(name.parse::<Crowd>().is_err(), "{name}");
        }
    }
}
