//! `bench scale`: a transfer with many namespaces and many registered clients. What start, memory, registrations and forwarding cost
//! as both grow.

use std::fmt;

use std::net::{SocketAddr, SocketAddrV4};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use mesh_core::session::token::StretchedToken;
use mesh_lab::Process;
use mesh_wire::frame::FrameType;
use mesh_wire::route::{Destination, Route};

use super::rig::{LOAD_PROCESSOR, first_port};
use super::systems::Ours;
use super::{Payload, Rig, System as _};
use crate::cost::program::{processor_time, resident};
use crate::enrol::fleet::{ClientId, Fleet};
use crate::figure::{Better, Figure, Measures};
use crate::load::{Counter, DATAGRAM_PORTS, Flow, Generator, Head, Pace};
use crate::report::Point;
use crate::rounds::{CellInfo, Experiment, Lineup, Trial};

/// The cells of a run without a choice.
pub const DEFAULT: [&str; 7] = ["1x2", "1x100", "100x2", "100x100", "1000x2", "1000x10", "4000x2"];
/// The cells of `--quick`.
pub const QUICK: [&str; 3] = ["1x2", "100x10", "1000x2"];
/// The figure whose ratio ranks the systems.
pub const HEADLINE: &str = "relay_ns";

/// Load is sent between so many pairs of clients at most, spread over all namespaces.
const PAIRS_MAX: usize = 1_000;
const PAYLOAD: Payload = Payload::Bytes(256);
const BURST: u16 = 1;
/// How long the relay is watched while nothing is sent, and how long it is loaded.
const IDLE: Duration = Duration::from_secs(2);
const LOAD: Duration = Duration::from_millis(800);
const SETTLE: Duration = Duration::from_millis(20);

/// How many namespaces, and how many clients in each: `1000x10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Namespaces, that is ports: 1 to 4,000.
    pub namespaces: u16,
    /// Clients in each: 2 to 100, an even number. Half of them send and half receive.
    pub clients: u16,
}

impl Crowd {
    /// All clients.
    pub fn sessions(self) -> usize {
        usize::from(self.namespaces) * usize::from(self.clients)
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.namespaces, self.clients)
    }
}

impl FromStr for Crowd {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('x').and_then(|(left, right)| Some((left.parse().ok()?, right.parse().ok()?)));
        let (namespaces, clients) =
            numbers.with_context(|| format!("{text:?} is not NAMESPACESxCLIENTS, as in 1000x10"))?;
        ensure!((1..=4_000).contains(&namespaces), "{text:?}: a transfer is measured with 1 to 4000 namespaces");
        ensure!((2..=100).contains(&clients) && clients % 2 == 0, "{text:?}: a namespace has 2, 4, … 100 clients here");
        Ok(Self { namespaces, clients })
    }
}

/// The figures of a trial, in the order to show.
pub fn figures() -> Vec<Figure> {
    use Better::{Higher, Lower, Neither};
    vec![
        Figure::new("start_ms", "start", "ms", Lower, "from the start of the program until all ports are served"),
        Figure::new("rss_start", "memory at start", "MiB", Lower, "resident memory then"),
        Figure::new(
            "joins",
            "joins",
            "per s",
            Higher,
            "clients registered each second, handshake and all, while all come at once; the clients' own work is on the other core",
        ),
        Figure::new("rss_full", "memory, full", "MiB", Lower, "resident memory with every client registered"),
        Figure::new("session_bytes", "a client", "bytes", Lower, "growth of resident memory for each client"),
        Figure::new("idle", "idle", "% of a core", Lower, "processor time of the relay while nothing is sent"),
        Figure::new(
            "relay_ns",
            "relay ns",
            "",
            Lower,
            "processor time of the relay for each datagram of 256 bytes delivered, one at a time from up to 1,000 clients over all \
             namespaces, at saturation",
        ),
        Figure::new("goodput", "goodput", "kpps", Higher, "datagrams delivered each second then"),
        Figure::new(
            "churn",
            "churn",
            "per s",
            Higher,
            "clients that left and joined again each second, while all do at once",
        ),
        Figure::new("sessions", "clients", "", Neither, "clients in all"),
    ]
}

/// The bench.
pub struct ScaleBench {
    rig: Rig,
    crowds: Vec<Crowd>,
    systems: Vec<Ours>,
}

impl ScaleBench {
    /// On a rig, for these crowds and engines of ours.
    pub fn new(rig: Rig, crowds: Vec<Crowd>, systems: Vec<Ours>) -> Self {
        Self { rig, crowds, systems }
    }

    fn load(&self, process: &Process, clients: &Clients) -> Result<Measures> {
        let flows = clients.flows()?;
        let mut counter = Counter::new(self.rig.right.b(), DATAGRAM_PORTS)?;
        let mut generator =
            Generator::new(self.rig.left.a(), self.rig.left.b(), &flows, PAYLOAD, BURST, LOAD_PROCESSOR)?;
        let before = processor_time(process.id())?;
        let sent = generator.run(Pace::Full, LOAD)?;
        let mut count = counter.read()?;
        loop {
            pause(SETTLE);
            let now = counter.read()?;
            if now == count {
                break;
            }
            count = now;
        }
        let time = processor_time(process.id())?.saturating_sub(before);
        let datagrams = count.datagrams(PAYLOAD);
        ensure!(datagrams > 0.0, "of {} datagrams sent none arrived", sent.datagrams);
        Ok(Measures::from([
            ("relay_ns".into(), time.as_nanos() as f64 / datagrams),
            ("goodput".into(), datagrams / sent.elapsed.as_secs_f64() / 1e3),
        ]))
    }
}

