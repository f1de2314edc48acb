//! What takes longer than a minute, or wants a quiet machine: `cargo xtask test --long`.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use mesh_lab::{Nat, Process, Signal, isolated};

use crate::fixture::{ONE, Site, ip, status};
use crate::paths::Far;

/// All ports bound within 0.3 s, under 25 MB after 5 s, under 0.5 % of a core over 30 idle seconds.
#[test]
fn long_thousand_namespaces_start_fast_and_idle_cheaply() {
    isolated(|| {
        let site = Site::new("idle", 0)?;
        let mut starts = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            let mut transfer = site.start_transfer("1000", &["-engine", "uring"])?;
            let bound = || -> Result<usize> {
                site.cloud.run(|| Ok(fs::read_to_string("/proc/thread-self/net/udp6")?.lines().count() - 1))
            };
            while bound()? < 1000 {
                assert!(start.elapsed() < Duration::from_secs(5), "the ports are not bound");
            }
            starts.push(start.elapsed());
            transfer.terminate(Duration::from_secs(10))?;
        }
        starts.sort_unstable();
        println!("1000 ports bound after {starts:?}");
        assert!(starts[2] < Duration::from_millis(300), "the median of five starts: {starts:?}");

        let transfer = site.transfer("1000", &["-engine", "uring"])?;
        mesh_lab::pause(Duration::from_secs(5));
        println!("{} kB resident", transfer.rss()? / 1000);
        assert!(transfer.rss()? < 25_000_000);
        let before = transfer.cpu_time()?;
        mesh_lab::pause(Duration::from_secs(30));
        let used = transfer.cpu_time()? - before;
        println!("{used:?} of processor time in 30 idle seconds");
        assert!(used < Duration::from_millis(150), "0.5 % of one core");
        Ok(())
    });
}

/// A laptop that sleeps for ten minutes: its sessions, its lease and its NAT's mappings are gone when it wakes.
#[test]
fn long_sleep_of_ten_minutes_costs_three_seconds() {
    isolated(|| {
        let mut far =
            Far::new("asleep", &[Nat::PortRestricted; 2], Duration::from_millis(5), Duration::from_millis(10))?;
        far.wait_for_path("direct", Duration::from_secs(5))?;
        far.gateways[0].signal(Signal::SIGSTOP)?;
        mesh_lab::pause(Duration::from_secs(600));
        far.offices[0].router().forget_flows()?;
        far.gateways[0].signal(Signal::SIGCONT)?;
        let woke = Instant::now();
        let quick = mesh_lab::Ping { timeout: Duration::from_millis(100), ..ONE };
        while !far.host(0).ping(std::net::IpAddr::V4(ip(1)), quick)?.perfect() {
            assert!(woke.elapsed() < Duration::from_secs(3), "no traffic within 3 s");
        }
        println!("traffic again after {:?}", woke.elapsed());
        far.wait_for_path("direct", Duration::from_secs(10))?;
        Ok(())
    });
}

/// A rekey every 120 s: pings all the while, and the capture of the old session replayed after it.
#[test]
fn long_rekey_loses_nothing_and_replays_deliver_nothing() {
    isolated(|| {
        let site = Site::new("rekey", 2)?;
        let _transfer = site.transfer("1", &[])?;
        let capture = site.offices[1].capture("eth0")?;
        let gateways: [Process; 2] = [site.gateway(0, &[])?, site.gateway(1, &[])?];
        assert!(site.ping(0, 1, ONE)?.perfect());
        let receiver = site.offices[1].udp(SocketAddr::from((ip(1), 5000)))?;
        receiver.set_read_timeout(Some(Duration::from_millis(500)))?;
        let sender = site.offices[0].udp(SocketAddr::from((ip(0), 0)))?;
        let mut buffer = [0; 64];
        // One by one, so that each is a frame of its own, as long as a link carries.
        for _ in 0..100 {
            sender.send_to(b"marker", (ip(1), 5000))?;
            receiver.recv_from(&mut buffer)?;
        }
        let frames = capture.stop()?.frames;
        let age = |status: &serde_json::Value| status["peers"][0]["handshake_seconds"].as_u64();
        let before = age(&status(&site.offices[0], "gateway")?);
        let steady = mesh_lab::Ping { count: 14_000, interval: Duration::from_millis(10), ..ONE };
        let report = site.ping(0, 1, steady)?;
        assert!(report.perfect(), "not one ping is lost over a rekey: {report}");
        let after = age(&status(&site.offices[0], "gateway")?);
        assert!(before.is_some() && after < Some(100), "140 s later the keys are {after:?} s old, at first {before:?}");
        let injector = site.cloud.injector("eth0")?;
        for frame in frames.iter().filter(|frame| !frame.outgoing && frame.bytes.get(42) == Some(&0x20)) {
            injector.send(&crate::hostile::without_checksum(frame))?;
        }
        assert!(receiver.recv_from(&mut buffer).is_err(), "a replay after the rekey was delivered");
        assert_eq!(gateways.len(), 2);
        Ok(())
    });
}
