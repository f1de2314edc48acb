//! A flooded namespace does not starve the others of its core.
//!
//! Two clients of a quiet namespace ping each other through the relay, by a link of their own, while the generator sends as fast as it
//! can by another: into another namespace of the same data thread (its datagrams are relayed to a sink), or to a port whose datagrams
//! nf_tables drops in the relay's host, before any socket. The second is what the flood costs the machine, whatever the relay does; the
//! first must not be much worse. Nothing here is an absolute time, and the two take turns.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bench::enrol::{Enrolled, Fleet};
use bench::load::pings::End;
use bench::load::{Counter, DATAGRAM_PORTS, Flow, Generator, Pace, Pinged, Pings};
use bench::relay::rig::LOAD_PROCESSOR;
use bench::relay::{Cell, Rig};
use mesh_core::session::token::StretchedToken;
use mesh_lab::LinkMode;
use mesh_wire::frame::FrameType;
use mesh_wire::route::{Destination, Route};

use crate::relay::{Kind, RANK, Relay, TOKEN};

/// The ports of the two namespaces, and that of nobody.
const QUIET: u16 = 1_500;
const FLOODED: u16 = 2_000;
const DROPPED: u16 = 2_001;

/// The quiet link: its clients, and the relay.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 2);
const CLIENT_PORTS: [u16; 2] = [3_000, 3_001];

/// How often the quiet namespace's p99 under a flood into another may be its p99 under the same flood into nothing.
const RATIO_MAX: f64 = 3.0;

/// Pings of one phase: ten of them are beyond its p99.
const PINGS: u64 = 1_000;
/// From one ping to the next: no round number, so that pings keep step with nothing.
const PING_INTERVAL: Duration = Duration::from_micros(743);

/// A flood ends before the kernel takes the processors away from who runs first: after 0.95 s.
const FLOOD_MAX: Duration = Duration::from_millis(900);
/// How long others have their turn between two floods.
const PAUSE: Duration = Duration::from_millis(300);

/// The flood of the usual tests, and of the long one. It comes uncut, so that the generator sends several times what the relay can
/// pass on: that leaves as the cell's mode has it.
const CELL: &str = "nic-1200-b40-f1-n1";
const CELLS_LONG: [&str; 4] = [CELL, "nic-1200-b40-f32-n1", "wire-64-b1-f32-n1", "nic-1400-b4-f100-n1"];
/// How often the two floods take turns.
const ROUNDS: usize = 5;
const ROUNDS_LONG: usize = 7;

/// A relay with a flooded and a quiet namespace on one core, and who sends.
struct Site {
    pings: Pings,
    into: Generator,
    aside: Generator,
    relay: Relay,
    relayed: Counter,
    dropped: Counter,
    cell: Cell,
    _clients: (Fleet, Enrolled),
    _rig: Rig,
}

/// One flood with pings beside it.
#[derive(Debug)]
struct Phase {
    pinged: Pinged,
    sent: f64,
    /// Datagrams that came to an end, each second: at the sink, or at nf_tables.
    ended: f64,
    /// The share of the time that the data thread worked.
    busy: f64,
    /// Trains of a turn.
    trains: f64,
}

impl Site {
    fn new(kind: Kind, fair: bool, cell: &str) -> Result<Self> {
        bench::load::run_first(RANK + 1).context("go before others (root of the machine may)")?;
        let cell: Cell = cell.parse()?;
        let rig = Rig::new("fairness")?;
        rig.left.set_mode(LinkMode::Veth)?;
        rig.right.set_mode(cell.mode)?;
        let host = rig.lab.host("quiet")?;
        // With receive queues of its own: what the flood does to the queue that all plain links share is not the relay's business.
        rig.lab.link(&host, &rig.relay, &["10.3.0.0/24"])?.set_mode(LinkMode::Nic)?;
        let relay = Relay::start(&rig, kind, fair, &[FLOODED, QUIET])?;
        let relayed = Counter::new(rig.right.b(), DATAGRAM_PORTS)?;
        let dropped = Counter::new(rig.left.b(), DROPPED..=DROPPED)?;

        let mut fleet = Fleet::new(&StretchedToken::stretch(TOKEN.as_bytes()))?;
        let transfer = SocketAddrV4::new(RELAY, QUIET);
        let mut members = Vec::new();
        for port in CLIENT_PORTS {
            let socket = host.udp(SocketAddrV4::new(CLIENTS, port).into())?;
            let own = socket.try_clone()?;
            let socket = fleet.add_socket(socket)?;
            members.push((own, fleet.add_client(socket, transfer)?));
        }
        fleet.enrol()?;
        let slots = [fleet.slot(members[0].1)?, fleet.slot(members[1].1)?];
        let mut ends = members.into_iter().zip([slots, [slots[1], slots[0]]]).map(|((socket, _), [own, other])| {
            let route = Route { destination: Destination::here(other), source: own }.emit(FrameType::Data, 0);
            End { socket, relay: transfer, route }
        });
        let (near, far) = (ends.next().context("two members")?, ends.next().context("two members")?);
        drop(ends);
        let pings = Pings::new(near, far, LOAD_PROCESSOR)?;

        let enrolled = Enrolled::new(&rig, SocketAddrV4::new(Rig::RELAY, FLOODED), TOKEN, cell.flows, 1, 5)?;
        let flows = enrolled.flows().to_vec();
        let nowhere: Vec<Flow> =
            flows.iter().map(|flow| Flow { to: SocketAddrV4::new(Rig::RELAY, DROPPED), ..flow.clone() }).collect();
        let generator = |flows: &[Flow]| -> Result<Generator> {
            let (from, to) = (rig.left.a(), rig.left.b());
            Generator::new(from, to, flows, cell.payload, cell.burst, LOAD_PROCESSOR)
        };
        let (into, aside) = (generator(&flows)?, generator(&nowhere)?);
        Ok(Self { pings, into, aside, relay, relayed, dropped, cell, _clients: (fleet, enrolled), _rig: rig })
    }

