//! Off the relay and back, by the programs on real packets: what a user's packets do while paths come and go.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Emulation, Host, Internet, Lab, Nat, Ping, Process, Server, Site as Office, SitePlan, Udp, isolated};
use serde_json::Value;

use crate::fixture::{NAME, START, Site, TOKEN, assert_quiet, ip, start, start_gateway, status, status_until};

/// One ping each 100 ms.
const fn pings(count: u16) -> Ping {
    Ping {
        count,
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(1),
        size: 56,
        dont_fragment: false,
    }
}

/// A cloud host and two offices behind routers of their own.
pub(crate) struct Far {
    _lab: &'static Lab,
    pub(crate) internet: Internet<'static>,
    _cloud: Server,
    pub(crate) offices: Vec<Office>,
    _transfer: Process,
    pub(crate) gateways: Vec<Process>,
}

impl Far {
    /// Everyone is `office` away from the middle, and the cloud `cloud`.
    pub(crate) fn new(name: &str, nats: &[Nat], office: Duration, cloud: Duration) -> Result<Self> {
        // The laboratory ends with the process, which is this test's own.
        let lab: &'static Lab = Box::leak(Box::new(Lab::new(name)?));
        let path = |delay| Some(Emulation { delay, ..Emulation::default() });
        let mut internet = Internet::new(lab)?;
        let cloud = internet.server("cloud", path(cloud))?;
        let mut offices = Vec::new();
        for (number, nat) in nats.iter().enumerate() {
            let plan = SitePlan { nat: Some(*nat), path: path(office), ..SitePlan::default() };
            offices.push(internet.site(&format!("office{number}"), &plan)?);
        }
        internet.set_name(NAME, cloud.host().ipv4()?)?;
        let mut transfer =
            start(cloud.host(), "transfer", &["-public", NAME, "-bind", "8000", "-nums", "2", "-token", TOKEN])?;
        transfer.wait_for_line("join with", START).context("the transfer did not start")?;
        let mut gateways = Vec::new();
        for (number, office) in offices.iter().enumerate() {
            let mut gateway = start_gateway(&office.hosts()[0], number, &[])?;
            gateway.wait_for_line("registered", START).with_context(|| format!("gateway {number} did not register"))?;
            gateways.push(gateway);
        }
        Ok(Self { _lab: lab, internet, _cloud: cloud, offices, _transfer: transfer, gateways })
    }

    pub(crate) fn host(&self, number: usize) -> &Host {
        &self.offices[number].hosts()[0]
    }

    /// Pings gateway 1 from gateway 0 until both send by this path.
    pub(crate) fn wait_for_path(&self, path: &str, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            self.host(0).ping(IpAddr::V4(ip(1)), pings(1))?;
            let paths = [peer(self.host(0), 1)?, peer(self.host(1), 0)?].map(|peer| peer["path"].clone());
            if paths.iter().all(|one| one == path) {
                return Ok(begin.elapsed());
            }
            ensure!(begin.elapsed() < limit, "within {limit:?} the paths are {paths:?}, not {path}");
        }
    }
}

/// What a gateway's status says of another one.
fn peer(host: &Host, number: usize) -> Result<Value> {
    let status = status(host, "gateway")?;
    let address = ip(number).to_string();
    let peers = status["peers"].as_array().context("peers are listed")?;
    Ok(peers.iter().find(|peer| peer["ip4"] == address.as_str()).cloned().unwrap_or_default())
}

fn forwarded(cloud: &Host) -> Result<u64> {
    status(cloud, "transfer")?["counters"]["datagrams_forwarded"].as_u64().context("forwarded datagrams are counted")
}

#[test]
fn neighbours_talk_over_their_own_network_within_two_seconds() {
    isolated(|| {
        let site = Site::new("neighbours", 2)?;
        let _transfer = site.transfer("2", &[])?;
        let gateways = [site.gateway(0, &["-path", "auto"])?, site.gateway(1, &["-path", "auto"])?];
        let begin = Instant::now();
        site.ping_until_answered(0, 1, Duration::from_secs(1))?;
        for (of, other) in [(0, 1), (1, 0)] {
            let on_lan = |status: &Value| {
                status["peers"].as_array().is_some_and(|peers| {
                    peers.iter().any(|peer| peer["path"] == "lan" && peer["ip4"] == ip(other).to_string().as_str())
                })
            };
            status_until(&site.offices[of], "gateway", Duration::from_secs(2), on_lan)?;
        }
        println!("both on the local network after {:?}", begin.elapsed());
        ensure!(site.ping(0, 1, pings(60))?.perfect());
        let before = forwarded(&site.cloud)?;
        ensure!(site.ping(0, 1, pings(20))?.perfect());
        // Only the relay itself is measured, twice a minute in each direction: a question and an answer.
        let by_relay = forwarded(&site.cloud)? - before;
        ensure!(by_relay <= 4, "{by_relay} datagrams went through the transfer");
        gateways.iter().for_each(assert_quiet);
        Ok(())
    });
}

