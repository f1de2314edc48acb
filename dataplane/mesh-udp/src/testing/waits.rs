//! Waiting and waking, and how often the kernel is entered.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Engine, PATIENCE, add, compose, echo, echo_until, endpoint, engine, peer, receive};

pub fn the_waker_ends_the_wait_at_hand_or_the_next_one<E: Engine>() {
    let mut engine = engine::<E>();
    let waker = engine.waker();
    let mut batch = Vec::new();
    for _ in 0..3 {
        waker.wake();
        waker.wake();
        engine.wait(None, &mut batch).unwrap();
    }
    // One call, one wait.
    let start = Instant::now();
    engine.wait(Some(Duration::from_millis(30)), &mut batch).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(30));
    let (started, wait_began) = mpsc::channel();
    let other = thread::spawn(move || {
        wait_began.recv().unwrap();
        waker.wake();
        waker
    });
    started.send(()).unwrap();
    engine.wait(None, &mut batch).unwrap();
    let waker = other.join().unwrap();
    drop(engine);
    waker.wake();
}

pub fn a_wait_without_news_lasts_as_long_as_it_was_told<E: Engine>() {
    let mut engine = engine::<E>();
    add(&mut engine);
    let mut batch = Vec::new();
    for millis in [0, 1, 40] {
        let start = Instant::now();
        engine.wait(Some(Duration::from_millis(millis)), &mut batch).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(millis));
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(batch.is_empty());
}

pub fn a_turn_under_load_costs_few_calls<E: Engine>() {
    let mut engine = engine::<E>();
    let (_, address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"warm", address).unwrap();
    echo_until(&mut engine, 1);
    let before = engine.counters().enters;
    let mut batch = Vec::new();
    for _ in 0..100 {
        peer.send_to(&[1; 200], address).unwrap();
        engine.wait(Some(PATIENCE), &mut batch).unwrap();
        for mut train in batch.drain(..) {
            echo(&mut engine, &mut train);
            engine.release(train);
        }
        engine.flush();
    }
    assert_eq!(engine.counters().datagrams_out, 101);
    let spent = engine.counters().enters - before;
    assert!(spent > 0 && spent <= 100 * E::CALLS_OF_A_TURN, "{spent}");
}

pub fn waiting_for_nothing_costs_one_call<E: Engine>() {
    let mut engine = engine::<E>();
    for _ in 0..100 {
        add(&mut engine);
    }
    let mut batch = Vec::new();
    // The first wait may have receives to start.
    engine.wait(Some(Duration::from_millis(1)), &mut batch).unwrap();
    let before = engine.counters().enters;
    for _ in 0..20 {
        engine.wait(Some(Duration::from_millis(5)), &mut batch).unwrap();
    }
    let spent = engine.counters().enters - before;
    // A timer that ends a little early costs one more.
    assert!((20..=25).contains(&spent), "{spent} calls for 20 waits");
    assert!(batch.is_empty());
}

pub fn a_flush_of_nothing_costs_no_call<E: Engine>() {
    let mut engine = engine::<E>();
    let (_, address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"x", address).unwrap();
    echo_until(&mut engine, 1);
    let before = engine.counters().enters;
    for _ in 0..10 {
        engine.flush();
    }
    assert_eq!(engine.counters().enters, before);
}

pub fn what_was_queued_leaves_by_the_next_wait<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, _) = add(&mut engine);
    let peer = peer();
    for number in 0..20_u8 {
        let range = compose(&mut engine, &[number; 30]);
        engine.send(range, 30, &endpoint(socket, &peer), 0);
        // No flush: the wait sends before it sleeps.
        engine.wait(Some(Duration::from_millis(1)), &mut Vec::new()).unwrap();
        assert_eq!(receive(&peer), [number; 30]);
    }
    assert_eq!(engine.counters().datagrams_out, 20);
    assert_eq!(engine.slab().used, 0, "the wait took the slab back");
}
