//! The engine against plain sockets on the loopback.
#![cfg(target_os = "linux")]

mod common;

use std::net::UdpSocket;
use std::time::Duration;

use common::Tested;
use mesh_udp::WorkingSet;
use mesh_udp::testing::{Engine as _, PATIENCE};
use mesh_udp::testing::{Limits, add, compose, echo, endpoint, engine, origin, peer, receive, send_train, turns_until};

mesh_udp::loopback_tests!(Tested);

#[test]
fn one_call_receives_what_a_socket_has_and_one_sends_it() {
    let mut engine = engine::<Tested>();
    let (_, address) = add(&mut engine);
    let sources: Vec<UdpSocket> = (0..40).map(|_| peer()).collect();
    for (number, source) in sources.iter().enumerate() {
        source.send_to(&[number as u8; 90], address).unwrap();
    }
    let mut batch = Vec::new();
    engine.wait(Some(PATIENCE), &mut batch).unwrap();
    assert_eq!(batch.len(), 40, "all by one receive");
    assert_eq!(engine.counters().enters, 2, "epoll and the receive");
    for mut train in batch.drain(..) {
        echo(&mut engine, &mut train);
        engine.release(train);
    }
    engine.flush();
    let counters = engine.counters();
    assert_eq!((counters.enters, counters.sends), (3, 40), "one call for 40 destinations");
    for (number, source) in sources.iter().enumerate() {
        assert_eq!(receive(source), [number as u8; 90]);
    }
}

#[test]
fn the_sends_of_each_socket_go_by_calls_of_at_most_64() {
    let mut engine = engine::<Tested>();
    let (one, _) = add(&mut engine);
    let (other, _) = add(&mut engine);
    let sinks: Vec<UdpSocket> = (0..150).map(|_| peer()).collect();
    for sink in &sinks {
        let range = compose(&mut engine, b"one");
        engine.send(range, 3, &endpoint(one, sink), 0);
    }
    let range = compose(&mut engine, b"other");
    engine.send(range, 5, &endpoint(other, &sinks[0]), 0);
    engine.flush();
    assert_eq!(engine.counters().enters, 4, "64, 64 and 22, and the other socket's");
    sinks.iter().for_each(|sink| assert_eq!(receive(sink), b"one"));
    assert_eq!(receive(&sinks[0]), b"other");
}

#[test]
fn many_ready_sockets_are_told_by_one_look() {
    let mut engine = engine::<Tested>();
    let peer = peer();
    let addresses: Vec<_> = (0..50).map(|_| add(&mut engine).1).collect();
    for address in &addresses {
        peer.send_to(b"x", address).unwrap();
    }
    let mut batch = Vec::new();
    engine.wait(Some(PATIENCE), &mut batch).unwrap();
    assert_eq!((batch.len(), engine.counters().enters), (50, 51));
    batch.drain(..).for_each(|train| engine.release(train));
}

#[test]
fn what_one_look_told_is_served_in_later_waits_without_another() {
    let mut engine = Tested::make(Limits { trains: Some(4), ..Limits::default() });
    let peer = peer();
    let addresses: Vec<_> = (0..12).map(|_| add(&mut engine).1).collect();
    for address in &addresses {
        peer.send_to(b"x", address).unwrap();
    }
    let mut seen = Vec::new();
    for round in 1..=3 {
        let mut batch = Vec::new();
        engine.wait(Some(PATIENCE), &mut batch).unwrap();
        assert_eq!(batch.len(), 4);
        assert_eq!(engine.counters().enters, 1 + 4 * round, "one look, one receive for each socket");
        seen.extend(batch.iter().map(|train| origin(train).socket.0));
        batch.into_iter().for_each(|train| engine.release(train));
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..12), "each socket had its turn");
}

#[test]
fn a_socket_removed_while_it_is_ready_is_not_read() {
    let mut engine = Tested::make(Limits { trains: Some(1), ..Limits::default() });
    let peer = peer();
    let sockets: Vec<_> = (0..3).map(|_| add(&mut engine)).collect();
    for (_, address) in &sockets {
        peer.send_to(b"x", address).unwrap();
    }
    let mut batch = Vec::new();
    engine.wait(Some(PATIENCE), &mut batch).unwrap();
    // Two are known to be ready and wait for their turn; one of them goes, and another takes its number.
    let first = origin(&batch[0]).socket;
    batch.drain(..).for_each(|train| engine.release(train));
    let gone = sockets.iter().map(|(socket, _)| *socket).find(|socket| *socket != first).unwrap();
    engine.remove_socket(gone).unwrap();
    engine.flush();
    let (again, _) = add(&mut engine);
    assert_eq!(again, gone);
    let before = engine.counters().enters;
    engine.wait(Some(PATIENCE), &mut batch).unwrap();
    assert!(batch.len() == 1 && ![first, gone].contains(&origin(&batch[0]).socket));
    assert_eq!(engine.counters().enters - before, 1, "the third is known to be ready, and nothing else is read");
    batch.drain(..).for_each(|train| engine.release(train));
    engine.wait(Some(Duration::from_millis(5)), &mut batch).unwrap();
    assert!(batch.is_empty());
}

#[test]
fn trains_are_taken_in_small_batches_where_they_are_long() {
    let mut engine = engine::<Tested>();
    let (_, address) = add(&mut engine);
    let source = peer();
    // The engine learns how long trains are.
    let learnt = 100;
    let mut fitting = WorkingSet::new();
    for round in 1..=learnt {
        fitting.note(40 * 1200);
        send_train(&source, &[3; 40 * 1200], 1200, address);
        turns_until(&mut engine, |_, _| {}, |engine| engine.counters().trains_in == round);
    }
    let fitting = usize::from(fitting.trains());
    let more = fitting as u64 + 10;
    for _ in 0..more {
        send_train(&source, &[3; 40 * 1200], 1200, address);
    }
    let mut batch = Vec::new();
    engine.wait(Some(PATIENCE), &mut batch).unwrap();
    let received = batch.len();
    assert!((8..=fitting).contains(&received), "{received} trains of 48 kB in one receive, {fitting} fit the cache");
    batch.drain(..).for_each(|train| engine.release(train));
    turns_until(&mut engine, |_, _| {}, |engine| engine.counters().trains_in == learnt + more);
    // Of datagrams alone the engine learns that there is room for more.
    for round in 1..=200_u64 {
        source.send_to(&[1], address).unwrap();
        turns_until(&mut engine, |_, _| {}, |engine| engine.counters().trains_in == learnt + more + round);
    }
    for length in 1..=64 {
        source.send_to(&vec![1; length], address).unwrap();
    }
    engine.wait(Some(PATIENCE), &mut batch).unwrap();
    assert_eq!(batch.len(), 64);
    batch.drain(..).for_each(|train| engine.release(train));
}

#[test]
fn timeouts_are_rounded_up_to_milliseconds() {
    let mut engine = engine::<Tested>();
    add(&mut engine);
    let start = std::time::Instant::now();
    for _ in 0..10 {
        engine.wait(Some(Duration::from_micros(100)), &mut Vec::new()).unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(9), "a wait of less does not spin: {:?}", start.elapsed());
}
