//! Many gateways.

use std::time::Duration;

use mesh_sim::{Link, seeds};
use mesh_wire::CONTROL_BYTES_MAX;

use crate::fixture::{Mesh, ip};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn forty_gateways_reach_each_other_at_the_first_ping() {
    seeds::each(2, |seed| {
        let mut mesh = Mesh::new(seed, 40, Link::CLEAN);
        mesh.settle();
        for from in 0..40 {
            for to in (0..40).filter(|to| *to != from) {
                mesh.ping(from, to, 1, SECOND).unwrap_or_else(|| panic!("no answer from {} to {}", ip(to), ip(from)));
            }
        }
        assert!(mesh.world.wiretap.control_bytes_max <= CONTROL_BYTES_MAX);
    });
}

#[test]
fn a_thousand_gateways_idle_below_2_kb_a_second_each() {
    let count = 1_000;
    let mut mesh = Mesh::new(7, count, Link::CLEAN);
    mesh.world.run_for(5 * SECOND);
    for from in 0..count {
        mesh.ping(from, (from * 7 + 1) % count, 1, SECOND).expect("each reaches another");
    }
    // The pairs' sessions grow idle first.
    mesh.world.run_for(60 * SECOND);
    let before = mesh.world.wiretap.bytes;
    mesh.world.run_for(100 * SECOND);
    // Sent by anyone, so each byte between a gateway and the transfer is counted at one of them.
    let per_node = (mesh.world.wiretap.bytes - before) / 100 / count as u64;
    assert!(per_node < 2_000, "{per_node} bytes a second for each node");
    assert!(
        mesh.world.wiretap.control_bytes_max <= CONTROL_BYTES_MAX,
        "a control datagram of {} bytes",
        mesh.world.wiretap.control_bytes_max
    );
}
