//! Verdict lists for trains.

use std::time::Duration;

use mesh_wire::frame::FrameType;
use mesh_wire::message::Message;
use mesh_wire::notice::{AgainReason, RegisterAgain};
use mesh_wire::route::{Destination, Slot};

use super::world::*;
use crate::drops::DropReason;
use crate::seam::{Action, Endpoint};

/// Three members, of which the first sends.
fn three() -> (World, [Gateway; 3]) {
    let mut world = World::new();
    let gateways = [1, 2, 3].map(|n| Gateway::new(FIRST, n).join(&mut world));
    (world, gateways)
}

fn forward(bytes: std::ops::Range<usize>, stride: usize, to: Endpoint) -> Action {
    Action::Forward { bytes, segment_bytes: stride, to, tos: 0xb8 }
}

#[track_caller]
fn check(world: &mut World, from: Endpoint, stride: usize, train: &[Vec<u8>], expect: &[Action]) {
    let mut bytes = train.concat();
    let before = bytes.clone();
    assert_eq!(world.train(from, stride, &mut bytes), expect);
    assert_eq!(bytes, before, "a relay changes nothing");
}

#[test]
fn train_of_one_route_leaves_as_it_came() {
    let (mut world, [a, b, _]) = three();
    let train = [a.data(b.slot, 100), a.data(b.slot, 100), a.data(b.slot, 60)];
    check(&mut world, a.endpoint, 100, &train, &[forward(0..260, 100, b.endpoint)]);
    let status = world.transfer.status(world.now);
    assert_eq!((status.counters.datagrams_forwarded, status.counters.runs_forwarded), (3, 1));
    assert_eq!((status.namespaces[0].datagrams_forwarded, status.namespaces[0].bytes_forwarded), (3, 260));
    let member = &status.namespaces[0].members[0];
    assert_eq!((member.ip, member.datagrams_forwarded, member.bytes_forwarded), (a.ip4, 3, 260));
}

#[test]
fn train_is_cut_where_the_destination_changes() {
    let (mut world, [a, b, c]) = three();
    let to = |slot| a.data(slot, 100);
    let train = [to(b.slot), to(b.slot), to(c.slot), to(b.slot)];
    let expect =
        [forward(0..200, 100, b.endpoint), forward(200..300, 100, c.endpoint), forward(300..400, 100, b.endpoint)];
    check(&mut world, a.endpoint, 100, &train, &expect);
}

#[test]
fn every_segment_is_checked() {
    let (mut world, [a, b, _]) = three();
    let good = a.data(b.slot, 100);
    let mut wrong_source = good.clone();
    wrong_source[15] ^= 1;
    let mut wrong_destination = good.clone();
    wrong_destination[9] ^= 1;
    let mut other_type = good.clone();
    other_type[0] = 0x2f;
    for (bad, reason) in [
        (wrong_source, DropReason::UnknownSource),
        (wrong_destination, DropReason::UnknownDestination),
        (other_type, DropReason::UnknownType),
    ] {
        let train = [good.clone(), bad, good.clone()];
        let actions = world.train(a.endpoint, 100, &mut train.concat());
        let forwards: Vec<Action> =
            actions.into_iter().filter(|action| matches!(action, Action::Forward { .. })).collect();
        assert_eq!(forwards, [forward(0..100, 100, b.endpoint), forward(200..300, 100, b.endpoint)]);
        assert_eq!(world.transfer.drops().get(reason), 1);
    }
}

#[test]
fn short_last_segment_is_dropped_alone() {
    let (mut world, [a, b, _]) = three();
    for short in 1..16 {
        let train = [a.data(b.slot, 100), a.data(b.slot, short)];
        check(&mut world, a.endpoint, 100, &train, &[forward(0..100, 100, b.endpoint)]);
    }
    assert_eq!(world.transfer.drops().get(DropReason::TooShort), 15);
    let train = [a.data(b.slot, 100), a.data(b.slot, 16)];
    check(&mut world, a.endpoint, 100, &train, &[forward(0..116, 100, b.endpoint)]);
}

#[test]
fn all_frames_with_a_route_are_relayed_alike() {
    let (mut world, [a, b, _]) = three();
    let train: Vec<Vec<u8>> = (0..=5)
        .map(|kind| {
            let mut frame = a.data(b.slot, 80);
            frame[0] = 0x20 | kind;
            frame
        })
        .collect();
    check(&mut world, a.endpoint, 80, &train, &[forward(0..480, 80, b.endpoint)]);
}

#[test]
fn notices_and_errors_are_not_relayed() {
    let (mut world, [a, b, _]) = three();
    for kind in [FrameType::RegisterAgain, FrameType::Error] {
        let mut frame = a.data(b.slot, 80);
        frame[0] = kind.byte();
        check(&mut world, a.endpoint, 80, &[frame], &[]);
    }
    assert_eq!(world.transfer.drops().get(DropReason::UnexpectedType), 2);
}

#[test]
fn frame_to_itself_and_to_joined_transfers_are_dropped() {
    let (mut world, [a, b, _]) = three();
    check(&mut world, a.endpoint, 100, &[a.data(a.slot, 100)], &[]);
    assert_eq!(world.transfer.drops().get(DropReason::ToItself), 1);
    let mut elsewhere = a.data(b.slot, 100);
    elsewhere[3] = 1;
    check(&mut world, a.endpoint, 100, &[elsewhere], &[]);
    assert_eq!(world.transfer.drops().get(DropReason::UnknownTransfer), 1);
}

