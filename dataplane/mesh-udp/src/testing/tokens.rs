//! What a caller must not do, and that it is noticed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Engine, add, endpoint, engine, peer, take};

/// Runs what must panic, and holds it to the reason.
pub(super) fn refused(reason: &str, body: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("it must not go through");
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    assert!(text.is_some_and(|text| text.contains(reason)), "{text:?} instead of {reason:?}");
}

pub fn a_train_of_another_engine_is_refused<E: Engine>() {
    let mut one = engine::<E>();
    let mut other = engine::<E>();
    let (_, address) = add(&mut one);
    peer().send_to(b"x", address).unwrap();
    let mut train = take(&mut one, 1).remove(0);
    refused("a train of another engine", || _ = other.split(&mut train));
    assert_eq!(one.split(&mut train).0, b"x");
    one.release(train);
}

pub fn a_range_beyond_its_train_is_refused<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, address) = add(&mut engine);
    let peer = peer();
    peer.send_to(b"x", address).unwrap();
    let train = take(&mut engine, 1).remove(0);
    let to = endpoint(socket, &peer);
    refused("a range beyond its train", || engine.forward(&train, 0..2, 2, &to, 0));
    refused("a range beyond its train", || engine.deliver(&train, 0..2));
    refused("a stride of zero", || engine.forward(&train, 0..1, 0, &to, 0));
    engine.release(train);
}

pub fn a_range_beyond_the_slab_is_refused<E: Engine>() {
    let mut engine = engine::<E>();
    let (socket, _) = add(&mut engine);
    let to = endpoint(socket, &peer());
    let size = engine.slab().memory.len();
    refused("a range beyond the slab", || engine.send(size - 1..size + 1, 2, &to, 0));
    refused("a range beyond the slab", || engine.deliver_slab(size..size + 1));
    refused("more of the slab kept than there is", || engine.keep_slab(size + 1));
    engine.flush();
    assert_eq!(engine.counters().datagrams_out, 0);
}

pub fn a_train_that_is_forgotten_is_noticed<E: Engine>() {
    if cfg!(debug_assertions) {
        let mut engine = engine::<E>();
        let (_, address) = add(&mut engine);
        peer().send_to(b"x", address).unwrap();
        let train = take(&mut engine, 1).remove(0);
        refused("dropped without Engine::release", || drop(train));
    }
}
