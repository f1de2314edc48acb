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
    let [Message::Registered { request, slot, observed, boot, lease_seconds, change, ticket }] =
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
fn member_at_its_own_endpoint_needs_no_cookie() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    let started = gateway.start();
    let answer = only(world.deliver(gateway.endpoint, &gateway.init(&started, None)), gateway.endpoint);
    assert_eq!(answer[0], FrameType::HandshakeResponse.byte());
    gateway.endpoint = at(FIRST, "192.0.2.1:5001");
    let started = gateway.start();
    let answer = only(world.deliver(gateway.endpoint, &gateway.init(&started, None)), gateway.endpoint);
    assert_eq!(answer[0], FrameType::CookieReply.byte());
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
