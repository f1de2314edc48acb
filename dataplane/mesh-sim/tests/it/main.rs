//! Scenarios of the whole network, each under many seeds. A failure prints its seed and how to replay it.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod behind_nat;
mod fixture;
mod hostile;
mod hosts;
mod joining;
mod replay;
mod restarts;
mod scale;
mod searching;
mod sizes;
