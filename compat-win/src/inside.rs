//! The virtual interface, behind one name on both systems.

#[cfg(target_os = "linux")]
#[path = "inside/linux.rs"]
mod imp;

#[cfg(windows)]
#[path = "inside/windows.rs"]
mod imp;

pub use imp::Inside;
#[cfg(windows)]
pub use imp::{InsideConfig, set_mtu};
