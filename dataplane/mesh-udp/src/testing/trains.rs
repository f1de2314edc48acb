//! What comes together leaves together: whole, in order, cut where it must be.

use super::{
    Engine, Limits, add, compose, echo, echo_until, endpoint, engine, forward_until, is_quiet, origin, peer, receive,
    send_train, turns_until,
};
use crate::gather::SEGMENTS_MAX;
use crate::{Endpoint, Lengths};

pub fn a_datagram_comes_back<E: Engine>() {
    let mut engine = engine::<E>();
    let (_, address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"hello", address).unwrap();
    echo_until(&mut engine, 1);
    let mut bytes = [0; 64];
    let (length, from) = peer.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..length], from), (&b"hello"[..], address));
    let counters = engine.counters();
    assert_eq!((counters.trains_in, counters.datagrams_in, counters.bytes_in), (1, 1, 5));
    assert_eq!((counters.sends, counters.datagrams_out, counters.bytes_out), (1, 1, 5));
    assert_eq!(counters.buffers_in_flight_max, 1);
}

pub fn a_train_comes_and_goes_whole<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, address) = add(&mut engine);
    let (source, sink) = (peer(), peer());
    let bytes: Vec<u8> = (0..46 * 1200 + 77).map(|index| (index % 251) as u8).collect();
    send_train(&source, &bytes, 1200, address);
    forward_until(&mut engine, &endpoint(socket, &sink), 47);
    let counters = engine.counters();
    assert_eq!((counters.trains_in, counters.datagrams_in, counters.sends), (1, 47, 1));
    assert_eq!((counters.bytes_in, counters.bytes_out), (bytes.len() as u64, bytes.len() as u64));
    let mut received = Vec::new();
    for index in 0..47 {
        let datagram = receive(&sink);
        assert_eq!(datagram.len(), if index < 46 { 1200 } else { 77 });
        received.extend_from_slice(&datagram);
    }
    assert!(received == bytes, "the bytes arrived as they were");
}

pub fn single_datagrams_are_gathered_into_one_send_in_order<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, address) = add(&mut engine);
    let (source, sink) = (peer(), peer());
    for number in 0..30_u8 {
        source.send_to(&[number; 100], address).unwrap();
    }
    source.send_to(&[30; 7], address).unwrap();
    forward_until(&mut engine, &endpoint(socket, &sink), 31);
    assert_eq!(engine.counters().sends, 1);
    for number in 0..31_u8 {
        assert_eq!(receive(&sink), vec![number; if number < 30 { 100 } else { 7 }]);
    }
}

pub fn a_train_is_cut_where_its_destination_changes<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, address) = add(&mut engine);
    let (source, left, right) = (peer(), peer(), peer());
    let bytes: Vec<u8> = (0..30 * 300).map(|index| (index / 300) as u8).collect();
    send_train(&source, &bytes, 300, address);
    // Three to one, two to the other, and again: of each destination all go in one send.
    turns_until(
        &mut engine,
        |engine, train| {
            for number in 0..30 {
                let to = endpoint(socket, if number % 5 < 3 { &left } else { &right });
                engine.forward(train, number * 300..(number + 1) * 300, 300, &to, 0);
            }
        },
        |engine| engine.counters().datagrams_out == 30,
    );
    assert_eq!((engine.counters().trains_in, engine.counters().sends), (1, 2));
    for number in 0..30_u8 {
        assert_eq!(receive(if number % 5 < 3 { &left } else { &right }), [number; 300]);
    }
    assert!(is_quiet(&left) && is_quiet(&right));
}

pub fn a_send_ends_where_length_tos_or_source_change<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, _) = add(&mut engine);
    let sink = peer();
    let to = endpoint(socket, &sink);
    let local = Endpoint { local: Some([127, 0, 0, 1].into()), ..to };
    // (bytes, TOS, destination): a longer one begins a send, a shorter one ends it.
    let sends = [(100, 0, to), (100, 0, to), (60, 0, to), (60, 0, to), (61, 0, to), (61, 4, to), (61, 4, local)];
    for (number, (bytes, tos, to)) in sends.iter().enumerate() {
        let range = compose(&mut engine, &vec![number as u8; *bytes]);
        engine.send(range, *bytes, to, *tos);
    }
    engine.flush();
    let counters = engine.counters();
    assert_eq!((counters.datagrams_out, counters.sends), (7, 5));
    for (number, (bytes, ..)) in sends.iter().enumerate() {
        assert_eq!(receive(&sink), vec![number as u8; *bytes]);
    }
}

pub fn without_offload_every_datagram_is_a_send<E: Engine>() {
    let mut engine = E::make(Limits { alone: true, ..Limits::default() });
    let (_, address) = add(&mut engine);
    let source = peer();
    send_train(&source, &[1; 1000], 100, address);
    echo_until(&mut engine, 10);
    assert_eq!((engine.counters().trains_in, engine.counters().sends), (10, 10));
    assert_eq!(engine.offloads(), (false, false));
    for _ in 0..10 {
        assert_eq!(receive(&source), [1; 100]);
    }
}

