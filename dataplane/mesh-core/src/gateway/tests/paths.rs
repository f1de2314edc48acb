//! Off the relay and back: paths between gateways that talk to each other, over a network that a test bends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_wire::message::{Candidate, CandidateKind, Mapping, Message};

use super::packets::ping;
use super::straight::{direct, local, moved, path, pings, with_port};
use super::world::{Datagram, Fate, World, address_of, config, ip4};
use crate::gateway::{Event, GatewayConfig, PathChoice, PathKind};

/// Frames that the transfer forwards from here on are counted in the capture.
fn relayed(world: &World) -> usize {
    let captured = world.capture.as_ref().expect("a capture is on");
    captured.iter().filter(|datagram| datagram.from == world.transfer_at && datagram.kind() == 0).count()
}

#[test]
fn traffic_starts_by_the_relay_and_leaves_it_without_loss() {
    let mut world = World::with_paths(&[1, 2]);
    world.capture = Some(Vec::new());
    assert_eq!(pings(&mut world, (1, 2), 1), 1);
    assert_eq!(relayed(&world), 1);
    assert_eq!(pings(&mut world, (1, 2), 10), 10);
    assert_eq!(path(&world, 1, 2), Some(PathKind::Direct), "within a second");
    world.capture = Some(Vec::new());
    assert_eq!(pings(&mut world, (1, 2), 50), 50);
    assert_eq!(relayed(&world), 0, "the relay has nothing to do any more");
    let changes = world.events[&1].iter().filter(|event| matches!(event, Event::PathChanged { .. })).count();
    assert_eq!(changes, 1);
}

#[test]
fn neighbours_meet_on_their_own_network() {
    let mut world = World::with_paths(&[]);
    for number in [1, 2] {
        world.insert(number, with_port(number, 1, PathChoice::Auto));
        let now = world.now;
        world.gateways.get_mut(&number).unwrap().network_changed(now, &[local(number)]);
    }
    world.run(Duration::from_millis(500));
    assert_eq!(pings(&mut world, (1, 2), 10), 10);
    assert_eq!((path(&world, 1, 2), path(&world, 2, 1)), (Some(PathKind::Lan), Some(PathKind::Lan)));
}

#[test]
fn a_path_that_carries_one_way_only_is_left_by_both_and_taken_again_when_it_has_proven_itself() {
    let mut world = direct();
    let one_way = |datagram: &Datagram| datagram.from == address_of(1) && datagram.to == address_of(2);
    world.fate = Box::new(move |datagram| if one_way(datagram) { Fate::Drop } else { Fate::Pass });
    let arrived = pings(&mut world, (1, 2), 30);
    assert!(arrived >= 15, "back by the relay within 1.5 s: {arrived} of 30 at 10 a second");
    assert_eq!((path(&world, 1, 2), path(&world, 2, 1)), (Some(PathKind::Relay), Some(PathKind::Relay)));
    world.fate = Box::new(|_| Fate::Pass);
    assert_eq!(pings(&mut world, (1, 2), 5), 5);
    assert_eq!(path(&world, 1, 2), Some(PathKind::Relay), "not at once");
    assert_eq!(pings(&mut world, (1, 2), 150), 150);
    assert_eq!((path(&world, 1, 2), path(&world, 2, 1)), (Some(PathKind::Direct), Some(PathKind::Direct)));
}

#[test]
fn a_path_that_loses_a_third_is_left_for_a_slower_relay() {
    let mut world = direct();
    let mut count = 0u32;
    world.fate = Box::new(move |datagram: &Datagram| {
        let straight = datagram.from.ip() != IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)) && datagram.to == address_of(2);
        count += u32::from(straight);
        // No pattern that probes or packets could fall in with.
        if straight && (count.wrapping_mul(0x9e37_79b9) >> 16).is_multiple_of(3) {
            return Fate::Drop;
        }
        let by_relay = datagram.from == "192.0.2.1:8000".parse().unwrap();
        if by_relay { Fate::Late(Duration::from_millis(15)) } else { Fate::Pass }
    });
    pings(&mut world, (1, 2), 50);
    assert_eq!(path(&world, 1, 2), Some(PathKind::Relay));
    let status = world.gateways[&1].status(world.now);
    let direct = status.peers[0].paths.iter().find(|path| path.kind == PathKind::Direct).unwrap();
    assert!(direct.proven && (50..500).contains(&direct.loss_permille), "{direct:?}");
}

#[test]
fn a_peer_whose_nat_gives_it_another_port_is_followed() {
    let mut world = direct();
    let (old, new) = (address_of(2), SocketAddr::from(([10, 0, 0, 2], 61_000)));
    world.translate = moved(old, new);
    let arrived = pings(&mut world, (1, 2), 60);
    assert!(arrived >= 40, "{arrived} of 60 at 10 a second: traffic again within 2 s");
    assert_eq!(path(&world, 1, 2), Some(PathKind::Direct));
    let status = world.gateways[&1].status(world.now);
    assert_eq!(status.peers[0].endpoint, Some(new));
}

