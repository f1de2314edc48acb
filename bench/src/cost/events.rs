//! Counts of kernel events of a program: system calls and completions of io_uring, by the kernel's tracepoints.
//!
//! Counting costs some 100 ns for each event, so it is done in trials of its own and never while a cost is measured.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

use super::program::{family, threads};

/// Where the kernel lists its tracepoints; mounted there if it is not yet.
const TRACEFS: &str = "/sys/kernel/tracing";

/// Counters on all threads that a program and its children have now.
pub struct Events {
    system_calls: Vec<Counter>,
    completions: Vec<Counter>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventCounts {
    /// System calls entered.
    pub system_calls: u64,
    /// Completions posted to rings of io_uring.
    pub completions: u64,
}

impl Events {
    /// Starts to count for the programs given, their children and all their threads.
    ///
    /// # Errors
    /// The kernel refuses tracepoints (it takes root of the machine, or `kernel.perf_event_paranoid` at -1 and a readable tracefs), or
    /// a program has ended.
    pub fn of(programs: impl IntoIterator<Item = u32>) -> Result<Self> {
        Self::of_threads(programs.into_iter().flat_map(family).flat_map(threads))
    }

    /// Starts to count for some threads, by their numbers.
    ///
    /// # Errors
    /// As [`Events::of`].
    pub fn of_threads(threads: impl IntoIterator<Item = u32>) -> Result<Self> {
        let (entered, completed) = (tracepoint("raw_syscalls/sys_enter")?, tracepoint("io_uring/io_uring_complete")?);
        let mut events = Self { system_calls: Vec::new(), completions: Vec::new() };
        for thread in threads {
            events.system_calls.push(counter(entered, thread)?);
            events.completions.push(counter(completed, thread)?);
        }
        for counter in events.system_calls.iter_mut().chain(&mut events.completions) {
            counter.enable().context("start a counter")?;
        }
        Ok(events)
    }

    /// What was counted since the start.
    ///
    /// # Errors
    /// A counter cannot be read, or was not always running.
    pub fn read(&mut self) -> Result<EventCounts> {
        Ok(EventCounts { system_calls: sum(&mut self.system_calls)?, completions: sum(&mut self.completions)? })
    }
}

fn sum(counters: &mut [Counter]) -> Result<u64> {
    let mut sum = 0;
    for counter in counters {
        sum += counter.read().context("read a counter")?;
    }
    Ok(sum)
}

fn counter(tracepoint: u64, thread: u32) -> Result<Counter> {
    let thread = i32::try_from(thread).context("a thread's number")?;
    let mut builder = Builder::new(Tracepoint::with_id(tracepoint));
    // The system call is entered in the kernel: what happens there counts.
    builder.observe_pid(thread).any_cpu().exclude_kernel(false).exclude_hv(false);
    builder.build().with_context(|| {
        format!("count events of thread {thread} (root may; others where kernel.perf_event_paranoid is -1)")
    })
}

/// The number of a tracepoint.
fn tracepoint(name: &str) -> Result<u64> {
    let events = Path::new(TRACEFS).join("events");
    if !events.exists() {
        mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>).with_context(|| {
            format!("mount the kernel's list of tracepoints at {TRACEFS} (root of the machine may)")
        })?;
    }
    let path = events.join(name).join("id");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds no number", path.display()))
}

impl EventCounts {
    /// Each for one of so many datagrams.
    pub fn per(self, datagrams: u64) -> (f64, f64) {
        let of = |count: u64| count as f64 / datagrams as f64;
        (of(self.system_calls), of(self.completions))
    }
}

/// How long a trial that counts lasts.
pub const COUNTING: Duration = Duration::from_millis(300);
