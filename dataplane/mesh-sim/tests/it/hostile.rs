//! Eavesdroppers, replays, strangers.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::session::handshake::StaticKey;
use mesh_sim::host::{self, Inner};
use mesh_sim::{Link, World, seeds};
use mesh_wire::frame::{FirstByte, FrameType, classify};
use mesh_wire::route::Route;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::fixture::{
    Identity, Mesh, TOKEN, TRANSFER_NAME, TransferState, gateway_address, ip, new_gateway, new_transfer,
    transfer_address,
};

const SECOND: Duration = Duration::from_secs(1);
const MARKER: &[u8] = b"an inner payload that nobody outside may read";

fn received_markers(mesh: &mut Mesh, number: usize) -> usize {
    let node = mesh.gateways[number];
    let delivered = mesh.world.take_delivered(node);
    delivered
        .iter()
        .filter(|(_, packet)| matches!(host::read(packet), Inner::Udp { payload, .. } if payload == MARKER))
        .count()
}

#[test]
fn eavesdropper_reads_no_token_no_payload_no_inner_address() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.world.wiretap.record();
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        let node = mesh.gateways[0];
        mesh.world.send_inside(node, &host::udp(ip(0), ip(1), MARKER));
        mesh.world.run_for(SECOND);
        assert_eq!(received_markers(&mut mesh, 1), 1);
        let tap = &mesh.world.wiretap;
        assert!(tap.seen().len() > 20, "the tap saw the traffic");
        assert!(!tap.contains(MARKER) && !tap.contains(&MARKER[..16]));
        assert!(!tap.contains(b"s^I^ghGjkB7Zm"), "the token");
        assert!(!tap.contains(&[ip(0).octets(), ip(1).octets()].concat()), "an inner address pair");
        let public = *StaticKey::from_seed(mesh.identities[0].key).public();
        assert!(!tap.contains(&public), "a static key");
    });
}

#[test]
fn replayed_capture_delivers_nothing() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.world.wiretap.record();
        mesh.settle();
        let node = mesh.gateways[0];
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        for _ in 0..50 {
            mesh.world.send_inside(node, &host::udp(ip(0), ip(1), MARKER));
        }
        mesh.world.run_for(SECOND);
        assert_eq!(received_markers(&mut mesh, 1), 50);
        let capture = mesh.world.wiretap.seen().to_vec();
        let replay = |mesh: &mut Mesh| {
            for seen in &capture {
                mesh.world.inject(seen.to, seen.from, &seen.bytes);
            }
            mesh.world.run_for(SECOND);
        };
        let counted = |mesh: &Mesh| mesh.world.gateway(mesh.gateways[1]).status(mesh.world.now()).replayed;
        replay(&mut mesh);
        assert_eq!(received_markers(&mut mesh, 1), 0, "within the same session");
        assert!(counted(&mesh) >= 50, "counted as replay");

        for sequence in 0..130 {
            mesh.ping(0, 1, sequence, SECOND).expect("the session goes on");
            mesh.world.run_for(SECOND);
        }
        replay(&mut mesh);
        assert_eq!(received_markers(&mut mesh, 1), 0, "after a rekey");

        for number in [0, 1] {
            let node = mesh.gateways[number];
            mesh.world.kill(node);
            let gateway =
                new_gateway(&mut mesh.world, mesh.identities[number], ip(number), crate::fixture::PORT, &TOKEN);
            mesh.world.revive_gateway(node, gateway, 40_000);
        }
        mesh.settle();
        let back = mesh.world.now();
        mesh.ping_until_answered(0, 1, back, 5 * SECOND).expect("both are back");
        replay(&mut mesh);
        assert_eq!(received_markers(&mut mesh, 1), 0, "after both ends restarted");
        mesh.ping(0, 1, 9999, 2 * SECOND).expect("and the pair still works");
    });
}

#[test]
fn two_namespaces_with_equal_addresses_never_mix() {
    seeds::each(20, |seed| {
        let mut world = World::new(seed);
        let state = TransferState { key: world.random(), ticket_key: world.random() };
        let transfer = new_transfer(&mut world, &state, &[8000, 8001], &TOKEN);
        world.add_transfer(transfer, transfer_address(), &[8000, 8001], Link::CLEAN);
        world.name(TRANSFER_NAME, transfer_address());
        let mut other = transfer_address();
        other.set_port(8001);
        world.name("you.domain.com:8001", other);
        let mut nodes = Vec::new();
        for (number, (port, name)) in
            [(8000, TRANSFER_NAME), (8000, TRANSFER_NAME), (8001, "you.domain.com:8001"), (8001, "you.domain.com:8001")]
                .into_iter()
                .enumerate()
        {
            let identity = Identity { key: world.random() };
            let gateway = new_gateway(&mut world, identity, ip(number % 2), port, &TOKEN);
            nodes.push(world.add_gateway(gateway, gateway_address(number), Link::CLEAN, name));
        }
        world.run_for(2 * SECOND);
        for (from, text) in [(0, "in the first"), (2, "in the second")] {
            for _ in 0..100 {
                world.send_inside(nodes[from], &host::udp(ip(0), ip(1), text.as_bytes()));
            }
        }
        world.run_for(2 * SECOND);
        for (node, own) in [(1, "in the first"), (3, "in the second")] {
            let payloads: Vec<Vec<u8>> = world
                .take_delivered(nodes[node])
                .iter()
                .filter_map(|(_, packet)| match host::read(packet) {
                    Inner::Udp { payload, .. } => Some(payload),
                    Inner::EchoRequest { .. } | Inner::EchoReply { .. } | Inner::Unreachable { .. } | Inner::Other => {
                        None
                    }
                })
                .collect();
            assert!(payloads.iter().all(|payload| payload == own.as_bytes()), "a packet crossed");
            assert!(payloads.len() >= 32, "what is queued meanwhile arrives: {}", payloads.len());
        }
    });
}

