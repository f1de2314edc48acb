//! What overtakes, and what is put in its way.

use std::time::Duration;

use mesh_wire::handshake::{Final, Kind, MAC_BYTES};

use super::packets::ping;
use super::world::{CONTROL, Datagram, Fate, World, address_of, ip4, keys};
use crate::drops::DropReason;
use crate::node::Node;
use crate::session::mac;

const FINAL: u8 = 3;
/// A world in which gateway 1 asks for gateway 2, and the answer takes 200 ms.
fn late_found() -> World {
    let mut world = World::with(&[1, 2]);
    let transfer = world.transfer_at;
    let mut late = true;
    world.fate = Box::new(move |datagram: &Datagram| {
        let found = datagram.from == transfer && datagram.to == address_of(1) && datagram.kind() == CONTROL;
        if found && std::mem::take(&mut late) { Fate::Late(Duration::from_millis(200)) } else { Fate::Pass }
    });
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_millis(10));
    world
}

/// The start of gateway 2 that gateway 1 knows of.
fn known_start(world: &World) -> Option<u64> {
    let peers = &world.gateways[&1].peers;
    peers.find(ip4(2)).and_then(|id| peers.get(id)).and_then(|peer| peer.record.as_ref()).map(|record| record.boot)
}

#[test]
fn found_that_a_change_overtook_is_ignored() {
    let mut world = late_found();
    assert_eq!(known_start(&world), None);
    world.start_gateway(2, 77);
    world.run(Duration::from_millis(100));
    assert_eq!(known_start(&world), Some(77), "the change came first");
    for _ in 0..300 {
        world.run(Duration::from_millis(1));
        assert_eq!(known_start(&world), Some(77));
    }
    assert_eq!(world.gateways[&1].drops().get(DropReason::Outdated), 1);
    assert_eq!(world.packets(2), 1, "what waited has arrived");
}

#[test]
fn who_left_is_not_brought_back_by_an_older_answer() {
    let mut world = late_found();
    let now = world.now;
    world.gateways.get_mut(&2).unwrap().stop(now);
    // Its last words leave with the next thing that it does.
    world.train(2, address_of(9), vec![0x2f; 60], 60);
    world.run(Duration::from_millis(100));
    assert_eq!(world.packets(1), 1, "unreachable");
    for _ in 0..300 {
        world.run(Duration::from_millis(1));
        assert_eq!(known_start(&world), None);
    }
    assert_eq!(world.gateways[&1].drops().get(DropReason::Outdated), 1);
}

/// Changes are counted anew for a gateway that has lost its lease: numbers of before must not shut out what is found after.
#[test]
fn answers_count_again_after_the_lease_was_lost() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_millis(300));
    for boot in 2..6 {
        world.start_gateway(2, boot);
        world.run(Duration::from_millis(300));
    }
    assert_eq!(known_start(&world), Some(5));
    let gateway = world.gateways.remove(&1).unwrap();
    world.run(Duration::from_secs(150));
    world.gateways.insert(1, gateway);
    world.start_gateway(2, 6);
    world.run(Duration::from_secs(5));
    world.inside(1, &ping(1, 2, 2));
    world.run(Duration::from_secs(5));
    assert_eq!(known_start(&world), Some(6));
    assert_eq!(world.gateways[&1].drops().get(DropReason::Outdated), 0);
}

/// Two gateways up to the final of the first, which is held back: it is returned.
fn up_to_final() -> (World, Vec<u8>) {
    let mut world = World::with(&[1, 2]);
    world.fate = Box::new(|datagram: &Datagram| if datagram.kind() == FINAL { Fate::Drop } else { Fate::Pass });
    world.capture = Some(Vec::new());
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_millis(60));
    let capture = world.capture.take().unwrap();
    let last = capture.into_iter().find(|datagram| datagram.kind() == FINAL).expect("a final");
    (world, last.bytes)
}

#[test]
fn forged_final_of_a_peer_does_not_end_the_handshake() {
    let (mut world, last) = up_to_final();
    let transfer = world.transfer_at;
    // In the key, and in the payload.
    for at in [24, last.len() - MAC_BYTES - 1] {
        let mut forged = last.clone();
        forged[at] ^= 1;
        let end = forged.len() - MAC_BYTES;
        let mac = mac::mac1(&keys(), &forged[..end]);
        forged[end..].copy_from_slice(&mac);
        let bytes = forged.len();
        world.train(2, transfer, forged, bytes);
    }
    assert_eq!(world.gateways[&2].drops().get(DropReason::HandshakeFailed), 2);
    world.fate = Box::new(|_| Fate::Pass);
    world.run(Duration::from_millis(400));
    assert_eq!(world.packets(2), 1, "the true one came, and the session with it");
    assert_eq!(world.packets(1), 0);
}

#[test]
fn confirm_is_never_longer_than_the_final_it_repeats_for() {
    let (mut world, last) = up_to_final();
    world.fate = Box::new(|_| Fate::Pass);
    world.run(Duration::from_millis(800));
    assert_eq!(world.packets(2), 1);
    let parsed = Final::parse(&last).unwrap();
    let mut short = Vec::new();
    let mac1 = |bytes: &[u8]| mac::mac1(&keys(), bytes);
    Final::emit(&mut short, &parsed.route, parsed.receiver_index, Kind::GatewayToGateway, &[], mac1);
    world.capture = Some(Vec::new());
    let (transfer, bytes) = (world.transfer_at, short.len());
    world.train(2, transfer, short, bytes);
    assert_eq!(world.capture.take().unwrap().len(), 0);
    assert_eq!(world.gateways[&2].drops().get(DropReason::Unpadded), 1);
    world.capture = Some(Vec::new());
    let bytes = last.len();
    world.train(2, transfer, last, bytes);
    let answers = world.capture.take().unwrap();
    assert_eq!(answers.len(), 1, "one of full length is answered");
    assert!(answers[0].bytes.len() <= bytes);
    assert!(world.gateways[&2].poll_timeout().is_some());
}
