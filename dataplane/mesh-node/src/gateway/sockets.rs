//! The outside sockets of a running gateway: given to the engine, and exchanged for others when they are tied to an interface that
//! was made anew, or when the address that was asked for comes or goes.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use mesh_core::gateway::{Gateway, Sockets};
use mesh_core::seam::{Moment, SocketId};

use super::partner::Partner;
use crate::iface::{Interface, Outside};
use crate::log::announce_warning;
use crate::mailbox::Mailbox;
use crate::outside::{self, Bound, Places};
use crate::pump::Flow;
use crate::select::Make;

/// Addresses and ports of the sockets, for whoever shows them.
pub(super) type Shown = Arc<Mutex<Vec<SocketAddr>>>;

/// What the main thread knows of the outside sockets.
#[derive(Debug)]
pub(super) struct Outlet {
    outside: Outside,
    can_be_tied: bool,
    ports: Vec<u16>,
    settled: Places,
    /// Whether the data thread was told to exchange them and has not answered.
    exchanging: bool,
    /// Whether the interfaces were looked at meanwhile.
    looked: bool,
    /// Whether it was told that there are none.
    refused: bool,
    shown: Shown,
}

/// What the data thread answers.
#[derive(Debug)]
pub(super) struct Exchanged {
    addresses: Vec<SocketAddr>,
    settled: Places,
}

impl Outlet {
    /// Binds the first sockets.
    pub(super) fn open(outside: Outside, interfaces: &[Interface], ports: Vec<u16>) -> anyhow::Result<(Self, Bound)> {
        let can_be_tied = match &outside {
            Outside::Interface { name, .. } => {
                let interface = interfaces.iter().find(|interface| interface.name == *name);
                interface.is_some_and(|interface| outside::can_be_tied(interface.index))
            }
            Outside::Routed => true,
        };
        let places = Places::wanted(&outside, interfaces, can_be_tied).context("the interface is gone: try again")?;
        let bound = outside::bind_at_start(&places, &ports)?;
        let shown = Arc::new(Mutex::new(bound.addresses()));
        let settled = bound.settled;
        Ok((
            Self { outside, can_be_tied, ports, settled, exchanging: false, looked: false, refused: false, shown },
            bound,
        ))
    }

    pub(super) fn outside(&self) -> &Outside {
        &self.outside
    }

    /// Where there are sockets.
    pub(super) fn places(&self) -> Places {
        self.settled
    }

    /// The port of the socket for IPv4.
    pub(super) fn port_ipv4(&self) -> Option<u16> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.iter().find(|address| address.is_ipv4()).map(SocketAddr::port)
    }

    pub(super) fn shown(&self) -> Shown {
        Arc::clone(&self.shown)
    }

    /// Looks whether the interfaces as they are now ask for other sockets, and has them exchanged; `done` is called on the data thread.
    pub(super) fn look<E: Make>(
        &mut self,
        interfaces: &[Interface],
        mailbox: &Mailbox<E, Gateway>,
        partner: &Partner<E>,
        done: impl FnOnce(anyhow::Result<Exchanged>) + Send + 'static,
    ) {
        let Some(places) = Places::wanted(&self.outside, interfaces, self.can_be_tied) else { return };
        self.looked = self.exchanging;
        if self.exchanging || places == self.settled {
            return;
        }
        self.exchanging = true;
        let (ports, partner, decider) = (self.ports.clone(), partner.clone(), mailbox.clone());
        mailbox.send(move |engine, gateway: &mut Gateway, now| {
            let Sockets { ipv4, ipv6, .. } = gateway.sockets();
            let old = [ipv4, ipv6].into_iter().flatten().collect();
            partner.without(old, (engine, gateway, now), &decider, move |engine, gateway, now| {
                done(exchange(engine, gateway, now, &places, &ports));
            });
            Flow::Continue
        });
    }

    /// Binds so many more sockets for IPv4 as the one there is, and hands them to the engine and the gateway.
    pub(super) fn open_more<E: Make>(&self, count: u32, mailbox: &Mailbox<E, Gateway>) {
        let bound = self.settled.ipv4.map(|place| outside::bind_more(place, count as usize)).unwrap_or_default();
        mailbox.send(move |engine, gateway: &mut Gateway, now| {
            let added = bound.into_iter().map_while(|socket| {
                let unspecified = socket.local_addr().is_ok_and(|address| address.ip().is_unspecified());
                let refused = |error: &std::io::Error| tracing::info!(%error, "the engine takes no more sockets");
                engine.add_socket(socket, unspecified).inspect_err(refused).ok()
            });
            gateway.sockets_opened(now, &added.collect::<Vec<_>>());
            Flow::Continue
        });
    }

    /// The data thread has answered; whether the interfaces have to be looked at once more.
    pub(super) fn exchanged(&mut self, outcome: anyhow::Result<Exchanged>) -> bool {
        self.exchanging = false;
        let Exchanged { addresses, settled } = match outcome {
            Ok(exchanged) => {
                tracing::info!(sockets = ?exchanged.addresses, "the sockets were bound anew: the interface has changed");
                self.refused = false;
                exchanged
            }
            // Tried again at the next look.
            Err(error) => {
                if !std::mem::replace(&mut self.refused, true) {
                    announce_warning(format_args!("{error:#}; it is tried again"));
                }
                Exchanged { addresses: Vec::new(), settled: Places::default() }
            }
        };
        self.settled = settled;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
        std::mem::take(&mut self.looked)
    }
}

