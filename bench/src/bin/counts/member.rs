//! A gateway without a virtual interface, on a real socket: the state machine of the product, driven by one thread.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_core::gateway::{Event, Gateway};
use mesh_core::node::Node as _;
use mesh_core::seam::{Action, Arrival, Endpoint, Origin, Slab, SocketId};
use mesh_core::session::token::NamespaceKeys;
use mesh_node::clock;

use crate::world::{gateway_config, ip4, packet, packets};

/// How long a member waits for a datagram before it looks at its timers again.
const LOOK: Duration = Duration::from_millis(5);
/// Until members are registered and have sessions.
const ENROL_WITHIN: Duration = Duration::from_secs(20);
/// Longest datagram read.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// See the [module](self).
pub(crate) struct Member {
    pub(crate) socket: UdpSocket,
    gateway: Gateway,
    transfer: SocketAddr,
    slab: Vec<u8>,
    actions: Vec<Action>,
    registered: bool,
    delivered: usize,
}

impl Member {
    fn new(number: u8, socket: UdpSocket, transfer: SocketAddr, keys: NamespaceKeys) -> Result<Self> {
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self {
            socket,
            gateway: Gateway::new(gateway_config(number, keys), clock::now()),
            transfer,
            slab: vec![0; Slab::ROOM_BYTES],
            actions: Vec::new(),
            registered: false,
            delivered: 0,
        })
    }

    /// Does what is due, then takes one datagram if one comes.
    fn turn(&mut self) -> Result<()> {
        let now = clock::now();
        if self.gateway.poll_timeout().is_some_and(|at| at <= now) {
            self.gateway.handle_timeout(now);
        }
        while let Some(event) = self.gateway.poll_event() {
            self.registered |= matches!(event, Event::Registered { .. });
            if event == Event::ResolveTransfer {
                self.gateway.set_transfer(now, &[self.transfer]);
            }
        }
        while let Some(job) = self.gateway.poll_job() {
            self.gateway.handle_job(now, job.run());
        }
        while let Some(action) = self.gateway.poll_transmit(now, &mut Slab::new(&mut self.slab, 0)) {
            self.actions.push(action);
            self.act()?;
        }
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        let Ok((bytes, remote)) = self.socket.recv_from(&mut datagram) else { return Ok(()) };
        let from = Endpoint { socket: SocketId(0), remote, local: None };
        let arrival = Arrival { origin: Origin::Outside(from), segment_bytes: bytes.max(1), tos: 0 };
        let mut slab = Slab::new(&mut self.slab, 0);
        self.gateway.handle(clock::now(), &arrival, &mut datagram[..bytes], &mut slab, &mut self.actions);
        self.act()
    }

    /// Hands packets to the virtual interface.
    fn inside(&mut self, packets: &mut [u8], segment_bytes: usize) {
        let arrival = Arrival { origin: Origin::Inside, segment_bytes, tos: 0 };
        let mut slab = Slab::new(&mut self.slab, 0);
        self.gateway.handle(clock::now(), &arrival, packets, &mut slab, &mut self.actions);
    }

    fn act(&mut self) -> Result<()> {
        for action in self.actions.drain(..) {
            match action {
                Action::Send { slab, to, .. } => _ = self.socket.send_to(&self.slab[slab], to.remote)?,
                Action::Deliver { .. } | Action::DeliverSlab { .. } => self.delivered += 1,
                Action::DeliverMore { .. } => {}
                Action::Forward { .. } => panic!("a gateway relays nothing"),
            }
        }
        Ok(())
    }

    /// The datagrams that carry `count` packets of `bytes` to the second member, back to back; each has the same length.
    pub(crate) fn sealed(&mut self, count: usize, bytes: usize) -> Result<Vec<u8>> {
        self.inside(&mut packets(count, bytes, false), bytes);
        let mut train = Vec::new();
        for action in self.actions.drain(..) {
            if let Action::Send { slab, to, .. } = action {
                ensure!(to.remote == self.transfer, "a datagram for {} does not pass the transfer", to.remote);
                train.extend_from_slice(&self.slab[slab]);
            }
        }
        Ok(train)
    }
}

/// Two members of one network that have sessions with each other.
pub(crate) fn pair(
    sockets: [UdpSocket; 2],
    transfer: SocketAddr,
    keys: impl Fn() -> NamespaceKeys,
) -> Result<[Member; 2]> {
    let [first, second] = sockets;
    let mut members = [Member::new(0, first, transfer, keys())?, Member::new(1, second, transfer, keys())?];
    let start = Instant::now();
    while !members.iter().all(|member| member.registered) {
        ensure!(start.elapsed() < ENROL_WITHIN, "the transfer at {transfer} registers nobody");
        members.iter_mut().try_for_each(Member::turn)?;
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let (source, target) = (usize::from(from), usize::from(to));
        members[source].inside(&mut packet(ip4(from), ip4(to), 100), 100);
        members[source].act()?;
        while members[target].delivered == 0 {
            ensure!(start.elapsed() < ENROL_WITHIN, "no packet passes the transfer at {transfer}");
            members.iter_mut().try_for_each(Member::turn)?;
        }
    }
    Ok(members)
}
