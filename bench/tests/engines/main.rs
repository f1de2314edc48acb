//! The Linux engines at full load, on real links: what a flood does to others on its core, and what a datagram costs.
#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "figures are shown when asked for by --nocapture")]

#[path = "../../src/bin/counts/allocator.rs"]
mod allocator;
mod fairness;
mod full_load;
mod relay;
