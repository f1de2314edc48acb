//! What the pump composes itself.

use mesh_core::seam::Slab;

use crate::support::{Conforms, Patience, Rig, SOON, endpoint, outside, pattern, peer, receive, send_train};

pub(crate) fn sends_what_was_composed<E: Conforms>() {
    let (mut rig, socket, _) = Rig::<E>::with_socket();
    let (left, right) = (peer(), peer());
    for round in 0..20 {
        for (step, peer) in [&left, &right, &left, &right].into_iter().enumerate() {
            let bytes = pattern(round * 4 + step, 100 + 10 * step);
            let mut slab = rig.engine.slab();
            let range = slab.append(&bytes).expect("the slab has room");
            assert_eq!(slab.bytes(range.clone()), bytes);
            let used = slab.used();
            rig.engine.keep_slab(used);
            rig.engine.send(range, bytes.len(), &endpoint(socket, peer), 0);
        }
        rig.engine.flush().unwrap();
        for (step, peer) in [&left, &right, &left, &right].into_iter().enumerate() {
            assert_eq!(receive(peer), pattern(round * 4 + step, 100 + 10 * step), "round {round}, step {step}");
        }
    }
}

pub(crate) fn a_composed_train_leaves_as_one<E: Conforms>() {
    let (mut rig, socket, _) = Rig::<E>::with_socket();
    let peer = peer();
    let train = pattern(5, 40 * 1200 + 77);
    let range = rig.engine.slab().append(&train).expect("the slab has room for a train");
    rig.engine.keep_slab(range.end);
    rig.engine.send(range, 1200, &endpoint(socket, &peer), 0);
    rig.engine.flush().unwrap();
    for datagram in train.chunks(1200) {
        assert!(receive(&peer) == datagram, "bytes, boundaries or order changed");
    }
    rig.turn(std::time::Duration::ZERO, |_, _, _| {});
    let counters = rig.engine.counters();
    assert_eq!((counters.datagrams_out, counters.bytes_out), (41, train.len() as u64));
    if cfg!(target_os = "linux") {
        assert_eq!(counters.sends, 1);
    }
}

pub(crate) fn room_is_left_at_every_split<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    for round in 0..5 {
        for number in 0..40 {
            peer.send_to(&pattern(round * 40 + number, 300), address).unwrap();
        }
        let patience = Patience::new("datagrams to answer");
        let mut answered = 0;
        while answered < 40 {
            patience.check(rig.engine.counters());
            rig.turn(SOON, |engine, train, arrival| {
                let (bytes, mut slab) = engine.split(train);
                assert!(slab.free().len() >= Slab::ROOM_BYTES, "{} bytes of room", slab.free().len());
                let copy = slab.append(bytes).expect("room for a copy");
                // All the room is taken, and the next split has as much again.
                slab.take(Slab::ROOM_BYTES - bytes.len());
                let used = slab.used();
                engine.keep_slab(used);
                engine.send(copy, arrival.segment_bytes, &outside(arrival), 0);
                answered += 1;
            });
        }
        for number in 0..40 {
            assert!(receive(&peer) == pattern(round * 40 + number, 300), "round {round}, datagram {number}");
        }
    }
}

pub(crate) fn what_is_kept_stays_until_the_flush<E: Conforms>() {
    let (mut rig, socket, address) = Rig::<E>::with_socket();
    let (sender, target) = (peer(), peer());
    let to = endpoint(socket, &target);
    send_train(&sender, address, &pattern(2, 900), 300);
    let patience = Patience::new("a train");
    let mut batch = Vec::new();
    let mut seen = 0;
    while seen < 900 {
        patience.check(rig.engine.counters());
        let before = batch.len();
        rig.engine.wait(Some(SOON), &mut batch).expect("wait");
        seen += batch[before..].iter_mut().map(|train| rig.engine.split(train).0.len()).sum::<usize>();
    }
    // Kept, and queued last: what is composed for the train meanwhile does not touch it.
    let first = pattern(1, 500);
    let range = rig.engine.slab().append(&first).expect("the slab has room");
    rig.engine.keep_slab(range.end);
    for mut train in batch.drain(..) {
        let (bytes, mut slab) = rig.engine.split(&mut train);
        let copy = slab.append(bytes).expect("room for a copy");
        assert!(copy.start >= range.end, "what was kept is taken");
        let used = slab.used();
        rig.engine.keep_slab(used);
        rig.engine.send(copy, 300, &to, 0);
        rig.engine.release(train);
    }
    rig.engine.send(range, 500, &to, 0);
    rig.engine.flush().unwrap();
    for datagram in pattern(2, 900).chunks(300) {
        assert_eq!(receive(&target), datagram);
    }
    assert_eq!(receive(&target), first);
}
