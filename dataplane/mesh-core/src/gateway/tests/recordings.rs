//! What members, and recordings played again with the relay's address forged, can make a gateway do.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::handshake::{Final, Init, Kind, Response};
use mesh_wire::message::Message;
use mesh_wire::route::{Destination, Route, Slot};

use super::packets::ping;
use super::world::{CONTROL, Datagram, Fate, World, address_of, config, ip4, keys};
use crate::drops::DropReason;
use crate::gateway::callers::{Caller, Callers};
use crate::node::Node;
use crate::seam::{Arrival, Endpoint, Moment, Origin, Slab, SocketId};
use crate::session::cipher::{Cipher, Ciphers};
use crate::session::handshake::{Initiator, Kind as SessionKind, Params, Responder, StaticKey};
use crate::session::mac;
use crate::session::random::Generator;

const INIT: u8 = 1;
const RESPONSE: u8 = 2;
const FINAL: u8 = 3;
/// The init number `number` of a member with the slot `source`, in its start `boot`.
fn init(boot: u64, number: u64, source: Slot, to: Slot) -> Vec<u8> {
    let mut seed = [0x5a; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let params = Params::new(SessionKind::GatewayToGateway, &keys(), &StaticKey::from_seed([66; 32]), seed);
    let hello = Message::Hello { ciphers: 3, features: 0, boot, number }.to_vec();
    let (_, noise) = Initiator::start(&params, &hello).unwrap();
    let route = Route { destination: Destination::here(to), source };
    let mac1 = |bytes: &[u8]| mac::mac1(&keys(), bytes);
    Init::emit(&route, number as u32, Kind::GatewayToGateway, &noise, mac1, |_| [0; 16]).to_vec()
}

fn slot_of(world: &World, number: u8) -> Slot {
    world.gateways[&number].relay.slot.expect("it is registered")
}

/// Hands datagrams to a gateway as the relay hands them on, in trains. No job is run: the other threads are behind.
fn hand_over(world: &mut World, number: u8, datagrams: &[Vec<u8>]) {
    let endpoint = Endpoint { socket: SocketId(0), remote: world.transfer_at, local: None };
    let mut memory = vec![0; Slab::ROOM_BYTES];
    let gateway = world.gateways.get_mut(&number).unwrap();
    for train in datagrams.chunks(100) {
        let arrival = Arrival { origin: Origin::Outside(endpoint), segment_bytes: train[0].len(), tos: 0 };
        let mut slab = Slab::new(&mut memory, 0);
        gateway.handle(world.now, &arrival, &mut train.concat(), &mut slab, &mut Vec::new());
    }
}

#[test]
fn one_slot_orders_a_bounded_amount_of_work() {
    // With the same start, with another one each time, and with numbers that fall.
    for which in 0..3 {
        let mut world = World::with(&[1, 2, 3]);
        let (from, to) = (slot_of(&world, 3), slot_of(&world, 2));
        let numbered = |n: u64| match which {
            0 => init(1, n, from, to),
            1 => init(n, n, from, to),
            _ => init(1, 1000 - n, from, to),
        };
        let inits: Vec<_> = (0..600).map(numbered).collect();
        hand_over(&mut world, 2, &inits);
        let jobs = world.gateways[&2].jobs.len();
        assert!((1..=2).contains(&jobs), "{jobs} jobs");
        // Our own packet finds room for its handshake.
        world.inside(2, &ping(2, 1, 1));
        world.run(Duration::from_millis(500));
        assert_eq!(world.packets(1), 1);
    }
}

#[test]
fn work_that_others_order_leaves_room_for_our_own() {
    let mut world = World::with(&[1, 2]);
    let to = slot_of(&world, 2);
    // A member that can forge the relay's address, and so any slot.
    let slots = (0..2000).map(|n| Slot { index: 500 + n, generation: 9 });
    let inits: Vec<_> = slots.map(|slot| init(1, u64::from(slot.index), slot, to)).collect();
    hand_over(&mut world, 2, &inits);
    assert_eq!(world.gateways[&2].jobs.len(), 256);
    assert_eq!(world.gateways[&2].drops().get(DropReason::Busy), 2000 - 256);
}

#[test]
fn what_is_remembered_of_slots_is_bounded() {
    let (mut callers, mut rng) = (Callers::default(), Generator::from_seed([1; 32]));
    let mut now = Moment::from_nanos(1_000_000_000);
    for n in 0..20_000 {
        let _ = callers.let_in(now, &Caller::Slot(Slot { index: n, generation: 1 }), &mut rng);
    }
    assert_eq!(callers.len(), 4096);
    now = now + Duration::from_secs(10);
    assert_eq!(callers.let_in(now, &Caller::Slot(Slot { index: 1, generation: 2 }), &mut rng), Ok(()));
    assert_eq!(callers.len(), 1);
}

/// A recording of inits is played again at different speeds, by someone who can forge the relay's address.
#[test]
fn recorded_inits_do_not_keep_peers_apart() {
    for (mine, theirs) in [(1, 2), (2, 1)] {
        for (copies, every) in [(1, 40), (1, 2), (1, 1), (3, 1)] {
            let mut world = World::with(&[1, 2]);
            world.capture = Some(Vec::new());
            // Sessions that come and go; the peer begins each.
            for round in 0..4 {
                world.inside(theirs, &ping(theirs, mine, round));
                world.run(Duration::from_secs(200));
            }
            let (transfer, at) = (world.transfer_at, address_of(mine));
            let is_init = |d: &Datagram| d.kind() == INIT && d.from == transfer && d.to == at;
            let recorded: Vec<_> = world.capture.take().unwrap().into_iter().filter(is_init).collect();
            assert!(recorded.len() >= 4, "{}", recorded.len());
            // We may have forgotten the peer, and with it what it said before.
            world.run(Duration::from_secs(400));
            let before = world.packets(mine) + world.packets(theirs);
            let mut turn = recorded.iter().cycle();
            for step in 0..1000_u16 {
                for _ in 0..if step % every == 0 { copies } else { 0 } {
                    let bytes = turn.next().unwrap().bytes.clone();
                    let stride = bytes.len();
                    world.train(mine, transfer, bytes, stride);
                }
                if step % 50 == 0 {
                    world.inside(1, &ping(1, 2, step));
                    world.inside(2, &ping(2, 1, step));
                }
                world.run(Duration::from_millis(10));
            }
            let arrived = world.packets(mine) + world.packets(theirs) - before;
            assert!(arrived >= 38, "{arrived} of 40 packets at {copies} in {every} steps to {mine}");
        }
    }
}

#[test]
fn recorded_init_of_an_ended_handshake_is_dropped_unread() {
    let mut world = World::with(&[1, 2]);
    world.capture = Some(Vec::new());
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_secs(1));
    let (transfer, to) = (world.transfer_at, address_of(2));
    let capture = world.capture.take().unwrap();
    let recorded = capture.iter().find(|d| d.kind() == INIT && d.from == transfer && d.to == to).unwrap();
    hand_over(&mut world, 2, &vec![recorded.bytes.clone(); 100]);
    assert_eq!(world.gateways[&2].drops().get(DropReason::Outdated), 100);
    assert!(world.gateways[&2].jobs.is_empty());
}