/// All clients of a crowd, with the places of those that send to each other.
struct Clients {
    fleet: Fleet,
    /// Sender, receiver, the transfer's port, and the ports of both.
    pairs: Vec<(ClientId, ClientId, Pair)>,
}

#[derive(Clone, Copy)]
struct Pair {
    transfer: u16,
    from: u16,
    arrives: u16,
}

impl Clients {
    /// Registers them. One socket speaks for one client of each namespace.
    fn join(rig: &Rig, crowd: Crowd, token: &StretchedToken, first: u16) -> Result<Self> {
        let mut fleet = Fleet::new(token)?;
        let mut pairs = Vec::new();
        for number in 0..crowd.clients / 2 {
            let port = first + number;
            let bind = |host: &mesh_lab::Host, address| host.udp(SocketAddr::V4(SocketAddrV4::new(address, port)));
            let sender = fleet.add_socket(bind(&rig.sender, Rig::SENDER)?)?;
            let receiver = fleet.add_socket(bind(&rig.receiver, Rig::RECEIVER)?)?;
            for namespace in 0..crowd.namespaces {
                let transfer = first + namespace;
                let from = fleet.add_client(sender, SocketAddrV4::new(Rig::RELAY, transfer))?;
                let to = fleet.add_client(receiver, SocketAddrV4::new(Rig::RELAY_OUT, transfer))?;
                pairs.push((from, to, Pair { transfer, from: port, arrives: port }));
            }
        }
        fleet.enrol()?;
        Ok(Self { fleet, pairs })
    }

    /// Flows between as many pairs as are loaded, spread evenly.
    fn flows(&self) -> Result<Vec<Flow>> {
        let stride = self.pairs.len().div_ceil(PAIRS_MAX);
        let flow = |(from, to, pair): &(ClientId, ClientId, Pair)| {
            let route =
                Route { destination: Destination::here(self.fleet.slot(*to)?), source: self.fleet.slot(*from)? };
            Ok(Flow {
                from: SocketAddrV4::new(Rig::SENDER, pair.from),
                to: SocketAddrV4::new(Rig::RELAY, pair.transfer),
                arrives: SocketAddrV4::new(Rig::RECEIVER, pair.arrives),
                head: Head::Nothing,
                route: route.emit(FrameType::Data, 0),
            })
        };
        self.pairs.iter().step_by(stride).map(flow).collect()
    }
}

impl Experiment for ScaleBench {
    fn cells(&self) -> Vec<CellInfo> {
        let info = |crowd: &Crowd| CellInfo {
            name: crowd.to_string(),
            about: format!("{} namespaces with {} clients each", crowd.namespaces, crowd.clients),
            point: Some(Point {
                group: format!("{} clients in each namespace", crowd.clients),
                axis: "namespaces".into(),
                at: f64::from(crowd.namespaces),
            }),
        };
        self.crowds.iter().map(info).collect()
    }

    fn open(&mut self, _cell: usize) -> Result<Lineup> {
        let able = self.systems.iter().map(|system| system.name().to_owned()).collect();
        Ok(Lineup { able, ..Lineup::default() })
    }

    fn trial(&mut self, cell: usize, system: &str, _round: u32) -> Result<Trial> {
        let crowd = self.crowds[cell];
        let Some(system) = self.systems.iter().find(|ours| ours.name() == system) else {
            bail!("{system} is not ours")
        };
        let first = first_port(0);
        let began = Instant::now();
        let serving = system.serve(&self.rig, first, crowd.namespaces)?;
        let start = began.elapsed();
        let process = serving.process();
        let memory = resident(process.id())?;
        let token = StretchedToken::stretch(serving.token().as_bytes());

        let began = Instant::now();
        let clients = Clients::join(&self.rig, crowd, &token, first)?;
        let joined = began.elapsed();
        let full = resident(process.id())?;
        let before = processor_time(process.id())?;
        pause(IDLE);
        let idle = processor_time(process.id())?.saturating_sub(before);
        let mut measures = self.load(process, &clients)?;

        let began = Instant::now();
        drop(clients);
        let clients = Clients::join(&self.rig, crowd, &token, first).context("join again")?;
        let churned = began.elapsed();
        drop(clients);
        let sessions = crowd.sessions() as f64;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        measures.extend([
            ("start_ms".to_owned(), start.as_secs_f64() * 1e3),
            ("rss_start".to_owned(), mebibytes(memory)),
            ("joins".to_owned(), sessions / joined.as_secs_f64()),
            ("rss_full".to_owned(), mebibytes(full)),
            ("session_bytes".to_owned(), full.saturating_sub(memory) as f64 / sessions),
            ("idle".to_owned(), 100.0 * idle.as_secs_f64() / IDLE.as_secs_f64()),
            ("churn".to_owned(), sessions / churned.as_secs_f64()),
            ("sessions".to_owned(), sessions),
        ]);
        Ok(Trial { measures, notes: Vec::new() })
    }

    fn control(&mut self, _cell: usize) -> Result<f64> {
        // Our own engines are compared here, by what they hold as much as by what they cost.
        Ok(1.0)
    }

    fn close(&mut self, _cell: usize) {}
}

#[expect(clippy::disallowed_methods, reason = "idleness is measured over a time, and silence has no event to wait for")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crowds_are_read_back_and_others_refused() {
        for name in DEFAULT.into_iter().chain(QUICK) {
            assert_eq!(name.parse::<Crowd>().unwrap().to_string(), name);
        }
        for name in ["", "10", "0x2", "4001x2", "1x0", "1x3", "1x102", "ax2"] {
            assert!(name.parse::<Crowd>().is_err(), "{name}");
        }
    }
}
