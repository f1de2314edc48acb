//! A local network without a transfer.

use std::time::Duration;

use super::packets::ping;
use super::straight::{neighbour_with, pings, with_port};
use super::world::{Datagram, World, address_of, config, ip4};
use crate::drops::DropReason;
use crate::gateway::{Event, GatewayConfig, PathChoice, PathKind, PeerStatus};
use crate::session::handshake::StaticKey;

/// Starts a gateway on the local network, which is all there is.
fn start(world: &mut World, number: u8, change: impl FnOnce(&mut GatewayConfig)) {
    let mut config = with_port(number, 1, PathChoice::Auto);
    change(&mut config);
    neighbour_with(world, number, config);
}

fn network(numbers: &[u8]) -> World {
    let mut world = World::empty();
    for &number in numbers {
        start(&mut world, number, |_| {});
    }
    world
}

fn peer(world: &World, of: u8, number: u8) -> Option<PeerStatus> {
    let status = world.gateways[&of].status(world.now);
    status.peers.into_iter().find(|peer| peer.ip4 == ip4(number))
}

#[test]
fn two_that_know_of_no_transfer_find_each_other_within_three_seconds() {
    let mut world = network(&[1, 2]);
    assert_eq!(pings(&mut world, (1, 2), 30), 30);
    for (of, number) in [(1, 2), (2, 1)] {
        let peer = peer(&world, of, number).unwrap();
        assert_eq!((peer.path, peer.connected, peer.verified), (Some(PathKind::Lan), true, false));
    }
    let up = world.events[&1].iter().find(|event| matches!(event, Event::PeerUp { .. }));
    assert!(matches!(up, Some(Event::PeerUp { verified: false, .. })), "{up:?}");
}

#[test]
fn who_comes_later_is_found_at_once() {
    let mut world = network(&[1]);
    world.run(Duration::from_secs(100));
    start(&mut world, 2, |_| {});
    assert_eq!(pings(&mut world, (1, 2), 10), 10);
}

#[test]
fn packets_that_came_before_the_peer_wait_for_it() {
    let mut world = network(&[1]);
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_secs(1));
    start(&mut world, 2, |_| {});
    world.run(Duration::from_secs(2));
    assert_eq!(world.packets(2), 1);
}

#[test]
fn a_transfer_that_comes_back_vouches_for_those_who_found_each_other_and_nothing_is_lost() {
    let mut world = network(&[1, 2]);
    assert_eq!(pings(&mut world, (1, 2), 30), 30);
    world.start_transfer(1);
    assert_eq!(pings(&mut world, (1, 2), 400), 400);
    let seen = peer(&world, 1, 2).unwrap();
    assert_eq!((seen.path, seen.verified), (Some(PathKind::Lan), true));
    world.transfer = None;
    assert_eq!(pings(&mut world, (1, 2), 400), 400);
}

#[test]
fn sessions_end_and_begin_again_without_a_transfer() {
    let mut world = network(&[1, 2]);
    assert_eq!(pings(&mut world, (1, 2), 20), 20);
    world.run(Duration::from_secs(600));
    assert!(!peer(&world, 1, 2).is_some_and(|peer| peer.connected), "idle");
    assert_eq!(pings(&mut world, (1, 2), 20), 20);
    // A new start of the peer, of which nobody tells.
    start(&mut world, 2, |config| config.boot = 2);
    let arrived = pings(&mut world, (1, 2), 100);
    assert!(arrived >= 60, "{arrived} of 100 at 10 a second");
}

#[test]
fn the_first_to_come_is_who_it_says_and_a_second_key_is_refused() {
    let mut world = network(&[1, 2]);
    assert_eq!(pings(&mut world, (1, 2), 20), 20);
    // Another key claims the address of 2.
    start(&mut world, 3, |config| {
        config.ip4 = ip4(2);
        config.static_key = StaticKey::from_seed([99; 32]);
    });
    assert_eq!(pings(&mut world, (1, 2), 300), 300, "all still go to the first");
    assert_eq!(world.packets(3), 0);
    assert!(world.gateways[&1].drops().get(DropReason::Impostor) > 0);
}

