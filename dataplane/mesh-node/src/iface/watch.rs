//! The network around the machine, and word of its changes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use super::{Interface, Outside, imp};

/// Changes within this time are one: a lease that is renewed takes an address away, brings another, and routes with it.
pub(super) const GATHER: Duration = Duration::from_millis(75);

/// Addresses that only default routes lead to: those of a root server. Nothing is sent there.
pub(super) const FAR_IPV4: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
pub(super) const FAR_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30);

/// The way out to the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The number of the interface.
    pub interface: u32,
    /// The router; `None` on a link between two, and where everybody is taken to be on the link.
    pub router: Option<IpAddr>,
    /// The address that datagrams leave from, where the system tells.
    pub source: Option<IpAddr>,
}

/// What there is of the network at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// The way out by IPv4: that of the chosen interface, if one was chosen.
    pub ipv4: Option<DefaultRoute>,
    /// The way out by IPv6.
    pub ipv6: Option<DefaultRoute>,
}

/// Looks at the network as what is bound as `outside` says sees it.
///
/// # Errors
/// The system does not tell.
pub fn look(outside: &Outside) -> io::Result<Snapshot> {
    imp::look(outside)
}

/// Hands `tell` a snapshot at once and one after each change, on a thread of its own, until it says `false`. Changes within
/// 75 ms are told together.
///
/// # Errors
/// There is no thread.
pub fn watch(outside: Outside, mut tell: impl FnMut(Snapshot) -> bool + Send + 'static) -> io::Result<()> {
    let mut last = None;
    let mut look_and_tell = move || match look(&outside) {
        Ok(snapshot) if last.as_ref() == Some(&snapshot) => true,
        Ok(snapshot) => {
            last = Some(snapshot.clone());
            tell(snapshot)
        }
        Err(error) => {
            tracing::info!(%error, "the network interfaces cannot be listed");
            true
        }
    };
    let run = move || {
        if let Err(error) = imp::watch(&mut look_and_tell) {
            tracing::warn!(%error, "changes of the network are not noticed: they are looked for while the transfer does not answer");
        }
    };
    thread::Builder::new().name("mesh-network".into()).spawn(run).map(drop)
}
