//! When a wait ends.

use std::thread;
use std::time::{Duration, Instant};

use mesh_node::engine::Wake;

use crate::support::{Conforms, Patience, Rig, echo, peer};

pub(crate) fn a_wait_ends_in_time<E: Conforms>() {
    let (mut rig, _, _) = Rig::<E>::with_socket();
    for millis in [1, 5, 30, 150] {
        let timeout = Duration::from_millis(millis);
        let before = Instant::now();
        assert_eq!(rig.turn(timeout, |_, _, _| {}), 0);
        let waited = before.elapsed();
        assert!(waited >= timeout, "a wait of {timeout:?} ended after {waited:?}");
        assert!(waited < timeout + Duration::from_secs(2), "a wait of {timeout:?} ended after {waited:?}");
    }
}

pub(crate) fn a_wait_of_no_time_sees_what_is_there<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    let patience = Patience::new("a datagram without waiting");
    for _ in 0..20 {
        peer.send_to(b"there", address).unwrap();
        while rig.turn(Duration::ZERO, |_, _, _| {}) == 0 {
            patience.check(rig.engine.counters());
        }
    }
    let before = Instant::now();
    for _ in 0..100 {
        assert_eq!(rig.turn(Duration::ZERO, |_, _, _| {}), 0);
    }
    assert!(before.elapsed() < Duration::from_secs(1), "a wait of no time takes none");
}

pub(crate) fn another_thread_ends_a_wait<E: Conforms>() {
    let (mut rig, _, _) = Rig::<E>::with_socket();
    let waker = rig.engine.waker();
    let mut batch = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            pause();
            waker.wake();
        });
        // Without end: only the waker can end it.
        rig.engine.wait(None, &mut batch).expect("wait");
    });
    assert!(batch.is_empty());
}

pub(crate) fn a_wake_before_the_wait_is_not_lost<E: Conforms>() {
    let (mut rig, _, _) = Rig::<E>::with_socket();
    for _ in 0..20 {
        rig.engine.waker().wake();
        rig.engine.wait(None, &mut Vec::new()).expect("wait");
    }
}

pub(crate) fn a_wake_ends_one_wait_only<E: Conforms>() {
    let (mut rig, _, _) = Rig::<E>::with_socket();
    let timeout = Duration::from_millis(60);
    rig.engine.waker().wake();
    rig.engine.wait(None, &mut Vec::new()).expect("wait");
    let before = Instant::now();
    rig.engine.wait(Some(timeout), &mut Vec::new()).expect("wait");
    assert!(before.elapsed() >= timeout, "the wake-up ended two waits");
}

/// Gives the wait time to begin. If it has not, the wake-up comes before it, which must do as well.
#[expect(clippy::disallowed_methods, reason = "nobody can see from outside that a thread waits")]
fn pause() {
    thread::sleep(Duration::from_millis(50));
}

/// What a turn queued leaves by the wait of the next one, which then sleeps as long as it may.
pub(crate) fn a_wait_sends_first_and_then_sleeps<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for number in 0..50_u8 {
        peer.send_to(&[number], address).unwrap();
        let patience = Patience::new("a datagram to echo");
        let mut echoed = 0;
        while echoed == 0 {
            patience.check(rig.engine.counters());
            rig.open_turn(Duration::from_millis(200), |engine, train, arrival| echoed += echo(engine, train, arrival));
        }
        // Nothing comes any more: this wait must send, and end in time.
        let before = Instant::now();
        assert_eq!(rig.open_turn(Duration::from_millis(2), |_, _, _| {}), 0);
        assert!(before.elapsed() < Duration::from_secs(2), "a wait that sends does not oversleep");
        let mut answer = [0; 8];
        assert_eq!((peer.recv(&mut answer).unwrap(), answer[0]), (1, number));
    }
}

/// A wake ends also a wait that has something to send, without end and right after load that makes engines let trains gather.
pub(crate) fn another_thread_ends_a_wait_that_sends<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    for _ in 0..20 {
        for _ in 0..60 {
            peer.send_to(b"load", address).unwrap();
        }
        let patience = Patience::new("datagrams to echo");
        let mut echoed = 0;
        while echoed < 60 {
            patience.check(rig.engine.counters());
            rig.open_turn(Duration::from_millis(200), |engine, train, arrival| echoed += echo(engine, train, arrival));
        }
        let waker = rig.engine.waker();
        let mut batch = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            rig.engine.wait(None, &mut batch).expect("wait");
        });
        assert!(batch.is_empty());
    }
}
