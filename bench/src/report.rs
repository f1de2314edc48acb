//! Showing the outcome: as a table in the terminal, as JSON, as one self-contained page.
//!
//! [`table`] and [`page`] only read a [`Report`] and return text; [`write()`] and [`json`] touch files; [`progress`] shows how far a
//! run is. What all of them have in common, the order of systems and how numbers look, is in `rank` and `text`.

pub mod goals;
pub mod json;
pub mod model;
pub mod page;
mod plot;
pub mod progress;
mod rank;
pub mod table;
mod text;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

pub use model::{Absent, CellReport, Goal, Outcome, Point, Report, Round, Seen, SystemInfo};

/// Writes `index.html`, which is [`page::page`], and `report.json`, which [`json::read`] reads, into `directory`, and makes it where
/// it is missing. Each file is replaced as a whole.
///
/// # Errors
/// A directory or file cannot be made.
pub fn write(report: &Report, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    json::write(report, &directory.join("report.json"))?;
    json::replace(&directory.join("index.html"), page::page(report).as_bytes())
}
