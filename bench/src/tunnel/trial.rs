//! The tunnel bench as an [`Experiment`]: which systems run, and how one trial is made.
//!
//! Starting a tunnel takes seconds, so systems keep running, each in hosts of its own, from the first to the last of the cells that
//! follow each other with the same path and inner MTU. Only one has load at a time; the others cost their timers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_lab::Process;

use super::cell::{Kind, Path, TunnelCell};
use super::load::bulk::bulk;
use super::load::ping::{self, PINGS, PingOutcome, ping};
use super::load::tcp::{TcpLoad, TcpOutcome, tcp};
use super::load::udp::{UdpLoad, UdpOutcome, udp};
use super::load::{Ends, Spent};
use super::rig::{Place, Rig};
use super::system::{START_MAX, Tunnel, TunnelSystem};
use super::systems::{self, CONTROL};
use super::targets;
use crate::figure::{Better, Figure};
use crate::report::{Absent, Goal, Report, SystemInfo};
use crate::rounds::{CellInfo, Experiment, Lineup, Trial};

/// How long trials last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// How long TCP runs before it counts.
    pub warm: Duration,
    /// How long TCP counts, with pings beside it or without. Datagrams take as long for the search, a half for each rate to confirm,
    /// a quarter for overload. Pings through an idle tunnel are counted, not timed.
    pub time: Duration,
    /// How long the control counts.
    pub control: Duration,
}

/// The figure whose ratio ranks the systems.
pub const HEADLINE: &str = "speed";

/// The figures of a trial, in the order to show.
pub fn figures() -> Vec<Figure> {
    use Better::{Higher, Lower, Neither};
    vec![
        Figure::new(
            "speed",
            "speed",
            "",
            Higher,
            "what ranks: payload delivered in Gbit/s, and in ping cells how many round trips follow each other in a millisecond",
        ),
        Figure::new(
            "gbit_s",
            "goodput",
            "Gbit/s",
            Higher,
            "payload delivered to the receiving program; of UDP at the highest rate found by a search, or just below it: at most 0.1 % of it was lost",
        ),
        Figure::new(
            "cpu_s_per_gb",
            "machine",
            "CPU s/GB",
            Lower,
            "busy time of the whole machine, load and kernel included, for each 10^9 bytes of payload delivered",
        ),
        Figure::new(
            "programs_s_per_gb",
            "programs",
            "CPU s/GB",
            Lower,
            "processor time of the tunnel's own programs, gateways and relay, for each 10^9 bytes of payload delivered",
        ),
        Figure::new(
            "relay_s_per_gb",
            "relay",
            "CPU s/GB",
            Lower,
            "processor time of the tunnel's own relay alone, where a program of its own relays, for each 10^9 bytes of payload \
             delivered",
        ),
        Figure::new("kpps", "datagrams", "thousand/s", Higher, "datagrams delivered each second at that rate"),
        Figure::new(
            "overload_gbit_s",
            "goodput at overload",
            "Gbit/s",
            Higher,
            "payload delivered while more datagrams are sent than the tunnel can take",
        ),
        Figure::new("overload", "offered", "x", Neither, "what was sent then, as a multiple of the rate found"),
        Figure::new("loss", "loss", "%", Lower, "datagrams or pings lost, of UDP at the rate found"),
        Figure::new("reordered", "reordered", "%", Lower, "datagrams that arrive after a later one, at the rate found"),
        Figure::new(
            "rtt_p50_us",
            "ping p50",
            "us",
            Lower,
            "the median round-trip time of pings, through the idle tunnel or beside a TCP stream, as the cell says",
        ),
        Figure::new("rtt_p99_us", "ping p99", "us", Lower, "the round-trip time that one ping in a hundred exceeds"),
        Figure::new("retransmits", "sent again", "segments", Lower, "TCP segments sent again in the measured time"),
        Figure::new(
            "fairness",
            "fairness",
            "",
            Higher,
            "how evenly the TCP streams shared: 1 if all had the same, one over their number if one had all (Jain's index)",
        ),
        Figure::new("segment", "TCP segment", "bytes", Neither, "payload of a full TCP segment"),
    ]
}

