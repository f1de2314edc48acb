//! A box that forgets, or gets other addresses.

use std::net::Ipv4Addr;

use mesh_sim::net::{NatConfig, Ports};
use mesh_sim::seeds;

use crate::scene::{ONE, OUTSIDE, PORT, Scene, at};

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