/// A member with an address that no gateway can place, as it lies outside their network.
#[test]
fn member_whom_nobody_can_place_does_not_use_up_our_requests() {
    let mut world = World::with(&[1, 2]);
    let mut odd = config(9, 1);
    odd.ip4 = Ipv4Addr::new(9, 9, 9, 9);
    world.insert(9, odd);
    world.run(Duration::from_millis(500));
    let (from, to) = (slot_of(&world, 9), slot_of(&world, 2));
    let transfer = world.transfer_at;
    world.capture = Some(Vec::new());
    for number in 0..8000 {
        world.train(2, transfer, init(1, number, from, to), 320);
        if number % 4 == 3 {
            world.run(Duration::from_millis(10));
        }
    }
    let capture = world.capture.take().unwrap();
    let from_gateway = |kind| capture.iter().filter(|d| d.from == address_of(2) && d.kind() == kind).count();
    assert!(from_gateway(CONTROL) <= 20, "{} messages to the transfer in 20 s", from_gateway(CONTROL));
    assert!(from_gateway(RESPONSE) <= 100, "{} handshakes answered in 20 s", from_gateway(RESPONSE));
    assert_eq!(from_gateway(INIT), 0, "the registration is never in doubt");
    assert_eq!(world.transfer.as_ref().unwrap().drops().get(DropReason::RateLimited), 0);
    assert!(world.gateways[&2].relay.is_healthy());
    assert!(world.gateways[&2].drops().get(DropReason::UnknownSource) > 7000);
}

