//! The sockets for beacons: who hears whom, and what becomes of them when the interfaces change.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_core::gateway::{BEACON_GROUP_IPV4, BEACON_GROUP_IPV6, BEACON_PORT};
use mesh_core::seam::Endpoint;
use mesh_lab::{Host, Lab, isolated};
use mesh_node::beacons::{Opened, Sending, lanes, open};
use mesh_node::engine::Engine;
use mesh_node::engine::{mmsg::Mmsg, portable::Portable, uring::Uring};
use mesh_node::iface::Outside;
use mesh_node::iface::watch::look;

use crate::fixture::{ONE, Site};

/// How long a beacon may take on a busy machine; and how long nothing has to come.
const SOON: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_millis(100);

fn by(name: &str) -> Outside {
    Outside::Interface { name: name.into(), preferred: None }
}

/// The sockets that a gateway on this host would open.
fn opened(host: &Host, outside: &Outside) -> Result<Opened> {
    host.run(|| {
        let opened = open(&lanes(outside, &look(outside)?), outside);
        ensure!(opened.refused.is_none(), "refused: {opened:?}");
        Ok(opened)
    })
}

/// Sends one beacon each way there is, with its own text; the texts.
fn send(name: &str, sending: &[Sending]) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for socket in sending {
        for to in &socket.to {
            let text = format!("{name} by {} to {}", socket.interface, to.ip());
            socket.socket.send_to(text.as_bytes(), to).with_context(|| text.clone())?;
            texts.push(text);
        }
    }
    texts.sort();
    Ok(texts)
}

/// All that arrives at the sockets until nothing does for a while; in order. `wanted` many are waited for longer.
fn heard(hearing: &[UdpSocket], wanted: usize) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let start = Instant::now();
    for socket in hearing {
        loop {
            let missing = texts.len() < wanted && start.elapsed() < SOON;
            socket.set_read_timeout(Some(SILENCE))?;
            let mut buffer = [0; 128];
            match socket.recv(&mut buffer) {
                Ok(bytes) => texts.push(String::from_utf8(buffer[..bytes].to_vec())?),
                Err(_) if missing && hearing.len() == 1 => {}
                Err(_) => break,
            }
        }
    }
    texts.sort();
    Ok(texts)
}

#[test]
fn all_gateways_on_the_link_hear_a_beacon_each_way_and_nobody_beyond() {
    isolated(|| {
        let lab = Lab::new("beacons")?;
        let (a, b, beyond) = (lab.host("a")?, lab.router("b")?, lab.host("beyond")?);
        let _lan = lab.lan(&[&a, &b], &["10.1.0.0/24", "fd01::/64"])?;
        let _far = lab.link(&b, &beyond, &["10.2.0.0/24", "fd02::/64"])?;
        a.default_route("10.1.0.2".parse()?)?;
        let routed = Outside::Routed;
        // Two gateways run on each machine.
        let (first, second) = (opened(&a, &routed)?, opened(&a, &routed)?);
        let others = [opened(&b, &routed)?, opened(&b, &by("eth0"))?];
        let (elsewhere, outsider) = (opened(&b, &by("eth1"))?, opened(&beyond, &routed)?);

        let sent = send("a", &first.sending)?;
        // Group and network by IPv4, group by IPv6.
        assert_eq!(sent.len(), 3, "{sent:?}");
        for (who, hearer) in [("b routed", &others[0]), ("b by eth0", &others[1])] {
            assert_eq!(heard(&hearer.hearing, sent.len())?, sent, "{who}");
        }
        // The machine's own broadcasts come back to it as its multicasts do.
        for own in [&first, &second] {
            assert_eq!(heard(&own.hearing, sent.len())?, sent);
        }
        assert_eq!(heard(&elsewhere.hearing, 0)?, [""; 0], "another interface was chosen");
        assert_eq!(heard(&outsider.hearing, 0)?, [""; 0], "no router passes it on");

        // A machine on two links sends on both, each beacon on its own.
        let sent = send("b", &others[0].sending)?;
        assert_eq!(sent.len(), 6, "{sent:?}");
        let (near, far) = (heard(&first.hearing, 3)?, heard(&outsider.hearing, 3)?);
        assert_eq!((near.len(), far.len()), (3, 3), "{near:?} {far:?}");
        let mut all = [near, far].concat();
        all.sort();
        assert_eq!(all, sent);
        Ok(())
    });
}

#[test]
fn engines_send_beacons_by_the_interface_of_the_socket() {
    isolated(|| {
        send_by(Uring::new)?;
        send_by(Mmsg::new)?;
        send_by(Portable::new)
    });
}

