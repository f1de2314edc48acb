//! Gateways behind routers that translate, with the real programs and the kernel's own NAT: they leave the relay where there is a way,
//! lose nothing, and fill no router.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Emulation, Host, Internet, Lab, Nat, Process, Site, SitePlan, isolated};
use serde_json::Value;

use crate::fixture::{NAME, ONE, START, TOKEN, ip, start, status};

/// Flows that a router may have to remember.
pub(crate) const FLOWS_MAX: u32 = 2048;
/// Runs of each pair, in the tests that everybody waits for and in those that are asked for.
const RUNS: usize = 3;
const RUNS_LONG: usize = 50;

/// Two gateways behind a router each.
struct Pair<'lab> {
    _internet: Internet<'lab>,
    sites: [Site; 2],
    _programs: [Process; 3],
}

/// What came of a pair.
struct Outcome {
    /// How long it took from the first ping until both sent straight; `None`: they did not.
    direct: Option<Duration>,
    /// Most flows that either router remembered.
    flows: u32,
    /// What the gateways said of each other at the end.
    peers: [Value; 2],
}

impl<'lab> Pair<'lab> {
    fn new(lab: &'lab Lab, nats: [Nat; 2]) -> Result<Self> {
        let mut internet = Internet::new(lab)?;
        // The way by the relay is the longer one: else chance decides which is taken.
        let delay = Emulation { delay: Duration::from_millis(10), ..Emulation::default() };
        let cloud = internet.server("cloud", Some(delay))?;
        internet.set_name(NAME, cloud.host().ipv4()?)?;
        let site = |internet: &mut Internet<'lab>, name: &str, nat: Nat| {
            internet.site(name, &SitePlan { nat: Some(nat), ..SitePlan::default() })
        };
        let sites = [site(&mut internet, "left", nats[0])?, site(&mut internet, "right", nats[1])?];
        let line = ["-public", NAME, "-bind", "8000", "-nums", "10", "-token", TOKEN];
        let mut transfer = start(cloud.host(), "transfer", &line)?;
        transfer.wait_for_line("join with", START).context("the transfer did not start")?;
        let [left, right] = [0, 1].map(|number| gateway(&sites[number].hosts()[0], number));
        Ok(Self { _internet: internet, sites, _programs: [transfer, left?, right?] })
    }

    fn host(&self, number: usize) -> &Host {
        &self.sites[number].hosts()[0]
    }

    /// What gateway `number` knows of the other one.
    fn peer(&self, number: usize) -> Result<Value> {
        Ok(status(self.host(number), "gateway")?["peers"][0].clone())
    }

    /// Pings until both send straight, at most for `limit`. Not one may be lost.
    fn watch(&self, limit: Duration) -> Result<Outcome> {
        let begin = Instant::now();
        let (mut pings, mut flows, mut direct) = (0, 0, None);
        while direct.is_none() && begin.elapsed() < limit {
            for (from, to) in [(0, 1), (1, 0)] {
                pings += 1;
                let report = self.host(from).ping(IpAddr::V4(ip(to)), ONE)?;
                ensure!(report.perfect(), "ping {pings} after {:?}: {report}", begin.elapsed());
            }
            let is_direct = |number: usize| -> Result<bool> { Ok(self.peer(number)?["path"] == "direct") };
            if is_direct(0)? && is_direct(1)? {
                direct = Some(begin.elapsed());
            }
            flows = flows.max(self.sites[0].router().flows()?).max(self.sites[1].router().flows()?);
            mesh_lab::pause(Duration::from_millis(50));
        }
        Ok(Outcome { direct, flows, peers: [self.peer(0)?, self.peer(1)?] })
    }
}

/// Starts gateway `number` on a host and waits until it is registered.
fn gateway(host: &Host, number: usize) -> Result<Process> {
    let ip = ip(number).to_string();
    let line = ["-ip", ip.as_str(), "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", TOKEN];
    let mut process = start(host, "gateway", &line)?;
    process.wait_for_line("registered", START).with_context(|| format!("gateway {number} did not register"))?;
    Ok(process)
}

/// Runs a pair so many times, each in an internet of its own; `check` sees how long each took.
fn pairs(
    name: &str,
    nats: [Nat; 2],
    runs: usize,
    limit: Duration,
    check: impl Fn(&[Option<Duration>], &Outcome) -> Result<()>,
) -> Result<()> {
    let mut times = Vec::new();
    for run in 0..runs {
        let lab = Lab::new(&format!("{name}-{run}"))?;
        // Either may be the one that is started first.
        let nats = if run % 2 == 0 { nats } else { [nats[1], nats[0]] };
        let pair = Pair::new(&lab, nats)?;
        let outcome = pair.watch(limit)?;
        println!("{name} {run}: direct after {:?}, {} flows at most", outcome.direct, outcome.flows);
        if outcome.direct.is_none() {
            println!("{:?}", outcome.peers);
        }
        ensure!(outcome.flows <= FLOWS_MAX, "a router remembers {} flows", outcome.flows);
        times.push(outcome.direct);
        check(&times, &outcome)?;
    }
    let mut found: Vec<Duration> = times.iter().flatten().copied().collect();
    found.sort_unstable();
    println!(
        "{name}: {} of {runs} direct, median {:?}, longest {:?}",
        found.len(),
        found.get(found.len() / 2),
        found.last()
    );
    Ok(())
}

fn restricted(runs: usize) -> Result<()> {
    pairs("restricted", [Nat::PortRestricted; 2], runs, Duration::from_secs(5), |_, outcome| {
        let why = "two port-restricted NATs let no direct path through within 5 s";
        ensure!(outcome.direct.is_some(), "{why}: {:#?}", outcome.peers);
        Ok(())
    })
}

/// Of ten attempts one may be in vain: by the odds of the search two of a hundred are.
fn searched(runs: usize) -> Result<()> {
    let nats = [Nat::Symmetric, Nat::PortRestricted];
    pairs("searched", nats, runs, Duration::from_secs(15), |times, _| {
        let late = times.iter().filter(|time| time.is_none()).count();
        ensure!(late <= 1.max(runs / 10), "{late} of {} searches were in vain", times.len());
        Ok(())
    })
}

fn hopeless(runs: usize) -> Result<()> {
    pairs("hopeless", [Nat::Symmetric; 2], runs, Duration::from_secs(8), |_, outcome| {
        ensure!(outcome.direct.is_none(), "no way leads through two symmetric NATs");
        ensure!(outcome.peers.iter().all(|peer| peer["search"] == "hopeless"), "they say so: {:#?}", outcome.peers);
        ensure!(outcome.flows <= 64, "nothing is searched: {} flows", outcome.flows);
        Ok(())
    })
}

#[test]
fn two_port_restricted_nats_are_left_behind_within_5_s() {
    isolated(|| restricted(RUNS));
}

#[test]
fn a_symmetric_nat_and_a_port_restricted_one_are_left_behind_within_15_s() {
    isolated(|| searched(RUNS));
}

#[test]
fn two_symmetric_nats_leave_the_relay_to_carry() {
    isolated(|| hopeless(RUNS));
}

#[test]
fn long_nat_pairs_fifty_times_each() {
    isolated(|| {
        restricted(RUNS_LONG)?;
        searched(RUNS_LONG)?;
        hopeless(RUNS_LONG)
    });
}
