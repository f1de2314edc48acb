//! A NAT behind a NAT: homes whose carrier has no public address for each of them.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_sim::net::{Dependence, Hairpin, NatConfig, Net};
use mesh_sim::{Link, NodeId, SiteConfig, SiteId, seeds};

use crate::scene::{ONE, OPEN, OUTSIDE, PORT, STRICT, Scene, TWO, at, at4, inside, v4};

/// The carrier's own network (RFC 6598), and the addresses that two homes have in it.
const CARRIER: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 64, 0, 1), 10);
const HOMES: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 64, 0, 10), Ipv4Addr::new(100, 64, 0, 11)];

struct Carrier {
    scene: Scene,
    carrier: SiteId,
    homes: [SiteId; 2],
    /// One in each home, both with the same private address.
    hosts: [NodeId; 2],
}

fn carrier(seed: u64, outer: NatConfig, inner: NatConfig) -> Carrier {
    let mut scene = Scene::new(seed);
    let network = SiteConfig { lan: Link::CLEAN, inside: CARRIER, ..SiteConfig::home(outer, OUTSIDE) };
    let carrier = scene.world.net.add_site(network);
    let homes = HOMES.map(|ip| {
        let home = SiteConfig { net: Net::Lan(carrier), link: Link::CABLE, ..SiteConfig::home(inner, ip) };
        scene.world.net.add_site(home)
    });
    let hosts = homes.map(|home| scene.host(home, 10));
    Carrier { scene, carrier, homes, hosts }
}

#[test]
fn remotes_see_the_outer_address_and_answers_come_back_through_both() {
    seeds::each(5, |seed| {
        for outer in NatConfig::every_kind() {
            for inner in [OPEN, STRICT, NatConfig::LINUX] {
                let Carrier { mut scene, carrier, homes, hosts } = carrier(seed, outer, inner);
                let one = scene.one;
                let seen = hosts.map(|host| scene.seen(host, PORT, at(ONE, 1000)).unwrap());
                assert_ne!(seen[0], seen[1], "{outer:?}");
                for (number, host) in hosts.into_iter().enumerate() {
                    assert_eq!(seen[number].ip(), OUTSIDE);
                    assert!(scene.reaches(one, 1000, seen[number], host), "{outer:?} {inner:?}");
                    let between = scene.mapping(homes[number], at4(inside(10), PORT), at4(ONE, 1000)).unwrap();
                    assert_eq!(between.ip(), HOMES[number], "the home's own address, on the carrier's network");
                    let outside = scene.mapping(carrier, v4(between), at4(ONE, 1000));
                    assert_eq!(outside, Some(seen[number]), "which the carrier translates once more");
                }
            }
        }
    });
}

#[test]
fn the_strictest_of_both_filters_decides() {
    seeds::each(10, |seed| {
        for outer in Dependence::ALL {
            for inner in Dependence::ALL {
                let kind = |filtering| NatConfig::new(Dependence::Nothing, filtering);
                let Carrier { mut scene, hosts, .. } = carrier(seed, kind(outer), kind(inner));
                let (one, two) = (scene.one, scene.two);
                let outside = scene.seen(hosts[0], PORT, at(ONE, 1000)).unwrap();
                let lenient = ![outer, inner].contains(&Dependence::AddressAndPort);
                assert_eq!(scene.reaches(one, 1001, outside, hosts[0]), lenient, "{outer:?} {inner:?}");
                let open = (outer, inner) == (Dependence::Nothing, Dependence::Nothing);
                assert_eq!(scene.reaches(two, 1000, outside, hosts[0]), open, "{outer:?} {inner:?}");
            }
        }
    });
}

#[test]
fn either_box_can_forget() {
    seeds::each(20, |seed| {
        for outer_forgets in [true, false] {
            let Carrier { mut scene, carrier, homes, hosts } = carrier(seed, STRICT, STRICT);
            let one = scene.one;
            let before = scene.seen(hosts[0], PORT, at(ONE, 1000)).unwrap();
            scene.world.net.flush(if outer_forgets { carrier } else { homes[0] });
            assert!(!scene.reaches(one, 1000, before, hosts[0]), "the way back is lost");
            let after = scene.seen(hosts[0], PORT, at(ONE, 1000)).unwrap();
            assert_ne!(before, after, "a new mapping in one is a new one outside");
            assert!(scene.reaches(one, 1000, after, hosts[0]));
        }
    });
}

#[test]
fn homes_of_one_carrier_reach_each_other_on_its_network_or_by_hairpinning() {
    seeds::each(10, |seed| {
        for hairpin in [Hairpin::None, Hairpin::InternalSource, Hairpin::ExternalSource] {
            let Carrier { mut scene, homes, hosts, .. } = carrier(seed, NatConfig { hairpin, ..OPEN }, OPEN);
            let outside = hosts.map(|host| scene.seen(host, PORT, at(TWO, 1000)).unwrap());
            let between = scene.mapping(homes[1], at4(inside(10), PORT), at4(TWO, 1000)).unwrap();

            let arrivals = scene.carry(hosts[0], PORT, between);
            let from: Vec<_> = arrivals.iter().map(|arrival| (arrival.node, arrival.from)).collect();
            assert_eq!(from, [(hosts[1], at(HOMES[0], PORT))], "on the carrier's network");

            let arrivals = scene.carry(hosts[0], PORT, outside[1]);
            let from: Vec<_> = arrivals.iter().map(|arrival| (arrival.node, arrival.from)).collect();
            match hairpin {
                Hairpin::None => assert_eq!(from, []),
                Hairpin::InternalSource => assert_eq!(from, [(hosts[1], at(HOMES[0], PORT))]),
                Hairpin::ExternalSource => assert_eq!(from, [(hosts[1], outside[0])]),
            }
        }
    });
}

#[test]
fn equal_private_addresses_in_two_homes_are_two_hosts() {
    seeds::each(10, |seed| {
        let Carrier { mut scene, homes, hosts, .. } = carrier(seed, OPEN, OPEN);
        let other = scene.host(homes[1], 11);
        let arrivals = scene.carry(hosts[0], PORT, at(inside(11), PORT));
        assert!(arrivals.is_empty(), "11 is in the other home: {arrivals:?}");
        assert!(scene.reaches(hosts[1], PORT, at(inside(11), PORT), other));
        assert!(scene.reaches(hosts[0], PORT, at(inside(10), PORT + 1), hosts[0]), "its own address is itself");
    });
}

#[test]
fn a_path_set_for_a_nested_host_is_that_of_its_carrier() {
    seeds::each(10, |seed| {
        let Carrier { mut scene, carrier, hosts, .. } = carrier(seed, OPEN, OPEN);
        let one = scene.one;
        let quality = Link { delay: Duration::from_millis(33), ..Link::CLEAN };
        scene.world.net.set_path(hosts[0], one, quality);
        // Two local networks on the way, of 0.2 and 5 ms.
        for host in hosts {
            assert_eq!(scene.carry(host, PORT, at(ONE, 1000))[0].took, Duration::from_micros(38_200));
        }
        scene.world.net.clear_path(carrier, one);
        assert_eq!(scene.carry(hosts[0], PORT, at(ONE, 1000))[0].took, Duration::from_micros(15_200));
    });
}
