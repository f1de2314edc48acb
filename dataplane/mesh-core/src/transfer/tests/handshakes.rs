//! Who gets an answer, and what it costs.

use std::time::Duration;

use mesh_wire::frame::FrameType;
use mesh_wire::handshake::MAC_BYTES;
use mesh_wire::message::Message;
use mesh_wire::notice::{ErrorReason, ErrorReply, RegisterAgain};

use super::world::*;
use crate::drops::DropReason;
use crate::node::Node;
use crate::session::mac;

#[test]
fn gateway_registers_through_cookie_and_handshake() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let sent = gateway.register(&mut world);
    let [Message::Registered { request, slot, observed, boot, lease_seconds, change, ticket, other_port: None }] =
        &gateway.read(&sent)[..]
    else {
        panic!("one answer")
    };
    assert_eq!((*request, *observed, *boot, *lease_seconds, *change), (5, gateway.endpoint.remote, 1, 120, 0));
    assert!(!slot.is_none() && !ticket.is_empty());
    assert_eq!(world.members(), [gateway.ip4]);
    assert_eq!(world.transfer.drops().get(DropReason::NoCookie), 1);
}

#[test]
fn wrong_token_is_met_with_silence() {
    let mut world = World::new();
    let mut stranger = Gateway::new(FIRST, 1);
    stranger.keys = keys(8, PORT);
    let started = stranger.start();
    assert_eq!(world.deliver(stranger.endpoint, &stranger.init(&started, None)), []);
    assert_eq!(world.transfer.drops().get(DropReason::WrongToken), 1);
    assert!(world.transfer.poll_timeout().is_none(), "nothing is remembered");
}

#[test]
fn token_of_one_namespace_is_wrong_in_another() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    gateway.keys = keys(7, PORT + 1);
    let started = gateway.start();
    assert_eq!(world.deliver(gateway.endpoint, &gateway.init(&started, None)), []);
}

#[test]
fn init_without_a_cookie_earns_a_shorter_answer_and_no_state() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let started = gateway.start();
    let init = gateway.init(&started, None);
    for _ in 0..3 {
        let reply = only(world.deliver(gateway.endpoint, &init), gateway.endpoint);
        assert_eq!(reply[0], FrameType::CookieReply.byte());
        assert!(reply.len() < init.len());
    }
    assert!(world.transfer.poll_job().is_none());
    assert_eq!(world.transfer.status(world.now).handshakes_pending, 0);
    assert!(world.transfer.poll_timeout().is_none());
}

#[test]
fn cookie_is_good_for_one_address_only() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let started = gateway.start();
    let init = gateway.init(&started, None);
    let reply = only(world.deliver(gateway.endpoint, &init), gateway.endpoint);
    let with_cookie = gateway.init(&started, Some(&gateway.cookie(&init, &reply)));
    let elsewhere = at(FIRST, "198.51.100.7:5000");
    assert_eq!(only(world.deliver(elsewhere, &with_cookie), elsewhere)[0], FrameType::CookieReply.byte());
    assert_eq!(world.transfer.drops().get(DropReason::WrongCookie), 1);
    let answer = only(world.deliver(gateway.endpoint, &with_cookie), gateway.endpoint);
    assert_eq!(answer[0], FrameType::HandshakeResponse.byte());
    assert!(answer.len() <= with_cookie.len());
}

#[test]
fn member_at_its_own_endpoint_needs_a_cookie_too() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    for endpoint in ["192.0.2.1:5000", "192.0.2.1:5001"] {
        gateway.endpoint = at(FIRST, endpoint);
        let started = gateway.start();
        let answer = only(world.deliver(gateway.endpoint, &gateway.init(&started, None)), gateway.endpoint);
        assert_eq!(answer[0], FrameType::CookieReply.byte());
    }
}

/// Proves the endpoint, and begins a handshake of which a recording is kept.
fn begin(world: &mut World, gateway: &mut Gateway) -> (Started, Vec<u8>, Vec<u8>) {
    let started = gateway.start();
    let bare = gateway.init(&started, None);
    let reply = only(world.deliver(gateway.endpoint, &bare), gateway.endpoint);
    let proven = gateway.init(&started, Some(&gateway.cookie(&bare, &reply)));
    let response = only(world.deliver(gateway.endpoint, &proven), gateway.endpoint);
    (started, proven.to_vec(), response)
}

