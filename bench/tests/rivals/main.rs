//! The rivals relay what they must, drop what they must, and go on.
#![cfg(target_os = "linux")]

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::load::{Flow, Head};
use bench::relay::{Cell, Rig, systems};
use bench::rivals::{READY, Rival};
use mesh_lab::{Process, isolated};
use mesh_wire::route::ROUTE_BYTES;

const LONG: Duration = Duration::from_secs(10);
/// Flows of a test; more than ports, so that a port has several.
const FLOWS: u16 = 7;
const LISTEN: SocketAddrV4 = SocketAddrV4::new(Rig::RELAY, 3_000);
const TO: SocketAddrV4 = SocketAddrV4::new(Rig::RECEIVER, 5_000);

fn start(rig: &Rig, rival: Rival, ports: u16) -> Result<Process> {
    let mut command = rig.relay.command(env!("CARGO_BIN_EXE_bench"));
    command.args(["rival", rival.name(), "--listen", &LISTEN.to_string(), "--ports", &ports.to_string()]);
    command.args(["--to", &TO.to_string(), "--flows", &FLOWS.to_string()]);
    rig.relay.spawn(command)
}

/// A datagram of a flow: its number where a destination's slot stands, then bytes that tell it from others.
fn datagram(flow: u32, round: u8, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(round)).collect();
    bytes[4..8].copy_from_slice(&flow.to_be_bytes());
    bytes
}

/// The ends of a flow, as sockets.
struct Ends {
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddrV4,
}

impl Ends {
    fn of(rig: &Rig, flow: &Flow) -> Result<Self> {
        let (sender, receiver) = (rig.sender.udp(flow.from.into())?, rig.receiver.udp(flow.arrives.into())?);
        receiver.set_read_timeout(Some(LONG))?;
        Ok(Self { sender, receiver, to: flow.to })
    }

    fn send(&self, datagram: &[u8]) -> Result<()> {
        self.sender.send_to(datagram, self.to)?;
        Ok(())
    }

    /// What arrives next is this, and from the port it was sent to.
    fn expect(&self, datagram: &[u8]) -> Result<()> {
        let mut buffer = [0; 4_096];
        let (length, from) = self.receiver.recv_from(&mut buffer).context("nothing arrived")?;
        assert_eq!(from, self.to.into());
        assert_eq!(&buffer[..length], datagram);
        Ok(())
    }
}

fn flows(ports: u16) -> Vec<Flow> {
    let at = |address: SocketAddrV4, number: u16| SocketAddrV4::new(*address.ip(), address.port() + number);
    let flow = |number: u16| Flow {
        from: SocketAddrV4::new(Rig::SENDER, 4_000 + number),
        to: at(LISTEN, number % ports),
        arrives: at(TO, number),
        head: Head::Nothing,
        route: [0; ROUTE_BYTES],
    };
    (0..FLOWS).map(flow).collect()
}

/// What names no flow is dropped; after it, datagrams of all sizes arrive unchanged, in order, each where its flow goes.
fn relays(rig: &Rig, flows: &[Flow]) -> Result<()> {
    let ends = flows.iter().map(|flow| Ends::of(rig, flow)).collect::<Result<Vec<_>>>()?;
    let after_last = flows.last().context("there is a flow")?.arrives;
    let nobody = rig.receiver.udp(SocketAddrV4::new(*after_last.ip(), after_last.port() + 1).into())?;
    for round in 0..3 {
        for (number, flow) in (0..).zip(&ends) {
            flow.send(&[])?;
            flow.send(&datagram(number, round, 8)[..7])?;
            flow.send(&datagram(ends.len() as u32, round, 64))?;
            flow.send(&datagram(u32::MAX, round, 64))?;
            // It does not fit the buffers, so it would arrive cut.
            flow.send(&datagram(number, round, 3_000))?;
            for length in [8, 64, 1_472] {
                flow.send(&datagram(number, round, length))?;
            }
        }
        for (number, flow) in (0..).zip(&ends) {
            for length in [8, 64, 1_472] {
                flow.expect(&datagram(number, round, length))
                    .with_context(|| format!("flow {number}, {length} bytes"))?;
            }
        }
    }
    // All that was sent before has been relayed or dropped.
    nobody.set_nonblocking(true)?;
    assert!(nobody.recv(&mut [0; 64]).is_err());
    Ok(())
}

