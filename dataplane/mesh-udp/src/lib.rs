//! What the Linux engines share, `mesh-uring` and `mesh-mmsg`: all of UDP that does not depend on how the kernel is entered.
//!
//! - `socket.rs`: the options a socket needs, and what the kernel granted; `device.rs`: sockets tied to one interface;
//! - `control.rs`: names and control messages as the kernel writes them; `envelope.rs`: as it reads them;
//! - `sources.rs`: when a send must tell which address to leave from;
//! - `train.rs`: the token of what was received; `gather.rs`: from the ranges to be sent to as few sends as order allows;
//! - `fair.rs`: quiet sockets first; `share.rs`: how many trains of a flooded one a turn takes; `company.rs`: whether there are others; `working_set.rs`: how many trains fit
//!   the cache;
//! - `refusal.rs`: what becomes of a send that the kernel refused; `held.rs`: those that met a full socket buffer;
//! - `area.rs`: memory that the kernel reads and writes by address; `waker.rs`: ending a wait from another thread;
//! - `counters.rs`: what an engine counts;
//! - `without.rs`: going without a technique, to see what it is worth (feature `ablation`, for the bench only);
//! - `testing/`: what both engines must do, as tests that are written once (feature `testing`, for their tests only).
//!
//! Blind to what the datagrams carry, and dependent on no crate of the mesh. Unsafe code is in `area.rs`, `sys.rs` and, of the tests,
//! `testing/sys.rs` only.
#![cfg(target_os = "linux")]

pub mod area;
pub mod company;
pub mod control;
mod counters;
pub mod device;
pub mod envelope;
pub mod fair;
pub mod gather;
pub mod held;
pub mod refusal;
pub mod share;
pub mod socket;
pub mod sources;
mod sys;
#[cfg(feature = "testing")]
pub mod testing;
mod train;
mod waker;
mod without;
mod working_set;
pub mod writes;

pub use counters::{Counters, Lengths};
pub use train::{BufferId, Endpoint, Origin, Owner, Scratch, SocketId, Train};
pub use waker::Waker;
pub use without::{Technique, Without};
pub use working_set::WorkingSet;