#[test]
fn refusals_are_told_once_a_second() {
    let (mut world, [a, b, _]) = three();
    let stranger = at(FIRST, "198.51.100.1:9");
    let nobody = Slot { index: 4000, generation: 1 };
    let cases = [
        (a.endpoint, a.data(nobody, 100), AgainReason::UnknownDestination, DropReason::UnknownDestination),
        (stranger, a.data(b.slot, 100), AgainReason::EndpointMoved, DropReason::EndpointMoved),
        (
            at(FIRST, "198.51.100.2:9"),
            Gateway::new(FIRST, 9).data(b.slot, 16),
            AgainReason::UnknownSource,
            DropReason::UnknownSource,
        ),
    ];
    for (from, frame, reason, dropped) in cases {
        let told = only(world.deliver(from, &frame), from);
        assert!(told.len() <= frame.len());
        let notice = RegisterAgain::parse(&told).unwrap();
        assert_eq!(notice.reason, reason);
        assert_eq!(notice.route.destination, Destination::here(if from == a.endpoint { nobody } else { b.slot }));
        assert_eq!(world.deliver(from, &frame), [], "the second within a second");
        assert_eq!(world.transfer.drops().get(dropped), 2);
    }
    world.now = world.now + Duration::from_secs(1);
    assert_eq!(world.deliver(stranger, &a.data(b.slot, 100)).len(), 1);
}

#[test]
fn namespaces_share_nothing() {
    let mut world = World::new();
    let a = Gateway::new(FIRST, 1).join(&mut world);
    let mut other = Gateway::new(SECOND, 2);
    other.endpoint.remote = "192.0.2.2:5000".parse().unwrap();
    let other = other.join(&mut world);
    let b = Gateway::new(FIRST, 3).join(&mut world);

    // The same numbers name somebody else, or nobody, on the other socket.
    assert_eq!(a.slot.index, other.slot.index);
    let crossing = Endpoint { socket: SECOND, ..a.endpoint };
    let sent = world.deliver(crossing, &a.data(b.slot, 100));
    assert!(sent.iter().all(|(to, _)| *to == crossing), "{sent:?}");
    assert_eq!(world.transfer.status(world.now).counters.datagrams_forwarded, 0);
    let found = world.transfer.status(world.now);
    assert_eq!(found.namespaces.iter().map(|space| space.members.len()).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn trains_for_no_namespace_and_empty_ones_are_counted() {
    let (mut world, [a, b, _]) = three();
    let from = Endpoint { socket: crate::seam::SocketId(9), ..a.endpoint };
    check(&mut world, from, 100, &[a.data(b.slot, 100), a.data(b.slot, 30)], &[]);
    check(&mut world, a.endpoint, 1, &[], &[]);
    assert_eq!(world.transfer.drops().get(DropReason::UnknownSocket), 2);
    assert_eq!(world.transfer.drops().get(DropReason::Empty), 1);
}

/// What a member sent before it moved is forwarded for five seconds, whichever way it moved, and nobody else's.
#[test]
fn what_was_sent_before_a_move_arrives() {
    let elsewhere = at(FIRST, "198.51.100.7:5000");
    for by_handshake in [true, false] {
        let (mut world, [mut a, b, c]) = three();
        let old = a.endpoint;
        let late = [a.data(b.slot, 100), a.data(b.slot, 100), a.data(a.slot, 100), a.data(c.slot, 40)];
        if by_handshake {
            a.endpoint = elsewhere;
            a.register(&mut world);
        } else {
            let keepalive = a.seal(&Message::Keepalive { seq: 9, change: 0 });
            let probe = only(world.deliver(elsewhere, &keepalive), elsewhere);
            let Some(Message::Probe { seq }) = a.open(&probe) else { panic!("an address is challenged first") };
            let answer = a.seal(&Message::ProbeReply { seq });
            world.deliver(elsewhere, &answer);
        }
        let expect = [forward(0..200, 100, b.endpoint), forward(300..340, 100, c.endpoint)];
        let forwards = |world: &mut World, from| {
            let actions = world.train(from, 100, &mut late.concat());
            actions.into_iter().filter(|action| matches!(action, Action::Forward { .. })).collect::<Vec<_>>()
        };
        assert_eq!(forwards(&mut world, elsewhere), expect, "where it is now");
        let dropped = world.transfer.drops().get(DropReason::EndpointMoved);
        for _ in 0..4 {
            assert_eq!(forwards(&mut world, old), expect, "and where it was");
            world.pass(Duration::from_millis(1200));
        }
        assert_eq!(world.transfer.drops().get(DropReason::EndpointMoved) - dropped, 4, "none to itself");
        assert!(forwards(&mut world, at(FIRST, "192.0.2.1:5001")).is_empty(), "where it never was");
        world.pass(Duration::from_millis(300));
        assert!(forwards(&mut world, old).is_empty(), "five seconds are over");
        assert!(!world.members().is_empty());
    }
}

/// The next start of a member has another slot: what the one before had sent is nobody's.
#[test]
fn what_an_earlier_start_sent_is_not_forwarded() {
    let (mut world, [mut a, b, _]) = three();
    let (old, late) = (a.endpoint, a.data(b.slot, 100));
    a.boot += 1;
    a.endpoint = at(FIRST, "198.51.100.7:5000");
    let last = a.up_to_final(&mut world);
    world.deliver(a.endpoint, &last);
    let sent = world.pass(Duration::from_secs(1));
    a.take_registered(&sent);
    assert!(world.answers(a.endpoint, &a.data(b.slot, 100)).iter().any(|(to, _)| *to == b.endpoint));
    assert!(world.answers(old, &late).iter().all(|(to, _)| *to == old), "a notice at most");
}
