//! Peers that can be reached are reached: what stands between them is lost, silent or begins anew.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::packets::ping;
use super::straight::{direct, is_straight, local, neighbour, path, pings, with_port};
use super::world::{CONTROL, Datagram, Fate, World, address_of, config, ip4};
use crate::gateway::{GatewayConfig, LocalAddress, PathChoice, PathKind};

#[test]
fn a_neighbour_that_the_transfer_does_not_know_is_reached_and_not_asked_for_all_the_time() {
    for late in [0, 1, 20, 100] {
        let mut world = World::empty();
        world.start_transfer(1);
        let transfer = world.transfer_at;
        // The second one cannot reach the transfer; the first one can, in no time.
        world.fate = Box::new(move |datagram| {
            let of_transfer = !is_straight(datagram, transfer);
            let of_second = datagram.from == address_of(2) || datagram.to == address_of(2);
            match (of_transfer, of_second) {
                (true, true) => Fate::Drop,
                (true, false) => Fate::Pass,
                (false, _) => Fate::Late(Duration::from_millis(late)),
            }
        });
        neighbour(&mut world, 1, 1, PathChoice::Auto);
        neighbour(&mut world, 2, 1, PathChoice::Auto);
        world.run(Duration::from_secs(2));
        let arrived = pings(&mut world, (1, 2), 50);
        assert!(arrived >= 48, "{arrived} of 50, {late} ms");
        world.capture = Some(Vec::new());
        let arrived = pings(&mut world, (1, 2), 300);
        assert_eq!(arrived, 300, "{late} ms");
        let asked = |one: &&Datagram| one.from == address_of(1) && one.to == transfer && one.kind() == CONTROL;
        let asked = world.capture.as_ref().unwrap().iter().filter(asked).count();
        assert!(asked <= 40, "{asked} messages to the transfer in 30 s, {late} ms");
    }
}

#[test]
fn who_only_answers_leaves_a_path_that_died_while_nobody_used_it() {
    let mut world = direct();
    world.run(Duration::from_secs(100));
    let transfer = world.transfer_at;
    world.fate = Box::new(move |one| if is_straight(one, transfer) { Fate::Drop } else { Fate::Pass });
    // The second one answers each packet.
    let before = world.packets(1);
    for number in 0..60 {
        let heard = world.packets(2);
        world.inside(1, &ping(1, 2, number));
        for _ in 0..10 {
            world.run(Duration::from_millis(10));
        }
        for _ in heard..world.packets(2) {
            world.inside(2, &ping(2, 1, number));
        }
    }
    let answers = world.packets(1) - before;
    assert!(answers >= 30, "{answers} of 60 answers at 10 a second: back within 3 s");
}

#[test]
fn a_handshake_that_began_straight_ends_straight_when_the_relay_is_back_meanwhile() {
    let mut world = World::empty();
    world.start_transfer(1);
    neighbour(&mut world, 1, 1, PathChoice::Auto);
    neighbour(&mut world, 2, 1, PathChoice::Auto);
    world.run(Duration::from_secs(2));
    assert_eq!(pings(&mut world, (1, 2), 10), 10);
    world.run(Duration::from_secs(200));
    // The transfer is away until the answer to the first message is on its way.
    let (away, transfer) = (Rc::new(Cell::new(true)), world.transfer_at);
    let back = away.clone();
    world.fate =
        Box::new(move |datagram| if away.get() && !is_straight(datagram, transfer) { Fate::Drop } else { Fate::Pass });
    world.run(Duration::from_secs(30));
    world.inside(1, &ping(1, 2, 1));
    world.capture = Some(Vec::new());
    let answered = world.run_until(Duration::from_secs(3), |world| {
        let capture = world.capture.as_ref().unwrap();
        capture.iter().any(|one| one.kind() == 2 && one.from == address_of(2) && one.to == address_of(1))
    });
    assert!(answered.is_some());
    // It is known to be there at once, though no word of it came yet.
    back.set(false);
    let relay = &mut world.gateways.get_mut(&1).unwrap().relay;
    relay.keepalives.misses = 0;
    relay.attempt = None;
    relay.attempt_at = None;
    assert!(relay.is_healthy());
    let took = world.run_until(Duration::from_secs(5), |world| world.packets(2) == 11);
    assert!(took.is_some_and(|took| took < Duration::from_millis(100)), "{took:?}");
}

