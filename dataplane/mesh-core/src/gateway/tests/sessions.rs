//! Sessions: begun at once by both, renewed under load, replayed, lost and repeated messages, impostors.

use std::time::Duration;

use super::packets::ping;
use super::world::{Datagram, Fate, World, address_of, config, ip4};
use crate::drops::DropReason;
use crate::gateway::{Event, GatewayConfig};
use crate::session::cipher::{Cipher, Ciphers};
use crate::session::handshake::StaticKey;

#[test]
fn both_first_packets_at_once_pass() {
    for (late_1, late_2) in [(0, 0), (3, 0), (0, 3), (12, 0), (0, 12), (25, 0), (0, 25), (45, 0), (0, 45)] {
        let mut world = World::with(&[1, 2]);
        world.run(Duration::from_millis(late_1));
        world.inside(1, &ping(1, 2, 1));
        world.run(Duration::from_millis(late_2));
        world.inside(2, &ping(2, 1, 1));
        world.run(Duration::from_millis(700));
        assert_eq!((world.packets(1), world.packets(2)), (1, 1), "{late_1} and {late_2} ms late");
        // And everything after, for as long as old keys live and longer.
        for seq in 2..200 {
            world.inside(1, &ping(1, 2, seq));
            world.inside(2, &ping(2, 1, seq));
            world.run(Duration::from_millis(100));
        }
        world.run(Duration::from_millis(100));
        assert_eq!((world.packets(1), world.packets(2)), (199, 199), "{late_1} and {late_2} ms late");
        assert_eq!(world.gateways[&1].indexes.taken(), 2, "the transfer's session and the peer's");
    }
}

#[test]
fn peers_without_a_cipher_in_common_both_say_so_once_until_one_gives_way() {
    let only = |number, boot, cipher| GatewayConfig { ciphers: Ciphers::only(cipher), ..config(number, boot) };
    let mut world = World::with(&[]);
    world.insert(1, only(1, 1, Cipher::Aes256Gcm));
    world.insert(2, only(2, 1, Cipher::ChaCha20Poly1305));
    world.run(Duration::from_secs(1));
    for seq in 0..30 {
        world.inside(1, &ping(1, 2, seq));
        world.run(Duration::from_secs(1));
    }
    assert_eq!(world.packets(2), 0);
    for (number, peer) in [(1, 2), (2, 1)] {
        let told = |event: &&Event| **event == Event::NoCommonCipher { ip4: ip4(peer) };
        assert_eq!(world.events[&number].iter().filter(told).count(), 1, "gateway {number}");
        let gateway = &world.gateways[&number];
        let refused = gateway.drops().get(DropReason::NoCommonCipher);
        assert!((3..=5).contains(&refused), "one in ten seconds: {refused} in gateway {number}");
        assert_eq!(gateway.drops().get(DropReason::HandshakeFailed), 0);
        let status = gateway.status(world.now);
        let failures: Vec<_> = status.peers.iter().map(|peer| (peer.connected, peer.failure)).collect();
        assert_eq!(failures, [(false, Some("no-common-cipher"))], "gateway {number}");
    }
    world.insert(2, GatewayConfig { ciphers: Ciphers::all(Cipher::ChaCha20Poly1305), ..config(2, 2) });
    for seq in 30..50 {
        world.inside(1, &ping(1, 2, seq));
        world.run(Duration::from_secs(1));
    }
    assert!(world.packets(2) >= 5, "{}", world.packets(2));
    let status = world.gateways[&1].status(world.now);
    let peer = &status.peers[0];
    assert_eq!((peer.cipher, peer.failure), (Some(Cipher::Aes256Gcm.name()), None));
}

#[test]
fn rekey_under_load_loses_nothing() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 0));
    world.run(Duration::from_millis(500));
    world.capture = Some(Vec::new());
    let mut count = 1;
    // Every 20 ms for 300 s: two changes of keys.
    for seq in 0..15_000 {
        world.inside(1, &ping(1, 2, seq));
        world.inside(2, &ping(2, 1, seq));
        world.run(Duration::from_millis(20));
        count += 1;
    }
    world.run(Duration::from_millis(100));
    assert_eq!((world.packets(1), world.packets(2)), (count - 1, count));
    let inits = world.capture.unwrap().iter().filter(|datagram| datagram.kind() == 1).count();
    // Each is sent to the transfer and forwarded.
    assert_eq!(inits, 4, "two handshakes");
    let drops = [1, 2].map(|number| world.gateways[&number].drops().total());
    assert_eq!(drops, [0, 0]);
}

