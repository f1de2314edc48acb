//! How long packets may be, and what their TOS bytes say: over a network that a test makes narrower.

use std::time::Duration;

use mesh_wire::frame::FrameType;
use mesh_wire::message::Message;
use mesh_wire::route::Route;
use mesh_wire::sealed::SealedHeader;

use super::packets::{ping, udp6};
use super::world::{Fate, World, address_of, config, ip4};
use crate::drops::DropReason;
use crate::gateway::{Event, GatewayConfig, LocalAddress, OuterSize, PathKind};

/// Two gateways that talk through the relay, over a network that carries so much.
fn relayed(carries: usize) -> World {
    let mut world = World::with(&[1, 2]);
    world.carries = carries;
    talk(&mut world, 4);
    world
}

/// The same straight.
fn straight(carries: usize) -> World {
    let mut world = World::with_paths(&[1, 2]);
    world.carries = carries;
    for number in [1, 2] {
        let local = LocalAddress { address: address_of(number).ip(), prefix: 32, interface: 2 };
        let now = world.now;
        world.gateways.get_mut(&number).unwrap().network_changed(now, &[local]);
    }
    talk(&mut world, 6);
    for number in [1, 2] {
        assert_eq!(active(&world, number).0, PathKind::Direct);
    }
    world
}

fn talk(world: &mut World, seconds: u16) {
    for seq in 0..seconds * 10 {
        world.inside(1, &ping(1, 2, seq));
        world.inside(2, &ping(2, 1, seq));
        world.run(Duration::from_millis(100));
    }
}

/// The path by which a gateway sends to the other one, and the size it shows.
fn active(world: &World, number: u8) -> (PathKind, u16) {
    let status = world.gateways[&number].status(world.now);
    let peer = status.peers.iter().find(|peer| peer.ip4 == ip4(3 - number)).expect("they know each other");
    let path = peer.paths.iter().find(|path| path.active).expect("one carries");
    (path.kind, path.mtu_bytes)
}

/// MTUs that a gateway asked to be set.
fn asked(world: &World, number: u8) -> Vec<u16> {
    let mtu = |event: &Event| if let Event::InsideMtu { bytes } = event { Some(*bytes) } else { None };
    world.events[&number].iter().filter_map(mtu).collect()
}

#[test]
fn each_path_is_asked_for_its_size_and_the_interface_follows() {
    for (carries, proven, inside) in [(1500, 1500, 1408), (1400, 1400, 1308), (1280, 1280, 1280)] {
        for world in [relayed(carries), straight(carries)] {
            for number in [1, 2] {
                assert_eq!(active(&world, number).1, proven);
                let gateway = &world.gateways[&number];
                assert_eq!(gateway.inside_mtu(), inside);
                assert_eq!(asked(&world, number), if inside > 1280 { vec![inside] } else { vec![] });
                assert_eq!(gateway.status(world.now).inside_mtu, inside);
                assert_eq!(gateway.drops().get(DropReason::Outdated), 0);
            }
        }
    }
}

#[test]
fn packets_as_long_as_the_interface_takes_go_in_one_piece() {
    let mut world = straight(1500);
    world.capture = Some(Vec::new());
    let before = world.packets(2);
    world.inside(1, &udp6(1, 2, 1408));
    world.run(Duration::from_millis(20));
    assert_eq!(world.packets(2), before + 1);
    let data = world.capture.as_ref().unwrap().iter().filter(|datagram| datagram.kind() == 0).count();
    assert_eq!(data, 1);
}

#[test]
fn a_size_that_the_user_has_set_is_asked_of_nobody() {
    let mut world = World::empty();
    world.start_transfer(1);
    for number in [1, 2] {
        world.insert(number, GatewayConfig { outer_bytes: OuterSize::Fixed(1400), ..config(number, 1) });
    }
    world.carries = 1500;
    world.run(Duration::from_millis(500));
    world.capture = Some(Vec::new());
    talk(&mut world, 5);
    assert_eq!(active(&world, 1).1, 1400);
    let mut captured = world.capture.as_ref().unwrap().iter();
    assert!(captured.all(|datagram| datagram.kind() != FrameType::Control as u8 || datagram.bytes.len() < 1000));
    assert_eq!((world.gateways[&1].inside_mtu(), asked(&world, 1)), (1308, vec![]));
}

#[test]
fn where_our_own_network_takes_more_more_is_asked_for() {
    let mut world = World::with(&[1, 2]);
    world.carries = 9000;
    for number in [1, 2] {
        let now = world.now;
        world.gateways.get_mut(&number).unwrap().set_outside_mtu(now, Some(9000));
    }
    talk(&mut world, 3);
    assert_eq!((active(&world, 1).1, world.gateways[&1].inside_mtu()), (9000, 8908));
    let packet = udp6(1, 2, 8908);
    world.inside(1, &packet);
    world.run(Duration::from_millis(50));
    assert_eq!(world.delivered[&2].last().unwrap().1, packet);
    // And where it takes less than before, no more than that is sent.
    let now = world.now;
    world.gateways.get_mut(&1).unwrap().set_outside_mtu(now, Some(1400));
    world.carries = 1400;
    talk(&mut world, 3);
    assert_eq!(active(&world, 1).1, 1400);
}