#[test]
fn a_neighbour_whose_way_to_the_transfer_is_cut_is_reached_on_the_local_network() {
    let mut world = World::empty();
    world.start_transfer(1);
    neighbour(&mut world, 1, 1, PathChoice::Auto);
    neighbour(&mut world, 2, 1, PathChoice::Auto);
    world.run(Duration::from_secs(3));
    let transfer = world.transfer_at;
    // The transfer still vouches for the second one, which hears and says nothing there.
    world.fate = Box::new(move |datagram| {
        let of_second = datagram.from == address_of(2) || datagram.to == address_of(2);
        if !is_straight(datagram, transfer) && of_second { Fate::Drop } else { Fate::Pass }
    });
    let arrived = pings(&mut world, (1, 2), 60);
    // The second one has to find out first that nobody will tell it who that is.
    assert!(arrived >= 35, "{arrived} of 60 at 10 a second: within 2.5 s");
    assert_eq!(path(&world, 1, 2), Some(PathKind::Lan));
}

#[test]
fn who_has_to_go_straight_is_back_soon_after_a_long_outage() {
    for outage in [5, 60, 300] {
        let mut world = World::with_paths(&[2]);
        world.insert(1, GatewayConfig { path: PathChoice::Direct, ..config(1, 1) });
        world.run(Duration::from_millis(500));
        assert_eq!(pings(&mut world, (1, 2), 50), 50);
        let transfer = world.transfer_at;
        world.fate = Box::new(move |one| if is_straight(one, transfer) { Fate::Drop } else { Fate::Pass });
        pings(&mut world, (1, 2), outage * 10);
        world.fate = Box::new(|_| Fate::Pass);
        let arrived = pings(&mut world, (1, 2), 50);
        // Those of the last seconds of the outage waited.
        assert!(arrived >= 40, "{arrived} of 50 after {outage} s");
    }
}

#[test]
fn a_peer_that_began_anew_is_believed_where_it_is_now() {
    let mut world = World::empty();
    for number in [1, 2] {
        neighbour(&mut world, number, 1, PathChoice::Auto);
    }
    assert_eq!(pings(&mut world, (1, 2), 30), 30);
    // Its places change a few times, so that their list has a high number.
    for host in 0..5 {
        let now = world.now;
        let extra = LocalAddress { address: IpAddr::from([10, 0, 0, 200 + host]), prefix: 24, interface: 3 };
        world.gateways.get_mut(&2).unwrap().network_changed(now, &[local(2), extra]);
        assert!(pings(&mut world, (1, 2), 10) >= 9);
    }
    // It begins anew while nobody talks, and the first one hears of that by a beacon.
    world.run(Duration::from_secs(40));
    neighbour(&mut world, 2, 2, PathChoice::Auto);
    world.run(Duration::from_secs(2));
    assert!(pings(&mut world, (1, 2), 30) >= 29);
    let gateway = &world.gateways[&1];
    let peer = gateway.peers.get(gateway.peers.find(ip4(2)).unwrap()).unwrap();
    assert_eq!(peer.exchange.theirs, world.gateways[&2].candidates.number());
}

#[test]
fn whoever_talks_straight_without_a_transfer_is_not_forgotten_in_a_pause() {
    let mut world = direct();
    world.transfer = None;
    assert!(pings(&mut world, (1, 2), 100) >= 99);
    world.run(Duration::from_secs(900));
    let arrived = pings(&mut world, (1, 2), 50);
    assert!(arrived >= 45, "{arrived} of 50");
}

#[test]
fn a_peer_that_is_pinned_to_the_relay_is_asked_by_the_relay_alone() {
    let mut world = World::empty();
    world.start_transfer(1);
    neighbour(&mut world, 2, 1, PathChoice::Auto);
    let pins = vec![(ip4(2), PathChoice::Relay)];
    world.insert(1, GatewayConfig { pins, ..with_port(1, 1, PathChoice::Auto) });
    world.run(Duration::from_secs(21));
    world.transfer = None;
    world.run(Duration::from_secs(10));
    world.capture = Some(Vec::new());
    pings(&mut world, (1, 2), 50);
    let straight = |one: &&Datagram| one.from == address_of(1) && one.to == address_of(2);
    assert_eq!(world.capture.as_ref().unwrap().iter().filter(straight).count(), 0);
}

