//! Sockets: what travels beside the bytes, how many there are, how they come and go.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::{
    Engine, PATIENCE, add, compose, echo, echo_until, endpoint, engine, origin, peer, receive, send_train, set_int,
    take, turns_until,
};
use crate::{Endpoint, SocketId};

pub fn tos_and_the_address_that_was_asked_travel_on_every_family<E: Engine>() {
    // (bound to, asked, by a socket on)
    let cases = [
        ("0.0.0.0:0", "127.0.0.3", "127.0.0.1:0"),
        ("[::]:0", "127.0.0.3", "127.0.0.1:0"),
        ("[::]:0", "::1", "[::1]:0"),
    ];
    for (bound, asked, from) in cases {
        let mut engine = engine::<E>();
        let socket = UdpSocket::bind(bound).unwrap();
        let port = socket.local_addr().unwrap().port();
        engine.add_socket(socket, true).unwrap();
        let peer = UdpSocket::bind(from).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked: IpAddr = asked.parse().unwrap();
        if asked.is_ipv4() {
            set_int(&peer, libc::IPPROTO_IP, libc::IP_TOS, 0xb8);
        } else {
            set_int(&peer, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 0xb8);
        }
        let address = SocketAddr::new(asked, port);
        peer.send_to(b"one", address).unwrap();
        send_train(&peer, &[7; 300], 100, address);
        // The answers come back into an engine, which reads their TOS.
        let mut reader = super::engine::<E>();
        let own = peer.local_addr().unwrap();
        reader.add_socket(peer, false).unwrap();
        turns_until(
            &mut engine,
            |engine, train| {
                let from = origin(train);
                assert_eq!((from.remote, from.local, train.tos()), (own, Some(asked), 0xb8), "{bound}");
                echo(engine, train);
            },
            |engine| engine.counters().datagrams_out == 4,
        );
        turns_until(
            &mut reader,
            |_, train| assert_eq!((origin(train).remote, train.tos()), (address, 0xb8), "{bound}"),
            |reader| reader.counters().datagrams_in == 4,
        );
    }
}

/// On the loopback the system leaves from 127.0.0.1 without a word, and from another address only if it is told.
pub fn a_source_that_the_system_would_choose_is_kept_as_well_as_another<E: Engine>() {
    let mut engine = engine::<E>();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let socket = engine.add_socket(socket, true).unwrap();
    let sink = peer();
    for local in [[127, 0, 0, 1], [127, 0, 0, 7], [127, 0, 0, 1]] {
        let local = IpAddr::from(local);
        let range = compose(&mut engine, b"from where?");
        engine.send(range, 11, &Endpoint { local: Some(local), ..endpoint(socket, &sink) }, 0);
        engine.flush();
        let (_, from) = sink.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from, SocketAddr::new(local, port));
    }
}

pub fn thousands_of_sockets_are_added_fast_and_all_receive<E: Engine>() {
    let mut engine = engine::<E>();
    let sockets: Vec<UdpSocket> = (0..1500).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets[7].set_nonblocking(true).unwrap();
    let addresses: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    for socket in sockets {
        engine.add_socket(socket, false).unwrap();
    }
    let peer = peer();
    set_int(&peer, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20);
    for address in &addresses {
        peer.send_to(b"x", address).unwrap();
    }
    echo_until(&mut engine, 1500);
    let seen: BTreeSet<_> = (0..1500).map(|_| peer.recv_from(&mut [0; 8]).unwrap().1).collect();
    assert!(seen.into_iter().eq(addresses.into_iter().collect::<BTreeSet<_>>()));
}

pub fn a_removed_socket_frees_its_port_and_its_number_comes_back_after_the_flush<E: Engine>() {
    let mut engine = engine::<E>();
    let (first, address) = add(&mut engine);
    let (second, second_address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"x", second_address).unwrap();
    echo_until(&mut engine, 1);
    // Something is on its way out and something has arrived when it is removed.
    engine.send(0..3, 3, &endpoint(first, &peer), 0);
    peer.send_to(b"late", address).unwrap();
    engine.remove_socket(first).unwrap();
    let again = UdpSocket::bind(address).expect("the port is free");
    assert_eq!(engine.counters().datagrams_out, 2);
    assert_eq!(engine.remove_socket(first).unwrap_err().kind(), io::ErrorKind::NotFound);
    let (third, _) = add(&mut engine);
    assert!(third != first && third != second);
    engine.flush();
    let fourth = engine.add_socket(again, false).unwrap();
    assert_eq!(fourth, first);
    peer.send_to(b"y", address).unwrap();
    turns_until(
        &mut engine,
        |engine, train| assert_eq!(engine.split(train).0, b"y"),
        |engine| engine.counters().datagrams_in == 2,
    );
}

pub fn what_is_for_a_removed_socket_is_counted<E: Engine>() {
    let mut engine = engine::<E>();
    let (first, address) = add(&mut engine);
    let peer = peer();
    send_train(&peer, &[5; 400], 100, address);
    let mut batch = take(&mut engine, 1);
    engine.remove_socket(first).unwrap();
    // The train outlives its socket: its bytes are there, but nothing can leave by it any more.
    let mut train = batch.remove(0);
    assert_eq!(engine.split(&mut train).0, [5; 400]);
    let from = origin(&train);
    engine.forward(&train, 0..400, 100, &from, 0);
    engine.release(train);
    engine.flush();
    let counters = engine.counters();
    assert_eq!((counters.datagrams_out, counters.drops_send_failed), (0, 4));
}

pub fn dropping_the_engine_frees_its_ports_at_once<E: Engine>() {
    let mut engine = engine::<E>();
    // Below the range the kernel chooses from: else it gives a port that was just freed to a test that runs beside this one.
    let bound = (24_000..32_000).filter_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok()).take(200);
    let mut addresses = Vec::new();
    for socket in bound {
        addresses.push(socket.local_addr().unwrap());
        engine.add_socket(socket, false).unwrap();
    }
    assert_eq!(addresses.len(), 200);
    let peer = peer();
    peer.send_to(b"x", addresses[3]).unwrap();
    let batch = take(&mut engine, 1);
    assert_eq!(batch.len(), 1);
    drop(engine);
    for address in addresses {
        UdpSocket::bind(address).expect("the port is free");
    }
    // A train that outlives its engine is only dropped.
    drop(batch);
}

pub fn an_engine_says_what_buffers_its_sockets_got<E: Engine>() {
    let mut engine = engine::<E>();
    assert_eq!(engine.offloads(), (false, false));
    let (socket, address) = add(&mut engine);
    let buffers = engine.socket_buffers(socket).unwrap();
    assert!(buffers.receive_bytes >= 200_000 && buffers.send_bytes >= 200_000, "{buffers:?}");
    assert_eq!(engine.socket_buffers(SocketId(9)), None);
    assert_eq!(engine.offloads(), (true, true));
    let peer = peer();
    peer.send_to(b"x", address).unwrap();
    echo_until(&mut engine, 1);
    assert_eq!(receive(&peer), b"x");
    engine.remove_socket(socket).unwrap();
    assert_eq!((engine.offloads(), engine.socket_buffers(socket)), ((false, false), None));
}
