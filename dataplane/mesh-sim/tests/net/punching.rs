//! Two hosts behind NATs find a way to each other, or do not, as the kinds of their NATs have it (RFC 5128, section
//! 3.3): the parts play together in time as in real networks.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_sim::net::{Dependence, NatConfig, Ports};
use mesh_sim::{NodeId, SiteConfig, seeds};

use crate::scene::{ONE, PORT, Scene, at};

/// Whether what one host sends to the address that the server saw of the other gets there, and can be answered.
fn one_can_begin(one: NatConfig, other: NatConfig) -> bool {
    let cone = |kind: NatConfig| kind.mapping == Dependence::Nothing;
    let strict = |kind: NatConfig| kind.filtering == Dependence::AddressAndPort;
    // The other's mapping that the server saw opens to us if it is the one that it sends to us by, and expects us
    // there.
    let arrives = other.filtering == Dependence::Nothing || (cone(other) && (!strict(other) || cone(one)));
    // Its answer comes from the address that we sent to, unless its mapping is another for us.
    arrives && (!strict(one) || cone(other))
}

/// Both send to where the server saw the other, and answer where they hear from. Whether both heard an answer in the
/// end.
fn meet(scene: &mut Scene, hosts: [NodeId; 2]) -> bool {
    let known = hosts.map(|host| scene.seen(host, PORT, at(ONE, 1000)).unwrap());
    let mut heard_from: [Option<SocketAddr>; 2] = [None; 2];
    let mut answered = [false; 2];
    for _ in 0..5 {
        for (number, host) in hosts.into_iter().enumerate() {
            let to = heard_from[number].unwrap_or(known[1 - number]);
            // An answer says that the other was heard.
            let text: &[u8] = if heard_from[number].is_some() { b"I hear you" } else { b"hello" };
            scene.world.probe(host, PORT, to, text);
        }
        scene.world.run_for(Duration::from_millis(100));
        for (number, host) in hosts.into_iter().enumerate() {
            for heard in scene.world.take_heard(host) {
                heard_from[number] = Some(heard.from);
                answered[number] |= heard.bytes == b"I hear you";
            }
        }
    }
    answered == [true; 2]
}

#[test]
fn holes_can_be_punched_between_the_kinds_that_allow_it() {
    seeds::each(3, |seed| {
        let kinds = Dependence::ALL.map(|mapping| {
            Dependence::ALL
                .map(|filtering| NatConfig { ports: Ports::FullyRandom, ..NatConfig::new(mapping, filtering) })
        });
        for one in kinds.as_flattened() {
            for other in kinds.as_flattened() {
                let mut scene = Scene::new(seed);
                let hosts = [(*one, 1), (*other, 2)].map(|(kind, last)| {
                    let outside = Ipv4Addr::new(198, 51, 100, last);
                    let home = scene.world.net.add_site(SiteConfig::home(kind, outside));
                    scene.host(home, 10)
                });
                let expected = one_can_begin(*one, *other) || one_can_begin(*other, *one);
                assert_eq!(meet(&mut scene, hosts), expected, "{one:?} and {other:?}");
            }
        }
    });
}

#[test]
fn linux_routers_meet_unless_the_first_datagram_takes_its_port() {
    seeds::each(10, |seed| {
        for (takes, fully_random, meets) in [(false, false, true), (true, false, false), (false, true, false)] {
            let base = if fully_random { NatConfig::LINUX_FULLY_RANDOM } else { NatConfig::LINUX };
            let kind = NatConfig { inbound_takes_ports: takes, ..base };
            let mut scene = Scene::new(seed);
            let hosts = [1, 2].map(|last| {
                let home = scene.world.net.add_site(SiteConfig::home(kind, Ipv4Addr::new(198, 51, 100, last)));
                scene.host(home, 10)
            });
            // One begins long before the other, so that its datagram meets a router that knows nothing of it.
            let known = scene.seen(hosts[1], PORT, at(ONE, 1000)).unwrap();
            assert!(!scene.reaches(hosts[0], PORT, known, hosts[1]));
            assert_eq!(meet(&mut scene, hosts), meets, "takes ports: {takes}, fully random: {fully_random}");
        }
    });
}
