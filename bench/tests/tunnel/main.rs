//! Loads through real tunnels: without one, and through our own programs. What others are needs them installed, and is not here.
#![cfg(target_os = "linux")]

mod loads;
mod ours;
mod rounds;
