//! From one inside host to another by way of their outside addresses (RFC 4787, section 6).

use mesh_sim::net::{Dependence, Hairpin, NatConfig};
use mesh_sim::{NodeId, SiteId, seeds};

use crate::scene::{ONE, OUTSIDE, PORT, Scene, at, at4, inside, v4};

/// Two hosts of a home whose box hairpins in this way.
fn pair(seed: u64, kind: NatConfig, hairpin: Hairpin) -> (Scene, SiteId, [NodeId; 2]) {
    let (mut scene, home, host) = Scene::with_home(seed, NatConfig { hairpin, ..kind });
    let other = scene.host(home, 11);
    (scene, home, [host, other])
}

/// The kinds that can hairpin: those that do not share ports.
fn turning() -> impl Iterator<Item = NatConfig> {
    NatConfig::every_kind().into_iter().filter(|kind| !kind.shared_ports)
}

#[test]
fn without_hairpinning_nothing_comes_back_and_nothing_is_remembered() {
    seeds::each(10, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, home, [host, other]) = pair(seed, kind, Hairpin::None);
            let outside = scene.seen(other, PORT, at(ONE, 1000)).unwrap();
            let before = scene.nat(home);
            assert!(!scene.reaches(host, PORT, outside, other), "{kind:?}");
            assert_eq!(scene.nat(home), before, "{kind:?}");
        }
    });
}

#[test]
fn internal_source_shows_the_inside_address_and_asks_no_filter() {
    seeds::each(10, |seed| {
        for kind in turning() {
            let (mut scene, home, [host, other]) = pair(seed, kind, Hairpin::InternalSource);
            let outside = scene.seen(other, PORT, at(ONE, 1000)).unwrap();
            let arrivals = scene.carry(host, PORT, outside);
            assert_eq!(arrivals.len(), 1, "{kind:?}");
            assert_eq!((arrivals[0].node, arrivals[0].from), (other, at(inside(10), PORT)), "{kind:?}");
            assert_eq!(scene.nat(home).mappings, 1, "none for the sender, {kind:?}");
            assert!(!scene.reaches(host, PORT, at(OUTSIDE, outside.port() ^ 1), other), "no such port, {kind:?}");
        }
    });
}

#[test]
fn external_source_shows_the_outside_address_and_is_filtered_as_any_other() {
    seeds::each(10, |seed| {
        for kind in turning() {
            let (mut scene, home, [host, other]) = pair(seed, kind, Hairpin::ExternalSource);
            let outside = scene.seen(other, PORT, at(ONE, 1000)).unwrap();
            let open = kind.filtering == Dependence::Nothing;
            assert_eq!(scene.reaches(host, PORT, outside, other), open, "nobody asked for it, {kind:?}");

            // Be it that nothing got through: the sender has a mapping now. The other one sends there.
            let own = scene.mapping(home, at4(inside(10), PORT), v4(outside)).unwrap();
            let one_address = kind.mapping == Dependence::Nothing;
            let back = scene.carry(other, PORT, own);
            let gets_back = one_address || kind.filtering != Dependence::AddressAndPort;
            assert_eq!(back.len(), usize::from(gets_back), "{kind:?}");
            for arrival in &back {
                assert_eq!((arrival.node, arrival.from == outside), (host, one_address), "{kind:?}");
                assert_eq!(arrival.from.ip(), outside.ip(), "{kind:?}");
            }

            // Which opens its mapping, if that is the one that the first knows.
            let arrivals = scene.carry(host, PORT, outside);
            assert_eq!(arrivals.len(), usize::from(open || one_address), "{kind:?}");
            assert!(arrivals.iter().all(|arrival| (arrival.node, arrival.from) == (other, own)), "{kind:?}");
        }
    });
}

#[test]
fn inside_hosts_need_no_hairpinning_by_their_private_addresses() {
    seeds::each(10, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, home, [host, other]) = pair(seed, kind, kind.hairpin);
            let arrivals = scene.carry(host, PORT, at(inside(11), PORT));
            assert_eq!((arrivals[0].node, arrivals[0].from), (other, at(inside(10), PORT)));
            assert_eq!(scene.nat(home).entries, 0, "the box has no part in it");
        }
    });
}
