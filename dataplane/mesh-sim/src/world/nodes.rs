//! Nodes: they are added, killed and revived, asked and told; and what befalls the hosts they run on.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_core::gateway::{self, Gateway};
use mesh_core::seam::{Moment, SocketId};
use mesh_core::transfer::Transfer;

use super::{Family, Machine, Member, Sockets, World};
use crate::net::{Link, NodeId, Place};

/// # Nodes
impl World {
    /// Adds a transfer that listens at `address`'s IP on `ports`, one socket each in this order.
    pub fn add_transfer(&mut self, transfer: Transfer, address: SocketAddr, ports: &[u16], link: Link) -> NodeId {
        self.add_transfer_at(transfer, Place::public(address.ip(), link), ports)
    }

    /// Adds a transfer that listens on `ports`, one dual-stack socket each in this order.
    ///
    /// # Panics
    /// As [`World::add_gateway_at`] does.
    pub fn add_transfer_at(&mut self, transfer: Transfer, place: Place, ports: &[u16]) -> NodeId {
        self.add(Machine::Transfer(transfer), place, Sockets::on(ports), String::new())
    }

    /// Adds a gateway with one socket at `address` that finds its transfer by `transfer_name`.
    pub fn add_gateway(&mut self, gateway: Gateway, address: SocketAddr, link: Link, transfer_name: &str) -> NodeId {
        self.add_gateway_at(gateway, Place::public(address.ip(), link), address.port(), transfer_name)
    }

    /// Adds a gateway with one dual-stack socket, number 0, that finds its transfer by `transfer_name`.
    ///
    /// # Panics
    /// When an address of the place is another's there, or is private and the place on the Internet.
    pub fn add_gateway_at(&mut self, gateway: Gateway, place: Place, port: u16, transfer_name: &str) -> NodeId {
        self.add(Machine::Gateway(gateway), place, Sockets::on(&[port]), transfer_name.to_owned())
    }

    pub(super) fn add(&mut self, machine: Machine, place: Place, sockets: Sockets, transfer_name: String) -> NodeId {
        let id = self.net.add_host(place);
        self.members.push(Member {
            machine,
            life: 0,
            sockets,
            timer: None,
            asleep_until: None,
            transfer_name,
            delivered: Vec::new(),
            answers: true,
            events: Vec::new(),
        });
        self.drain(id);
        id
    }

    /// Kills a node: no goodbye, its address falls silent.
    pub fn kill(&mut self, id: NodeId) {
        let member = &mut self.members[id.0];
        member.machine = Machine::Dead;
        member.life += 1;
        member.timer = None;
        member.asleep_until = None;
        self.net.set_up(id, false);
    }

    /// Puts a new transfer where a killed one was, on the same ports, at the IP of `address`.
    pub fn revive_transfer(&mut self, id: NodeId, transfer: Transfer, address: SocketAddr) {
        let place = self.net.place(id).with(address.ip());
        self.members[id.0].machine = Machine::Transfer(transfer);
        self.net.move_host(id, place);
        self.net.set_up(id, true);
        self.drain(id);
    }

    /// Puts a new gateway where a killed one was, on another port as a real start would have.
    pub fn revive_gateway(&mut self, id: NodeId, gateway: Gateway, port: u16) {
        let member = &mut self.members[id.0];
        member.machine = Machine::Gateway(gateway);
        member.sockets = Sockets::on(&[port]);
        self.net.set_up(id, true);
        self.drain(id);
    }

    /// A gateway's state machine.
    ///
    /// # Panics
    /// When the node is no gateway.
    pub fn gateway(&self, id: NodeId) -> &Gateway {
        match &self.members[id.0].machine {
            Machine::Gateway(gateway) => gateway,
            Machine::Transfer(_) | Machine::Probe(_) | Machine::Dead => panic!("no gateway lives here"),
        }
    }

