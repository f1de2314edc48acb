//! Sockets are exchanged while a gateway runs.

use std::time::Duration;

use super::packets::ping;
use super::world::{Fate, World, address_of};
use crate::gateway::{Gateway, Sockets, TransferState};
use crate::node::Node;
use crate::seam::{Action, Arrival, Endpoint, Moment, Origin, Slab, SocketId};

const NEW: SocketId = SocketId(5);

fn sockets(ipv4: Option<SocketId>) -> Sockets {
    Sockets { ipv4, ..Sockets::default() }
}

/// What a gateway wants to send, with the sockets it wants to send it by.
fn sent(gateway: &mut Gateway, now: Moment) -> Vec<(Endpoint, Vec<u8>)> {
    let mut slab = vec![0; Slab::ROOM_BYTES];
    let mut all = Vec::new();
    while let Some(action) = gateway.poll_transmit(now, &mut Slab::new(&mut slab, 0)) {
        if let Action::Send { slab: range, to, .. } = action {
            all.push((to, slab[range].to_vec()));
        }
    }
    all
}

/// The answer of the transfer to one datagram of gateway 1, which was sent from another address.
fn answer(world: &mut World, datagram: &[u8], from: std::net::SocketAddr) -> Vec<Vec<u8>> {
    let transfer = world.transfer.as_mut().expect("it runs");
    let endpoint = Endpoint { socket: SocketId(0), remote: from, local: None };
    let arrival = Arrival { origin: Origin::Outside(endpoint), segment_bytes: datagram.len(), tos: 0 };
    let (mut memory, mut actions) = (vec![0; Slab::ROOM_BYTES], Vec::new());
    let mut bytes = datagram.to_vec();
    transfer.handle(world.now, &arrival, &mut bytes, &mut Slab::new(&mut memory, 0), &mut actions);
    let mut answers = Vec::new();
    while let Some(action) = transfer.poll_transmit(world.now, &mut Slab::new(&mut memory, 0)) {
        if let Action::Send { slab, to, .. } = action
            && to.remote == from
        {
            answers.push(memory[slab].to_vec());
        }
    }
    answers
}

#[test]
fn new_socket_carries_on_the_session_with_a_sign_of_life_at_once() {
    let mut world = World::with(&[1, 2]);
    let now = world.now;
    let gateway = world.gateways.get_mut(&1).unwrap();
    gateway.set_sockets(now, sockets(Some(NEW)));
    assert_eq!(gateway.sockets(), sockets(Some(NEW)));
    let sent = sent(gateway, now);
    let [(to, keepalive)] = &sent[..] else { panic!("one keepalive: {sent:?}") };
    assert_eq!((to.socket, to.remote), (NEW, world.transfer_at));
    let answers = answer(&mut world, keepalive, address_of(1));
    assert!(!answers.is_empty(), "the transfer knows the session");
    for mut answer in answers {
        let (from, mut memory) = (*to, vec![0; Slab::ROOM_BYTES]);
        let arrival = Arrival { origin: Origin::Outside(from), segment_bytes: answer.len(), tos: 0 };
        let gateway = world.gateways.get_mut(&1).unwrap();
        gateway.handle(now, &arrival, &mut answer, &mut Slab::new(&mut memory, 0), &mut Vec::new());
        assert!(gateway.drops().total() == 0, "{:?}", gateway.drops());
    }
    // Data goes by the new socket too: a session with the peer is asked for through the transfer.
    let gateway = world.gateways.get_mut(&1).unwrap();
    let mut packet = ping(1, 2, 0);
    let arrival = Arrival { origin: Origin::Inside, segment_bytes: packet.len(), tos: 0 };
    let mut memory = vec![0; Slab::ROOM_BYTES];
    gateway.handle(now, &arrival, &mut packet, &mut Slab::new(&mut memory, 0), &mut Vec::new());
    gateway.handle_timeout(now + Duration::from_millis(5));
    let sent = self::sent(gateway, now);
    assert!(!sent.is_empty() && sent.iter().all(|(to, _)| to.socket == NEW), "{sent:?}");
}

#[test]
fn without_a_socket_nothing_is_sent_by_that_of_another_and_with_one_again_it_goes_on() {
    let mut world = World::with(&[1]);
    let now = world.now;
    let gateway = world.gateways.get_mut(&1).unwrap();
    gateway.set_sockets(now, sockets(None));
    // Whatever is sent now must not leave by a number that the engine may give to another socket.
    assert!(sent(gateway, now).iter().all(|(to, _)| to.socket == SocketId(u16::MAX)));
    gateway.set_sockets(now, sockets(Some(NEW)));
    let sent = sent(gateway, now);
    assert!(sent.iter().any(|(to, _)| to.socket == NEW && to.remote == world.transfer_at), "{sent:?}");
    assert_eq!(world.gateways[&1].status(now).transfer.state, TransferState::Registered);
}

#[test]
fn handshake_under_way_moves_along() {
    let mut world = World::empty();
    world.start_transfer(1);
    // The last message is lost until the sockets are exchanged: the handshake stays at its last stage.
    let transfer_at = world.transfer_at;
    world.fate = Box::new(
        move |datagram| {
            if datagram.to == transfer_at && datagram.kind() == 3 { Fate::Drop } else { Fate::Pass }
        },
    );
    world.start_gateway(1, 1);
    world.run(Duration::from_millis(300));
    let now = world.now;
    let gateway = world.gateways.get_mut(&1).unwrap();
    assert_eq!(gateway.status(now).transfer.state, TransferState::Connecting);
    gateway.set_sockets(now, sockets(Some(NEW)));
    let sent = sent(gateway, now);
    assert!(!sent.is_empty() && sent.iter().all(|(to, _)| to.socket == NEW), "sent at once by the new one: {sent:?}");
}
