//! Lookups and numbered changes.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::message::{Message, Target};
use mesh_wire::route::Slot;

use super::world::*;
use crate::drops::DropReason;

fn lookup(ip4: Ipv4Addr) -> Message {
    Message::Lookup { request: 8, target: Target::Address(ip4) }
}

#[test]
fn lookup_finds_by_address_and_by_slot() {
    let mut world = World::new();
    let mut a = Gateway::new(FIRST, 1).join(&mut world);
    let b = Gateway::new(FIRST, 2).join(&mut world);
    for target in [Target::Address(b.ip4), Target::Slot(b.slot)] {
        let [Message::Found { request: 8, change: 0, peer }] =
            &a.ask(&mut world, &Message::Lookup { request: 8, target })[..]
        else {
            panic!("found")
        };
        assert_eq!((peer.ip4, &peer.key, peer.slot, peer.boot), (b.ip4, b.key.public(), b.slot, b.boot));
    }
    let gone = Slot { generation: b.slot.generation.wrapping_add(1), ..b.slot };
    for target in [Target::Address(Ipv4Addr::new(10, 9, 9, 9)), Target::Slot(gone)] {
        let answer = a.ask(&mut world, &Message::Lookup { request: 8, target });
        assert_eq!(answer, [Message::NotFound { request: 8, target }]);
    }
}

#[test]
fn members_of_other_namespaces_are_not_found() {
    let mut world = World::new();
    let mut a = Gateway::new(FIRST, 1).join(&mut world);
    let b = Gateway::new(SECOND, 2).join(&mut world);
    assert!(matches!(a.ask(&mut world, &lookup(b.ip4))[..], [Message::NotFound { .. }]));
}

#[test]
fn changes_of_what_was_looked_up_are_numbered_from_one() {
    let mut world = World::new();
    let mut a = Gateway::new(FIRST, 1).join(&mut world);
    let mut b = Gateway::new(FIRST, 2);
    assert!(matches!(a.ask(&mut world, &lookup(b.ip4))[..], [Message::NotFound { .. }]));

    let changes = |sent: &[Sent], a: &Gateway| -> Vec<(u32, bool)> {
        let change = |message| {
            let Message::Change { number, peer, .. } = message else { panic!("not a change: {message:?}") };
            (number, peer.is_some())
        };
        a.read(sent).into_iter().map(change).collect()
    };
    let sent = b.register(&mut world);
    assert_eq!(changes(&sent, &a), [(1, true)], "it came");
    let sent = b.register(&mut world);
    assert_eq!(changes(&sent, &a), [], "new keys are no change");
    b.boot = 1000;
    let sent = b.register(&mut world);
    assert_eq!(changes(&sent, &a), [(2, true)], "it was restarted");
    let goodbye = b.seal(&Message::Goodbye);
    let sent = world.deliver(b.endpoint, &goodbye);
    assert_eq!(changes(&sent, &a), [(3, false)], "it left");
    let [Message::KeepaliveAck { change, .. }] = a.ask(&mut world, &Message::Keepalive { seq: 1, change: 3 })[..]
    else {
        panic!("an answer")
    };
    assert_eq!(change, 3);
    let other = Gateway::new(FIRST, 3).register(&mut world);
    assert_eq!(changes(&other, &a), [], "it never asked for that one");
}

#[test]
fn subscription_ends_with_its_term() {
    let mut world = World::new();
    let mut a = Gateway::new(FIRST, 1).join(&mut world);
    let mut b = Gateway::new(FIRST, 2);
    a.ask(&mut world, &lookup(b.ip4));
    for _ in 0..3 {
        world.pass(Duration::from_secs(100));
        a.ask(&mut world, &Message::Keepalive { seq: 1, change: 0 });
    }
    let sent = b.register(&mut world);
    assert_eq!(a.read(&sent), []);
}

#[test]
fn lookups_and_subscriptions_of_one_member_are_bounded() {
    let mut world = World::new();
    let mut a = Gateway::new(FIRST, 1).join(&mut world);
    let answered =
        (0..3000_u32).filter(|n| !a.ask(&mut world, &lookup(Ipv4Addr::from(0x0a00_0100 + n))).is_empty()).count();
    assert!((100..=1000).contains(&answered), "{answered}");
    assert!(world.transfer.drops().get(DropReason::RateLimited) >= 2000);
    for n in 0..3000_u32 {
        world.now = world.now + Duration::from_millis(5);
        assert_eq!(a.ask(&mut world, &lookup(Ipv4Addr::from(0x0a00_0100 + n))).len(), 1);
    }
    let space = world.transfer.spaces.get(FIRST).unwrap();
    assert_eq!(space.watchers.len(), crate::transfer::lookups::WATCHING_MAX);
}

#[test]
fn subscriptions_of_who_left_are_gone() {
    let mut world = World::new();
    let mut a = Gateway::new(FIRST, 1).join(&mut world);
    a.ask(&mut world, &lookup(Ipv4Addr::new(10, 9, 9, 9)));
    a.ask(&mut world, &Message::Goodbye);
    assert!(world.transfer.spaces.get(FIRST).unwrap().watchers.is_empty());
}
