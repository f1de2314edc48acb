//! Gateways behind boxes of every kind. Nothing goes direct here: the relay has to do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_core::gateway::{Event, TransferState};
use mesh_core::seam::SocketId;
use mesh_sim::net::{FirewallConfig, NatConfig, Net};
use mesh_sim::world::Family;
use mesh_sim::{Link, Network, Place, SiteConfig, SiteId, seeds};

use crate::fixture::{Mesh, PORT, TRANSFER_NAME, ip, transfer_address};

const SECOND: Duration = Duration::from_secs(1);
/// The port that gateways have inside their sites.
const INSIDE_PORT: u16 = 40_000;

fn outside(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 100 + number)
}

fn inside(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 1, 10 + number).into()
}

/// A transfer, and gateways that each have a home of their own behind a NAT of this kind, all at the same private
/// address.
fn homes(seed: u64, kind: NatConfig, count: u8) -> (Mesh, Vec<SiteId>) {
    let mut mesh = Mesh::new(seed, 0, Link::CLEAN);
    let sites: Vec<SiteId> =
        (0..count).map(|number| mesh.world.net.add_site(SiteConfig::home(kind, outside(number)))).collect();
    for site in &sites {
        mesh.join_at(Place::inside(*site, inside(0)), INSIDE_PORT);
    }
    mesh.settle();
    (mesh, sites)
}

/// Where the transfer sees a gateway that is registered.
fn observed(mesh: &Mesh, number: usize) -> SocketAddr {
    let status = mesh.world.gateway(mesh.gateways[number]).status(mesh.world.now()).transfer;
    assert_eq!(status.state, TransferState::Registered);
    status.observed.expect("it is registered")
}

/// Two gateways ping each other by the relay, whichever begins.
fn both_ways(mesh: &mut Mesh, sequence: u16) {
    for (from, to) in [(0, 1), (1, 0)] {
        mesh.ping(from, to, sequence, SECOND).unwrap_or_else(|| panic!("an answer from {} to {}", ip(to), ip(from)));
    }
}

/// The pair works; something happens; it works again within 3 s, in both directions, whoever speaks.
fn survives(mesh: &mut Mesh, what: impl FnOnce(&mut Network), context: &str) {
    for (from, to) in [(0, 1), (1, 0)] {
        mesh.ping(from, to, 1, SECOND).expect("the pair works");
    }
    what(&mut mesh.world.net);
    let start = mesh.world.now();
    for (from, to) in [(0, 1), (1, 0)] {
        let took = mesh.ping_until_answered(from, to, start, 3 * SECOND);
        assert!(took.is_some(), "traffic from {from} to {to} within 3 s, {context}");
    }
}

#[test]
fn gateways_register_and_ping_by_the_relay_behind_every_kind_of_nat() {
    seeds::each(5, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut mesh, sites) = homes(seed, kind, 2);
            for number in 0..2 {
                assert_eq!(observed(&mesh, number).ip(), outside(u8::try_from(number).unwrap()), "{kind:?}");
            }
            both_ways(&mut mesh, 1);
            let now = mesh.world.now();
            for site in sites {
                let status = mesh.world.net.nat_status(site, now);
                assert_eq!((status.entries_peak, status.refused), (1, 0), "the transfer is its only remote, {kind:?}");
            }
        }
    });
}

#[test]
fn a_registration_outlives_the_time_of_an_idle_mapping() {
    seeds::each(2, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut mesh, _) = homes(seed, kind, 2);
            let before = [observed(&mesh, 0), observed(&mesh, 1)];
            mesh.world.run_for(600 * SECOND);
            assert_eq!([observed(&mesh, 0), observed(&mesh, 1)], before, "the mapping was kept alive, {kind:?}");
            mesh.ping(1, 0, 1, SECOND).expect("reached from outside at once");
        }
    });
}

#[test]
fn traffic_goes_on_within_3_s_of_a_flush_whatever_the_nat() {
    seeds::each(5, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut mesh, sites) = homes(seed, kind, 2);
            survives(&mut mesh, |net| net.flush(sites[0]), &format!("{kind:?}"));
        }
    });
}

#[test]
fn traffic_goes_on_within_3_s_of_a_rebinding_whatever_the_nat() {
    seeds::each(5, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut mesh, sites) = homes(seed, kind, 2);
            let before = observed(&mesh, 0);
            survives(&mut mesh, |net| net.rebind(sites[0]), &format!("{kind:?}"));
            mesh.world.run_for(SECOND);
            assert_ne!(observed(&mesh, 0), before, "the transfer sees the new one, {kind:?}");
        }
    });
}

#[test]
fn traffic_goes_on_within_3_s_of_another_outside_address() {
    seeds::each(20, |seed| {
        for kind in [NatConfig::LINUX, NatConfig::LINUX_FULLY_RANDOM] {
            let (mut mesh, sites) = homes(seed, kind, 2);
            survives(&mut mesh, |net| net.set_outside(sites[0], vec![outside(50)]), &format!("{kind:?}"));
            mesh.world.run_for(SECOND);
            assert_eq!(observed(&mesh, 0).ip(), outside(50));
        }
    });
}

