//! turn-server: a TURN server written in Rust.

use std::net::SocketAddrV4;

use anyhow::Result;

use super::super::{Cell, Found, Rig, Running, System};
use super::program::{self, Carrier};
use super::turn::{Clients, Credentials};
use crate::load::Head;

/// It relays between clients of its own only, so a flow is two allocations: one of a client in the sending host and one of a client
/// in the receiving host, with a channel to each other. What arrives is ChannelData too: four bytes longer than what others relay.
pub(super) struct TurnServer;

const NAME: &str = "turn-server";
const ABOUT: &str =
    "A TURN server with one thread; sender and receiver of each flow have an allocation, ChannelData in and out.";
/// Longer than any run: a client that only receives sends nothing for minutes. The setting is written as the program reads it (4.1.5),
/// not as its manual has it (`idle-timeout`): what it does not know it ignores.
const IDLE_SECONDS: u32 = 86_400;

impl System for TurnServer {
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
        let listen = program::listen(number);
        let port = listen.port();
        let Credentials { name, password } = &credentials;
        let settings = program::write(
            &folder,
            "turn-server.toml",
            &format!(
                "[server]\nrealm = \"bench\"\nport-range = \"49152..65535\"\nmax-threads = 1\n\n\
                 [[server.interfaces]]\ntransport = \"udp\"\nlisten = \"0.0.0.0:{port}\"\nexternal = \"{listen}\"\n\
                 idle_timeout = {IDLE_SECONDS}\n\n\
                 [log]\nlevel = \"warn\"\n\n[auth]\nstatic-credentials = {{ {name} = \"{password}\" }}\n"
            ),
        )?;
        let mut command = program::peer_command(rig, &program::peer(NAME)?)?;
        command.arg("--config").arg(settings);
        let mut process = rig.relay.spawn(command)?;
        program::until_bound(&mut process, &rig.relay, listen)?;

        let mut flows = program::flows(cell, number);
        let allocated = || -> Result<_> {
            let out = SocketAddrV4::new(Rig::RELAY_OUT, port);
            let senders = flows.iter().map(|flow| flow.from);
            let mut senders = Clients::allocate(&rig.sender, senders, listen, &credentials)?;
            let receivers = flows.iter().map(|flow| flow.arrives);
            let mut receivers = Clients::allocate(&rig.receiver, receivers, out, &credentials)?;
            receivers.bind(&senders.relayed())?;
            Ok((senders.bind(&receivers.relayed())?, [senders, receivers]))
        };
        let (channels, clients) = allocated().map_err(|error| error.context(program::last_word(&process)))?;
        for (flow, channel) in flows.iter_mut().zip(channels) {
            flow.head = Head::Channel(channel);
        }
        let carrier = Carrier::new(process, flows).with_head_bytes(Head::CHANNEL_BYTES);
        Ok(Box::new(carrier.with_clients(clients).with_folder(folder)))
    }
}
