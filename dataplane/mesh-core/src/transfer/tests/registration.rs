//! Who holds an address.

use std::time::Duration;

use mesh_wire::message::{Message, RefusedReason};

use super::world::*;
use crate::seam::Moment;
use crate::transfer::{Event, LeftReason};

const KEEPALIVE: Message = Message::Keepalive { seq: 9, change: 0 };

#[test]
fn second_claimant_is_refused_and_the_first_keeps_working() {
    let mut world = World::new();
    let mut first = Gateway::new(FIRST, 1).join(&mut world);
    let mut second = Gateway::new(FIRST, 2);
    second.ip4 = first.ip4;
    let sent = second.register(&mut world);
    assert_eq!(refused(&second.read(&sent)), Some(RefusedReason::AddressTaken));
    assert_eq!(first.ask(&mut world, &KEEPALIVE).len(), 1);
    assert!(world.events().iter().any(|event| matches!(event, Event::Refused { .. })));

    // It may ask for another on the same session, at once.
    second.ip4 = Gateway::new(FIRST, 2).ip4;
    let (boot, ip4) = (second.boot, second.ip4);
    let register = Message::Register { request: 6, boot, ip4, name: String::new(), ticket: Default::default() };
    assert!(matches!(second.ask(&mut world, &register)[..], [Message::Registered { request: 6, .. }]));
    assert_eq!(world.members(), [first.ip4, second.ip4]);
}

#[test]
fn lease_ends_after_silence_and_not_before() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    world.pass(Duration::from_secs(119));
    assert_eq!(gateway.ask(&mut world, &KEEPALIVE).len(), 1);
    world.pass(Duration::from_secs(119));
    assert_eq!(world.members(), [gateway.ip4]);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.members().len(), 0);
    assert!(matches!(world.events()[..], [Event::Joined { .. }, Event::Left { reason: LeftReason::Silent, .. }]));
    assert_eq!(world.transfer.status(world.now).control_sessions, 0);
    let mut next = Gateway::new(FIRST, 2);
    next.ip4 = gateway.ip4;
    next.join(&mut world);
}

#[test]
fn goodbye_frees_the_address_at_once() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    assert_eq!(gateway.ask(&mut world, &Message::Goodbye), []);
    let mut next = Gateway::new(FIRST, 2);
    next.ip4 = gateway.ip4;
    let next = next.join(&mut world);
    assert_ne!(next.slot, gateway.slot, "the slot's next holder has another generation");
}

#[test]
fn addresses_that_no_host_has_are_refused() {
    for ip4 in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"] {
        let mut world = World::new();
        let mut gateway = Gateway::new(FIRST, 1);
        gateway.ip4 = ip4.parse().unwrap();
        let sent = gateway.register(&mut world);
        assert_eq!(refused(&gateway.read(&sent)), Some(RefusedReason::BadAddress), "{ip4}");
    }
}

#[test]
fn reserved_address_waits_for_its_key() {
    let mut world = World::new();
    let mut owner = Gateway::new(FIRST, 1);
    assert!(world.transfer.reserve(FIRST, owner.ip4, *owner.key.public()));
    let mut other = Gateway::new(FIRST, 2);
    other.ip4 = owner.ip4;
    let sent = other.register(&mut world);
    assert_eq!(refused(&other.read(&sent)), Some(RefusedReason::AddressTaken));
    owner.register(&mut world);
    assert_eq!(world.members(), [owner.ip4]);
}

#[test]
fn clone_is_refused_while_the_first_start_answers() {
    let mut world = World::new();
    let mut first = Gateway::new(FIRST, 1).join(&mut world);
    let mut clone = Gateway::new(FIRST, 1);
    clone.endpoint = at(FIRST, "198.51.100.7:5000");
    clone.boot = 999;
    let sent = clone.register(&mut world);
    assert_eq!(clone.read(&sent), [], "no answer before the first start was asked");
    let [Message::Probe { seq }] = first.read(&sent)[..] else { panic!("the first start is asked") };
    let reply = first.seal(&Message::ProbeReply { seq });
    let sent = world.deliver(first.endpoint, &reply);
    assert_eq!(refused(&clone.read(&sent)), Some(RefusedReason::KeyInUse));
    world.pass(Duration::from_secs(10));
    assert_eq!(first.ask(&mut world, &KEEPALIVE).len(), 1, "the first keeps working");
}

