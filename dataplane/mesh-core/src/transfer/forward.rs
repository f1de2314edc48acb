//! The forwarding path. For each datagram of a train:
//!
//! 1. byte 0: a frame of this version that has a route, else it is for the transfer itself (or for nobody);
//! 2. destination 0: for the transfer itself;
//! 3. the source's slot and generation must be held by the endpoint that it came from, or have been until a moment ago (`moves.rs`);
//! 4. the destination's slot and generation must be held by another member of the same namespace;
//! 5. the datagrams that follow with the same 14 bytes of route are the same case: they join the **run**,
//!    and the run leaves as it came, by one action.
//!
//! A step is an array access and a comparison. There is no hash, no allocation and no change of state but counters. [`judge`]
//! is a pure function of header, endpoint and slot table, so that a program inside the kernel can do the same.
//!
//! Handshakes and control messages between gateways pass just as data does; a relay sees no difference.

use mesh_wire::frame::{self, FirstByte};
use mesh_wire::notice::AgainReason;
use mesh_wire::route::{Destination, ROUTE_BYTES, Route, Slot};

use super::slots::{Place, SlotTable};
use crate::drops::DropReason;
use crate::seam::Endpoint;

/// What becomes of one datagram.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict<'a> {
    /// Goes to `to` as it is.
    Forward {
        /// Whose counters it goes on.
        source: Slot,
        /// The place of the one it goes to, which is held.
        to: &'a Place,
    },
    /// Is for the transfer itself.
    Receive,
    /// Goes nowhere; its sender may be told once a second.
    Refuse(DropReason, AgainReason, Route),
    /// Goes nowhere.
    Drop(DropReason),
}

/// Decides about one datagram that came from `from`, whose socket stands for the namespace of `slots`.
pub(super) fn judge<'a>(datagram: &[u8], from: &Endpoint, slots: &'a SlotTable) -> Verdict<'a> {
    let Some(&first) = datagram.first() else {
        return Verdict::Drop(DropReason::Empty);
    };
    match frame::classify(first) {
        FirstByte::Frame(frame) if frame.has_route() => {}
        FirstByte::Frame(_) | FirstByte::UnknownType | FirstByte::FirstEdition | FirstByte::OtherVersion(_) => {
            return Verdict::Receive;
        }
    }
    let Ok(route) = Route::parse(datagram) else {
        return Verdict::Drop(DropReason::TooShort);
    };
    let Destination { transfer, slot: destination } = route.destination;
    if transfer != 0 {
        return Verdict::Drop(DropReason::UnknownTransfer);
    }
    if destination.is_none() {
        return Verdict::Receive;
    }
    let Some(source) = slots.get(route.source) else {
        return Verdict::Refuse(DropReason::UnknownSource, AgainReason::UnknownSource, route);
    };
    if !slots.is_at(source, &from.remote) {
        return Verdict::Refuse(DropReason::EndpointMoved, AgainReason::EndpointMoved, route);
    }
    if destination.index == route.source.index {
        return Verdict::Drop(DropReason::ToItself);
    }
    let Some(to) = slots.get(destination) else {
        return Verdict::Refuse(DropReason::UnknownDestination, AgainReason::UnknownDestination, route);
    };
    Verdict::Forward { source: route.source, to }
}

/// Where the run ends that starts with the datagram at `start`, which [`judge`] let pass: at the first datagram that is not
/// routed exactly so.
pub(super) fn run_end(train: &[u8], start: usize, stride: usize) -> usize {
    debug_assert!(
        stride >= ROUTE_BYTES || start + stride >= train.len(),
        "`judge` lets no datagram without a header pass"
    );
    let route = &train[start + 2..start + ROUTE_BYTES];
    let mut at = (start + stride).min(train.len());
    while let Some(header) = train.get(at..at + ROUTE_BYTES) {
        // A last datagram that is shorter than its header is not seen here: it is left to `judge`.
        if header[2..] != *route || !is_routed(header[0]) {
            break;
        }
        at = (at + stride).min(train.len());
    }
    at
}

fn is_routed(first: u8) -> bool {
    matches!(frame::classify(first), FirstByte::Frame(frame) if frame.has_route())
}
