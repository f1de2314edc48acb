//! Sites that are reached by IPv6 and let in answers only.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Emulation, Host, Internet, Lab, SitePlan, isolated};
use serde_json::Value;

use crate::fixture::{NAME, ONE, START, TOKEN, assert_quiet, ip, start, start_gateway, status};

/// What gateway `of` knows of the only other one.
fn peer(host: &Host) -> Result<Value> {
    Ok(status(host, "gateway")?["peers"][0].clone())
}

#[test]
fn two_sites_behind_ipv6_firewalls_open_them_for_each_other() {
    isolated(|| {
        let lab = Lab::new("firewalls")?;
        let mut internet = Internet::new(&lab)?;
        // The way by the relay is the longer one: else chance decides which is taken.
        let delay = Emulation { delay: Duration::from_millis(10), ..Emulation::default() };
        let cloud = internet.server("cloud", Some(delay))?;
        internet.set_name(NAME, cloud.host().ipv6()?)?;
        let plan = SitePlan { nat: None, ipv6: true, ..SitePlan::default() };
        let sites = [internet.site("left", &plan)?, internet.site("right", &plan)?];
        let hosts = sites.each_ref().map(|site| &site.hosts()[0]);
        // Each keeps out what the other sends, and whoever else.
        for (from, to) in [(hosts[0], hosts[1]), (hosts[1], hosts[0]), (cloud.host(), hosts[0])] {
            let quick = mesh_lab::Ping { timeout: Duration::from_millis(300), ..ONE };
            ensure!(!from.ping(to.ipv6()?, quick)?.perfect(), "a firewall lets in what nobody asked for");
        }
        let line = ["-public", NAME, "-bind", "8000", "-nums", "2", "-token", TOKEN];
        let mut transfer = start(cloud.host(), "transfer", &line)?;
        transfer.wait_for_line("join with", START).context("the transfer did not start")?;
        let mut gateways = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            let mut gateway = start_gateway(host, number, &[])?;
            gateway.wait_for_line("registered", START).with_context(|| format!("gateway {number} did not register"))?;
            gateways.push(gateway);
        }
        let begin = Instant::now();
        let mut pings = 0;
        loop {
            pings += 1;
            let report = hosts[0].ping(IpAddr::V4(ip(1)), ONE)?;
            ensure!(report.perfect(), "ping {pings} after {:?}: {report}", begin.elapsed());
            let peers = [peer(hosts[0])?, peer(hosts[1])?];
            if peers.iter().all(|peer| peer["path"] == "direct") {
                for (peer, other) in peers.iter().zip([hosts[1], hosts[0]]) {
                    let endpoint: SocketAddr = peer["endpoint"].as_str().context("an endpoint")?.parse()?;
                    ensure!(endpoint.ip() == other.ipv6()?, "{endpoint} is not the host's own address");
                }
                break;
            }
            ensure!(begin.elapsed() < Duration::from_secs(5), "not direct within 5 s: {peers:#?}");
        }
        println!("direct after {:?}, {pings} pings", begin.elapsed());
        let steady = mesh_lab::Ping { count: 50, interval: Duration::from_millis(20), ..ONE };
        ensure!(hosts[1].ping(IpAddr::V4(ip(0)), steady)?.perfect());
        gateways.iter().for_each(assert_quiet);
        Ok(())
    });
}
