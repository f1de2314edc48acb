//! Pairs of points with a way of their own, and ways that are shut; changed while the world runs.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_sim::{Link, NodeId, Place, SiteConfig, seeds};

use crate::scene::{ONE, OPEN, OUTSIDE, PORT, SECOND, Scene, TWO, at, inside};

const RELAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

const fn link(millis: u64) -> Link {
    Link { delay: Duration::from_millis(millis), ..Link::CLEAN }
}

/// Sends 1000 datagrams: how many arrive, and how long they take if that is always the same.
fn thousand(scene: &mut Scene, from: NodeId, port: u16, to: std::net::SocketAddr, hearer: NodeId) -> (usize, Duration) {
    let sent = scene.world.now();
    for _ in 0..1000 {
        scene.send(from, port, to);
    }
    scene.world.run_for(SECOND);
    let heard = scene.world.take_heard(hearer);
    let took = heard.first().map_or(Duration::ZERO, |heard| heard.at.since(sent));
    assert!(heard.iter().all(|heard| heard.at.since(sent) == took));
    (heard.len(), took)
}

#[test]
fn the_direct_way_can_be_quick_and_lossy_while_both_ways_to_the_relay_are_clean() {
    seeds::each(20, |seed| {
        let mut scene = Scene::new(seed);
        let relay = scene.add(Place::public(RELAY.into(), link(10)), &[1000]);
        // Both homes' uplinks are such that 20 ms is right for the relay.
        let [one, two] = [1, 2].map(|last| {
            let outside = Ipv4Addr::new(198, 51, 100, last);
            let home = SiteConfig { link: link(10), lan: Link::CABLE, ..SiteConfig::home(OPEN, outside) };
            let site = scene.world.net.add_site(home);
            (scene.host(site, 10), site)
        });
        let outside = [one.0, two.0].map(|host| scene.seen(host, PORT, at(RELAY, 1000)).unwrap());
        scene.world.net.set_path(one.0, two.1, Link { loss: 0.3, ..link(10) });

        for (from, to, hearer) in [(one.0, outside[1], two.0), (two.0, outside[0], one.0)] {
            let (count, took) = thousand(&mut scene, from, PORT, to, hearer);
            assert_eq!(took, Duration::from_millis(10));
            // 700 with a standard deviation of 15.
            assert!((610..790).contains(&count), "{count}");
        }
        for host in [one.0, two.0] {
            let to_relay = thousand(&mut scene, host, PORT, at(RELAY, 1000), relay);
            assert_eq!(to_relay, (1000, Duration::from_millis(20)));
        }
        for (to, hearer) in [(outside[0], one.0), (outside[1], two.0)] {
            assert_eq!(thousand(&mut scene, relay, 1000, to, hearer), (1000, Duration::from_millis(20)));
        }
        scene.world.net.clear_path(two.0, one.0);
        let again = thousand(&mut scene, one.0, PORT, outside[1], two.0);
        assert_eq!(again, (1000, Duration::from_millis(20)), "what the links make of it");
    });
}

#[test]
fn a_path_may_differ_by_direction() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let (one, two) = (scene.one, scene.two);
        scene.world.net.set_path_one_way(one, two, link(70));
        assert_eq!(thousand(&mut scene, one, 1000, at(TWO, 1000), two), (1000, Duration::from_millis(70)));
        assert_eq!(thousand(&mut scene, two, 1000, at(ONE, 1000), one), (1000, Duration::from_millis(10)));
    });
}

#[test]
fn links_still_count_where_they_are_down_or_narrow() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let (one, two) = (scene.one, scene.two);
        scene.world.net.set_path(one, two, link(1));
        let arrives = |scene: &mut Scene, ip_bytes: usize| {
            scene.world.probe(one, 1000, at(TWO, 1000), &vec![0; ip_bytes - 28]);
            scene.world.run_for(SECOND);
            scene.world.take_heard(two).len() == 1
        };
        assert!(arrives(&mut scene, 1500) && !arrives(&mut scene, 1501), "the path's own");
        scene.world.set_link(two, Link { mtu: 1280, ..Link::CLEAN });
        assert!(arrives(&mut scene, 1280) && !arrives(&mut scene, 1281));
        scene.world.set_link(two, Link { up: false, ..Link::CLEAN });
        assert!(!arrives(&mut scene, 100));
        scene.world.set_link(two, Link::CLEAN);
        assert!(arrives(&mut scene, 100));
    });
}

#[test]
fn one_direction_can_be_blocked() {
    seeds::each(10, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, OPEN);
        let (one, two) = (scene.one, scene.two);
        let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
        scene.world.net.set_blocked(one, host, true);
        assert!(!scene.reaches(one, 1000, outside, host));
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(outside), "the other direction is open");
        assert!(scene.reaches(two, 1000, outside, host), "and so are other pairs");
        // What was set for the pair is there when it opens again.
        scene.world.net.set_path(one, home, link(33));
        assert!(!scene.reaches(one, 1000, outside, host));
        scene.world.net.set_blocked(one, host, false);
        assert_eq!(scene.carry(one, 1000, outside)[0].took, Duration::from_micros(33_200));
    });
}

#[test]
fn a_box_can_block_udp() {
    seeds::each(10, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, OPEN);
        let other = scene.host(home, 11);
        let one = scene.one;
        let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
        scene.world.net.set_udp_blocked(home, true);
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), None);
        assert!(!scene.reaches(one, 1000, outside, host));
        assert!(scene.reaches(host, PORT, at(inside(11), PORT), other), "not on the LAN");
        scene.world.net.set_udp_blocked(home, false);
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(outside));
        assert!(scene.reaches(one, 1000, outside, host));
    });
}

#[test]
fn a_pair_keeps_its_way_when_an_address_changes() {
    seeds::each(10, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, OPEN);
        let one = scene.one;
        scene.world.net.set_path(host, one, link(33));
        for outside in [OUTSIDE, Ipv4Addr::new(198, 51, 100, 99)] {
            scene.world.net.set_outside(home, vec![outside]);
            let arrivals = scene.carry(host, PORT, at(ONE, 1000));
            let arrival = arrivals.first().unwrap();
            assert_eq!((arrival.from, arrival.took), (at(outside, PORT), Duration::from_micros(33_200)));
        }
    });
}

#[test]
fn jitter_and_duplicates_of_a_path_are_drawn_for_each_datagram() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let (one, two) = (scene.one, scene.two);
        scene.world.net.set_path(one, two, Link { jitter: Duration::from_millis(10), duplication: 0.5, ..link(20) });
        let sent: Vec<_> = (0..1000).map(|_| scene.send(one, 1000, at(TWO, 1000))).collect();
        let start = scene.world.now();
        scene.world.run_for(SECOND);
        let heard = scene.world.take_heard(two);
        // 1500 with a standard deviation of 16.
        assert!((1400..1600).contains(&heard.len()), "{}", heard.len());
        let took = heard.iter().map(|heard| heard.at.since(start));
        assert!(took.clone().all(|took| (20..30).contains(&took.as_millis())));
        assert!(took.clone().max() > took.min().map(|least| least + Duration::from_millis(9)));
        let first: Vec<_> = heard.iter().map(|heard| heard.bytes.clone()).collect();
        assert!(!first.is_sorted(), "they overtake each other");
        assert!(sent.iter().all(|sent| first.iter().any(|heard| heard == sent)), "none is lost");
    });
}
