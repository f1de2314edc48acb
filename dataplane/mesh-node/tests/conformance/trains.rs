//! Trains: what arrives together leaves together, with every boundary where it was.

use crate::support::{Conforms, Patience, Rig, SOON, echo, endpoint, pattern, peer, receive, send_train};

/// Sends a train of `datagrams` times `segment_bytes` plus `tail` bytes through the engine and back.
fn round_trip<E: Conforms>(segment_bytes: usize, datagrams: usize, tail: usize) {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    let train = pattern(segment_bytes, segment_bytes * datagrams + tail);
    let count = datagrams + usize::from(tail > 0);
    for _ in 0..5 {
        send_train(&peer, address, &train, segment_bytes);
        rig.echo(count);
        for datagram in train.chunks(segment_bytes) {
            assert!(receive(&peer) == datagram, "bytes, boundaries or order changed");
        }
    }
    let counters = rig.engine.counters();
    assert_eq!(counters.datagrams_in, 5 * count as u64);
    assert_eq!(counters.datagrams_out, 5 * count as u64);
    if cfg!(target_os = "linux") {
        assert_eq!(counters.trains_in, 5, "a train of loopback arrives whole");
        assert_eq!(counters.sends, 5, "a train leaves by one send");
    }
}

pub(crate) fn a_train_leaves_as_a_train<E: Conforms>() {
    round_trip::<E>(1200, 40, 0);
    round_trip::<E>(1, 64, 0);
    round_trip::<E>(1400, 46, 0);
}

pub(crate) fn a_short_tail_stays_the_tail<E: Conforms>() {
    round_trip::<E>(1000, 10, 1);
    round_trip::<E>(1000, 10, 999);
    round_trip::<E>(7, 30, 3);
}

pub(crate) fn a_train_is_cut_between_destinations<E: Conforms>() {
    let (mut rig, socket, address) = Rig::<E>::with_socket();
    let (sender, left, right) = (peer(), peer(), peer());
    let (to_left, to_right) = (endpoint(socket, &left), endpoint(socket, &right));
    let train = pattern(3, 300 * 30);
    send_train(&sender, address, &train, 300);
    let patience = Patience::new("a train");
    let (mut number, mut seen) = (0, 0);
    while seen < train.len() {
        patience.check(rig.engine.counters());
        rig.turn(SOON, |engine, train, arrival| {
            let bytes = engine.split(train).0.len();
            assert_eq!(arrival.segment_bytes, 300);
            for start in (0..bytes).step_by(300) {
                // Runs of three to one, of two to the other.
                let to = if number % 5 < 3 { &to_left } else { &to_right };
                engine.forward(train, start..start + 300, 300, to, 0);
                number += 1;
            }
            seen += bytes;
        });
    }
    for (number, datagram) in train.chunks(300).enumerate() {
        let to = if number % 5 < 3 { &left } else { &right };
        assert!(receive(to) == datagram, "datagram {number}");
    }
    assert_eq!(rig.engine.counters().datagrams_out, 30);
}

pub(crate) fn singles_to_one_destination_leave_in_order<E: Conforms>() {
    let (mut rig, socket, address) = Rig::<E>::with_socket();
    let target = peer();
    let to = endpoint(socket, &target);
    let senders: Vec<_> = (0..8).map(|_| peer()).collect();
    for round in 0..10 {
        for (index, sender) in senders.iter().enumerate() {
            sender.send_to(&pattern(round * 8 + index, 500), address).unwrap();
        }
        let patience = Patience::new("singles");
        let mut order = Vec::new();
        while order.len() < senders.len() {
            patience.check(rig.engine.counters());
            rig.turn(SOON, |engine, train, arrival| {
                let bytes = engine.split(train).0.to_vec();
                engine.forward(train, 0..bytes.len(), arrival.segment_bytes, &to, 0);
                order.push(bytes);
            });
        }
        for expected in &order {
            assert!(receive(&target) == *expected, "round {round}: bytes or order changed");
        }
    }
    let counters = rig.engine.counters();
    assert_eq!(counters.datagrams_out, 80);
    assert!(counters.sends <= counters.datagrams_out);
}

pub(crate) fn mixed_sizes_keep_their_boundaries<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    let sizes = [1, 1400, 1400, 700, 1400, 0, 3, 3, 3, 2, 3, 9000, 9000, 1, 60_000, 60_000, 5];
    let datagrams: Vec<_> = sizes.iter().enumerate().map(|(seed, bytes)| pattern(seed, *bytes)).collect();
    for datagram in &datagrams {
        peer.send_to(datagram, address).unwrap();
    }
    let patience = Patience::new("all sizes");
    let mut echoed = 0;
    while echoed < datagrams.len() {
        patience.check(rig.engine.counters());
        rig.turn(SOON, |engine, train, arrival| echoed += echo(engine, train, arrival));
    }
    for (number, datagram) in datagrams.iter().enumerate() {
        assert!(receive(&peer) == *datagram, "datagram {number} of {} bytes", datagram.len());
    }
}
