//! What a run leaves, shown: table, JSON and page of a report with everything in it that can go wrong.
#![cfg(target_os = "linux")]

mod fixture;
mod goals;
mod json;
mod page;
mod table;
