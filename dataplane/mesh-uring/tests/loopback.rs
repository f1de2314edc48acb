//! The engine against plain sockets on the loopback.
#![cfg(target_os = "linux")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::{PATIENCE, add, echo, echo_until, engine, peer, send_train, set_int, turns_until};
use mesh_uring::{Config, Counters, Endpoint, Engine, Origin, SocketId};

#[test]
fn a_datagram_comes_back() {
    let mut engine = engine();
    let (_, address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"hello", address).unwrap();
    echo_until(&mut engine, 1);
    let mut bytes = [0; 64];
    let (length, from) = peer.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..length], from), (&b"hello"[..], address));
    let counters = engine.counters();
    assert_eq!((counters.datagrams_in, counters.bytes_in), (1, 5));
    assert_eq!((counters.sends, counters.datagrams_out, counters.bytes_out), (1, 1, 5));
}

#[test]
fn a_train_comes_and_goes_whole() {
    let mut engine = engine();
    let (socket, address) = add(&mut engine);
    let (source, sink) = (peer(), peer());
    let bytes: Vec<u8> = (0..46 * 1200 + 77).map(|index| (index % 251) as u8).collect();
    send_train(&source, &bytes, 1200, address);
    let to = Endpoint { socket, remote: sink.local_addr().unwrap(), local: None };
    turns_until(
        &mut engine,
        |engine, train| engine.forward(train, 0..train.len(), train.segment_bytes(), &to, 0),
        |engine| engine.counters().datagrams_out == 47,
    );
    let counters = engine.counters();
    assert_eq!((counters.trains_in, counters.datagrams_in, counters.sends), (1, 47, 1));
    let mut received = Vec::new();
    let mut buffer = [0; 2048];
    for index in 0..47 {
        let length = sink.recv(&mut buffer).unwrap();
        assert_eq!(length, if index < 46 { 1200 } else { 77 });
        received.extend_from_slice(&buffer[..length]);
    }
    assert!(received == bytes, "the bytes arrived as they were");
}

#[test]
fn single_datagrams_are_gathered_into_one_send_in_order() {
    let mut engine = engine();
    let (socket, address) = add(&mut engine);
    let (source, sink) = (peer(), peer());
    for number in 0..30_u8 {
        source.send_to(&[number; 100], address).unwrap();
    }
    source.send_to(&[30; 7], address).unwrap();
    let to = Endpoint { socket, remote: sink.local_addr().unwrap(), local: None };
    turns_until(
        &mut engine,
        |engine, train| engine.forward(train, 0..train.len(), train.segment_bytes(), &to, 0),
        |engine| engine.counters().datagrams_out == 31,
    );
    assert_eq!(engine.counters().sends, 1);
    let mut buffer = [0; 2048];
    for number in 0..31_u8 {
        let length = sink.recv(&mut buffer).unwrap();
        assert_eq!((length, buffer[0]), (if number < 30 { 100 } else { 7 }, number));
    }
}

#[test]
fn without_offload_every_datagram_is_a_send() {
    let mut engine = Engine::new(Config { offload: false, ..Config::default() }).unwrap();
    let (_, address) = add(&mut engine);
    let source = peer();
    send_train(&source, &[1; 1000], 100, address);
    echo_until(&mut engine, 10);
    assert_eq!((engine.counters().trains_in, engine.counters().sends), (10, 10));
}

#[test]
fn bytes_changed_and_bytes_of_the_slab_leave_as_they_were_at_the_flush() {
    let mut engine = engine();
    let (socket, address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"ping", address).unwrap();
    turns_until(
        &mut engine,
        |engine, train| {
            let Origin::Outside(from) = train.origin() else { panic!("from the network") };
            assert_eq!(from.socket, socket);
            let (bytes, scratch) = engine.split(train);
            bytes[1] = b'o';
            let used = scratch.used;
            assert!(scratch.memory.len() - used >= 128 * 1024);
            scratch.memory[used..used + 6].copy_from_slice(b"answer");
            engine.keep_slab(used + 6);
            engine.forward(train, 1..4, 3, &from, 0);
            engine.send(used..used + 6, 6, &from, 0);
        },
        |engine| engine.counters().datagrams_out == 2,
    );
    let mut buffer = [0; 16];
    assert_eq!(peer.recv(&mut buffer).unwrap(), 3);
    assert_eq!(&buffer[..3], b"ong");
    assert_eq!(peer.recv(&mut buffer).unwrap(), 6);
    assert_eq!(&buffer[..6], b"answer");
}

