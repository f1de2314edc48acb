//! `bench scale --side-by-side`: does it cost anything that clients are spread over many namespaces?
//!
//! A transfer for each crowd, all with the same number of clients, run at once on one core; one at a time has load, the same load from
//! as many of its clients as there are flows. So their costs are compared within a round, as relays are in [`super::experiment`].

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_core::session::token::StretchedToken;
use mesh_lab::LinkMode;

use super::crowd::{Clients, Crowd};
use super::rig::{LOAD_PROCESSOR, first_port};
use super::systems::{Ours, Transfer};
use super::{Payload, Rig};
use crate::cost::program::processor_time;
use crate::figure::{Better, Figure, Measures};
use crate::load::{Counter, DATAGRAM_PORTS, Generator, Pace};
use crate::rounds::{CellInfo, Experiment, Lineup, Trial};

/// The crowds of a run without a choice: 10,000 clients in one namespace and in a thousand.
pub const DEFAULT: [&str; 2] = ["1x10000", "1000x10"];

/// The figure whose ratio ranks the crowds.
pub const HEADLINE: &str = "relay_ns";

/// Most crowds: each has so many ports in every host as clients send from.
pub const CROWDS_MAX: usize = 5;
const PORTS_EACH: u16 = 5_000;

/// What is sent, in bursts of how many.
const MODE: LinkMode = LinkMode::Nic;
const PAYLOAD: Payload = Payload::Bytes(1_200);
const BURST: u16 = 16;
/// Clients that send in turn, at most.
const PAIRS_MAX: usize = 5_000;
const LOAD: Duration = Duration::from_millis(1_000);
const SETTLE: Duration = Duration::from_millis(50);

/// The figures of a trial, in the order to show.
pub fn figures() -> Vec<Figure> {
    vec![
        Figure::new(
            "relay_ns",
            "relay ns",
            "",
            Better::Lower,
            "processor time of the relay for each datagram of 1,200 bytes delivered, in bursts of 16 from up to 5,000 clients in turn, \
             at saturation",
        ),
        Figure::new("goodput", "goodput", "kpps", Better::Higher, "datagrams delivered each second then"),
        Figure::new("train_out", "train out", "datagrams", Better::Neither, "datagrams in each buffer that arrives"),
    ]
}

/// The bench.
pub struct SideBySide {
    rig: Rig,
    engine: Ours,
    crowds: Vec<Crowd>,
    running: Vec<Running>,
}

/// A transfer with its crowd. Fields are dropped in this order: clients say goodbye to a transfer that lives.
struct Running {
    name: String,
    generator: Option<Generator>,
    clients: Clients,
    transfer: Transfer,
}

impl SideBySide {
    /// On a rig, one crowd beside the other: at least one, at most [`CROWDS_MAX`].
    pub fn new(rig: Rig, engine: Ours, crowds: Vec<Crowd>) -> Self {
        Self { rig, engine, crowds, running: Vec::new() }
    }

    fn start(&self, number: u16, crowd: Crowd) -> Result<Running> {
        let first = first_port(0) + number * PORTS_EACH;
        let transfer = self.engine.serve(&self.rig, first, crowd.namespaces)?;
        let token = StretchedToken::stretch(transfer.token().as_bytes());
        let clients = Clients::join(&self.rig, crowd, &token, first)
            .with_context(|| format!("register {} clients", crowd.sessions()))?;
        Ok(Running { name: crowd.to_string(), generator: None, clients, transfer })
    }

    /// Loads one crowd.
    fn load(&mut self, name: &str) -> Result<Measures> {
        for running in &mut self.running {
            running.clients.tend().with_context(|| running.name.clone())?;
            // Generators share the interface.
            running.generator = None;
        }
        let mut counter = Counter::new(self.rig.right.b(), DATAGRAM_PORTS)?;
        let (left, right) = (self.rig.left.a().clone(), self.rig.left.b().clone());
        let running = self.running.iter_mut().find(|running| running.name == name);
        let running = running.with_context(|| format!("{name} does not run"))?;
        let flows = running.clients.flows(PAIRS_MAX)?;
        let generator = Generator::new(&left, &right, &flows, PAYLOAD, BURST, LOAD_PROCESSOR)?;
        let generator = running.generator.insert(generator);
        let process = running.transfer.process().id();
        let before = processor_time(process)?;
        let sent = generator.run(Pace::Full, LOAD)?;
        let count = counter.settled(SETTLE)?;
        let time = processor_time(process)?.saturating_sub(before);
        let datagrams = count.datagrams(PAYLOAD);
        ensure!(datagrams > 0.0, "of {} datagrams sent none arrived", sent.datagrams);
        Ok(Measures::from([
            ("relay_ns".into(), time.as_nanos() as f64 / datagrams),
            ("goodput".into(), datagrams / sent.elapsed.as_secs_f64() / 1e3),
            ("train_out".into(), count.train(PAYLOAD)),
        ]))
    }
}

impl Experiment for SideBySide {
    fn cells(&self) -> Vec<CellInfo> {
        let crowds: Vec<String> = self.crowds.iter().map(Crowd::to_string).collect();
        let cell = format!("{MODE}-{PAYLOAD}-b{BURST}");
        vec![CellInfo {
            about: format!("{cell}: one transfer for each of {} (namespaces x clients in each)", crowds.join(", ")),
            name: cell,
            point: None,
        }]
    }

    fn open(&mut self, _cell: usize) -> Result<Lineup> {
        self.rig.set_mode(MODE)?;
        self.rig.left.b().steer_receive(&[])?;
        let mut lineup = Lineup::default();
        for (number, crowd) in (0..).zip(self.crowds.clone()) {
            match self.start(number, crowd) {
                Ok(running) => {
                    lineup.able.push(running.name.clone());
                    self.running.push(running);
                }
                Err(error) => lineup.failed.push((crowd.to_string(), format!("{error:#}"))),
            }
        }
        Ok(lineup)
    }

    fn trial(&mut self, _cell: usize, system: &str, _round: u32) -> Result<Trial> {
        Ok(Trial { measures: self.load(system)?, notes: Vec::new() })
    }

    fn control(&mut self, _cell: usize) -> Result<f64> {
        // The first crowd, once before and once after the others.
        let first = self.running.first().context("no crowd runs")?.name.clone();
        self.load(&first)?.get(HEADLINE).copied().context("it was just measured")
    }

    fn close(&mut self, _cell: usize) {
        self.running.clear();
    }
}
