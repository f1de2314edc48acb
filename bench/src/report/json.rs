//! The report as a file, to keep, to read by other programs, and to go on with a run that was stopped.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tempfile::Builder;

use super::model::Report;

/// The version of the schema of the file. It changes when a field is renamed, taken away, or means something else.
pub const VERSION: u32 = 1;

/// What stands in the file.
#[derive(Serialize)]
struct Written<'a> {
    schema: u32,
    report: &'a Report,
}

/// What is read of the file first: other versions may differ in all the rest.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// What is read of a file of this version.
#[derive(Deserialize)]
struct Read {
    report: Report,
}

/// The report as the text that [`write()`] would write, without the end of its last line.
///
/// # Errors
/// None that is known of: every report can be expressed, see [`write()`].
pub fn text(report: &Report) -> Result<String> {
    let report = finite(report);
    serde_json::to_string_pretty(&Written { schema: VERSION, report: &report }).context("report as JSON")
}

/// Writes the report to `path`. A reader sees the old file or the new one, never a part, and so does who comes after a crash.
///
/// JSON has no infinity and no "not a number": measures that are none are left out, as if they could not be measured.
///
/// # Errors
/// The file cannot be written; what was there is as it was.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    let text = text(report)? + "\n";
    replace(path, text.as_bytes())
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// The file cannot be read, is no report, or is one of another version of the schema.
pub fn read(path: &Path) -> Result<Report> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let no_report = || format!("{} is no report of this bench", path.display());
    let Version { schema } = serde_json::from_slice(&text).with_context(no_report)?;
    if schema != VERSION {
        let age = if schema > VERSION { "a newer" } else { "an older" };
        bail!(
            "{} was written by {age} bench: its schema version is {schema}, and this one reads {VERSION}; \
             read it with that bench, or start anew",
            path.display()
        );
    }
    let Read { report } = serde_json::from_slice(&text).with_context(no_report)?;
    Ok(report)
}

/// Replaces the file as a whole, by way of a temporary one beside it.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> Result<()> {
        // As a file made the plain way: the umask takes away what the user does not want to share.
        let permissions = Permissions::from_mode(0o666);
        let mut file = Builder::new().prefix(".report-").permissions(permissions).tempfile_in(directory)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// The report without the numbers that JSON cannot express.
fn finite(report: &Report) -> Report {
    let mut report = report.clone();
    for round in report.cells.iter_mut().flat_map(|cell| &mut cell.rounds) {
        round.control_moved = round.control_moved.clamp(0.0, f64::MAX);
        if round.control_moved.is_nan() {
            round.control_moved = f64::MAX;
        }
        for measures in round.measures.values_mut() {
            measures.retain(|_, value| value.is_finite());
        }
    }
    report
}
