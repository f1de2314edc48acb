//! Hosts with public addresses behind a box that translates nothing and lets in answers only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mesh_sim::net::{FirewallConfig, Net, Timeouts};
use mesh_sim::{Link, NodeId, Place, SiteConfig, SiteId, seeds};

use crate::scene::{ONE, OPEN, OUTSIDE, PORT, SECOND, Scene, at, inside};

fn ip6(site: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, host)
}

fn at6(site: u16, host: u16, port: u16) -> SocketAddr {
    SocketAddr::from((ip6(site, host), port))
}

/// Two remotes with IPv6 alone, in 2001:db8:1::/48.
struct Remotes {
    one: NodeId,
    two: NodeId,
}

fn remotes(scene: &mut Scene) -> Remotes {
    let [one, two] = [1, 2].map(|host| scene.add(Place::public(ip6(1, host).into(), Link::CLEAN), &[1000, 1001]));
    Remotes { one, two }
}

/// A home with a NAT for IPv4, and a host with an address of either family.
fn home(scene: &mut Scene, number: u8, firewall: Option<FirewallConfig>) -> (SiteId, NodeId) {
    let outside = Ipv4Addr::new(198, 51, 100, number);
    let site = scene.world.net.add_site(SiteConfig { firewall, ..SiteConfig::home(OPEN, outside) });
    let place = Place::inside(site, inside(10).into()).with(ip6(u16::from(number), 10).into());
    (site, scene.add(place, &[PORT, PORT + 1]))
}

#[test]
fn only_what_was_asked_comes_in_and_nothing_is_translated() {
    seeds::each(20, |seed| {
        let mut scene = Scene::new(seed);
        let Remotes { one, two } = remotes(&mut scene);
        let (site, host) = home(&mut scene, 7, Some(FirewallConfig::LINUX));
        let own = at6(7, 10, PORT);
        assert!(!scene.reaches(one, 1000, own, host), "unasked");
        assert_eq!(scene.seen(host, PORT, at6(1, 1, 1000)), Some(own), "its own address");
        assert!(scene.reaches(one, 1000, own, host), "the answer");
        assert!(!scene.reaches(one, 1001, own, host), "another port");
        assert!(!scene.reaches(two, 1000, own, host), "another address");
        assert!(!scene.reaches(one, 1000, at6(7, 10, PORT + 1), host), "for another socket");
        assert_eq!(scene.world.net.firewall_entries(site, scene.world.now()), 1);
        assert_eq!(scene.nat(site).entries, 0, "the NAT has nothing to do with it");
    });
}

#[test]
fn without_a_firewall_everything_comes_in() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let Remotes { one, .. } = remotes(&mut scene);
        let (site, host) = home(&mut scene, 7, None);
        assert!(scene.reaches(one, 1000, at6(7, 10, PORT), host));
        assert!(!scene.reaches(scene.one, 1000, at(OUTSIDE, PORT), host), "by IPv4 there still is the NAT");
        assert_eq!(scene.world.net.firewall_entries(site, scene.world.now()), 0);
    });
}

#[test]
fn simultaneous_open_works() {
    seeds::each(20, |seed| {
        let mut scene = Scene::new(seed);
        let hosts = [7, 8].map(|number| home(&mut scene, number, Some(FirewallConfig::LINUX)).1);
        assert!(!scene.reaches(hosts[0], PORT, at6(8, 10, PORT), hosts[1]), "the first meets a shut door");
        assert!(scene.reaches(hosts[1], PORT, at6(7, 10, PORT), hosts[0]), "and has opened its own");
        assert!(scene.reaches(hosts[0], PORT, at6(8, 10, PORT), hosts[1]));
        // Both at one time: each meets the door that the other has just opened.
        let [there, back] = [
            scene.send(hosts[0], PORT + 1, at6(8, 10, PORT + 1)),
            scene.send(hosts[1], PORT + 1, at6(7, 10, PORT + 1)),
        ];
        let sent = scene.world.now();
        scene.world.run_for(SECOND);
        assert_eq!(scene.arrivals(sent, &there).len(), 1);
        assert_eq!(scene.arrivals(sent, &back).len(), 1);
    });
}

#[test]
fn hosts_of_one_lan_meet_no_firewall() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let (site, host) = home(&mut scene, 7, Some(FirewallConfig::LINUX));
        let other = scene.add(Place::inside(site, ip6(7, 11).into()), &[PORT]);
        let arrivals = scene.carry(host, PORT, at6(7, 11, PORT));
        assert_eq!((arrivals[0].node, arrivals[0].took), (other, Duration::from_micros(200)));
        assert_eq!(scene.world.net.firewall_entries(site, scene.world.now()), 0);
    });
}

#[test]
fn flows_end_in_time_and_by_a_flush() {
    seeds::each(20, |seed| {
        let timeouts = Timeouts { unanswered: 30 * SECOND, answered: 90 * SECOND, inbound_refreshes: true };
        let mut scene = Scene::new(seed);
        let Remotes { one, .. } = remotes(&mut scene);
        let (site, host) = home(&mut scene, 7, Some(FirewallConfig { timeouts, ..FirewallConfig::LINUX }));
        let own = at6(7, 10, PORT);
        assert!(scene.seen(host, PORT, at6(1, 1, 1000)).is_some());
        scene.world.run_for(30 * SECOND);
        assert!(!scene.reaches(one, 1000, own, host), "nobody answered in time");
        assert!(scene.seen(host, PORT, at6(1, 1, 1000)).is_some());
        for _ in 0..4 {
            scene.world.run_for(29 * SECOND);
            assert!(scene.reaches(one, 1000, own, host), "answers keep it open");
        }
        scene.world.run_for(89 * SECOND);
        assert!(scene.reaches(one, 1000, own, host), "longer, once it was answered");
        scene.world.net.flush(site);
        assert!(!scene.reaches(one, 1000, own, host), "forgotten");
        assert!(scene.seen(host, PORT, at6(1, 1, 1000)).is_some());
        assert!(scene.reaches(one, 1000, own, host));
    });
}

