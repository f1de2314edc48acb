//! What is between the nodes, shown by plain datagrams of probes. A failure prints its seed and how to replay it.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod filtering;
mod firewall;
mod flush;
mod hairpin;
mod hosts;
mod lan;
mod limits;
mod mapping;
mod nesting;
mod paths;
mod ports;
mod punching;
mod scene;
mod timeouts;
