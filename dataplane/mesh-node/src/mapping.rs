//! A port of the router that leads to ours: what a peer outside can send to without being sent to first.
//!
//! The default router is asked by PCP (RFC 6887), by NAT-PMP (RFC 6886), and as an Internet gateway of UPnP, in that order, on a thread
//! of its own:
//! - `keeper.rs` decides when: at once, at half of what was granted, when something may have changed, and rarely while nobody answers;
//! - `pcp.rs`, `natpmp.rs` and `upnp.rs` speak, the first two over the datagrams of `exchange.rs`;
//! - `answer.rs` judges what a router says: it may be broken, or none.
//!
//! Nothing is waited for: a gateway works without.

mod answer;
mod exchange;
mod keeper;
mod natpmp;
mod pcp;
mod upnp;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

pub use self::answer::may_be_public;
use self::keeper::Command;

/// How long the end of the program may be held up by giving the port back.
const RELEASE: Duration = Duration::from_millis(900);

/// `-mapping`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MappingChoice {
    /// Whatever the router speaks.
    #[default]
    Auto,
    /// No router is asked.
    Off,
}

impl std::str::FromStr for MappingChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            other => Err(format!("-mapping {other} does not exist: give auto or off")),
        }
    }
}

/// How a router is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The Port Control Protocol.
    Pcp,
    /// Its predecessor.
    NatPmp,
    /// UPnP, Internet Gateway Device.
    UpnpIgd,
}

impl Protocol {
    /// As in `gateway status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat-pmp",
            Self::UpnpIgd => "upnp-igd",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::UpnpIgd => "UPnP",
        })
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Whom to ask, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The router.
    pub router: Ipv4Addr,
    /// Our address on its network.
    pub client: Ipv4Addr,
    /// The interface it is asked by, where one was chosen.
    pub interface: Option<u32>,
    /// Our UDP port, not 0.
    pub port: u16,
}

/// What there is of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// This address and port lead to ours.
    Mapped {
        /// Outside.
        outside: SocketAddr,
        /// How it was got.
        protocol: Protocol,
    },
    /// There is none, or none any more.
    Lost {
        /// Why, for people.
        why: String,
    },
}

/// The thread that keeps a mapping.
#[derive(Debug)]
pub struct Mapper {
    commands: UnboundedSender<Command>,
    ended: mpsc::Receiver<()>,
}

impl Mapper {
    /// Starts the thread; it has nothing to ask yet. `identity` is secret and the same at each start: by it a router knows again who asked
    /// before a crash. `report` is called on that thread whenever something has changed.
    ///
    /// # Errors
    /// There is no thread, or no descriptors.
    pub fn start(identity: [u8; 12], report: impl FnMut(Report) + Send + 'static) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (commands, told) = unbounded_channel();
        let (end, ended) = mpsc::sync_channel(1);
        let run = move || {
            runtime.block_on(keeper::keep(identity, told, report));
            // Whoever waits for the end may have given up.
            let _ = end.try_send(());
        };
        thread::Builder::new().name("mesh-mapping".into()).spawn(run)?;
        Ok(Self { commands, ended })
    }

    /// The network is another, or may be: this is to be asked for now, even if it is what was asked for before.
    pub fn set_target(&self, target: Result<Target, String>) {
        self.send(Command::Target(target));
    }

    /// Something hints that the router is not what it was.
    pub fn check(&self) {
        self.send(Command::Check);
    }

    /// Begins to give the port back.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    /// Waits until it is given back, after [`Mapper::stop`]; less than a second.
    pub fn join(self) {
        // Either way there is nothing more to be done.
        let _ = self.ended.recv_timeout(RELEASE + Duration::from_millis(50));
    }

    fn send(&self, command: Command) {
        // The thread ends by Stop alone.
        let _ = self.commands.send(command);
    }
}