#[test]
fn what_comes_in_keeps_a_flow_only_where_it_may() {
    seeds::each(20, |seed| {
        let timeouts = Timeouts { unanswered: 30 * SECOND, answered: 90 * SECOND, inbound_refreshes: false };
        let mut scene = Scene::new(seed);
        let Remotes { one, .. } = remotes(&mut scene);
        let (_, host) = home(&mut scene, 7, Some(FirewallConfig { timeouts, ..FirewallConfig::LINUX }));
        let own = at6(7, 10, PORT);
        assert!(scene.seen(host, PORT, at6(1, 1, 1000)).is_some());
        scene.world.run_for(20 * SECOND);
        assert!(scene.reaches(one, 1000, own, host));
        scene.world.run_for(10 * SECOND);
        assert!(!scene.reaches(one, 1000, own, host), "the answer has not kept it open");
        for answered in [false, true] {
            assert!(scene.seen(host, PORT, at6(1, 1, 1000)).is_some());
            if answered {
                assert!(scene.reaches(one, 1000, own, host));
                assert!(scene.seen(host, PORT, at6(1, 1, 1000)).is_some(), "what goes out after it does, for longer");
            }
            scene.world.run_for(80 * SECOND);
            assert_eq!(scene.reaches(one, 1000, own, host), answered);
        }
    });
}

#[test]
fn a_full_firewall_refuses_new_flows() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let Remotes { one, two } = remotes(&mut scene);
        let (site, host) = home(&mut scene, 7, Some(FirewallConfig { entries_max: 2, ..FirewallConfig::LINUX }));
        assert!(scene.seen(host, PORT, at6(1, 1, 1000)).is_some());
        assert!(scene.seen(host, PORT, at6(1, 1, 1001)).is_some());
        assert_eq!(scene.seen(host, PORT, at6(1, 2, 1000)), None);
        assert!(!scene.reaches(two, 1000, at6(7, 10, PORT), host));
        assert!(scene.reaches(one, 1000, at6(7, 10, PORT), host));
        assert_eq!(scene.world.net.firewall_entries(site, scene.world.now()), 2);
    });
}

#[test]
fn ipv6_crosses_a_carriers_nat_as_it_is() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let Remotes { one, .. } = remotes(&mut scene);
        let carrier = SiteConfig { inside: (Ipv4Addr::new(100, 64, 0, 1), 10), ..SiteConfig::home(OPEN, OUTSIDE) };
        let carrier = scene.world.net.add_site(SiteConfig { firewall: None, ..carrier });
        let inner = SiteConfig { net: Net::Lan(carrier), ..SiteConfig::home(OPEN, Ipv4Addr::new(100, 64, 0, 7)) };
        let site = scene.world.net.add_site(inner);
        let host = scene.add(Place::inside(site, inside(10).into()).with(ip6(7, 10).into()), &[PORT]);
        assert!(!scene.reaches(one, 1000, at6(7, 10, PORT), host), "the home guards it");
        assert_eq!(scene.seen(host, PORT, at6(1, 1, 1000)), Some(at6(7, 10, PORT)));
        assert!(scene.reaches(one, 1000, at6(7, 10, PORT), host));
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)).map(|seen| seen.ip()), Some(OUTSIDE.into()));
    });
}

#[test]
fn private_addresses_lead_nowhere_where_nothing_translates_them() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        remotes(&mut scene);
        let site =
            scene.world.net.add_site(SiteConfig { nat: None, firewall: None, ..SiteConfig::home(OPEN, OUTSIDE) });
        let local: IpAddr = "fd00:7::10".parse().unwrap();
        let host = scene.add(Place::inside(site, inside(10).into()).with(local), &[PORT]);
        let other = scene.add(Place::inside(site, "fd00:7::11".parse().unwrap()), &[PORT]);
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), None);
        assert_eq!(scene.seen(host, PORT, at6(1, 1, 1000)), None);
        assert!(scene.carry(host, PORT, at(inside(1), PORT)).is_empty(), "the box itself");
        assert!(scene.reaches(host, PORT, "[fd00:7::11]:5000".parse().unwrap(), other), "they do on the LAN");
    });
}

#[test]
fn a_firewall_guards_public_ipv4_hosts_too() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed);
        let own = Ipv4Addr::new(198, 51, 200, 10);
        let cloud =
            SiteConfig { inside: (Ipv4Addr::new(198, 51, 200, 1), 24), nat: None, ..SiteConfig::home(OPEN, OUTSIDE) };
        let site = scene.world.net.add_site(cloud);
        let host = scene.add(Place::inside(site, IpAddr::V4(own)), &[PORT]);
        let one = scene.one;
        assert!(!scene.reaches(one, 1000, at(own, PORT), host));
        assert_eq!(scene.seen(host, PORT, at(ONE, 1000)), Some(at(own, PORT)));
        assert!(scene.reaches(one, 1000, at(own, PORT), host));
        assert!(!scene.reaches(one, 1001, at(own, PORT), host));
    });
}
