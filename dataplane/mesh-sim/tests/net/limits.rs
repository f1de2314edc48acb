//! How much a box can remember, and what becomes of what is too much.

use mesh_sim::net::{Dependence, NatConfig};
use mesh_sim::seeds;

use crate::scene::{ONE, OUTSIDE, PORT, SECOND, STRICT, Scene, TWO, at, at4, inside};

#[test]
fn a_full_table_refuses_new_entries_and_serves_those_it_has() {
    seeds::each(10, |seed| {
        for kind in NatConfig::every_kind() {
            let kind = NatConfig { entries_max: 100, ..kind };
            let (mut scene, home, host) = Scene::with_home(seed, kind);
            let (one, two) = (scene.one, scene.two);
            let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            for port in 2000..2150 {
                scene.send(host, PORT, at(ONE, port));
            }
            scene.world.run_for(SECOND);
            let status = scene.nat(home);
            assert_eq!((status.entries, status.entries_peak, status.refused), (100, 100, 51), "{kind:?}");
            let one_each = kind.mapping == Dependence::AddressAndPort;
            assert_eq!(status.mappings_peak, if one_each { 100 } else { 1 }, "{kind:?}");
            assert_eq!(scene.seen(host, PORT, at(TWO, 1000)), None, "there is no place, {kind:?}");
            assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(outside), "what is known goes on, {kind:?}");
            assert!(scene.reaches(one, 1000, outside, host), "{kind:?}");
            scene.world.run_for(121 * SECOND);
            assert!(scene.seen(host, PORT, at(TWO, 1000)).is_some(), "places come back, {kind:?}");
            let status = scene.nat(home);
            assert_eq!((status.entries, status.entries_peak, status.refused), (1, 100, 52), "the peak stays, {kind:?}");
            let again = scene.mapping(home, at4(inside(10), PORT), at4(TWO, 1000));
            assert!(scene.reaches(two, 1000, again.unwrap(), host), "{kind:?}");
        }
    });
}

#[test]
fn mappings_have_a_limit_of_their_own() {
    seeds::each(20, |seed| {
        let kind = NatConfig { mappings_max: 3, mapping: Dependence::Address, ..STRICT };
        let (mut scene, home, host) = Scene::with_home(seed, kind);
        assert!(scene.seen(host, PORT, at(ONE, 1000)).is_some());
        assert!(scene.seen(host, PORT, at(TWO, 1000)).is_some());
        assert!(scene.seen(host, PORT + 1, at(ONE, 1000)).is_some());
        assert_eq!(scene.seen(host, PORT + 1, at(TWO, 1000)), None, "a fourth");
        assert!(scene.seen(host, PORT, at(ONE, 1001)).is_some(), "an entry of the first is none");
        let status = scene.nat(home);
        assert_eq!((status.mappings, status.entries, status.refused), (3, 4, 1));
    });
}

#[test]
fn ports_taken_from_outside_count_and_cannot_overfill_the_table() {
    seeds::each(20, |seed| {
        let kind = NatConfig { entries_max: 10, inbound_takes_ports: true, ..NatConfig::LINUX };
        let (mut scene, home, host) = Scene::with_home(seed, kind);
        let one = scene.one;
        for port in 2000..2030 {
            scene.send(one, 1000, at(OUTSIDE, port));
        }
        scene.world.run_for(SECOND);
        let status = scene.nat(home);
        assert_eq!((status.entries, status.entries_peak, status.mappings), (10, 10, 0));
        assert_eq!(scene.seen(host, PORT, at(TWO, 1000)), None, "a stranger can fill such a table");
        scene.world.run_for(30 * SECOND);
        assert!(scene.seen(host, PORT, at(TWO, 1000)).is_some(), "for as long as unanswered entries live");
    });
}
