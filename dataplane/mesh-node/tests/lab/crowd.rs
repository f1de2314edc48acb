//! Many gateways behind one router, all of which turn to as many behind another: their routers have room for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mesh_lab::{Emulation, Host, Internet, Lab, Nat, Process, Site, SitePlan, isolated};
use serde_json::Value;

use crate::fixture::{NAME, ONE, START, TOKEN, ip, start, start_gateway, status};
use crate::nat::FLOWS_MAX;

/// Gateways behind each of the two routers.
const EACH: usize = 8;
/// What is watched in the test that everybody waits for: a search and what comes of it.
const SHORT: Duration = Duration::from_secs(20);
/// The first search, those that follow when its flows are forgotten, and the time in which the kernel sweeps them up.
const LONG: Duration = Duration::from_secs(150);

/// Sixteen gateways at two sites.
struct Crowd {
    _lab: &'static Lab,
    _internet: Internet<'static>,
    sites: [Site; 2],
    cloud: Host,
    _programs: Vec<Process>,
}

/// What became of them.
struct Outcome {
    /// Most flows that each router remembered.
    flows: [u32; 2],
    pings: usize,
    /// Paths that go straight, of those from the left to the right.
    straight: usize,
}

impl Crowd {
    fn new(name: &str, nats: [Nat; 2], transfer: &[&str]) -> Result<Self> {
        // The laboratory ends with the process, which is this test's own.
        let lab: &'static Lab = Box::leak(Box::new(Lab::new(name)?));
        let mut internet = Internet::new(lab)?;
        // The way by the relay is the longer one: else chance decides which is taken.
        let delay = Emulation { delay: Duration::from_millis(10), ..Emulation::default() };
        let server = internet.server("cloud", Some(delay))?;
        let cloud = server.host().clone();
        internet.set_name(NAME, cloud.ipv4()?)?;
        let hosts = u8::try_from(EACH)?;
        let plan = |nat| SitePlan { nat: Some(nat), hosts, ..SitePlan::default() };
        let sites = [internet.site("left", &plan(nats[0]))?, internet.site("right", &plan(nats[1]))?];
        let line = ["-public", NAME, "-bind", "8000", "-nums", "10", "-token", TOKEN];
        let mut relay = start(&cloud, "transfer", &[&line, transfer].concat())?;
        relay.wait_for_line("join with", START).context("the transfer did not start")?;
        let mut programs = vec![relay];
        for (number, host) in sites.iter().flat_map(Site::hosts).enumerate() {
            programs.push(start_gateway(host, number, &[])?);
        }
        for (number, gateway) in programs[1..].iter_mut().enumerate() {
            gateway.wait_for_line("registered", START * 3).with_context(|| format!("gateway {number} is not there"))?;
        }
        Ok(Self { _lab: lab, _internet: internet, sites, cloud, _programs: programs })
    }

    /// Everyone pings everyone of the other site, round after round, and loses none from the first one on.
    fn talk(&self, time: Duration) -> Result<Outcome> {
        let begin = Instant::now();
        let (mut flows, mut pings) = ([0; 2], 0);
        while begin.elapsed() < time {
            pings += thread::scope(|scope| -> Result<usize> {
                let everyone = self.sites.iter().flat_map(Site::hosts).enumerate();
                let rounds: Vec<_> = everyone.map(|(from, host)| scope.spawn(move || round(from, host))).collect();
                rounds.into_iter().map(|one| one.join().expect("no panic")).sum()
            })
            .with_context(|| format!("after {:?} and {pings} pings", begin.elapsed()))?;
            for (most, site) in flows.iter_mut().zip(&self.sites) {
                *most = (*most).max(site.router().flows()?);
            }
        }
        Ok(Outcome { flows, pings, straight: self.straight()? })
    }

