//! Which port a mapping gets (RFC 4787, section 4.2).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use mesh_sim::net::{Dependence, NatConfig, Ports};
use mesh_sim::{SiteConfig, seeds};

use crate::scene::{ONE, OUTSIDE, PORT, SECOND, STRICT, Scene, TWO, at, at4, inside, port_of, v4};

const CONE: NatConfig = NatConfig::new(Dependence::Nothing, Dependence::AddressAndPort);

#[test]
fn a_preserved_port_is_the_first_hosts_and_a_clash_is_resolved() {
    seeds::each(20, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, CONE);
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(at(OUTSIDE, PORT)));
        let other = scene.host(home, 11);
        let others = port_of(scene.seen(other, PORT, at(TWO, 1000)).unwrap(), OUTSIDE);
        assert!(others != PORT && others >= 1024, "{others}");
        assert_eq!(scene.seen(other, PORT + 1, at(ONE, 1000)), Some(at(OUTSIDE, PORT + 1)), "no clash, no change");
    });
}

#[test]
fn sequential_ports_follow_each_other() {
    seeds::each(20, |seed| {
        for step in [1, 2, -1] {
            let kind = NatConfig { ports: Ports::Sequential { step }, ..STRICT };
            let (mut scene, home, host) = Scene::with_home(seed, kind);
            let other = scene.host(home, 11);
            let sent = [(host, ONE, 1000), (host, ONE, 1001), (other, TWO, 1000), (host, TWO, 1000)];
            let ports = sent.map(|(from, ip, port)| port_of(scene.seen(from, PORT, at(ip, port)).unwrap(), OUTSIDE));
            let differences: Vec<i32> = ports.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect();
            assert_eq!(differences, [i32::from(step); 3], "{ports:?}");
        }
    });
}

/// The outside ports of 50 mappings of one socket, before and after the box forgot them.
fn fifty_twice(seed: u64, ports: Ports) -> [Vec<u16>; 2] {
    let (mut scene, home, host) = Scene::with_home(seed, NatConfig { ports, ..STRICT });
    [(); 2].map(|()| {
        for port in 2000..2050 {
            scene.send(host, PORT, at(ONE, port));
        }
        scene.world.run_for(SECOND);
        let given = |port| port_of(scene.mapping(home, at4(inside(10), PORT), at4(ONE, port)).unwrap(), OUTSIDE);
        let given = (2000..2050).map(given).collect();
        scene.world.net.flush(home);
        given
    })
}

#[test]
fn random_ports_come_back_and_fully_random_ones_do_not() {
    seeds::each(20, |seed| {
        let [before, after] = fifty_twice(seed, Ports::Random);
        assert_eq!(before, after, "the same for the same mapping");
        let [elsewhere, _] = fifty_twice(seed + 1_000_000, Ports::Random);
        let [one, other] = fifty_twice(seed, Ports::FullyRandom);
        for (these, those) in [(&before, &elsewhere), (&one, &other)] {
            let both: BTreeSet<u16> = these.iter().filter(|port| those.contains(port)).copied().collect();
            assert!(both.len() <= 3, "another box, or another time: {both:?}");
        }
        for ports in [before, one] {
            assert!(ports.iter().all(|port| *port >= 1024));
            let (low, high) = (ports.iter().min().unwrap(), ports.iter().max().unwrap());
            // All 50 within 40,000 ports: once in a hundred million times.
            assert!(high - low > 40_000, "spread over the range: {low} to {high}");
            let next = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 10).count();
            assert!(next <= 3, "in no order: {ports:?}");
        }
    });
}

#[test]
fn linux_hosts_share_a_port_unless_they_send_to_the_same_remote() {
    seeds::each(20, |seed| {
        let (mut scene, home, host) = Scene::with_home(seed, NatConfig::LINUX);
        let other = scene.host(home, 11);
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(at(OUTSIDE, PORT)));
        assert_eq!(scene.seen(other, PORT, at(TWO, 1000)), Some(at(OUTSIDE, PORT)), "another remote");
        let clashing = scene.seen(other, PORT, at(ONE, 1000)).unwrap();
        assert_ne!(clashing, at(OUTSIDE, PORT), "the same remote");
        let (one, two) = (scene.one, scene.two);
        assert!(scene.reaches(one, 1000, at(OUTSIDE, PORT), host));
        assert!(scene.reaches(two, 1000, at(OUTSIDE, PORT), other));
        assert!(scene.reaches(one, 1000, clashing, other));
    });
}