#[test]
fn handshake_gets_through_loss_and_repetition() {
    for seed in 0..40_u64 {
        let mut world = World::with(&[1, 2]);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        world.fate = Box::new(move |_| {
            // xorshift64: loss, repetition and delay of a third of all datagrams.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match state % 10 {
                0 => Fate::Drop,
                1 => Fate::Twice,
                2 => Fate::Late(Duration::from_millis(state >> 32 & 63)),
                _ => Fate::Pass,
            }
        });
        for seq in 0..10 {
            world.inside(1, &ping(1, 2, seq));
            world.inside(2, &ping(2, 1, seq));
            world.run(Duration::from_millis(400));
        }
        // At 10 % loss on each of two links about four of five arrive.
        assert!(
            world.packets(1) >= 4 && world.packets(2) >= 4,
            "seed {seed}: {} {}",
            world.packets(1),
            world.packets(2)
        );
        world.fate = Box::new(|_| Fate::Pass);
        world.run(Duration::from_secs(1));
        let before = (world.packets(1), world.packets(2));
        world.inside(1, &ping(1, 2, 100));
        world.inside(2, &ping(2, 1, 100));
        world.run(Duration::from_millis(100));
        assert_eq!((world.packets(1), world.packets(2)), (before.0 + 1, before.1 + 1), "seed {seed}");
    }
}

/// The frames to a gateway that a capture holds, as one train of equal segments.
fn data_train(capture: &[Datagram], to: u8) -> (Vec<u8>, usize) {
    let frames: Vec<&Datagram> =
        capture.iter().filter(|datagram| datagram.to == address_of(to) && datagram.kind() == 0).collect();
    let stride = frames.iter().map(|frame| frame.bytes.len()).max().unwrap();
    let equal: Vec<u8> =
        frames.iter().filter(|frame| frame.bytes.len() == stride).flat_map(|frame| frame.bytes.clone()).collect();
    (equal, stride)
}

#[test]
fn replayed_train_delivers_nothing_ever() {
    let mut world = World::with(&[1, 2]);
    world.capture = Some(Vec::new());
    for seq in 0..20 {
        world.inside(1, &ping(1, 2, seq));
        world.run(Duration::from_millis(50));
    }
    assert_eq!(world.packets(2), 20);
    let (train, stride) = data_train(world.capture.as_ref().unwrap(), 2);
    let segments = (train.len() / stride) as u64;
    assert!(segments >= 20);
    let transfer = world.transfer_at;

    world.train(2, transfer, train.clone(), stride);
    assert_eq!(world.packets(2), 20, "in the same session");
    assert_eq!(world.gateways[&2].drops().get(DropReason::Replayed), segments);

    for seq in 0..1400 {
        world.inside(1, &ping(1, 2, seq));
        world.run(Duration::from_millis(100));
    }
    let delivered = world.packets(2);
    world.train(2, transfer, train.clone(), stride);
    assert_eq!(world.packets(2), delivered, "after a rekey");

    world.start_gateway(1, 2);
    world.start_gateway(2, 2);
    world.run(Duration::from_secs(1));
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_secs(1));
    assert_eq!(world.packets(2), delivered + 1);
    let before = world.gateways[&2].status(world.now).replayed;
    world.train(2, transfer, train, stride);
    assert_eq!(world.packets(2), delivered + 1, "after both were restarted");
    assert_eq!(world.gateways[&2].status(world.now).replayed - before, segments);
}

