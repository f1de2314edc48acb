//! The command line: Go-style flags, the verbs `status` and `netcheck`, exit codes.
//!
//! Errors are one line, `cause: remedy`. Exit code 2 means the command line (or the file or variable that stands for it) is
//! wrong, 1 anything else.

pub mod flags;
pub mod go_style;
pub mod usage;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use self::flags::{Flag, Kind, Program, SECRETS};
use crate::config::{GatewayOptions, Settings, TransferOptions};

/// Why a program ends otherwise than well.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Other(anyhow::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(line) => f.write_str(line),
            Self::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// What the command line asks for. `O` are the program's options.
#[derive(Debug)]
pub enum Command<O> {
    /// Run until stopped.
    Run(Box<O>),
    /// Print what the running program is doing.
    Status(StatusQuery),
    /// Print this text.
    Help(String),
}

/// What is wanted to be seen of a running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The verb `status`: all of it.
    Status,
    /// The verb `netcheck` of a gateway: the network around it.
    Netcheck,
}

/// The verbs `status` and `netcheck`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusQuery {
    /// Of which program.
    pub program: Program,
    /// What of it.
    pub view: View,
    /// JSON instead of a table.
    pub json: bool,
    /// Again each second.
    pub watch: bool,
    /// Only the transfer with this first port, or the gateway with this virtual address.
    pub only: Option<String>,
}

/// Reads the command line of `transfer`.
pub fn transfer() -> Result<Command<TransferOptions>, Failure> {
    let words = Words::of_this_process()?;
    words.read(Program::Transfer, TransferOptions::from_settings)
}

/// Reads the command line of `gateway`.
pub fn gateway() -> Result<Command<GatewayOptions>, Failure> {
    let words = Words::of_this_process()?;
    words.read(Program::Gateway, GatewayOptions::from_settings)
}

/// Runs a program to its end and turns the outcome into its exit code; a failure is one line on standard error.
pub fn exit(program: Program, run: impl FnOnce() -> Result<(), Failure>) -> ExitCode {
    let Err(failure) = run() else { return ExitCode::SUCCESS };
    let line = failure.to_string().replace('\n', " ");
    let _ = writeln!(io::stderr(), "{}: {line}", program.name());
    match failure {
        Failure::Usage(_) => ExitCode::from(2),
        Failure::Other(_) => ExitCode::FAILURE,
    }
}

/// Prints text for people to standard output. A reader that went away is no error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The words of a command line and the environment they are read in.
pub(crate) struct Words {
    /// What the program was called as, without its directory.
    pub(crate) called_as: String,
    /// The words after it.
    pub(crate) words: Vec<String>,
    /// Looks up an environment variable.
    pub(crate) variable: Box<Variables>,
}

/// Looks up an environment variable.
pub(crate) type Variables = dyn Fn(&str) -> Option<OsString>;

impl Words {
    fn of_this_process() -> Result<Self, Failure> {
        let mut all = std::env::args_os();
        let program = PathBuf::from(all.next().unwrap_or_default());
        let called_as = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let words = all.map(OsString::into_string).collect::<Result<_, _>>().map_err(|_| {
            Failure::Usage(
                "an argument is not UTF-8: write it in UTF-8, or put the token into a file (-token-file)".into(),
            )
        })?;
        Ok(Self { called_as, words, variable: Box::new(|name| std::env::var_os(name)) })
    }

    /// Reads them as a command of `program`; `options` turns the settings of a run into its options.
    pub(crate) fn read<O>(
        &self,
        program: Program,
        options: impl FnOnce(&Settings) -> Result<O, Failure>,
    ) -> Result<Command<O>, Failure> {
        let view = match (self.words.first().map(String::as_str), program) {
            (Some("status"), _) => Some(View::Status),
            (Some("netcheck"), Program::Gateway) => Some(View::Netcheck),
            _ => None,
        };
        if let Some(view) = view {
            let given = parse(&self.words[1..], program, program.status_flags())?;
            let settings = Settings::from_flags(program.status_flags(), given);
            if settings.switch("help")? {
                return Ok(Command::Help(usage::status_usage(program, view, &self.called_as)));
            }
            let only = match program {
                Program::Transfer => {
                    Some(settings.number("bind", 0, 65_535)?).filter(|&port| port != 0).map(|port| port.to_string())
                }
                Program::Gateway => Some(settings.text("ip").to_owned()).filter(|ip| !ip.is_empty()),
            };
            let (json, watch) = (settings.switch("json")?, settings.switch("watch")?);
            return Ok(Command::Status(StatusQuery { program, view, json, watch, only }));
        }
        let flags = program.run_flags();
        let given = parse(&self.words, program, &flags)?;
        // Asked for help, nothing else is looked at: not the file, not a wrong number.
        if Settings::from_flags(&flags, given.clone()).switch("help")? {
            return Ok(Command::Help(usage::usage(program, &self.called_as)));
        }
        let settings = Settings::gather(&flags, given, &self.variable)?;
        Ok(Command::Run(Box::new(options(&settings)?)))
    }
}

/// Values by the name of their flag, as given on the command line.
pub(crate) type Given = BTreeMap<&'static str, String>;

/// Parses Go-style words against a table of flags.
fn parse(words: &[String], program: Program, flags: &[Flag]) -> Result<Given, Failure> {
    let words = go_style::rewrite(words, flags);
    let mut command = clap::Command::new(program.name())
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    for flag in flags {
        let argument = clap::Arg::new(flag.name).long(flag.name).action(clap::ArgAction::Set);
        command = command.arg(match flag.kind {
            Kind::Bool => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Kind::Int | Kind::Text => argument.num_args(1),
        });
    }
    let matches = command.try_get_matches_from(words).map_err(|error| Failure::Usage(explain(&error)))?;
    let mut given = Given::new();
    for flag in flags {
        if let Some(value) = matches.get_one::<String>(flag.name) {
            given.insert(flag.name, value.clone());
        }
    }
    Ok(given)
}

/// One line for what clap refused. Values are not repeated: one of them could be the token.
fn explain(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let flag = |text: String| {
        let name = text.trim_start_matches('-');
        format!("-{}", name.split([' ', '=']).next().unwrap_or(name))
    };
    let what = context(ContextKind::InvalidArg).unwrap_or_default();
    if error.kind() != ErrorKind::UnknownArgument {
        // A flag that takes a value was the last word.
        return format!("flag {} needs a value: write it as {}=VALUE", flag(what.clone()), flag(what));
    }
    // A token that was glued to its flag is no name.
    let unknown = |text: String| {
        // With more dashes than a flag has, it is the dashes that are wrong.
        let text = match text.strip_prefix("--").filter(|rest| rest.starts_with('-')) {
            Some(_) => text.split([' ', '=']).next().unwrap_or_default().to_owned(),
            None => flag(text),
        };
        let glued = SECRETS.iter().find(|name| text.trim_start_matches('-').starts_with(**name));
        glued.map_or(text, |name| format!("-{name}…"))
    };
    match context(ContextKind::SuggestedArg) {
        _ if what == "status" || what == "netcheck" => {
            format!("the verb {what} comes first: write it before the flags")
        }
        _ if !what.starts_with('-') => {
            "a word belongs to no flag: put values with spaces in single quotes; -help lists flags and verbs".into()
        }
        Some(similar) => format!("unknown flag {}: did you mean {}?", unknown(what), flag(similar)),
        None => format!("unknown flag {}: -help lists all flags", unknown(what)),
    }
}

#[cfg(test)]
mod tests;