#[test]
fn a_black_hole_is_left_within_three_seconds_while_packets_go() {
    for mut world in [relayed(1500), straight(1500)] {
        let packet = udp6(1, 2, 1408);
        let kind = active(&world, 1).0;
        (world.carries, world.may_vanish) = (1400, true);
        let start = world.now;
        let mut passed = None;
        for _ in 0..100 {
            let before = world.packets(2);
            world.inside(1, &packet);
            world.run(Duration::from_millis(50));
            if world.packets(2) > before {
                passed = passed.or(Some(world.now.since(start)));
            } else {
                assert_eq!(passed, None, "it stays so until its sender was told");
                continue;
            }
            if active(&world, 1).1 == 1400 {
                break;
            }
        }
        let passed = passed.expect("it passes as halves");
        assert!(passed <= Duration::from_secs(3), "{passed:?}");
        world.run(Duration::from_secs(2));
        assert_eq!(active(&world, 1), (kind, 1400), "the path is the same");
        let before = world.packets(1);
        world.inside(1, &packet);
        let answer = &world.delivered[&1][before].1;
        assert_eq!(answer[40..42], [2, 0], "packet too big");
        assert_eq!(answer[44..48], 1328_u32.to_be_bytes(), "1400 less 28 of IPv4 and UDP and 44 of sealing");
    }
}

#[test]
fn an_idle_pair_asks_for_no_size() {
    let mut world = straight(1400);
    world.run(Duration::from_secs(60));
    world.capture = Some(Vec::new());
    world.run(Duration::from_secs(110));
    let captured = world.capture.take().unwrap();
    assert!(captured.iter().all(|datagram| datagram.bytes.len() < 200), "no probe of a size");
    let between =
        |datagram: &&super::world::Datagram| [datagram.from, datagram.to].iter().all(|one| *one != world.transfer_at);
    let bytes: usize = captured.iter().filter(between).map(|datagram| datagram.bytes.len() + 28).sum();
    assert!(bytes < 30 * 110, "{bytes} bytes in 110 s");
}

#[test]
fn probes_that_vanish_are_no_loss_of_the_path() {
    let mut world = straight(1400);
    for _ in 0..50 {
        talk(&mut world, 1);
        let status = world.gateways[&1].status(world.now);
        let lost: Vec<u16> = status.peers[0].paths.iter().map(|path| path.loss_permille).collect();
        assert!(lost.iter().all(|lost| *lost == 0), "{lost:?}");
    }
}

/// Seals a message of gateway 1 for gateway 2 as it would go straight.
fn sealed(world: &mut World, plaintext: &[u8]) -> Vec<u8> {
    let gateway = world.gateways.get_mut(&1).unwrap();
    let id = gateway.peers.find(ip4(2)).unwrap();
    let session = gateway.peers.get_mut(id).unwrap().keyring.as_mut().unwrap().sealing().unwrap();
    let counter = session.reserve(1).unwrap();
    let receiver_index = session.remote_index();
    let header =
        SealedHeader { frame: FrameType::Control, flags: 0, route: Route::DIRECT, receiver_index, counter }.emit();
    let mut body = plaintext.to_vec();
    let tag = session.seal(counter, &header, &mut body);
    [&header[..], &body, &tag].concat()
}

#[test]
fn answers_that_nobody_asked_for_prove_nothing() {
    let mut world = straight(1280);
    // A search is under way, whose probes are known to nobody.
    world.gateways.get_mut(&2).unwrap().peers.ids().into_iter().for_each(|id| {
        world.gateways.get_mut(&2).unwrap().peers.get_mut(id).unwrap().paths.forget_sizes();
    });
    let outdated = world.gateways[&2].drops().get(DropReason::Outdated);
    for seq in 0..100 {
        for bytes in [1472, 8972, u16::MAX, 0] {
            let frame = sealed(&mut world, &Message::SizeReply { seq, bytes }.to_vec());
            let stride = frame.len();
            world.train(2, address_of(1), frame, stride);
        }
        world.run(Duration::from_millis(10));
    }
    assert_eq!(world.gateways[&2].drops().get(DropReason::Outdated), outdated + 400);
    talk(&mut world, 2);
    assert_eq!((active(&world, 2).1, world.gateways[&2].inside_mtu()), (1280, 1280));
}

