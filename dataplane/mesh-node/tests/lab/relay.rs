//! Pings, copies and the interface, through the relay.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mesh_lab::{Ping, isolated, tcp_copy};
use serde_json::Value;

use crate::fixture::{ONE, Site, assert_quiet, ip, status, status_until};

const COPY_BYTES: u64 = 500_000_000;

/// Pings both ways without loss, 500 MB arrive bit-exact, and nobody complains.
fn pings_and_copies(name: &str, transfer: &[&str], first: &[&str], second: &[&str]) -> Result<()> {
    let site = Site::new(name, 2)?;
    let transfer = site.transfer("10", transfer)?;
    let gateways = [site.gateway(0, first)?, site.gateway(1, second)?];
    let many = Ping { count: 200, interval: Duration::from_millis(5), ..ONE };
    for (from, to) in [(0, 1), (1, 0)] {
        let report = site.ping(from, to, many)?;
        assert!(report.perfect(), "{name}: {report}");
    }
    let report = tcp_copy(&site.offices[0], &site.offices[1], IpAddr::V4(ip(1)), COPY_BYTES, 42)?;
    println!("{name}: {report}");
    let relayed = status(&site.cloud, "transfer")?["counters"]["datagrams_forwarded"].as_u64().context("a counter")?;
    assert!(relayed > COPY_BYTES / 1400, "the copy went through the relay: {relayed} datagrams");
    for process in gateways.iter().chain([&transfer]) {
        assert_quiet(process);
    }
    Ok(())
}

#[test]
fn all_on_uring() {
    isolated(|| pings_and_copies("all_on_uring", &["-engine", "uring"], &["-engine", "uring"], &["-engine", "uring"]));
}

#[test]
fn all_mmsg() {
    let mmsg = ["-engine", "mmsg"];
    isolated(|| pings_and_copies("all_mmsg", &mmsg, &mmsg, &mmsg));
}

#[test]
fn all_portable() {
    let portable = ["-engine", "portable"];
    isolated(|| pings_and_copies("all_portable", &portable, &portable, &portable));
}

#[test]
fn engines_mixed() {
    isolated(|| {
        pings_and_copies("engines_mixed", &["-engine", "uring"], &["-engine", "portable"], &["-engine", "auto"])
    });
}

#[test]
fn interface_has_both_addresses_and_carries_ipv6() {
    isolated(|| {
        let site = Site::new("interface", 2)?;
        let _transfer = site.transfer("1", &[])?;
        let _gateways = [site.gateway(0, &[])?, site.gateway(1, &[])?];
        let mut ulas = Vec::new();
        for (number, office) in site.offices.iter().enumerate() {
            let interfaces = office.list_interfaces()?;
            let mesh = interfaces.iter().find(|interface| interface.name == "mesh0").context("mesh0")?;
            assert_eq!(mesh.mtu, 1280, "{mesh}");
            let text = mesh.to_string();
            assert!(text.contains(&format!("inet {}/16", ip(number))), "{text}");
            let ula = mesh.addresses.iter().map(|(address, _)| *address).find(|address| match address {
                IpAddr::V6(address) => address.octets()[0] == 0xfd,
                IpAddr::V4(_) => false,
            });
            ulas.push(ula.with_context(|| format!("a ULA: {text}"))?);
        }
        assert!(site.offices[0].ping(ulas[1], ONE)?.perfect(), "IPv6 through the tunnel");
        // 1280 bytes of IPv6, on links that carry exactly 1280 bytes: 40 of header, 8 of ICMP.
        let shows = |bytes: u64| {
            let size = move |status: &Value| status["peers"][0]["paths"][0]["mtu_bytes"] == bytes;
            site.offices
                .iter()
                .try_for_each(|office| status_until(office, "gateway", Duration::from_secs(1), size).map(drop))
        };
        shows(1500)?;
        site.lan.set_mtu(1280)?;
        let narrowed = Instant::now();
        // The machine's own interface says so: nobody has to find out by losses.
        shows(1280)?;
        println!("links of 1280 bytes are followed after {:?}", narrowed.elapsed());
        let full = Ping { count: 20, size: 1232, interval: Duration::from_millis(5), ..ONE };
        assert!(site.offices[0].ping(ulas[1], full)?.perfect(), "an IPv6 ping of 1280 bytes over a 1280 link");
        let full = Ping { count: 20, size: 1252, interval: Duration::from_millis(5), dont_fragment: true, ..ONE };
        assert!(site.ping(0, 1, full)?.perfect(), "an IPv4 ping of 1280 bytes over a 1280 link");
        let copied = tcp_copy(&site.offices[0], &site.offices[1], IpAddr::V4(ip(1)), 20_000_000, 7)?;
        println!("over 1280-byte links: {copied}");
        Ok(())
    });
}

#[test]
fn address_nobody_holds_is_unreachable() {
    isolated(|| {
        let site = Site::new("unreachable", 1)?;
        let _transfer = site.transfer("1", &[])?;
        let _gateway = site.gateway(0, &[])?;
        let report = site.ping(0, 76, ONE)?;
        let refused = report
            .failures
            .iter()
            .any(|(_, failure)| matches!(failure, mesh_lab::PingFailure::Refused { kind: 3, code: 1, .. }));
        assert!(refused, "ICMP host unreachable comes back: {report:?}");
        Ok(())
    });
}
