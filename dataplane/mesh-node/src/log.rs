//! Logs: to the console with `-debug`, else to files under `-log`.
//!
//! Nothing that a single packet triggers is logged, and no secret is. What a person at the console must know is *announced*:
//! printed once, and logged as well.

pub mod rotate;

use std::cmp::Ordering;
use std::fmt;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use mesh_core::seam::Moment;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;

use crate::cli::Failure;
use crate::config::CommonOptions;
use crate::log::rotate::{Limits, RotatingFile};

/// Lines that wait for the disk; beyond this they are dropped and counted, so that a slow disk never slows a packet.
const LINES_WAITING_MAX: usize = 8 * 1024;

/// Whether announcements are printed: not in `-debug`, where the log is the console.
static QUIET_CONSOLE: OnceLock<bool> = OnceLock::new();

/// Keeps the log going; what waits is written when it is dropped.
#[derive(Debug)]
pub struct LogGuard {
    dropped: DroppedLines,
    worker: LogCloser,
}

impl LogGuard {
    /// Counts the lines that found no room.
    pub fn dropped_lines(&self) -> DroppedLines {
        self.dropped.clone()
    }

    /// Closes the log where the process ends without dropping anything.
    pub fn closer(&self) -> LogCloser {
        self.worker.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.worker.close();
    }
}

/// See [`LogGuard::closer`].
#[derive(Clone, Debug)]
pub struct LogCloser(Arc<Mutex<Option<WorkerGuard>>>);

impl LogCloser {
    fn new(worker: Option<WorkerGuard>) -> Self {
        Self(Arc::new(Mutex::new(worker)))
    }

    /// Writes what waits; lines after this are lost.
    pub fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Counts the lines that found no room.
#[derive(Clone, Debug, Default)]
pub struct DroppedLines(Option<ErrorCounter>);

impl DroppedLines {
    /// How many.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, ErrorCounter::dropped_lines)
    }
}

/// Runs a program to its end, and leaves what it failed of in the log, where it is looked for when nobody saw the console.
pub fn record<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    run().inspect_err(|failure| tracing::error!("{failure}"))
}

/// Starts the log of the program instance `name`, such as `transfer-8000`.
///
/// # Errors
/// The log directory cannot be written: one line that names it and the remedy.
pub fn start(options: &CommonOptions, name: &str) -> anyhow::Result<LogGuard> {
    let _ = QUIET_CONSOLE.set(options.debug);
    let builder = tracing_subscriber::fmt().with_ansi(false).with_target(false);
    if options.debug {
        // A program that is built into another (a test) has a subscriber already: its log goes there.
        let _ = builder.with_max_level(LevelFilter::DEBUG).with_writer(io::stdout).try_init();
        return Ok(LogGuard { dropped: DroppedLines::default(), worker: LogCloser::new(None) });
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "files are named by the day of the wall clock; nothing is decided by it"
    )]
    let now = SystemTime::now;
    let file = RotatingFile::open(&options.log, name, Limits::default(), now).map_err(|error| {
        let remedy = "give another directory with -log, or -debug";
        crate::config::directory_trouble("cannot write logs in", &options.log, &error, remedy)
    })?;
    let (writer, worker) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX).finish(file);
    let dropped = writer.error_counter();
    let _ = builder.with_max_level(LevelFilter::INFO).with_writer(writer).try_init();
    Ok(LogGuard { dropped: DroppedLines(Some(dropped)), worker: LogCloser::new(Some(worker)) })
}

/// Tells the person at the console, and the log.
pub fn announce(line: impl fmt::Display) {
    tracing::info!("{line}");
    print_unless_debug(&line);
}

/// The same for what someone should look at.
pub fn announce_warning(line: impl fmt::Display) {
    tracing::warn!("{line}");
    print_unless_debug(&format_args!("warning: {line}"));
}

/// Tells the console alone: what must not be kept, as a token made at random.
pub fn console_only(line: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Lines that strangers can cause, at most so many each second: whoever holds a token must not be able to fill a disk.
#[derive(Debug, Default)]
pub struct LineBudget {
    second: u64,
    spent: u32,
}

impl LineBudget {
    /// Lines in each second.
    pub const PER_SECOND: u32 = 50;

    /// Has `line` written if this second still has room; the first that has none is told.
    pub fn spend(&mut self, now: Moment, line: impl FnOnce()) {
        let second = now.as_nanos() / 1_000_000_000;
        if self.second != second {
            (self.second, self.spent) = (second, 0);
        }
        self.spent = self.spent.saturating_add(1);
        match self.spent.cmp(&(Self::PER_SECOND + 1)) {
            Ordering::Less => line(),
            Ordering::Equal => tracing::info!("more events in this second are not logged"),
            Ordering::Greater => {}
        }
    }
}

fn print_unless_debug(line: &dyn fmt::Display) {
    if !QUIET_CONSOLE.get().copied().unwrap_or(false) {
        let _ = writeln!(io::stdout(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_room_for_so_many_lines() {
        let (mut budget, mut written) = (LineBudget::default(), 0);
        for _ in 0..1000 {
            budget.spend(Moment::from_nanos(1_500_000_000), || written += 1);
        }
        assert_eq!(written, LineBudget::PER_SECOND);
        budget.spend(Moment::from_nanos(2_000_000_000), || written += 1);
        assert_eq!(written, LineBudget::PER_SECOND + 1);
    }
}
