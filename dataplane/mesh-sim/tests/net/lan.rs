//! Who hears whom inside a site, and who does not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_sim::net::Net;
use mesh_sim::{Link, NodeId, Place, SiteConfig, SiteId, seeds};

use crate::scene::{ONE, OPEN, OUTSIDE, PORT, Scene, TWO, at, inside};

/// Two homes with the same private addresses: hosts 10 and 11 in each.
fn two_homes(seed: u64) -> (Scene, [SiteId; 2], [[NodeId; 2]; 2]) {
    let mut scene = Scene::new(seed);
    let homes = [7, 8].map(|last| {
        let outside = Ipv4Addr::new(198, 51, 100, last);
        scene.world.net.add_site(SiteConfig::home(OPEN, outside))
    });
    let hosts = homes.map(|home| [10, 11].map(|last| scene.host(home, last)));
    (scene, homes, hosts)
}

fn who(scene: &mut Scene, from: NodeId, to: SocketAddr) -> Vec<NodeId> {
    scene.carry(from, PORT, to).iter().map(|arrival| arrival.node).collect()
}

#[test]
fn hosts_of_a_lan_reach_each_other_in_its_own_time() {
    seeds::each(20, |seed| {
        let (mut scene, homes, [hosts, _]) = two_homes(seed);
        let arrivals = scene.carry(hosts[0], PORT, at(inside(11), PORT));
        assert_eq!(arrivals.len(), 1);
        let arrival = &arrivals[0];
        assert_eq!((arrival.node, arrival.from, arrival.to), (hosts[1], at(inside(10), PORT), at(inside(11), PORT)));
        assert_eq!(arrival.took, Duration::from_micros(200));

        scene.world.net.set_lan(homes[0], Link { delay: Duration::from_millis(3), ..Link::LAN });
        assert_eq!(scene.carry(hosts[0], PORT, at(inside(11), PORT))[0].took, Duration::from_millis(3));
        let out = scene.carry(hosts[0], PORT, at(ONE, 1000));
        assert_eq!(out[0].took, Duration::from_millis(3 + 10), "the box is on the LAN too");
        scene.world.net.set_lan(homes[0], Link { up: false, ..Link::LAN });
        assert!(scene.carry(hosts[0], PORT, at(inside(11), PORT)).is_empty());
        assert!(scene.carry(hosts[0], PORT, at(ONE, 1000)).is_empty());
    });
}

#[test]
fn private_addresses_mean_another_host_in_each_site_and_nobody_elsewhere() {
    seeds::each(20, |seed| {
        let (mut scene, homes, hosts) = two_homes(seed);
        assert_eq!(who(&mut scene, hosts[0][0], at(inside(11), PORT)), [hosts[0][1]]);
        assert_eq!(who(&mut scene, hosts[1][0], at(inside(11), PORT)), [hosts[1][1]]);
        assert_eq!(who(&mut scene, hosts[0][0], at(inside(10), PORT)), [hosts[0][0]], "itself");
        let only_there = scene.host(homes[1], 12);
        assert_eq!(who(&mut scene, hosts[0][0], at(inside(12), PORT)), [], "it is on the other LAN");
        assert_eq!(who(&mut scene, hosts[1][0], at(inside(12), PORT)), [only_there]);
        let (one, two) = (scene.one, scene.two);
        scene.world.probe(one, 1000, at(inside(12), PORT), b"from the Internet");
        scene.world.run_for(Duration::from_secs(1));
        assert!(scene.world.take_heard(only_there).is_empty());
        // The box itself, and an address on the LAN that nobody has: neither leaves it.
        assert_eq!(who(&mut scene, hosts[0][0], at(inside(1), PORT)), []);
        assert_eq!(who(&mut scene, hosts[0][0], at(inside(200), PORT)), []);
        assert_eq!(scene.nat(homes[0]).entries, 0, "nothing of this went to the box's outside");
        // Another private network: the box sends it on, as routers do, and the Internet does not know it.
        assert_eq!(who(&mut scene, hosts[0][0], at(Ipv4Addr::new(192, 168, 2, 10), PORT)), []);
        assert_eq!(scene.nat(homes[0]).entries, 1);
        assert_eq!(who(&mut scene, hosts[0][0], at(ONE, 1000)), [one]);
        assert_eq!(who(&mut scene, hosts[0][0], at(TWO, 1001)), [two]);
    });
}

#[test]
fn what_a_host_sends_to_itself_does_not_leave_it() {
    seeds::each(10, |seed| {
        let (mut scene, _, [hosts, _]) = two_homes(seed);
        let one = scene.one;
        for (node, port, to) in [
            (hosts[0], PORT, at(inside(10), PORT + 1)),
            (one, 1000, at(ONE, 1001)),
            (one, 1000, at(Ipv4Addr::LOCALHOST, 1001)),
        ] {
            let arrivals = scene.carry(node, port, to);
            let arrival = arrivals.first().unwrap();
            assert_eq!((arrival.node, arrival.from), (node, SocketAddr::new(to.ip(), port)));
            assert!(arrival.took < Duration::from_micros(100), "{:?}", arrival.took);
        }
    });
}

