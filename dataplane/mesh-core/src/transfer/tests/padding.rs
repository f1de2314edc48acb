//! No answer is longer than its request.

use mesh_wire::message::{CloseReason, Message, Target};
use mesh_wire::sealed::OVERHEAD_BYTES;

use super::world::*;
use crate::drops::DropReason;

fn unpadded(world: &World) -> u64 {
    world.transfer.drops().get(DropReason::Unpadded)
}

/// A gateway at an IPv6 address, whose answers are the longest, and what it may ask.
fn asker(world: &mut World) -> (Gateway, Vec<Message>) {
    let mut gateway = Gateway::new(FIRST, 1);
    gateway.endpoint = at(FIRST, "[2001:db8::1]:5000");
    let gateway = gateway.join(world);
    let found = Message::Lookup { request: 8, target: Target::Address(Gateway::new(FIRST, 2).join(world).ip4) };
    let requests = vec![Message::Keepalive { seq: 1, change: 0 }, found, gateway.register_message()];
    (gateway, requests)
}

#[test]
fn padded_requests_are_answered_with_no_more_bytes() {
    let mut world = World::new();
    let (mut gateway, mut requests) = asker(&mut world);
    requests.push(Message::Probe { seq: 1 });
    for request in requests {
        let datagram = gateway.seal(&request);
        let answer = only(world.deliver(gateway.endpoint, &datagram), gateway.endpoint);
        assert!(answer.len() <= datagram.len(), "{} bytes answer {} of {request:?}", answer.len(), datagram.len());
    }
    assert_eq!(unpadded(&world), 0);
}

#[test]
fn request_shorter_than_its_answer_is_not_answered() {
    let mut world = World::new();
    let (mut gateway, requests) = asker(&mut world);
    for (count, request) in (1..).zip(requests) {
        let datagram = gateway.seal_plaintext(0, request.to_vec());
        assert_eq!(world.deliver(gateway.endpoint, &datagram), [], "{request:?}");
        assert_eq!(unpadded(&world), count);
    }
}

#[test]
fn final_shorter_than_its_answer_is_not_answered() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let (started, response) = gateway.up_to_response(&mut world);
    let register = gateway.register_message().to_vec();
    let last = gateway.last_with(started, &response, &register);
    for _ in 0..2 {
        assert_eq!(world.deliver(gateway.endpoint, &last), []);
    }
    assert_eq!(unpadded(&world), 1);
    let last = gateway.up_to_final(&mut world);
    let answer = only(world.deliver(gateway.endpoint, &last), gateway.endpoint);
    assert!(answer.len() <= last.len());
}

/// Nor may a repetition of such a final be answered later with what a longer request has earned meanwhile.
#[test]
fn repeated_final_is_never_answered_with_more() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let (started, response) = gateway.up_to_response(&mut world);
    let register = gateway.register_message();
    let last = gateway.last_with(started, &response, &register.to_vec());
    assert_eq!(world.deliver(gateway.endpoint, &last), []);
    assert_eq!(gateway.ask(&mut world, &register).len(), 1);
    for _ in 0..8 {
        assert_eq!(world.deliver(gateway.endpoint, &last), []);
    }
    assert_eq!(unpadded(&world), 9);
}

#[test]
fn question_to_an_unproven_address_is_no_longer_than_what_came_from_there() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    let elsewhere = at(FIRST, "[2001:db8::7]:5000");
    let close = gateway.seal(&Message::Close { reason: CloseReason::Idle });
    assert_eq!(world.deliver(elsewhere, &close), []);
    assert_eq!(unpadded(&world), 1);

    // This one is long enough for the question, and not for the answer in the end.
    let keepalive = gateway.seal_plaintext(0, Message::Keepalive { seq: 1, change: 0 }.to_vec());
    let probe = only(world.deliver(elsewhere, &keepalive), elsewhere);
    assert_eq!(probe.len(), OVERHEAD_BYTES + 8);
    assert!(probe.len() <= keepalive.len());
    let Some(Message::Probe { seq }) = gateway.open(&probe) else { panic!("a question") };
    let reply = gateway.seal(&Message::ProbeReply { seq });
    assert_eq!(world.deliver(elsewhere, &reply), []);
    assert_eq!(unpadded(&world), 2);
    gateway.endpoint = elsewhere;
    assert_eq!(gateway.ask(&mut world, &Message::Keepalive { seq: 2, change: 0 }).len(), 1, "it has moved there");
}
