//! nginx: its stream proxy, for UDP.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::super::rig::first_port;
use super::super::{Cell, Found, Rig, Running, System};
use super::program::{self, Carrier};

/// A port leads to one receiver, so each flow has a port of its own, however many namespaces a cell has.
pub(super) struct Nginx;

const NAME: &str = "nginx";
const ABOUT: &str = "The stream proxy of nginx for UDP, one process; each client has a port and a session of its own.";
/// A server for each flow: nobody would write more than that.
const FLOWS: u16 = 32;

impl System for Nginx {
    fn name(&self) -> &'static str {
        NAME
    }

    fn find(&self) -> Result<Found> {
        program::found(NAME, ABOUT)
    }

    fn unable(&self, cell: &Cell) -> Option<String> {
        (cell.flows > FLOWS).then(|| "it needs a port and a section of its configuration for each client".to_owned())
    }

    fn start(&self, rig: &Rig, cell: &Cell, number: u16) -> Result<Box<dyn Running>> {
        let folder = program::folder()?;
        let mut flows = program::flows(cell, number);
        let mut servers = String::new();
        for (flow, port) in flows.iter_mut().zip(first_port(number)..) {
            flow.to.set_port(port);
            writeln!(
                servers,
                "server {{ listen {} udp reuseport; proxy_pass {}; proxy_timeout 10m; }}",
                flow.to, flow.arrives
            )?;
        }
        let peer = program::peer(NAME)?;
        // Built in where there is no such file.
        let module = peer.file("usr/lib/nginx/modules/ngx_stream_module.so");
        let module = module.map_or_else(String::new, |module| format!("load_module {};\n", module.display()));
        let place = folder.path().display();
        let settings = program::write(
            &folder,
            "nginx.conf",
            &format!(
                "{module}daemon off; master_process off; worker_processes 1; user root;\npid {place}/pid; error_log stderr warn;\n\
                 events {{ worker_connections 8192; }}\nstream {{\n{servers}}}\n"
            ),
        )?;
        let mut command = program::peer_command(rig, &peer)?;
        command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(settings);
        let mut process = rig.relay.spawn(command)?;
        let last = flows.last().context("a cell has a flow")?.to;
        program::until_bound(&mut process, &rig.relay, last)?;
        Ok(Box::new(Carrier::new(process, flows).with_folder(folder)))
    }
}
