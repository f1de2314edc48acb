//! Registrations that were refused, forgotten, or told of in another order than they happened.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::packets::ping;
use super::world::{CONTROL, Datagram, Fate, World, address_of, config, ip4, keys};
use crate::drops::DropReason;
use crate::gateway::Event;
use crate::seam::SocketId;
use crate::session::handshake::StaticKey;
use crate::transfer::{Transfer, TransferConfig};

const INIT: u8 = 1;
fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Gateway 1, and gateway 2 that wants the same address and is refused.
fn refused_for(time: Duration) -> World {
    let mut world = World::with(&[1]);
    let mut rival = config(2, 1);
    rival.ip4 = ip4(1);
    world.insert(2, rival);
    world.run(time);
    assert!(world.events[&2].iter().any(|event| matches!(event, Event::Refused { .. })));
    world
}

fn is_registered(world: &World, number: u8) -> bool {
    world.gateways[&number].relay.registration().is_some()
}

fn stop(world: &mut World, number: u8) {
    let now = world.now;
    world.gateways.get_mut(&number).unwrap().stop(now);
    // Its last words leave with the next thing that it does.
    world.train(number, address_of(99), vec![0x2f; 60], 60);
}

#[test]
fn refused_gateway_gets_the_address_when_it_is_free() {
    for seconds in [2, 4, 8, 20, 100] {
        let mut world = refused_for(second(seconds));
        world.capture = Some(Vec::new());
        stop(&mut world, 1);
        let took = world.run_until(second(100), |world| is_registered(world, 2));
        assert!(took.is_some_and(|took| took < second(2)), "{took:?} after {seconds} s");
    }
}

/// A refused gateway asks each second on the session it has: no handshake, and no session left behind.
#[test]
fn refused_gateway_costs_one_question_a_second() {
    let mut world = refused_for(second(10));
    world.capture = Some(Vec::new());
    world.run(second(60));
    let capture = world.capture.take().unwrap();
    let sent = |kind| capture.iter().filter(|d| d.from == address_of(2) && d.kind() == kind).count();
    assert_eq!(sent(INIT), 0);
    assert!((59..=61).contains(&sent(CONTROL)), "{}", sent(CONTROL));
    let now = world.now;
    assert_eq!(world.transfer.as_ref().unwrap().status(now).control_sessions, 2);
    world.gateways.remove(&2);
    world.run(second(6));
    let now = world.now;
    assert_eq!(world.transfer.as_ref().unwrap().status(now).control_sessions, 1, "who asks no more is forgotten");
}

#[test]
fn refused_gateway_finds_the_transfer_that_was_started_anew() {
    for silent in [false, true] {
        let mut world = refused_for(second(20));
        world.gateways.remove(&1);
        world.start_transfer(2);
        // Its notices may be lost.
        world.fate = Box::new(move |d| if silent && d.kind() == 6 { Fate::Drop } else { Fate::Pass });
        let took = world.run_until(second(100), |world| is_registered(world, 2));
        assert!(took.is_some_and(|took| took < second(if silent { 6 } else { 3 })), "{took:?}");
    }
}

#[test]
fn forged_notices_cost_a_refused_gateway_nothing() {
    let mut world = refused_for(second(5));
    let transfer = world.transfer_at;
    world.capture = Some(Vec::new());
    for _ in 0..1000 {
        world.train(2, transfer, [vec![0x26, 1], vec![0; 14]].concat(), 16);
        world.run(Duration::from_millis(10));
    }
    let inits = world.capture.take().unwrap().iter().filter(|d| d.from == address_of(2) && d.kind() == INIT).count();
    assert!(inits <= 20, "{inits} in 10 s: at most one handshake a second, with its cookie");
}

