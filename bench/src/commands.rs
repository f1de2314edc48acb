//! The command line, and what each verb does.

mod options;
mod relay;
mod session;
mod tunnel;

use std::process::ExitCode;

use clap::Parser as _;

use options::{Options, Verb};

/// Exit code for a wrong command line.
const WRONG_WORDS: u8 = 2;
/// Exit code after Ctrl-C, as shells have it.
const STOPPED: u8 = 130;
/// Exit code when over half of the rounds were rejected.
const TOO_NOISY: u8 = 3;

/// Runs the verb.
pub(crate) fn main() -> ExitCode {
    let ended = match Options::parse().verb {
        Verb::Relay(options) => relay::relay(&options),
        Verb::Latency(options) => relay::latency(&options),
        Verb::Overload(options) => relay::overload(&options),
        Verb::Tunnel(options) => tunnel::run(&options),
        Verb::Scale(options) => relay::scale(&options),
        Verb::Soak(options) => relay::soak(&options),
        Verb::Rival(options) => bench::rivals::run(&options).map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        if error.is::<Usage>() { ExitCode::from(WRONG_WORDS) } else { ExitCode::FAILURE }
    })
}

/// Marks an error as one of the command line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

impl Usage {
    /// The same error, marked.
    fn of(error: &anyhow::Error) -> anyhow::Error {
        Self(format!("{error:#}")).into()
    }
}
