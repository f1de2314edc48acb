//! What members, and those who sit between, can do by way of the paths that leave the relay.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_wire::frame::FrameType;
use mesh_wire::handshake::{Init, Kind};
use mesh_wire::message::{Candidate, CandidateKind, Mapping, Message};
use mesh_wire::route::Route;
use mesh_wire::sealed::{HEADER_BYTES, SealedHeader};

use super::packets::ping;
use super::world::{Datagram, Fate, World, address_of, config, ip4, keys};
use crate::drops::DropReason;
use crate::gateway::{GatewayConfig, LocalAddress, PathChoice, PathKind};
use crate::session::beacon::Sealer;
use crate::session::handshake::{Initiator, Kind as SessionKind, Params, StaticKey};
use crate::session::mac;

const CONTROL: u8 = 5;

/// One ping a 100 ms from gateway `from` to gateway `to`; how many arrived.
fn pings(world: &mut World, (from, to): (u8, u8), count: u16) -> usize {
    let before = world.packets(to);
    for number in 0..count {
        world.inside(from, &ping(from, to, number));
        world.run(Duration::from_millis(100));
    }
    world.packets(to) - before
}

/// The path by which gateway `from` sends to `to`.
fn path(world: &World, from: u8, to: u8) -> Option<PathKind> {
    let status = world.gateways[&from].status(world.now);
    status.peers.iter().find(|peer| peer.ip4 == ip4(to)).and_then(|peer| peer.path)
}

/// What gateway `from` never would say, sealed under its session with `to`, as it goes straight.
fn seal(world: &mut World, (from, to): (u8, u8), frame: FrameType, body: &[u8]) -> Vec<u8> {
    let gateway = world.gateways.get_mut(&from).unwrap();
    let id = gateway.peers.find(ip4(to)).unwrap();
    let session = gateway.peers.get_mut(id).unwrap().keyring.as_mut().unwrap().sealing().unwrap();
    let counter = session.reserve(1).unwrap();
    let receiver_index = session.remote_index();
    let header = SealedHeader { frame, flags: 0, route: Route::DIRECT, receiver_index, counter }.emit();
    let mut body = body.to_vec();
    let tag = session.seal(counter, &header, &mut body);
    [&header[..], &body, &tag].concat()
}

/// What gateway `at` can read of a frame of gateway `of`, which then is read.
fn open(world: &mut World, (at, of): (u8, u8), datagram: &[u8]) -> Option<Message> {
    let header = SealedHeader::parse(datagram).ok()?;
    let gateway = world.gateways.get_mut(&at).unwrap();
    let id = gateway.peers.find(ip4(of))?;
    let (session, _) = gateway.peers.get_mut(id)?.keyring.as_mut()?.opening(header.receiver_index)?;
    let mut bytes = datagram.to_vec();
    let (head, body) = bytes.split_at_mut(HEADER_BYTES);
    let length = session.open(header.counter, head, body).ok()?;
    Message::decode(&body[..length]).ok()?
}

fn send(world: &mut World, to: u8, from: SocketAddr, bytes: Vec<u8>) {
    let stride = bytes.len();
    world.train(to, from, bytes, stride);
}

#[test]
fn nobody_can_answer_for_a_place_that_was_asked_and_is_not_there() {
    let mut world = World::with_paths(&[1, 2]);
    assert_eq!(pings(&mut world, (1, 2), 20), 20);
    let victim = SocketAddr::from(([203, 0, 113, 5], 500));
    // Gateway 1 reads what it is asked, and guesses what the victim, whose address it can forge, was asked.
    world.fate = Box::new(|one| if one.from == address_of(2) { Fate::Drop } else { Fate::Pass });
    let list = vec![Candidate { kind: CandidateKind::Host, endpoint: victim }];
    let message = Message::Candidates { number: 77, acknowledged: 0, mapping: Mapping::Unknown, list };
    let candidates = seal(&mut world, (1, 2), FrameType::Control, &message.to_vec());
    send(&mut world, 2, address_of(1), candidates);
    for _ in 0..100 {
        world.capture = Some(Vec::new());
        world.run(Duration::from_millis(10));
        let captured = world.capture.take().unwrap();
        let to_us = captured.iter().filter(|one| one.from == address_of(2) && one.kind() == CONTROL);
        let readable: Vec<Vec<u8>> = to_us.filter(|one| one.to != victim).map(|one| one.bytes.clone()).collect();
        for bytes in readable {
            let Some(Message::PathProbe { seq, .. }) = open(&mut world, (1, 2), &bytes) else { continue };
            for seq in (0..40).map(|ahead| seq.wrapping_sub(20).wrapping_add(ahead)) {
                let reply = Message::PathReply { seq, received: 1, observed: address_of(2) };
                let frame = seal(&mut world, (1, 2), FrameType::Control, &reply.to_vec());
                send(&mut world, 2, victim, frame);
            }
        }
    }
    let gateway = &world.gateways[&2];
    let peer = gateway.peers.get(gateway.peers.find(ip4(1)).unwrap()).unwrap();
    let victim = gateway.sockets().endpoint(victim).unwrap();
    assert!(peer.paths.knows(&victim), "it was tried");
    assert!(!peer.paths.has_proven(&victim), "it answered nothing");
}

#[test]
fn a_question_shorter_than_its_answer_gets_none() {
    let mut world = World::with_paths(&[1, 2]);
    assert_eq!(pings(&mut world, (1, 2), 20), 20);
    let victim = SocketAddr::from(([203, 0, 113, 5], 500));
    // What it says of itself there is asked once; then it is known there.
    let frame = seal(&mut world, (1, 2), FrameType::Data, &[]);
    send(&mut world, 2, victim, frame);
    world.run(Duration::from_millis(5));
    let mut probe = |message: Message, padded: bool| {
        let body = if padded { message.to_padded_vec() } else { message.to_vec() };
        let frame = seal(&mut world, (1, 2), FrameType::Control, &body);
        let asked = frame.len();
        world.capture = Some(Vec::new());
        send(&mut world, 2, victim, frame);
        let captured = world.capture.take().unwrap();
        assert!(captured.iter().all(|one| one.bytes.len() <= asked), "{captured:?}");
        captured.iter().filter(|one| one.to == victim).count()
    };
    let message = Message::PathProbe { seq: 1, sent: 1 };
    assert_eq!((probe(message.clone(), true), probe(message, false)), (1, 0));
    assert_eq!(world.gateways[&2].drops().get(DropReason::Unpadded), 1);
}