/// Each way of sending reaches the hosts on its own link when an engine does it.
fn send_by<E: Engine, F: std::fmt::Debug>(make: impl FnOnce() -> Result<E, F> + Send) -> Result<()> {
    let lab = Lab::new("engines")?;
    let (sender, left, right) = (lab.host("sender")?, lab.host("left")?, lab.host("right")?);
    lab.link(&sender, &left, &["10.1.0.0/24", "fd01::/64"])?;
    lab.link(&sender, &right, &["10.2.0.0/24", "fd02::/64"])?;
    let hearers = [opened(&left, &Outside::Routed)?, opened(&right, &Outside::Routed)?];
    let opened = opened(&sender, &Outside::Routed)?;
    // An engine stays on the thread that made it.
    sender.run(|| {
        let mut engine = make().map_err(|error| anyhow::anyhow!("{error:?}"))?;
        for Sending { socket, interface, to } in opened.sending {
            let id = engine.add_socket(socket, false)?;
            for remote in to {
                let text = format!("by {interface}");
                let mut slab = engine.slab();
                let range = slab.append(text.as_bytes()).context("room")?;
                let used = slab.used();
                engine.keep_slab(used);
                engine.send(range, text.len(), &Endpoint { socket: id, remote, local: None }, 0);
            }
        }
        engine.flush()?;
        assert_eq!(engine.counters().drops_send_failed, 0);
        Ok(())
    })?;
    for hearer in &hearers {
        let heard = heard(&hearer.hearing, 3)?;
        assert!(heard.len() == 3 && heard.iter().all(|text| *text == heard[0]), "one link, three ways: {heard:?}");
    }
    Ok(())
}

/// The interfaces on which this host is in both groups of beacons, by name.
fn members(host: &Host) -> Result<Vec<String>> {
    let group4 = format!("{:08X}", u32::from_ne_bytes(BEACON_GROUP_IPV4.octets()));
    let group6 = format!("{:032x}", BEACON_GROUP_IPV6.to_bits());
    host.run(move || {
        let (mut device, mut ipv4) = (String::new(), Vec::new());
        for line in std::fs::read_to_string("/proc/thread-self/net/igmp")?.lines() {
            let mut words = line.split_whitespace();
            match (line.starts_with('\t'), words.next()) {
                (false, _) => device = words.next().unwrap_or_default().to_owned(),
                (true, group) if group == Some(&group4) => ipv4.push(device.clone()),
                (true, _) => {}
            }
        }
        let text = std::fs::read_to_string("/proc/thread-self/net/igmp6")?;
        let ipv6 = text.lines().filter(|line| line.contains(&group6)).filter_map(|line| line.split_whitespace().nth(1));
        let ipv6: Vec<String> = ipv6.map(str::to_owned).collect();
        ipv4.sort();
        Ok(ipv6.into_iter().filter(|name| ipv4.contains(name)).collect())
    })
}

fn members_become(host: &Host, wanted: &[&str]) -> Result<()> {
    let start = Instant::now();
    while members(host)? != wanted {
        ensure!(start.elapsed() < SOON, "in the groups on {:?} instead of {wanted:?}", members(host)?);
    }
    Ok(())
}

#[test]
fn gateway_is_in_the_groups_of_its_interface_and_joins_them_anew() {
    isolated(|| {
        let site = Site::new("groups", 2)?;
        let _transfer = site.transfer("1", &[])?;
        for engine in ["uring", "mmsg", "portable"] {
            let office = &site.offices[0];
            let mut gateway = site.gateway(0, &["-engine", engine])?;
            members_become(office, &["eth0"])?;
            for _ in 0..3 {
                site.lan.remove(office)?;
                members_become(office, &[])?;
                site.lan.restore(office)?;
                members_become(office, &["eth0"])?;
            }
            gateway.terminate(Duration::from_secs(5))?;
            members_become(office, &[])?;
        }
        Ok(())
    });
}

#[test]
fn port_that_another_program_has_for_itself_is_told_once_and_the_rest_works() {
    isolated(|| {
        let site = Site::new("busy", 2)?;
        let office = &site.offices[0];
        let port = office.udp(SocketAddr::from(([0, 0, 0, 0], BEACON_PORT)))?;
        let _transfer = site.transfer("1", &[])?;
        let gateways = [site.gateway(0, &[])?, site.gateway(1, &[])?];
        assert!(site.ping(0, 1, ONE)?.perfect());
        site.lan.ports()[1].add_address("10.9.9.9/24")?;
        assert!(site.ping(0, 1, ONE)?.perfect());
        drop(port);
        site.lan.ports()[1].add_address("10.9.9.10/24")?;
        members_become(office, &["eth0"])?;
        let told = "another program has UDP port 48021 for itself";
        let warnings = gateways[0].output().lines().filter(|line| line.contains(told)).count();
        assert_eq!(warnings, 1, "{}", gateways[0].output());
        Ok(())
    });
}
