//! TCP copies, both ways at once, whatever the ends have.

use anyhow::Result;
use mesh_lab::isolated;

use super::stream::Copy;
use super::{COMBINATIONS, Pair};

const SHORT: u64 = 64_000_000;
const LONG: u64 = 2_000_000_000;

/// Over IPv4 and IPv6, with all combinations of offloads.
fn copies(engine: &str, path: &str, bytes: u64) -> Result<()> {
    for offload in COMBINATIONS {
        let [first, second] = offload.map(|offload| ["-engine", engine, "-offload", offload]);
        let name = format!("{engine} {path} {} to {}", offload[0], offload[1]);
        let pair = Pair::new(&name.replace(' ', "_"), path, [&first, &second])?;
        for (family, no_delay) in [(0, false), (1, true)] {
            let address = pair.addresses[1][family];
            let copy = Copy::new(bytes, no_delay);
            let took = copy.run(&pair.site.offices[0], &pair.site.offices[1], [address, address])?;
            let rate = 2.0 * bytes as f64 * 8.0 / took.as_secs_f64() / 1e6;
            println!("{name}, IPv{}: {rate:.0} Mbit/s both ways together, intact", [4, 6][family]);
        }
        pair.assert_healthy(offload)?;
    }
    Ok(())
}

#[test]
fn intact_on_uring_and_direct() {
    isolated(|| copies("uring", "lan", SHORT));
}

#[test]
fn intact_on_uring_and_relayed() {
    isolated(|| copies("uring", "relay", SHORT));
}

#[test]
fn intact_on_mmsg_and_direct() {
    isolated(|| copies("mmsg", "lan", SHORT));
}

#[test]
fn intact_on_mmsg_and_relayed() {
    isolated(|| copies("mmsg", "relay", SHORT));
}

#[test]
fn long_intact_on_uring_and_direct() {
    isolated(|| copies("uring", "lan", LONG));
}

#[test]
fn long_intact_on_uring_and_relayed() {
    isolated(|| copies("uring", "relay", LONG));
}

#[test]
fn long_intact_on_mmsg_and_direct() {
    isolated(|| copies("mmsg", "lan", LONG));
}

#[test]
fn long_intact_on_mmsg_and_relayed() {
    isolated(|| copies("mmsg", "relay", LONG));
}