#[test]
fn many_who_see_each_another_port_of_ours_do_not_make_us_tell_all_the_time() {
    let numbers: Vec<u8> = (1..=14).collect();
    let mut world = World::with_paths(&numbers);
    // The first one is behind a NAT with a port for each destination.
    world.translate = Box::new(move |datagram| {
        let own = address_of(1).ip();
        if datagram.from == address_of(1) {
            let IpAddr::V4(to) = datagram.to.ip() else { return };
            datagram.from = SocketAddr::new(own, 10_000 + u16::from(to.octets()[3]));
        } else if datagram.to.ip() == own && datagram.to.port() >= 10_000 {
            datagram.to = address_of(1);
        } else if datagram.to.ip() == own {
            datagram.to = SocketAddr::from(([10, 9, 9, 9], 9));
        }
    });
    world.run(Duration::from_secs(30));
    for round in 0..100 {
        for &number in &numbers[1..] {
            world.inside(1, &ping(1, number, round));
        }
        world.run(Duration::from_millis(100));
    }
    assert_eq!(path(&world, 1, 14), Some(PathKind::Direct));
    let before = world.gateways[&1].candidates.number();
    for round in 0..200 {
        for &number in &numbers[1..] {
            world.inside(1, &ping(1, number, round));
        }
        world.run(Duration::from_millis(100));
    }
    let lists = world.gateways[&1].candidates.number() - before;
    assert!(lists <= 2, "{lists} lists in 20 s, each told to all");
}

#[test]
fn no_gateway_looks_at_the_same_thing_over_and_over() {
    let transfer: SocketAddr = "192.0.2.1:8000".parse().unwrap();
    for (choice, other) in [
        (PathChoice::Auto, PathChoice::Auto),
        (PathChoice::Direct, PathChoice::Auto),
        (PathChoice::Lan, PathChoice::Direct),
        (PathChoice::Auto, PathChoice::Relay),
    ] {
        for scene in 0..16_u32 {
            let mut world = World::empty();
            world.start_transfer(1);
            neighbour(&mut world, 1, 1, choice);
            neighbour(&mut world, 2, 1, other);
            world.run(Duration::from_secs(2));
            let mut seconds = 0;
            for phase in 0..6 {
                // What is cut, and for how long nobody talks, in all orders.
                let what = (scene + 7 * phase) % 16;
                world.fate = Box::new(move |one| {
                    let straight = is_straight(one, transfer);
                    let back = one.from == address_of(2);
                    let of_second = back || one.to == address_of(2);
                    let cut = match what % 8 {
                        0 => false,
                        1 => straight,
                        2 => straight && back,
                        3 => !straight && of_second,
                        4 => !straight,
                        5 => true,
                        6 => of_second,
                        _ => straight && !back,
                    };
                    if cut { Fate::Drop } else { Fate::Pass }
                });
                if what == 9 {
                    world.start_transfer(u64::from(phase) + 2);
                }
                if what == 12 {
                    neighbour(&mut world, 2, u64::from(phase) + 2, other);
                }
                let before = world.woken;
                pings(&mut world, (1, 2), 200);
                pings(&mut world, (2, 1), 50);
                world.run(Duration::from_secs([1, 40, 200][what as usize % 3]));
                seconds += 26 + [1, 40, 200][what as usize % 3];
                let woken = world.woken - before;
                assert!(woken <= 26 * 60 + 200 * 4, "{woken} in scene {scene}, phase {phase}, {choice:?}");
            }
            // After all of that, and with everything there, they talk.
            world.fate = Box::new(|_| Fate::Pass);
            pings(&mut world, (1, 2), 150);
            if choice != PathChoice::Lan || other != PathChoice::Relay {
                let arrived = pings(&mut world, (1, 2), 20);
                assert!(arrived >= 20, "{arrived} of 20 after {seconds} s, scene {scene}, {choice:?}");
            }
        }
    }
}
