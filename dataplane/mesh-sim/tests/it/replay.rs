//! A seed is a run: the same again, to the byte, with everything in it that draws from chance.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_core::seam::SocketId;
use mesh_sim::net::{Hairpin, NatConfig, Net};
use mesh_sim::wiretap::Seen;
use mesh_sim::world::{Family, Heard};
use mesh_sim::{Link, Place, SiteConfig, seeds};

use crate::fixture::Mesh;

/// Everything that could differ: what was sent, what inside hosts and a probe got, what gateways reported, how full
/// NATs were.
#[derive(PartialEq, Eq)]
struct Record {
    sent: Vec<Seen>,
    heard: Vec<Heard>,
    told: Vec<String>,
}

fn run(seed: u64) -> Record {
    let mut mesh = Mesh::new(seed, 1, Link::ROUGH);
    mesh.world.wiretap.record();
    let mut sites = Vec::new();
    for (number, kind) in (0..).zip(NatConfig::every_kind().into_iter().step_by(3)) {
        let hairpin = if kind.shared_ports { Hairpin::None } else { Hairpin::ExternalSource };
        let home = SiteConfig::home(NatConfig { hairpin, ..kind }, Ipv4Addr::new(203, 0, 113, 100 + number));
        let site = mesh.world.net.add_site(SiteConfig { link: Link::ROUGH, ..home });
        mesh.join_at(Place::inside(site, Ipv4Addr::new(192, 168, 1, 10).into()), 40_000);
        sites.push(site);
    }
    let behind = SiteConfig {
        net: Net::Lan(sites[1]),
        inside: (Ipv4Addr::new(10, 0, 0, 1), 8),
        ..SiteConfig::home(NatConfig::LINUX_FULLY_RANDOM, Ipv4Addr::new(192, 168, 1, 77))
    };
    let behind = mesh.world.net.add_site(behind);
    let last = mesh.join_at(Place::inside(behind, Ipv4Addr::new(10, 0, 0, 2).into()), 40_000);
    let [probe, hearer] = [3, 4]
        .map(|last| mesh.world.add_probe(Place::inside(behind, Ipv4Addr::new(10, 0, 0, last).into()), &[5000, 40_000]));
    let gateways = mesh.gateways.clone();

    for round in 0..20 {
        let turn = usize::from(round);
        for (from, to) in [(turn % gateways.len(), (turn + 5) % gateways.len()), (0, gateways.len() - 1)] {
            mesh.ping(from, to, round, Duration::from_millis(300));
        }
        mesh.world.probe(probe, 5000, "239.1.2.3:40000".parse().unwrap(), b"anyone here?");
        match round {
            3 => mesh.world.net.flush(sites[0]),
            5 => mesh.world.net.rebind(sites[2]),
            7 => mesh.world.suspend(gateways[3], Duration::from_secs(2)),
            9 => mesh.world.net.set_path(gateways[0], gateways[4], Link { loss: 0.5, ..Link::ROUGH }),
            11 => mesh.world.set_interface(gateways[5], false),
            13 => mesh.world.set_interface(gateways[5], true),
            15 => drop(mesh.world.open_socket(last, SocketId(1), Family::Both, 0)),
            _ => {}
        }
    }
    mesh.world.run_for(Duration::from_secs(1));
    let now = mesh.world.now();
    let mut told: Vec<String> =
        sites.iter().map(|site| format!("{:?}", mesh.world.net.nat_status(*site, now))).collect();
    for node in &gateways {
        told.push(format!("{:?}", mesh.world.take_delivered(*node)));
        told.push(format!("{:?}", mesh.world.take_events(*node)));
    }
    Record { sent: mesh.world.wiretap.seen().to_vec(), heard: mesh.world.take_heard(hearer), told }
}

#[test]
fn a_seed_replays_to_the_same_run_byte_for_byte() {
    seeds::each(5, |seed| {
        let [one, again] = [run(seed), run(seed)];
        assert!(one.sent.len() > 500 && one.heard.len() == 20, "{} datagrams", one.sent.len());
        for (number, (one, again)) in one.sent.iter().zip(&again.sent).enumerate() {
            assert_eq!(one, again, "datagram {number}");
        }
        assert!(one == again, "all else");
        let other = run(seed + 1_000_000);
        let equal = other.sent.iter().zip(&one.sent).filter(|(other, one)| other.bytes == one.bytes);
        // The probe's own words.
        assert!(equal.count() <= 20, "another seed is another run");
    });
}
