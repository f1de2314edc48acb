//! Our own programs as a system: `cargo build --release` makes them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::tunnel::load::Ends;
use bench::tunnel::load::ping::ping;
use bench::tunnel::load::tcp::{TcpLoad, tcp};
use bench::tunnel::load::udp::Udp;
use bench::tunnel::system::START_MAX;
use bench::tunnel::{Congestion, Rig, TunnelCell, systems};
use mesh_lab::{Process, isolated};

use crate::loads::SHORT;

/// Carries all loads in a cell, with the transfer between the gateways or beside them.
fn carries(system: &str, cell: &str, through_relay: bool) -> Result<()> {
    let cell: TunnelCell = cell.parse()?;
    let system = systems::all().into_iter().find(|known| known.name() == system).context("a system")?;
    assert!(system.find()?.is_ok_and(|info| info.ours));
    let rig = Rig::new(system.name(), system.path(&cell))?;
    rig.set_mode(cell.mode)?;
    let mut tunnel = system.start(&rig, &cell)?;
    tunnel.wait_until_answering(&rig, &cell, START_MAX)?;
    system.confirm(&rig, START_MAX)?;
    let programs: Vec<u32> = tunnel.processes.iter().map(Process::id).collect();
    assert_eq!(tunnel.relay, through_relay.then_some(0));
    let relay = tunnel.relay.map(|place| programs[place]);
    let (from, source, to, destination) = (&rig.left, tunnel.left, &rig.right, tunnel.right);
    let ends = Ends { from, source, to, destination, programs: &programs, relay };

    let outcome = tcp(&ends, &TcpLoad { streams: 1, congestion: Congestion::Bbr, warm: SHORT, time: SHORT })?;
    assert!(outcome.total() > 0, "{outcome:?}");
    assert!(outcome.segment_bytes < u64::from(cell.inner_mtu) - 40, "it went through the tunnel: {outcome:?}");
    assert!(outcome.spent.programs > Duration::ZERO, "{outcome:?}");
    assert_eq!(outcome.spent.relay.is_some_and(|spent| spent > Duration::ZERO), through_relay, "{outcome:?}");

    let mut load = Udp::open(&ends, 64)?;
    let step = load.step(&ends, 500.0, SHORT)?;
    assert_eq!((step.received, step.reordered), (step.sent, 0), "{step:?}");

    assert!(ping(&ends, SHORT)?.loss.abs() < 1e-9);
    assert_eq!(tunnel.processes.len(), 3);
    tunnel.tend()?;
    tunnel.processes[0].kill()?;
    let why = tunnel.tend().expect_err("a killed program is noticed").to_string();
    assert!(why.contains("has ended"), "{why}");
    Ok(())
}

#[test]
fn on_uring_at_the_smallest_size() {
    isolated(|| carries("easymesh", "relayed-tcp1-bbr-veth", true));
}

#[test]
fn portable_at_the_size_it_was_told() {
    isolated(|| carries("easymesh-portable", "relayed-tcp1-bbr-wire-1408", true));
}

#[test]
fn on_uring_from_gateway_to_gateway() {
    isolated(|| carries("easymesh", "direct-tcp1-bbr-veth-1380", false));
}

#[test]
fn through_the_relay_beside_those_who_go_directly() {
    isolated(|| carries("easymesh-relayed", "direct-tcp1-bbr-veth-1380", true));
}
