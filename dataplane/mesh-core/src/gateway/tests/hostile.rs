//! Datagrams from anywhere: no panic, no growth, no answer longer than its cause.

use std::time::Duration;

use mesh_wire::handshake::{Init, Kind};
use mesh_wire::route::Route;
use proptest::prelude::*;

use super::packets::ping;
use super::world::{World, address_of, keys};
use crate::drops::DropReason;
use crate::session::mac;

/// A connected pair and what went over the wire.
fn pair() -> World {
    let mut world = World::with(&[]);
    world.capture = Some(Vec::new());
    world.start_gateway(1, 1);
    world.start_gateway(2, 1);
    world.run(Duration::from_millis(300));
    for seq in 0..5 {
        world.inside(1, &ping(1, 2, seq));
        world.run(Duration::from_millis(100));
        world.inside(2, &ping(2, 1, seq));
    }
    world.run(Duration::from_millis(300));
    world
}

#[test]
fn stranger_with_the_token_gets_a_cookie_reply_and_others_nothing() {
    for (mut world, answered) in [(World::with_paths(&[1, 2]), 1), (pair(), 0)] {
        ask_as_a_stranger(&mut world, answered);
    }
}

/// Who may be reached by the relay alone (`answered` is 0) says nothing to strangers at all.
fn ask_as_a_stranger(world: &mut World, answered: usize) {
    let stranger = "203.0.113.5:999".parse().unwrap();
    let noise = [3; 80];
    let good =
        Init::emit(&Route::DIRECT, 5, Kind::GatewayToGateway, &noise, |bytes| mac::mac1(&keys(), bytes), |_| [0; 16]);
    let mut bad = good;
    bad[290] ^= 1;
    world.capture = Some(Vec::new());
    world.train(2, stranger, good.to_vec(), good.len());
    world.train(2, stranger, bad.to_vec(), bad.len());
    let answers = world.capture.take().unwrap();
    assert_eq!(answers.len(), answered);
    for answer in answers {
        assert_eq!((answer.bytes.len(), answer.bytes[0], answer.to), (64, 0x24, stranger));
    }
    assert_eq!(world.gateways[&2].drops().get(DropReason::WrongToken), 1);
}

#[test]
fn first_edition_and_other_versions_are_counted_and_not_answered() {
    let mut world = pair();
    world.capture = Some(Vec::new());
    let transfer = world.transfer_at;
    for from in [transfer, address_of(1)] {
        world.train(2, from, b"\x10{\"bad json".to_vec(), 11);
        world.train(2, from, vec![0x45; 60], 60);
        world.train(2, from, vec![0x35; 60], 60);
        world.train(2, from, vec![0x2f; 60], 60);
        world.train(2, from, vec![], 1);
        world.train(2, from, vec![0x20; 65_507], 1400);
    }
    assert_eq!(world.capture.unwrap().len(), 0);
    let drops = world.gateways[&2].drops();
    assert_eq!(drops.get(DropReason::FirstEdition), 4);
    assert_eq!(drops.get(DropReason::OtherVersion), 2);
    assert_eq!(drops.get(DropReason::UnknownType), 2);
    assert_eq!(drops.get(DropReason::Empty), 2);
}

#[test]
fn hints_from_strangers_do_nothing() {
    let mut world = pair();
    world.capture = Some(Vec::new());
    let stranger = "203.0.113.5:999".parse().unwrap();
    for _ in 0..100 {
        world.train(1, stranger, [vec![0x26, 1], vec![0; 14]].concat(), 16);
        world.train(1, stranger, vec![0x27, 1, 9, 9, 0, 0, 0, 0], 8);
    }
    assert_eq!(world.capture.take().unwrap().len(), 0);
    // From the transfer's address (which can be forged) it is one keepalive a second.
    world.capture = Some(Vec::new());
    let transfer = world.transfer_at;
    for _ in 0..100 {
        world.train(1, transfer, [vec![0x26, 1], vec![0; 14]].concat(), 16);
    }
    assert_eq!(world.capture.take().unwrap().len(), 1);
    world.run(Duration::from_millis(500));
    assert!(world.gateways[&1].relay.is_healthy());
}

