//! The load generator and its sinks on real links, and clients at a real `transfer`.
#![cfg(target_os = "linux")]

mod enrolment;
mod fixture;
mod pace;
mod sinks;
