//! The programs on real packets, in network namespaces private to each test: what a user would see, and what an eavesdropper
//! would. `cargo xtask test` builds the programs first; by hand: `cargo build --release`.
#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "figures are shown when asked for by --nocapture")]

mod addresses;
mod beacons;
mod crowd;
mod engines;
mod firewalls;
mod fixture;
mod hostile;
mod long;
mod many;
mod mapping;
mod names;
mod nat;
mod netcheck;
mod offload;
mod outside;
mod paths;
mod refuse;
mod relay;
mod restarts;
mod ring;
mod routers;
mod sizes;
mod stopping;
mod tcp;
mod watching;