#[test]
fn answers_by_another_path_or_of_another_length_prove_nothing() {
    // Whoever answers, answers by the relay, or names another length.
    let mut world = relayed(1280);
    world.carries = 1500;
    let now = world.now;
    let gateway = world.gateways.get_mut(&2).unwrap();
    let id = gateway.peers.find(ip4(1)).unwrap();
    gateway.peers.get_mut(id).unwrap().paths.forget_sizes();
    gateway.tend_size(now, id);
    let peer = gateway.peers.get_mut(id).unwrap();
    let path = peer.path(&gateway.relay).unwrap();
    peer.paths.probe_size(now, 77, 1500, 1472);
    let straight = crate::seam::Endpoint { socket: crate::seam::SocketId(0), remote: address_of(1), local: None };
    assert_eq!(gateway.handle_size_reply(now, id, Some(straight), (77, 1472)), Err(DropReason::Outdated));
    assert_eq!(gateway.handle_size_reply(now, id, None, (77, 1473)), Err(DropReason::Outdated));
    assert_eq!(gateway.handle_size_reply(now, id, None, (78, 1472)), Err(DropReason::Outdated));
    assert_eq!(path.kind, PathKind::Relay);
    assert_eq!(gateway.handle_size_reply(now, id, None, (77, 1472)), Ok(()));
    assert_eq!(active(&world, 2).1, 1500);
}

#[test]
fn a_probe_is_answered_with_less_than_it_brought_and_one_that_is_too_short_not_at_all() {
    let mut world = straight(1280);
    world.run(Duration::from_millis(500));
    world.capture = Some(Vec::new());
    let probe = Message::SizeProbe { seq: 5 };
    let unpadded = sealed(&mut world, &probe.to_vec());
    let stride = unpadded.len();
    world.train(2, address_of(1), unpadded, stride);
    assert_eq!(world.gateways[&2].drops().get(DropReason::Unpadded), 1);
    assert!(world.capture.as_ref().unwrap().is_empty());
    for total in [13, 500, 9000] {
        let frame = sealed(&mut world, &probe.to_vec_of(total).unwrap());
        let stride = frame.len();
        world.train(2, address_of(1), frame, stride);
        let answers = world.capture.replace(Vec::new()).unwrap();
        let [answer] = &answers[..] else { panic!("one answer: {answers:?}") };
        assert!(answer.to == address_of(1) && answer.bytes.len() <= stride);
        assert_eq!(answer.bytes.len(), 44 + 13);
    }
}

/// A ping whose TOS byte is `tos`.
fn marked(seq: u16, tos: u8) -> Vec<u8> {
    let mut packet = ping(1, 2, seq);
    packet[1] = tos;
    packet[10..12].copy_from_slice(&[0, 0]);
    let header = etherparse::Ipv4Header::from_slice(&packet).unwrap().0;
    packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    packet
}

#[test]
fn dscp_and_ecn_go_out_and_congestion_comes_in() {
    for mut world in [relayed(1500), straight(1500)] {
        world.capture = Some(Vec::new());
        world.inside(1, &marked(1, 0xb8 | 0b10));
        world.run(Duration::from_millis(30));
        let outer: Vec<u8> =
            world.capture.as_ref().unwrap().iter().filter(|one| one.kind() == 0).map(|one| one.tos).collect();
        assert!(!outer.is_empty() && outer.iter().all(|tos| *tos == 0xba), "by each leg: {outer:?}");
        assert_eq!(world.delivered[&2].last().unwrap().1, marked(1, 0xba));
        // A router on the way marks, and has its own idea of the DSCP.
        world.translate = Box::new(|datagram| datagram.tos = 0x28 | 0b11);
        world.inside(1, &marked(2, 0xb8 | 0b10));
        world.run(Duration::from_millis(30));
        assert_eq!(world.delivered[&2].last().unwrap().1, marked(2, 0xb8 | 0b11));
        let before = world.packets(2);
        world.inside(1, &marked(3, 0xb8));
        world.run(Duration::from_millis(30));
        assert_eq!(world.packets(2), before, "its sender knows no marks: the loss tells it");
        assert_eq!(world.gateways[&2].drops().get(DropReason::Congestion), 1);
    }
}

#[test]
fn congestion_that_one_half_met_is_told() {
    let mut world = relayed(1280);
    world.translate = Box::new(|datagram| {
        // The first half.
        if datagram.kind() == 0 && datagram.bytes[1] == 2 {
            datagram.tos |= 0b11;
        }
    });
    world.fate = Box::new(|_| Fate::Pass);
    let mut packet = udp6(1, 2, 1280);
    packet[1] |= 0b10 << 4;
    world.inside(1, &packet);
    world.run(Duration::from_millis(30));
    packet[1] |= 0b11 << 4;
    assert_eq!(world.delivered[&2].last().unwrap().1, packet);
}
