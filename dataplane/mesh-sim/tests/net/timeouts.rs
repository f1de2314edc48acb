//! How long mappings and entries live, and what keeps them alive (RFC 4787, section 4.3).

use std::time::Duration;

use mesh_sim::net::{Dependence, NatConfig, Timeouts};
use mesh_sim::seeds;

use crate::scene::{ONE, PORT, SECOND, Scene, TWO, at, at4, inside};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_mapping_ends_when_its_time_has_passed_and_not_before() {
    seeds::each(10, |seed| {
        for kind in NatConfig::every_kind() {
            let unanswered = kind.timeouts.unanswered;
            for (late, lives) in [(false, true), (true, false)] {
                let (mut scene, home, host) = Scene::with_home(seed, kind);
                let sent = scene.world.now();
                let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
                // It reaches the box 0.2 ms after it was sent, and an answer needs 10 ms to the box.
                let over = sent + Duration::from_micros(200) + unanswered;
                let wait = over.since(scene.world.now()) - Duration::from_millis(10);
                scene.world.run_for(if late { wait } else { wait - Duration::from_nanos(1) });
                let one = scene.one;
                assert_eq!(scene.reaches(one, 1000, outside, host), lives, "{kind:?}");
                let mappings = scene.nat(home).mappings;
                // Where what comes in refreshes it, it has just been refreshed.
                assert_eq!(mappings, usize::from(lives && kind.timeouts.inbound_refreshes), "{kind:?}");
            }
        }
    });
}

#[test]
fn what_goes_out_keeps_a_mapping_alive() {
    seeds::each(10, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, _, host) = Scene::with_home(seed, kind);
            let outside = scene.seen(host, PORT, at(ONE, 1000));
            for _ in 0..20 {
                scene.world.run_for(29 * SECOND);
                assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), outside, "{kind:?}");
            }
            let one = scene.one;
            assert!(scene.reaches(one, 1000, outside.unwrap(), host), "after ten minutes, {kind:?}");
        }
    });
}

#[test]
fn what_comes_in_keeps_a_mapping_alive_where_it_may() {
    seeds::each(20, |seed| {
        for inbound_refreshes in [false, true] {
            let timeouts = Timeouts { inbound_refreshes, ..Timeouts::outbound_only(2 * MINUTE) };
            let kind = NatConfig { timeouts, ..NatConfig::new(Dependence::Nothing, Dependence::Address) };
            let (mut scene, _, host) = Scene::with_home(seed, kind);
            let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            let one = scene.one;
            let heard = (0..20).filter(|_| {
                scene.world.run_for(30 * SECOND);
                scene.reaches(one, 1000, outside, host)
            });
            let heard = heard.count();
            assert_eq!(heard, if inbound_refreshes { 20 } else { 3 }, "of 20, one each half minute");
        }
    });
}

#[test]
fn an_answered_mapping_lives_longer_on_linux() {
    seeds::each(20, |seed| {
        for (answered, lives) in [(false, false), (true, true)] {
            let (mut scene, home, host) = Scene::with_home(seed, NatConfig::LINUX);
            let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            let one = scene.one;
            if answered {
                assert!(scene.reaches(one, 1000, outside, host));
            }
            scene.world.run_for(100 * SECOND);
            assert_eq!(scene.nat(home).entries, usize::from(answered));
            assert_eq!(scene.reaches(one, 1000, outside, host), lives);
            scene.world.run_for(119 * SECOND);
            assert_eq!(scene.nat(home).entries, usize::from(answered), "refreshed by what came in");
            scene.world.run_for(SECOND);
            assert_eq!(scene.nat(home).entries, 0);
        }
    });
}

#[test]
fn a_remote_that_is_not_sent_to_any_more_is_shut_out_while_the_mapping_lives() {
    seeds::each(20, |seed| {
        for filtering in Dependence::ALL {
            let (mut scene, home, host) = Scene::with_home(seed, NatConfig::new(Dependence::Nothing, filtering));
            let (one, two) = (scene.one, scene.two);
            let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            for _ in 0..5 {
                assert_eq!(scene.seen(host, PORT, at(TWO, 1000)), Some(outside));
                scene.world.run_for(30 * SECOND);
            }
            assert!(scene.reaches(two, 1000, outside, host));
            assert_eq!(scene.reaches(one, 1000, outside, host), filtering == Dependence::Nothing, "{filtering:?}");
            assert_eq!((scene.nat(home).mappings, scene.nat(home).entries), (1, 1));
        }
    });
}

#[test]
fn a_forgotten_mapping_is_made_anew() {
    seeds::each(20, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, NatConfig::LINUX_FULLY_RANDOM);
        let socket = at4(inside(10), PORT);
        let first = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
        assert_eq!(scene.mapping(home, socket, at4(ONE, 1000)), Some(first));
        scene.world.run_for(31 * SECOND);
        assert_eq!(scene.mapping(home, socket, at4(ONE, 1000)), None);
        let second = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
        assert_ne!(first, second, "it is drawn anew");
        let one = scene.one;
        assert!(scene.reaches(one, 1000, second, host) && !scene.reaches(one, 1000, first, host));
    });
}