#[test]
fn with_a_transfer_nobody_but_the_one_it_vouches_for_is_taken() {
    let mut world = World::empty();
    world.start_transfer(1);
    start(&mut world, 1, |_| {});
    start(&mut world, 2, |_| {});
    world.run(Duration::from_secs(1));
    start(&mut world, 3, |config| {
        config.ip4 = ip4(2);
        config.static_key = StaticKey::from_seed([99; 32]);
    });
    world.run(Duration::from_secs(1));
    assert_eq!(pings(&mut world, (1, 2), 100), 100);
    assert_eq!(world.packets(3), 0);
    assert_eq!(peer(&world, 1, 2).unwrap().path, Some(PathKind::Lan));
}

#[test]
fn beacons_are_few_and_say_nothing_to_outsiders() {
    let mut world = network(&[1, 2]);
    world.capture = Some(Vec::new());
    world.run(Duration::from_secs(200));
    let captured = world.capture.take().unwrap();
    let beacons: Vec<&Datagram> = captured.iter().filter(|datagram| datagram.kind() == 10).collect();
    assert!((20..=32).contains(&beacons.len()), "{} in 200 s of two", beacons.len());
    let [a, b, c, d] = ip4(1).octets();
    for beacon in beacons {
        assert!(!beacon.bytes.windows(4).any(|bytes| bytes == [a, b, c, d]));
        assert!(beacon.bytes.len() < 128);
    }
}

#[test]
fn a_flood_of_beacons_is_bounded_and_answered_rarely() {
    let mut world = network(&[1]);
    world.run(Duration::from_secs(1));
    world.capture = Some(Vec::new());
    let mut bytes = 0;
    for number in 0..5_000u32 {
        let mut config = GatewayConfig { path: PathChoice::Auto, ..config(9, u64::from(number)) };
        let host = u8::try_from(number % 250 + 2).unwrap();
        config.ip4 = std::net::Ipv4Addr::new(172, 168, u8::try_from(number / 250 + 1).unwrap(), host);
        let sender =
            crate::session::beacon::Sealer::new(&config.keys, std::array::from_fn(|at| (number >> (at % 4 * 8)) as u8));
        let mut sender = sender;
        let presence = mesh_wire::message::Message::Presence { ip4: config.ip4, key: [7; 32], boot: 1, port: 4000 };
        let beacon = sender.seal(&presence.to_vec());
        bytes += beacon.len();
        let length = beacon.len();
        world.train(1, address_of(9), beacon, length);
    }
    let answered: usize = world
        .capture
        .as_ref()
        .unwrap()
        .iter()
        .filter(|one| one.to == "10.0.0.9:4000".parse().unwrap())
        .map(|one| one.bytes.len())
        .sum();
    assert!(answered > 0 && answered < bytes / 10, "{answered} bytes for {bytes}");
    assert!(world.gateways[&1].drops().get(DropReason::RateLimited) > 4_000);
    let mut garbage = vec![0x2a; 120];
    garbage[30] = 1;
    world.train(1, address_of(9), garbage, 120);
    world.train(1, address_of(9), vec![0x2a; 20], 20);
    world.train(1, address_of(9), vec![0x2a; 1000], 1000);
}

#[test]
fn who_is_pinned_to_the_relay_sends_no_beacon_and_hears_none() {
    let mut world = network(&[1]);
    start(&mut world, 2, |config| config.path = PathChoice::Relay);
    world.capture = Some(Vec::new());
    world.run(Duration::from_secs(60));
    assert!(world.capture.as_ref().unwrap().iter().all(|one| one.from != address_of(2) || one.kind() != 10));
    assert_eq!(pings(&mut world, (1, 2), 20), 0);
}
