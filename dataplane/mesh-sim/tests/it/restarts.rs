//! Things end and come back: transfers, gateways, names, keys.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::gateway::Event;
use mesh_sim::host::{self, Inner};
use mesh_sim::{Link, seeds};
use mesh_wire::frame::FrameType;

use crate::fixture::{Mesh, PORT, TOKEN, TRANSFER_NAME, ip, new_gateway, transfer_address};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn transfer_started_after_the_gateways() {
    seeds::each(50, |seed| {
        let mut mesh = Mesh::new(seed, 0, Link::CLEAN);
        mesh.kill_transfer();
        mesh.join(Link::CLEAN);
        mesh.join(Link::CLEAN);
        mesh.world.run_for(Duration::from_millis(17_300));
        mesh.revive_transfer(transfer_address());
        let back = mesh.world.now();
        mesh.ping_until_answered(0, 1, back, 3 * SECOND).expect("traffic within 3 s of the transfer being there");
    });
}

#[test]
fn transfer_killed_and_restarted_under_traffic() {
    seeds::each(100, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        mesh.kill_transfer();
        let pings = 2 + u16::try_from(seed % 40).unwrap();
        for sequence in 2..2 + pings {
            assert_eq!(mesh.ping(0, 1, sequence, SECOND / 2), None, "nothing passes without the transfer");
        }
        mesh.revive_transfer(transfer_address());
        let back = mesh.world.now();
        mesh.ping_until_answered(0, 1, back, 3 * SECOND).expect("traffic within 3 s of the transfer being back");
        let events = mesh.world.take_events(mesh.gateways[0]);
        let said = |wanted: fn(&Event) -> bool| events.iter().filter(|(_, event)| wanted(event)).count();
        let (silent, again) =
            (said(|e| matches!(e, Event::TransferSilent { .. })), said(|e| *e == Event::TransferBack));
        assert_eq!(silent, again, "an outage is said at both its ends: {events:?}");
        assert!(silent <= 1 && (pings < 14 || silent == 1), "one of 7 s is said once: {events:?}");
    });
}

#[test]
fn transfer_restarted_at_once_is_hardly_noticed() {
    seeds::each(50, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        mesh.kill_transfer();
        mesh.revive_transfer(transfer_address());
        let back = mesh.world.now();
        mesh.ping_until_answered(0, 1, back, 3 * SECOND).expect("traffic within 3 s");
    });
}

#[test]
fn transfer_moved_behind_its_name() {
    seeds::each(50, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        mesh.kill_transfer();
        for sequence in 2..8 {
            mesh.ping(0, 1, sequence, SECOND / 2);
        }
        let moved: SocketAddr = ([203, 0, 113, 9], PORT).into();
        mesh.world.name(TRANSFER_NAME, moved);
        mesh.revive_transfer(moved);
        let back = mesh.world.now();
        mesh.ping_until_answered(0, 1, back, 3 * SECOND).expect("traffic within 3 s at the new address");
    });
}

#[test]
fn restarted_gateway_is_reached_again() {
    seeds::each(50, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        let node = mesh.gateways[1];
        mesh.world.kill(node);
        mesh.world.run_for(SECOND);
        let gateway = new_gateway(&mut mesh.world, mesh.identities[1], ip(1), PORT, &TOKEN);
        mesh.world.revive_gateway(node, gateway, 41_000);
        let back = mesh.world.now();
        mesh.ping_until_answered(0, 1, back, 3 * SECOND).expect("traffic within 3 s of the gateway being back");
    });
}

#[test]
fn stopped_gateway_frees_its_address_at_once() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        let node = mesh.gateways[1];
        mesh.world.stop_gateway(node);
        mesh.world.run_for(SECOND / 10);
        mesh.world.kill(node);
        // Another key takes the address: allowed, for the first has said goodbye.
        let stranger = crate::fixture::Identity { key: mesh.world.random() };
        let gateway = new_gateway(&mut mesh.world, stranger, ip(1), PORT, &TOKEN);
        mesh.world.revive_gateway(node, gateway, 41_000);
        let back = mesh.world.now();
        mesh.ping_until_answered(0, 1, back, 3 * SECOND).expect("the new holder answers");
    });
}

#[test]
fn rekey_under_traffic_loses_nothing() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 0, SECOND).expect("the pair works");
        let [a, b] = [mesh.gateways[0], mesh.gateways[1]];
        mesh.world.set_answers(b, false);
        mesh.world.take_delivered(b);
        // 400 s at 20 packets a second: three rekeys of the pair.
        let packets = 8_000u32;
        let before = mesh.world.wiretap.count(FrameType::HandshakeFinal);
        for number in 0..packets {
            mesh.world.send_inside(a, &host::udp(ip(0), ip(1), &number.to_be_bytes()));
            mesh.world.run_for(SECOND / 20);
        }
        mesh.world.run_for(SECOND);
        let numbers: Vec<u32> = mesh
            .world
            .take_delivered(b)
            .iter()
            .filter_map(|(_, packet)| match host::read(packet) {
                Inner::Udp { payload, .. } => Some(u32::from_be_bytes(payload.try_into().unwrap())),
                Inner::EchoRequest { .. } | Inner::EchoReply { .. } | Inner::Unreachable { .. } | Inner::Other => None,
            })
            .collect();
        assert_eq!(numbers, (0..packets).collect::<Vec<_>>(), "every packet, once, in order");
        let rekeys = mesh.world.wiretap.count(FrameType::HandshakeFinal) - before;
        assert!(rekeys >= 6, "the pair's keys were renewed three times, seen on two links each: {rekeys}");
    });
}

#[test]
fn idle_sessions_close_and_come_back() {
    seeds::each(10, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        mesh.world.run_for(Duration::from_secs(3600));
        mesh.ping(0, 1, 2, SECOND).expect("an hour later it works at once");
    });
}

#[test]
fn link_cut_for_a_minute_heals_by_itself() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        let node = mesh.gateways[1];
        mesh.world.set_link(node, Link { up: false, ..Link::CLEAN });
        for sequence in 2..62 {
            assert_eq!(mesh.ping(0, 1, sequence, SECOND), None);
        }
        mesh.world.set_link(node, Link::CLEAN);
        let back = mesh.world.now();
        mesh.ping_until_answered(0, 1, back, 3 * SECOND).expect("traffic within 3 s of the link being back");
    });
}
