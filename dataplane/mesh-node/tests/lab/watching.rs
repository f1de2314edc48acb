//! What is told of changes of the network, and what of it a peer may use.

use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mesh_lab::{Host, Lab, Lan, isolated};
use mesh_node::iface::Outside;
use mesh_node::iface::candidates::local_addresses;
use mesh_node::iface::watch::{Snapshot, look, watch};

/// How long a change may take to be told: 75 ms of gathering, and a machine that is busy.
const TOLD: Duration = Duration::from_millis(500);

/// A host on a switch with another, and what is told there. Snapshots come until the receiver is dropped.
fn watched(name: &str, outside: Outside) -> Result<(Lab, Host, Host, Lan, Receiver<Snapshot>)> {
    let lab = Lab::new(name)?;
    let (host, other) = (lab.host("watched")?, lab.host("other")?);
    let lan = lab.lan(&[&host, &other], &["10.1.0.0/24", "fd01::/64"])?;
    let (tell, told) = mpsc::channel();
    // A thread lives in the network of the one that started it.
    host.run(|| Ok(watch(outside, move |snapshot| tell.send(snapshot).is_ok())?))?;
    Ok((lab, host, other, lan, told))
}

fn eth0() -> Outside {
    Outside::Interface { name: "eth0".into(), preferred: None }
}

/// The addresses of what is told last, once nothing more is.
fn settled(told: &Receiver<Snapshot>, outside: &Outside) -> Result<Vec<IpAddr>> {
    let mut last = told.recv_timeout(TOLD).context("nothing is told")?;
    loop {
        match told.recv_timeout(TOLD) {
            Ok(next) => last = next,
            Err(RecvTimeoutError::Timeout) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(local_addresses(outside, &last).iter().map(|local| local.address).collect())
}

fn ips<const N: usize>(texts: [&str; N]) -> Vec<IpAddr> {
    texts.map(|text| text.parse().expect("an address")).to_vec()
}

#[test]
fn addresses_links_and_default_routes_are_told() {
    isolated(|| {
        let (_lab, host, other, lan, told) = watched("told", eth0())?;
        assert_eq!(settled(&told, &eth0())?, ips(["10.1.0.1", "fd01::1"]));
        let port = &lan.ports()[0];
        port.add_address("192.168.7.7/16")?;
        assert_eq!(settled(&told, &eth0())?, ips(["10.1.0.1", "192.168.7.7", "fd01::1"]));
        port.remove_address("fd01::1/64")?;
        assert_eq!(settled(&told, &eth0())?, ips(["10.1.0.1", "192.168.7.7"]));
        lan.unplug(&host)?;
        assert_eq!(settled(&told, &eth0())?, [] as [IpAddr; 0]);
        lan.plug(&host)?;
        assert_eq!(settled(&told, &eth0())?, ips(["10.1.0.1", "192.168.7.7"]));
        host.default_route(other.ipv4()?)?;
        let snapshot = told.recv_timeout(TOLD).context("a default route is told")?;
        let route = snapshot.ipv4.context("a way out")?;
        assert_eq!((route.router, route.source), (Some(other.ipv4()?), Some("10.1.0.1".parse()?)));
        lan.remove(&host)?;
        assert_eq!(settled(&told, &eth0())?, [] as [IpAddr; 0]);
        lan.restore(&host)?;
        assert_eq!(settled(&told, &eth0())?, ips(["10.1.0.1", "192.168.7.7"]));
        Ok(())
    });
}

#[test]
fn many_changes_at_once_are_told_together_and_other_routes_are_not() {
    isolated(|| {
        let (_lab, host, other, lan, told) = watched("together", Outside::Routed)?;
        settled(&told, &Outside::Routed)?;
        let start = Instant::now();
        for number in 1..=100 {
            lan.ports()[0].add_address(&format!("10.2.0.{number}/24"))?;
        }
        let took = start.elapsed();
        let (mut times, mut last) = (0, None);
        while let Ok(snapshot) = told.recv_timeout(TOLD) {
            (times, last) = (times + 1, Some(snapshot));
        }
        let most = took.as_millis() / 75 + 2;
        assert!((1..=most).contains(&times), "told {times} times in {took:?}");
        let last = last.context("something is told")?;
        let eth0 = last.interfaces.iter().find(|interface| interface.name == "eth0").context("eth0")?;
        // Its own, 100 more, one of IPv6 and that of the link.
        assert_eq!(eth0.networks.len(), 103);
        assert_eq!(local_addresses(&Outside::Routed, &last).len(), 16);
        for number in 0..100 {
            host.route(&format!("10.3.{number}.0/24"), other.ipv4()?)?;
        }
        assert!(told.recv_timeout(TOLD).is_err(), "routes to some network or other concern nobody");
        Ok(())
    });
}

#[test]
fn the_way_out_is_that_of_the_chosen_interface() {
    isolated(|| {
        let lab = Lab::new("ways")?;
        let (host, left, right) = (lab.host("host")?, lab.host("left")?, lab.host("right")?);
        let links = [lab.link(&host, &left, &["10.1.0.0/24"])?, lab.link(&host, &right, &["10.2.0.0/24"])?];
        host.default_route("10.1.0.2".parse()?)?;
        let by = |outside: Outside| host.run(move || Ok(look(&outside)?.ipv4));
        let routed = by(Outside::Routed)?.context("a way out")?;
        assert_eq!((routed.router, routed.source), (Some("10.1.0.2".parse()?), Some("10.1.0.1".parse()?)));
        let eth1 = by(Outside::Interface { name: links[1].a().name().into(), preferred: None })?;
        assert!(eth1.is_none_or(|route| route.router.is_none()), "no router is known there: {eth1:?}");
        let away = by(Outside::Interface { name: "eth7".into(), preferred: None })?;
        assert_eq!(away, None);
        Ok(())
    });
}
