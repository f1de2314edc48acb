//! The words after `cargo xtask bench`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures relays and tunnels side by side, in network namespaces private to the run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", disable_help_subcommand = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Relays: our engines, rivals written here, the kernel, and what is installed
    Relay(Selection),
    /// The delay through each relay while it is idle, half busy and nearly full
    Latency(Selection),
    /// What each relay still delivers when it is offered more than it can carry
    Overload(Selection),
    /// Tunnels: TCP, UDP and ping, direct and relayed, ours and what is installed
    Tunnel(Selection),
    /// One transfer with 1 to 4,000 namespaces of 2 to 100 clients: start, memory, registrations, cost
    Scale(Scale),
    /// Minutes at half of the maximum: memory, cost, loss and delay must stay as they are
    Soak(Soak),
    /// One of the rivals written here, as a program of its own
    #[command(hide = true)]
    Rival(bench::rivals::RivalOptions),
}

/// What to measure, and what to do with it.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// A few cells, a few systems, five rounds: under 3 minutes
    #[arg(long, conflicts_with_all = ["matrix", "cells"])]
    pub(crate) quick: bool,
    /// Every cell; goes on where an earlier run of the matrix was stopped
    #[arg(long, conflicts_with = "cells")]
    pub(crate) matrix: bool,
    /// These cells: whole names, or names with dimensions left out, joined by commas (nic-1400-b16-f32-n1,wire-64)
    #[arg(long, value_name = "EXPR", value_parser = trimmed)]
    pub(crate) cells: Option<String>,
    /// These systems, joined by commas; `list` prints them all, `ablations` is ours without each of its techniques
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) systems: Vec<String>,
    /// Rounds in each cell
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Print the report as JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a page that can be opened in any browser, and the report as JSON, into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Start a matrix from the beginning, not where it was stopped
    #[arg(long, requires = "matrix")]
    pub(crate) restart: bool,
}

/// How many namespaces and clients.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// Three cells
    #[arg(long, conflicts_with = "cells")]
    pub(crate) quick: bool,
    /// The cells at once, each in a transfer of its own, and what forwarding costs in one beside the other
    #[arg(long, conflicts_with = "quick")]
    pub(crate) side_by_side: bool,
    /// These cells, joined by commas: namespaces x clients in each, as 1000x10
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) cells: Vec<String>,
    /// These engines, joined by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) systems: Vec<String>,
    /// Rounds in each cell
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Print the report as JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a page and the report as JSON into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
}

/// How long to soak what.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// Minutes of load for each system
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) minutes: u32,
    /// The cell
    #[arg(long, value_name = "NAME")]
    pub(crate) cell: Option<String>,
    /// The systems, joined by commas, in turn minute by minute
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "uring")]
    pub(crate) systems: Vec<String>,
    /// Print the report as JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a page and the report as JSON into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
}

fn trimmed(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("it is empty".into()) } else { Ok(text.to_owned()) }
}
