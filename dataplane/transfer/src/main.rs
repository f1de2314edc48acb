//! `transfer`: the relay of EasyMesh, for a host with a public address. Each UDP port it binds is one isolated virtual network.

use std::process::ExitCode;

use mesh_node::cli::flags::Program;
use mesh_node::cli::{self, Command};
use mesh_node::{status, transfer};

fn main() -> ExitCode {
    cli::exit(Program::Transfer, || match cli::transfer()? {
        Command::Run(options) => transfer::run(*options),
        Command::Status(query) => status::show(&query),
        Command::Help(text) => {
            cli::print(&text);
            Ok(())
        }
    })
}
