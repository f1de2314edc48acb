//! Processor time of a program with all its threads and children.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The process and all its descendants, as this process sees their numbers.
pub fn family(process: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([process]);
    let mut open = vec![process];
    while let Some(process) = open.pop() {
        open.extend(children(process).into_iter().filter(|child| found.insert(*child)));
    }
    found
}

/// The processes that this one started and that live; none if it has ended.
pub fn children(process: u32) -> Vec<u32> {
    let of = |thread: u32| fs::read_to_string(format!("/proc/{process}/task/{thread}/children")).unwrap_or_default();
    let numbers = |text: String| text.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<_>>();
    threads(process).into_iter().flat_map(|thread| numbers(of(thread))).collect()
}

/// The threads of a process; none if it has ended.
pub(crate) fn threads(process: u32) -> Vec<u32> {
    let folder = fs::read_dir(format!("/proc/{process}/task"));
    let names = folder.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Processor time that a program, its threads and its children have used until now, in user and kernel mode.
///
/// It is the sum the scheduler keeps for each living thread (`/proc/PID/task/TID/schedstat`), in nanoseconds. A thread that
/// ended between two readings is missing in the second; relays do not end threads under load.
///
/// # Errors
/// The program has ended.
pub fn processor_time(process: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    let own = fs::read_to_string(format!("/proc/{process}/schedstat"));
    own.with_context(|| format!("process {process} has ended"))?;
    for process in family(process) {
        for thread in threads(process) {
            // A thread may end just now.
            let Ok(text) = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat")) else { continue };
            let nanos = text.split_whitespace().next().and_then(|number| number.parse().ok());
            total += Duration::from_nanos(nanos.context("schedstat begins with no number")?);
        }
    }
    Ok(total)
}

/// Resident memory of a program in bytes (`VmRSS`), without its children.
///
/// # Errors
/// The program has ended.
pub fn resident(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("process {process} has ended"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel tells no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_is_seen_and_an_ended_program_is_an_error() {
        let before = processor_time(std::process::id()).unwrap();
        let mut sum = 0u64;
        while processor_time(std::process::id()).unwrap() < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = child.id();
        assert!(family(std::process::id()).contains(&process));
        child.wait().unwrap();
        assert!(processor_time(process).is_err());
    }
}
