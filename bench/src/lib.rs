//! The measuring instrument: load on the real wire, rivals beside it, reports of ratios.
//!
//! One run measures several systems on one machine, in turn and in rounds, and what it reports are ratios within a round: absolute
//! figures of a shared machine mean little. The words used everywhere:
//! - a [`Cell`](relay::Cell) is one point of the dimensions (payload, burst, flows, namespaces, link mode); it has a name;
//! - a *system* is what is measured: our transfer with one engine, a rival written here, a program of others;
//! - a *trial* is one system in one cell for a second or two; it yields [`Measures`](figure::Measures);
//! - a *round* is one trial of each system, and of the control system before and after them ([`rounds`]);
//! - a [`Report`](report::Report) holds all rounds of all cells, and what the machine was.
//!
//! Folders: [`load`] makes and counts datagrams, [`enrol`] registers clients with a transfer as gateways do, [`cost`] reads what
//! processors and the kernel spent, [`rivals`] are relays as others write them, [`relay`] and [`tunnel`] bring systems and cells
//! together, [`report`] shows the outcome.
//!
//! Nothing depends on this crate. It needs Linux.
#![cfg(target_os = "linux")]

pub mod cost;
pub mod enrol;
pub mod figure;
pub mod load;
pub mod machine;
pub mod peers;
pub mod relay;
pub mod report;
pub mod rivals;
pub mod rounds;
pub mod tunnel;
