//! Joining and first packets, on good and bad links.

use std::time::Duration;

use mesh_core::gateway::Event;
use mesh_sim::host::{self, Inner};
use mesh_sim::{Link, seeds};
use mesh_wire::message::RefusedReason;

use crate::fixture::{Identity, Mesh, PORT, TOKEN, TRANSFER_NAME, gateway_address, ip, new_gateway};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn first_ping_is_answered_within_a_second_on_clean_links() {
    seeds::each(100, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        let first = mesh.ping(0, 1, 1, SECOND).expect("an answer to the first ping");
        // A lookup takes 20 ms, init and response 40, data behind the final and its answer 40; and some work.
        assert!(first < Duration::from_millis(105), "the first ping took {first:?}");
        let second = mesh.ping(1, 0, 2, SECOND).expect("an answer the other way");
        assert!(second < Duration::from_millis(41), "a later ping took {second:?}");
    });
}

#[test]
fn pings_pass_on_rough_links() {
    seeds::each(100, |seed| {
        let mut mesh = Mesh::new(seed, 3, Link::ROUGH);
        mesh.world.run_for(5 * SECOND);
        let first = (0..5).any(|n| mesh.ping(0, 1, n, SECOND).is_some());
        assert!(first, "an answer in spite of loss");
        let answered = (10..110).filter(|n| mesh.ping(1, 0, *n, SECOND / 2).is_some()).count();
        // Eight crossings of 3 % loss: 78 % of pings come back on average.
        assert!(answered > 55, "only {answered} of 100 pings were answered");
    });
}

#[test]
fn both_sides_first_at_once_lose_nothing() {
    seeds::each(100, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        let [a, b] = [mesh.gateways[0], mesh.gateways[1]];
        mesh.world.send_inside(a, &host::echo_request(ip(0), ip(1), 7, 56));
        mesh.world.send_inside(b, &host::echo_request(ip(1), ip(0), 8, 56));
        mesh.world.run_for(SECOND);
        for (node, from, sequence) in [(a, ip(1), 7), (b, ip(0), 8)] {
            let delivered = mesh.world.take_delivered(node);
            let replies = delivered
                .iter()
                .filter(|(_, packet)| host::read(packet) == Inner::EchoReply { from, sequence })
                .count();
            assert_eq!(replies, 1, "the reply to {sequence} arrives, once");
        }
    });
}

#[test]
fn packet_to_an_address_nobody_holds_gets_host_unreachable() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        let node = mesh.gateways[0];
        mesh.world.send_inside(node, &host::echo_request(ip(0), ip(77), 1, 56));
        mesh.world.run_for(SECOND);
        let delivered = mesh.world.take_delivered(node);
        assert!(
            delivered.iter().any(|(_, packet)| host::read(packet) == Inner::Unreachable { code: 1 }),
            "an ICMP host unreachable comes back: {delivered:?}"
        );
    });
}

#[test]
fn an_address_that_appears_later_is_reached() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 1, Link::CLEAN);
        mesh.settle();
        assert_eq!(mesh.ping(0, 1, 1, SECOND), None, "nobody is there yet");
        mesh.join(Link::CLEAN);
        let start = mesh.world.now();
        mesh.ping_until_answered(0, 1, start, 4 * SECOND).expect("the newcomer answers");
    });
}

#[test]
fn second_claim_of_an_address_is_refused_and_the_first_loses_nothing() {
    seeds::each(50, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        let thief = Identity { key: mesh.world.random() };
        let gateway = new_gateway(&mut mesh.world, thief, ip(1), PORT, &TOKEN);
        let thief = mesh.world.add_gateway(gateway, gateway_address(100), Link::CLEAN, TRANSFER_NAME);
        for sequence in 2..22 {
            mesh.ping(0, 1, sequence, SECOND).expect("not one ping of the first is lost");
        }
        let events = mesh.world.take_events(thief);
        assert!(
            events.iter().any(|(_, event)| matches!(event,
                Event::Refused { reason: RefusedReason::AddressTaken, ip4, .. } if *ip4 == ip(1))),
            "the second is told which address is taken: {events:?}"
        );
    });
}

#[test]
fn cloned_machine_is_refused_by_name_while_the_first_lives() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        let clone = mesh.identities[1];
        let gateway = new_gateway(&mut mesh.world, clone, ip(1), PORT, &TOKEN);
        let node = mesh.world.add_gateway(gateway, gateway_address(100), Link::CLEAN, TRANSFER_NAME);
        mesh.world.run_for(3 * SECOND);
        let events = mesh.world.take_events(node);
        assert!(
            events.iter().any(|(_, event)| matches!(event, Event::Refused { reason: RefusedReason::KeyInUse, .. })),
            "the clone is refused: {events:?}"
        );
        mesh.ping(0, 1, 1, SECOND).expect("the first goes on");
    });
}

#[test]
fn wrong_token_gets_silence_and_is_said_once() {
    let wrong = mesh_core::session::token::StretchedToken::stretch(b"another token of some length");
    seeds::each(10, |seed| {
        let mut mesh = Mesh::new(seed, 1, Link::CLEAN);
        mesh.settle();
        mesh.world.wiretap.record();
        let identity = Identity { key: mesh.world.random() };
        let gateway = new_gateway(&mut mesh.world, identity, ip(9), PORT, &wrong);
        let address = gateway_address(100);
        let node = mesh.world.add_gateway(gateway, address, Link::CLEAN, TRANSFER_NAME);
        mesh.world.run_for(6 * SECOND);
        let tries = mesh.world.wiretap.seen().iter().filter(|seen| seen.from == address).count();
        let answers = mesh.world.wiretap.seen().iter().filter(|seen| seen.to == address).count();
        assert!(tries >= 3, "it keeps trying: {tries}");
        assert_eq!(answers, 0, "not one byte answers a wrong token");
        let silent =
            |events: &[(_, Event)]| events.iter().filter(|(_, e)| matches!(e, Event::TransferSilent { .. })).count();
        assert_eq!(silent(&mesh.world.take_events(node)), 1, "said within 5 s, once");
        mesh.world.run_for(30 * SECOND);
        assert_eq!(silent(&mesh.world.take_events(node)), 0, "and not again");
    });
}

#[test]
fn large_packets_pass_a_path_of_1280_bytes() {
    seeds::each(20, |seed| {
        let narrow = Link { mtu: 1280, ..Link::CLEAN };
        let mut mesh = Mesh::new(seed, 2, narrow);
        mesh.settle();
        let node = mesh.gateways[0];
        mesh.ping(0, 1, 1, SECOND).expect("small ones do");
        // 1280 bytes of inner packet: 20 of IPv4, 8 of ICMP.
        mesh.world.send_inside(node, &host::echo_request(ip(0), ip(1), 2, 1252));
        mesh.world.run_for(SECOND);
        let delivered = mesh.world.take_delivered(node);
        assert!(
            delivered.iter().any(|(_, packet)| packet.len() == 1280
                && host::read(packet) == Inner::EchoReply { from: ip(1), sequence: 2 }),
            "a packet of the whole inner MTU comes back in one piece"
        );
    });
}
