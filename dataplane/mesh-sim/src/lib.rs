//! The whole network in one process, under one seed.
//!
//! The state machines of `mesh-core` run unchanged; this crate stands in for everything around them: a clock that only moves when
//! nothing is left to do, links that delay, lose, reorder, duplicate and cut, names that resolve to changing addresses, helper
//! threads that take their time, and hosts behind the gateways that answer pings. The same seed gives the same run, to the
//! datagram; a failing test prints its seed.
//!
//! - [`World`]: nodes, links, the event queue and the run itself.
//! - [`link`]: what a link does to a train.
//! - [`host`]: the inner packets of a host behind a gateway.
//! - [`wiretap`]: what an eavesdropper on every link has seen.
#![forbid(unsafe_code)]

pub mod host;
pub mod link;
pub mod seeds;
pub mod wiretap;
pub mod world;

pub use link::Link;
pub use world::{NodeId, World};