/// Gives bound sockets to the engine.
pub(super) fn add<E: Make>(engine: &mut E, bound: Bound) -> anyhow::Result<Sockets> {
    let mut ids = Sockets::default();
    for socket in bound.sockets {
        let address = socket.local_addr()?;
        // An answer must leave from the address that was asked: a socket that is bound to none has to be told.
        let id = engine
            .add_socket(socket, address.ip().is_unspecified())
            .with_context(|| format!("the engine does not take the socket at {address}"))?;
        engine.note_buffers(id);
        match address {
            SocketAddr::V4(address) => (ids.ipv4, ids.ports.0) = (Some(id), address.port()),
            SocketAddr::V6(address) => (ids.ipv6, ids.ports.1) = (Some(id), address.port()),
        }
    }
    Ok(ids)
}

/// Gives the engine the socket for a bridge to TCP.
pub(super) fn add_stream<E: Make>(engine: &mut E, socket: UdpSocket) -> anyhow::Result<SocketId> {
    let id = engine.add_socket(socket, false).context("the engine does not take the socket for TCP")?;
    engine.note_buffers(id);
    Ok(id)
}

/// Closes sockets that [`Outlet::open_more`] opened.
pub(super) fn close<E: Make>(engine: &mut E, sockets: &[SocketId]) {
    for socket in sockets {
        if let Err(error) = engine.remove_socket(*socket) {
            tracing::warn!(%error, "a socket is not closed");
        }
    }
}

/// Closes the sockets there are, and binds others to the same port. They cannot be there both at once: one of them may be bound to an
/// address, and the other to all.
fn exchange<E: Make>(
    engine: &mut E,
    gateway: &mut Gateway,
    now: Moment,
    places: &Places,
    ports: &[u16],
) -> anyhow::Result<Exchanged> {
    let Sockets { ipv4, ipv6, .. } = gateway.sockets();
    for old in [ipv4, ipv6].into_iter().flatten() {
        if let Err(error) = engine.remove_socket(old) {
            tracing::warn!(%error, "a socket is not closed");
        }
    }
    let mut exchanged = Exchanged { addresses: Vec::new(), settled: Places::default() };
    let added = outside::bind(places, ports).and_then(|bound| {
        exchanged = Exchanged { addresses: bound.addresses(), settled: bound.settled };
        add(engine, bound)
    });
    gateway.set_sockets(now, *added.as_ref().unwrap_or(&Sockets::default()));
    added.map(|_| exchanged)
}
