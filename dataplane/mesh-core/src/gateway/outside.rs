//! From the network to the virtual interface. For each datagram of a train:
//!
//! 1. byte 0 tells a data or control frame; its session is found by index, an array access;
//! 2. it must come from the transfer, or on a path to the peer;
//! 3. the counter is checked against the window, the frame opened in place, the counter remembered: so each is also checked
//!    against those before it in the same train;
//! 4. an inner packet must come from an address of the session's peer and be for one of ours;
//! 5. it is delivered where it lies, with those of its flow that follow it in the train, where the interface takes that.
//!
//! Nothing is allocated for a packet. All other frames are in the second half of this file.

use std::ops::Range;

use mesh_wire::Malformed;
use mesh_wire::cookie::CookieReply;
use mesh_wire::frame::{self, FirstByte, FrameType};
use mesh_wire::half::{Half, Part};
use mesh_wire::handshake::{self as wire, Final, Init, Response};
use mesh_wire::notice::{ErrorReply, RegisterAgain};
use mesh_wire::route::Route;
use mesh_wire::sealed::{HEADER_BYTES, SealedHeader, flags};

use super::callers::Caller;
use super::halves::Joined;
use super::indexes::Owner;
use super::inside::TEND_INTERVAL;
use super::ip::{self, Whereto};
use super::paths::OUTER_BYTES_ASSUMED;
use super::segments::arrive;
use super::{Gateway, Held, Outgoing, addresses, mss, tos};
use crate::drops::DropReason;
use crate::seam::{Action, Arrival, Endpoint, Moment, Slab};
use crate::session::keyring::{Refused, Slot};
use crate::session::mac;

/// What came out of a sealed frame.
enum Opened {
    /// Nothing to be delivered.
    Nothing,
    /// An inner packet: this part of the frame, and whether its checksum covers the pseudo header only.
    Packet(Range<usize>, bool),
    /// An inner packet of two halves: so many bytes of the scratch memory.
    Joined(usize),
}

impl Gateway {
    /// Takes a train from the network.
    pub(super) fn handle_outside(
        &mut self,
        now: Moment,
        from: Endpoint,
        arrival: &Arrival,
        train: &mut [u8],
        slab: &mut Slab<'_>,
        actions: &mut Vec<Action>,
    ) {
        if train.is_empty() {
            self.drops.count(DropReason::Empty);
            return;
        }
        let (stride, tos) = (arrival.segment_bytes.max(1), arrival.tos);
        let beacons_alone = self.is_for_beacons(from.socket);
        if self.sockets.stream == Some(from.socket) && self.relay.check_bridge(&from).is_err() {
            return self.drops.count_many(DropReason::UnknownEndpoint, train.len().div_ceil(stride) as u64);
        }
        let head = self.offloads.header_bytes();
        let mut start = 0;
        while start < train.len() {
            let end = train.len().min(start + stride);
            let datagram = &mut train[start..end];
            let opened = match frame::classify(datagram[0]) {
                FirstByte::Frame(frame) if beacons_alone && frame != FrameType::Beacon => {
                    Err(DropReason::UnexpectedType)
                }
                FirstByte::Frame(FrameType::Data | FrameType::Control) => {
                    self.open(now, &from, tos, datagram, slab.free().get_mut(head..).unwrap_or_default())
                }
                FirstByte::Frame(frame) => self.handle_frame(now, &from, frame, datagram).map(|()| Opened::Nothing),
                FirstByte::UnknownType => Err(DropReason::UnknownType),
                FirstByte::FirstEdition => Err(DropReason::FirstEdition),
                FirstByte::OtherVersion(_) => Err(DropReason::OtherVersion),
            };
            let delivered = opened.and_then(|opened| {
                match opened {
                    Opened::Nothing => {}
                    Opened::Packet(range, partial) => {
                        self.coalescer.offer(train, start + range.start..start + range.end, partial, actions)?;
                    }
                    Opened::Joined(bytes) => {
                        // It may be of a flow that is being gathered.
                        self.coalescer.finish(train, actions);
                        slab.free()[..head].fill(0);
                        actions.push(Action::DeliverSlab { slab: slab.take(head + bytes) });
                    }
                }
                Ok(())
            });
            if let Err(reason) = delivered {
                self.drops.count(reason);
            }
            start = end;
        }
        self.coalescer.finish(train, actions);
    }