#[test]
fn flood_of_unknown_destinations_is_bounded() {
    let mut world = World::with(&[1]);
    world.fate = Box::new(|_| super::world::Fate::Drop);
    for high in 1..=20_u8 {
        for low in 0..=255_u8 {
            let mut packet = ping(1, 2, 1);
            packet[16..20].copy_from_slice(&[172, 168, high, low]);
            world.inside(1, &packet);
        }
    }
    assert_eq!(world.gateways[&1].peers.queued, 1024);
    world.fate = Box::new(|_| super::world::Fate::Pass);
    world.run(Duration::from_secs(12));
    assert_eq!(world.gateways[&1].peers.queued, 0);
    assert_eq!(world.gateways[&1].peers.iter().count(), 0, "nobody is remembered for long");
}

/// One step of an attacker who sees everything.
#[derive(Clone, Debug)]
enum Step {
    Random { from_transfer: bool, bytes: Vec<u8>, stride: usize },
    Captured { at: usize, cut: usize, flip: usize },
    Inside { bytes: Vec<u8> },
    Wait { millis: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let byte0 = prop_oneof![8 => 0x20_u8..0x28, 1 => any::<u8>()];
    let random = (any::<bool>(), byte0, prop::collection::vec(any::<u8>(), 0..400), 1_usize..400).prop_map(
        |(from_transfer, first, mut bytes, stride)| {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            Step::Random { from_transfer, bytes, stride }
        },
    );
    let captured =
        (any::<usize>(), any::<usize>(), any::<usize>()).prop_map(|(at, cut, flip)| Step::Captured { at, cut, flip });
    let inside = prop::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| Step::Inside { bytes });
    let wait = (0_u64..3000).prop_map(|millis| Step::Wait { millis });
    prop::collection::vec(prop_oneof![4 => random, 6 => captured, 1 => inside, 1 => wait], 1..60)
}

proptest! {
    #[test]
    fn nothing_that_arrives_breaks_it(steps in steps()) {
        let mut world = pair();
        let capture = world.capture.take().unwrap();
        let delivered = (world.packets(1), world.packets(2));
        let transfer = world.transfer_at;
        for step in steps {
            world.capture = Some(Vec::new());
            match step {
                Step::Random { from_transfer, bytes, stride } => {
                    let from = if from_transfer { transfer } else { address_of(1) };
                    let total = bytes.len();
                    world.train(2, from, bytes, stride);
                    let answered: usize = world.capture.as_ref().unwrap().iter().map(|datagram| datagram.bytes.len()).sum();
                    // A hint may cause one keepalive, which is as long as its answer.
                    prop_assert!(answered <= total.max(91));
                }
                Step::Captured { at, cut, flip } => {
                    let datagram = &capture[at % capture.len()];
                    let mut bytes = datagram.bytes.clone();
                    bytes.truncate(bytes.len() - cut % 4 * (cut % bytes.len() / 4));
                    if flip % 3 != 0 && !bytes.is_empty() {
                        let at = flip / 3 % bytes.len();
                        bytes[at] ^= 1 << (flip % 8);
                    }
                    let stride = bytes.len().max(1);
                    for number in [1, 2] {
                        world.train(number, datagram.from, bytes.clone(), stride);
                    }
                }
                Step::Inside { bytes } => world.inside(2, &bytes),
                Step::Wait { millis } => world.run(Duration::from_millis(millis)),
            }
        }
        prop_assert_eq!((world.packets(1), world.packets(2)), delivered, "nothing forged or replayed was delivered");
        world.run(Duration::from_secs(4));
        for seq in 0..20 {
            world.inside(1, &ping(1, 2, seq));
            world.run(Duration::from_millis(100));
        }
        prop_assert!(world.packets(2) > delivered.1, "traffic goes on");
        world.run(Duration::from_secs(20));
        for number in [1, 2] {
            prop_assert!(world.gateways[&number].indexes.taken() <= 4);
        }
    }
}
