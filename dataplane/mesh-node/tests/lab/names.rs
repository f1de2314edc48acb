//! The transfer gets another address, and its name follows, while gateways run: so do they.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{DropRule, Internet, Lab, Ping, Process, Server, Site, SitePlan, Udp, isolated};

use crate::fixture::{NAME, ONE, START, TOKEN, ip, start, start_gateway, status, status_until};

/// Traffic by the relay is back within this time after the name leads to it again.
const BACK: Duration = Duration::from_secs(3);
/// The same where no UDP passes: a connection has to be found dead, too.
const BACK_OVER_TCP: Duration = Duration::from_secs(6);

/// A transfer at home, whose provider gives it another address now and then, and two sites.
struct Scene<'lab> {
    internet: Internet<'lab>,
    cloud: Server,
    sites: [Site; 2],
    programs: Vec<Process>,
}

impl<'lab> Scene<'lab> {
    fn new(lab: &'lab Lab) -> Result<Self> {
        let mut internet = Internet::new(lab)?;
        let cloud = internet.server("cloud", None)?;
        internet.set_name(NAME, cloud.host().ipv4()?)?;
        let sites = [internet.site("left", &SitePlan::default())?, internet.site("right", &SitePlan::default())?];
        let line = ["-public", NAME, "-bind", "8000", "-nums", "2", "-token", TOKEN];
        let mut transfer = start(cloud.host(), "transfer", &line)?;
        transfer.wait_for_line("join with", START).context("the transfer did not start")?;
        Ok(Self { internet, cloud, sites, programs: vec![transfer] })
    }

    /// Starts both gateways with these paths.
    fn gateways(&mut self, path: &str) -> Result<()> {
        for (number, site) in self.sites.iter().enumerate() {
            let mut gateway = start_gateway(&site.hosts()[0], number, &["-path", path])?;
            gateway.wait_for_line("registered", START).with_context(|| format!("gateway {number} did not register"))?;
            self.programs.push(gateway);
        }
        Ok(())
    }

    fn ping(&self, ping: Ping) -> Result<mesh_lab::PingReport> {
        self.sites[0].hosts()[0].ping(IpAddr::V4(ip(1)), ping)
    }

    /// Pings until one is answered.
    fn back(&self, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let quick = Ping { timeout: Duration::from_millis(100), ..ONE };
        while !self.ping(quick)?.perfect() {
            ensure!(begin.elapsed() < limit, "no answer within {limit:?}");
        }
        Ok(begin.elapsed())
    }

    /// Where gateway `number` has its transfer.
    fn transfer_of(&self, number: usize) -> Result<Option<String>> {
        let status = status(&self.sites[number].hosts()[0], "gateway")?;
        Ok(status["transfer"]["endpoint"].as_str().map(str::to_owned))
    }

    /// Waits until both gateways are registered at this address.
    fn are_at(&self, address: IpAddr) -> Result<()> {
        let place = format!("{address}:8000");
        for site in &self.sites {
            status_until(&site.hosts()[0], "gateway", START, |status| {
                status["transfer"]["endpoint"] == place.as_str() && status["transfer"]["state"] == "registered"
            })?;
        }
        Ok(())
    }

    /// Has the routers drop UDP.
    fn block(&self) -> Result<Vec<DropRule>> {
        self.sites.iter().map(|site| site.router().drop_udp(Udp::all().both_ways())).collect()
    }
}

#[test]
fn gateways_follow_the_name_to_another_address() {
    isolated(|| {
        let lab = Lab::new("renamed")?;
        let mut scene = Scene::new(&lab)?;
        scene.gateways("relay")?;
        ensure!(scene.ping(ONE)?.perfect());
        // The name is late by so much: the last one is the case of a record that was kept for a while.
        for late in [0, 2, 15] {
            let before = scene.transfer_of(0)?;
            let address = scene.cloud.uplink().renew_ipv4()?;
            mesh_lab::pause(Duration::from_secs(late));
            ensure!(!scene.ping(Ping { timeout: Duration::from_millis(100), ..ONE })?.perfect(), "by which way?");
            scene.internet.set_name(NAME, address)?;
            let took = scene.back(BACK)?;
            println!("name {late} s late: traffic {took:?} after it, now by {address}, before by {before:?}");
            scene.are_at(address)?;
        }
        Ok(())
    });
}

#[test]
fn gateways_over_tcp_follow_the_name_to_another_address() {
    isolated(|| {
        let lab = Lab::new("renamed-tcp")?;
        let mut scene = Scene::new(&lab)?;
        let _rules = scene.block()?;
        scene.gateways("relay")?;
        ensure!(scene.ping(ONE)?.perfect());
        for late in [0, 5] {
            let address = scene.cloud.uplink().renew_ipv4()?;
            mesh_lab::pause(Duration::from_secs(late));
            scene.internet.set_name(NAME, address)?;
            let took = scene.back(BACK_OVER_TCP)?;
            println!("over TCP, name {late} s late: traffic {took:?} after it, by {address}");
            scene.are_at(address)?;
        }
        Ok(())
    });
}

#[test]
fn what_goes_straight_loses_nothing_while_the_transfer_moves() {
    isolated(|| {
        let lab = Lab::new("renamed-direct")?;
        let mut scene = Scene::new(&lab)?;
        scene.gateways("direct")?;
        // Who may not go by the relay waits for the way to open.
        scene.back(Duration::from_secs(5))?;
        let address = scene.cloud.uplink().renew_ipv4()?;
        let steady = Ping { count: 250, interval: Duration::from_millis(20), ..ONE };
        let away = scene.ping(steady)?;
        scene.internet.set_name(NAME, address)?;
        let there = scene.ping(steady)?;
        println!("while it was away: {away}; and while it was found: {there}");
        ensure!(away.perfect() && there.perfect());
        scene.are_at(address)?;
        Ok(())
    });
}
