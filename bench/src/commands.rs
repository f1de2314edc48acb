//! The command line, and what each verb does.

mod options;
mod relay;
mod session;
mod tunnel;

use std::process::ExitCode;

use clap::Parser as _;

use options::{Options, Verb};

/// Exit code when over half of the rounds were rejected.
const TOO_NOISY: u8 = 3;

/// Runs the verb.
pub(crate) fn main() -> ExitCode {
    let ended = match Options::parse().verb {
        Verb::Relay(options) => relay::relay(&options),
        Verb::Latency(options) => relay::latency(&options),
        Verb::Tunnel(options) => tunnel::run(&options),
        Verb::Scale(options) => relay::scale(&options),
        Verb::Soak(options) => relay::soak(&options),
        Verb::Rival(options) => bench::rivals::run(&options).map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}
