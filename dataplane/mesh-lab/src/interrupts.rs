//! Ctrl-C for a program whose work is done in a private world.

use std::fs;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// Has `SIGINT` and `SIGTERM` passed on to the program inside, from the process that [`enter`](crate::enter) leaves outside to wait. Call
/// it before [`enter`](crate::enter), outside and inside.
///
/// Without it such a signal ends the process outside, and with it the world, at once. With it the program inside decides: what it does
/// not handle ends it. A Ctrl-C of a terminal reaches both processes, so the program may get it twice.
///
/// # Errors
/// The signals cannot be blocked, or no thread can be started.
pub fn pass_interrupts_on() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    if crate::inside() {
        // Started with the mask of the process outside.
        return signals.thread_unblock().context("unblock the signals passed on");
    }
    // Before there is another thread: they all have the mask from this one.
    signals.thread_block().context("block the signals to be passed on")?;
    let pass = move || {
        while let Ok(signal) = signals.wait() {
            if let Some(program) = inner_program() {
                // It may just have ended.
                let _ = kill(program, signal);
            }
        }
    };
    thread::Builder::new().name("interrupts".into()).spawn(pass).context("start a thread")?;
    Ok(())
}

/// The process of this program inside its world: below a waiter, and the first process of the world's own process numbers, where the
/// kernel grants those; else the only child.
fn inner_program() -> Option<Pid> {
    let mut process = std::process::id();
    let mut child = None;
    for _ in ["the waiter", "the first process", "the program"] {
        process = first_child(process)?;
        child.get_or_insert(process);
        if numbers(process).is_some_and(|numbers| matches!(numbers[..], [_, .., inner] if inner != 1)) {
            return Some(pid(process));
        }
    }
    child.map(pid)
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(process.try_into().expect("process ids are below 2^22"))
}

fn first_child(process: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let children = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    children.into_iter().find_map(|children| children.split_whitespace().next()?.parse().ok())
}

/// The numbers of a process in the nested worlds it is in, outermost first.
fn numbers(process: u32) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|number| number.parse().ok()).collect()
}
