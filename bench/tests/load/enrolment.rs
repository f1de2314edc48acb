//! Clients at a real `transfer`, and datagrams through it.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::enrol::Enrolled;
use bench::load::{Counter, DATAGRAM_PORTS, Generator, Pace, Tap};
use bench::relay::{Payload, Rig};
use mesh_lab::Process;

use crate::fixture::{PROCESSOR, program};

const TOKEN: &str = "s^I^ghGjkB7Zm$q14NWhxfQdS5E&FG7R";
const PORT: u16 = 2_000;
const START: Duration = Duration::from_secs(20);

/// Starts `transfer` in the relay's host with so many ports.
fn transfer(rig: &Rig, ports: &str) -> Result<Process> {
    let mut command = rig.relay.command(program("transfer"));
    let (public, port) = (Rig::RELAY.to_string(), PORT.to_string());
    command.args(["-public", &public, "-bind", &port, "-nums", ports, "-token", TOKEN]);
    command.current_dir("/").env_remove("EASYMESH_PROGRAMS").env("EASYMESH_LOG", "/run/state");
    let mut process = rig.relay.spawn(command)?;
    process.wait_for_line("join with", START).context("the transfer did not start")?;
    Ok(process)
}

#[test]
fn every_flow_is_relayed_to_its_receiver() {
    mesh_lab::isolated(|| {
        const FLOWS: u16 = 20;
        let rig = Rig::new("relayed")?;
        let _transfer = transfer(&rig, "3")?;
        // There before the clients: what they are told is no data frame, and passes.
        let mut counter = Counter::new(rig.right.b(), DATAGRAM_PORTS)?;
        let mut tap = Tap::new(rig.right.b(), DATAGRAM_PORTS, PROCESSOR)?;
        let mut enrolled = Enrolled::new(&rig, SocketAddrV4::new(Rig::RELAY, PORT), TOKEN, FLOWS, 3, 4)?;
        let ports: Vec<u16> = enrolled.flows().iter().map(|flow| flow.to.port() - PORT).collect();
        assert_eq!(ports[..5], [0, 1, 2, 0, 1], "flows take turns among the namespaces");

        let flows = enrolled.flows().to_vec();
        for payload in [Payload::Bytes(64), Payload::Bytes(1_200)] {
            let before = counter.read()?;
            let mut generator = Generator::new(rig.left.a(), rig.left.b(), &flows, payload, 2, PROCESSOR)?;
            // Three bursts of each: they fit into any buffer on the way.
            let sent = generator.run(Pace::PerSecond(6 * u64::from(FLOWS)), Duration::from_secs(1))?;
            crate::fixture::count_until(&mut counter, before.payload_bytes() + sent.bytes)?;
            let seen = tap.take(sent.run)?;
            assert_eq!((seen.received, seen.misplaced, seen.duplicates, seen.reordered), (sent.datagrams, 0, 0, 0));
            for (flow, seen) in flows.iter().zip(&seen.flows) {
                assert_eq!((seen.port, seen.received), (flow.arrives.port(), sent.datagrams / u64::from(FLOWS)));
            }
            enrolled.tend()?;
        }
        Ok(())
    });
}

#[test]
fn whoever_comes_after_a_goodbye_has_the_ports() {
    mesh_lab::isolated(|| {
        let rig = Rig::new("again")?;
        let _transfer = transfer(&rig, "2")?;
        let enrol = || Enrolled::new(&rig, SocketAddrV4::new(Rig::RELAY, PORT), TOKEN, 4, 2, 0);
        let first = enrol()?;
        drop(first);
        assert_eq!(enrol()?.flows().len(), 4);
        Ok(())
    });
}

#[test]
fn a_transfer_that_dies_or_never_was_is_noticed() {
    mesh_lab::isolated(|| {
        let rig = Rig::new("silent")?;
        let transfer = transfer(&rig, "1")?;
        let address = SocketAddrV4::new(Rig::RELAY, PORT);
        assert!(Enrolled::new(&rig, address, TOKEN, 2, 3, 0).is_err(), "more namespaces than flows");
        drop(transfer);
        let why = Enrolled::new(&rig, address, TOKEN, 1, 1, 0).expect_err("there is no transfer").to_string();
        assert!(why.contains("registered 0 of 2"), "{why}");
        Ok(())
    });
}
