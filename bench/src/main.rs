//! The program behind `cargo xtask bench`: measures relays and tunnels side by side, in namespaces private to the run.
//!
//! Exit codes: 0, or 1 when a system that is present failed, 2 for a wrong command line, 3 when the machine was too noisy for the
//! figures to be relied on, 130 after Ctrl-C.
#![expect(clippy::print_stdout, reason = "a bench speaks to the person or machine that started it")]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("The bench needs network namespaces: it runs on Linux only.");
    std::process::exit(1);
}

#[cfg(target_os = "linux")]
mod commands;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    commands::main()
}