    /// Opens a frame that had to wait for its session.
    pub(super) fn open_held(&mut self, now: Moment, held: &Held, slab: &mut Slab<'_>) -> Option<Action> {
        let frame_bytes = held.bytes.len();
        if slab.free().len() < frame_bytes {
            self.drops.count(DropReason::NoRoom);
            return None;
        }
        let head = self.offloads.header_bytes();
        let (frame, scratch) = slab.free().split_at_mut(frame_bytes);
        frame.copy_from_slice(&held.bytes);
        let opened = self.open(now, &held.from, held.tos, frame, scratch.get_mut(head..).unwrap_or_default());
        match opened {
            Ok(Opened::Nothing) => None,
            Ok(Opened::Packet(range, partial)) => {
                let header = match arrive(&mut frame[range.clone()], partial, self.offloads) {
                    Ok(header) => header,
                    Err(reason) => {
                        self.drops.count(reason);
                        return None;
                    }
                };
                let first = range.start - head;
                frame[first..range.start].copy_from_slice(&header.emit()[..head]);
                let start = slab.take(range.end).start;
                Some(Action::DeliverSlab { slab: start + first..start + range.end })
            }
            Ok(Opened::Joined(bytes)) => {
                scratch[..head].fill(0);
                let start = slab.take(frame_bytes + head + bytes).start + frame_bytes;
                Some(Action::DeliverSlab { slab: start..start + head + bytes })
            }
            Err(reason) => {
                self.drops.count(reason);
                None
            }
        }
    }

    /// Opens a sealed frame in place, which came with this TOS byte. A packet that it completes the second half of is written to `scratch`.
    fn open(
        &mut self,
        now: Moment,
        from: &Endpoint,
        tos: u8,
        datagram: &mut [u8],
        scratch: &mut [u8],
    ) -> Result<Opened, DropReason> {
        let header = SealedHeader::parse(datagram).map_err(reason)?;
        let index = header.receiver_index;
        let straight = self.relay.check_source(from).is_err().then_some(*from);
        let id = match self.indexes.owner(index) {
            Some(Owner::Session(id)) => id,
            Some(Owner::Answering(place)) => {
                self.answers.hold(place, index, *from, straight.is_none(), (tos, datagram))?;
                return Ok(Opened::Nothing);
            }
            Some(Owner::Control | Owner::Registering) => {
                if header.frame != FrameType::Control {
                    return Err(DropReason::UnexpectedType);
                }
                self.handle_transfer_control(now, from, index, header.counter, datagram)?;
                return Ok(Opened::Nothing);
            }
            Some(Owner::Asking(_)) | None => return Err(DropReason::UnknownSession),
        };
        let peer = self.peers.get_mut(id).ok_or(DropReason::UnknownSession)?;
        let keyring = peer.keyring.as_mut().ok_or(DropReason::UnknownSession)?;
        let (session, hand) = keyring.opening(index).ok_or(DropReason::UnknownSession)?;
        let (head, body) = datagram.split_at_mut(HEADER_BYTES);
        let bytes = session.open(header.counter, head, body).map_err(refused)?;
        let newest = session.newest() == header.counter + 1;
        peer.received_at = Some(now);
        peer.unanswered_since = None;
        peer.probing = None;
        let known = peer.paths.note_received(straight.as_ref());
        if straight.is_none() {
            self.relay.heard(now);
        } else if !known && newest && hand != Slot::Previous {
            // Older ones may have been kept, by somebody who now sends them on from elsewhere.
            self.stranger(now, id, from);
        }
        if hand == Slot::Next {
            self.promote(now, id);
        }
        self.heard_under(id, index);

        let plaintext = HEADER_BYTES..HEADER_BYTES + bytes;
        if header.frame == FrameType::Control {
            self.handle_peer_message(now, id, hand, straight, from.remote, &datagram[plaintext])?;
            return Ok(Opened::Nothing);
        }
        if bytes == 0 {
            return Ok(Opened::Nothing);
        }
        let part = match header.flags {
            0 | flags::CHECKSUM_PARTIAL => None,
            flags::FIRST_HALF => Some(Part::First),
            flags::SECOND_HALF => Some(Part::Second),
            _ => return Err(DropReason::UnexpectedFlags),
        };
        let Some(part) = part else {
            let partial = header.flags == flags::CHECKSUM_PARTIAL;
            self.accept(now, id, tos, &mut datagram[plaintext.clone()], partial)?;
            return Ok(Opened::Packet(plaintext, partial));
        };
        let half = Half::parse(part, &datagram[plaintext]).map_err(|_| DropReason::HalfLost)?;
        match self.joiner.join(now, id, &half, tos, scratch) {
            Joined::Waits => Ok(Opened::Nothing),
            Joined::Whole { bytes, tos } => {
                self.accept(now, id, tos, &mut scratch[..bytes], false)?;
                Ok(Opened::Joined(bytes))
            }
            Joined::Refused => Err(DropReason::HalfLost),
        }
    }

