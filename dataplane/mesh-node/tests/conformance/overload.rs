//! Too much, too long, nowhere to go: counted, survived, never an error of the pump.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use mesh_core::seam::{Endpoint, SocketId};

use crate::support::{Conforms, Patience, Rig, SOON, pattern, peer, receive, send_train};

pub(crate) fn survives_a_burst_without_reading<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    for number in 0..3000 {
        peer.send_to(&pattern(number, 1200), address).unwrap();
    }
    // Whatever the socket's buffer kept comes out, in order; then life goes on.
    let mut last = None;
    while rig.turn(SOON, |engine, train, arrival| {
        for datagram in engine.split(train).0.chunks(arrival.segment_bytes) {
            let number = (last.map_or(0, |last| last + 1)..3000).find(|number| pattern(*number, 1200) == datagram);
            last = Some(number.expect("datagrams arrive unchanged and in order"));
        }
    }) > 0
    {}
    assert!(last.is_some(), "the receive buffer kept something");
    for number in 0..100 {
        let datagram = pattern(number, 800);
        peer.send_to(&datagram, address).unwrap();
        rig.echo(1);
        assert!(receive(&peer) == datagram, "datagram {number} after the burst");
    }
}

pub(crate) fn an_oversize_datagram_is_counted<E: Conforms>() {
    let (mut rig, socket, address) = Rig::<E>::with_socket();
    let peer = peer();
    let to = crate::support::endpoint(socket, &peer);
    let range = rig.engine.slab().take(66_000);
    rig.engine.keep_slab(range.end);
    rig.engine.send(range, 66_000, &to, 0);
    rig.engine.flush().unwrap();
    settle(&mut rig, 1);
    let counters = rig.engine.counters();
    assert_eq!((counters.drops_send_failed, counters.datagrams_out), (1, 0), "{counters:?}");
    train_still_leaves_whole(&mut rig, address);
}

pub(crate) fn an_unreachable_destination_is_no_error<E: Conforms>() {
    let (mut rig, socket, address) = Rig::<E>::with_socket();
    // A port that was just given back: answered with "port unreachable", which some systems report at a later call.
    let nobody = peer().local_addr().unwrap();
    let to = Endpoint { socket, remote: nobody, local: None };
    for _ in 0..50 {
        compose(&mut rig, b"anybody?", &to);
        rig.turn(Duration::ZERO, |_, _, _| {});
    }
    settle(&mut rig, 50);
    train_still_leaves_whole(&mut rig, address);
}

pub(crate) fn an_impossible_destination_is_counted<E: Conforms>() {
    let (mut rig, socket, address) = Rig::<E>::with_socket();
    let nowhere: [SocketAddr; 3] = [
        (Ipv4Addr::LOCALHOST, 0).into(),
        (Ipv6Addr::LOCALHOST, 9).into(),
        // No one may send to all hosts without asking for it.
        (Ipv4Addr::BROADCAST, 9).into(),
    ];
    for remote in nowhere {
        compose(&mut rig, b"nowhere", &Endpoint { socket, remote, local: None });
    }
    // A socket that is not there.
    let gone = SocketId(socket.0 + 7);
    compose(&mut rig, b"nowhere", &Endpoint { socket: gone, remote: address, local: None });
    settle(&mut rig, 4);
    let counters = rig.engine.counters();
    assert_eq!((counters.drops_send_failed, counters.datagrams_out), (4, 0), "{counters:?}");
    train_still_leaves_whole(&mut rig, address);
}

#[cfg(target_os = "linux")]
pub(crate) fn a_full_send_buffer_loses_nothing_silently<E: Conforms>() {
    crate::namespace::enter(E::NAME, "a_full_send_buffer_loses_nothing_silently", full_send_buffer::<E>);
}

/// A neighbour that never answers: what is sent to it waits in the kernel and fills the socket's send buffer.
#[cfg(target_os = "linux")]
fn full_send_buffer<E: Conforms>() {
    let mut wanted = tun::Configuration::default();
    wanted.layer(tun::Layer::L2).tun_name("silent0").address((10, 8, 0, 1)).netmask((255, 255, 0, 0)).up();
    let _silent = tun::create(&wanted).expect("a TAP interface: load the driver with `modprobe tun`");
    let mut rig = Rig::<E>::new();
    let socket = std::net::UdpSocket::bind("10.8.0.1:0").unwrap();
    socket2::SockRef::from(&socket).set_send_buffer_size(1).unwrap();
    let socket_id = rig.engine.add_socket(socket.try_clone().unwrap(), false).unwrap();
    socket2::SockRef::from(&socket).set_send_buffer_size(1).unwrap();
    drop(socket);
    let to = Endpoint { socket: socket_id, remote: ([10, 8, 0, 2], 9).into(), local: None };
    for _ in 0..300 {
        compose(&mut rig, &[7; 1000], &to);
    }
    rig.turn(SOON, |_, _, _| {});
    let counters = rig.engine.counters();
    assert!(counters.drops_send_full > 0, "the buffer is full, and what is held back is bounded: {counters:?}");
    rig.engine.remove_socket(socket_id).unwrap();
    rig.engine.flush().unwrap();
    settle(&mut rig, 300);
}

/// Queues and flushes one composed datagram.
fn compose<E: Conforms>(rig: &mut Rig<E>, bytes: &[u8], to: &Endpoint) {
    let mut slab = rig.engine.slab();
    let range = slab.append(bytes).expect("the slab has room");
    let used = slab.used();
    rig.engine.keep_slab(used);
    rig.engine.send(range, bytes.len(), to, 0);
    rig.engine.flush().unwrap();
}

/// Turns until each of `queued` datagrams was sent or counted as dropped, exactly.
fn settle<E: Conforms>(rig: &mut Rig<E>, queued: u64) {
    let patience = Patience::new("each datagram to be accounted for");
    loop {
        let counters = rig.engine.counters();
        let settled = counters.datagrams_out + counters.drops_send_full + counters.drops_send_failed;
        assert!(settled <= queued, "counted twice: {counters:?}");
        if settled == queued {
            return;
        }
        patience.check(counters);
        let before = Instant::now();
        rig.turn(Duration::from_millis(20), |_, _, _| {});
        assert!(before.elapsed() < Duration::from_secs(5), "a wait ends in time whatever was sent");
    }
}

/// No error before may have cost the engine its trains.
fn train_still_leaves_whole<E: Conforms>(rig: &mut Rig<E>, address: SocketAddr) {
    let peer = peer();
    let train = pattern(9, 20 * 500);
    let before = rig.engine.counters();
    send_train(&peer, address, &train, 500);
    rig.echo(20);
    for datagram in train.chunks(500) {
        assert!(receive(&peer) == datagram, "bytes, boundaries or order changed");
    }
    if cfg!(target_os = "linux") {
        assert_eq!(rig.engine.counters().sends - before.sends, 1, "a train leaves by one send");
    }
}
