//! Datagrams in, the same datagrams out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{Conforms, Patience, Rig, SOON, echo, outside, pattern, peer, peer_at, receive, receive_from};

pub(crate) fn echoes_one_datagram<E: Conforms>() {
    let (mut rig, socket, address) = Rig::<E>::with_socket();
    let peer = peer();
    peer.send_to(b"hello", address).unwrap();
    let arrival = {
        let mut seen = None;
        let patience = Patience::new("a datagram");
        while seen.is_none() {
            patience.check(rig.engine.counters());
            rig.turn(SOON, |engine, train, arrival| {
                assert_eq!(engine.split(train).0, b"hello");
                echo(engine, train, arrival);
                seen = Some(arrival);
            });
        }
        seen.unwrap()
    };
    assert_eq!(outside(arrival).socket, socket);
    assert_eq!(outside(arrival).remote, peer.local_addr().unwrap());
    assert_eq!(outside(arrival).local, None, "the local address is reported only if asked for");
    assert_eq!(arrival.segment_bytes, 5);
    assert_eq!(receive_from(&peer), (b"hello".to_vec(), address));
    let counters = rig.engine.counters();
    assert_eq!((counters.trains_in, counters.datagrams_in, counters.bytes_in), (1, 1, 5));
    assert_eq!((counters.sends, counters.datagrams_out, counters.bytes_out), (1, 1, 5));
}

pub(crate) fn echoes_a_burst<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    for round in 0..40 {
        let burst: Vec<_> = (0..50).map(|number| pattern(round * 50 + number, 64 + 20 * number)).collect();
        for datagram in &burst {
            peer.send_to(datagram, address).unwrap();
        }
        rig.echo(burst.len());
        for datagram in &burst {
            assert!(receive(&peer) == *datagram, "round {round}: bytes or order changed");
        }
    }
    assert_eq!(rig.engine.counters().datagrams_out, 2000);
}

pub(crate) fn hears_both_families_on_one_socket<E: Conforms>() {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).expect("IPv6: enable it on this host");
    socket.set_only_v6(false).unwrap();
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
    let socket = UdpSocket::from(socket);
    let port = socket.local_addr().unwrap().port();
    let mut rig = Rig::<E>::new();
    rig.engine.add_socket(socket, false).unwrap();
    for host in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let peer = peer_at(&SocketAddr::new(host, 0).to_string());
        let text = format!("from {host}");
        peer.send_to(text.as_bytes(), (host, port)).unwrap();
        let mut remote = None;
        let patience = Patience::new("a datagram");
        while remote.is_none() {
            patience.check(rig.engine.counters());
            rig.turn(SOON, |engine, train, arrival| {
                remote = Some(outside(arrival).remote);
                echo(engine, train, arrival);
            });
        }
        assert_eq!(remote, Some(peer.local_addr().unwrap()), "IPv4 must not look like IPv6");
        assert_eq!(receive(&peer), text.as_bytes());
    }
}

pub(crate) fn keeps_the_order_of_each_destination<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peers: Vec<_> = (0..40).map(|_| peer()).collect();
    for round in 0..20_u32 {
        for step in 0..5 {
            for (index, peer) in peers.iter().enumerate() {
                // Lengths differ, so that runs open and close all the time.
                let mut datagram = vec![0; 8 + (index + step as usize) % 3];
                datagram[..4].copy_from_slice(&(round * 5 + step).to_be_bytes());
                peer.send_to(&datagram, address).unwrap();
            }
        }
        rig.echo(5 * peers.len());
        for (index, peer) in peers.iter().enumerate() {
            for step in 0..5 {
                let datagram = receive(peer);
                assert_eq!(datagram[..4], (round * 5 + step).to_be_bytes(), "peer {index}: out of order");
                assert_eq!(datagram.len(), 8 + (index + step as usize) % 3);
            }
        }
    }
}

pub(crate) fn an_empty_datagram_changes_nothing<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    for round in 0..10 {
        peer.send_to(b"", address).unwrap();
        let arrival = rig.expect(b"");
        assert_eq!(arrival.segment_bytes, 1, "an empty train has stride 1");
        let datagram = pattern(round, 100);
        peer.send_to(&datagram, address).unwrap();
        rig.echo(1);
        assert_eq!(receive(&peer), datagram, "round {round}");
    }
    peer.send_to(b"", address).unwrap();
    rig.echo(1);
    assert_eq!(receive(&peer), b"", "an empty datagram can be sent, too");
}

pub(crate) fn carries_the_longest_datagram<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    let longest = pattern(1, 65_507);
    for _ in 0..3 {
        peer.send_to(&longest, address).unwrap();
        rig.echo(1);
        assert!(receive(&peer) == longest, "the longest datagram came back changed");
    }
    assert_eq!(rig.engine.counters().drops_truncated, 0);
}
