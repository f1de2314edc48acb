//! socat: what somebody types to relay one flow.

use anyhow::Result;

use super::super::{Cell, Found, Rig, Running, System};
use super::program::{self, Carrier};

/// One port to one receiver.
pub(super) struct Socat;

const NAME: &str = "socat";
const ABOUT: &str = "One socat, from one port to one receiver.";

impl System for Socat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn find(&self) -> Result<Found> {
        program::found(NAME, ABOUT)
    }

    fn unable(&self, cell: &Cell) -> Option<String> {
        (cell.flows > 1).then(|| "it has one receiver".to_owned())
    }

    fn start(&self, rig: &Rig, cell: &Cell, number: u16) -> Result<Box<dyn Running>> {
        let (listen, to) = (program::listen(number), program::arrives(number, 0));
        let mut command = program::peer_command(rig, &program::peer(NAME)?)?;
        command.args(["-u", "-b65536"]);
        command.arg(format!("UDP4-RECV:{},bind={}", listen.port(), listen.ip()));
        command.arg(format!("UDP4-SENDTO:{to}"));
        let mut process = rig.relay.spawn(command)?;
        program::until_bound(&mut process, &rig.relay, listen)?;
        Ok(Box::new(Carrier::new(process, program::flows(cell, number))))
    }
}
