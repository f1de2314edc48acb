//! What befalls hosts: they sleep, move, lose their network, open and close sockets.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_core::seam::SocketId;
use mesh_sim::world::Family;
use mesh_sim::{Link, Place, SiteConfig, seeds};

use crate::scene::{ONE, OPEN, OUTSIDE, PORT, SECOND, STRICT, Scene, TWO, at, inside};

#[test]
fn a_suspended_host_hears_nothing_and_says_nothing_until_it_wakes() {
    seeds::each(20, |seed| {
        let (mut scene, _, host) = Scene::with_home(seed, OPEN);
        let one = scene.one;
        let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
        scene.world.suspend(host, 10 * SECOND);
        let start = scene.world.now();
        let lost = scene.send(one, 1000, outside);
        scene.world.run_for(5 * SECOND);
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), None, "it sends nothing");
        assert!(scene.arrivals(start, &lost).is_empty());
        // The way from the Internet takes 10.2 ms.
        let wakes = start + 10 * SECOND;
        scene.world.run_until(wakes);
        assert!(scene.reaches(one, 1000, outside, host), "awake");
        assert!(scene.arrivals(start, &lost).is_empty(), "what came meanwhile is lost for good");
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(outside));
    });
}

#[test]
fn what_is_on_its_way_while_a_host_falls_asleep_or_wakes_counts_when_it_arrives() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let (one, two) = (scene.one, scene.two);
        let start = scene.world.now();
        let early = scene.send(one, 1000, at(TWO, 1000));
        scene.world.run_for(Duration::from_millis(9));
        scene.world.suspend(two, Duration::from_millis(100));
        scene.world.suspend(two, Duration::from_millis(50));
        scene.world.run_for(Duration::from_millis(61));
        let between = scene.send(one, 1000, at(TWO, 1000));
        scene.world.run_for(Duration::from_millis(31));
        let late = scene.send(one, 1000, at(TWO, 1000));
        scene.world.run_for(SECOND);
        assert!(scene.arrivals(start, &early).is_empty(), "1 ms too late");
        assert!(scene.arrivals(start, &between).is_empty(), "between both times");
        assert_eq!(scene.arrivals(start, &late).len(), 1, "1 ms after it woke, at the later of both times");
    });
}

#[test]
fn a_host_that_moves_is_found_where_it_is() {
    seeds::each(20, |seed| {
        let (mut scene, _, host) = Scene::with_home(seed, OPEN);
        let one = scene.one;
        let other = Ipv4Addr::new(198, 51, 100, 8);
        let office = scene.world.net.add_site(SiteConfig::home(STRICT, other));
        let old = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
        let sent = scene.world.now();
        let late = scene.send(one, 1000, old);
        scene.world.move_node(host, Place::inside(office, inside(44).into()));
        assert_eq!(scene.world.addresses(host), [inside(44)]);
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)).unwrap().ip(), other);
        assert!(!scene.reaches(one, 1000, old, host));
        assert!(scene.arrivals(sent, &late).is_empty(), "what was on its way to the old place is lost");

        let public = Ipv4Addr::new(198, 51, 100, 9);
        scene.world.move_node(host, Place::public(public.into(), Link::CLEAN));
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(at(public, PORT)));
        assert!(scene.reaches(one, 1000, at(public, PORT), host));
    });
}

#[test]
fn a_host_can_change_its_address_and_another_take_the_old_one() {
    seeds::each(10, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, OPEN);
        let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
        scene.world.move_node(host, Place::inside(home, inside(20).into()));
        let heir = scene.host(home, 10);
        let one = scene.one;
        assert!(scene.reaches(one, 1000, outside, heir), "the box knows addresses, not hosts");
        assert!(scene.reaches(heir, PORT, at(inside(20), PORT), host));
    });
}

#[test]
fn a_host_without_its_interface_has_no_address() {
    seeds::each(10, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, OPEN);
        let other = scene.host(home, 11);
        let one = scene.one;
        let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
        let sent = scene.world.now();
        let late = scene.send(one, 1000, outside);
        scene.world.set_interface(host, false);
        assert_eq!(scene.world.addresses(host), Vec::<std::net::IpAddr>::new());
        let unsent = scene.world.wiretap.unsent;
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), None);
        assert_eq!(scene.world.wiretap.unsent, unsent + 1, "its kernel knows no way");
        assert!(scene.arrivals(sent, &late).is_empty());
        assert!(!scene.reaches(other, PORT, at(inside(10), PORT), host));
        assert!(!scene.reaches(other, PORT, at(Ipv4Addr::BROADCAST, PORT), host));
        scene.world.set_interface(host, true);
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(outside));
        assert!(scene.reaches(one, 1000, outside, host));
        assert!(scene.reaches(other, PORT, at(Ipv4Addr::BROADCAST, PORT), host));
    });
}

#[test]
fn what_comes_to_a_host_that_has_lost_the_address_meanwhile_is_lost() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let (one, two) = (scene.one, scene.two);
        let start = scene.world.now();
        let moved = scene.send(one, 1000, at(TWO, 1000));
        let other = Ipv4Addr::new(203, 0, 113, 3);
        scene.world.move_node(two, Place::public(other.into(), Link::CLEAN));
        scene.world.run_for(SECOND);
        assert!(scene.arrivals(start, &moved).is_empty());
        let down = scene.send(one, 1000, at(other, 1000));
        scene.world.set_interface(two, false);
        scene.world.run_for(SECOND);
        assert!(scene.arrivals(start, &down).is_empty());
        scene.world.set_interface(two, true);
        assert!(scene.reaches(one, 1000, at(other, 1000), two));
    });
}

#[test]
fn the_address_of_a_killed_node_is_free() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let (one, two) = (scene.one, scene.two);
        scene.world.kill(two);
        let heir = scene.world.add_probe(Place::public(TWO.into(), Link::CLEAN), &[1000]);
        scene.world.probe(one, 1000, at(TWO, 1000), b"who is there?");
        scene.world.run_for(SECOND);
        assert_eq!(scene.world.take_heard(heir).len(), 1);
    });
}

#[test]
fn sockets_come_and_go() {
    seeds::each(20, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, OPEN);
        let one = scene.one;
        let mut ports = vec![PORT, PORT + 1];
        for number in 2..258 {
            ports.push(scene.world.open_socket(host, SocketId(number), Family::Both, 0));
        }
        assert!(ports[2..].iter().all(|port| (32_768..61_000).contains(port)), "{ports:?}");
        let outside: Vec<_> = ports.iter().map(|port| scene.seen(host, *port, at(ONE, 1000)).unwrap()).collect();
        assert_eq!(scene.nat(home).mappings, 258, "each its own");
        for number in (2..258).step_by(2) {
            scene.world.close_socket(host, SocketId(number));
        }
        for (number, (port, outside)) in ports.iter().zip(&outside).enumerate() {
            let open = number < 2 || number % 2 == 1;
            let arrivals = scene.carry(one, 1000, *outside);
            let to: Vec<u16> = arrivals.iter().map(|arrival| arrival.to.port()).collect();
            assert_eq!(to, if open { vec![*port] } else { vec![] });
        }
        let again = scene.world.open_socket(host, SocketId(2), Family::Ipv4, 4433);
        assert_eq!(again, 4433);
        assert_eq!(scene.seen(host, 4433, at(TWO, 1000)), Some(at(OUTSIDE, 4433)));
    });
}
