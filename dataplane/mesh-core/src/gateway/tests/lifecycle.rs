//! The transfer comes late, goes, comes back, moves, refuses, or shows another key.

use std::time::Duration;

use super::packets::ping;
use super::world::{Fate, World, config, ip4};
use crate::gateway::Event;
use crate::session::handshake::StaticKey;

fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Pings from 1 to 2 ten times a second until one arrives.
fn time_to_traffic(world: &mut World) -> Duration {
    let (start, before) = (world.now, world.packets(2));
    let mut seq = 0;
    while world.packets(2) == before {
        world.inside(1, &ping(1, 2, seq));
        seq += 1;
        world.run(Duration::from_millis(100));
        assert!(world.now.since(start) < second(20), "{:?}", world.events);
    }
    world.now.since(start)
}

#[test]
fn transfer_may_come_later() {
    let mut world = World::empty();
    world.start_gateway(1, 1);
    world.start_gateway(2, 1);
    world.run(second(30));
    let silent = world.events[&1].iter().filter(|event| matches!(event, Event::TransferSilent { .. })).count();
    assert_eq!(silent, 1, "told once");
    world.start_transfer(1);
    let took = time_to_traffic(&mut world);
    assert!(took <= second(2), "{took:?}");
    assert!(world.events[&1].contains(&Event::TransferBack));
}

#[test]
fn packets_before_registration_are_unreachable_after_five_seconds() {
    let mut world = World::empty();
    world.start_gateway(1, 1);
    world.inside(1, &ping(1, 2, 0));
    let took = world.run_until(second(10), |world| world.packets(1) == 1).expect("an answer");
    assert!(took >= second(5) && took < second(6), "{took:?}");
}

#[test]
fn traffic_is_back_after_a_restart_of_the_transfer() {
    for away in [0, 1, 2, 5, 17, 61] {
        let mut world = World::with(&[1, 2]);
        time_to_traffic(&mut world);
        let mut worst = Duration::ZERO;
        for boot in 2..5 {
            world.transfer = None;
            for seq in 0..away * 10 {
                world.inside(1, &ping(1, 2, seq));
                world.inside(2, &ping(2, 1, seq));
                world.run(Duration::from_millis(100));
            }
            world.start_transfer(boot);
            worst = worst.max(time_to_traffic(&mut world));
            // Other traffic in between, so that it is in use.
            for seq in 0..20 {
                world.inside(1, &ping(1, 2, seq));
                world.run(Duration::from_millis(100));
            }
        }
        assert!(worst <= second(3), "{worst:?} after {away} s");
        assert!(
            !world.events[&1].contains(&Event::PeerDown { ip4: ip4(2) }),
            "sessions outlive {away} s: {:?}",
            world.events[&1]
        );
    }
}

#[test]
fn traffic_follows_the_name() {
    let mut world = World::with(&[1, 2]);
    time_to_traffic(&mut world);
    // Switched at once: nothing at the old address says so.
    world.transfer_at = "192.0.2.77:8000".parse().unwrap();
    world.name = vec![world.transfer_at];
    world.start_transfer(2);
    let took = time_to_traffic(&mut world);
    assert!(took <= second(3), "{took:?}");
}

#[test]
fn address_that_does_not_answer_is_passed_over() {
    let mut world = World::empty();
    world.name = vec!["192.0.2.9:8000".parse().unwrap(), world.transfer_at];
    world.start_transfer(1);
    world.start_gateway(1, 1);
    world.run(second(1));
    assert!(world.events[&1].iter().any(|event| matches!(event, Event::Registered { .. })));
}

#[test]
fn second_holder_of_an_address_is_told_and_the_first_keeps_it() {
    let mut world = World::with(&[1, 2]);
    let mut second_one = config(3, 1);
    second_one.ip4 = ip4(1);
    world.insert(3, second_one);
    world.run(second(10));
    let refused: Vec<&Event> = world.events[&3].iter().filter(|event| matches!(event, Event::Refused { .. })).collect();
    assert_eq!(refused.len(), 1, "told once: {refused:?}");
    assert!(matches!(refused[0], Event::Refused { ip4: at, first: true, .. } if *at == ip4(1)));
    time_to_traffic(&mut world);
    assert_eq!(world.gateways[&3].status(world.now).transfer.slot, None);
}

#[test]
fn cloned_machine_is_refused_by_name() {
    let mut world = World::with(&[1, 2]);
    let mut clone = config(1, 9);
    clone.seed = [99; 32];
    world.insert(3, clone);
    world.run(second(3));
    let reason = world.events[&3]
        .iter()
        .find_map(|event| if let Event::Refused { reason, .. } = event { Some(*reason) } else { None });
    assert_eq!(reason, Some(mesh_wire::message::RefusedReason::KeyInUse));
    time_to_traffic(&mut world);
}

#[test]
fn pinned_transfer_with_another_key_is_refused() {
    let mut world = World::empty();
    world.start_transfer(1);
    let mut pinned = config(1, 1);
    pinned.pinned_transfer_key = Some(*StaticKey::from_seed([1; 32]).public());
    world.insert(1, pinned);
    world.run(second(5));
    let told = world.events[&1].iter().filter(|event| **event == Event::TransferKeyChanged).count();
    assert_eq!(told, 1);
    assert!(!world.events[&1].iter().any(|event| matches!(event, Event::Registered { .. })));
}

#[test]
fn key_of_the_transfer_is_pinned_at_first_use() {
    let world = World::with(&[1]);
    assert_eq!(world.gateways[&1].transfer_key(), Some(*StaticKey::from_seed([200; 32]).public()));
}

#[test]
fn idle_gateway_says_little_and_keeps_its_lease() {
    let mut world = World::with(&[1, 2]);
    world.capture = Some(Vec::new());
    world.run(second(600));
    let capture = world.capture.take().unwrap();
    let bytes: usize = capture.iter().map(|datagram| datagram.bytes.len() + 28).sum();
    assert!(bytes / 600 < 100, "{} bytes a second for two gateways", bytes / 600);
    time_to_traffic(&mut world);
}

#[test]
fn registration_is_renewed_for_hours_under_loss() {
    let mut world = World::with(&[1, 2]);
    let mut count = 0;
    world.fate = Box::new(move |_| {
        count += 1;
        if count % 5 == 0 { Fate::Drop } else { Fate::Pass }
    });
    world.run(second(3 * 3600));
    world.fate = Box::new(|_| Fate::Pass);
    time_to_traffic(&mut world);
    assert_eq!(world.gateways[&1].indexes.taken(), 2);
}

#[test]
fn change_of_our_own_address_is_survived() {
    let mut world = World::with(&[1, 2]);
    time_to_traffic(&mut world);
    // A NAT gives 1 another address: the gateway does not notice, only its datagrams come from elsewhere.
    let gateway = world.gateways.remove(&1).unwrap();
    world.gateways.insert(9, gateway);
    world.delivered.insert(9, Vec::new());
    world.events.insert(9, Vec::new());
    let before = world.packets(2);
    let start = world.now;
    let mut seq = 0;
    while world.packets(2) == before {
        world.inside(9, &ping(1, 2, seq));
        seq += 1;
        world.run(Duration::from_millis(100));
        assert!(world.now.since(start) < second(3), "{:?}", world.events[&9]);
    }
}
