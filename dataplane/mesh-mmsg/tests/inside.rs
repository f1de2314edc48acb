//! The virtual interface, with a pair of sockets in its place: each message is a packet.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod common;

use std::os::fd::OwnedFd;
use std::time::Duration;

use common::Tested;
use mesh_udp::Origin;
use mesh_udp::testing::{Engine as _, Limits, PATIENCE, add, compose, echo_until, peer, receive, turns_until};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{read, write};

/// An engine whose interface ends in the descriptor beside it.
fn with_interface(limits: Limits) -> (Tested, OwnedFd) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (device, end) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let mut engine = Tested::make(limits);
    engine.add_inside(device).unwrap();
    (engine, end)
}

#[test]
fn packets_are_read_one_by_one_and_bounded_by_the_batch() {
    let (mut engine, end) = with_interface(Limits { trains: Some(4), ..Limits::default() });
    for number in 1..=10 {
        write(&end, &vec![number; usize::from(number)]).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let mut batch = Vec::new();
        engine.wait(Some(PATIENCE), &mut batch).unwrap();
        assert!((1..=4).contains(&batch.len()));
        for mut train in batch {
            assert_eq!((train.origin(), train.segment_bytes(), train.tos()), (Origin::Inside, train.len(), 0));
            seen.push(engine.split(&mut train).0.to_vec());
            engine.deliver(&train, 0..train.len());
            engine.release(train);
        }
        engine.flush();
    }
    assert!(seen.into_iter().eq((1..=10).map(|number| vec![number; usize::from(number)])));
    let mut buffer = [0; 64];
    for number in 1..=10 {
        assert_eq!(read(&end, &mut buffer).unwrap(), number, "what was delivered comes out, in order");
    }
    assert_eq!((engine.counters().inside_in, engine.counters().inside_out), (10, 10));
}

#[test]
fn packets_beyond_what_the_interface_takes_are_counted() {
    let (mut engine, end) = with_interface(Limits::default());
    let range = compose(&mut engine, &[7; 4000]);
    for _ in 0..1000 {
        engine.deliver_slab(range.clone());
    }
    engine.flush();
    let counters = engine.counters();
    assert_eq!(counters.inside_out + counters.drops_inside_full, 1000);
    assert!(counters.inside_out > 0 && counters.drops_inside_full > 0, "{counters:?}");
    // What was taken arrives, and when it is read there is room again.
    let mut buffer = [0; 4096];
    let mut arrived = 0;
    while read(&end, &mut buffer) != Err(Errno::EAGAIN) {
        arrived += 1;
    }
    assert_eq!(arrived, counters.inside_out);
    let range = compose(&mut engine, b"again");
    engine.deliver_slab(range);
    engine.flush();
    assert_eq!(read(&end, &mut buffer), Ok(5));
    assert_eq!(engine.counters().drops_inside_full, counters.drops_inside_full);
}

#[test]
fn an_interface_that_is_gone_is_told_once_and_the_sockets_go_on() {
    let (mut engine, end) = with_interface(Limits::default());
    let (_, address) = add(&mut engine);
    write(&end, b"last").unwrap();
    drop(end);
    let mut told = Vec::new();
    let mut batch = Vec::new();
    for _ in 0..20 {
        if let Err(error) = engine.wait(Some(Duration::from_millis(2)), &mut batch) {
            told.push(error.to_string());
        }
        for train in batch.drain(..) {
            assert_eq!(train.len(), 4, "what it had said is not lost");
            engine.release(train);
        }
    }
    assert_eq!(engine.counters().inside_in, 1);
    assert!(told.len() == 1 && told[0].contains("the virtual interface is gone"), "{told:?}");
    // Watched on, it would have cost a call and more in each wait.
    let before = engine.counters().enters;
    engine.wait(Some(Duration::from_millis(5)), &mut batch).unwrap();
    assert!(engine.counters().enters - before <= 2);
    let peer = peer();
    peer.send_to(b"and you?", address).unwrap();
    echo_until(&mut engine, 1);
    assert_eq!(receive(&peer), b"and you?");
    // What is for it is counted.
    let range = compose(&mut engine, b"nobody");
    engine.deliver_slab(range);
    engine.flush();
    assert_eq!(engine.counters().drops_inside_full, 1);
}

#[test]
fn packets_and_datagrams_take_turns() {
    let (mut engine, end) = with_interface(Limits::default());
    let (_, address) = add(&mut engine);
    let peer = peer();
    for number in 0..100_u8 {
        write(&end, &[number; 20]).unwrap();
    }
    peer.send_to(b"me too", address).unwrap();
    let mut before = None;
    turns_until(
        &mut engine,
        |engine, train| {
            if train.origin() != Origin::Inside {
                before = Some(engine.counters().inside_in);
            }
        },
        |engine| engine.counters().inside_in == 100 && engine.counters().datagrams_in == 1,
    );
    assert!(before.is_some_and(|packets| packets <= 64), "{before:?} packets before the sockets had their turn");
}