    /// Paths from the left that do not go by the relay.
    fn straight(&self) -> Result<usize> {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for host in self.sites[0].hosts() {
            let status = status(host, "gateway")?;
            let peers = status["peers"].as_array().context("peers are listed")?;
            // Neighbours know each other, too.
            for number in EACH..2 * EACH {
                let peer = find(peers, number)?;
                let path = peer["path"].as_str().context("a path that carries")?;
                *kinds.entry(path.to_owned()).or_default() += 1;
            }
        }
        println!("paths: {kinds:?}");
        Ok(kinds.get("direct").copied().unwrap_or_default())
    }
}

/// What is said of gateway `number` among peers.
fn find(peers: &[Value], number: usize) -> Result<&Value> {
    let address = ip(number).to_string();
    peers.iter().find(|peer| peer["ip4"] == address.as_str()).context("everyone is a peer")
}

/// What a gateway says of gateway `number`, and what it dropped.
fn peer(host: &Host, number: usize) -> Result<String> {
    let status = status(host, "gateway")?;
    let peers = status["peers"].as_array().context("peers are listed")?;
    Ok(format!("{:#}, drops {}", find(peers, number)?, status["drops"]))
}

/// One ping from gateway `from` to each of the other site.
fn round(from: usize, host: &Host) -> Result<usize> {
    let others = if from < EACH { EACH..2 * EACH } else { 0..EACH };
    for to in others.clone() {
        let report = host.ping(IpAddr::V4(ip(to)), ONE)?;
        if !report.perfect() {
            bail!("from {from} to {to}: {report}; {}", peer(host, to)?);
        }
    }
    Ok(others.len())
}

/// Has them talk, and checks what it cost the routers.
fn crowd(name: &str, nats: [Nat; 2], transfer: &[&str], time: Duration) -> Result<(Crowd, Outcome)> {
    let crowd = Crowd::new(name, nats, transfer)?;
    let outcome = crowd.talk(time)?;
    let [left, right] = outcome.flows;
    println!("{name}: {left} and {right} flows at most, {} pings, {} straight", outcome.pings, outcome.straight);
    ensure!(left <= FLOWS_MAX && right <= FLOWS_MAX, "{left} and {right} flows in the routers");
    Ok((crowd, outcome))
}

#[test]
fn eight_and_eight_behind_port_restricted_nats_all_go_straight() {
    isolated(|| {
        let (_crowd, outcome) = crowd("crowd-restricted", [Nat::PortRestricted; 2], &[], SHORT)?;
        ensure!(outcome.straight == EACH * EACH, "{} of {} go straight", outcome.straight, EACH * EACH);
        Ok(())
    });
}

#[test]
fn eight_and_eight_that_have_to_search_fill_no_router() {
    isolated(|| {
        crowd("crowd-searching", [Nat::Symmetric, Nat::PortRestricted], &[], SHORT)?;
        Ok(())
    });
}

/// The data threads of a transfer share the namespace: it still is one count of who searches.
#[test]
fn eight_and_eight_of_a_namespace_that_is_spread_fill_no_router() {
    isolated(|| {
        let nats = [Nat::Symmetric, Nat::PortRestricted];
        let (crowd, _) = crowd("crowd-spread", nats, &["-spread", "all"], SHORT)?;
        let members = status(&crowd.cloud, "transfer")?["namespaces"][0]["members"].as_array().map(Vec::len);
        ensure!(members == Some(2 * EACH), "{members:?} members");
        Ok(())
    });
}

#[test]
fn long_eight_and_eight_that_search_again_and_again_fill_no_router() {
    isolated(|| {
        crowd("crowd-long", [Nat::Symmetric, Nat::PortRestricted], &[], LONG)?;
        Ok(())
    });
}

#[test]
fn long_eight_and_eight_of_a_namespace_that_is_spread_fill_no_router() {
    isolated(|| {
        crowd("crowd-long-spread", [Nat::Symmetric, Nat::PortRestricted], &["-spread", "all"], LONG)?;
        Ok(())
    });
}
