//! The rig: the hosts of two gateways, and the relay's between them.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Result;
use mesh_lab::{Host, Lab, Link, LinkMode};

use super::cell::Path;
use super::sys;

/// Who runs where. Left and right hosts stand for different machines, yet all share this one: each host's programs and its end of
/// the load stay on one core. So a tunnel cannot win by letting the kernel move its threads to where the load is not, and what one
/// host costs does not move to the other from one trial to the next.
///
/// The relay is beside the right gateway. What a host receives is taken on the core it was sent from, as veth pairs have it: the left
/// core also receives for the middle host. Steering each host's receive work to its own core was tried on two virtual cores, with one
/// relayed TCP stream: the plain links gained a third, and of four tunnels three lost, nebula a third of its rate and EasyMesh less.
/// So the kernel's default stays, which is best for the rivals; but without a tunnel single datagrams have the left core only, and
/// their rate is no upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The left gateway, and who sends.
    Left,
    /// The relay.
    Relay,
    /// The right gateway, and who receives.
    Right,
}

impl Place {
    /// The core it has.
    pub const fn core(self) -> usize {
        match self {
            Place::Left => 0,
            Place::Relay | Place::Right => 1,
        }
    }
}

/// Three hosts in a row on two links, private to one system.
#[derive(Debug)]
pub struct Rig {
    /// Where the left gateway runs, and who sends: [`Rig::LEFT`].
    pub left: Host,
    /// Where a relay runs: [`Rig::RELAY`] towards the left, [`Rig::RELAY_RIGHT`] towards the right.
    pub relay: Host,
    /// Where the right gateway runs, and who receives: [`Rig::RIGHT`].
    pub right: Host,
    /// Whether gateways may reach each other without the relay.
    pub path: Path,
    links: [Link; 2],
}

impl Rig {
    /// The left gateway's address.
    pub const LEFT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    /// The relay's address towards the left.
    pub const RELAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
    /// The relay's address towards the right.
    pub const RELAY_RIGHT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
    /// The right gateway's address.
    pub const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
    /// The largest packet of the links, in bytes.
    pub const LINK_MTU: u32 = 1_500;

    /// Builds it. For [`Path::Direct`] the middle host routes; for [`Path::Relayed`] it forwards nothing and the outer hosts know
    /// no way to each other, so that no tunnel goes direct. The process must be in a world of its own ([`mesh_lab::enter`]).
    ///
    /// # Errors
    /// The kernel refuses a namespace or an interface; the error names the knob.
    pub fn new(name: &str, path: Path) -> Result<Self> {
        let lab = Lab::new(name)?;
        let (left, relay, right) = (lab.host("left")?, lab.host("relay")?, lab.host("right")?);
        let links = [lab.link(&left, &relay, &["10.1.0.0/24"])?, lab.link(&relay, &right, &["10.2.0.0/24"])?];
        let rig = Self { left, relay, right, path, links };
        if path == Path::Direct {
            rig.route()?;
        }
        Ok(rig)
    }

    /// Lets the middle host forward packets.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn forward(&self) -> Result<()> {
        self.relay.sysctl("net.ipv4.ip_forward", "1")
    }

    /// Lets the outer hosts reach each other through the middle one.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn route(&self) -> Result<()> {
        self.forward()?;
        self.left.default_route(Self::RELAY.into())?;
        self.right.default_route(Self::RELAY_RIGHT.into())
    }

    /// Sets where trains are cut and gathered, on both links.
    ///
    /// # Errors
    /// The kernel refuses an offload setting.
    pub fn set_mode(&self, mode: LinkMode) -> Result<()> {
        self.links.iter().try_for_each(|link| link.set_mode(mode))
    }

    /// Sets the largest packet of both links, in bytes.
    ///
    /// # Errors
    /// The kernel refuses the size.
    pub fn set_mtu(&self, bytes: u32) -> Result<()> {
        self.links.iter().try_for_each(|link| link.set_mtu(bytes))
    }

    /// The links: left to relay, and relay to right.
    pub fn links(&self) -> &[Link; 2] {
        &self.links
    }

    /// The host of a place.
    pub fn host(&self, place: Place) -> &Host {
        match place {
            Place::Left => &self.left,
            Place::Relay => &self.relay,
            Place::Right => &self.right,
        }
    }

    /// What the left gateway takes for the right one: that, or the relay in its stead.
    pub const fn toward_right(path: Path) -> Ipv4Addr {
        match path {
            Path::Direct => Self::RIGHT,
            Path::Relayed => Self::RELAY,
        }
    }

    /// Prepares a program that starts in the host of a place, on its core.
    pub fn command(&self, place: Place, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.host(place).command(program);
        sys::start_on(&mut command, place.core());
        command.current_dir("/");
        command
    }
}
