//! Nothing grows without bound, nothing panics, nobody is answered with more than it sent.

use std::time::Duration;

use mesh_wire::frame::FrameType;
use mesh_wire::message::Message;
use proptest::prelude::*;

use super::world::*;
use crate::drops::DropReason;
use crate::node::Node;
use crate::seam::{Moment, SocketId};
use crate::transfer::handshake::PER_NAMESPACE_MAX;

#[test]
fn flood_of_inits_from_many_addresses_leaves_nothing() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let started = gateway.start();
    let init = gateway.init(&started, None);
    for n in 0..20_000_u32 {
        let [_, b, c, d] = n.to_be_bytes();
        let from = at(FIRST, &format!("10.{b}.{c}.{d}:{}", 1 + n % 60_000));
        assert!(world.answers(from, &init).iter().all(|(to, bytes)| *to == from && bytes.len() < init.len()));
    }
    let status = world.transfer.status(world.now);
    assert_eq!((status.handshakes_pending, status.control_sessions), (0, 0));
    assert!(world.transfer.poll_job().is_none());
    assert!(world.transfer.poll_timeout().is_none());
    assert!(world.pump().is_empty());
}

#[test]
fn flood_of_proven_inits_is_bounded_and_ends() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let started = gateway.start();
    let bare = gateway.init(&started, None);
    let mut accepted = 0;
    for n in 0..3000_u32 {
        let [_, _, c, d] = n.to_be_bytes();
        let from = at(FIRST, &format!("10.0.{c}.{d}:5000"));
        let reply = only(world.answers(from, &bare), from);
        let proven = gateway.init(&started, Some(&gateway.cookie(&bare, &reply)));
        // No job is run: the other thread is behind.
        accepted += usize::from(world.answers(from, &proven).is_empty());
    }
    // Beyond the bound a hundred a second are told that it is busy, the others nothing.
    assert_eq!(world.transfer.status(world.now).handshakes_pending, PER_NAMESPACE_MAX);
    assert_eq!(accepted, 3000 - 100);
    assert_eq!(world.transfer.drops().get(DropReason::Busy), (3000 - PER_NAMESPACE_MAX) as u64);
    // The other namespace is not touched by it.
    assert_eq!(world.pump().len(), PER_NAMESPACE_MAX, "all that were let in are answered in the end");
    Gateway::new(SECOND, 2).join(&mut world);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.transfer.status(world.now).handshakes_pending, 0);
}

#[test]
fn one_endpoint_has_two_handshakes_at_most() {
    let mut world = World::new();
    let mut gateway = Gateway::new(FIRST, 1).join(&mut world);
    let started = gateway.start();
    let bare = gateway.init(&started, None);
    let cookie = gateway.cookie(&bare, &only(world.deliver(gateway.endpoint, &bare), gateway.endpoint));
    for _ in 0..10 {
        let started = gateway.start();
        let sent = world.deliver(gateway.endpoint, &gateway.init(&started, Some(&cookie)));
        assert_eq!(only(sent, gateway.endpoint)[0], FrameType::HandshakeResponse.byte(), "the newest is answered");
        assert!(world.transfer.status(world.now).handshakes_pending <= 2);
    }
    let inits: Vec<_> = (0..10)
        .map(|_| {
            let started = gateway.start();
            gateway.init(&started, Some(&cookie))
        })
        .collect();
    for init in &inits {
        world.answers(gateway.endpoint, init);
    }
    let jobs = std::iter::from_fn(|| world.transfer.poll_job()).count();
    assert_eq!(jobs, 2, "one address orders no more work than that");
}

#[test]
fn idle_namespaces_cost_no_timer_and_little_memory() {
    let mut world = World::new();
    for socket in 0..1000 {
        world.transfer.add_namespace(SocketId(socket), 10_000 + socket, keys(7, 10_000 + socket));
    }
    assert_eq!(world.transfer.poll_timeout(), None);
    assert!(size_of::<crate::transfer::namespace::Namespace>() < 512);
    // The rest of what a quiet member costs is weighed by tests/memory.rs.
    assert_eq!(size_of::<crate::transfer::slots::Place>(), 40);
    assert_eq!(size_of::<Option<crate::transfer::members::Member>>(), 192);
}

#[test]
fn slot_table_is_full_at_its_bound() {
    use crate::transfer::slots::{SLOTS_MAX, SlotTable};
    use rand::SeedableRng;
    let mut rng = rand_chacha::ChaCha12Rng::from_seed([1; 32]);
    let mut table = SlotTable::new(FIRST);
    let endpoint = at(FIRST, "192.0.2.1:1");
    let first = table.take(endpoint, &mut rng).unwrap();
    for _ in 1..SLOTS_MAX {
        assert!(table.take(endpoint, &mut rng).unwrap().index > 0);
    }
    assert_eq!(table.take(endpoint, &mut rng), None);
    table.free(first);
    let again = table.take(endpoint, &mut rng).unwrap();
    assert_eq!((again.index, again.generation), (first.index, first.generation.wrapping_add(1)));
    assert!(table.get(first).is_none() && table.get(again).is_some());
}