    /// Asks a gateway to stop, as a signal would; its last words are sent.
    ///
    /// # Panics
    /// When it is suspended: no signal reaches it.
    pub fn stop_gateway(&mut self, id: NodeId) {
        assert!(self.is_awake(id), "a suspended gateway hears no signal");
        if let Machine::Gateway(gateway) = &mut self.members[id.0].machine {
            gateway.stop(self.now);
        }
        self.drain(id);
    }

    /// A transfer's state machine.
    ///
    /// # Panics
    /// When the node is no transfer.
    pub fn transfer(&self, id: NodeId) -> &Transfer {
        match &self.members[id.0].machine {
            Machine::Transfer(transfer) => transfer,
            Machine::Gateway(_) | Machine::Probe(_) | Machine::Dead => panic!("no transfer lives here"),
        }
    }

    /// What a gateway reported since it was last asked.
    pub fn take_events(&mut self, id: NodeId) -> Vec<(Moment, gateway::Event)> {
        std::mem::take(&mut self.members[id.0].events)
    }

    /// Inner packets that reached the host behind a gateway since it was last asked.
    pub fn take_delivered(&mut self, id: NodeId) -> Vec<(Moment, Vec<u8>)> {
        std::mem::take(&mut self.members[id.0].delivered)
    }

    /// Whether the host behind a gateway answers pings (it does unless told otherwise).
    pub fn set_answers(&mut self, id: NodeId, answers: bool) {
        self.members[id.0].answers = answers;
    }
}

/// # Their hosts
impl World {
    /// Changes a node's link.
    pub fn set_link(&mut self, id: NodeId, link: Link) {
        self.net.set_link(id, link);
    }

    /// Moves a node elsewhere, or gives it other addresses. What is on its way to the old ones is lost.
    ///
    /// # Panics
    /// As [`World::add_gateway_at`] does.
    pub fn move_node(&mut self, id: NodeId, place: Place) {
        self.net.move_host(id, place);
    }

    /// Takes a node's interface down, or up again. Meanwhile the node has no address and nothing passes; its machine
    /// runs on.
    ///
    /// # Panics
    /// When it is killed; when its address was given to another node meanwhile.
    pub fn set_interface(&mut self, id: NodeId, up: bool) {
        assert!(!matches!(self.members[id.0].machine, Machine::Dead), "a killed node has no interface");
        self.net.set_up(id, up);
    }

    /// The addresses that a program on the node finds on its interface.
    pub fn addresses(&self, id: NodeId) -> Vec<IpAddr> {
        let up = self.net.is_up(id);
        self.net.place(id).addresses().filter(|_| up).collect()
    }

    /// Suspends a node for a time. Its machine gets no calls, what arrives meanwhile is lost, and what its host would
    /// do waits. When it wakes, the time has jumped. A node that is suspended already sleeps until the later of both
    /// times.
    pub fn suspend(&mut self, id: NodeId, time: Duration) {
        let until = self.now + time;
        let asleep_until = &mut self.members[id.0].asleep_until;
        *asleep_until = (*asleep_until).max(Some(until));
    }

    /// Opens one more socket of a node, on `port` or, if that is 0, on a free one that the host chooses. The port.
    ///
    /// # Panics
    /// When the number or the port is taken.
    pub fn open_socket(&mut self, id: NodeId, socket: SocketId, family: Family, port: u16) -> u16 {
        let sockets = &mut self.members[id.0].sockets;
        let port = match port {
            0 => sockets.free_port(&mut self.rng, family),
            port => port,
        };
        sockets.open(socket, family, port);
        port
    }

    /// Sockets that a gateway has open beside those it began with.
    pub fn extra_sockets(&self, id: NodeId) -> usize {
        self.members[id.0].sockets.extra()
    }

    /// Closes a socket of a node: its port is silent from here on, and what is sent by it is lost.
    ///
    /// # Panics
    /// When there is no such socket.
    pub fn close_socket(&mut self, id: NodeId, socket: SocketId) {
        assert!(self.members[id.0].sockets.close(socket), "there is no socket {}", socket.0);
    }
}
