//! The engine against plain sockets on the loopback.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod common;

use common::Tested;
use mesh_udp::testing::{add, peer, turns_until};
use mesh_uring::{Config, Engine};

mesh_udp::loopback_tests!(Tested);

#[test]
fn a_burst_beyond_the_buffers_grows_the_pool_and_loses_nothing() {
    let config = Config { buffers_first: 4, buffers_max: 64, ..Config::default() };
    let mut engine = Tested(Engine::new(config).unwrap());
    let (_, address) = add(&mut engine);
    let source = peer();
    assert_eq!(engine.0.receive_buffers(), 4);
    // Of growing lengths, so that nothing is gathered on receive.
    for number in 0..200_u8 {
        source.send_to(&vec![number; 1 + usize::from(number)], address).unwrap();
    }
    let mut seen = Vec::new();
    turns_until(&mut engine, |_, train| seen.push(train.len()), |engine| engine.0.counters().datagrams_in == 200);
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
    assert!(engine.0.counters().starved > 0);
    assert_eq!(engine.0.receive_buffers(), 64);
}