/// What a stranger or a member may send: noise, or true frames with changes.
#[derive(Clone, Debug)]
enum Sending {
    Noise(Vec<u8>),
    Mutated { which: usize, at: usize, value: u8, cut: usize },
    Pass(u16),
}

fn sendings() -> impl Strategy<Value = Vec<Sending>> {
    let noise = (0_u8..=0x2f, prop::collection::vec(any::<u8>(), 0..400)).prop_map(|(first, mut bytes)| {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        Sending::Noise(bytes)
    });
    let mutated = (any::<usize>(), 0_usize..340, any::<u8>(), 0_usize..400)
        .prop_map(|(which, at, value, cut)| Sending::Mutated { which, at, value, cut });
    let pass = any::<u16>().prop_map(Sending::Pass);
    prop::collection::vec(prop_oneof![4 => noise, 8 => mutated, 1 => pass], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever arrives, from wherever: no panic, and to the address that sent it nothing longer than what it sent.
    #[test]
    fn no_datagram_earns_a_longer_one(sendings in sendings()) {
        let mut world = World::new();
        let mut a = Gateway::new(FIRST, 1).join(&mut world);
        let b = Gateway::new(FIRST, 2).join(&mut world);
        let mut fresh = Gateway::new(FIRST, 3);
        let last = fresh.up_to_final(&mut world);
        let started = a.start();
        let frames = [
            a.seal(&Message::Keepalive { seq: 1, change: 0 }),
            a.seal(&Message::Goodbye),
            a.data(b.slot, 120),
            a.init(&started, None).to_vec(),
            last,
        ];
        let stranger = at(FIRST, "198.51.100.7:5000");
        for sending in sendings {
            let bytes = match sending {
                Sending::Noise(bytes) => bytes,
                Sending::Mutated { which, at, value, cut } => {
                    let mut bytes = frames[which % frames.len()].clone();
                    let length = bytes.len();
                    bytes[at % length] ^= value;
                    bytes.truncate(length.min(cut));
                    bytes
                }
                Sending::Pass(millis) => {
                    world.pass(Duration::from_millis(millis.into()));
                    continue;
                }
            };
            for (to, answer) in world.deliver(stranger, &bytes) {
                prop_assert_eq!(to, stranger);
                prop_assert!(answer.len() <= bytes.len());
            }
        }
        world.members();
    }

    /// Trains of any shape: every range lies in the train, in order, and no byte is sent twice.
    #[test]
    fn trains_of_any_shape_are_cut_within_their_bounds(
        stride in 1_usize..80,
        segments in prop::collection::vec((0_usize..6, 0_usize..40, any::<u8>()), 0..30),
        short in 0_usize..80,
    ) {
        let mut world = World::new();
        let a = Gateway::new(FIRST, 1).join(&mut world);
        let b = Gateway::new(FIRST, 2).join(&mut world);
        let mut train = Vec::new();
        for (which, at, value) in segments {
            let mut frame = a.data(if which == 0 { a.slot } else { b.slot }, stride);
            if which == 1 && at < frame.len() {
                frame[at] ^= value;
            }
            train.extend(frame);
        }
        train.truncate(train.len().saturating_sub(short % stride));
        let arrival_stride = stride.min(train.len()).max(1);
        let mut end = 0;
        let length = train.len();
        for action in world.train(a.endpoint, arrival_stride, &mut train) {
            if let crate::seam::Action::Forward { bytes, segment_bytes, to, .. } = action {
                prop_assert!(bytes.start >= end && bytes.start < bytes.end && bytes.end <= length);
                prop_assert_eq!((bytes.start % arrival_stride, segment_bytes), (0, arrival_stride));
                prop_assert_eq!(to, b.endpoint);
                end = bytes.end;
            }
        }
    }
}

#[test]
fn time_that_jumps_does_no_harm() {
    let mut world = World::new();
    Gateway::new(FIRST, 1).join(&mut world);
    world.transfer.handle_timeout(Moment::from_nanos(u64::MAX));
    assert!(world.members().is_empty());
    world.transfer.handle_timeout(Moment::default());
}

#[test]
fn debug_output_shows_no_randomness_to_come() {
    let world = World::new();
    let mut rng = world.transfer.rng.memory();
    let shown = format!("{:?}", world.transfer);
    let next = Rng::next_u32(&mut rng);
    assert!(!shown.contains(&next.to_string()), "the generator's state is secret");
}
