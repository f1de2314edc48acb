//! What is measured, seen from the bench: a relay that can be started beside others and carries flows.

use anyhow::Result;
use mesh_lab::Process;

use super::{Cell, Rig};
use crate::load::Flow;
use crate::report::{Absent, SystemInfo};

/// Whether a system is on this machine.
pub type Found = Result<SystemInfo, Absent>;

/// A relay that can be measured.
pub trait System {
    /// Its name in all tables: lower case, no spaces.
    fn name(&self) -> &'static str;

    /// Looks for it.
    ///
    /// # Errors
    /// It was named by a variable, and what that names cannot be run. That it is not installed is no error.
    fn find(&self) -> Result<Found>;

    /// Why it cannot do a cell, if so, in half a sentence: `it has one port only`.
    fn unable(&self, cell: &Cell) -> Option<String>;

    /// Starts it in the relay's host, on [`super::rig::RELAY_PROCESSOR`], with the ports from [`super::rig::first_port`]`(number)`
    /// on in all hosts, and has all clients of the cell registered. Returns when datagrams of every flow would arrive.
    ///
    /// # Errors
    /// It does not start or does not accept a client.
    fn start(&self, rig: &Rig, cell: &Cell, number: u16) -> Result<Box<dyn Running>>;
}

/// A relay that runs. Dropping it ends it and its clients.
pub trait Running {
    /// Its programs, whose processor time is the cost; none if the kernel itself relays.
    fn processes(&self) -> &[Process];

    /// The flows it carries, in the order of their numbers: [`Cell::flows`] of them.
    fn flows(&self) -> &[Flow];

    /// Bytes that each datagram has before its body where it arrives.
    fn head_bytes(&self) -> usize {
        0
    }

    /// Called between trials, at least every few seconds: whatever keeps registrations alive, and notices that it has died.
    ///
    /// # Errors
    /// It has died, or a client lost its registration.
    fn tend(&mut self) -> Result<()>;

    /// Called when the load is turned to it, and when it is turned to another one: what slows others by being there is there only
    /// in its own turn. Programs that wait slow nobody.
    ///
    /// # Errors
    /// It cannot be set up again.
    fn turn(&mut self, _own: bool) -> Result<()> {
        Ok(())
    }
}
