//! Sockets come, go, and stand by the thousand.

use std::net::UdpSocket;
use std::time::Duration;

use mesh_core::seam::SocketId;
#[cfg(target_os = "linux")]
use mesh_node::engine::{UDP_GRO, UDP_GSO};

use crate::support::{Conforms, Patience, Rig, SOON, echo, outside, pattern, peer, receive, receive_from};

pub(crate) fn sockets_come_and_go<E: Conforms>() {
    let mut rig = Rig::<E>::new();
    let peer = peer();
    for round in 0..30 {
        let (socket, address) = rig.bind("127.0.0.1:0");
        let (other, other_address) = rig.bind("127.0.0.1:0");
        assert_ne!(socket, other);
        for address in [address, other_address] {
            let datagram = pattern(round, 200);
            peer.send_to(&datagram, address).unwrap();
            rig.echo(1);
            assert_eq!(receive_from(&peer), (datagram, address));
        }
        // One goes with a datagram unread: it is handed over or not, but nothing breaks.
        peer.send_to(b"late", address).unwrap();
        rig.engine.remove_socket(socket).unwrap();
        assert!(rig.engine.remove_socket(socket).is_err(), "it is gone");
        rig.engine.flush().unwrap();
        rig.engine.remove_socket(other).unwrap();
        rig.turn(Duration::ZERO, |_, _, _| {});
    }
    assert!(rig.engine.remove_socket(SocketId(60_000)).is_err(), "there never was one");
}

pub(crate) fn a_removed_socket_frees_its_port<E: Conforms>() {
    let (mut rig, socket, address) = Rig::<E>::with_socket();
    let peer = peer();
    peer.send_to(b"busy", address).unwrap();
    rig.echo(1);
    rig.engine.remove_socket(socket).unwrap();
    UdpSocket::bind(address).expect("the port is free as soon as its socket was removed");
}

pub(crate) fn a_dropped_engine_frees_its_ports<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    peer.send_to(b"busy", address).unwrap();
    rig.echo(1);
    drop(rig);
    UdpSocket::bind(address).expect("the port is free as soon as the engine is gone");
}

pub(crate) fn a_number_outlives_its_socket_until_the_flush<E: Conforms>() {
    let (mut rig, socket, _) = Rig::<E>::with_socket();
    rig.engine.remove_socket(socket).unwrap();
    let (next, address) = rig.bind("127.0.0.1:0");
    assert_ne!(next, socket, "what is queued for the old one would leave by the new one");
    rig.engine.flush().unwrap();
    let peer = peer();
    peer.send_to(b"new", address).unwrap();
    assert_eq!(outside(rig.expect(b"new")).socket, next);
}

/// Every kernel that runs these tests has both; a socket that went takes its offloads along.
#[cfg(target_os = "linux")]
pub(crate) fn offloads_are_those_of_the_sockets<E: Conforms>() {
    let mut rig = Rig::<E>::new();
    assert!(rig.engine.offloads().is_empty());
    let (socket, _) = rig.bind("127.0.0.1:0");
    assert_eq!(rig.engine.offloads(), [UDP_GSO, UDP_GRO]);
    rig.engine.remove_socket(socket).unwrap();
    assert!(rig.engine.offloads().is_empty());
}

pub(crate) fn a_thousand_sockets_with_a_trickle_each<E: Conforms>() {
    let (mut rig, sockets) = thousand::<E>();
    let peer = peer();
    for round in 0..3 {
        for chunk in sockets.chunks(100) {
            for (socket, address) in chunk {
                peer.send_to(&socket.0.to_be_bytes(), address).unwrap();
            }
            let patience = Patience::new("a datagram on each socket");
            let mut echoed = 0;
            while echoed < chunk.len() {
                patience.check(rig.engine.counters());
                rig.turn(SOON, |engine, train, arrival| {
                    let asked = outside(arrival).socket.0.to_be_bytes();
                    assert_eq!(engine.split(train).0, asked, "a datagram on another's socket");
                    echoed += echo(engine, train, arrival);
                });
            }
            for _ in chunk {
                let (datagram, from) = receive_from(&peer);
                let socket = SocketId(u16::from_be_bytes(datagram.try_into().expect("two bytes")));
                assert!(chunk.contains(&(socket, from)), "round {round}: an answer from another's socket");
            }
        }
    }
    assert_eq!(rig.engine.counters().datagrams_out, 3000);
}

#[cfg(target_os = "linux")]
pub(crate) fn a_thousand_idle_sockets_cost_nothing<E: Conforms>() {
    let (mut rig, _) = thousand::<E>();
    rig.turn(Duration::ZERO, |_, _, _| {});
    let before = thread_time();
    for _ in 0..100 {
        assert_eq!(rig.turn(Duration::from_millis(5), |_, _, _| {}), 0);
    }
    let spent = thread_time() - before;
    assert!(spent < Duration::from_millis(100), "100 waits over idle sockets took {spent:?} of processor time");
}

pub(crate) fn a_busy_socket_starves_no_other<E: Conforms>() {
    let mut rig = Rig::<E>::new();
    let (_, busy) = rig.bind("127.0.0.1:0");
    let (quiet_socket, quiet) = rig.bind("127.0.0.1:0");
    let (flooder, peer) = (peer(), peer());
    let mut asked = false;
    let mut turns = 0;
    for _ in 0..400 {
        // More than any engine takes in one turn.
        for _ in 0..150 {
            flooder.send_to(&[1; 32], busy).unwrap();
        }
        if !asked {
            peer.send_to(b"me too", quiet).unwrap();
            asked = true;
        }
        turns += 1;
        let mut answered = false;
        rig.turn(SOON, |engine, train, arrival| {
            if outside(arrival).socket == quiet_socket {
                answered = true;
                echo(engine, train, arrival);
            }
        });
        if answered {
            assert_eq!(receive(&peer), b"me too");
            (asked, turns) = (false, 0);
        }
        assert!(turns <= 32, "a quiet socket waited for {turns} turns");
    }
}

fn thousand<E: Conforms>() -> (Rig<E>, Vec<(SocketId, std::net::SocketAddr)>) {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(16_384)), hard).expect("up to the hard limit is allowed");
    }
    let mut rig = Rig::<E>::new();
    let sockets = (0..1000).map(|_| rig.bind("127.0.0.1:0")).collect();
    (rig, sockets)
}

#[cfg(target_os = "linux")]
fn thread_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread has a clock").into()
}
