//! Clients of a TURN server (RFC 8656): allocations with a channel each, kept alive.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use mesh_lab::Host;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use turn_client_proto::api::{TurnClientApi as _, TurnConfig, TurnEvent, TurnPollRet};
use turn_client_proto::prelude::DelayedTransmitBuild as _;
use turn_client_proto::stun;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::types::{TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use super::program::START;
use crate::load::Head;

/// Clients that wait for answers at one time: their requests fit the receive buffer of any server.
const AT_ONCE: usize = 32;
/// Milliseconds to wait for an answer before clients are asked whether it is time to say something again.
const PATIENCE: u16 = 20;
/// Longest message of a server: what fits a datagram of Ethernet.
const MESSAGE_BYTES: usize = 1_500;

/// A name and a password, as a server was told them.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) name: String,
    pub(super) password: String,
}

impl Credentials {
    /// A password that nobody else knows.
    pub(super) fn random() -> Self {
        Self { name: "bench".to_owned(), password: format!("{:032x}", rand::random::<u128>()) }
    }
}

/// Clients of one server.
pub(super) struct Clients {
    clients: Vec<Client>,
    start: Instant,
}

struct Client {
    socket: UdpSocket,
    turn: TurnClientUdp,
    /// The address on the server that stands for the client.
    relayed: Option<SocketAddr>,
    /// Whether the channel is bound.
    bound: bool,
}

impl Clients {
    /// Has an allocation made for each of some addresses of a host.
    ///
    /// # Errors
    /// An address is taken, the server refuses, or does not answer in ten seconds.
    pub(super) fn allocate(
        host: &Host,
        addresses: impl IntoIterator<Item = SocketAddrV4>,
        server: SocketAddrV4,
        credentials: &Credentials,
    ) -> Result<Self> {
        let client = |address: SocketAddrV4| -> Result<Client> {
            let socket = host.udp(address.into())?;
            socket.connect(server).with_context(|| format!("connect {address} to {server}"))?;
            socket.set_nonblocking(true).context("make a socket non-blocking")?;
            let credentials = TurnCredentials::new(&credentials.name, &credentials.password);
            let turn = TurnClientUdp::allocate(address.into(), server.into(), TurnConfig::new(credentials));
            Ok(Client { socket, turn, relayed: None, bound: false })
        };
        let clients = addresses.into_iter().map(client).collect::<Result<_>>()?;
        let mut clients = Self { clients, start: Instant::now() };
        clients.settle(|client| client.relayed.is_some()).context("allocate")?;
        Ok(clients)
    }

    /// The addresses on the server that stand for the clients.
    pub(super) fn relayed(&self) -> Vec<SocketAddr> {
        self.clients.iter().filter_map(|client| client.relayed).collect()
    }

    /// Has each client bind a channel to a peer. Returns the numbers of the channels.
    ///
    /// # Errors
    /// The server refuses, or does not answer in ten seconds.
    pub(super) fn bind(&mut self, peers: &[SocketAddr]) -> Result<Vec<u16>> {
        let now = self.now();
        ensure!(peers.len() == self.clients.len(), "{} clients have {} peers", self.clients.len(), peers.len());
        for (group, peers) in self.clients.chunks_mut(AT_ONCE).zip(peers.chunks(AT_ONCE)) {
            for (client, peer) in group.iter_mut().zip(peers) {
                client.turn.bind_channel(TransportType::Udp, *peer, now).map_err(|error| anyhow!("{error}"))?;
            }
            settle(group, self.start, |client| client.bound).context("bind a channel")?;
        }
        let now = self.now();
        self.clients.iter_mut().zip(peers).map(|(client, peer)| client.channel(*peer, now)).collect()
    }

    /// Sends what keeps allocations and channels alive, and reads the answers to what was sent before.
    ///
    /// # Errors
    /// The server has refused, or forgotten a client.
    pub(super) fn tend(&mut self) -> Result<()> {
        let now = self.now();
        self.clients.iter_mut().try_for_each(|client| client.step(now))
    }

    fn settle(&mut self, done: impl Fn(&Client) -> bool) -> Result<()> {
        self.clients.chunks_mut(AT_ONCE).try_for_each(|group| settle(group, self.start, &done))
    }

    fn now(&self) -> stun::Instant {
        time(self.start)
    }
}

/// The time as the clients are told it.
fn time(start: Instant) -> stun::Instant {
    stun::Instant::ZERO + start.elapsed()
}

/// Lets some clients talk until all are done.
fn settle(clients: &mut [Client], start: Instant, done: impl Fn(&Client) -> bool) -> Result<()> {
    let deadline = Instant::now() + START;
    loop {
        let now = time(start);
        clients.iter_mut().try_for_each(|client| client.step(now))?;
        if clients.iter().all(&done) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the server did not answer in {START:?}");
        let mut sockets: Vec<_> =
            clients.iter().map(|client| PollFd::new(client.socket.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut sockets, PollTimeout::from(PATIENCE)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for an answer"),
        }
    }
}

impl Client {
    /// Reads what has come, sends what is due, and notes what happened.
    fn step(&mut self, now: stun::Instant) -> Result<()> {
        let mut message = [0; MESSAGE_BYTES];
        loop {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    let (from, to) = (self.turn.remote_addr(), self.turn.local_addr());
                    // Nobody sends data to these clients; what is none of theirs is nothing to them.
                    let _ = self.turn.recv(Transmit::new(&message[..length], TransportType::Udp, from, to), now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The server is not up yet or has gone: silence, until the time is over.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error).context("receive from the server"),
            }
        }
        if let TurnPollRet::Closed = self.turn.poll(now) {
            bail!("the server has closed an allocation");
        }
        while let Some(transmit) = self.turn.poll_transmit(now) {
            // It is sent again if no answer comes.
            let _ = self.socket.send(&transmit.data);
        }
        while let Some(event) = self.turn.poll_event() {
            match event {
                TurnEvent::AllocationCreated(_, relayed) => self.relayed = Some(relayed),
                TurnEvent::ChannelCreated(..) => self.bound = true,
                TurnEvent::AllocationCreateFailed(_) => bail!("the server makes no allocation"),
                TurnEvent::PermissionCreateFailed(_, peer) => bail!("the server permits no traffic to {peer}"),
                TurnEvent::ChannelCreateFailed(_, peer) => bail!("the server binds no channel to {peer}"),
                TurnEvent::PermissionCreated(..) | TurnEvent::TcpConnected(_) | TurnEvent::TcpConnectFailed(_) => {}
            }
        }
        Ok(())
    }

    /// The number of the channel to a peer: what the client writes before data for it.
    fn channel(&mut self, peer: SocketAddr, now: stun::Instant) -> Result<u16> {
        let sent = self.turn.send_to(TransportType::Udp, peer, [0_u8; 4], now).map_err(|error| anyhow!("{error}"))?;
        let data = sent.map(|transmit| transmit.data.build()).unwrap_or_default();
        let number = data.first_chunk().filter(|bytes: &&[u8; 2]| Head::CHANNEL_FIRST_BYTES.contains(&bytes[0]));
        number.map(|bytes| u16::from_be_bytes(*bytes)).with_context(|| format!("there is no channel to {peer}"))
    }
}