#[test]
fn restarted_gateway_has_its_address_again_within_600_ms() {
    let mut world = World::new();
    let first = Gateway::new(FIRST, 1).join(&mut world);
    let mut next = Gateway::new(FIRST, 1);
    next.endpoint = at(FIRST, "192.0.2.1:6000");
    next.boot = 999;
    let sent = next.register(&mut world);
    assert_eq!(first.read(&sent).len(), 1);
    let sent = world.pass(Duration::from_millis(599));
    assert_eq!(first.read(&sent).len(), 2, "asked three times in all");
    assert_eq!(next.read(&sent), []);
    let sent = world.pass(Duration::from_millis(1));
    next.take_registered(&sent);
    assert_eq!(next.slot.index, first.slot.index);
    assert_ne!(next.slot.generation, first.slot.generation, "another start, another generation");
    assert_eq!(next.ask(&mut world, &KEEPALIVE).len(), 1);
}

#[test]
fn next_start_waits_no_longer_than_the_goodbye_of_the_first() {
    let mut world = World::new();
    let mut first = Gateway::new(FIRST, 1).join(&mut world);
    let mut next = Gateway::new(FIRST, 1);
    next.endpoint = at(FIRST, "192.0.2.1:6000");
    next.boot = 999;
    next.register(&mut world);
    let goodbye = first.seal(&Message::Goodbye);
    let sent = world.deliver(first.endpoint, &goodbye);
    next.take_registered(&sent);
    assert!(!next.slot.is_none());
    assert_eq!(world.members(), [next.ip4]);
    world.pass(Duration::from_secs(10));
    assert_eq!(next.ask(&mut world, &KEEPALIVE).len(), 1);
}

#[test]
fn ticket_displaces_a_holder_and_whoever_waits_for_its_place() {
    let mut world = World::new();
    let mut owner = Gateway::new(FIRST, 1).join(&mut world);
    let mut world = World::started(2, world.now);
    let mut squatter = Gateway::new(FIRST, 2);
    squatter.ip4 = owner.ip4;
    squatter.join(&mut world);
    let mut second = Gateway::new(FIRST, 2);
    (second.ip4, second.boot, second.endpoint) = (owner.ip4, 999, at(FIRST, "198.51.100.7:5000"));
    second.register(&mut world);
    let sent = owner.register(&mut world);
    assert_eq!(refused(&second.read(&sent)), Some(RefusedReason::AddressTaken));
    assert_eq!(world.members(), [owner.ip4]);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.members(), [owner.ip4]);
}

#[test]
fn restart_on_the_same_port_needs_no_wait() {
    let mut world = World::new();
    let first = Gateway::new(FIRST, 1).join(&mut world);
    let mut next = Gateway::new(FIRST, 1);
    next.boot = 999;
    let next = next.join(&mut world);
    assert_ne!(next.slot.generation, first.slot.generation);
}

#[test]
fn same_start_from_another_endpoint_keeps_its_slot() {
    let mut world = World::new();
    let peer = Gateway::new(FIRST, 2).join(&mut world);
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    let slot = gateway.slot;
    gateway.endpoint = at(FIRST, "198.51.100.7:5000");
    gateway.register(&mut world);
    assert_eq!(gateway.slot, slot);
    let forwarded = world.deliver(peer.endpoint, &peer.data(slot, 100));
    assert_eq!(only(forwarded, gateway.endpoint).len(), 100);
}

