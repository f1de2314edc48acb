//! A signal ends everything, and leaves nothing.

use std::time::{Duration, Instant};

use anyhow::Result;
use mesh_lab::{Signal, isolated};

use crate::fixture::{ONE, START, Site, status_until};

#[test]
fn stop_removes_the_interface_frees_the_ports_and_tells_the_peers() {
    isolated(|| {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let site = Site::new("stopping", 2)?;
            let mut transfer = site.transfer("20", &[])?;
            let mut gateways = [site.gateway(0, &[])?, site.gateway(1, &[])?];
            assert!(site.ping(0, 1, ONE)?.perfect());

            gateways[1].signal(signal)?;
            assert_eq!(gateways[1].wait(START)?.code(), Some(0), "{}", gateways[1].output());
            let names: Vec<String> = site.offices[1].list_interfaces()?.into_iter().map(|info| info.name).collect();
            assert!(!names.contains(&"mesh0".to_owned()), "{names:?}");
            status_until(&site.offices[0], "gateway", Duration::from_secs(1), |status| {
                status["peers"].as_array().is_some_and(|peers| peers.iter().all(|peer| peer["connected"] == false))
            })?;
            let told = site.ping(0, 1, ONE)?;
            assert!(!told.failures.is_empty(), "unreachable at once, not after a time-out: {told:?}");

            let start = Instant::now();
            transfer.signal(signal)?;
            assert_eq!(transfer.wait(START)?.code(), Some(0), "{}", transfer.output());
            assert!(start.elapsed() < Duration::from_secs(2), "stopping took {:?}", start.elapsed());
            let open = site.cloud.run(|| -> Result<usize> {
                Ok(std::fs::read_to_string("/proc/thread-self/net/udp6")?.lines().count() - 1)
            })?;
            assert_eq!(open, 0, "ports are free when the program has ended");
            gateways[0].signal(signal)?;
            assert_eq!(gateways[0].wait(START)?.code(), Some(0), "{}", gateways[0].output());
        }
        Ok(())
    });
}