#[test]
fn a_site_may_have_any_private_network() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let wide = SiteConfig { inside: (Ipv4Addr::new(10, 0, 0, 1), 8), ..SiteConfig::home(OPEN, OUTSIDE) };
        let site = scene.world.net.add_site(wide);
        let [near, far] = [[10, 0, 0, 2], [10, 200, 0, 2]].map(|ip| {
            let ip = IpAddr::from(ip);
            (scene.add(Place::inside(site, ip), &[PORT]), ip)
        });
        assert!(scene.reaches(near.0, PORT, SocketAddr::new(far.1, PORT), far.0));
        assert!(scene.seen(near.0, PORT, at(ONE, 1000)).is_some());
    });
}

#[test]
fn multicast_and_broadcast_reach_all_others_of_the_lan_that_listen_on_the_port() {
    seeds::each(20, |seed| {
        let (mut scene, homes, hosts) = two_homes(seed);
        let more: Vec<NodeId> = (20..25).map(|last| scene.host(homes[0], last)).collect();
        let elsewhere = Place::inside(homes[0], inside(30).into());
        let other_port = scene.add(elsewhere, &[PORT + 7]);
        let mut others = vec![hosts[0][1]];
        others.extend(&more);
        for group in ["239.192.7.1", "224.0.0.251", "255.255.255.255", "192.168.1.255"] {
            let to = SocketAddr::new(group.parse().unwrap(), PORT);
            let arrivals = scene.carry(hosts[0][0], PORT, to);
            let nodes: Vec<NodeId> = arrivals.iter().map(|arrival| arrival.node).collect();
            assert_eq!(nodes, others, "{group}: not the sender, not the other home, not on another port");
            for arrival in arrivals {
                assert_eq!((arrival.from, arrival.to), (at(inside(10), PORT), to), "{group}");
                assert_eq!(arrival.took, Duration::from_micros(200));
            }
        }
        assert_eq!(who(&mut scene, hosts[0][0], at(Ipv4Addr::BROADCAST, PORT + 7)), [other_port]);
        assert_eq!(who(&mut scene, hosts[0][0], at(Ipv4Addr::new(192, 168, 2, 255), PORT)), [], "another network's");
        assert_eq!(scene.nat(homes[1]).entries, 0);
        let one = scene.one;
        scene.world.probe(one, 1000, at(Ipv4Addr::new(239, 192, 7, 1), 1000), b"on the Internet");
        scene.world.run_for(Duration::from_secs(1));
        assert!(scene.world.take_heard(scene.two).is_empty(), "the Internet carries none");
    });
}

#[test]
fn ipv6_multicast_needs_no_more_than_a_link_local_address() {
    seeds::each(20, |seed| {
        let (mut scene, homes, hosts) = two_homes(seed);
        let of = |last: u16| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]);
        let local: Vec<NodeId> = (1..4)
            .map(|last| {
                let place = Place::inside(homes[0], inside(u8::try_from(100 + last).unwrap()).into()).with(of(last));
                scene.add(place, &[PORT])
            })
            .collect();
        let group: SocketAddr = "[ff02::1]:5000".parse().unwrap();
        let heard = scene.carry(local[0], PORT, group);
        let nodes: Vec<NodeId> = heard.iter().map(|arrival| arrival.node).collect();
        assert_eq!(nodes, [hosts[0][0], hosts[0][1], local[1], local[2]]);
        assert!(heard.iter().all(|arrival| arrival.from == SocketAddr::new(of(1), PORT)));
        assert_eq!(who(&mut scene, local[0], SocketAddr::new(of(3), PORT)), [local[2]]);
        assert_eq!(who(&mut scene, local[0], SocketAddr::new(of(4), PORT)), [], "nobody has it");
        let unsent = scene.world.wiretap.unsent;
        assert_eq!(who(&mut scene, hosts[0][0], group), [], "a host without any IPv6 address cannot send it");
        assert_eq!(scene.world.wiretap.unsent, unsent + 1);
    });
}

#[test]
fn each_hearer_loses_datagrams_to_a_group_by_itself() {
    seeds::each(20, |seed| {
        let (mut scene, homes, [hosts, _]) = two_homes(seed);
        let third = scene.host(homes[0], 12);
        scene.world.net.set_lan(homes[0], Link { loss: 0.5, ..Link::LAN });
        let group = at(Ipv4Addr::new(239, 192, 7, 1), PORT);
        let mut count = [0; 4];
        for _ in 0..400 {
            let heard = who(&mut scene, hosts[0], group);
            count[usize::from(heard.contains(&hosts[1])) + 2 * usize::from(heard.contains(&third))] += 1;
        }
        // A quarter each: 100, and 50 is six standard deviations off.
        assert!(count.iter().all(|count| (50..150).contains(count)), "{count:?}");
    });
}

#[test]
fn one_host_can_be_cut_off_a_lan() {
    seeds::each(10, |seed| {
        let (mut scene, homes, [hosts, _]) = two_homes(seed);
        let third = scene.host(homes[0], 12);
        scene.world.set_link(hosts[1], Link { up: false, ..Link::CABLE });
        assert_eq!(who(&mut scene, hosts[0], at(Ipv4Addr::BROADCAST, PORT)), [third]);
        assert_eq!(who(&mut scene, hosts[0], at(inside(11), PORT)), []);
        assert_eq!(who(&mut scene, hosts[1], at(ONE, 1000)), []);
        assert_eq!(scene.world.net.place(third).net, Net::Lan(homes[0]));
    });
}
