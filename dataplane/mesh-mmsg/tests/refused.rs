//! What becomes of `sendmmsg` when it fails: the system call itself is made to, by a filter of the thread.
//!
//! A filter stays for the life of its thread, so each test works on one of its own.
#![cfg(target_os = "linux")]

mod common;

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use common::Tested;
use mesh_udp::SocketId;
use mesh_udp::testing::sys::refuse_sendmmsg_of;
use mesh_udp::testing::{Engine as _, add, compose, endpoint, engine, is_quiet, peer, receive, turns_until};

/// Runs a test on a thread where each `sendmmsg` of so many messages fails with `error`.
fn where_sending_fails(messages: u32, error: i32, body: fn()) {
    let outcome = thread::spawn(move || {
        refuse_sendmmsg_of(messages, error);
        body();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Queues one datagram to each of these.
fn send_one_to_each(engine: &mut Tested, socket: SocketId, sinks: &[UdpSocket], text: &[u8]) {
    for sink in sinks {
        let range = compose(engine, text);
        engine.send(range, text.len(), &endpoint(socket, sink), 0);
    }
}

#[test]
fn without_memory_in_the_kernel_one_is_lost_and_the_others_go() {
    for error in [libc::ENOBUFS, libc::ENOMEM] {
        where_sending_fails(3, error, || {
            let mut engine = engine::<Tested>();
            let (socket, _) = add(&mut engine);
            let sinks = [peer(), peer(), peer()];
            send_one_to_each(&mut engine, socket, &sinks, b"three");
            engine.flush();
            let counters = engine.counters();
            assert_eq!((counters.drops_send_full, counters.datagrams_out), (1, 2), "{counters:?}");
            assert_eq!((counters.held, counters.drops_send_failed), (0, 0), "that is no full socket buffer");
            assert!(is_quiet(&sinks[0]));
            assert_eq!(receive(&sinks[1]), b"three");
            assert_eq!(receive(&sinks[2]), b"three");
        });
    }
}

#[test]
fn a_device_that_cannot_cut_is_asked_once() {
    where_sending_fails(1, libc::EIO, || {
        let mut engine = engine::<Tested>();
        let (socket, _) = add(&mut engine);
        assert_eq!(engine.offloads(), (true, true));
        let sink = peer();
        for round in 1..=3 {
            let range = compose(&mut engine, &[round; 5 * 80]);
            engine.send(range, 80, &endpoint(socket, &sink), 0);
            engine.flush();
            let counters = engine.counters();
            // The train was refused whole and went one by one; those after it were never put together.
            assert_eq!((counters.resent_singly, counters.sends), (1, 5 * u64::from(round)), "{counters:?}");
            for _ in 0..5 {
                assert_eq!(receive(&sink), [round; 80]);
            }
        }
        assert_eq!(engine.offloads(), (false, true));
        assert_eq!((engine.counters().drops_send_failed, engine.counters().lengths_out.0[0]), (0, 15));
        // Another socket leaves by another device.
        let (other, _) = add(&mut engine);
        assert_ne!(other, socket);
        assert_eq!(engine.offloads(), (true, true));
    });
}

#[test]
fn a_kernel_that_refuses_a_train_is_asked_again_for_the_next() {
    where_sending_fails(1, libc::EINVAL, || {
        let mut engine = engine::<Tested>();
        let (socket, _) = add(&mut engine);
        let sink = peer();
        for round in 1..=2 {
            let range = compose(&mut engine, &[round; 4 * 80 + 9]);
            engine.send(range, 80, &endpoint(socket, &sink), 0);
            engine.flush();
            assert_eq!(
                (engine.counters().resent_singly, engine.counters().datagrams_out),
                (round.into(), 5 * u64::from(round))
            );
            for number in 0..5 {
                assert_eq!(receive(&sink), vec![round; if number < 4 { 80 } else { 9 }]);
            }
        }
        assert_eq!(engine.offloads(), (true, true));
        // A datagram alone has nothing to be cut: there it is a failure.
        let range = compose(&mut engine, b"alone");
        engine.send(range, 5, &endpoint(socket, &sink), 0);
        engine.flush();
        assert_eq!((engine.counters().drops_send_failed, engine.counters().resent_singly), (1, 2));
    });
}

#[test]
fn of_a_train_too_long_for_its_path_the_short_tail_is_tried() {
    where_sending_fails(2, libc::EMSGSIZE, || {
        let mut engine = engine::<Tested>();
        let (socket, _) = add(&mut engine);
        let (sink, other) = (peer(), peer());
        let range = compose(&mut engine, &[1; 3 * 100 + 40]);
        engine.send(range, 100, &endpoint(socket, &sink), 0);
        let range = compose(&mut engine, b"beside it");
        engine.send(range, 9, &endpoint(socket, &other), 0);
        engine.flush();
        // The tail and what was beside it make two messages again: the tail alone is refused for good.
        let counters = engine.counters();
        assert_eq!(
            (counters.resent_singly, counters.drops_send_failed, counters.datagrams_out),
            (1, 4, 1),
            "{counters:?}"
        );
        assert_eq!(receive(&other), b"beside it");
        assert!(is_quiet(&sink));
        assert_eq!(engine.offloads(), (true, true), "another path may be wider");
    });
}

#[test]
fn what_met_a_full_buffer_is_held_with_all_behind_it_and_leaves_in_order() {
    where_sending_fails(2, libc::EAGAIN, || {
        let mut engine = engine::<Tested>();
        let (socket, address) = add(&mut engine);
        let sinks = [peer(), peer()];
        send_one_to_each(&mut engine, socket, &sinks, b"first");
        engine.flush();
        let counters = engine.counters();
        assert_eq!((counters.held, counters.datagrams_out), (2, 0), "{counters:?}");
        // One message would go through, and would overtake: it waits, too.
        send_one_to_each(&mut engine, socket, &sinks[..1], b"second");
        engine.flush();
        assert_eq!((engine.counters().held, engine.counters().datagrams_out), (3, 0));
        assert!(is_quiet(&sinks[0]));
        // The copies are the engine's: the slab may be written again.
        let all = engine.slab().memory.len();
        engine.slab().memory[..1000.min(all)].fill(0);
        // The socket has room; epoll says so.
        turns_until(&mut engine, |_, _| {}, |engine| engine.counters().datagrams_out == 3);
        assert_eq!(receive(&sinks[0]), b"first");
        assert_eq!(receive(&sinks[0]), b"second");
        assert_eq!(receive(&sinks[1]), b"first");
        let counters = engine.counters();
        assert_eq!((counters.sends, counters.drops_send_full), (3, 0));
        // Its room is watched no more: a socket that can send would be reported for ever.
        let mut batch = Vec::new();
        engine.wait(Some(Duration::from_millis(5)), &mut batch).unwrap();
        assert!(engine.counters().enters - counters.enters <= 3, "{:?}", engine.counters());
        sinks[0].send_to(b"and back", address).unwrap();
        mesh_udp::testing::echo_until(&mut engine, 4);
        assert_eq!(receive(&sinks[0]), b"and back");
    });
}

#[test]
fn a_failure_of_another_kind_loses_one_and_is_counted() {
    where_sending_fails(4, libc::EPERM, || {
        let mut engine = engine::<Tested>();
        let (socket, _) = add(&mut engine);
        let sinks = [peer(), peer(), peer(), peer()];
        send_one_to_each(&mut engine, socket, &sinks, b"four");
        engine.flush();
        let counters = engine.counters();
        assert_eq!((counters.drops_send_failed, counters.datagrams_out, counters.held), (1, 3, 0));
        assert!(is_quiet(&sinks[0]));
        sinks[1..].iter().for_each(|sink| assert_eq!(receive(sink), b"four"));
    });
}
