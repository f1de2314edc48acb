//! A box that forgets, or gets other addresses.

use std::net::Ipv4Addr;

use mesh_sim::net::{NatConfig, Ports};
use mesh_sim::{SiteConfig, seeds};

use crate::scene::{ONE, OPEN, OUTSIDE, PORT, SECOND, Scene, TWO, at};

#[test]
fn after_a_flush_nobody_gets_in_until_something_goes_out() {
    seeds::each(10, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, home, host) = Scene::with_home(seed, kind);
            let one = scene.one;
            let before = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            scene.world.net.flush(home);
            assert_eq!((scene.nat(home).mappings, scene.nat(home).entries), (0, 0));
            assert!(!scene.reaches(one, 1000, before, host), "{kind:?}");
            let after = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            let same = matches!(kind.ports, Ports::Preserved | Ports::Random);
            assert_eq!(before == after, same, "{kind:?}");
            assert!(scene.reaches(one, 1000, after, host), "{kind:?}");
        }
    });
}

#[test]
fn a_rebound_host_is_seen_at_another_port_whatever_the_kind() {
    seeds::each(10, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, home, host) = Scene::with_home(seed, kind);
            let one = scene.one;
            let mut seen = vec![scene.seen(host, PORT, at(ONE, 1000)).unwrap()];
            for _ in 0..3 {
                scene.world.net.rebind(home);
                let last = *seen.last().unwrap();
                assert!(!scene.reaches(one, 1000, last, host), "{kind:?}");
                seen.push(scene.seen(host, PORT, at(ONE, 1000)).unwrap());
                assert_ne!(seen.last(), Some(&last), "{kind:?}");
                assert!(scene.reaches(one, 1000, *seen.last().unwrap(), host), "{kind:?}");
                assert!(!scene.reaches(one, 1000, last, host), "the old one stays shut, {kind:?}");
            }
        }
    });
}

#[test]
fn a_flush_gives_the_ports_back_that_a_rebinding_took() {
    seeds::each(10, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, NatConfig::LINUX);
        let seen = |scene: &mut Scene| scene.seen(host, PORT, at(ONE, 1000)).unwrap();
        assert_eq!(seen(&mut scene), at(OUTSIDE, PORT));
        scene.world.net.rebind(home);
        assert_ne!(seen(&mut scene), at(OUTSIDE, PORT));
        scene.world.net.flush(home);
        assert_eq!(seen(&mut scene), at(OUTSIDE, PORT));
    });
}

#[test]
fn another_outside_address_takes_the_place_of_the_first() {
    seeds::each(10, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, home, host) = Scene::with_home(seed, kind);
            let one = scene.one;
            let before = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            let next = Ipv4Addr::new(198, 51, 100, 8);
            // An answer to the old address is on its way when that goes.
            let sent = scene.world.now();
            let late = scene.send(one, 1000, before);
            scene.world.net.set_outside(home, vec![next]);
            let after = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            assert_eq!((before.ip(), after.ip()), (OUTSIDE.into(), next.into()));
            assert!(scene.reaches(one, 1000, after, host), "{kind:?}");
            assert!(!scene.reaches(one, 1000, before, host), "{kind:?}");
            assert!(scene.arrivals(sent, &late).is_empty(), "{kind:?}");
        }
    });
}

#[test]
fn what_was_forgotten_leaves_no_trace_in_the_table() {
    seeds::each(10, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, home, host) = Scene::with_home(seed, NatConfig { inbound_takes_ports: true, ..kind });
            let (one, two) = (scene.one, scene.two);
            assert!(!scene.reaches(two, 1000, at(OUTSIDE, PORT), host), "it takes the port");
            scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            scene.world.net.flush(home);
            scene.world.run_for(20 * SECOND);
            let outside = scene.seen(host, PORT, at(TWO, 1000)).unwrap();
            if kind.ports == Ports::Preserved {
                assert_eq!(outside, at(OUTSIDE, PORT), "and gives it back, {kind:?}");
            }
            let again = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            let before = scene.nat(home);
            // The time of what was forgotten is over, that of what was made since is not.
            scene.world.run_for(kind.timeouts.unanswered - 10 * SECOND);
            assert_eq!(scene.nat(home), before, "{kind:?}");
            assert!(scene.reaches(one, 1000, again, host), "{kind:?}");
            scene.world.run_for(200 * SECOND);
            assert_eq!((scene.nat(home).mappings, scene.nat(home).entries), (0, 0), "{kind:?}");
        }
    });
}

#[test]
fn hosts_are_paired_anew_with_what_is_left_of_a_pool() {
    seeds::each(10, |seed| {
        let pool = |lasts: std::ops::RangeInclusive<u8>| lasts.map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
        let home = SiteConfig { nat: Some((NatConfig::LINUX, pool(1..=3))), ..SiteConfig::home(OPEN, OUTSIDE) };
        let mut scene = Scene::new(seed);
        let home = scene.world.net.add_site(home);
        let hosts = [10, 11, 12].map(|last| scene.host(home, last));
        let seen =
            |scene: &mut Scene| hosts.map(|host| scene.seen(host, PORT, at(ONE, 1000)).unwrap().ip().to_string());
        assert_eq!(seen(&mut scene), ["198.51.100.1", "198.51.100.2", "198.51.100.3"]);
        scene.world.net.set_outside(home, pool(4..=5));
        assert_eq!(seen(&mut scene), ["198.51.100.4", "198.51.100.5", "198.51.100.4"]);
    });
}
