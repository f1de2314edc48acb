//! Sends that the kernel refuses, errors of others, and what it cut.

use std::net::UdpSocket;
use std::time::Duration;

use super::{Engine, add, compose, echo, echo_until, endpoint, engine, is_quiet, peer, receive, set_int, turns_until};
use crate::{Counters, Endpoint, SocketId};

pub fn what_is_too_long_is_counted_and_harms_nothing_else<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, _) = add(&mut engine);
    let sink = peer();
    let to = endpoint(socket, &sink);
    engine.slab().memory[..4].copy_from_slice(b"fits");
    engine.keep_slab(70_000);
    engine.send(0..70_000, 70_000, &to, 0);
    engine.send(0..65_508, 65_508, &to, 0);
    engine.send(0..65_507, 65_507, &to, 0);
    engine.send(0..4, 4, &to, 0);
    engine.flush();
    let counters = engine.counters();
    assert_eq!((counters.drops_send_failed, counters.datagrams_out), (2, 2));
    assert_eq!(receive(&sink).len(), 65_507);
    assert_eq!(receive(&sink), b"fits");
}

pub fn what_cannot_be_reached_is_counted<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, _) = add(&mut engine);
    // From a socket bound to the loopback nothing leaves for elsewhere; to the other family neither.
    for remote in ["192.0.2.1:9", "[::1]:9"] {
        engine.send(0..10, 5, &Endpoint { socket, remote: remote.parse().unwrap(), local: None }, 0);
    }
    let nobody = Endpoint { socket: SocketId(77), remote: "127.0.0.1:9".parse().unwrap(), local: None };
    engine.send(0..10, 5, &nobody, 0);
    engine.deliver_slab(0..10);
    engine.flush();
    let expected = Counters { drops_send_failed: 6, drops_inside_full: 1, ..Counters::default() };
    let counters = engine.counters();
    assert_eq!(Counters { enters: 0, resent_singly: 0, ..counters }, expected);
}

pub fn one_refused_send_of_many_takes_no_other_with_it<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, address) = add(&mut engine);
    let sinks: Vec<UdpSocket> = (0..9).map(|_| peer()).collect();
    // Port 0 is nobody's: the first, one in the middle, two in a row and the last are refused.
    let refused = [0, 4, 7, 8, 13];
    let mut next = sinks.iter();
    for number in 0..14_u8 {
        let range = compose(&mut engine, &[number; 40]);
        let to = if refused.contains(&number) {
            Endpoint { socket, remote: ([127, 0, 0, 1], 0).into(), local: None }
        } else {
            endpoint(socket, next.next().unwrap())
        };
        // No two of them join: lengths differ.
        engine.send(range.start..range.start + 20 + usize::from(number), 40, &to, 0);
    }
    engine.flush();
    let counters = engine.counters();
    assert_eq!((counters.datagrams_out, counters.sends, counters.drops_send_failed), (9, 9, 5), "{counters:?}");
    let accepted = (0..14_u8).filter(|number| !refused.contains(number));
    for (sink, number) in sinks.iter().zip(accepted) {
        assert_eq!(receive(sink), vec![number; 20 + usize::from(number)]);
        assert!(is_quiet(sink), "sent once");
    }
    sinks[0].send_to(b"still here?", address).unwrap();
    echo_until(&mut engine, 10);
    assert_eq!(receive(&sinks[0]), b"still here?");
}

pub fn an_icmp_error_ends_neither_receive_nor_send<E: Engine>() {
    let mut engine = engine::<E>();
    // It hears one other socket only: whoever else sends to its port is told that nobody is there.
    let (deaf, other) = (peer(), peer());
    deaf.connect(other.local_addr().unwrap()).unwrap();
    let remote = deaf.local_addr().unwrap();
    // A connected socket is told what became of what it sent: the next call fails with it.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.connect(remote).unwrap();
    let socket = engine.add_socket(socket, false).unwrap();
    let to = Endpoint { socket, remote, local: None };
    let mut batch = Vec::new();
    for _ in 0..21 {
        let range = compose(&mut engine, b"anybody?");
        engine.send(range, 8, &to, 0);
        engine.flush();
        engine.wait(Some(Duration::from_millis(1)), &mut batch).unwrap();
    }
    assert!(batch.is_empty());
    let counters = engine.counters();
    assert_eq!(counters.datagrams_out + counters.drops_send_failed, 21, "{counters:?}");
    assert_eq!((counters.drops_truncated, counters.trains_in), (0, 0));
    // Nothing is left of it: the socket is silent, and the engine sleeps.
    for _ in 0..10 {
        engine.wait(Some(Duration::from_millis(20)), &mut batch).unwrap();
    }
    let spent = engine.counters().enters - counters.enters;
    assert!(spent <= 60, "{spent} calls while nothing came");
    // From now on it hears the engine.
    deaf.connect(address).unwrap();
    deaf.send(b"now there is").unwrap();
    let before = engine.counters().datagrams_out;
    echo_until(&mut engine, before + 1);
    assert_eq!(receive(&deaf), b"now there is");
}

pub fn what_the_kernel_cut_is_counted_and_its_buffer_comes_back<E: Engine>() {
    let mut engine = engine::<E>();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let chatty = socket.try_clone().unwrap();
    engine.add_socket(socket, true).unwrap();
    // More than there is room for is told with each datagram.
    let told = [
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
        (libc::IPPROTO_IP, libc::IP_RECVTTL),
        (libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR),
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL),
    ];
    told.iter().for_each(|&(level, option)| set_int(&chatty, level, option, 1));
    let peer = peer();
    // Far more than there are buffers: each comes back, or the rest would not be received.
    let cut = 3000;
    for number in 0..cut {
        peer.send_to(b"cut", address).unwrap();
        if number % 50 == 49 {
            let expected = number + 1;
            turns_until(
                &mut engine,
                |_, _| panic!("nobody is told what was cut"),
                |engine| engine.counters().drops_truncated == expected,
            );
        }
    }
    assert_eq!(engine.counters().trains_in, 0);
    told.iter().for_each(|&(level, option)| set_int(&chatty, level, option, 0));
    peer.send_to(b"whole", address).unwrap();
    turns_until(&mut engine, echo, |engine| engine.counters().datagrams_out == 1);
    assert_eq!(receive(&peer), b"whole");
    assert_eq!((engine.counters().drops_truncated, engine.counters().trains_in), (cut, 1));
}
