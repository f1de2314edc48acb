//! Copies that outlive their gateways, pings beside them, and an engine that has no second thread at one end.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Host, Ping, Signal, isolated};

use super::stream::Copy;
use super::{COMBINATIONS, Pair, udp};
use crate::fixture::{ONE, START};

const BYTES: u64 = 120_000_000;
/// Pings ten milliseconds apart.
const PINGS: Ping = Ping { count: 800, interval: Duration::from_millis(10), ..ONE };

/// A gateway is killed when a part of the copy has arrived, and started again; first the one end, then the other.
fn outlives(path: &str) -> Result<()> {
    let mut pair = Pair::new(&format!("outlives_{path}"), path, [&[], &[]])?;
    let offices = pair.site.offices.clone();
    for (family, killed) in [(0, 1), (1, 0)] {
        let address = pair.addresses[1][family];
        let copy = Copy::new(BYTES, false);
        let (took, away) = thread::scope(|scope| -> Result<(Duration, Duration)> {
            let copier = scope.spawn(|| copy.run(&offices[0], &offices[1], [address, address]));
            while copy.arrived.load(Ordering::Relaxed) < BYTES / 4 && !copier.is_finished() {
                thread::yield_now();
            }
            let at = copy.arrived.load(Ordering::Relaxed);
            pair.gateways[killed].signal(Signal::SIGKILL)?;
            pair.gateways[killed].wait(START)?;
            let start = Instant::now();
            let path = ["-path", if path == "relay" { "relay" } else { "auto" }];
            pair.gateways[killed] = pair.site.gateway(killed, &path)?;
            let away = start.elapsed();
            ensure!(at < 2 * BYTES, "the copy had ended");
            let took = copier.join().expect("no panic").with_context(|| format!("gateway {killed} was killed"))?;
            Ok((took, away))
        })?;
        println!("{path}: gateway {killed} was back {away:?} after it was killed; the copy took {took:?}");
        pair.settle(path)?;
    }
    pair.assert_healthy(["auto", "auto"])
}

#[test]
fn a_copy_outlives_its_gateways_direct() {
    isolated(|| outlives("lan"));
}

#[test]
fn a_copy_outlives_its_gateways_relayed() {
    isolated(|| outlives("relay"));
}

/// Pings while copies go both ways, until they are all answered.
fn pings_beside_copies(pair: &Pair, name: &str) -> Result<()> {
    let offices: &[Host] = &pair.site.offices;
    let address = pair.addresses[1][0];
    let idle = offices[0].ping(address, Ping { count: 200, ..PINGS })?;
    ensure!(idle.perfect(), "{name}: {idle}");
    let report = thread::scope(|scope| -> Result<_> {
        let pinging = scope.spawn(|| offices[0].ping(address, PINGS));
        while !pinging.is_finished() {
            Copy::new(BYTES, false).run(&offices[0], &offices[1], [address, address])?;
        }
        pinging.join().expect("no panic")
    })?;
    let sorted = |report: &mesh_lab::PingReport| {
        let mut times = report.rtts.clone();
        times.sort_unstable();
        times
    };
    let (idle, busy) = (sorted(&idle), sorted(&report));
    let at = |times: &[Duration], percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!(
        "{name}: pings idle p50 {:?} p99 {:?}; beside copies p50 {:?} p99 {:?} most {:?}; {report}",
        at(&idle, 50),
        at(&idle, 99),
        at(&busy, 50),
        at(&busy, 99),
        at(&busy, 100)
    );
    ensure!(report.duplicates == 0 && report.corrupted == 0, "{name}: {report}");
    ensure!(report.received * 100 >= report.sent * 99, "{name}: {report}");
    ensure!(at(&busy, 99) < Duration::from_millis(500), "{name}: {report}");
    Ok(())
}

#[test]
fn pings_pass_beside_bulk_copies() {
    isolated(|| {
        for offload in COMBINATIONS.into_iter().filter(|[first, second]| first == second) {
            let flags = ["-offload", offload[0]];
            let pair = Pair::new(&format!("pings_{}", offload[0]), "lan", [&flags, &flags])?;
            pings_beside_copies(&pair, offload[0])?;
            pair.assert_healthy(offload)?;
        }
        Ok(())
    });
}

/// The portable engine has no offloads inside and one thread.
#[test]
fn intact_between_portable_and_uring() {
    isolated(|| {
        for (number, path) in ["lan", "relay"].into_iter().enumerate() {
            let name = format!("portable_{path}");
            let pair = Pair::new(&name, path, [&["-engine", "portable"], &["-engine", "uring"]])?;
            let offices = &pair.site.offices;
            for family in 0..2 {
                let address = pair.addresses[1][family];
                let copy = Copy::new(BYTES / 4, family == number);
                let took = copy.run(&offices[0], &offices[1], [address, address])?;
                println!("{name}, IPv{}: {} bytes both ways in {took:?}", [4, 6][family], copy.bytes);
            }
            for (from, to) in [(0, 1), (1, 0)] {
                let addresses = pair.addresses[to].map(|address| [address, address]);
                let gathered = udp::all_flows(&name, &offices[from], &offices[to], addresses, pair.mtu()?)?;
                println!("{name}, {from} to {to}: datagrams intact, {gathered} times several at once");
            }
            pair.assert_healthy(["off", "auto"])?;
        }
        Ok(())
    });
}
