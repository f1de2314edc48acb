//! `gateway`: joins this machine to an EasyMesh virtual network, through a TUN interface of its own.

use std::process::ExitCode;

use mesh_node::cli::flags::Program;
use mesh_node::cli::{self, Command};
use mesh_node::{gateway, status};

fn main() -> ExitCode {
    cli::exit(Program::Gateway, || match cli::gateway()? {
        Command::Run(options) => gateway::run(*options),
        Command::Status(query) => status::show(&query),
        Command::Help(text) => {
            cli::print(&text);
            Ok(())
        }
    })
}
