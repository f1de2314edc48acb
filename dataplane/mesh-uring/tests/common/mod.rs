//! The engine as the tests make it.

use mesh_udp::testing::Limits;
use mesh_uring::{Config, Engine};

fn make(limits: Limits) -> Engine {
    let default = Config::default();
    Engine::new(Config {
        buffers_first: limits.trains.unwrap_or(default.buffers_first),
        buffers_max: limits.trains.unwrap_or(default.buffers_max),
        socket_receive_bytes: limits.receive_bytes.unwrap_or(default.socket_receive_bytes),
        socket_send_bytes: limits.send_bytes.unwrap_or(default.socket_send_bytes),
        offload: !limits.alone,
        ..default
    })
    .expect("io_uring on this machine")
}

mesh_udp::tested_engine!(Tested(Engine), calls: 2, make: make, flush: |engine: &mut Engine| engine.flush().unwrap());
