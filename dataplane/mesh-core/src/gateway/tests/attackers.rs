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
use super::straight::{local, moved, path, pings};
use super::world::{CONTROL, Datagram, Fate, World, address_of, config, ip4, keys};
use crate::drops::DropReason;
use crate::gateway::{GatewayConfig, PathChoice, PathKind};
use crate::session::beacon::Sealer;
use crate::session::handshake::{Initiator, Kind as SessionKind, Params, StaticKey};
use crate::session::mac;

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

#[test]
fn a_peer_that_seems_to_be_everywhere_does_not_keep_another_from_being_followed() {
    let mut world = World::with_paths(&[1, 2, 3]);
    for pair in [(1, 2), (3, 2)] {
        assert_eq!(pings(&mut world, pair, 20), 20);
    }
    let (old, new) = (address_of(1), SocketAddr::from(([10, 0, 0, 1], 61_000)));
    world.translate = moved(old, new);
    // Gateway 3 shows itself at a thousand places a second, all of the time; here is what that leaves to others.
    let mut port = 1024;
    for step in 0..500 {
        for _ in 0..10 {
            port += 1;
            let frame = seal(&mut world, (3, 2), FrameType::Data, &[]);
            send(&mut world, 2, SocketAddr::from(([198, 51, 100, 7], port)), frame);
        }
        if step % 10 == 0 {
            world.inside(1, &ping(1, 2, 1));
            world.inside(2, &ping(2, 1, 1));
        }
        world.run(Duration::from_millis(10));
    }
    let status = world.gateways[&2].status(world.now);
    let peer = status.peers.iter().find(|peer| peer.ip4 == ip4(1)).unwrap();
    assert_eq!((peer.path, peer.endpoint), (Some(PathKind::Direct), Some(new)));
}

#[test]
fn frames_that_were_held_back_tell_nothing_of_where_a_peer_is() {
    let mut world = World::with_paths(&[1, 2]);
    assert_eq!(pings(&mut world, (1, 2), 20), 20);
    // Somebody between them keeps frames, and sends them on from places of its own when others have long come.
    let kept: Vec<Vec<u8>> = (0..10).map(|_| seal(&mut world, (1, 2), FrameType::Data, &[])).collect();
    assert_eq!(pings(&mut world, (1, 2), 5), 5);
    world.capture = Some(Vec::new());
    for (number, frame) in (0..).zip(kept) {
        send(&mut world, 2, SocketAddr::from(([198, 51, 100, number], 7)), frame);
    }
    world.run(Duration::from_secs(1));
    let led_astray =
        |one: &&Datagram| one.from == address_of(2) && matches!(one.to.ip(), IpAddr::V4(ip) if ip.octets()[0] == 198);
    assert_eq!(world.capture.as_ref().unwrap().iter().filter(led_astray).count(), 0);
}

#[test]
fn a_member_that_contradicts_itself_in_handshakes_leaves_nothing_behind() {
    let mut world = World::with_paths(&[2]);
    world.transfer = None;
    world.run(Duration::from_secs(30));
    // Gateway 9 claims many addresses, each with another start than its first message said.
    for number in 0..20u8 {
        let mut config = GatewayConfig { path: PathChoice::Auto, ..config(9, 1) };
        config.ip4 = Ipv4Addr::new(172, 168, 7, number + 1);
        world.insert(9, config);
        let now = world.now;
        let gateway = world.gateways.get_mut(&9).unwrap();
        let id = gateway.peers.find_or_add(ip4(2), now).unwrap();
        let endpoint = gateway.sockets().endpoint(address_of(2)).unwrap();
        let key = *StaticKey::from_seed([2; 32]).public();
        let claim = crate::gateway::peers::Claim { key, boot: 1, endpoint: Some(endpoint), at: now, proven: false };
        gateway.peers.get_mut(id).unwrap().claim(claim);
        world.inside(9, &ping(9, 2, 1));
        world.inside(9, &{
            let mut packet = ping(9, 2, 1);
            packet[12..16].copy_from_slice(&[172, 168, 7, number + 1]);
            packet
        });
        // The first message is made; what follows says another start.
        world.run(Duration::from_millis(2));
        world.gateways.get_mut(&9).unwrap().boot = 2;
        world.run(Duration::from_millis(500));
        world.gateways.remove(&9);
        world.run(Duration::from_secs(20));
    }
    assert!(world.gateways[&2].drops().get(DropReason::Impostor) >= 10, "they came as far");
    world.run(Duration::from_secs(600));
    assert_eq!(world.gateways[&2].peers.ids().len(), 0);
}

