//! The engine against a real TUN interface and a link that takes nothing, in a network namespace of the test's own.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod common;

use std::net::UdpSocket;

use common::Tested;
use mesh_udp::testing::{private, sys, turns_until};
use mesh_uring::{Config, Engine};

mesh_udp::private_network_tests!(Tested);

#[test]
fn a_burst_from_the_interface_grows_its_pool() {
    if !private::entered("a_burst_from_the_interface_grows_its_pool") {
        return;
    }
    let device = sys::interface("mesh0", libc::IFF_TUN, [172, 168, 0, 1]);
    let mut engine = Tested(Engine::new(Config { buffers_first: 4, buffers_max: 64, ..Config::default() }).unwrap());
    engine.0.add_inside(device).unwrap();
    let socket = UdpSocket::bind("172.168.0.1:0").unwrap();
    for number in 0..100_u8 {
        socket.send_to(&vec![number; 1 + usize::from(number)], "172.168.0.2:7").unwrap();
    }
    let mut seen = Vec::new();
    turns_until(
        &mut engine,
        |engine, train| {
            let packet = engine.0.split(train).0;
            if packet[0] == 0x45 && packet[9] == 17 {
                seen.push(packet.len());
            }
        },
        |engine| engine.0.counters().inside_in >= 100,
    );
    // What the kernel says of its own accord (IPv6) may come in between.
    turns_until(&mut engine, |_, _| {}, |engine| engine.0.counters().starved > 0);
    assert!(seen.iter().is_sorted() && seen.len() > 90, "{seen:?}");
}