/// Responses and finals that another member sends from its own slot.
#[test]
fn handshake_messages_count_from_the_slot_of_their_peer_only() {
    let mut world = World::with(&[1, 2, 3]);
    let other = slot_of(&world, 3);
    let transfer = world.transfer_at;
    let elsewhere = move |datagram: &Datagram| {
        let (mut bytes, mac1) = (Vec::new(), |bytes: &[u8]| mac::mac1(&keys(), bytes));
        if datagram.kind() == RESPONSE {
            let it = Response::parse(&datagram.bytes).unwrap();
            let route = Route { source: other, ..it.route };
            Response::emit(&mut bytes, &route, it.sender_index, it.receiver_index, it.kind, it.noise, mac1);
        } else {
            let it = Final::parse(&datagram.bytes).unwrap();
            let route = Route { source: other, ..it.route };
            Final::emit(&mut bytes, &route, it.receiver_index, it.kind, it.noise, mac1);
        }
        bytes
    };
    for (kind, at) in [(RESPONSE, 1), (FINAL, 2)] {
        world.capture = Some(Vec::new());
        world.fate = Box::new(move |d| if d.kind() == kind && d.from == transfer { Fate::Drop } else { Fate::Pass });
        world.inside(1, &ping(1, 2, 1));
        world.run(Duration::from_millis(600));
        let capture = world.capture.take().unwrap();
        let held = capture.iter().find(|d| d.kind() == kind && d.from == transfer).expect("it was on its way");
        let bytes = elsewhere(held);
        let stride = bytes.len();
        world.train(at, transfer, bytes, stride);
        assert_eq!(world.gateways[&at].drops().get(DropReason::WrongEndpoint), 1);
        assert_eq!(world.packets(2), 0);
    }
    world.fate = Box::new(|_| Fate::Pass);
    world.run(Duration::from_secs(2));
    assert_eq!(world.packets(2), 2, "the true ones count");
}

/// Steps that no thread had time for cost a moment, not the life of the handshake.
#[test]
fn refused_jobs_cost_a_second_each_at_most() {
    for overloaded in 1..=4 {
        let mut world = World::with(&[1, 2]);
        world.overloaded = overloaded;
        world.inside(1, &ping(1, 2, 1));
        let took = world.run_until(Duration::from_secs(20), |world| world.packets(2) == 1);
        let most = Duration::from_millis(u64::from(overloaded) * 1000 + 300);
        assert!(took.is_some_and(|took| took < most), "{took:?} after {overloaded}");
    }
    // The same for the transfer's handshake.
    for overloaded in 1..=4 {
        let mut world = World::with(&[]);
        world.overloaded = overloaded;
        world.start_gateway(1, 1);
        let took = world.run_until(Duration::from_secs(20), |world| world.gateways[&1].relay.is_healthy());
        let most = Duration::from_millis(u64::from(overloaded) * 1000 + 300);
        assert!(took.is_some_and(|took| took < most), "{took:?} after {overloaded}");
    }
}

#[test]
fn bad_welcome_is_not_asked_for_again_at_once() {
    let mut world = World::with(&[1, 2]);
    let transfer = world.transfer_at;
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_millis(5));
    // A dishonest peer: gateway 2 with the right key, whose Welcome names no cipher.
    world.fate = Box::new(move |d| if d.to == address_of(2) { Fate::Drop } else { Fate::Pass });
    let mut answered = BTreeSet::new();
    let mut inits = 0;
    for _ in 0..500 {
        world.capture = Some(Vec::new());
        world.inside(1, &ping(1, 2, 1));
        world.run(Duration::from_millis(10));
        for datagram in world.capture.take().unwrap() {
            if datagram.kind() != INIT || datagram.from != address_of(1) {
                continue;
            }
            let init = Init::parse(&datagram.bytes).unwrap();
            if init.kind != Kind::GatewayToGateway || !answered.insert(init.mac1) {
                continue;
            }
            inits += 1;
            let dishonest = StaticKey::from_seed([2; 32]);
            let params = Params::new(SessionKind::GatewayToGateway, &keys(), &dishonest, [inits; 32]);
            let choose =
                |_: &[u8], _| Some((Message::Welcome { cipher: 4, features: 0 }.to_vec(), Some(Cipher::Aes256Gcm)));
            let made = Responder::answer(&params, init.noise, Ciphers::detected(), choose).unwrap();
            let route =
                Route { destination: Destination::here(init.route.source), source: init.route.destination.slot };
            let (mut bytes, mac1) = (Vec::new(), |bytes: &[u8]| mac::mac1(&keys(), bytes));
            Response::emit(&mut bytes, &route, 7, init.sender_index, Kind::GatewayToGateway, &made.noise, mac1);
            let stride = bytes.len();
            world.train(1, transfer, bytes, stride);
        }
    }
    assert!((2..=6).contains(&inits), "{inits} handshakes in 5 s");
    assert!(world.gateways[&1].peers.find(ip4(2)).is_some());
}