/// The first Registered is lost, and something else is the first word under the new session.
#[test]
fn first_word_need_not_be_the_answer() {
    let mut world = World::with(&[]);
    let transfer = world.transfer_at;
    let mut lost = 0;
    world.fate = Box::new(move |d| {
        let registered = d.from == transfer && d.to == address_of(1) && d.kind() == CONTROL && d.bytes.len() > 100;
        lost += u32::from(registered);
        if registered && lost == 1 { Fate::Drop } else { Fate::Pass }
    });
    world.start_gateway(1, 1);
    // A clone elsewhere makes the transfer ask the first whether it lives.
    world.insert(2, config(1, 7));
    let took = world.run_until(second(100), |world| is_registered(world, 1));
    assert!(took.is_some_and(|took| took < second(3)), "{took:?}");
}

/// The session is older than an hour, and whoever is there now has another key.
#[test]
fn transfer_with_another_key_is_tried_once_a_second() {
    let mut world = World::with(&[1]);
    world.run(second(3590));
    let config =
        TransferConfig { static_key: StaticKey::from_seed([201; 32]), boot: 2, ticket_key: [9; 32], seed: [2; 32] };
    let mut transfer = Transfer::new(config, world.now);
    transfer.add_namespace(SocketId(0), 8000, keys());
    world.transfer = Some(transfer);
    for _ in 0..8 {
        world.capture = Some(Vec::new());
        world.run(second(10));
        let inits = world.capture.take().unwrap().iter().filter(|d| d.kind() == INIT).count();
        assert!(inits <= 22, "{inits} inits in 10 s: one each second, and one for each cookie");
    }
    assert_eq!(world.events[&1].iter().filter(|event| **event == Event::TransferKeyChanged).count(), 1);
}

/// Makes the next control message of the transfer to a gateway `late`, once `armed`.
fn delay_next(world: &mut World, to: u8, late: Duration) -> Rc<RefCell<bool>> {
    let (armed, transfer) = (Rc::new(RefCell::new(false)), world.transfer_at);
    let trigger = Rc::clone(&armed);
    world.fate = Box::new(move |d: &Datagram| {
        let hit = d.from == transfer && d.to == address_of(to) && d.kind() == CONTROL;
        if hit && trigger.replace(false) { Fate::Late(late) } else { Fate::Pass }
    });
    armed
}

#[test]
fn late_refusal_does_not_undo_a_registration() {
    let mut world = refused_for(second(5));
    let armed = delay_next(&mut world, 2, Duration::from_millis(2500));
    *armed.borrow_mut() = true;
    while *armed.borrow() {
        world.run(Duration::from_millis(1));
    }
    stop(&mut world, 1);
    let took = world.run_until(second(3), |world| is_registered(world, 2));
    assert!(took.is_some_and(|took| took < second(2)), "{took:?}");
    for _ in 0..3000 {
        world.run(Duration::from_millis(1));
        assert!(is_registered(&world, 2));
    }
    assert_eq!(world.gateways[&2].drops().get(DropReason::Outdated), 1);
}

#[test]
fn late_answer_does_not_set_the_number_of_changes_back() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 1));
    world.run(second(1));
    let armed = delay_next(&mut world, 1, Duration::from_millis(250));
    *armed.borrow_mut() = true;
    world.run_until(second(40), |_| !*armed.borrow()).expect("a keepalive is answered");
    let before = world.gateways[&1].relay.change;
    world.start_gateway(2, 7);
    world.run(Duration::from_millis(150));
    assert_eq!(world.gateways[&1].relay.change, before + 1, "the change came first");
    for _ in 0..200 {
        world.run(Duration::from_millis(1));
        assert_eq!(world.gateways[&1].relay.change, before + 1);
    }
    assert!(world.gateways[&1].relay.is_healthy(), "a sign of life it was all the same");
}

#[test]
fn seed_of_the_start_is_not_kept_and_not_shown() {
    let mut config = config(1, 1);
    config.seed = [123; 32];
    assert!(!format!("{config:?}").contains("123, 123, 123"));
    let mut world = World::with(&[]);
    world.insert(1, config);
    world.run(second(1));
    assert!(is_registered(&world, 1));
    assert_ne!(world.gateways[&1].rng.memory().get_seed(), [123; 32]);
}
