//! At full load a datagram costs no allocation and next to no system call.
//!
//! The generator sends trains of 40 datagrams faster than the relay passes them on, and they leave cut or whole, as the cell's mode has
//! it. Allocations of the data thread are counted by the allocator of this program; its system calls by the engine itself, and by the
//! kernel's tracepoint, so that a call that the engine does not count, or another's on its thread, is seen too.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bench::cost::Events;
use bench::enrol::Enrolled;
use bench::load::{Counter, DATAGRAM_PORTS, Generator, Pace};
use bench::relay::rig::LOAD_PROCESSOR;
use bench::relay::{Cell, Rig};
use mesh_lab::LinkMode;

use crate::relay::{Kind, RANK, Relay, TOKEN};

/// How trains leave.
const CELLS: [&str; 2] = ["nic-1200-b40-f1-n1", "veth-1200-b40-f1-n1"];
/// The flooded namespace, and one beside it that is in use: where there are others, engines keep their turns short.
const PORTS: [&[u16]; 2] = [&[2_000], &[2_000, 2_001]];

/// Until pools and tables have grown to the load they meet.
const WARM_UP: Duration = Duration::from_millis(300);
/// What is counted. With the warm-up less than what the kernel lets threads have that run first.
const LOAD: Duration = Duration::from_millis(400);

/// Datagrams for each system call, at least.
const DATAGRAMS_EACH: u64 = 20;
/// System calls of the data thread that are not the engine's: the pauses between floods, and the questions of this test.
const OTHER_CALLS: u64 = 100;

fn costs_next_to_nothing(kind: Kind, cell: &str, ports: &[u16]) -> Result<()> {
    bench::load::run_first(RANK + 1).context("go before others (root of the machine may)")?;
    let cell: Cell = cell.parse()?;
    let rig = Rig::new("full")?;
    rig.left.set_mode(LinkMode::Veth)?;
    rig.right.set_mode(cell.mode)?;
    let relay = Relay::start(&rig, kind, true, ports)?;
    let mut sink = Counter::new(rig.right.b(), DATAGRAM_PORTS)?;
    let enrolled = Enrolled::new(&rig, SocketAddrV4::new(Rig::RELAY, ports[0]), TOKEN, cell.flows, 1, 5)?;
    let flows = enrolled.flows();
    let mut generator = Generator::new(rig.left.a(), rig.left.b(), flows, cell.payload, cell.burst, LOAD_PROCESSOR)?;
    // A word for each: whoever has had one is in use for a while.
    let stranger = rig.sender.udp(SocketAddrV4::new(Rig::SENDER, 0).into())?;
    for port in ports.iter().chain(&ports[..1]) {
        stranger.send_to(&[0; 8], SocketAddrV4::new(Rig::RELAY, *port))?;
    }
    generator.run(Pace::Full, WARM_UP)?;

    let mut events = Events::of_threads([relay.look()?.thread])?;
    let (before, arrived) = (relay.look()?, sink.read()?);
    let sent = generator.run(Pace::Full, LOAD)?;
    let (after, arrived) = (relay.look()?, sink.read()?.since(arrived));
    let traced = events.read()?.system_calls;

    let datagrams = after.counters.datagrams_out - before.counters.datagrams_out;
    let calls = after.counters.system_calls - before.counters.system_calls;
    let allocations = after.allocations - before.allocations;
    let busy = (after.time.saturating_sub(before.time)).as_secs_f64() / sent.elapsed.as_secs_f64();
    let lost = after.counters.drops_receive_full - before.counters.drops_receive_full;
    println!(
        "{kind:?} {cell} of {} namespaces: {datagrams} of {} datagrams, {lost} trains beyond the receive buffer; {calls} system calls \
         counted, {traced} traced, one for {:.0} datagrams; {allocations} allocations; busy {busy:.2}",
        ports.len(),
        sent.datagrams,
        datagrams as f64 / traced as f64
    );
    // Else it was no full load, or not relayed.
    ensure!(
        datagrams > 100_000 && (lost > 0 || busy > 0.8),
        "{datagrams} datagrams keep it busy for {busy:.2} of the time"
    );
    ensure!(arrived.datagrams(cell.payload) >= 0.99 * datagrams as f64, "{arrived:?} arrived");
    ensure!(allocations == 0, "{allocations} allocations for {datagrams} datagrams");
    ensure!(
        traced >= calls && traced <= calls + calls / 50 + OTHER_CALLS,
        "the kernel counts {traced} calls, not {calls}"
    );
    ensure!(traced * DATAGRAMS_EACH <= datagrams, "{traced} system calls for {datagrams} datagrams");
    Ok(())
}

fn all_cells(kind: Kind) -> Result<()> {
    for cell in CELLS {
        for ports in PORTS {
            costs_next_to_nothing(kind, cell, ports)?;
        }
    }
    Ok(())
}

#[test]
fn uring_at_full_load_allocates_nothing_and_calls_once_for_20_datagrams_at_most() {
    mesh_lab::isolated(|| all_cells(Kind::Uring));
}

#[test]
fn mmsg_at_full_load_allocates_nothing_and_calls_once_for_20_datagrams_at_most() {
    mesh_lab::isolated(|| all_cells(Kind::Mmsg));
}