#[test]
fn new_address_is_challenged_before_anything_moves() {
    let mut world = World::new();
    let peer = Gateway::new(FIRST, 2).join(&mut world);
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    let (old, new) = (gateway.endpoint, at(FIRST, "198.51.100.7:5000"));

    let mut probes = Vec::new();
    for _ in 0..10 {
        let keepalive = gateway.seal(&KEEPALIVE);
        let sent = world.deliver(new, &keepalive);
        assert!(sent.iter().all(|(to, datagram)| *to == new && datagram.len() <= keepalive.len()));
        probes.extend(sent);
    }
    assert_eq!(probes.len(), 3, "at most three packets to an address that is not proven");
    assert_eq!(only(world.deliver(peer.endpoint, &peer.data(gateway.slot, 99)), old).len(), 99);

    let Some(Message::Probe { seq }) = gateway.open(&probes[0].1) else { panic!("a probe") };
    let wrong = gateway.seal(&Message::ProbeReply { seq: seq ^ 1 });
    assert_eq!(world.deliver(new, &wrong), []);
    let reply = gateway.seal(&Message::ProbeReply { seq });
    let acknowledged = only(world.deliver(new, &reply), new);
    assert!(matches!(
        gateway.open(&acknowledged),
        Some(Message::KeepaliveAck { seq: 9, observed, .. }) if observed == new.remote
    ));
    assert_eq!(only(world.deliver(peer.endpoint, &peer.data(gateway.slot, 99)), new).len(), 99);
}

#[test]
fn ticket_displaces_a_claim_without_one_after_a_restart() {
    let mut world = World::new();
    let mut owner = Gateway::new(FIRST, 1).join(&mut world);
    let mut world = World::started(2, world.now + Duration::from_secs(50));

    let mut squatter = Gateway::new(FIRST, 2);
    squatter.ip4 = owner.ip4;
    let squatter = squatter.join(&mut world);
    owner.slot = mesh_wire::route::Slot::NONE;
    let sent = owner.register(&mut world);
    assert!(!owner.slot.is_none());
    assert_eq!(refused(&squatter.read(&sent)), Some(RefusedReason::AddressTaken), "and it is told");
    assert_eq!(world.members(), [owner.ip4]);
}

#[test]
fn of_two_tickets_the_older_lease_wins() {
    // Two transfers that could not see each other gave the same address away; they share the ticket key.
    let mut world = World::new();
    let mut young = Gateway::new(FIRST, 2);
    young.ip4 = Gateway::new(FIRST, 1).ip4;
    let mut young = young.join(&mut world);
    let mut world = World::started(2, world.now);
    let mut old = Gateway::new(FIRST, 1).join(&mut world);
    world.pass(Duration::from_secs(100));
    old.register(&mut world);

    let mut world = World::started(3, world.now);
    young.register(&mut world);
    old.slot = mesh_wire::route::Slot::NONE;
    old.register(&mut world);
    assert!(!old.slot.is_none(), "the older lease wins");
    let sent = young.register(&mut world);
    assert_eq!(refused(&young.read(&sent)), Some(RefusedReason::AddressTaken));
    let held = &world.transfer.status(world.now).namespaces[0].members[0];
    assert_eq!((held.ip, held.age_seconds), (old.ip4, 100), "its age counts on");
}

#[test]
fn tickets_decide_only_after_a_start_and_only_for_their_key() {
    let mut world = World::new();
    let mut owner = Gateway::new(FIRST, 1).join(&mut world);
    let started = Moment::from_nanos(5_000_000_000_000);
    for (after, thief) in [(Duration::from_secs(121), false), (Duration::from_secs(1), true)] {
        let mut world = World::started(2, started);
        world.pass(after);
        let mut holder = Gateway::new(FIRST, 2);
        holder.ip4 = owner.ip4;
        let holder = holder.join(&mut world);
        let mut claimant = Gateway::new(FIRST, 3);
        (claimant.ip4, claimant.ticket) = (owner.ip4, owner.ticket.clone());
        let claimant = if thief { &mut claimant } else { &mut owner };
        let sent = claimant.register(&mut world);
        assert_eq!(refused(&claimant.read(&sent)), Some(RefusedReason::AddressTaken));
        assert_eq!(world.members(), [holder.ip4]);
    }
}

#[test]
fn removed_namespace_is_forgotten_whole() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    let keepalive = gateway.seal(&KEEPALIVE);
    world.transfer.remove_namespace(FIRST);
    assert_eq!(world.deliver(gateway.endpoint, &keepalive), []);
    let status = world.transfer.status(world.now);
    assert_eq!((status.control_sessions, status.handshakes_pending, status.namespaces.len()), (0, 0, 1));
    assert_eq!(crate::node::Node::poll_timeout(&world.transfer), None);
}
