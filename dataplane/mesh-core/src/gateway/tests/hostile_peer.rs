//! A peer with good keys that says anything.

use std::time::Duration;

use mesh_wire::frame::FrameType;
use mesh_wire::route::{Destination, Route};
use mesh_wire::sealed::SealedHeader;
use proptest::prelude::*;

use super::packets::{ping, udp6};
use super::world::{World, ip4, keys};
use crate::node::Node;

/// A SYN over IPv6 that announces the largest segment there is.
fn syn6() -> Vec<u8> {
    let mut packet = udp6(1, 2, 100);
    packet[6] = 6;
    (packet[40 + 12], packet[40 + 13]) = (0x80, 2);
    packet[60..64].copy_from_slice(&[2, 4, 0xff, 0xff]);
    packet
}

/// One sealed frame, and the time after it.
#[derive(Clone, Debug)]
struct Step {
    control: bool,
    flags: u8,
    plaintext: Vec<u8>,
    millis: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let random = || prop::collection::vec(any::<u8>(), 0..60);
    let half = (0_u8..3).prop_map(|id| [vec![0, id, 0, 20], vec![0x45; 10]].concat());
    let message = (0_u8..24, random()).prop_map(|(kind, rest)| [vec![kind], rest].concat());
    let plaintext =
        prop_oneof![Just(ping(1, 2, 3)), Just(udp6(1, 2, 200)), Just(syn6()), random(), half, message.clone(), message];
    let changes = prop::collection::vec((any::<usize>(), any::<u8>()), 0..6);
    let step = (any::<bool>(), 0_u8..9, plaintext, changes, any::<usize>(), 0_u64..400);
    let step = step.prop_map(|(control, flags, mut plaintext, changes, cut, millis)| {
        for (at, value) in changes {
            let length = plaintext.len();
            if length > 0 {
                plaintext[at % length] = value;
            }
        }
        if cut % 5 == 0 {
            plaintext.truncate(cut / 5 % (plaintext.len() + 1));
        }
        Step { control, flags, plaintext, millis }
    });
    prop::collection::vec(step, 1..80)
}

/// Seals what gateway 1 never would say, under its session with gateway 2; `None` when there is none.
fn seal(world: &mut World, step: &Step) -> Option<Vec<u8>> {
    let theirs = world.gateways[&2].relay.slot.unwrap();
    let gateway = world.gateways.get_mut(&1).unwrap();
    let route = Route { destination: Destination::here(theirs), source: gateway.relay.slot.unwrap() };
    let id = gateway.peers.find(ip4(2))?;
    let session = gateway.peers.get_mut(id)?.keyring.as_mut()?.sealing()?;
    let counter = session.reserve(1)?;
    let frame = if step.control { FrameType::Control } else { FrameType::Data };
    let receiver_index = session.remote_index();
    let header = SealedHeader { frame, flags: step.flags, route, receiver_index, counter }.emit();
    let mut body = step.plaintext.clone();
    let tag = session.seal(counter, &header, &mut body);
    Some([&header[..], &body, &tag].concat())
}

/// Whether a packet that was delivered to gateway 2 comes from gateway 1 and is for it.
fn is_between_both(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 4 {
        packet[12..16] == ip4(1).octets() && packet[16..20] == ip4(2).octets()
    } else {
        packet[8..24] == keys().ula(ip4(1)).octets() && packet[24..40] == keys().ula(ip4(2)).octets()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_peer_says_breaks_it(steps in steps()) {
        let mut world = World::with(&[1, 2]);
        let transfer = world.transfer_at;
        for step in steps {
            let Some(bytes) = seal(&mut world, &step) else {
                world.inside(1, &ping(1, 2, 0));
                world.run(Duration::from_millis(2300));
                continue;
            };
            let (stride, before) = (bytes.len(), world.packets(2));
            world.train(2, transfer, bytes, stride);
            for (_, packet) in &world.delivered[&2][before..] {
                prop_assert!(is_between_both(packet));
            }
            world.run(Duration::from_millis(step.millis));
            let now = world.now;
            world.gateways.get_mut(&2).unwrap().handle_timeout(now);
            prop_assert!(world.gateways[&2].poll_timeout().is_none_or(|at| at > now), "nothing spins");
        }
        world.run(Duration::from_secs(15));
        let before = world.packets(2);
        for seq in 0..10 {
            world.inside(1, &ping(1, 2, seq));
            world.run(Duration::from_secs(1));
        }
        prop_assert!(world.packets(2) > before, "they talk again");
    }
}