/// A beacon that says this, heard by gateway `to`.
fn beacon(world: &mut World, to: u8, sealer: &mut Sealer, from: SocketAddr, presence: &Message) {
    let bytes = sealer.seal(&presence.to_vec());
    send(world, to, from, bytes);
}

fn at_home(world: &mut World, number: u8, path: PathChoice) {
    let mut config = GatewayConfig { path, ..config(number, 1) };
    config.sockets.ports = (address_of(number).port(), 0);
    world.insert(number, config);
    let now = world.now;
    let local = [local(number)];
    world.gateways.get_mut(&number).unwrap().network_changed(now, &local);
}

#[test]
fn a_key_that_somebody_only_names_keeps_nobody_out() {
    let mut world = World::empty();
    at_home(&mut world, 2, PathChoice::Auto);
    world.run(Duration::from_secs(1));
    let mut sealer = Sealer::new(&keys(), [5; 16]);
    // Mallory says to be gateway 1, with a key that is nobody's, and says so again and again.
    let mallory = SocketAddr::from(([10, 0, 0, 66], 6_666));
    let presence = Message::Presence { ip4: ip4(1), key: [66; 32], boot: 9, port: 6_666 };
    beacon(&mut world, 2, &mut sealer, mallory, &presence);
    at_home(&mut world, 1, PathChoice::Auto);
    let mut own = Sealer::new(&keys(), [6; 16]);
    let mut of_second = Sealer::new(&keys(), [7; 16]);
    let mut arrived = 0;
    for _ in 0..30 {
        beacon(&mut world, 2, &mut sealer, mallory, &presence);
        let key = *StaticKey::from_seed([1; 32]).public();
        let true_one = Message::Presence { ip4: ip4(1), key, boot: 1, port: address_of(1).port() };
        beacon(&mut world, 2, &mut own, address_of(1), &true_one);
        let key = *StaticKey::from_seed([2; 32]).public();
        let second = Message::Presence { ip4: ip4(2), key, boot: 1, port: address_of(2).port() };
        beacon(&mut world, 1, &mut of_second, address_of(2), &second);
        arrived += pings(&mut world, (1, 2), 10);
    }
    assert!(arrived >= 250, "{arrived} of 300");
}

#[test]
fn a_beacon_from_elsewhere_is_not_even_opened() {
    let mut world = World::empty();
    at_home(&mut world, 2, PathChoice::Auto);
    let mut sealer = Sealer::new(&keys(), [5; 16]);
    let presence = Message::Presence { ip4: ip4(1), key: [66; 32], boot: 9, port: 6_666 };
    world.capture = Some(Vec::new());
    beacon(&mut world, 2, &mut sealer, SocketAddr::from(([203, 0, 113, 9], 6_666)), &presence);
    assert!(world.gateways[&2].peers.find(ip4(1)).is_none());
    assert!(world.capture.take().unwrap().iter().all(|one| one.to.ip() != IpAddr::from([203, 0, 113, 9])));
    // Nor does what outsiders send by thousands take the place of those of neighbours.
    for _ in 0..3000 {
        send(&mut world, 2, SocketAddr::from(([203, 0, 113, 9], 6_666)), vec![0x2a; 110]);
    }
    beacon(&mut world, 2, &mut sealer, SocketAddr::from(([10, 0, 0, 9], 6_666)), &presence);
    assert!(world.gateways[&2].peers.find(ip4(1)).is_some());
}

