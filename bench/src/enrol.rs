//! Clients of our transfer, registered as gateways are: by the gateway's own state machine, over real sockets.
//!
//! What they get are slots in the transfer's tables. With these, the generator writes data frames that the transfer cannot tell from
//! a gateway's, and forwards to the receiving client's socket. The clients themselves neither send nor open a data frame.

pub mod fleet;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use mesh_core::session::token::StretchedToken;
use mesh_lab::Host;
use mesh_wire::frame::FrameType;
use mesh_wire::route::{Destination, Route};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use self::fleet::Fleet;
use crate::load::{Flow, Head};
use crate::relay::Rig;
use crate::relay::rig::{PORTS_EACH, first_port};

/// Descriptors for everything but the clients' sockets.
const OTHER_DESCRIPTORS: u64 = 256;

/// The clients of a cell: a sending and a receiving one for each flow. Dropping it has them say goodbye.
#[derive(Debug)]
pub struct Enrolled {
    fleet: Fleet,
    flows: Vec<Flow>,
}

impl Enrolled {
    /// Registers the clients of `flows` flows with the transfer that runs in the relay's host, as the `number`-th system.
    ///
    /// Flow `i` belongs to namespace `i % namespaces`, that is the transfer's port `transfer.port() + i % namespaces`. Senders
    /// ask the transfer at the address given, receivers at [`Rig::RELAY_OUT`], so that answers to neither need another
    /// source address than the route's.
    ///
    /// # Errors
    /// A port is taken, or the transfer refuses a client or does not answer it.
    pub fn new(
        rig: &Rig,
        transfer: SocketAddrV4,
        token: &str,
        flows: u16,
        namespaces: u16,
        number: u16,
    ) -> Result<Self> {
        ensure!((1..=PORTS_EACH).contains(&flows), "a system has 1 to {PORTS_EACH} flows, not {flows}");
        ensure!((1..=flows).contains(&namespaces), "{flows} flows cannot be in {namespaces} namespaces");
        ensure!(
            transfer.port().checked_add(namespaces - 1).is_some(),
            "there are no {namespaces} ports from {transfer} on"
        );
        make_room(2 * u64::from(flows))?;

        let first = first_port(number);
        let mut fleet = Fleet::new(&StretchedToken::stretch(token.as_bytes()))?;
        let senders = bind(&rig.sender, Rig::SENDER, first, flows)?;
        let receivers = bind(&rig.receiver, Rig::RECEIVER, first, flows)?;
        let mut clients = Vec::new();
        for ((flow, sender), receiver) in (0..flows).zip(senders).zip(receivers) {
            let port = transfer.port() + flow % namespaces;
            let [sending, receiving] = [(sender, *transfer.ip()), (receiver, Rig::RELAY_OUT)].map(|(socket, ip)| {
                let socket = fleet.add_socket(socket)?;
                fleet.add_client(socket, SocketAddrV4::new(ip, port))
            });
            clients.push((sending?, receiving?));
        }
        fleet.enrol()?;

        let mut enrolled = Vec::new();
        for (flow, (sending, receiving)) in (0..flows).zip(clients) {
            let route = Route { destination: Destination::here(fleet.slot(receiving)?), source: fleet.slot(sending)? };
            enrolled.push(Flow {
                from: SocketAddrV4::new(Rig::SENDER, first + flow),
                to: SocketAddrV4::new(*transfer.ip(), transfer.port() + flow % namespaces),
                arrives: SocketAddrV4::new(Rig::RECEIVER, first + flow),
                head: Head::Nothing,
                route: route.emit(FrameType::Data, 0),
            });
        }
        Ok(Self { fleet, flows: enrolled })
    }

    /// The flows, in the order of their numbers.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Keeps the registrations alive: see [`Fleet::tend`].
    ///
    /// # Errors
    /// A client lost its registration, or the transfer does not answer.
    pub fn tend(&mut self) -> Result<()> {
        self.fleet.tend()
    }
}

/// Binds `count` sockets in a host, from port `first` on.
fn bind(host: &Host, ip: Ipv4Addr, first: u16, count: u16) -> Result<Vec<UdpSocket>> {
    host.run(|| {
        let addresses = (first..first + count).map(|port| SocketAddr::from((ip, port)));
        addresses.map(|address| UdpSocket::bind(address).with_context(|| format!("bind {address}"))).collect()
    })
}

/// Sees to it that the process may open so many sockets.
fn make_room(sockets: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of descriptors")?;
    let wanted = soft.max(sockets + OTHER_DESCRIPTORS).max(4 * OTHER_DESCRIPTORS);
    ensure!(
        wanted <= hard,
        "{sockets} sockets are more than the limit of descriptors allows ({hard}): raise `ulimit -Hn`"
    );
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).context("raise the limit of descriptors")
}
