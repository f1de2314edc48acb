//! The load of applications through a tunnel, made and counted here: TCP streams, datagrams at a rate, pings, pings beside a stream.
//!
//! Who sends runs in the left host on its core, who receives in the right host on its. Sockets are bound to the inner addresses, so
//! nothing leaves beside the tunnel.

pub mod bulk;
pub mod ping;
pub mod tcp;
pub mod udp;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use mesh_lab::Host;

use crate::cost::{self, Busy};

/// The two ends of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The host that sends.
    pub from: &'a Host,
    /// Its inner address.
    pub source: Ipv4Addr,
    /// The host that receives.
    pub to: &'a Host,
    /// Its inner address.
    pub destination: Ipv4Addr,
    /// The process numbers of the tunnel's programs, for what they cost; none if the kernel does it all.
    pub programs: &'a [u32],
    /// Which of them carries packets from one end to the other, if one does.
    pub relay: Option<u32>,
}

/// What processors spent in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Spent {
    /// All cores of the machine, whatever for.
    pub machine: Duration,
    /// The tunnel's programs in user and kernel mode, softirqs that happened to interrupt them included.
    pub programs: Duration,
    /// That of them which carries packets from one end to the other, if one does.
    pub relay: Option<Duration>,
}

/// A reading of what processors have spent until now.
struct Meter {
    machine: Busy,
    programs: Duration,
    relay: Option<Duration>,
}

impl Meter {
    fn read(ends: &Ends<'_>) -> Result<Self> {
        let programs = ends.programs.iter().map(|program| cost::processor_time(*program)).sum::<Result<Duration>>()?;
        let relay = ends.relay.map(cost::processor_time).transpose()?;
        Ok(Self { machine: cost::busy()?, programs, relay })
    }

    fn since(&self, earlier: &Meter) -> Spent {
        Spent {
            machine: self.machine.since(&earlier.machine),
            programs: self.programs.saturating_sub(earlier.programs),
            relay: self.relay.zip(earlier.relay).map(|(now, then)| now.saturating_sub(then)),
        }
    }
}