pub fn bytes_leave_as_they_were_at_the_flush<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"ping", address).unwrap();
    turns_until(
        &mut engine,
        |engine, train| {
            let from = origin(train);
            assert_eq!(from.socket, socket);
            let (bytes, scratch) = engine.split(train);
            bytes[1] = b'o';
            let used = scratch.used;
            assert!(scratch.memory.len() - used >= 128 * 1024);
            scratch.memory[used..used + 6].copy_from_slice(b"answer");
            engine.keep_slab(used + 6);
            engine.forward(train, 1..4, 3, &from, 0);
            engine.send(used..used + 6, 6, &from, 0);
            // Queued is a range, not a copy.
            engine.split(train).0[3] = b'e';
        },
        |engine| engine.counters().datagrams_out == 2,
    );
    assert_eq!(receive(&peer), b"one");
    assert_eq!(receive(&peer), b"answer");
}

pub fn the_slab_never_runs_out_within_a_turn<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, _) = add(&mut engine);
    let sink = peer();
    let to = endpoint(socket, &sink);
    // Each takes all it is offered: the engine sends in between when the whole slab is used.
    for number in 0..600_u32 {
        let range = compose(&mut engine, &number.to_be_bytes());
        assert!(engine.slab().memory.len() - range.start >= 128 * 1024);
        engine.keep_slab(range.start + 128 * 1024);
        engine.send(range, 4, &to, 0);
        if number % 100 == 99 {
            // The sink's buffer is small.
            engine.flush();
            for expected in number - 99..=number {
                assert_eq!(receive(&sink), expected.to_be_bytes());
            }
            assert_eq!(engine.slab().used, 0, "a flush takes the slab back");
        }
    }
    // Without a flush the engine makes the room itself.
    let size = engine.slab().memory.len();
    let mut again = 0;
    for _ in 0..3 * size / (128 * 1024) {
        let used = engine.slab().used;
        again += u32::from(used == 0);
        engine.keep_slab(used + 128 * 1024);
    }
    assert!(again >= 3, "{again}");
}

pub fn an_empty_datagram_is_a_train_and_does_not_end_the_receive<E: Engine>() {
    let mut engine = engine::<E>();
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
    assert_eq!((engine.counters().datagrams_in, engine.counters().bytes_out), (100, 150));
    for round in 0..50 {
        assert_eq!(receive(&peer), []);
        assert_eq!(receive(&peer), [round; 3]);
    }
}

pub fn the_longest_datagram_and_the_longest_train_pass<E: Engine>() {
    let mut engine = engine::<E>();
    let (_, address) = add(&mut engine);
    let peer = peer();
    let bytes: Vec<u8> = (0..65_507_u32).map(|index| (index % 253) as u8).collect();
    peer.send_to(&bytes, address).unwrap();
    send_train(&peer, &bytes[..65_000], 1024, address);
    echo_until(&mut engine, 65);
    assert!(receive(&peer) == bytes);
    for index in 0..64 {
        assert!(receive(&peer) == bytes[index * 1024..65_000.min((index + 1) * 1024)]);
    }
    assert_eq!((engine.counters().sends, engine.counters().drops_truncated), (2, 0));
}

pub fn more_than_one_send_carries_is_several<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, _) = add(&mut engine);
    let sink = peer();
    let to = endpoint(socket, &sink);
    // By number: two sends of 64 datagrams and one of 22.
    let bytes: Vec<u8> = (0..150 * 20).map(|index| (index / 20) as u8).collect();
    let range = compose(&mut engine, &bytes);
    engine.send(range, 20, &to, 0);
    engine.flush();
    assert_eq!(
        (engine.counters().sends, engine.counters().datagrams_out),
        (150_u64.div_ceil(SEGMENTS_MAX as u64), 150)
    );
    for number in 0..150_u8 {
        assert_eq!(receive(&sink), [number; 20]);
    }
    // By bytes: seven of 9,000 in one send, the eighth in another.
    for number in 0..8 {
        let range = compose(&mut engine, &[number; 9000]);
        engine.send(range, 9000, &to, 0);
    }
    engine.flush();
    assert_eq!((engine.counters().sends, engine.counters().drops_send_failed), (5, 0));
    for number in 0..8 {
        assert!(receive(&sink) == [number; 9000]);
    }
}

pub fn many_destinations_in_one_batch_all_get_theirs<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, _) = add(&mut engine);
    let sinks: Vec<_> = (0..700).map(|_| peer()).collect();
    for round in 0..3_u8 {
        for sink in &sinks {
            let range = compose(&mut engine, &[round]);
            engine.send(range, 1, &endpoint(socket, sink), 0);
        }
    }
    engine.flush();
    let counters = engine.counters();
    assert_eq!(counters.datagrams_out, 2100);
    assert_eq!(counters.drops_send_failed + counters.drops_send_full, 0);
    for sink in &sinks {
        for round in 0..3 {
            assert_eq!(receive(sink), [round]);
        }
    }
}

pub fn histograms_tell_what_was_received_and_sent<E: Engine>() {
    let mut engine = engine::<E>();
    let (_, address) = add(&mut engine);
    let (one, other) = (peer(), peer());
    send_train(&one, &[1; 5 * 100], 100, address);
    other.send_to(&[2; 100], address).unwrap();
    echo_until(&mut engine, 6);
    let mut expected = Lengths::default();
    expected.note(5);
    expected.note(1);
    let counters = engine.counters();
    assert_eq!((counters.lengths_in, counters.lengths_out), (expected, expected));
    // Both had arrived when the engine first looked.
    let trains: u64 = counters.batches.0.iter().zip(0..).map(|(batches, class)| batches << class).sum();
    assert_eq!((trains, counters.buffers_in_flight_max), (2, 2));
}
