//! The network outside changes under a gateway: its address, its interface. Traffic is back within 3 s of the network.

use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_lab::{Lab, Process, Signal, isolated};

use crate::fixture::{NAME, ONE, START, Site, TOKEN, ip, start, status, status_until};

const BACK: Duration = Duration::from_secs(3);

const ENGINES: [&str; 3] = ["uring", "mmsg", "portable"];

/// A site of two gateways that ping each other; `more` are flags of the first one.
fn connected(name: &str, more: &[&str]) -> Result<(Site, Vec<Process>)> {
    let site = Site::new(name, 2)?;
    let running = vec![site.transfer("1", &[])?, site.gateway(0, more)?, site.gateway(1, &[])?];
    assert!(site.ping(0, 1, ONE)?.perfect());
    Ok((site, running))
}

/// Pings both ways until they are answered.
fn back(site: &Site, what: &str) -> Result<()> {
    let there = site.ping_until_answered(0, 1, BACK).with_context(|| what.to_owned())?;
    let here = site.ping_until_answered(1, 0, BACK).with_context(|| format!("{what}, towards it"))?;
    println!("{what}: traffic {there:?} after the network, towards it {here:?} later");
    Ok(())
}

/// The port of each outside socket.
fn ports(site: &Site) -> Result<Vec<u64>> {
    let status = status(&site.offices[0], "gateway")?;
    let sockets = status["outside"].as_array().context("an array")?;
    let port = |socket: &serde_json::Value| socket.as_str()?.rsplit(':').next()?.parse().ok();
    sockets.iter().map(|socket| port(socket).context("an address with a port")).collect()
}

#[test]
fn address_is_another() {
    isolated(|| {
        for engine in ENGINES {
            let (site, running) = connected(&format!("address_{engine}"), &["-engine", engine])?;
            let office = &site.lan.ports()[1];
            let mut address = office.addresses()[0].to_string();
            for other in ["192.0.2.77/24", "192.0.2.78/24"] {
                office.remove_address(&address)?;
                assert!(!site.ping(0, 1, mesh_lab::Ping { timeout: Duration::from_millis(200), ..ONE })?.perfect());
                office.add_address(other)?;
                back(&site, &format!("{engine}: {other} for {address}"))?;
                address = other.into();
            }
            drop(running);
        }
        Ok(())
    });
}

#[test]
fn interface_goes_down_and_up() {
    isolated(|| {
        for engine in ENGINES {
            let (site, running) = connected(&format!("down_{engine}"), &["-engine", engine])?;
            let office = &site.lan.ports()[1];
            office.down()?;
            assert!(!site.ping(0, 1, mesh_lab::Ping { timeout: Duration::from_millis(1200), ..ONE })?.perfect());
            office.up()?;
            back(&site, &format!("{engine}: down and up"))?;
            drop(running);
        }
        Ok(())
    });
}

#[test]
fn interface_is_made_anew() {
    isolated(|| {
        for engine in ENGINES {
            let (site, running) = connected(&format!("anew_{engine}"), &["-engine", engine])?;
            let port = ports(&site)?;
            for round in 0..3 {
                site.lan.remove(&site.offices[0])?;
                let quick = mesh_lab::Ping { timeout: Duration::from_millis(300 * round), ..ONE };
                assert!(!site.ping(0, 1, quick)?.perfect());
                site.lan.restore(&site.offices[0])?;
                back(&site, &format!("{engine}: made anew, round {round}"))?;
            }
            assert_eq!(ports(&site)?, port, "what knows the port need not learn another");
            drop(running);
        }
        Ok(())
    });
}

#[test]
fn address_that_was_asked_for_goes_and_comes_back() {
    isolated(|| {
        let site = Site::new("preferred", 2)?;
        let _transfer = site.transfer("1", &[])?;
        let office = &site.lan.ports()[1];
        let asked = "192.0.2.99";
        office.add_address(&format!("{asked}/24"))?;
        let line = ["-ip", &ip(0).to_string(), "-trans", "you.domain.com:8000", "-iface", asked, "-token", TOKEN];
        let mut gateway = start(&site.offices[0], "gateway", &line)?;
        gateway.wait_for_line("registered", START)?;
        let _other = site.gateway(1, &[])?;
        let seen_at = |ip: &str| {
            let ip = format!("{ip}:");
            status_until(&site.offices[0], "gateway", BACK, move |status| {
                status["transfer"]["observed"].as_str().is_some_and(|seen| seen.starts_with(&ip))
            })
        };
        seen_at(asked)?;
        office.remove_address(&format!("{asked}/24"))?;
        back(&site, "without the address asked for")?;
        seen_at("192.0.2.2")?;
        office.add_address(&format!("{asked}/24"))?;
        back(&site, "with it again")?;
        Ok(())
    });
}

#[test]
fn both_families_have_one_port_that_stays_over_restarts() {
    isolated(|| {
        let site = Site::new("port", 1)?;
        let _transfer = site.transfer("1", &[])?;
        let mut first = None;
        for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
            let mut gateway = site.gateway(0, &[])?;
            let ports = ports(&site)?;
            assert!(ports.len() == 2 && ports[0] == ports[1], "{ports:?}");
            assert_eq!(*first.get_or_insert(ports[0]), ports[0], "after a restart");
            gateway.signal(signal)?;
            gateway.wait(START)?;
        }
        Ok(())
    });
}

#[test]
fn way_out_is_another_when_nobody_chose() {
    isolated(|| {
        let lab = Lab::new("ways")?;
        let (host, cloud) = (lab.host("host")?, lab.host("cloud")?);
        let routers = [lab.router("left")?, lab.router("right")?];
        // There is an eth0, but not for anything: the gateway goes by the routes.
        lab.link(&host, &lab.host("nobody")?, &[])?;
        for (router, near) in routers.iter().zip(["10.1.0.0/24", "10.2.0.0/24"]) {
            lab.link(&host, router, &[near])?;
        }
        let _core = lab.lan(&[&cloud, &routers[0], &routers[1]], &["192.0.2.0/24"])?;
        cloud.route("10.1.0.0/24", "192.0.2.2".parse()?)?;
        cloud.route("10.2.0.0/24", "192.0.2.3".parse()?)?;
        for machine in [&host, &cloud] {
            machine.set_name(NAME, cloud.ipv4()?)?;
        }
        let line = ["-public", NAME, "-bind", "8000", "-nums", "1", "-token", TOKEN];
        let mut transfer = start(&cloud, "transfer", &line)?;
        transfer.wait_for_line("join with", START)?;
        host.default_route("10.1.0.2".parse()?)?;
        let address = ip(0).to_string();
        let mut gateway =
            start(&host, "gateway", &["-ip", &address, "-trans", "you.domain.com:8000", "-token", TOKEN])?;
        gateway.wait_for_line("registered", START)?;
        let seen_at = |ip: &'static str| {
            let seen = move |status: &serde_json::Value| {
                let seen = status["transfer"]["observed"].as_str();
                seen.is_some_and(|seen| seen.starts_with(ip)) && status["transfer"]["silent_seconds"].is_null()
            };
            status_until(&host, "gateway", BACK, seen)
        };
        seen_at("10.1.0.1:")?;
        host.default_route("10.2.0.2".parse()?)?;
        let status = seen_at("10.2.0.1:")?;
        assert_eq!(status["route"]["interface"], "eth2", "{status:#}");
        Ok(())
    });
}
