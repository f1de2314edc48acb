//! `cargo xtask`: everything done with this repository, as verbs of one small program.
//!
//! It drives cargo and depends on no package of the workspace. One file holds one verb; `flags.rs` knows the command
//! line. Nothing here reads standard input, nor lets a program it starts do so.
#![expect(clippy::print_stdout, reason = "a task speaks to the person or machine that started it")]

mod arrows;
mod bench;
mod command;
mod counts;
mod debian;
mod demo;
mod deny;
mod flags;
mod junit;
mod peers;
mod programs;
mod report;
mod test;
mod tidy;
mod tools;
mod windows;
mod workspace;

use std::process::ExitCode;

use flags::{Bench, Verb};

fn main() -> ExitCode {
    let verb = match flags::parse(std::env::args().skip(1)) {
        Ok(verb) => verb,
        Err(mistake) => {
            eprintln!("xtask: {mistake}\n\n{}", flags::HELP);
            return ExitCode::from(2);
        }
    };
    run(verb).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Help => {
            println!("{}", flags::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Demo { keep, engine } => demo::run(keep, engine.as_deref()),
        Verb::Test(selection) => test::run(&selection),
        Verb::Bench(Bench::Run(words)) => bench::run(&words),
        Verb::Bench(Bench::Peers(names)) => peers::run(&names),
        Verb::Bench(Bench::Counts { bless }) => counts::run(bless),
        Verb::Windows(action) => windows::run(action),
        Verb::Deny => deny::run(),
    }
}
