//! quilkin: a UDP proxy for game servers.

use anyhow::Result;

use super::super::{Cell, Found, Rig, Running, System};
use super::program::{self, Carrier};

/// One port to one receiver. It tells several apart by tokens only, which its clients put into each datagram for it.
pub(super) struct Quilkin;

const NAME: &str = "quilkin";
const ABOUT: &str = "A UDP proxy with one worker and one static endpoint, no filters.";

impl System for Quilkin {
    fn name(&self) -> &'static str {
        NAME
    }

    fn find(&self) -> Result<Found> {
        program::found(NAME, ABOUT)
    }

    fn unable(&self, cell: &Cell) -> Option<String> {
        (cell.flows > 1).then(|| "without tokens in the datagrams it has one receiver".to_owned())
    }

    fn start(&self, rig: &Rig, cell: &Cell, number: u16) -> Result<Box<dyn Running>> {
        let listen = program::listen(number);
        let mut command = program::peer_command(rig, &program::peer(NAME)?)?;
        command.args(["--admin.enabled=false", "--service.udp", "--service.udp.workers=1"]);
        command.arg(format!("--service.udp.port={}", listen.port()));
        command.arg(format!("--provider.static.endpoints={}", program::arrives(number, 0)));
        let mut process = rig.relay.spawn(command)?;
        program::until_bound(&mut process, &rig.relay, listen)?;
        Ok(Box::new(Carrier::new(process, program::flows(cell, number))))
    }
}
