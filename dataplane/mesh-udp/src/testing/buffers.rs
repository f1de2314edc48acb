//! Receive buffers: bounded, lent, given back.

use std::time::Duration;

use super::{
    Engine, Limits, add, echo, echo_until, endpoint, engine, origin, peer, receive, send_train, take, turns_until,
};
use crate::Train;

/// Sends datagrams of growing lengths, so that nothing is gathered on receive: 1, 2 and so on.
fn send_growing(source: &std::net::UdpSocket, to: std::net::SocketAddr, count: usize) {
    for length in 1..=count {
        source.send_to(&vec![length as u8; length], to).unwrap();
    }
}

fn few<E: Engine>(trains: u16) -> E {
    E::make(Limits { trains: Some(trains), ..Limits::default() })
}

pub fn with_all_buffers_out_nothing_spins_and_nothing_is_lost<E: Engine>() {
    let mut engine = few::<E>(2);
    let (_, address) = add(&mut engine);
    let source = peer();
    send_growing(&source, address, 5);
    let mut batch = take(&mut engine, 2);
    let before = engine.counters();
    let mut more = Vec::new();
    engine.wait(Some(Duration::from_millis(50)), &mut more).unwrap();
    assert!(more.is_empty());
    assert!(engine.counters().enters - before.enters < 10, "waits instead of trying again and again");
    assert!(
        batch.iter_mut().map(|train| engine.split(train).0.to_vec()).eq([vec![1], vec![2, 2]]),
        "kept as they were"
    );
    for train in batch.drain(..) {
        engine.release(train);
    }
    engine.flush();
    let mut seen = Vec::new();
    turns_until(&mut engine, |_, train| seen.push(train.len()), |engine| engine.counters().datagrams_in == 5);
    assert_eq!(seen, [3, 4, 5]);
}

