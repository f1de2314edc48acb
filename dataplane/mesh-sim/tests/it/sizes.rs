//! How long packets may be, over links of several widths, good days and bad ones.

use std::time::Duration;

use mesh_core::gateway::PathChoice;
use mesh_sim::host::{self, Inner};
use mesh_sim::{Link, seeds};

use crate::fixture::{Mesh, ip};

const SECOND: Duration = Duration::from_secs(1);

/// The size that the path from gateway `from` to the only other one shows.
fn size(mesh: &Mesh, from: usize) -> u16 {
    let (node, now) = (mesh.gateways[from], mesh.world.now());
    let status = mesh.world.gateway(node).status(now);
    let path = status.peers[0].paths.iter().find(|path| path.active).expect("one carries");
    path.mtu_bytes
}

/// Pings of `bytes` of payload, 50 ms apart; how many were answered.
fn pings(mesh: &mut Mesh, count: u16, bytes: usize) -> usize {
    let node = mesh.gateways[0];
    mesh.world.take_delivered(node);
    for sequence in 0..count {
        mesh.world.send_inside(node, &host::echo_request(ip(0), ip(1), sequence, bytes));
        mesh.world.run_for(Duration::from_millis(50));
    }
    mesh.world.run_for(SECOND);
    let delivered = mesh.world.take_delivered(node);
    delivered.iter().filter(|(_, packet)| matches!(host::read(packet), Inner::EchoReply { .. })).count()
}

#[test]
fn the_narrowest_link_decides_relayed_and_straight() {
    seeds::each(10, |seed| {
        for path in [PathChoice::Relay, PathChoice::Auto] {
            for (mtu, expect) in [(1500, 1500), (1460, 1452), (1400, 1400), (1280, 1280)] {
                let mut mesh = Mesh::new(seed, 0, Link::CLEAN);
                mesh.path = path;
                mesh.join(Link::CLEAN);
                mesh.join(Link { mtu, ..Link::CLEAN });
                mesh.settle();
                assert_eq!(pings(&mut mesh, 60, 100), 60);
                assert_eq!([size(&mesh, 0), size(&mesh, 1)], [expect; 2], "{path:?} over {mtu}");
            }
        }
    });
}

#[test]
fn a_bad_day_makes_no_path_narrow_for_long() {
    seeds::each(10, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::ROUGH);
        mesh.settle();
        pings(&mut mesh, 60, 100);
        let mut wide = 0;
        for _ in 0..40 {
            pings(&mut mesh, 10, 1300);
            wide += usize::from(size(&mesh, 0) == 1500);
        }
        assert!(wide >= 36, "{wide} of 40 looks, with 3 % of the datagrams lost on each of four links");
    });
}

#[test]
fn a_link_that_becomes_narrow_is_followed_within_three_seconds() {
    seeds::each(10, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.settle();
        assert_eq!(pings(&mut mesh, 60, 1300), 60);
        assert_eq!(size(&mesh, 0), 1500);
        let narrow = mesh.gateways[1];
        mesh.world.set_link(narrow, Link { mtu: 1400, ..Link::CLEAN });
        pings(&mut mesh, 40, 1300);
        // Of 1328 bytes, which the new size carries whole.
        assert_eq!(size(&mesh, 0), 1400);
        assert_eq!(pings(&mut mesh, 40, 1300), 40, "and nothing is lost any more");
    });
}
