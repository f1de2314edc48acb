//! The whole network in one process, under one seed.
//!
//! The state machines of `mesh-core` run unchanged; this crate stands in for everything around them: a clock that only
//! moves when nothing is left to do, an Internet that delays, loses, reorders, duplicates and cuts, sites behind NATs
//! and firewalls, hosts that move, sleep and lose their network, names that resolve to changing addresses, helper
//! threads that take their time, and hosts behind the gateways that answer pings. The same seed gives the same run, to
//! the byte; a failing test prints its seed.
//!
//! - [`World`]: nodes, the event queue and the run itself.
//! - [`net`]: what is between the nodes.
//! - [`host`]: the inner packets of a host behind a gateway.
//! - [`wiretap`]: what an eavesdropper beside every node has seen.
#![forbid(unsafe_code)]

pub mod host;
pub mod net;
pub mod seeds;
pub mod wiretap;
pub mod world;

pub use net::{Link, Network, NodeId, Place, SiteConfig, SiteId};
pub use world::World;
