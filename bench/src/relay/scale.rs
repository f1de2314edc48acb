//! `bench scale`: a transfer with many namespaces and many registered clients. What start, memory, registrations and forwarding cost
//! as both grow.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mesh_core::session::token::StretchedToken;
use mesh_lab::Process;

use super::crowd::{Clients, Crowd};
use super::rig::{LOAD_PROCESSOR, first_port};
use super::systems::Ours;
use super::{Payload, Rig, System as _};
use crate::cost::program::{processor_time, resident};
use crate::figure::{Better, Figure, Measures};
use crate::load::{Counter, DATAGRAM_PORTS, Generator, Pace};
use crate::report::Point;
use crate::rounds::{CellInfo, Experiment, Lineup, Trial};

/// The cells of a run without a choice.
pub const DEFAULT: [&str; 8] = ["1x2", "1x100", "100x2", "100x100", "1000x2", "1000x10", "1x10000", "4000x2"];
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
        let flows = clients.flows(PAIRS_MAX)?;
        let mut counter = Counter::new(self.rig.right.b(), DATAGRAM_PORTS)?;
        let mut generator =
            Generator::new(self.rig.left.a(), self.rig.left.b(), &flows, PAYLOAD, BURST, LOAD_PROCESSOR)?;
        let before = processor_time(process.id())?;
        let sent = generator.run(Pace::Full, LOAD)?;
        let count = counter.settled(SETTLE)?;
        let time = processor_time(process.id())?.saturating_sub(before);
        let datagrams = count.datagrams(PAYLOAD);
        ensure!(datagrams > 0.0, "of {} datagrams sent none arrived", sent.datagrams);
        Ok(Measures::from([
            ("relay_ns".into(), time.as_nanos() as f64 / datagrams),
            ("goodput".into(), datagrams / sent.elapsed.as_secs_f64() / 1e3),
        ]))
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

#[expect(clippy::disallowed_methods, reason = "idleness is measured over a time")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
