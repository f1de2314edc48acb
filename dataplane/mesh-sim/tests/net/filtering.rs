//! Which remotes get in (RFC 4787, section 5).

use mesh_sim::net::{Dependence, NatConfig};
use mesh_sim::seeds;

use crate::scene::{ONE, OUTSIDE, PORT, STRICT, Scene, TWO, at};

#[test]
fn remotes_get_in_as_the_kind_says() {
    seeds::each(20, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, _, host) = Scene::with_home(seed, kind);
            let (one, two) = (scene.one, scene.two);
            let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            assert!(scene.reaches(one, 1000, outside, host), "the one that was asked, {kind:?}");
            let other_port = scene.reaches(one, 1001, outside, host);
            assert_eq!(other_port, kind.filtering != Dependence::AddressAndPort, "another port of it, {kind:?}");
            let other_address = scene.reaches(two, 1000, outside, host);
            assert_eq!(other_address, kind.filtering == Dependence::Nothing, "someone else, {kind:?}");
        }
    });
}

#[test]
fn a_remote_gets_in_once_it_was_sent_to() {
    seeds::each(20, |seed| {
        for filtering in Dependence::ALL {
            let (mut scene, _, host) = Scene::with_home(seed, NatConfig::new(Dependence::Nothing, filtering));
            let (one, two) = (scene.one, scene.two);
            let outside = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            assert_eq!(scene.seen(host, PORT, at(TWO, 1001)), Some(outside), "the mapping is the same");
            assert!(scene.reaches(two, 1001, outside, host), "{filtering:?}");
            assert_eq!(scene.reaches(two, 1000, outside, host), filtering != Dependence::AddressAndPort);
            assert!(scene.reaches(one, 1000, outside, host), "and the first still does");
        }
    });
}

#[test]
fn what_was_sent_by_another_mapping_opens_nothing() {
    seeds::each(20, |seed| {
        for filtering in [Dependence::Address, Dependence::AddressAndPort] {
            let (mut scene, _, host) = Scene::with_home(seed, NatConfig { filtering, ..STRICT });
            let (one, two) = (scene.one, scene.two);
            let [to_one, to_two] = [ONE, TWO].map(|ip| scene.seen(host, PORT, at(ip, 1000)).unwrap());
            assert!(!scene.reaches(two, 1000, to_one, host) && !scene.reaches(one, 1000, to_two, host));
            assert!(scene.reaches(one, 1000, to_one, host) && scene.reaches(two, 1000, to_two, host));
        }
    });
}

#[test]
fn nobody_gets_in_where_nothing_went_out() {
    seeds::each(20, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, home, host) = Scene::with_home(seed, kind);
            let one = scene.one;
            assert!(!scene.reaches(one, 1000, at(OUTSIDE, PORT), host), "{kind:?}");
            assert!(scene.seen(host, PORT + 1, at(ONE, 1000)).is_some());
            assert!(
                !scene.reaches(one, 1000, at(OUTSIDE, PORT), host),
                "another socket's mapping is no way in, {kind:?}"
            );
            assert_eq!(scene.nat(home).mappings, 1, "what was refused leaves no trace");
        }
    });
}
