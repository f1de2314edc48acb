//! What befalls the hosts of gateways: they sleep, move, and lose their network.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_core::gateway::TransferState;
use mesh_core::seam::SocketId;
use mesh_sim::host::{self, Inner};
use mesh_sim::net::NatConfig;
use mesh_sim::world::Family;
use mesh_sim::{Link, Place, SiteConfig, seeds};

use crate::fixture::{Mesh, ip};

const SECOND: Duration = Duration::from_secs(1);

fn back_within_3_s(mesh: &mut Mesh) {
    let start = mesh.world.now();
    for (from, to) in [(0, 1), (1, 0)] {
        mesh.ping_until_answered(from, to, start, 3 * SECOND).expect("traffic within 3 s");
    }
}

#[test]
fn a_gateway_that_slept_is_back_within_3_s() {
    seeds::each(20, |seed| {
        for slept in [2, 20, 100, 1_000, 100_000] {
            let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
            mesh.settle();
            mesh.ping(0, 1, 1, SECOND).expect("the pair works");
            let node = mesh.gateways[1];
            mesh.world.wiretap.record();
            mesh.world.suspend(node, slept * SECOND);
            let fell_asleep = mesh.world.now();
            assert_eq!(mesh.ping(0, 1, 2, SECOND), None, "it does not answer");
            mesh.world.run_until(fell_asleep + slept * SECOND);
            let said = mesh.world.wiretap.seen().iter().filter(|seen| seen.sender == node);
            assert!(said.clone().all(|seen| seen.at >= fell_asleep + slept * SECOND), "nothing while it slept");
            back_within_3_s(&mut mesh);
        }
    });
}

#[test]
fn what_a_suspended_host_was_about_to_do_it_does_when_it_wakes() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 1, Link::CLEAN);
        // The gateway has just started: a job of its first handshake is under way, or a name is being resolved.
        mesh.world.run_for(Duration::from_micros(seed * 100));
        let node = mesh.gateways[0];
        mesh.world.suspend(node, 50 * SECOND);
        mesh.world.run_for(50 * SECOND + 2 * SECOND);
        let status = mesh.world.gateway(node).status(mesh.world.now());
        assert!(status.transfer.registered_seconds.is_some_and(|seconds| seconds <= 2), "{status:?}");
    });
}

#[test]
fn a_gateway_that_moves_is_back_within_3_s_wherever_it_is() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        let node = mesh.gateways[1];
        let home = mesh.world.net.add_site(SiteConfig::home(NatConfig::LINUX, Ipv4Addr::new(203, 0, 113, 50)));
        let cafe = SiteConfig::home(NatConfig::LINUX_FULLY_RANDOM, Ipv4Addr::new(203, 0, 113, 51));
        let cafe = mesh.world.net.add_site(cafe);
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        for place in [
            Place::public(Ipv4Addr::new(203, 0, 113, 7).into(), Link::CLEAN),
            Place::inside(home, Ipv4Addr::new(192, 168, 1, 10).into()),
            Place::inside(home, Ipv4Addr::new(192, 168, 1, 11).into()),
            Place::inside(cafe, Ipv4Addr::new(192, 168, 1, 10).into()),
        ] {
            mesh.world.move_node(node, place);
            back_within_3_s(&mut mesh);
        }
    });
}

#[test]
fn a_gateway_whose_interface_was_down_is_back_within_3_s() {
    seeds::each(20, |seed| {
        for down in [1, 15, 200] {
            let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
            mesh.settle();
            mesh.ping(0, 1, 1, SECOND).expect("the pair works");
            let node = mesh.gateways[1];
            mesh.world.set_interface(node, false);
            for sequence in 0..down {
                assert_eq!(mesh.ping(0, 1, 10 + sequence, SECOND), None);
                mesh.world.send_inside(node, &host::echo_request(ip(1), ip(0), sequence, 56));
            }
            assert!(mesh.world.wiretap.unsent > 0, "its machine ran on");
            mesh.world.set_interface(node, true);
            back_within_3_s(&mut mesh);
        }
    });
}

#[test]
fn a_gateway_started_without_a_network_finds_its_transfer_when_there_is_one() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 1, Link::CLEAN);
        let node = mesh.gateways[0];
        let state = |mesh: &Mesh| mesh.world.gateway(node).status(mesh.world.now()).transfer.state;
        mesh.world.set_interface(node, false);
        mesh.world.run_for(10 * SECOND);
        assert_eq!(state(&mesh), TransferState::Resolving, "no resolver answers");
        mesh.world.set_interface(node, true);
        mesh.world.run_for(3 * SECOND);
        assert_eq!(state(&mesh), TransferState::Registered);
    });
}

#[test]
fn more_sockets_of_a_gateway_hear_without_harm() {
    seeds::each(5, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        let node = mesh.gateways[0];
        let own = mesh.world.addresses(node)[0];
        let stranger = crate::fixture::gateway_address(100);
        let ports: Vec<u16> =
            (1..=256).map(|number| mesh.world.open_socket(node, SocketId(number), Family::Both, 0)).collect();
        for port in &ports {
            mesh.world.inject((own, *port).into(), stranger, b"\x10 from a stranger");
        }
        mesh.world.run_for(SECOND);
        let drops = |mesh: &Mesh| mesh.world.gateway(node).status(mesh.world.now()).drops.total();
        assert_eq!(drops(&mesh), 256, "each was heard");
        for number in 1..=256 {
            mesh.world.close_socket(node, SocketId(number));
        }
        for port in &ports {
            mesh.world.inject((own, *port).into(), stranger, b"\x10 from a stranger");
        }
        mesh.world.run_for(SECOND);
        assert_eq!(drops(&mesh), 256, "and none after they were closed");
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
    });
}

#[test]
fn a_ping_that_was_under_way_to_a_host_that_falls_asleep_is_lost() {
    seeds::each(10, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        let [a, b] = [mesh.gateways[0], mesh.gateways[1]];
        mesh.world.send_inside(a, &host::echo_request(ip(0), ip(1), 2, 56));
        mesh.world.run_for(Duration::from_millis(15));
        mesh.world.suspend(b, 3 * SECOND);
        mesh.world.run_for(4 * SECOND);
        let delivered = mesh.world.take_delivered(a);
        let answered = |(_, packet): &(_, Vec<u8>)| host::read(packet) == Inner::EchoReply { from: ip(1), sequence: 2 };
        assert!(!delivered.iter().any(answered));
    });
}
