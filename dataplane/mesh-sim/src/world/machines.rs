//! Machines are called, and what they want is done: as an engine and a pump would.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::gateway;
use mesh_core::seam::{Action, Arrival, Endpoint, Moment, Origin, Slab};
use mesh_core::session::jobs::Done;
use mesh_core::session::mac::ObserverKey;
use mesh_core::session::token::NamespaceKeys;

use super::queue::Event;
use super::{Heard, Machine, World};
use crate::host::{self, Inner};
use crate::net::{Datagram, Network, NodeId, Travel};

/// Longest train that a kernel's GRO makes, less the last datagram.
const TRAIN_BYTES: usize = 60_000;
/// Time a resolver takes.
const RESOLVE_TIME: Duration = Duration::from_millis(1);

struct Train {
    bytes: Vec<u8>,
    segment_bytes: usize,
}

impl World {
    /// The host behind a gateway sends an inner packet; while it is suspended, none.
    pub fn send_inside(&mut self, id: NodeId, packet: &[u8]) {
        if !self.is_awake(id) {
            return;
        }
        let mut bytes = packet.to_vec();
        let arrival = Arrival { origin: Origin::Inside, segment_bytes: bytes.len(), tos: 0 };
        self.handle(id, &arrival, &mut bytes);
    }

    /// A datagram comes to a host.
    pub(super) fn arrive(&mut self, node: NodeId, datagram: Datagram) {
        if !self.is_awake(node) || !self.net.accepts(node, datagram.to.ip()) {
            return;
        }
        let member = &mut self.members[node.0];
        let Some(socket) = member.sockets.at(datagram.to) else { return };
        match &mut member.machine {
            Machine::Probe(heard) => {
                let Datagram { from, to, bytes } = datagram;
                heard.push(Heard { at: self.now, from, to, bytes });
            }
            Machine::Transfer(_) | Machine::Gateway(_) => {
                let origin = Origin::Outside(Endpoint { socket, remote: datagram.from, local: None });
                let mut train = self.gather(node, datagram);
                let arrival = Arrival { origin, segment_bytes: train.segment_bytes, tos: 0 };
                self.handle(node, &arrival, &mut train.bytes);
            }
            Machine::Dead => {}
        }
    }

    /// As a kernel's GRO does: datagrams of one sender that arrive at the same instant become one train.
    fn gather(&mut self, node: NodeId, first: Datagram) -> Train {
        let Datagram { from, to, bytes } = first;
        let mut train = Train { segment_bytes: bytes.len().max(1), bytes };
        let mut closed = train.bytes.is_empty();
        while !closed && train.bytes.len() < TRAIN_BYTES {
            let next = self.queue.pop_datagram(self.now, node, |next| {
                (next.from, next.to) == (from, to) && !next.bytes.is_empty() && next.bytes.len() <= train.segment_bytes
            });
            let Some(next) = next else { break };
            closed = next.bytes.len() < train.segment_bytes;
            train.bytes.extend_from_slice(&next.bytes);
        }
        train
    }

    pub(super) fn timer_due(&mut self, node: NodeId) {
        let member = &mut self.members[node.0];
        if member.timer.is_some_and(|timer| timer <= self.now) {
            member.timer = None;
            if let Some(machine) = member.machine.node() {
                machine.handle_timeout(self.now);
            }
            self.drain(node);
        }
    }

    pub(super) fn job_done(&mut self, node: NodeId, done: Done) {
        if let Some(machine) = self.members[node.0].machine.node() {
            machine.handle_job(self.now, done);
        }
        self.drain(node);
    }

    pub(super) fn resolved(&mut self, node: NodeId) {
        let member = &mut self.members[node.0];
        if let Machine::Gateway(gateway) = &mut member.machine {
            // Without an interface no resolver answers.
            let addresses = self.names.get(&member.transfer_name).filter(|_| self.net.is_up(node));
            gateway.set_transfer(self.now, addresses.map_or(&[], Vec::as_slice));
        }
        self.drain(node);
    }

