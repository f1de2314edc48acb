//! The network outside changes.

use std::time::Duration;

use super::world::{Fate, World, address_of};
use crate::drops::DropReason;
use crate::gateway::{BeaconSocket, Beacons, LOCAL_ADDRESSES_MAX, LocalAddress, TransferState};
use crate::node::Node;
use crate::seam::{Arrival, Endpoint, Origin, Slab, SocketId};

/// Tells gateway 1 of the change, in a turn of its pump.
fn change(world: &mut World, addresses: &[LocalAddress]) {
    let now = world.now;
    world.gateways.get_mut(&1).unwrap().network_changed(now, addresses);
    world.inside(1, &[]);
}

fn local(number: u32) -> LocalAddress {
    LocalAddress { address: [10, 1, 0, number as u8].into(), prefix: 24, interface: number }
}

#[test]
fn addresses_are_kept_as_told_and_no_more_than_count() {
    let mut world = World::with(&[1]);
    let now = world.now;
    let gateway = world.gateways.get_mut(&1).unwrap();
    let many: Vec<LocalAddress> = (0..100).map(local).collect();
    gateway.network_changed(now, &many);
    assert_eq!(gateway.local_addresses(), &many[..LOCAL_ADDRESSES_MAX]);
    gateway.network_changed(now, &[local(7)]);
    assert_eq!(gateway.local_addresses(), [local(7)]);
}

#[test]
fn transfer_is_asked_for_a_sign_of_life_at_once() {
    let mut world = World::with(&[1, 2]);
    world.run(Duration::from_secs(5));
    world.capture = Some(Vec::new());
    change(&mut world, &[local(1)]);
    let (asked, answered) = (world.transfer_at, address_of(1));
    assert!(world.capture.as_ref().unwrap().iter().any(|datagram| datagram.to == asked && datagram.from == answered));
    world.run(Duration::from_millis(20));
    assert!(world.capture.as_ref().unwrap().iter().any(|datagram| datagram.from == asked && datagram.to == answered));
}

#[test]
fn network_that_comes_back_during_a_handshake_brings_it_forward() {
    let mut world = World::with(&[1]);
    world.fate = Box::new(|_| Fate::Drop);
    // Keepalives every 20 s, three without an answer: then there is a handshake without end.
    world.run(Duration::from_secs(40));
    let state = |world: &World| world.gateways[&1].status(world.now).transfer;
    assert!(state(&world).silent_seconds.is_some());
    // At no time does it take longer than a few round trips.
    for _ in 0..20 {
        world.fate = Box::new(|_| Fate::Drop);
        world.run(Duration::from_millis(1730));
        world.fate = Box::new(|_| Fate::Pass);
        change(&mut world, &[]);
        let took = world.run_until(Duration::from_secs(3), |world| state(world).silent_seconds.is_none());
        let took = took.expect("it answers");
        assert!(took < Duration::from_millis(200), "{took:?}");
        assert_eq!(state(&world).state, TransferState::Registered);
        world.fate = Box::new(|_| Fate::Drop);
        world.run(Duration::from_secs(30));
    }
}

#[test]
fn what_the_transfer_says_does_not_count_where_beacons_arrive() {
    let mut world = World::with(&[1]);
    let (hearing, sender) = (SocketId(7), SocketId(8));
    let to = "239.255.77.77:48021".parse().unwrap();
    let beacons = Beacons { hearing: vec![hearing], sending: vec![BeaconSocket { socket: sender, interface: 2, to }] };
    let now = world.now;
    world.gateways.get_mut(&1).unwrap().set_beacons(now, beacons.clone());
    assert_eq!(*world.gateways[&1].beacons(), beacons);
    // An answer of the transfer is held back, and shown there.
    world.capture = Some(Vec::new());
    let (from, own) = (world.transfer_at, address_of(1));
    world.fate = Box::new(move |datagram| if datagram.from == from { Fate::Drop } else { Fate::Pass });
    change(&mut world, &[]);
    world.run(Duration::from_millis(20));
    let capture = world.capture.take().unwrap();
    let answer = capture.iter().find(|datagram| datagram.from == from && datagram.to == own).expect("an answer");
    let gateway = world.gateways.get_mut(&1).unwrap();
    let mut receive = |socket: SocketId| {
        let endpoint = Endpoint { socket, remote: from, local: None };
        let arrival = Arrival { origin: Origin::Outside(endpoint), segment_bytes: answer.bytes.len(), tos: 0 };
        let (mut bytes, mut slab) = (answer.bytes.clone(), vec![0; Slab::ROOM_BYTES]);
        gateway.handle(world.now, &arrival, &mut bytes, &mut Slab::new(&mut slab, 0), &mut Vec::new());
        gateway.drops().get(DropReason::UnexpectedType)
    };
    assert_eq!([receive(hearing), receive(sender), receive(SocketId(0))], [1, 2, 2]);
}
