//! The rig: a sending host, the relay's host and a receiving host on two links.

use std::net::Ipv4Addr;

use anyhow::Result;
use mesh_lab::{Host, Lab, Link, LinkMode};

/// The processor of generator and sinks.
pub const LOAD_PROCESSOR: usize = 0;
/// The processor of the relay, the same for all systems.
pub const RELAY_PROCESSOR: usize = 1;

/// Three hosts in a row, private to the run. Everything that relays runs in the middle one.
#[derive(Debug)]
pub struct Rig {
    /// Keeps the hosts.
    pub lab: Lab,
    /// Where clients send from: [`Rig::SENDER`].
    pub sender: Host,
    /// Where relays run: [`Rig::RELAY`] towards the sender, [`Rig::RELAY_OUT`] towards the receiver.
    pub relay: Host,
    /// Where clients receive: [`Rig::RECEIVER`].
    pub receiver: Host,
    /// From the sender (its end a) to the relay (its end b).
    pub left: Link,
    /// From the relay (its end a) to the receiver (its end b).
    pub right: Link,
}

/// How many ports each system has, in each of the three hosts.
pub const PORTS_EACH: u16 = 1_000;
/// The first port of the first system.
const FIRST_PORT: u16 = 2_000;

/// The first of the [`PORTS_EACH`] ports that belong to the `number`-th system (from 0, below 30), in each of the three hosts: its
/// clients send from them, its relay listens on them, its clients receive on them.
pub const fn first_port(number: u16) -> u16 {
    FIRST_PORT + number * PORTS_EACH
}

impl Rig {
    /// The sender's address.
    pub const SENDER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    /// The relay's address towards the sender.
    pub const RELAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
    /// The relay's address towards the receiver.
    pub const RELAY_OUT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
    /// The receiver's address.
    pub const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);

    /// Builds it. The process must be in a world of its own ([`mesh_lab::enter`]).
    ///
    /// # Errors
    /// The kernel refuses a namespace or an interface; the error names the knob.
    pub fn new(name: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let (sender, relay, receiver) = (lab.host("sender")?, lab.router("relay")?, lab.host("receiver")?);
        let left = lab.link(&sender, &relay, &["10.1.0.0/24"])?;
        let right = lab.link(&relay, &receiver, &["10.2.0.0/24"])?;
        sender.default_route(Self::RELAY.into())?;
        receiver.default_route(Self::RELAY_OUT.into())?;
        Ok(Self { lab, sender, relay, receiver, left, right })
    }

    /// Sets where trains are cut and gathered, on both links.
    ///
    /// # Errors
    /// The kernel refuses an offload setting.
    pub fn set_mode(&self, mode: LinkMode) -> Result<()> {
        self.left.set_mode(mode)?;
        self.right.set_mode(mode)
    }
}