    /// Floods the other namespace, or nobody, and pings meanwhile.
    fn flood(&mut self, into: bool) -> Result<Phase> {
        let (generator, end) = match into {
            true => (&mut self.into, &mut self.relayed),
            false => (&mut self.aside, &mut self.dropped),
        };
        let (seen, ended) = (self.relay.look()?, end.read()?);
        mesh_lab::pause(PAUSE);
        generator.start(Pace::Full, FLOOD_MAX)?;
        let pinged = self.pings.run(PING_INTERVAL, PINGS)?;
        generator.stop();
        let sent = generator.wait()?;
        let (later, ended) = (self.relay.look()?, end.read()?.since(ended));
        let seconds = sent.elapsed.as_secs_f64();
        let turns = later.counters.batches.iter().sum::<u64>() - seen.counters.batches.iter().sum::<u64>();
        Ok(Phase {
            pinged,
            sent: sent.per_second(),
            ended: ended.datagrams(self.cell.payload) / seconds,
            busy: (later.time.saturating_sub(seen.time)).as_secs_f64() / seconds,
            trains: (later.counters.trains_in - seen.counters.trains_in) as f64 / turns as f64,
        })
    }

    /// How much longer the pings took while the other namespace was flooded: their median p99 of some rounds, to that of the same
    /// rounds while nobody was.
    fn ratio(&mut self, rounds: usize) -> Result<f64> {
        let (mut beside, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (aside, into) = (self.flood(false)?, self.flood(true)?);
            println!("  aside {aside}\n  into  {into}");
            // Else there was no flood, or no overload.
            ensure!(aside.ended > 0.9 * aside.sent, "nf_tables dropped {aside}");
            ensure!(into.busy > 0.9, "the relay is not overloaded: {into}");
            alone.push(aside.pinged.p99());
            beside.push(into.pinged.p99());
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[rounds / 2].as_secs_f64()
        };
        let ratio = median(beside) / median(alone);
        println!("  {ratio:.2} times as long");
        Ok(ratio)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pinged, sent, ended, busy, trains } = self;
        let (median, p99) = (pinged.median(), pinged.p99());
        write!(formatter, "p50 {median:?} p99 {p99:?} ({} of {} came back), ", pinged.received, pinged.sent)?;
        let (sent, ended) = (sent / 1e3, ended / 1e3);
        write!(formatter, "{ended:.0} of {sent:.0} kpps, data thread busy {busy:.2}, {trains:.1} trains a turn")
    }
}

/// Measures one engine in one cell.
fn measure(kind: Kind, fair: bool, cell: &str, rounds: usize) -> Result<f64> {
    println!("{kind:?} {cell}{}", if fair { "" } else { ", fairness switched off" });
    Site::new(kind, fair, cell)?.ratio(rounds)
}

fn is_fair(kind: Kind, cell: &str, rounds: usize) -> Result<()> {
    let ratio = measure(kind, true, cell, rounds)?;
    ensure!(ratio <= RATIO_MAX, "the flood makes pings of another namespace take {ratio:.1} times as long");
    Ok(())
}

/// What shows that the measurement sees unfairness.
fn is_unfair_without(kind: Kind) -> Result<()> {
    let ratio = measure(kind, false, CELL, ROUNDS)?;
    ensure!(ratio > RATIO_MAX, "without fairness pings take {ratio:.1} times as long: the test sees nothing");
    Ok(())
}

#[test]
fn uring_a_flooded_namespace_starves_no_other() {
    mesh_lab::isolated(|| is_fair(Kind::Uring, CELL, ROUNDS));
}

#[test]
fn mmsg_a_flooded_namespace_starves_no_other() {
    mesh_lab::isolated(|| is_fair(Kind::Mmsg, CELL, ROUNDS));
}

#[test]
fn uring_without_fairness_a_flooded_namespace_starves_others() {
    mesh_lab::isolated(|| is_unfair_without(Kind::Uring));
}

#[test]
fn mmsg_without_fairness_a_flooded_namespace_starves_others() {
    mesh_lab::isolated(|| is_unfair_without(Kind::Mmsg));
}

/// Trains of every kind, by one and by many, and more rounds.
#[test]
fn long_no_kind_of_flood_starves_another_namespace() {
    mesh_lab::isolated(|| {
        for kind in [Kind::Uring, Kind::Mmsg] {
            for cell in CELLS_LONG {
                is_fair(kind, cell, ROUNDS_LONG)?;
            }
        }
        Ok(())
    });
}
