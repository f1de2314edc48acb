//! Who may hold an address, and who hears whom.

use std::time::Duration;

use mesh_lab::{Ping, Signal, isolated};

use crate::fixture::{ONE, START, Site, TOKEN, copy_state, ip, start};

#[test]
fn second_gateway_with_the_address_is_refused_and_the_first_loses_nothing() {
    isolated(|| {
        let site = Site::new("taken", 3)?;
        let _transfer = site.transfer("1", &[])?;
        let _gateways = [site.gateway(0, &[])?, site.gateway(1, &[])?];
        assert!(site.ping(0, 1, ONE)?.perfect());
        let address = ip(1).to_string();
        let line = ["-ip", &address, "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", TOKEN];
        let mut thief = start(&site.offices[2], "gateway", &line)?;
        let report = site.ping(0, 1, Ping { count: 300, interval: Duration::from_millis(10), ..ONE })?;
        assert!(report.perfect(), "the first loses nothing: {report}");
        assert_eq!(thief.wait(START)?.code(), Some(1), "{}", thief.output());
        let said = thief.output();
        assert!(
            said.lines().any(|line| line.contains(&address) && line.contains("taken")),
            "the address is named: {said}"
        );
        Ok(())
    });
}

#[test]
fn cloned_machine_is_refused_by_name() {
    isolated(|| {
        let site = Site::new("clone", 2)?;
        let _transfer = site.transfer("1", &[])?;
        let _first = site.gateway(0, &[])?;
        copy_state(&site.offices[0], &site.offices[1])?;
        let address = ip(0).to_string();
        let line = ["-ip", &address, "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", TOKEN];
        let mut clone = start(&site.offices[1], "gateway", &line)?;
        assert_eq!(clone.wait(START)?.code(), Some(1), "{}", clone.output());
        assert!(clone.output().contains("clone"), "{}", clone.output());
        Ok(())
    });
}

#[test]
fn two_ports_with_equal_addresses_never_mix() {
    isolated(|| {
        let site = Site::new("isolated_ports", 4)?;
        let _transfer = site.transfer("2", &[])?;
        let mut gateways = Vec::new();
        for (office, number, trans) in [
            (0, 0, "you.domain.com:8000"),
            (1, 1, "you.domain.com:8000"),
            (2, 0, "you.domain.com:8001"),
            (3, 1, "you.domain.com:8001"),
        ] {
            let address = ip(number).to_string();
            let line = ["-ip", &address, "-trans", trans, "-iface", "eth0", "-token", TOKEN, "-path", "relay"];
            let mut gateway = start(&site.offices[office], "gateway", &line)?;
            gateway.wait_for_line("registered", START)?;
            gateways.push(gateway);
        }
        let captures = [site.offices[1].capture("mesh0")?, site.offices[3].capture("mesh0")?];
        // Each network has its own size of ping.
        for (office, size) in [(0, 100), (2, 200)] {
            let report = site.ping(office, 1, Ping { count: 50, interval: Duration::from_millis(2), size, ..ONE })?;
            assert!(report.perfect(), "{report}");
        }
        for (capture, size) in captures.into_iter().zip([100, 200]) {
            let recording = capture.stop()?;
            let pings: Vec<usize> =
                recording.frames.iter().map(|frame| frame.bytes.len()).filter(|length| *length > 100).collect();
            assert!(pings.len() >= 100, "requests and replies were seen: {}", pings.len());
            assert!(pings.iter().all(|length| (size..size + 50).contains(length)), "a packet crossed: {pings:?}");
        }
        Ok(())
    });
}

#[test]
fn wrong_token_meets_silence_and_one_line() {
    isolated(|| {
        let site = Site::new("wrong_token", 1)?;
        let _transfer = site.transfer("1", &[])?;
        let capture = site.offices[0].capture("eth0")?;
        let line =
            ["-ip", "172.168.3.9", "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", "not the token at all"];
        let mut gateway = start(&site.offices[0], "gateway", &line)?;
        gateway.wait_for_line("no answer from you.domain.com:8000", Duration::from_secs(6))?;
        assert!(gateway.try_wait()?.is_none(), "it keeps trying");
        let recording = capture.stop()?;
        let cloud = match site.cloud.ipv4()? {
            std::net::IpAddr::V4(ip) => ip.octets(),
            std::net::IpAddr::V6(_) => unreachable!("asked for IPv4"),
        };
        let udp_from =
            |bytes: &[u8]| bytes.len() > 34 && bytes[12..14] == [8, 0] && bytes[23] == 17 && bytes[26..30] == cloud;
        let tries = recording.frames.iter().filter(|frame| frame.outgoing && frame.bytes.get(23) == Some(&17)).count();
        assert!(tries >= 3, "{tries} tries were seen");
        assert!(!recording.frames.iter().any(|frame| udp_from(&frame.bytes)), "the transfer answered a wrong token");
        gateway.signal(Signal::SIGTERM)?;
        assert_eq!(gateway.wait(START)?.code(), Some(0));
        let lines = gateway.output().lines().filter(|line| line.contains("no answer from")).count();
        assert_eq!(lines, 1, "{}", gateway.output());
        Ok(())
    });
}