#[test]
fn gateways_of_one_home_are_told_apart() {
    seeds::each(5, |seed| {
        for kind in NatConfig::every_kind() {
            let mut mesh = Mesh::new(seed, 1, Link::CLEAN);
            let site = mesh.world.net.add_site(SiteConfig::home(kind, outside(0)));
            for number in 0..3 {
                mesh.join_at(Place::inside(site, inside(number)), INSIDE_PORT);
            }
            mesh.settle();
            let mut seen: Vec<SocketAddr> = (1..4).map(|number| observed(&mesh, number)).collect();
            assert!(seen.iter().all(|seen| seen.ip() == outside(0)), "{seen:?}");
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 3, "{kind:?}");
            for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
                mesh.ping(from, to, 1, SECOND).unwrap_or_else(|| panic!("{from} to {to}, {kind:?}"));
            }
        }
    });
}

#[test]
fn gateways_behind_a_carriers_nat_register_and_survive_its_flush() {
    seeds::each(3, |seed| {
        for kind in NatConfig::every_kind() {
            let mut mesh = Mesh::new(seed, 0, Link::CLEAN);
            let network = SiteConfig {
                lan: Link::CLEAN,
                inside: (Ipv4Addr::new(100, 64, 0, 1), 10),
                ..SiteConfig::home(kind, outside(0))
            };
            let carrier = mesh.world.net.add_site(network);
            for number in 0..2 {
                let own = Ipv4Addr::new(100, 64, 0, 10 + number);
                let home = SiteConfig { net: Net::Lan(carrier), ..SiteConfig::home(NatConfig::LINUX, own) };
                let home = mesh.world.net.add_site(home);
                mesh.join_at(Place::inside(home, inside(0)), INSIDE_PORT);
            }
            mesh.settle();
            assert_eq!([observed(&mesh, 0), observed(&mesh, 1)].map(|seen| seen.ip()), [IpAddr::from(outside(0)); 2]);
            survives(&mut mesh, |net| net.flush(carrier), &format!("{kind:?}"));
        }
    });
}

#[test]
fn a_gateway_whose_udp_is_blocked_comes_back_when_it_is_not() {
    seeds::each(20, |seed| {
        let (mut mesh, sites) = homes(seed, NatConfig::LINUX, 2);
        both_ways(&mut mesh, 1);
        mesh.world.net.set_udp_blocked(sites[0], true);
        for sequence in 2..62 {
            assert_eq!(mesh.ping(0, 1, sequence, SECOND), None);
        }
        survives_from_here(&mut mesh, |mesh| mesh.world.net.set_udp_blocked(sites[0], false));
        let events = mesh.world.take_events(mesh.gateways[0]);
        assert!(events.iter().any(|(_, event)| matches!(event, Event::TransferSilent { .. })), "{events:?}");
    });
}

/// Something is put right: traffic within 3 s.
fn survives_from_here(mesh: &mut Mesh, what: impl FnOnce(&mut Mesh)) {
    what(mesh);
    let start = mesh.world.now();
    for (from, to) in [(0, 1), (1, 0)] {
        mesh.ping_until_answered(from, to, start, 3 * SECOND).expect("traffic within 3 s");
    }
}

#[test]
fn a_gateway_with_a_socket_for_each_family_registers_by_ipv6_behind_a_firewall() {
    seeds::each(10, |seed| {
        let mut mesh = Mesh::new(seed, 0, Link::CLEAN);
        let ip6 = |site: u16| IpAddr::from([0x2001, 0xdb8, site, 0, 0, 0, 0, 1]);
        let transfer = mesh.world.net.place(mesh.transfer).with(ip6(0));
        mesh.world.move_node(mesh.transfer, transfer);
        mesh.world.name_all(TRANSFER_NAME, &[SocketAddr::new(ip6(0), PORT)]);
        for number in [1, 2] {
            let home = SiteConfig::home(NatConfig::LINUX, outside(number));
            let site = mesh.world.net.add_site(SiteConfig { firewall: Some(FirewallConfig::LINUX), ..home });
            let place = Place::inside(site, inside(0)).with(ip6(number.into()));
            let node = mesh.join_of(crate::fixture::BOTH_FAMILIES, place, INSIDE_PORT);
            mesh.world.close_socket(node, SocketId(0));
            mesh.world.open_socket(node, SocketId(0), Family::Ipv4, INSIDE_PORT);
            mesh.world.open_socket(node, SocketId(1), Family::Ipv6, INSIDE_PORT);
        }
        mesh.settle();
        assert_eq!(observed(&mesh, 0), SocketAddr::new(ip6(1), INSIDE_PORT));
        both_ways(&mut mesh, 1);

        // The IPv6 way breaks; the name also has an IPv4 address.
        mesh.world.name_all(TRANSFER_NAME, &[SocketAddr::new(ip6(0), PORT), transfer_address()]);
        let transfer = Place { ip6: None, ..*mesh.world.net.place(mesh.transfer) };
        mesh.world.move_node(mesh.transfer, transfer);
        let start = mesh.world.now();
        mesh.ping_until_answered(0, 1, start, 10 * SECOND).expect("by IPv4");
        assert_eq!(observed(&mesh, 0).ip(), outside(1));
    });
}
