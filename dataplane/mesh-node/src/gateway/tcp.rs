//! The bridge to a transfer over TCP: there for as long as the state machine wants it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use mesh_core::gateway::{Gateway, Stream};

use crate::mailbox::Mailbox;
use crate::pump::Flow;
use crate::select::Make;
use crate::stream::Counts;
use crate::stream::connect::{Bridge, Target};

/// What the main thread knows of it.
#[derive(Debug)]
pub(super) struct Tcp {
    /// The address of the engine's socket for it; nothing on a machine without a loopback address.
    engine: Option<SocketAddr>,
    target: Target,
    counts: Arc<Counts>,
    bridge: Option<Bridge>,
}

impl Tcp {
    /// Binds the engine's socket.
    pub(super) fn open() -> (Self, Option<UdpSocket>) {
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (engine, socket) = bound
            .inspect_err(|error| tracing::info!(%error, "the transfer is reached over UDP only: no loopback address"))
            .ok()
            .unzip();
        (Self { engine, target: Target::default(), counts: Arc::default(), bridge: None }, socket)
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// The state machine wants a bridge, or none any more.
    pub(super) fn wanted<E: Make>(&mut self, wanted: bool, mailbox: &Mailbox<E, Gateway>) {
        // What the one before says last is said before the next one says anything.
        self.bridge = None;
        let Some(engine) = self.engine.filter(|_| wanted) else { return };
        let mailbox = mailbox.clone();
        let tell = move |stream: Option<Stream>| {
            mailbox.send(move |_, gateway: &mut Gateway, now| {
                gateway.set_stream(now, stream);
                Flow::Continue
            });
        };
        match Bridge::start(engine, self.target.clone(), self.counts(), tell) {
            Ok(bridge) => self.bridge = Some(bridge),
            Err(error) => tracing::warn!(%error, "TCP to the transfer is not tried"),
        }
    }
}