pub fn trains_may_come_back_in_any_order<E: Engine>() {
    let mut engine = few::<E>(8);
    let (socket, address) = add(&mut engine);
    let (source, sink) = (peer(), peer());
    let to = endpoint(socket, &sink);
    let mut kept: Vec<Train> = Vec::new();
    for round in 0..20_u8 {
        for number in 0..4 {
            source.send_to(&[round, number], address).unwrap();
            // Another length each time, so that four trains come.
            source.send_to(&vec![round; 3 + usize::from(number)], address).unwrap();
        }
        let mut received = 0;
        while received < 8 {
            let some = take(&mut engine, 1);
            received += some.len();
            kept.extend(some);
            // The last one first, and one in between.
            while kept.len() > 3 {
                let train = kept.remove(if kept.len().is_multiple_of(2) { kept.len() - 1 } else { 1 });
                engine.forward(&train, 0..train.len(), train.len(), &to, 0);
                engine.release(train);
            }
        }
        engine.flush();
    }
    for train in kept.drain(..) {
        engine.forward(&train, 0..train.len(), train.len(), &to, 0);
        engine.release(train);
    }
    engine.flush();
    let counters = engine.counters();
    assert_eq!((counters.datagrams_in, counters.datagrams_out), (160, 160));
    // Each of them came once, whatever the order.
    let mut seen: Vec<Vec<u8>> = (0..160).map(|_| receive(&sink)).collect();
    seen.sort_unstable();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for round in 0..20_u8 {
        for number in 0..4_u8 {
            expected.extend([vec![round, number], vec![round; 3 + usize::from(number)]]);
        }
    }
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

pub fn a_batch_has_its_bound_and_what_is_beyond_comes_next<E: Engine>() {
    let mut engine = few::<E>(4);
    let (_, address) = add(&mut engine);
    let source = peer();
    send_growing(&source, address, 100);
    let (mut seen, mut most) = (Vec::new(), 0);
    while seen.len() < 100 {
        let batch = take(&mut engine, 1);
        most = most.max(batch.len());
        seen.extend(batch.iter().map(Train::len));
        batch.into_iter().for_each(|train| engine.release(train));
        engine.flush();
    }
    assert!(most <= 4, "{most} trains in one batch");
    assert!(seen.into_iter().eq(1..=100), "in order, and none is lost");
    assert!(engine.counters().buffers_in_flight_max <= 4);
}

pub fn a_train_is_kept_over_many_turns<E: Engine>() {
    let mut engine = engine::<E>();
    let (_, address) = add(&mut engine);
    let (patient, busy) = (peer(), peer());
    patient.send_to(b"keep me", address).unwrap();
    let mut kept = take(&mut engine, 1).remove(0);
    for round in 1..=200 {
        busy.send_to(&[round as u8; 500], address).unwrap();
        echo_until(&mut engine, round);
        assert_eq!(receive(&busy), [round as u8; 500]);
    }
    assert_eq!(engine.split(&mut kept).0, b"keep me");
    let from = origin(&kept);
    engine.forward(&kept, 0..7, 7, &from, 0);
    engine.release(kept);
    engine.flush();
    assert_eq!(receive(&patient), b"keep me");
}

pub fn what_the_kernel_drops_is_counted_and_not_forgotten_with_its_socket<E: Engine>() {
    let mut engine = E::make(Limits { receive_bytes: Some(4096), ..Limits::default() });
    let (socket, address) = add(&mut engine);
    let source = peer();
    let sent = 200;
    // The receive begins with the first wait.
    let mut batch = Vec::new();
    engine.wait(Some(Duration::ZERO), &mut batch).unwrap();
    for _ in 0..sent {
        source.send_to(&[0; 1000], address).unwrap();
    }
    let settled = |engine: &E| {
        let counters = engine.counters();
        counters.datagrams_in + counters.drops_receive_full == sent
    };
    turns_until(&mut engine, |_, _| {}, settled);
    let drops = engine.counters().drops_receive_full;
    assert!(drops > 0, "4 KiB hold no {sent} datagrams of 1000 bytes");
    engine.remove_socket(socket).unwrap();
    engine.flush();
    assert_eq!(engine.counters().drops_receive_full, drops);
    // The next socket begins at zero, and what was dropped of the first is not counted again.
    let (_, address) = add(&mut engine);
    source.send_to(b"x", address).unwrap();
    let before = engine.counters().datagrams_in;
    turns_until(&mut engine, |_, _| {}, |engine| engine.counters().datagrams_in > before);
    assert_eq!(engine.counters().drops_receive_full, drops);
}

/// More trains than a turn takes wait in one socket at any time: it must neither empty the buffers of its neighbour nor make each turn
/// as long as there are buffers.
pub fn a_flooded_socket_leaves_others_buffers_and_short_turns<E: Engine>() {
    let mut engine = engine::<E>();
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
                answered |= origin(&train).socket == quiet_number;
                engine.release(train);
            }
            waited += 1;
            assert!(waited < 100, "not within 100 turns: {:?}", engine.counters());
        }
        waited_most = waited_most.max(waited);
    }
    // It takes a turn or two until the flood is seen as one; after that each has its own.
    assert!(waited_most <= 4, "a neighbour waited for {waited_most} turns: {:?}", engine.counters());
    assert!(turn_longest <= 16, "a turn had {turn_longest} trains: {:?}", engine.counters());
}

/// Two sockets that are flooded alike get alike, whoever was first.
pub fn flooded_sockets_take_turns<E: Engine>() {
    let mut engine = engine::<E>();
    let flooded = [add(&mut engine), add(&mut engine)];
    let (_, quiet) = add(&mut engine);
    let (flooder, neighbour) = (peer(), peer());
    let train = [7; 40 * 1200];
    let mut batch = Vec::new();
    let mut taken = [0_u32; 2];
    let turns = 300;
    for turn in 0..turns {
        if turn % 20 == 0 {
            neighbour.send_to(b"me too", quiet).unwrap();
        }
        for (_, address) in flooded {
            (0..16).for_each(|_| send_train(&flooder, &train, 1200, address));
        }
        engine.wait(Some(Duration::from_millis(20)), &mut batch).unwrap();
        for mut train in batch.drain(..) {
            let from = origin(&train).socket;
            // In the first third it is found out that they are flooded.
            if turn >= turns / 3
                && let Some(number) = flooded.iter().position(|(socket, _)| *socket == from)
            {
                taken[number] += 1;
            }
            // A train that costs nothing is no burden.
            echo(&mut engine, &mut train);
            engine.release(train);
        }
    }
    let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
    assert!(*least * 4 >= *most * 3 && *least > 0, "{taken:?}: {:?}", engine.counters());
}