fn check(rival: Rival, ports: u16) -> Result<()> {
    let rig = Rig::new(rival.name())?;
    let mut process = start(&rig, rival, ports)?;
    process.wait_for_line(READY, LONG)?;
    relays(&rig, &flows(ports)).with_context(|| format!("{rival} with {ports} ports"))?;
    assert_eq!(process.try_wait()?, None, "it goes on");
    Ok(())
}

#[test]
fn recvmmsg_relays() {
    isolated(|| check(Rival::Recvmmsg, 1));
}

#[test]
fn recvfrom_relays() {
    isolated(|| check(Rival::Recvfrom, 1));
}

#[test]
fn epoll_relays_on_many_ports() {
    isolated(|| check(Rival::Epoll, 3));
}

#[test]
fn tokio_relays_on_many_ports() {
    isolated(|| check(Rival::Tokio, 3));
}

#[test]
fn tokio_uring_relays_on_many_ports() {
    isolated(|| check(Rival::TokioUring, 3));
}

#[test]
fn the_check_in_c_relays_as_a_system() {
    isolated(|| {
        let rig = Rig::new("recvmmsg-c")?;
        let all = systems::all();
        let check = all.iter().find(|system| system.name() == "recvmmsg-c").context("there is no recvmmsg-c")?;
        let found = check.find()?;
        assert!(found.is_ok(), "what links Rust programs compiles C: {found:?}");
        let cell: Cell = "wire-64-b1-f5-n1".parse()?;
        let mut running = check.start(&rig, &cell, 2)?;
        assert_eq!(running.processes().len(), 1);
        assert_eq!(running.flows().len(), 5);
        relays(&rig, running.flows())?;
        running.tend()?;
        kill_program(running.processes()[0].id());
        let ended = loop {
            // The kernel takes a moment to end it.
            if let Err(error) = running.tend() {
                break format!("{error:#}");
            }
        };
        assert!(ended.contains("it has ended") && ended.contains("ready"), "{ended}");
        Ok(())
    });
}

/// Kills a program of the test, as if it had crashed.
fn kill_program(process: u32) {
    let process = nix::unistd::Pid::from_raw(process.cast_signed());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).expect("it is a child that lives");
}

#[test]
fn a_rival_bound_twice_takes_the_port_when_it_becomes_free() {
    isolated(|| {
        let rig = Rig::new("busy")?;
        // The kernel takes its ring down after its end.
        let mut first = start(&rig, Rival::TokioUring, 3)?;
        first.wait_for_line(READY, LONG)?;
        let mut second = start(&rig, Rival::Epoll, 3)?;
        assert!(second.wait_for_line(READY, Duration::from_millis(200)).is_err(), "the ports are taken");
        drop(first);
        second.wait_for_line(READY, LONG)?;
        relays(&rig, &flows(3))
    });
}

#[test]
fn what_makes_no_sense_is_refused_in_a_line() {
    isolated(|| {
        let rig = Rig::new("refused")?;
        for (rival, ports, word) in [
            (Rival::Recvmmsg, 2, "recvmmsg has one port, not 2"),
            (Rival::Epoll, 0, "--listen and --ports"),
            (Rival::Epoll, 63_000, "63000 ports from 3000 on"),
        ] {
            let mut process = start(&rig, rival, ports)?;
            assert!(!process.wait(LONG)?.success());
            assert!(process.output().contains(word), "{}", process.output());
        }
        Ok(())
    });
}