#[test]
fn neighbours_find_each_other_without_a_transfer_within_three_seconds() {
    isolated(|| {
        let site = Site::new("unplugged", 2)?;
        let mut gateways = [site.start_gateway(0, &["-path", "auto"])?, site.start_gateway(1, &["-path", "auto"])?];
        for gateway in &mut gateways {
            gateway.wait_for_line("sending from", START)?;
        }
        let took = site.ping_until_answered(0, 1, Duration::from_secs(3))?;
        println!("without a transfer: {took:?}");
        let peer = peer(&site.offices[0], 1)?;
        ensure!(peer["path"] == "lan" && peer["verified"] == false, "{peer:#}");
        ensure!(site.ping(0, 1, pings(20))?.perfect());
        Ok(())
    });
}

#[test]
fn offices_behind_routers_talk_directly() {
    isolated(|| {
        let far = Far::new("offices", &[Nat::PortRestricted; 2], Duration::from_millis(5), Duration::from_millis(10))?;
        ensure!(far.host(0).ping(IpAddr::V4(ip(1)), pings(1))?.perfect(), "the first one passes");
        let took = far.wait_for_path("direct", Duration::from_secs(5))?;
        println!("direct after {took:?}");
        ensure!(far.host(0).ping(IpAddr::V4(ip(1)), pings(10))?.perfect());
        for office in &far.offices {
            let flows = office.router().flows()?;
            ensure!(flows <= 2048, "{flows} flows in a router");
        }
        far.gateways.iter().for_each(assert_quiet);
        Ok(())
    });
}

#[test]
fn a_path_that_carries_one_way_only_is_left_for_the_relay_and_taken_again_later() {
    isolated(|| {
        let far = Far::new("one-way", &[Nat::PortRestricted; 2], Duration::from_millis(5), Duration::from_millis(10))?;
        far.wait_for_path("direct", Duration::from_secs(5))?;
        let [one, other] = [far.offices[0].uplink().ipv4()?, far.offices[1].uplink().ipv4()?];
        let rule = far.internet.router().drop_udp(Udp::between(one, other))?;
        let report = far.host(0).ping(IpAddr::V4(ip(1)), pings(50))?;
        let lost = 50 - report.received;
        println!("one way: {lost} of 50 pings lost, 100 ms apart");
        ensure!(lost <= 30, "{lost} pings lost: traffic is to be back within 3 s");
        far.wait_for_path("relay", Duration::from_secs(1))?;
        rule.lift()?;
        let took = far.wait_for_path("direct", Duration::from_secs(40))?;
        println!("direct again after {took:?}");
        ensure!(far.host(0).ping(IpAddr::V4(ip(1)), pings(10))?.perfect());
        Ok(())
    });
}

#[test]
fn a_path_that_loses_a_third_is_left_for_a_slower_one_within_five_seconds() {
    isolated(|| {
        let far =
            Far::new("lossy", &[Nat::PortRestricted; 2], Duration::from_micros(2500), Duration::from_micros(7500))?;
        far.wait_for_path("direct", Duration::from_secs(5))?;
        far.host(0).ping(IpAddr::V4(ip(1)), pings(30))?;
        let [one, other] = [far.offices[0].uplink().ipv4()?, far.offices[1].uplink().ipv4()?];
        let _rule = far.internet.router().drop_udp(Udp::between(one, other).both_ways().share(0.3))?;
        let took = far.wait_for_path("relay", Duration::from_secs(5))?;
        println!("by the relay after {took:?}");
        ensure!(far.host(0).ping(IpAddr::V4(ip(1)), pings(20))?.perfect());
        Ok(())
    });
}

#[test]
fn a_router_that_forgets_its_mappings_costs_three_seconds_at_most() {
    isolated(|| {
        let far = Far::new(
            "forgetful",
            &[Nat::Symmetric, Nat::FullCone],
            Duration::from_millis(5),
            Duration::from_millis(10),
        )?;
        let path = far.wait_for_path("direct", Duration::from_secs(10));
        println!("before: {path:?}");
        far.offices[0].router().forget_flows()?;
        let report = far.host(0).ping(IpAddr::V4(ip(1)), pings(60))?;
        let lost = 60 - report.received;
        println!("{lost} of 60 pings lost, 100 ms apart");
        ensure!(lost <= 30, "{lost} pings lost: traffic is to be back within 3 s");
        ensure!(far.host(0).ping(IpAddr::V4(ip(1)), pings(10))?.perfect());
        Ok(())
    });
}
