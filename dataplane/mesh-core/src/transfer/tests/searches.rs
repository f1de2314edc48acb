//! Leave to search, and where a member is seen.

use std::time::Duration;

use mesh_wire::message::{Message, Target};
use mesh_wire::observe::{OBSERVE_BYTES, Observe, Observed, mac_input};

use super::world::*;
use crate::drops::DropReason;
use crate::node::Node as _;
use crate::session::mac::ObserverKey;

/// Gateway `n` of the first namespace, at the address 198.51.100.`n` outside.
fn member(world: &mut World, n: u8) -> Gateway {
    let mut gateway = Gateway::new(FIRST, n);
    gateway.endpoint = at(FIRST, &format!("198.51.100.{n}:5000"));
    gateway.join(world)
}

fn search(of: &Gateway) -> Message {
    Message::SearchRequest { request: 9, target: Target::Address(of.ip4) }
}

#[test]
fn a_search_is_granted_towards_where_the_peer_is_seen_and_then_for_nobody_at_either_address_for_a_while() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = [1, 2, 3].map(|n| member(&mut world, n));
    let granted = a.ask(&mut world, &search(&b));
    assert_eq!(granted, [Message::SearchGrant { request: 9, target: b.endpoint.remote, seconds: 8 }]);
    let refused = [Message::SearchRefused { request: 9, wait_seconds: 43 }];
    assert_eq!(a.ask(&mut world, &search(&c)), refused, "one for each searcher");
    assert_eq!(b.ask(&mut world, &search(&a)), refused, "whichever side it is on");
    assert_eq!(c.ask(&mut world, &search(&b)), refused, "one for each address that is searched");
    world.pass(Duration::from_secs(42));
    assert_eq!(c.ask(&mut world, &search(&b)), [Message::SearchRefused { request: 9, wait_seconds: 1 }]);
    world.pass(Duration::from_secs(1));
    assert!(matches!(c.ask(&mut world, &search(&b))[..], [Message::SearchGrant { .. }]));
}

#[test]
fn nobody_is_searched_who_is_not_there_or_behind_the_same_router_or_in_another_namespace() {
    let mut world = World::new();
    let mut a = member(&mut world, 1);
    let mut neighbour = Gateway::new(FIRST, 2);
    neighbour.endpoint = at(FIRST, "198.51.100.1:5001");
    let neighbour = neighbour.join(&mut world);
    let elsewhere = Gateway::new(SECOND, 3).join(&mut world);
    let absent = Gateway::new(FIRST, 4);
    let mut of_ipv6 = Gateway::new(FIRST, 5);
    of_ipv6.endpoint = at(FIRST, "[2001:db8::5]:5000");
    let of_ipv6 = of_ipv6.join(&mut world);
    for other in [&neighbour, &elsewhere, &absent, &of_ipv6] {
        let answer = a.ask(&mut world, &search(other));
        assert_eq!(answer, [Message::SearchRefused { request: 9, wait_seconds: 300 }], "{}", other.ip4);
    }
    let b = member(&mut world, 6);
    assert!(matches!(a.ask(&mut world, &search(&b))[..], [Message::SearchGrant { .. }]), "refusals cost nothing");
}

#[test]
fn whoever_knows_the_token_of_a_port_is_told_where_it_is_seen_and_others_meet_silence() {
    let mut world = World::new();
    let key = ObserverKey::of(&keys(7, PORT + 1));
    let stranger = at(SECOND, "203.0.113.9:7000");
    let asked = Observe::emit(&[3; 12], |covered| key.mac(covered));
    let sent = world.answers(stranger, &asked);
    let [(to, answer)] = &sent[..] else { panic!("one answer") };
    assert_eq!((to.remote, answer.len()), (stranger.remote, OBSERVE_BYTES));
    let seen = Observed::parse(answer).unwrap();
    assert_eq!((seen.nonce, seen.endpoint), ([3; 12], stranger.remote));
    assert!(key.verify(mac_input(answer), &seen.mac));
    assert!(world.transfer.poll_timeout().is_none(), "nothing is remembered");

    assert_eq!(world.answers(at(FIRST, "203.0.113.9:7000"), &asked), [], "of another port");
    let wrong = ObserverKey::of(&keys(8, PORT + 1));
    assert_eq!(world.answers(stranger, &Observe::emit(&[3; 12], |covered| wrong.mac(covered))), []);
    assert_eq!(world.transfer.drops().get(DropReason::WrongToken), 2);
    assert_eq!(world.answers(stranger, &asked[..47]), []);
    assert_eq!(world.answers(stranger, answer), [], "an answer is no question");
}

#[test]
fn members_are_told_of_the_other_port() {
    let mut world = World::new();
    world.transfer.set_other_port(FIRST, Some(PORT + 1));
    let mut gateway = Gateway::new(FIRST, 1);
    let sent = gateway.register(&mut world);
    let told = gateway.read(&sent);
    assert!(matches!(told[..], [Message::Registered { other_port: Some(port), .. }] if port == PORT + 1), "{told:?}");
}
