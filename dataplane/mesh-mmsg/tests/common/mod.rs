//! The engine as the tests make it.

use mesh_mmsg::{Config, Engine};
use mesh_udp::testing::Limits;

fn make(limits: Limits) -> Engine {
    let default = Config::default();
    Engine::new(Config {
        batch_max: limits.trains.map_or(default.batch_max, usize::from),
        socket_receive_bytes: limits.receive_bytes.unwrap_or(default.socket_receive_bytes),
        socket_send_bytes: limits.send_bytes.unwrap_or(default.socket_send_bytes),
        offload: !limits.alone,
        ..default
    })
    .expect("an epoll needs two descriptors")
}

// One look at epoll, one receive, one send.
mesh_udp::tested_engine!(Tested(Engine), calls: 3, make: make, flush: Engine::flush);
