//! The network outside changes.

use std::time::Duration;

use super::world::{Fate, World};
use crate::gateway::{LOCAL_ADDRESSES_MAX, LocalAddress, TransferState};

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
    let (asked, answered) = (world.transfer_at, super::world::address_of(1));
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