#[test]
fn the_slab_never_runs_out_within_a_turn() {
    let mut engine = engine();
    let (socket, _) = add(&mut engine);
    let sink = peer();
    let to = Endpoint { socket, remote: sink.local_addr().unwrap(), local: None };
    // Each takes all it is offered: the engine sends in between when the whole slab is used.
    for number in 0..600_u32 {
        let scratch = engine.slab();
        let used = scratch.used;
        assert!(scratch.memory.len() - used >= 128 * 1024);
        scratch.memory[used..used + 4].copy_from_slice(&number.to_be_bytes());
        engine.keep_slab(used + 128 * 1024);
        engine.send(used..used + 4, 4, &to, 0);
        if number % 100 == 99 {
            // The sink's buffer is small.
            engine.flush().unwrap();
            for expected in number - 99..=number {
                let mut buffer = [0; 8];
                assert_eq!(sink.recv(&mut buffer).unwrap(), 4);
                assert_eq!(buffer[..4], expected.to_be_bytes());
            }
            // Without a flush in between, the rest of the loop would meet a fresh slab each time.
            if number == 99 {
                for _ in 0..300 {
                    let used = engine.slab().used;
                    engine.keep_slab(used + 128 * 1024);
                }
                assert!(engine.slab().used < 64 * 128 * 1024);
            }
        }
    }
}

#[test]
fn an_empty_datagram_is_a_train_and_does_not_end_the_receive() {
    let mut engine = engine();
    let (_, address) = add(&mut engine);
    let peer = peer();
    for round in 0..50 {
        peer.send_to(&[], address).unwrap();
        peer.send_to(&[round; 3], address).unwrap();
    }
    let mut empty = 0;
    turns_until(
        &mut engine,
        |engine, train| {
            if train.is_empty() {
                assert_eq!((train.segment_bytes(), engine.split(train).0.len()), (1, 0));
                empty += 1;
            }
            echo(engine, train);
        },
        |engine| engine.counters().datagrams_out == 100,
    );
    assert_eq!(empty, 50);
    let mut buffer = [0; 16];
    for round in 0..50 {
        assert_eq!(peer.recv(&mut buffer).unwrap(), 0);
        assert_eq!((peer.recv(&mut buffer).unwrap(), buffer[0]), (3, round));
    }
}

#[test]
fn a_burst_beyond_the_buffers_grows_the_pool_and_loses_nothing() {
    let config = Config { buffers_first: 4, buffers_max: 64, ..Config::default() };
    let mut engine = Engine::new(config).unwrap();
    let (_, address) = add(&mut engine);
    let source = peer();
    assert_eq!(engine.receive_buffers(), 4);
    // Of growing lengths, so that nothing is gathered on receive.
    for number in 0..200_u8 {
        source.send_to(&vec![number; 1 + usize::from(number)], address).unwrap();
    }
    let mut seen = Vec::new();
    turns_until(&mut engine, |_, train| seen.push(train.len()), |engine| engine.counters().datagrams_in == 200);
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
    assert!(engine.counters().starved > 0);
    assert_eq!(engine.receive_buffers(), 64);
}

#[test]
fn with_all_buffers_out_nothing_spins_and_nothing_is_lost() {
    let config = Config { buffers_first: 2, buffers_max: 2, ..Config::default() };
    let mut engine = Engine::new(config).unwrap();
    let (_, address) = add(&mut engine);
    let source = peer();
    for number in 0..5_u8 {
        source.send_to(&vec![number; 1 + usize::from(number)], address).unwrap();
    }
    let mut batch = Vec::new();
    while batch.len() < 2 {
        engine.wait(Some(PATIENCE), &mut batch).unwrap();
    }
    let before = engine.counters();
    let mut more = Vec::new();
    engine.wait(Some(Duration::from_millis(50)), &mut more).unwrap();
    assert!(more.is_empty());
    assert!(engine.counters().enters - before.enters < 10, "waits instead of trying again and again");
    for train in batch.drain(..) {
        engine.release(train);
    }
    engine.flush().unwrap();
    turns_until(&mut engine, |_, _| {}, |engine| engine.counters().datagrams_in == 5);
}

