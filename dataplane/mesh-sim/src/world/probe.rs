//! A node without a machine of ours: it sends the datagrams that a test tells it to, and keeps what it hears.

use std::net::SocketAddr;

use mesh_core::seam::{Endpoint, Moment};

use super::sockets::Sockets;
use super::{Machine, World};
use crate::net::{NodeId, Place};

/// A datagram as it came to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When.
    pub at: Moment,
    /// Where it seems to come from.
    pub from: SocketAddr,
    /// Where it was sent to, as it looked at its end.
    pub to: SocketAddr,
    /// What it carried.
    pub bytes: Vec<u8>,
}

impl World {
    /// Adds a probe with a dual-stack socket on each of `ports`.
    ///
    /// # Panics
    /// As [`World::add_gateway_at`] does.
    pub fn add_probe(&mut self, place: Place, ports: &[u16]) -> NodeId {
        self.add(Machine::Probe(Vec::new()), place, Sockets::on(ports), String::new())
    }

    /// A probe sends a datagram from one of its ports.
    ///
    /// # Panics
    /// When it has no socket on that port.
    pub fn probe(&mut self, from: NodeId, port: u16, to: SocketAddr, bytes: &[u8]) {
        let socket = self.members[from.0].sockets.at(SocketAddr::new(to.ip(), port)).expect("a socket on that port");
        if self.is_awake(from) {
            self.send(from, bytes, bytes.len(), &Endpoint { socket, remote: to, local: None });
        }
    }

    /// What a probe heard since it was last asked, oldest first.
    ///
    /// # Panics
    /// When the node is no probe.
    pub fn take_heard(&mut self, node: NodeId) -> Vec<Heard> {
        match &mut self.members[node.0].machine {
            Machine::Probe(heard) => std::mem::take(heard),
            Machine::Transfer(_) | Machine::Gateway(_) | Machine::Dead => panic!("no probe lives here"),
        }
    }
}