    /// Checks an inner packet from a peer, which then may be delivered. Its outer one came with this TOS byte; `partial`: its checksum
    /// covers the pseudo header only.
    fn accept(&mut self, now: Moment, id: u32, tos: u8, packet: &mut [u8], partial: bool) -> Result<(), DropReason> {
        let inner = ip::parse(packet)?;
        let peer = self.peers.get_mut(id).ok_or(DropReason::UnknownSession)?;
        if !self.network.belongs_to(inner.source, peer.ip4) {
            return Err(DropReason::SpoofedSource);
        }
        if self.network.whereto(inner.destination) != Whereto::Ourselves {
            return Err(DropReason::NotForUs);
        }
        tos::combine(packet, tos)?;
        // Only here: what a SYN announces is for packets that go from us to the peer, of which we know how long they may be.
        if let Some(path) = peer.path(&self.relay) {
            mss::clamp(packet, &inner, peer.paths.segment_bytes(&path, self.outer), partial);
        } else if let Some(path) = peer.relayed(&self.relay) {
            mss::clamp(packet, &inner, path.inner_bytes(OUTER_BYTES_ASSUMED), partial);
        }
        let woken = peer.use_now(now);
        peer.traffic.packets_in += 1;
        peer.traffic.bytes_in += packet.len() as u64;
        self.relay.used(now);
        self.peers.timers.by(id, if woken { now } else { now + TEND_INTERVAL });
        Ok(())
    }

    /// The peer uses the next session: so do we.
    fn promote(&mut self, now: Moment, id: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(keyring) = &mut peer.keyring else { return };
        // It may be another start of the peer, which counts its lists anew.
        peer.exchange.theirs = 0;
        let released = keyring.promote(now);
        let initiator = keyring.current().is_some_and(|session| session.initiator());
        for index in released {
            self.indexes.release(index);
        }
        if initiator {
            self.send_empty(id);
        }
        self.peers.timers.by(id, now);
    }

    /// A frame came under the session `index`: its Final has arrived.
    fn heard_under(&mut self, id: u32, index: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.asking.take_if(|asking| asking.index == index);
    }
}

/// Frames that are not sealed.
impl Gateway {
    fn handle_frame(
        &mut self,
        now: Moment,
        from: &Endpoint,
        frame: FrameType,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        match frame {
            FrameType::HandshakeInit => self.receive_init(now, from, datagram),
            FrameType::HandshakeResponse => self.receive_response(now, from, datagram),
            FrameType::HandshakeFinal => self.receive_final(now, from, datagram),
            FrameType::CookieReply => {
                let reply = CookieReply::parse(datagram).map_err(reason)?;
                match self.indexes.owner(reply.receiver_index) {
                    Some(Owner::Asking(id)) => self.handle_peer_cookie(now, id, from, &reply),
                    _ => self.handle_cookie(now, from, &reply),
                }
            }
            FrameType::RegisterAgain => {
                self.relay.check_source(from)?;
                let notice = RegisterAgain::parse(datagram).map_err(reason)?;
                self.handle_register_again(now, &notice);
                Ok(())
            }
            FrameType::Beacon => self.handle_beacon(now, from, datagram),
            FrameType::Error => {
                let error = ErrorReply::parse(datagram).map_err(reason)?;
                self.handle_error(from, &error)
            }
            FrameType::Observed => self.receive_observed(now, from, datagram),
            FrameType::Data | FrameType::Control | FrameType::Observe => Err(DropReason::UnexpectedType),
        }
    }

