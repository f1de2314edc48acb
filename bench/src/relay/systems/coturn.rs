//! coturn: the TURN server that most people run.

use anyhow::Result;

use super::super::rig::{PORTS_EACH, first_port};
use super::super::{Cell, Found, Rig, Running, System};
use super::program::{self, Carrier};
use super::turn::{Clients, Credentials};
use crate::load::Head;

/// Each flow is an allocation of a client in the sending host, with a channel to the receiver.
pub(super) struct Coturn;

const NAME: &str = "coturn";
const ABOUT: &str =
    "A TURN server with one relay thread; each client has an allocation and sends ChannelData, UDP in and out.";

impl System for Coturn {
    fn name(&self) -> &'static str {
        NAME
    }

    fn find(&self) -> Result<Found> {
        program::found(NAME, ABOUT)
    }

    fn unable(&self, cell: &Cell) -> Option<String> {
        program::one_port_only(cell)
    }

    fn start(&self, rig: &Rig, cell: &Cell, number: u16) -> Result<Box<dyn Running>> {
        let folder = program::folder()?;
        let credentials = Credentials::random();
        let (listen, first) = (program::listen(number), first_port(number));
        let mut command = program::peer_command(rig, &program::peer(NAME)?)?;
        command.args([
            "-n",
            "--no-cli",
            "--no-tls",
            "--no-dtls",
            "--no-tcp",
            "--no-tcp-relay",
            "--no-software-attribute",
        ]);
        command.args(["--log-file=stdout", "--simple-log", "--relay-threads=1", "--lt-cred-mech", "--realm=bench"]);
        command.arg(format!("--user={}:{}", credentials.name, credentials.password));
        command.arg(format!("--listening-ip={}", listen.ip())).arg(format!("--listening-port={}", listen.port()));
        // The allocations are on the other address, so that they may have the same ports.
        command.arg(format!("--relay-ip={}", Rig::RELAY_OUT));
        command.arg(format!("--min-port={first}")).arg(format!("--max-port={}", first + PORTS_EACH - 1));
        command.arg(format!("--userdb={}", folder.path().join("users").display()));
        command.arg(format!("--pidfile={}", folder.path().join("pid").display()));
        let mut process = rig.relay.spawn(command)?;
        program::until_bound(&mut process, &rig.relay, listen)?;

        let mut flows = program::flows(cell, number);
        let peers: Vec<_> = flows.iter().map(|flow| flow.arrives.into()).collect();
        let bound = Clients::allocate(&rig.sender, flows.iter().map(|flow| flow.from), listen, &credentials)
            .and_then(|mut clients| Ok((clients.bind(&peers)?, clients)));
        let (channels, clients) = bound.map_err(|error| error.context(program::last_word(&process)))?;
        for (flow, channel) in flows.iter_mut().zip(channels) {
            flow.head = Head::Channel(channel);
        }
        Ok(Box::new(Carrier::new(process, flows).with_clients([clients]).with_folder(folder)))
    }
}