/// What is equal for all systems, for [`Report::settings`](crate::report::Report::settings).
pub fn settings(lengths: &Lengths) -> Vec<(String, String)> {
    let core = |place: Place| place.core();
    let Lengths { warm, time, control } = lengths;
    [
        ("hosts", "left - relay - right, each system in three hosts of its own".to_owned()),
        (
            "pinning",
            format!(
                "left gateway and sender on core {}, relay on core {}, right gateway and receiver on core {}; what a host \
                 receives is taken on the core it was sent from",
                core(Place::Left),
                core(Place::Relay),
                core(Place::Right)
            ),
        ),
        ("MTU", format!("{} on both links; without a tunnel the inner MTU of the cell", Rig::LINK_MTU)),
        ("TCP", format!("{warm:?} before it counts, then {time:?}; socket buffers as the kernel sizes them")),
        (
            "UDP",
            format!(
                "a search of {time:?}, the first time of twice that, {:?} at the rate found and at lower ones until at most 0.1 % is lost, {:?} at twice \
                 that rate",
                *time / 2,
                *time / 4
            ),
        ),
        (
            "pings",
            format!(
                "{PINGS} in a trial: through an idle tunnel one every {:?}, beside TCP evenly over {time:?}; who gets no answer \
                 counts as one that took a second",
                ping::INTERVAL
            ),
        ),
        ("control", format!("{control:?} of one TCP stream, or of pings in ping cells, without a tunnel")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// What is to be measured, looked for.
pub struct Chosen {
    /// What is here.
    pub present: Vec<(Box<dyn TunnelSystem>, SystemInfo)>,
    /// What is not.
    pub absent: Vec<Absent>,
}

impl Chosen {
    /// Looks for systems.
    ///
    /// # Errors
    /// One is here and cannot be run.
    pub fn find(systems: Vec<Box<dyn TunnelSystem>>) -> Result<Self> {
        let mut chosen = Self { present: Vec::new(), absent: Vec::new() };
        for system in systems {
            match system.find().with_context(|| format!("look for {}", system.name()))? {
                Ok(info) => chosen.present.push((system, info)),
                Err(absent) => chosen.absent.push(absent),
            }
        }
        Ok(chosen)
    }
}

/// A system that runs, in its own hosts.
struct Running {
    rig: Rig,
    tunnel: Tunnel,
    /// What it was started for.
    place: (Path, u16),
}

/// The bench.
pub struct TunnelBench {
    cells: Vec<TunnelCell>,
    chosen: Chosen,
    lengths: Lengths,
    control: Box<dyn TunnelSystem>,
    /// By the system's name; the control is there under a name of its own.
    running: BTreeMap<String, Running>,
    /// The rates found by the last search of a cell and system.
    rates: BTreeMap<(usize, String), f64>,
}

/// The name under which the control runs: beside the system that it is.
const CONTROL_RUNNING: &str = "the control";

impl TunnelBench {
    /// The process must be in a world of its own ([`mesh_lab::enter`]).
    pub fn new(cells: Vec<TunnelCell>, chosen: Chosen, lengths: Lengths) -> Self {
        let control =
            systems::all().into_iter().find(|system| system.name() == CONTROL).expect("the control is a system");
        Self { cells, chosen, lengths, control, running: BTreeMap::new(), rates: BTreeMap::new() }
    }

    /// Starts a system in new hosts.
    fn start(system: &dyn TunnelSystem, cell: &TunnelCell) -> Result<Running> {
        let rig = Rig::new(system.name(), system.path(cell))?;
        rig.set_mode(cell.mode)?;
        let tunnel = system.start(&rig, cell)?;
        Ok(Running { rig, tunnel, place: (cell.path, cell.inner_mtu) })
    }

    /// Sends the load of a cell through a running system.
    fn measure(&mut self, cell: usize, name: &str) -> Result<Trial> {
        let (number, cell, lengths) = (cell, self.cells[cell], self.lengths);
        let running = self.running.get_mut(name).with_context(|| format!("{name} does not run"))?;
        running.tunnel.tend()?;
        let programs = running.programs();
        let ends = running.ends(&programs);
        let tcp_load = |streams, congestion| TcpLoad { streams, congestion, warm: lengths.warm, time: lengths.time };
        let mut trial = Trial::default();
        let measures = &mut trial.measures;
        let mut add = |key: &str, value: f64| measures.insert(key.to_owned(), value);
        match cell.kind {
            Kind::Tcp { streams, congestion } => {
                let outcome = tcp(&ends, &tcp_load(streams, congestion))?;
                add("speed", gbit_s(&outcome));
                for (key, value) in tcp_measures(&outcome) {
                    add(key, value);
                }
            }
            Kind::Udp { payload } => {
                let time = lengths.time;
                let load = UdpLoad { payload, search: time, time: time / 2, overload: time / 4 };
                let key = (number, name.to_owned());
                let outcome = udp(&ends, &load, self.rates.get(&key).copied())?;
                self.rates.insert(key, outcome.rate);
                let gigabytes = outcome.steady.received as f64 * f64::from(payload) / 1e9;
                let spent = spent_measures(&outcome.steady.spent, gigabytes);
                for (key, value) in udp_measures(&outcome, payload).into_iter().chain(spent) {
                    add(key, value);
                }
                if outcome.sender_limited {
                    trial.notes.push("generator-limited".into());
                }
            }
            Kind::Ping => {
                let outcome = ping(&ends, ping::INTERVAL * u32::from(PINGS))?;
                for (key, value) in ping_measures(&outcome) {
                    add(key, value);
                }
            }
            Kind::BulkPing { congestion } => {
                let outcome = bulk(&ends, &tcp_load(1, congestion))?;
                for (key, value) in ping_measures(&outcome.ping).into_iter().chain(tcp_measures(&outcome.tcp)) {
                    add(key, value);
                }
            }
        }
        Ok(trial)
    }
}

/// Payload that arrived, in Gbit/s.
fn gbit_s(outcome: &TcpOutcome) -> f64 {
    outcome.total() as f64 * 8e-9 / outcome.elapsed.as_secs_f64()
}

/// All that TCP streams tell but what ranks.
fn tcp_measures(outcome: &TcpOutcome) -> Vec<(&'static str, f64)> {
    let mut measures = vec![
        ("gbit_s", gbit_s(outcome)),
        ("retransmits", outcome.retransmits as f64),
        ("segment", outcome.segment_bytes as f64),
    ];
    measures.extend(spent_measures(&outcome.spent, outcome.total() as f64 / 1e9));
    if outcome.bytes.len() > 1 {
        measures.push(("fairness", outcome.fairness()));
    }
    measures
}

/// What was spent for so many bytes: by the machine, by the tunnel's programs where it has any, and by its relay where one carries.
fn spent_measures(spent: &Spent, gigabytes: f64) -> Vec<(&'static str, f64)> {
    let each = |time: Duration| time.as_secs_f64() / gigabytes;
    let programs = (!spent.programs.is_zero()).then(|| ("programs_s_per_gb", each(spent.programs)));
    let relay = spent.relay.map(|time| ("relay_s_per_gb", each(time)));
    [("cpu_s_per_gb", each(spent.machine))].into_iter().chain(programs).chain(relay).collect()
}

fn ping_measures(outcome: &PingOutcome) -> Vec<(&'static str, f64)> {
    vec![
        ("speed", 1e-3 / outcome.p50.as_secs_f64()),
        ("rtt_p50_us", outcome.p50.as_secs_f64() * 1e6),
        ("rtt_p99_us", outcome.p99.as_secs_f64() * 1e6),
        ("loss", outcome.loss * 100.0),
    ]
}

fn udp_measures(outcome: &UdpOutcome, payload: u16) -> Vec<(&'static str, f64)> {
    let UdpOutcome { rate, steady, overload, .. } = outcome;
    let bytes = |datagrams: u64| datagrams as f64 * f64::from(payload);
    let gbit_s = bytes(steady.received) * 8e-9 / steady.elapsed.as_secs_f64();
    vec![
        ("speed", gbit_s),
        ("gbit_s", gbit_s),
        ("kpps", steady.received as f64 * 1e-3 / steady.elapsed.as_secs_f64()),
        ("loss", steady.loss() * 100.0),
        ("reordered", steady.reordered as f64 * 100.0 / steady.received as f64),
        ("overload_gbit_s", bytes(overload.received) * 8e-9 / overload.elapsed.as_secs_f64()),
        ("overload", overload.rate() / rate),
    ]
}

impl Running {
    fn programs(&self) -> Vec<u32> {
        self.tunnel.processes.iter().map(Process::id).collect()
    }

    fn ends<'a>(&'a self, programs: &'a [u32]) -> Ends<'a> {
        let (from, source, to, destination) = (&self.rig.left, self.tunnel.left, &self.rig.right, self.tunnel.right);
        let relay = self.tunnel.relay.and_then(|place| programs.get(place)).copied();
        Ends { from, source, to, destination, programs, relay }
    }
}

impl Experiment for TunnelBench {
    fn cells(&self) -> Vec<CellInfo> {
        let info = |cell: &TunnelCell| CellInfo { name: cell.to_string(), about: cell.about(), point: None };
        self.cells.iter().map(info).collect()
    }

    fn open(&mut self, cell: usize) -> Result<Lineup> {
        let cell = self.cells[cell];
        self.running.retain(|_, running| running.place == (cell.path, cell.inner_mtu));
        let mut lineup = Lineup::default();
        let mut able = Vec::new();
        for (system, _) in &self.chosen.present {
            let name = system.name().to_owned();
            match system.unable(&cell) {
                Some(why) => lineup.unable.push((name, why)),
                None => able.push((name, system.as_ref())),
            }
        }
        // All start before the first is waited for: some take seconds to find each other.
        let control = (CONTROL_RUNNING.to_owned(), self.control.as_ref());
        for (name, system) in able.into_iter().chain([control]) {
            if !self.running.contains_key(&name) {
                match Self::start(system, &cell) {
                    Ok(running) => drop(self.running.insert(name.clone(), running)),
                    Err(error) => {
                        lineup.failed.push((name, format!("{error:#}")));
                        continue;
                    }
                }
            }
            lineup.able.push(name);
        }
        let mut silent = Vec::new();
        for name in &lineup.able {
            let Some(Running { rig, tunnel, .. }) = self.running.get_mut(name) else { continue };
            let system = self.chosen.present.iter().find(|(system, _)| system.name() == name);
            let system = system.map_or(self.control.as_ref(), |(system, _)| system.as_ref());
            let answering = rig
                .set_mode(cell.mode)
                .and_then(|()| tunnel.wait_until_answering(rig, &cell, START_MAX))
                .and_then(|()| system.confirm(rig, START_MAX));
            if let Err(error) = answering {
                silent.push((name.clone(), format!("{error:#}")));
            }
        }
        for (name, _) in &silent {
            self.running.remove(name);
        }
        lineup.able.retain(|name| silent.iter().all(|(other, _)| other != name));
        lineup.failed.extend(silent);
        if let Some((_, why)) = lineup.failed.iter().find(|(name, _)| name == CONTROL_RUNNING) {
            anyhow::bail!("the control does not run: {why}");
        }
        lineup.able.retain(|name| name != CONTROL_RUNNING);
        Ok(lineup)
    }

    fn trial(&mut self, cell: usize, system: &str, _round: u32) -> Result<Trial> {
        let trial = self.measure(cell, system);
        if trial.is_err() {
            // What has failed once starts anew in the next cell.
            self.running.remove(system);
        }
        trial
    }

    fn control(&mut self, cell: usize) -> Result<f64> {
        let running = self.running.get(CONTROL_RUNNING).context("the control does not run")?;
        let Lengths { warm, control: time, .. } = self.lengths;
        let congestion = match self.cells[cell].kind {
            Kind::Tcp { congestion, .. } | Kind::BulkPing { congestion } => congestion,
            Kind::Udp { .. } => super::Congestion::Bbr,
            Kind::Ping => return Ok(ping(&running.ends(&[]), time)?.p50.as_secs_f64()),
        };
        let outcome = tcp(&running.ends(&[]), &TcpLoad { streams: 1, congestion, warm, time })?;
        Ok(outcome.total() as f64 / outcome.elapsed.as_secs_f64())
    }

    fn goals(&self, report: &Report) -> Vec<Goal> {
        targets::goals(report)
    }

    fn close(&mut self, cell: usize) {
        // They keep running for the next cell of the same path and size; after the last nobody needs them.
        let next = self.cells.get(cell + 1).map(|next| (next.path, next.inner_mtu));
        self.running.retain(|_, running| Some(running.place) == next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::load::udp::Step;

    #[test]
    fn every_measure_is_a_figure_and_the_headline_is_one() {
        let spent = Spent { machine: Duration::from_secs(1), ..Spent::default() };
        let step = Step { sent: 2, received: 1, reordered: 0, elapsed: Duration::from_secs(1), spent };
        let outcome = UdpOutcome { rate: 1.0, steady: step, overload: step, sender_limited: false };
        let figures = figures();
        let keys: Vec<&str> = figures.iter().map(|figure| figure.key.as_str()).collect();
        for (key, value) in udp_measures(&outcome, 1_000) {
            assert!(keys.contains(&key) && value.is_finite(), "{key}: {value}");
        }
        assert!(keys.contains(&HEADLINE));
        let wanted: crate::figure::Measures =
            udp_measures(&outcome, 1_000).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert!((wanted["gbit_s"] - 8e-6).abs() < 1e-15);
        assert!((wanted["loss"] - 50.0).abs() < 1e-9 && (wanted["overload"] - 2.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_spent_is_told_for_each_gigabyte_of_those_who_are_there() {
        let of = Duration::from_millis;
        let relayed = Spent { machine: of(3_000), programs: of(2_000), relay: Some(of(500)) };
        let known = figures();
        for (spent, wanted) in [
            (relayed, vec![("cpu_s_per_gb", 2.0), ("programs_s_per_gb", 4.0 / 3.0), ("relay_s_per_gb", 1.0 / 3.0)]),
            (Spent { relay: None, ..relayed }, vec![("cpu_s_per_gb", 2.0), ("programs_s_per_gb", 4.0 / 3.0)]),
            (Spent { machine: of(3_000), ..Spent::default() }, vec![("cpu_s_per_gb", 2.0)]),
        ] {
            let told = spent_measures(&spent, 1.5);
            assert_eq!(told.len(), wanted.len(), "{told:?}");
            for ((key, value), (wanted_key, wanted)) in told.into_iter().zip(wanted) {
                assert!(key == wanted_key && (value - wanted).abs() < 1e-12, "{key}: {value}");
                assert!(known.iter().any(|figure| figure.key == key), "{key}");
            }
        }
    }

    #[test]
    fn pings_and_streams_tell_figures() {
        let outcome = TcpOutcome {
            bytes: vec![1_000_000_000, 1_000_000_000],
            elapsed: Duration::from_secs(2),
            spent: Spent { machine: Duration::from_secs(3), ..Spent::default() },
            retransmits: 7,
            segment_bytes: 1_328,
            congestion: String::new(),
            written: 0,
        };
        let pings = PingOutcome { p50: Duration::from_micros(250), p99: Duration::from_millis(4), loss: 0.01 };
        let (tcp, ping) = (tcp_measures(&outcome), ping_measures(&pings));
        let value = |key: &str| tcp.iter().chain(&ping).find(|(known, _)| *known == key).expect(key).1;
        for (key, wanted) in [
            ("gbit_s", 8.0),
            ("cpu_s_per_gb", 1.5),
            ("retransmits", 7.0),
            ("segment", 1_328.0),
            ("fairness", 1.0),
            ("speed", 4.0),
            ("rtt_p50_us", 250.0),
            ("rtt_p99_us", 4_000.0),
            ("loss", 1.0),
        ] {
            assert!((value(key) - wanted).abs() < 1e-9, "{key}: {}", value(key));
            assert!(figures().iter().any(|figure| figure.key == key), "{key}");
        }
    }
}