/// Recorded inits of a member, sent again with its address forged: some with the cookie they had, some without.
#[test]
fn recorded_inits_do_not_displace_a_handshake() {
    for next_start in [false, true] {
        let mut world = World::new();
        let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
        let mut recorded = Vec::new();
        for _ in 0..2 {
            let started = gateway.start();
            recorded.push(gateway.init(&started, None).to_vec());
            recorded.push(begin(&mut world, &mut gateway).1);
        }
        world.pass(Duration::from_secs(30));
        if next_start {
            gateway.boot = 99;
        }
        let before = world.transfer.status(world.now).counters.handshakes;
        let (started, _, response) = begin(&mut world, &mut gateway);
        for _ in 0..10 {
            for init in &recorded {
                for (_, answer) in world.deliver(gateway.endpoint, init) {
                    assert!(answer.len() <= init.len());
                }
            }
        }
        let last = gateway.last(started, &response);
        let sent = world.deliver(gateway.endpoint, &last);
        assert!(!gateway.read(&sent).is_empty(), "the true handshake comes to its end");
        assert_eq!(world.transfer.status(world.now).counters.handshakes, before + 1);
    }
}

/// Whoever has the memory of the process must not be able to compute the ephemeral keys of the past.
#[test]
fn past_randomness_is_gone() {
    let mut world = World::new();
    let seeds: Vec<_> = (1..4)
        .map(|n| {
            Gateway::new(FIRST, n).join(&mut world);
            world.transfer.rng.memory().get_seed()
        })
        .collect();
    assert!(!seeds.contains(&[1; 32]), "the seed of the start is gone");
    assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2], "and so is that of each handshake");
}

#[test]
fn member_that_is_refused_may_ask_on_the_same_keys_for_as_long_as_it_asks() {
    let mut world = World::new();
    let holder = Gateway::new(FIRST, 1).join(&mut world);
    let mut rival = Gateway::new(FIRST, 2);
    rival.ip4 = holder.ip4;
    rival.register(&mut world);
    for _ in 0..30 {
        world.pass(Duration::from_secs(1));
        let register = rival.register_message();
        assert!(refused(&rival.ask(&mut world, &register)).is_some());
    }
    assert_eq!(world.transfer.status(world.now).control_sessions, 2);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.transfer.status(world.now).control_sessions, 1);
}

#[test]
fn repeated_init_is_answered_alike_without_work() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let started = gateway.start();
    let init = gateway.init(&started, None);
    let reply = only(world.deliver(gateway.endpoint, &init), gateway.endpoint);
    let init = gateway.init(&started, Some(&gateway.cookie(&init, &reply)));
    assert_eq!(world.answers(gateway.endpoint, &init), []);
    assert_eq!(world.answers(gateway.endpoint, &init), [], "its work is under way");
    let first = only(world.pump(), gateway.endpoint);
    assert_eq!(only(world.answers(gateway.endpoint, &init), gateway.endpoint), first);
    assert!(world.transfer.poll_job().is_none());
}

#[test]
fn repeated_final_is_answered_with_the_same_bytes() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let last = gateway.up_to_final(&mut world);
    let first = only(world.deliver(gateway.endpoint, &last), gateway.endpoint);
    assert_eq!(only(world.deliver(gateway.endpoint, &last), gateway.endpoint), first);
    assert_eq!(world.deliver(at(FIRST, "198.51.100.7:5000"), &last), [], "not to another address");
    let mut answers = 0;
    for _ in 0..100 {
        answers += world.deliver(gateway.endpoint, &last).len();
    }
    assert!(answers < 8, "repetitions are bounded: {answers}");
    assert_eq!(world.members(), [gateway.ip4]);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.deliver(gateway.endpoint, &last), [], "the handshake is forgotten");
    assert_eq!(world.transfer.status(world.now).handshakes_pending, 0);
}