#[test]
fn what_is_too_long_is_counted_and_harms_nothing_else() {
    let mut engine = engine();
    let (socket, _) = add(&mut engine);
    let sink = peer();
    let to = Endpoint { socket, remote: sink.local_addr().unwrap(), local: None };
    engine.slab().memory[..4].copy_from_slice(b"fits");
    engine.keep_slab(70_000);
    engine.send(0..70_000, 70_000, &to, 0);
    engine.send(0..65_508, 65_508, &to, 0);
    engine.send(0..65_507, 65_507, &to, 0);
    engine.send(0..4, 4, &to, 0);
    engine.flush().unwrap();
    let counters = engine.counters();
    assert_eq!((counters.drops_send_failed, counters.datagrams_out), (2, 2));
    let mut buffer = vec![0; 70_000];
    assert_eq!(sink.recv(&mut buffer).unwrap(), 65_507);
    assert_eq!(sink.recv(&mut buffer).unwrap(), 4);
}

#[test]
fn what_cannot_be_reached_is_counted() {
    let mut engine = engine();
    let (socket, _) = add(&mut engine);
    // From a socket bound to the loopback nothing leaves for elsewhere; to the other family neither.
    for remote in ["192.0.2.1:9", "[::1]:9"] {
        engine.send(0..10, 5, &Endpoint { socket, remote: remote.parse().unwrap(), local: None }, 0);
    }
    let nobody = Endpoint { socket: SocketId(77), remote: "127.0.0.1:9".parse().unwrap(), local: None };
    engine.send(0..10, 5, &nobody, 0);
    engine.deliver_slab(0..10);
    engine.flush().unwrap();
    let expected = Counters { drops_send_failed: 6, drops_inside_full: 1, ..Counters::default() };
    let counters = engine.counters();
    assert_eq!(Counters { enters: 0, resent_singly: 0, ..counters }, expected);
}

#[test]
fn the_longest_datagram_and_the_longest_train_pass() {
    let mut engine = engine();
    let (_, address) = add(&mut engine);
    let peer = peer();
    let bytes: Vec<u8> = (0..65_507_u32).map(|index| (index % 253) as u8).collect();
    peer.send_to(&bytes, address).unwrap();
    send_train(&peer, &bytes[..65_000], 1024, address);
    echo_until(&mut engine, 65);
    let mut buffer = vec![0; 70_000];
    assert_eq!(peer.recv(&mut buffer).unwrap(), 65_507);
    assert!(buffer[..65_507] == bytes);
    for index in 0..64 {
        let length = peer.recv(&mut buffer).unwrap();
        assert!(buffer[..length] == bytes[index * 1024..65_000.min((index + 1) * 1024)]);
    }
}

