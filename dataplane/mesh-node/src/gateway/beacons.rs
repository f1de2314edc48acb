//! The sockets for beacons of a running gateway: opened anew whenever the interfaces are others.

use mesh_core::gateway::{BeaconSocket, Beacons, Gateway};
use mesh_core::seam::{Moment, SocketId};

use crate::beacons::{self, Lane, Opened};
use crate::iface::Outside;
use crate::iface::watch::Snapshot;
use crate::log::announce_warning;
use crate::mailbox::Mailbox;
use crate::pump::Flow;
use crate::select::Make;

/// What the main thread knows of them.
#[derive(Debug, Default)]
pub(super) struct BeaconSockets {
    lanes: Vec<Lane>,
    /// Whether it was told that there are none.
    refused: bool,
}

impl BeaconSockets {
    /// Opens others if the interfaces ask for them, and has the data thread use them.
    pub(super) fn look<E: Make>(&mut self, outside: &Outside, snapshot: &Snapshot, mailbox: &Mailbox<E, Gateway>) {
        let lanes = beacons::lanes(outside, snapshot);
        if lanes == self.lanes {
            return;
        }
        let opened = beacons::open(&lanes, outside);
        self.lanes = lanes;
        if let Some(error) = &opened.refused {
            if !std::mem::replace(&mut self.refused, true) {
                announce_warning(format_args!(
                    "gateways of the local network are not looked for ({error}): another program has UDP port {} for itself",
                    mesh_core::gateway::BEACON_PORT
                ));
            }
            // It may be free the next time.
            self.lanes.clear();
        } else {
            self.refused = false;
        }
        mailbox.send(move |engine, gateway: &mut Gateway, now| {
            exchange(engine, gateway, now, opened);
            Flow::Continue
        });
    }
}

/// Closes the sockets there are, and uses others.
fn exchange<E: Make>(engine: &mut E, gateway: &mut Gateway, now: Moment, opened: Opened) {
    let Beacons { hearing, sending } = gateway.beacons();
    let mut old: Vec<SocketId> = hearing.iter().copied().chain(sending.iter().map(|beacon| beacon.socket)).collect();
    old.sort_unstable();
    old.dedup();
    for socket in old {
        if let Err(error) = engine.remove_socket(socket) {
            tracing::warn!(%error, "a socket for beacons is not closed");
        }
    }
    gateway.set_beacons(now, add(engine, opened));
}

/// Gives them to the engine. One that it does not take is left out.
fn add<E: Make>(engine: &mut E, opened: Opened) -> Beacons {
    let mut add = |socket| {
        let added = engine.add_socket(socket, false);
        added.inspect_err(|error| tracing::warn!(%error, "the engine does not take a socket for beacons")).ok()
    };
    let hearing = opened.hearing.into_iter().filter_map(&mut add).collect();
    let mut sending = Vec::new();
    for beacons::Sending { socket, interface, to } in opened.sending {
        let Some(socket) = add(socket) else { continue };
        sending.extend(to.into_iter().map(|to| BeaconSocket { socket, interface, to }));
    }
    Beacons { hearing, sending }
}