#[test]
fn beacons_that_name_ever_new_starts_do_not_make_us_change_keys_all_the_time() {
    let mut world = World::empty();
    world.start_transfer(1);
    at_home(&mut world, 1, PathChoice::Relay);
    at_home(&mut world, 2, PathChoice::Auto);
    world.run(Duration::from_millis(500));
    assert_eq!(pings(&mut world, (2, 1), 10), 10);
    let mut sealer = Sealer::new(&keys(), [5; 16]);
    let key = *StaticKey::from_seed([1; 32]).public();
    let before = world.gateways[&2].hello_number;
    for boot in 0..1000 {
        let presence = Message::Presence { ip4: ip4(1), key, boot: 100 + boot, port: 6_666 };
        beacon(&mut world, 2, &mut sealer, SocketAddr::from(([10, 0, 0, 66], 6_666)), &presence);
        world.run(Duration::from_millis(10));
    }
    let handshakes = world.gateways[&2].hello_number - before;
    assert!(handshakes <= 12, "{handshakes} handshakes in 10 s");
}

/// Message 1 of a member at `from`, with the proof that it receives there.
fn proven_init(world: &mut World, to: u8, from: SocketAddr, seed: u32) -> Vec<u8> {
    let mut bytes = [0x5a; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    let params = Params::new(SessionKind::GatewayToGateway, &keys(), &StaticKey::from_seed([66; 32]), bytes);
    let hello = Message::Hello { ciphers: 3, features: 0, boot: u64::from(seed), number: 1 }.to_vec();
    let (_, noise) = Initiator::start(&params, &hello).unwrap();
    let gateway = world.gateways.get_mut(&to).unwrap();
    let endpoint = gateway.sockets().endpoint(from).unwrap();
    let cookie = gateway.cookies.cookie(&mac::endpoint_bytes(&endpoint));
    let mac1 = |bytes: &[u8]| mac::mac1(&keys(), bytes);
    let mac2 = |bytes: &[u8]| mac::mac2(&cookie, bytes);
    Init::emit(&Route::DIRECT, seed, Kind::GatewayToGateway, &noise, mac1, mac2).to_vec()
}

#[test]
fn handshakes_from_many_ports_leave_room_for_those_by_the_relay() {
    let mut world = World::with_paths(&[1, 2]);
    for seed in 0..3000u32 {
        let port = 2000 + u16::try_from(seed).unwrap();
        let from = SocketAddr::from(([10, 0, 0, 66], port));
        let init = proven_init(&mut world, 2, from, seed);
        send(&mut world, 2, from, init);
    }
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_secs(2));
    assert_eq!(world.packets(2), 1, "{:?}", world.gateways[&2].drops());
    // From many addresses too.
    for seed in 3000..6000u32 {
        let [_, _, high, low] = seed.to_be_bytes();
        let from = SocketAddr::from(([198, 18, high, low], 2000));
        let init = proven_init(&mut world, 2, from, seed);
        send(&mut world, 2, from, init);
    }
    world.insert(3, config(3, 1));
    world.run(Duration::from_millis(300));
    world.inside(3, &ping(3, 2, 1));
    world.run(Duration::from_secs(2));
    assert_eq!(world.packets(2), 2, "{:?}", world.gateways[&2].drops());
}

#[test]
fn places_that_many_peers_name_leave_room_for_those_where_a_peer_is_seen() {
    let mut world = World::with_paths(&[1, 2]);
    let now = world.now;
    // As many places were named of late as are remembered.
    let gateway = world.gateways.get_mut(&2).unwrap();
    let mut asked = BTreeSet::new();
    for number in 0..5000u32 {
        let ip = IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 + number));
        if gateway.unproven.take(now, ip, false) {
            asked.insert(ip);
        }
    }
    assert!(asked.len() < 2000);
    assert_eq!(pings(&mut world, (1, 2), 20), 20);
    assert_eq!((path(&world, 1, 2), path(&world, 2, 1)), (Some(PathKind::Direct), Some(PathKind::Direct)));
}