#[test]
fn whoever_sends_on_what_a_peer_sent_is_asked_but_gets_no_traffic() {
    let mut world = direct();
    let mallory = SocketAddr::from(([10, 0, 0, 66], 6_666));
    // Mallory sits between them and makes frames of 2 come from its own address, but answers nothing.
    world.translate = Box::new(move |datagram| {
        if datagram.from == address_of(2) && datagram.to == address_of(1) {
            datagram.from = mallory;
        }
    });
    world.capture = Some(Vec::new());
    assert!(pings(&mut world, (1, 2), 100) >= 80);
    let to_mallory: Vec<_> = world.capture.as_ref().unwrap().iter().filter(|datagram| datagram.to == mallory).collect();
    // Answers to probes of 2 that came from there, each no longer than its probe, and a few questions of ours.
    let from_mallory = world.capture.as_ref().unwrap().iter().filter(|datagram| datagram.from == mallory);
    let bytes = |all: &[&Datagram]| all.iter().map(|datagram| datagram.bytes.len()).sum::<usize>();
    assert!(bytes(&to_mallory) <= bytes(&from_mallory.collect::<Vec<_>>()));
    assert!(to_mallory.iter().all(|datagram| datagram.kind() != 0), "no data goes there");
}

#[test]
fn a_peer_that_names_many_places_makes_no_cannon() {
    let mut world = World::with_paths(&[1, 2]);
    let victim = Ipv4Addr::new(203, 0, 113, 5);
    let list: Vec<Candidate> = (0..16)
        .map(|port| Candidate { kind: CandidateKind::Host, endpoint: SocketAddr::from((victim, 1000 + port)) })
        .collect();
    assert_eq!(pings(&mut world, (1, 2), 3), 3);
    world.capture = Some(Vec::new());
    let now = world.now;
    let gateway = world.gateways.get_mut(&2).unwrap();
    let id = gateway.peers.find(ip4(1)).unwrap();
    for number in 0..50 {
        let candidates = Message::Candidates {
            number: 1000 + number,
            acknowledged: 1,
            mapping: Mapping::Unknown,
            list: list.clone(),
        };
        gateway.send_to_peer(now, id, &candidates);
    }
    assert_eq!(pings(&mut world, (1, 2), 90), 90);
    let shots =
        world.capture.as_ref().unwrap().iter().filter(|datagram| datagram.to.ip() == IpAddr::V4(victim)).count();
    assert!((1..=12).contains(&shots), "{shots} datagrams in nine seconds");
}

#[test]
fn whoever_is_pinned_to_the_relay_tells_and_tries_nothing() {
    let mut world = World::with_paths(&[1]);
    world.insert(2, config(2, 1));
    world.run(Duration::from_millis(500));
    world.capture = Some(Vec::new());
    assert_eq!(pings(&mut world, (1, 2), 100), 100);
    assert_eq!(path(&world, 1, 2), Some(PathKind::Relay));
    let straight = |datagram: &&Datagram| datagram.to.ip() == address_of(2).ip() && datagram.from != world.transfer_at;
    assert_eq!(world.capture.as_ref().unwrap().iter().filter(straight).count(), 0);
}

#[test]
fn a_pin_to_the_direct_path_lets_packets_wait_for_it() {
    let mut world = World::with_paths(&[2]);
    world.insert(1, GatewayConfig { path: PathChoice::Direct, ..config(1, 1) });
    world.run(Duration::from_millis(500));
    world.capture = Some(Vec::new());
    assert_eq!(pings(&mut world, (1, 2), 20), 20, "they waited");
    let by_relay = |datagram: &&Datagram| {
        datagram.from == address_of(1) && datagram.to == world.transfer_at && datagram.kind() == 0
    };
    assert_eq!(world.capture.as_ref().unwrap().iter().filter(by_relay).count(), 0);
    let straight = |datagram: &Datagram| datagram.from == address_of(1) && datagram.to == address_of(2);
    world.fate = Box::new(move |datagram| if straight(datagram) { Fate::Drop } else { Fate::Pass });
    pings(&mut world, (1, 2), 30);
    assert_eq!(pings(&mut world, (1, 2), 10), 0, "the relay is not to carry");
}

#[test]
fn peers_talk_on_while_the_transfer_is_away_for_hours() {
    let mut world = direct();
    world.transfer = None;
    for hour in 0..3 {
        assert!(pings(&mut world, (1, 2), 300) >= 299, "hour {hour}");
        for _ in 0..120 {
            world.inside(1, &ping(1, 2, 7));
            world.run(Duration::from_secs(20));
        }
        assert_eq!(path(&world, 1, 2), Some(PathKind::Direct), "hour {hour}");
    }
    let status = world.gateways[&1].status(world.now);
    assert!(status.peers[0].handshake_seconds.unwrap() < 200, "keys are changed without the transfer: {status:?}");
    world.start_transfer(2);
    assert!(pings(&mut world, (1, 2), 200) >= 199);
}