    fn handle(&mut self, id: NodeId, arrival: &Arrival, bytes: &mut [u8]) {
        let mut actions = std::mem::take(&mut self.actions);
        let mut slab = std::mem::take(&mut self.slab);
        if let Some(machine) = self.members[id.0].machine.node() {
            let mut room = Slab::new(&mut slab, 0);
            machine.handle(self.now, arrival, bytes, &mut room, &mut actions);
            for action in actions.drain(..) {
                self.carry_out(id, action, bytes, &slab);
            }
        }
        self.slab = slab;
        self.actions = actions;
        self.drain(id);
    }

    /// Pulls everything a node has to say, then sets its timer.
    pub(super) fn drain(&mut self, id: NodeId) {
        let life = self.members[id.0].life;
        loop {
            let now = self.now;
            let mut slab = std::mem::take(&mut self.slab);
            let Some(machine) = self.members[id.0].machine.node() else {
                self.slab = slab;
                return;
            };
            let action = machine.poll_transmit(now, &mut Slab::new(&mut slab, 0));
            self.start_job(id, life);
            let idle = action.is_none();
            if let Some(action) = action {
                self.carry_out(id, action, &[], &slab);
            }
            self.slab = slab;
            if idle {
                break;
            }
        }
        while self.start_job(id, life) {}
        if self.note_events(id, life) {
            // It has something to say to what was done for it.
            return self.drain(id);
        }
        let member = &mut self.members[id.0];
        let Some(due) = member.machine.node().and_then(|machine| machine.poll_timeout()) else { return };
        let due = due.max(self.now);
        if member.timer.is_none_or(|timer| due < timer) {
            member.timer = Some(due);
            self.queue.push(due, Event::Timer { node: id, life });
        }
    }

    /// A helper thread begins the next job of a node, if there is one.
    fn start_job(&mut self, node: NodeId, life: u32) -> bool {
        let Some(job) = self.members[node.0].machine.node().and_then(|machine| machine.poll_job()) else {
            return false;
        };
        let done = job.run();
        self.queue.push(self.now + self.job_time, Event::Job { node, life, done });
        true
    }

    /// Does what events ask for, as the program of a node would. Whether the machine was called.
    fn note_events(&mut self, id: NodeId, life: u32) -> bool {
        let (mut resolve, mut called) = (false, false);
        let member = &mut self.members[id.0];
        match &mut member.machine {
            Machine::Gateway(gateway) => {
                while let Some(event) = gateway.poll_event() {
                    match &event {
                        gateway::Event::ResolveTransfer => resolve = true,
                        gateway::Event::OpenSockets { count } => {
                            let count = usize::try_from(*count).expect("a few hundred");
                            let opened = member.sockets.open_more(&mut self.rng, count);
                            self.extra_sockets_peak = self.extra_sockets_peak.max(member.sockets.extra());
                            gateway.sockets_opened(self.now, &opened);
                            called = true;
                        }
                        // Its inside takes whatever it is given.
                        gateway::Event::InsideMtu { .. } => {}
                        gateway::Event::CloseSockets(closed) => {
                            for socket in closed {
                                assert!(member.sockets.close(*socket), "socket {} is closed once", socket.0);
                            }
                        }
                        gateway::Event::ObserverKeyWanted { port } => {
                            if let Some(token) = &self.token {
                                let key = ObserverKey::of(&NamespaceKeys::derive(token, *port, None));
                                gateway.set_observer_key(self.now, *port, key);
                                called = true;
                            }
                        }
                        gateway::Event::Registered { .. }
                        | gateway::Event::Refused { .. }
                        | gateway::Event::TransferSilent { .. }
                        | gateway::Event::TransferBack
                        | gateway::Event::StreamWanted(_)
                        | gateway::Event::OverTcp { .. }
                        | gateway::Event::TransferKeyChanged
                        | gateway::Event::VersionMismatch { .. }
                        | gateway::Event::PeerUp { .. }
                        | gateway::Event::PeerDown { .. }
                        | gateway::Event::PathChanged { .. }
                        | gateway::Event::NoCommonCipher { .. }
                        | gateway::Event::Impostor { .. } => {}
                    }
                    member.events.push((self.now, event));
                }
            }
            Machine::Transfer(transfer) => while transfer.poll_event().is_some() {},
            Machine::Probe(_) | Machine::Dead => {}
        }
        if resolve {
            self.queue.push(self.now + RESOLVE_TIME, Event::Resolved { node: id, life });
        }
        called
    }