/// A member that sees the final on its way can make others like it, with another content and a good MAC.
fn forged(gateway: &Gateway, last: &[u8], at: usize) -> Vec<u8> {
    let mut forged = last.to_vec();
    forged[at] ^= 1;
    let end = forged.len() - MAC_BYTES;
    let mac = mac::mac1(&gateway.keys, &forged[..end]);
    forged[end..].copy_from_slice(&mac);
    forged
}

#[test]
fn forged_final_does_not_end_the_handshake() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let last = gateway.up_to_final(&mut world);
    // In the key, and in the payload.
    for at in [24, last.len() - MAC_BYTES - 1] {
        assert_eq!(world.deliver(gateway.endpoint, &forged(&gateway, &last, at)), []);
    }
    assert_eq!(world.transfer.drops().get(DropReason::HandshakeFailed), 2);
    let sent = world.deliver(gateway.endpoint, &last);
    gateway.take_registered(&sent);
    assert_eq!(world.members(), [gateway.ip4]);
    assert!(!gateway.slot.is_none());
}

#[test]
fn forged_finals_cost_a_bounded_amount_of_work() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let last = gateway.up_to_final(&mut world);
    let mut jobs = 0;
    for _ in 0..100 {
        world.answers(gateway.endpoint, &forged(&gateway, &last, 24));
        while let Some(job) = world.transfer.poll_job() {
            jobs += 1;
            world.transfer.handle_job(world.now, job.run());
        }
    }
    assert_eq!(jobs, 9);
    assert_eq!(world.transfer.status(world.now).handshakes_pending, 0);
}

#[test]
fn rekey_keeps_the_slot_and_opens_the_old_keys_for_a_while() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    let slot = gateway.slot;
    gateway.register(&mut world);
    assert_eq!(gateway.slot, slot);
    let keepalive = Message::Keepalive { seq: 1, change: 0 };
    let old = gateway.seal_with(0, &keepalive);
    assert_eq!(world.deliver(gateway.endpoint, &old).len(), 1);
    assert_eq!(gateway.ask(&mut world, &keepalive).len(), 1);
    world.pass(Duration::from_secs(11));
    let old = gateway.seal_with(0, &keepalive);
    let told = only(world.deliver(gateway.endpoint, &old), gateway.endpoint);
    assert!(RegisterAgain::parse(&told).is_ok(), "the old keys are gone");
    assert_eq!(world.transfer.status(world.now).control_sessions, 1);
}

#[test]
fn init_alone_displaces_nothing() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    let started = gateway.start();
    assert_eq!(world.deliver(gateway.endpoint, &gateway.init(&started, None)).len(), 1);
    assert_eq!(gateway.ask(&mut world, &Message::Keepalive { seq: 1, change: 0 }).len(), 1);
}

#[test]
fn replayed_and_forged_control_is_dropped() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    let keepalive = gateway.seal(&Message::Keepalive { seq: 1, change: 0 });
    let mut forged = keepalive.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(world.deliver(gateway.endpoint, &forged), []);
    assert_eq!(world.deliver(gateway.endpoint, &keepalive).len(), 1);
    assert_eq!(world.deliver(gateway.endpoint, &keepalive), []);
    assert_eq!(world.transfer.drops().get(DropReason::NotAuthentic), 1);
    assert_eq!(world.transfer.drops().get(DropReason::Replayed), 1);
}

#[test]
fn other_versions_are_told_and_the_first_edition_is_not() {
    let mut world = World::new();
    let from = at(FIRST, "198.51.100.7:5000");
    let told = only(world.deliver(from, &[0x30; 40]), from);
    let error = ErrorReply::parse(&told).unwrap();
    assert_eq!((error.reason, error.version_lowest, error.version_highest), (ErrorReason::Version, 2, 2));
    assert_eq!(world.deliver(from, &[0x30; 8]), [], "two programs must not answer each other's errors");
    for first in [0x00, 0x10, 0x45, 0x60] {
        assert_eq!(world.deliver(from, &[first; 40]), []);
    }
    assert_eq!(world.transfer.drops().get(DropReason::FirstEdition), 4);
    let answered = (0..1000).filter(|_| !world.deliver(from, &[0x30; 40]).is_empty()).count();
    assert_eq!(answered, 99, "a hundred each second in all");
}