/// Random, cut, mutated and replayed datagrams at everybody, from members' addresses and strangers'.
#[test]
fn garbage_is_counted_answered_shorter_or_not_at_all_and_changes_nothing() {
    seeds::each(100, |seed| {
        let mut mesh = Mesh::new(seed, 2, Link::CLEAN);
        mesh.world.wiretap.record();
        mesh.settle();
        mesh.ping(0, 1, 1, SECOND).expect("the pair works");
        let capture = mesh.world.wiretap.seen().to_vec();
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let stranger = gateway_address(200);
        let targets = [transfer_address(), gateway_address(0), gateway_address(1)];
        for _ in 0..2_000 {
            let mut bytes = match rng.random_range(0..5) {
                0 => (0..rng.random_range(0..1500)).map(|_| rng.random()).collect::<Vec<u8>>(),
                1 => b"\x10{\"IP\":\"::1\"".to_vec(),
                2 => Vec::new(),
                _ => capture[rng.random_range(0..capture.len())].bytes.clone(),
            };
            match rng.random_range(0..3) {
                0 if !bytes.is_empty() => bytes.truncate(rng.random_range(0..bytes.len())),
                1 if !bytes.is_empty() => {
                    for _ in 0..rng.random_range(1..4) {
                        let at = rng.random_range(0..bytes.len());
                        bytes[at] = rng.random();
                    }
                }
                _ => {}
            }
            let from = if rng.random_bool(0.5) { stranger } else { targets[rng.random_range(0..3)] };
            let to = targets[rng.random_range(0..3)];
            let before = mesh.world.wiretap.seen().len();
            mesh.world.inject(to, from, &bytes);
            mesh.world.run_for(Duration::from_micros(100));
            let answers: usize = mesh.world.wiretap.seen()[before..]
                .iter()
                .filter(|seen| seen.to == stranger && from == stranger)
                .map(|seen| seen.bytes.len())
                .sum();
            assert!(answers <= bytes.len(), "{} bytes answered {} of {:02x?}", answers, bytes.len(), bytes.first());
        }
        mesh.world.run_for(2 * SECOND);
        let start = mesh.world.now();
        mesh.ping_until_answered(0, 1, start, 5 * SECOND).expect("the pair works afterwards");
    });
}

/// A datagram between a transfer and a gateway themselves, not one that is relayed.
fn is_own(bytes: &[u8]) -> bool {
    let routed = matches!(classify(bytes[0]), FirstByte::Frame(frame) if frame.has_route());
    !routed || Route::parse(bytes).expect("a whole header").destination.slot.is_none()
}

/// Joining, first packets, an hour of signs of life with changes of keys: on clean links the transfer answers each datagram
/// with one. Nobody leaves or comes back, so it says nothing unasked.
#[test]
fn transfer_answers_no_gateway_with_more_bytes_than_it_sent() {
    seeds::each(20, |seed| {
        let mut mesh = Mesh::new(seed, 3, Link::CLEAN);
        mesh.world.wiretap.record();
        mesh.settle();
        for sequence in 0..20 {
            mesh.ping(0, 1, sequence, SECOND).expect("the pair works");
            mesh.ping(2, 0, sequence, SECOND).expect("the other pair works");
            mesh.world.run_for(5 * SECOND);
        }
        mesh.world.run_for(3600 * SECOND);
        let mut asked: BTreeMap<SocketAddr, VecDeque<usize>> = BTreeMap::new();
        let (mut answers, mut keepalives) = (0, 0);
        for seen in mesh.world.wiretap.seen().iter().filter(|seen| is_own(&seen.bytes)) {
            if seen.to == transfer_address() {
                asked.entry(seen.from).or_default().push_back(seen.bytes.len());
                keepalives += u32::from(seen.bytes[0] == FrameType::Control.byte());
            } else if seen.from == transfer_address() {
                let request = asked.get_mut(&seen.to).and_then(VecDeque::pop_front).expect("nothing is said unasked");
                assert!(seen.bytes.len() <= request, "{} bytes answer {request}", seen.bytes.len());
                answers += 1;
            }
        }
        assert!(asked.values().map(VecDeque::len).sum::<usize>() <= 3, "at most the last of each is on its way");
        assert!(answers > 3 * 3 && keepalives > 3 * 100, "{answers} answers, {keepalives} control frames");
    });
}

#[test]
fn first_bytes_of_the_wire_never_look_like_an_ip_packet() {
    let mut mesh = Mesh::new(1, 2, Link::CLEAN);
    mesh.world.wiretap.record();
    mesh.settle();
    mesh.ping(0, 1, 1, SECOND).expect("the pair works");
    let mut kinds: Vec<FrameType> = mesh
        .world
        .wiretap
        .seen()
        .iter()
        .map(|seen| match classify(seen.bytes[0]) {
            FirstByte::Frame(frame) => frame,
            other @ (FirstByte::UnknownType | FirstByte::FirstEdition | FirstByte::OtherVersion(_)) => {
                panic!("{other:?} on the wire")
            }
        })
        .collect();
    kinds.sort_by_key(|frame| frame.byte());
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            FrameType::Data,
            FrameType::HandshakeInit,
            FrameType::HandshakeResponse,
            FrameType::HandshakeFinal,
            FrameType::CookieReply,
            FrameType::Control
        ],
        "joining and a ping use these frames"
    );
}