#[test]
fn same_frame_twice_in_one_train_is_delivered_once() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 0));
    world.run(Duration::from_millis(300));
    world.capture = Some(Vec::new());
    world.fate = Box::new(|_| Fate::Drop);
    for seq in 0..4 {
        world.inside(1, &ping(1, 2, seq));
    }
    let frames: Vec<u8> = world.capture.take().unwrap().into_iter().flat_map(|datagram| datagram.bytes).collect();
    let stride = frames.len() / 4;
    let twice = [frames.clone(), frames].concat();
    let transfer = world.transfer_at;
    world.train(2, transfer, twice, stride);
    assert_eq!(world.packets(2), 5);
    assert_eq!(world.gateways[&2].drops().get(DropReason::Replayed), 4);
}

#[test]
fn peer_that_was_restarted_is_reached_again() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 0));
    world.run(Duration::from_millis(300));
    world.start_gateway(2, 2);
    let mut seq = 1;
    let before = world.packets(2);
    let start = world.now;
    while world.packets(2) == before {
        world.inside(1, &ping(1, 2, seq));
        seq += 1;
        world.run(Duration::from_millis(100));
        assert!(world.now.since(start) < Duration::from_secs(2), "{:?}", world.gateways[&1].drops());
    }
}

#[test]
fn peer_that_stops_is_unreachable_and_comes_back() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 0));
    world.run(Duration::from_millis(300));
    let now = world.now;
    world.gateways.get_mut(&2).unwrap().stop(now);
    world.inside(2, &[]);
    world.run(Duration::from_millis(100));
    assert!(world.events[&1].contains(&Event::PeerDown { ip4: ip4(2) }));
    world.gateways.remove(&2);
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_millis(100));
    assert_eq!(world.packets(1), 1, "host unreachable");
    world.start_gateway(2, 2);
    world.run(Duration::from_millis(500));
    world.inside(1, &ping(1, 2, 2));
    world.run(Duration::from_millis(500));
    assert_eq!(world.packets(2), 2);
}

#[test]
fn silent_peer_is_noticed_although_its_transfer_lives() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 0));
    world.run(Duration::from_millis(300));
    world.gateways.remove(&2);
    for seq in 0..150 {
        world.inside(1, &ping(1, 2, seq));
        world.run(Duration::from_millis(100));
    }
    assert!(world.events[&1].contains(&Event::PeerDown { ip4: ip4(2) }));
    assert!(world.gateways[&1].drops().get(DropReason::QueueExpired) > 0);
}

#[test]
fn quiet_receiver_is_probed_and_kept() {
    let mut world = World::with(&[1, 2]);
    for seq in 0..300 {
        // One way only, for 30 s.
        world.inside(1, &ping(1, 2, seq));
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.packets(2), 300);
    assert!(!world.events[&1].contains(&Event::PeerDown { ip4: ip4(2) }));
}

#[test]
fn idle_session_is_closed_and_comes_back() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 0));
    world.run(Duration::from_secs(200));
    for number in [1, 2] {
        assert_eq!(world.gateways[&number].indexes.taken(), 1, "only the transfer's");
    }
    world.inside(2, &ping(2, 1, 0));
    world.run(Duration::from_millis(500));
    assert_eq!(world.packets(1), 1);
}

#[test]
fn handshake_by_another_key_than_vouched_for_is_refused() {
    let mut world = World::with(&[1, 2]);
    // 3 takes the place of 1 on the network: same address and slot, another key.
    let victim = world.gateways.remove(&1).unwrap();
    let mut other = config(1, 5);
    other.static_key = StaticKey::from_seed([77; 32]);
    world.insert(1, other);
    world.run(Duration::from_millis(500));
    assert!(
        world.events[&1].iter().any(|event| matches!(event, Event::Refused { .. })),
        "the transfer refuses it the address"
    );
    // Even if the transfer forwarded for it: it is given the victim's registration, and keeps its own key.
    let mut impostor = victim;
    impostor.static_key = StaticKey::from_seed([77; 32]);
    world.gateways.insert(1, impostor);
    world.inside(1, &ping(1, 2, 0));
    world.run(Duration::from_secs(1));
    assert_eq!(world.packets(2), 0);
    assert_eq!(world.gateways[&2].drops().get(DropReason::Impostor), 1);
    assert!(world.events[&2].contains(&Event::Impostor { ip4: ip4(1) }));
}
