//! `counts`: what a datagram costs in instructions, allocations and system calls, against a baseline.
//!
//! Counts do not depend on what else the machine does, so that a machine for continuous integration can guard them. Started by
//! `cargo xtask bench counts`, it starts itself again for each kind of count:
//! - `run OPERATION TIMES CAPACITY` under valgrind: twice for each operation, with N and 2 N repetitions. The difference, divided
//!   by N, is the operation: start, set-up and warm-up are in both;
//! - `allocations`, not under valgrind: all operations under an allocator that counts;
//! - `syscalls TRANSFER`: the real program under a load that has one batch on its way at a time, in a network of its own.
#![cfg_attr(target_os = "linux", expect(clippy::print_stdout, reason = "a table for people, figures for its parent"))]

#[cfg(target_os = "linux")]
mod allocator;
#[cfg(target_os = "linux")]
mod baseline;
#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod engine;
#[cfg(target_os = "linux")]
mod figures;
#[cfg(target_os = "linux")]
mod member;
#[cfg(target_os = "linux")]
mod operations;
#[cfg(target_os = "linux")]
mod syscalls;
#[cfg(target_os = "linux")]
mod world;

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("counts: valgrind, strace and network namespaces are those of Linux");
    std::process::ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["check", baseline, transfer] => check::check(baseline.as_ref(), transfer.as_ref(), false),
        ["check", baseline, transfer, "--bless"] => check::check(baseline.as_ref(), transfer.as_ref(), true),
        ["run", operation, times, capacity] => figures::run_one(operation, times, capacity).map(|()| true),
        ["allocations"] => figures::print_allocations().map(|()| true),
        ["syscalls", transfer] => syscalls::print(transfer.as_ref()).map(|()| true),
        _ => Err(anyhow::anyhow!("usage: counts check BASELINE TRANSFER [--bless]")),
    };
    match outcome {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("counts: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