#[test]
fn what_comes_in_unasked_takes_its_port_only_where_it_is_not_dropped() {
    seeds::each(20, |seed| {
        for inbound_takes_ports in [false, true] {
            let (mut scene, home, host) = Scene::with_home(seed, NatConfig { inbound_takes_ports, ..NatConfig::LINUX });
            let two = scene.two;
            assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(at(OUTSIDE, PORT)));
            assert!(!scene.reaches(two, 1000, at(OUTSIDE, PORT), host), "it comes before it was asked");
            assert_eq!(scene.nat(home).entries, 1 + usize::from(inbound_takes_ports));
            let to_two = scene.seen(host, PORT, at(TWO, 1000)).unwrap();
            assert_eq!(to_two != at(OUTSIDE, PORT), inbound_takes_ports, "then its port is taken: {to_two}");
            let to_one = scene.seen(host, PORT, at(ONE, 1000)).unwrap();
            assert_eq!(to_one, at(OUTSIDE, PORT), "for others it is not");
            assert_eq!(scene.seen(host, PORT, at(TWO, 1001)), Some(at(OUTSIDE, PORT)), "nor for another port");
            scene.world.run_for(31 * SECOND);
            assert_eq!(scene.seen(host, PORT, at(TWO, 1000)), Some(at(OUTSIDE, PORT)), "after 30 s it is free");
        }
    });
}

#[test]
fn a_port_taken_from_outside_is_given_to_nobody_where_ports_are_not_shared() {
    seeds::each(20, |seed| {
        let (mut scene, _, host) = Scene::with_home(seed, NatConfig { inbound_takes_ports: true, ..CONE });
        let two = scene.two;
        assert!(!scene.reaches(two, 1000, at(OUTSIDE, PORT), host));
        assert_ne!(scene.seen(host, PORT, at(ONE, 1000)), Some(at(OUTSIDE, PORT)));
        assert_eq!(scene.seen(host, PORT + 1, at(ONE, 1000)), Some(at(OUTSIDE, PORT + 1)));
    });
}

#[test]
fn inside_hosts_keep_one_of_several_outside_addresses_if_they_are_paired() {
    seeds::each(20, |seed| {
        let pool: Vec<Ipv4Addr> = (1..=4).map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
        for paired in [true, false] {
            let kind = NatConfig { paired, ..STRICT };
            let mut scene = Scene::new(seed);
            let home = SiteConfig { nat: Some((kind, pool.clone())), ..SiteConfig::home(kind, OUTSIDE) };
            let site = scene.world.net.add_site(home);
            let mut all = BTreeSet::new();
            for last in 10..14 {
                let host = scene.host(site, last);
                let mut of_host = BTreeSet::new();
                for number in 0..20 {
                    scene.send(host, PORT, at(ONE, 2000 + number));
                    scene.world.run_for(SECOND);
                    let outside = scene.mapping(site, at4(inside(last), PORT), at4(ONE, 2000 + number)).unwrap();
                    of_host.insert(*v4(outside).ip());
                    // And the address leads to the box.
                    let seen = scene.seen(host, PORT + 1, at(TWO, 1000)).unwrap();
                    let two = scene.two;
                    assert!(scene.reaches(two, 1000, seen, host));
                }
                assert_eq!(of_host.len() == 1, paired, "{of_host:?}");
                all.extend(of_host);
            }
            assert_eq!(all, pool.iter().copied().collect(), "all are used");
        }
    });
}

#[test]
fn every_port_is_given_once_and_then_none() {
    let (mut scene, home, host) = Scene::with_home(1, NatConfig { entries_max: usize::MAX, ..STRICT });
    let ports = Ports::RANGE.len();
    for number in 0..ports + 10 {
        let last = u8::try_from(1 + number / 1000).unwrap();
        let port = u16::try_from(number % 1000).unwrap();
        scene.send(host, PORT, at(Ipv4Addr::new(192, 0, 2, last), port));
    }
    scene.world.run_for(SECOND);
    let status = scene.nat(home);
    assert_eq!((status.mappings, status.mappings_peak, status.refused), (ports, ports, 10));
    let given: BTreeSet<u16> = (0..ports)
        .map(|number| {
            let last = u8::try_from(1 + number / 1000).unwrap();
            let remote = at4(Ipv4Addr::new(192, 0, 2, last), u16::try_from(number % 1000).unwrap());
            port_of(scene.mapping(home, at4(inside(10), PORT), remote).unwrap(), OUTSIDE)
        })
        .collect();
    assert_eq!(given.len(), ports, "each has its own");
}