#[test]
fn tos_and_the_address_that_was_asked_travel_on_every_family() {
    // (bound to, asked, by a socket on)
    let cases = [
        ("0.0.0.0:0", "127.0.0.3", "127.0.0.1:0"),
        ("[::]:0", "127.0.0.3", "127.0.0.1:0"),
        ("[::]:0", "::1", "[::1]:0"),
    ];
    for (bound, asked, from) in cases {
        let mut engine = engine();
        let socket = UdpSocket::bind(bound).unwrap();
        let port = socket.local_addr().unwrap().port();
        engine.add_socket(socket, true).unwrap();
        let peer = UdpSocket::bind(from).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked: std::net::IpAddr = asked.parse().unwrap();
        if asked.is_ipv4() {
            set_int(&peer, libc::IPPROTO_IP, libc::IP_TOS, 0xb8);
        } else {
            set_int(&peer, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 0xb8);
        }
        let address = SocketAddr::new(asked, port);
        peer.send_to(b"one", address).unwrap();
        send_train(&peer, &[7; 300], 100, address);
        // The answers come back into an engine, which reads their TOS.
        let mut reader = Engine::new(Config::default()).unwrap();
        let own = peer.local_addr().unwrap();
        reader.add_socket(peer, false).unwrap();
        turns_until(
            &mut engine,
            |engine, train| {
                let Origin::Outside(from) = train.origin() else { panic!("from the network") };
                assert_eq!((from.remote, from.local, train.tos()), (own, Some(asked), 0xb8), "{bound}");
                echo(engine, train);
            },
            |engine| engine.counters().datagrams_out == 4,
        );
        turns_until(
            &mut reader,
            |_, train| {
                let Origin::Outside(from) = train.origin() else { panic!("from the network") };
                assert_eq!((from.remote, train.tos()), (address, 0xb8), "{bound}");
            },
            |reader| reader.counters().datagrams_in == 4,
        );
    }
}

#[test]
fn thousands_of_sockets_are_added_fast_and_all_receive() {
    let mut engine = engine();
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
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..1500 {
        seen.insert(peer.recv_from(&mut [0; 8]).unwrap().1);
    }
    assert_eq!(seen.len(), 1500);
}

#[test]
fn a_removed_socket_frees_its_port_and_its_number_comes_back_after_the_flush() {
    let mut engine = engine();
    let (first, address) = add(&mut engine);
    let (second, second_address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"x", second_address).unwrap();
    echo_until(&mut engine, 1);
    // Something is on its way out and something has arrived when it is removed.
    engine.send(0..3, 3, &Endpoint { socket: first, remote: peer.local_addr().unwrap(), local: None }, 0);
    peer.send_to(b"late", address).unwrap();
    engine.remove_socket(first).unwrap();
    let again = UdpSocket::bind(address).expect("the port is free");
    assert_eq!(engine.counters().datagrams_out, 2);
    assert_eq!(engine.remove_socket(first).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    let (third, _) = add(&mut engine);
    assert!(third != first && third != second);
    engine.flush().unwrap();
    let fourth = engine.add_socket(again, false).unwrap();
    assert_eq!(fourth, first);
    peer.send_to(b"y", address).unwrap();
    turns_until(
        &mut engine,
        |engine, train| {
            assert_eq!(engine.split(train).0, b"y");
        },
        |engine| engine.counters().datagrams_in == 2,
    );
}

#[test]
fn dropping_the_engine_frees_its_ports_at_once() {
    let mut engine = engine();
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
    let mut batch = Vec::new();
    engine.wait(Some(PATIENCE), &mut batch).unwrap();
    assert_eq!(batch.len(), 1);
    drop(engine);
    for address in addresses {
        UdpSocket::bind(address).expect("the port is free");
    }
    // A train that outlives its engine is only dropped.
    drop(batch);
}

#[test]
#[should_panic(expected = "a train of another engine")]
fn a_train_of_another_engine_is_refused() {
    let mut one = engine();
    let mut other = engine();
    let (_, address) = add(&mut one);
    peer().send_to(b"x", address).unwrap();
    let mut batch = Vec::new();
    one.wait(Some(PATIENCE), &mut batch).unwrap();
    other.split(&mut batch[0]);
}

#[test]
#[should_panic(expected = "a range beyond its train")]
fn a_range_beyond_its_train_is_refused() {
    let mut engine = engine();
    let (socket, address) = add(&mut engine);
    peer().send_to(b"x", address).unwrap();
    let mut batch = Vec::new();
    engine.wait(Some(PATIENCE), &mut batch).unwrap();
    engine.forward(&batch[0], 0..2, 2, &Endpoint { socket, remote: address, local: None }, 0);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "dropped without Engine::release")]
fn a_train_that_is_forgotten_is_noticed() {
    let mut engine = engine();
    let (_, address) = add(&mut engine);
    peer().send_to(b"x", address).unwrap();
    let mut batch = Vec::new();
    engine.wait(Some(PATIENCE), &mut batch).unwrap();
    drop(batch.pop());
}