    fn carry_out(&mut self, id: NodeId, action: Action, train: &[u8], slab: &[u8]) {
        match action {
            Action::Forward { bytes, segment_bytes, to, .. } => self.send(id, &train[bytes], segment_bytes, &to),
            Action::Send { slab: range, segment_bytes, to, .. } => self.send(id, &slab[range], segment_bytes, &to),
            Action::Deliver { bytes } => self.deliver(id, &train[bytes]),
            Action::DeliverMore { .. } => unreachable!("interfaces here take no packets of several pieces"),
            Action::DeliverSlab { slab: range } => self.deliver(id, &slab[range]),
        }
    }

    /// A node sends `bytes`, cut every `segment_bytes`; no bytes are one empty datagram.
    pub(super) fn send(&mut self, id: NodeId, bytes: &[u8], segment_bytes: usize, to: &Endpoint) {
        let Some(from) = self.local(id, to) else {
            self.wiretap.unsent += bytes.len().div_ceil(segment_bytes.max(1)).max(1) as u64;
            return;
        };
        let empty: &[u8] = &[];
        let datagrams = bytes.chunks(segment_bytes.max(1)).chain(bytes.is_empty().then_some(empty));
        for bytes in datagrams {
            let datagram = Datagram { from, to: to.remote, bytes: bytes.to_vec() };
            self.wiretap.note(self.now, id, &datagram);
            self.travel(|net, now, next| net.send(now, id, datagram, next));
        }
    }

    /// The address and port by which a node sends to `to`, if it can: it may have closed the socket, lost the address
    /// or taken the interface down.
    fn local(&self, node: NodeId, to: &Endpoint) -> Option<SocketAddr> {
        let remote = to.remote.ip();
        let port = self.members[node.0].sockets.port_towards(to.socket, remote)?;
        let ip = self.net.source(node, remote).filter(|ip| to.local.is_none_or(|local| local == *ip))?;
        Some(SocketAddr::new(ip, port))
    }

    /// The network carries datagrams to their next hops.
    pub(super) fn travel(&mut self, carry: impl FnOnce(&mut Network, Moment, &mut Vec<Travel>)) {
        let mut travels = std::mem::take(&mut self.travels);
        carry(&mut self.net, self.now, &mut travels);
        for Travel { at, hop, datagram } in travels.drain(..) {
            self.queue.push(at, Event::Travel { hop, datagram });
        }
        self.travels = travels;
    }

    fn deliver(&mut self, id: NodeId, packet: &[u8]) {
        let member = &mut self.members[id.0];
        member.delivered.push((self.now, packet.to_vec()));
        if member.answers && matches!(host::read(packet), Inner::EchoRequest { .. }) {
            // The host answers on its own thread: after the gateway has finished this turn.
            let event = Event::Inside { node: id, life: member.life, packet: host::echo_reply(packet) };
            self.queue.push(self.now, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::seam::SocketId;

    use super::*;
    use crate::net::{Link, Place};

    #[test]
    fn what_has_to_leave_from_an_address_that_is_not_there_is_not_sent() {
        let mut world = World::new(1);
        let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|ip| {
            let ip = ip.parse().unwrap();
            (world.add_probe(Place::public(ip, Link::CLEAN), &[1000]), ip)
        });
        let to = Endpoint { socket: SocketId(0), remote: SocketAddr::new(two.1, 1000), local: None };
        for (local, heard) in [(None, 1), (Some(one.1), 1), (Some("192.0.2.3".parse().unwrap()), 0)] {
            world.send(one.0, b"text", 4, &Endpoint { local, ..to });
            world.run_for(Duration::from_secs(1));
            assert_eq!(world.take_heard(two.0).len(), heard, "{local:?}");
        }
        assert_eq!(world.wiretap.unsent, 1);
        world.send(one.0, b"text", 4, &Endpoint { socket: SocketId(7), ..to });
        assert_eq!(world.wiretap.unsent, 2, "nor by a socket that is not open");
    }
}
