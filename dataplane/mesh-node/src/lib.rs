//! Where engines and state machines meet, and what makes programs of them.
//!
//! - [`engine`] is the seam to what moves datagrams, [`inside`] the virtual interface, [`select`] the choice among engines;
//! - [`pump`] is the loop, [`worker`] a thread that runs it, [`mailbox`] how other threads reach it, [`helpers`] who does the
//!   slow work;
//! - [`stream`] carries frames over TCP where UDP does not pass;
//! - [`cli`], [`config`], [`log`], [`state`], [`status`], [`signals`] and [`limits`] are what a program needs besides;
//! - [`iface`] lists the machine's interfaces, [`outside`] and [`beacons`] bind a gateway's sockets to them, [`ports`] a
//!   transfer's; [`mapping`] asks the router for a port, [`ciphers`] measures what sealing packets costs;
//! - [`transfer`] and [`gateway`] put them together.
//!
//! Only [`clock`] reads the clock of the data plane, and only [`pump`] calls both an engine and a state machine.

#[cfg(all(feature = "ablation", target_os = "linux"))]
mod ablation;
pub mod beacons;
pub mod ciphers;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod gateway;
pub mod helpers;
pub mod hex;
pub mod iface;
pub mod inside;
pub mod limits;
pub mod log;
pub mod mailbox;
pub mod mapping;
pub mod outside;
pub mod ports;
pub mod pump;
pub mod resolve;
pub mod secret;
pub mod select;
pub mod signals;
#[cfg(feature = "slow")]
mod slow;
pub mod spread;
pub mod state;
pub mod status;
pub mod stream;
pub mod transfer;
pub mod worker;

#[cfg(target_os = "linux")]
#[path = "os/linux.rs"]
mod imp;
#[cfg(windows)]
#[path = "os/windows.rs"]
mod imp;
