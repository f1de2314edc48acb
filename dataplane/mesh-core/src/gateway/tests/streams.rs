//! TCP as the program would carry it: for each gateway that wants one a connection, and a bridge on a loopback address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::world::{Datagram, LATENCY, Output, World, address_of};
use crate::gateway::Stream;
use crate::seam::{Endpoint, Moment, SocketId};

/// The engine's socket for the bridge.
pub(crate) const BY_STREAM: SocketId = SocketId(1);

/// What the bridge does after a connection that was refused, and how long it waits for one that is not answered.
const RETRY: Duration = Duration::from_secs(1);
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// The bridge of a gateway.
pub(crate) fn bridge_of(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9000 + u16::from(number))
}

/// What arrives from it.
pub(crate) fn by_bridge(number: u8) -> Endpoint {
    Endpoint { socket: BY_STREAM, remote: bridge_of(number), local: None }
}

/// Whose connection the transfer sees at this address.
pub(crate) fn seen_by_transfer(address: SocketAddr) -> Option<u8> {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Some(ip.octets()[3]),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// What is there at the other end of TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tcp {
    /// The transfer, while it runs.
    #[default]
    Open,
    /// Nothing answers.
    Blocked,
    /// Something that takes connections and says nothing.
    Mute,
}

#[derive(Debug)]
enum State {
    /// A connection is tried, with this outcome then.
    Trying(Moment),
    /// Which connection of all, and with which start of the transfer.
    Connected { connection: u16, start: u32 },
}

#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) tcp: Tcp,
    /// How much longer than by UDP a frame is under way.
    pub(crate) late: Duration,
    bridges: BTreeMap<u8, State>,
    connections: u16,
    starts: u32,
    /// Connections that were made.
    pub(crate) made: u32,
}

impl Streams {
    pub(crate) fn transfer_started(&mut self) {
        self.starts += 1;
    }

    pub(crate) fn wanted(&mut self, now: Moment, number: u8, wanted: bool) {
        self.bridges.remove(&number);
        if wanted {
            self.bridges.insert(number, State::Trying(now + LATENCY * 2));
        }
    }

    fn is_gone(&self, start: u32, runs: bool) -> bool {
        self.tcp == Tcp::Open && (!runs || start != self.starts)
    }

    pub(crate) fn next(&self, now: Moment, transfer_runs: bool) -> Option<Moment> {
        let next = |state: &State| match state {
            State::Trying(at) => Some(*at),
            State::Connected { start, .. } => self.is_gone(*start, transfer_runs).then_some(now),
        };
        self.bridges.values().filter_map(next).min()
    }

    pub(crate) fn is_connected(&self, seen: SocketAddr) -> bool {
        let number = seen_by_transfer(seen).unwrap_or(0);
        let present =
            |state: &State| matches!(state, State::Connected { connection, .. } if *connection == seen.port());
        self.tcp == Tcp::Open && self.bridges.get(&number).is_some_and(present)
    }

    /// Where a datagram comes from and goes to in fact; `None` where there is no way for it.
    pub(crate) fn ends(
        &self,
        from: SocketAddr,
        to: Endpoint,
        transfer: SocketAddr,
    ) -> Option<(SocketAddr, SocketAddr)> {
        if to.socket != BY_STREAM {
            return Some((from, to.remote));
        }
        let number = (1..=u8::MAX).find(|number| address_of(*number) == from)?;
        assert_eq!(to.remote, bridge_of(number), "nothing else is sent to by this socket");
        match self.bridges.get(&number) {
            Some(State::Connected { connection, .. }) if self.tcp == Tcp::Open => {
                Some((SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 9, 0, number)), *connection), transfer))
            }
            Some(_) | None => None,
        }
    }

    /// How much longer a datagram takes for going by TCP.
    pub(crate) fn delay(&self, datagram: &Datagram) -> Duration {
        let by_tcp = seen_by_transfer(datagram.from).or(seen_by_transfer(datagram.to)).is_some();
        if by_tcp { self.late } else { Duration::ZERO }
    }
}

impl World {
    /// Lets connections come and go.
    pub(crate) fn tend_streams(&mut self) {
        let (now, runs) = (self.now, self.transfer.is_some());
        for number in self.streams.bridges.keys().copied().collect::<Vec<_>>() {
            let Streams { tcp, starts, .. } = self.streams;
            let word = match &self.streams.bridges[&number] {
                State::Trying(at) if *at <= now => match (tcp, runs) {
                    (Tcp::Open, true) | (Tcp::Mute, _) => {
                        self.streams.connections += 1;
                        self.streams.made += 1;
                        let state = State::Connected { connection: self.streams.connections, start: starts };
                        self.streams.bridges.insert(number, state);
                        Some(Stream { bridge: bridge_of(number), transfer: self.transfer_at })
                    }
                    (Tcp::Open, false) => {
                        self.streams.bridges.insert(number, State::Trying(now + RETRY));
                        continue;
                    }
                    (Tcp::Blocked, _) => {
                        self.streams.bridges.insert(number, State::Trying(now + CONNECT_TIME));
                        continue;
                    }
                },
                State::Connected { start, .. } if self.streams.is_gone(*start, runs) => {
                    self.streams.bridges.insert(number, State::Trying(now + RETRY));
                    None
                }
                State::Trying(_) | State::Connected { .. } => continue,
            };
            if let Some(gateway) = self.gateways.get_mut(&number) {
                gateway.set_stream(now, word);
                self.settle(number, Output::default());
            }
        }
    }
}