    fn receive_init(&mut self, now: Moment, from: &Endpoint, datagram: &[u8]) -> Result<(), DropReason> {
        let init = Init::parse(datagram).map_err(reason)?;
        if !mac::verify_mac1(&self.keys, Init::mac1_input(datagram), &init.mac1) {
            return Err(DropReason::WrongToken);
        }
        if init.kind != wire::Kind::GatewayToGateway {
            return Err(DropReason::UnexpectedType);
        }
        if self.relay.check_source(from).is_ok() && !init.route.source.is_none() {
            return self.handle_init(now, Caller::Slot(init.route.source), &init);
        }
        if !self.takes_straight {
            return Err(DropReason::UnknownEndpoint);
        }
        // A stranger, or a peer on a direct path: the address has to be proven first.
        let rng = &mut self.rng;
        self.cookies.refresh(now, || *rng.secret());
        let endpoint = mac::endpoint_bytes(from);
        if self.cookies.verify(&endpoint, Init::mac2_input(datagram), &init.mac2) {
            return self.handle_init(now, Caller::Straight(*from), &init);
        }
        let nonce = self.rng.bytes();
        let sealed = self.cookies.cookie(&endpoint).seal(&self.keys, nonce, &init.mac1);
        let reply = CookieReply { route: Route::DIRECT, receiver_index: init.sender_index, nonce, sealed };
        self.push(Outgoing::Send { bytes: reply.emit().to_vec(), to: *from });
        Err(if init.mac2 == [0; 16] { DropReason::NoCookie } else { DropReason::WrongCookie })
    }

    fn receive_response(&mut self, now: Moment, from: &Endpoint, datagram: &[u8]) -> Result<(), DropReason> {
        let response = Response::parse(datagram).map_err(reason)?;
        if !mac::verify_mac1(&self.keys, wire::mac1_input(datagram), &response.mac1) {
            return Err(DropReason::WrongToken);
        }
        match (self.indexes.owner(response.receiver_index), response.kind) {
            (Some(Owner::Asking(id)), wire::Kind::GatewayToGateway) => self.handle_response(now, id, from, &response),
            (Some(Owner::Registering), wire::Kind::GatewayToTransfer) => {
                self.handle_transfer_response(now, from, &response)
            }
            // The session exists already: the response came twice.
            (Some(Owner::Session(_)), wire::Kind::GatewayToGateway) => Err(DropReason::Duplicate),
            _ => Err(DropReason::UnknownHandshake),
        }
    }

    fn receive_final(&mut self, now: Moment, from: &Endpoint, datagram: &[u8]) -> Result<(), DropReason> {
        let last = Final::parse(datagram).map_err(reason)?;
        if !mac::verify_mac1(&self.keys, wire::mac1_input(datagram), &last.mac1) {
            return Err(DropReason::WrongToken);
        }
        let source = match self.relay.check_source(from) {
            Ok(()) => Caller::Slot(last.route.source),
            Err(_) => Caller::Straight(*from),
        };
        match (self.indexes.owner(last.receiver_index), last.kind) {
            (Some(Owner::Answering(place)), wire::Kind::GatewayToGateway) => self.handle_final(place, &source, &last),
            (Some(Owner::Session(id)), wire::Kind::GatewayToGateway) => {
                self.handle_final_again(now, id, &source, &last, datagram.len())
            }
            _ => Err(DropReason::UnknownHandshake),
        }
    }

    /// An unsealed error: a hint.
    fn handle_error(&mut self, from: &Endpoint, error: &ErrorReply) -> Result<(), DropReason> {
        if !self.relay.is_candidate(from) {
            return Err(DropReason::UnknownEndpoint);
        }
        self.relay_told_error(error);
        Ok(())
    }
}

/// Why a frame could not be opened.
pub(super) fn refused(refused: Refused) -> DropReason {
    match refused {
        Refused::Replayed(_) => DropReason::Replayed,
        Refused::PastLimit => DropReason::PastLimit,
        Refused::Unopened(_) => DropReason::NotAuthentic,
    }
}

/// Why a frame could not be read.
pub(super) fn reason(malformed: Malformed) -> DropReason {
    match malformed {
        Malformed::TooShort => DropReason::TooShort,
        Malformed::TooLong | Malformed::BadField | Malformed::MissingField => DropReason::Malformed,
    }
}

/// Whether `from` is the endpoint `wanted`.
pub(super) fn is_from(from: &Endpoint, wanted: Option<&Endpoint>) -> bool {
    wanted.is_some_and(|wanted| addresses::same(from, wanted))
}
