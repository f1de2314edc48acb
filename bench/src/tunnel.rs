//! `bench tunnel`: tunnels side by side, with the load of applications inside.
//!
//! Every system gets hosts of its own ([`Rig`]), so that systems with the same interface names, sockets and networks run at the same
//! time and only one of them has load. Loads are in [`load`], the systems in [`systems`], and [`TunnelBench`] brings them together.

pub mod cell;
mod interface;
pub mod load;
pub mod rig;
mod sys;
pub mod system;
pub mod systems;
pub mod targets;
pub mod trial;

pub use cell::{Congestion, Kind, Path, TunnelCell};
pub use rig::{Place, Rig};
pub use system::{Found, Tunnel, TunnelSystem};
pub use trial::{Chosen, Lengths, TunnelBench};