#[test]
fn the_waker_ends_the_wait_at_hand_or_the_next_one() {
    let mut engine = engine();
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
    let (started, wait_began) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
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

#[test]
fn a_wait_without_news_lasts_as_long_as_it_was_told() {
    let mut engine = engine();
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

#[test]
fn one_turn_under_load_costs_at_most_two_calls() {
    let mut engine = engine();
    let (_, address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"warm", address).unwrap();
    echo_until(&mut engine, 1);
    let before = engine.counters().enters;
    let mut batch = Vec::new();
    for _ in 0..100 {
        peer.send_to(&[1; 200], address).unwrap();
        engine.wait(Some(PATIENCE), &mut batch).unwrap();
        for train in batch.drain(..) {
            let Origin::Outside(from) = train.origin() else { panic!("from the network") };
            engine.forward(&train, 0..train.len(), 200, &from, 0);
            engine.release(train);
        }
        engine.flush().unwrap();
    }
    assert_eq!(engine.counters().datagrams_out, 101);
    assert!(engine.counters().enters - before <= 200, "{}", engine.counters().enters - before);
}

/// More trains than a turn takes wait in one socket at any time: it emptied the ring of buffers, which was deepened for it again and
/// again, and each turn was as long as the ring was deep.
#[test]
fn a_flooded_socket_leaves_others_buffers_and_short_turns() {
    let mut engine = engine();
    let (_, flooded) = add(&mut engine);
    let (quiet_number, quiet) = add(&mut engine);
    let (flooder, neighbour) = (peer(), peer());
    let train = [7; 40 * 1200];
    let mut batch = Vec::new();
    let (mut waited_most, mut turn_longest) = (0, 0);
    for round in 0..100 {
        neighbour.send_to(b"me too", quiet).unwrap();
        let mut waited = 0;
        let mut answered = false;
        while !answered {
            (0..40).for_each(|_| send_train(&flooder, &train, 1200, flooded));
            engine.wait(Some(Duration::from_millis(20)), &mut batch).unwrap();
            if round >= 50 {
                turn_longest = turn_longest.max(batch.len());
            }
            for train in batch.drain(..) {
                answered |= matches!(train.origin(), Origin::Outside(from) if from.socket == quiet_number);
                engine.release(train);
            }
            waited += 1;
            assert!(waited < 100, "not within 100 turns: {:?}", engine.counters());
        }
        waited_most = waited_most.max(waited);
    }
    // The flood ends the neighbour's first receive; after that each has its own ring.
    assert!(waited_most <= 4, "a neighbour waited for {waited_most} turns: {:?}", engine.counters());
    assert!(turn_longest <= 16, "a turn had {turn_longest} trains: {:?}", engine.counters());
}

#[test]
fn many_destinations_in_one_batch_all_get_theirs() {
    let mut engine = engine();
    let (socket, _) = add(&mut engine);
    let sinks: Vec<UdpSocket> = (0..700).map(|_| peer()).collect();
    for round in 0..3_u8 {
        for sink in &sinks {
            let scratch = engine.slab();
            let used = scratch.used;
            scratch.memory[used] = round;
            engine.keep_slab(used + 1);
            engine.send(used..used + 1, 1, &Endpoint { socket, remote: sink.local_addr().unwrap(), local: None }, 0);
        }
    }
    engine.flush().unwrap();
    let counters = engine.counters();
    assert_eq!(counters.datagrams_out, 2100);
    assert_eq!(counters.drops_send_failed + counters.drops_send_full, 0);
    for sink in &sinks {
        for round in 0..3 {
            let mut buffer = [9; 4];
            assert_eq!((sink.recv(&mut buffer).unwrap(), buffer[0]), (1, round));
        }
    }
}

#[test]
fn an_engine_says_what_buffers_its_sockets_got() {
    let mut engine = engine();
    let (socket, _) = add(&mut engine);
    let buffers = engine.socket_buffers(socket).unwrap();
    assert!(buffers.receive_bytes >= 200_000 && buffers.send_bytes >= 200_000, "{buffers:?}");
    assert_eq!(engine.socket_buffers(SocketId(9)), None);
}
