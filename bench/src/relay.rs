//! `bench relay`: relays side by side.

pub mod cell;
pub mod crowd;
pub mod experiment;
pub mod latency;
pub mod overload;
pub mod rig;
pub mod scale;
pub mod side_by_side;
pub mod soak;
pub mod stage;
pub mod system;

pub use cell::{Cell, Payload};
pub use rig::Rig;
pub use system::{Found, Running, System};
pub mod systems;
