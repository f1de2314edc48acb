//! Two threads and one namespace: its home, and a mirror.

use std::time::Duration;

use mesh_wire::message::Message;
use mesh_wire::observe::{Observe, Observed};
use mesh_wire::route::Slot;

use super::world::*;
use crate::drops::DropReason;
use crate::seam::{Action, Endpoint, Moment, Slab, SocketId};
use crate::session::mac::ObserverKey;
use crate::transfer::{Handed, LEASE, SlotChange, Transfer, TransferConfig};

/// The mirror's socket of the namespace: another number than the home's.
const THERE: SocketId = SocketId(4);

struct Two {
    home: World,
    there: World,
}

impl Two {
    fn new() -> Self {
        let mut two = Self { home: World::new(), there: World::new() };
        assert!(two.home.transfer.share_namespace(FIRST));
        two.there.transfer.remove_namespace(FIRST);
        two.there.transfer.add_mirror(THERE, PORT, keys(7, PORT));
        two
    }

    /// Carries the home's changes; returns them.
    fn carry(&mut self) -> Vec<SlotChange> {
        let changes: Vec<_> = std::iter::from_fn(|| self.home.transfer.poll_slot_change()).collect();
        for change in &changes {
            self.there.transfer.mirror_slot(change);
        }
        changes
    }

    /// Three members, known to the mirror.
    fn members(&mut self) -> [Gateway; 3] {
        let gateways = [1, 2, 3].map(|n| Gateway::new(FIRST, n).join(&mut self.home));
        assert_eq!(self.carry().len(), 3, "each took a slot");
        gateways
    }

    /// What the mirror does with a train from this address, and what it hands over.
    fn train(&mut self, from: Endpoint, stride: usize, train: &[Vec<u8>]) -> (Vec<Action>, Vec<Handed>) {
        let actions = self.there.train(there(from), stride, &mut train.concat());
        (actions, std::iter::from_fn(|| self.there.transfer.poll_handed()).collect())
    }

    /// The home's answers to what was handed over, with the bytes of each.
    fn handle(&mut self, mut handed: Handed) -> Vec<Sent> {
        let mut memory = vec![0; Slab::ROOM_BYTES];
        let mut actions = Vec::new();
        self.home.transfer.handle_handed(self.home.now, &mut handed, &mut Slab::new(&mut memory, 0), &mut actions);
        let send = |action| match action {
            Action::Send { slab, to, .. } => (to, memory[slab].to_vec()),
            other @ (Action::Forward { .. }
            | Action::Deliver { .. }
            | Action::DeliverMore { .. }
            | Action::DeliverSlab { .. }) => panic!("there is no train to take bytes from: {other:?}"),
        };
        let mut sent: Vec<Sent> = actions.into_iter().map(send).collect();
        sent.extend(self.home.pump());
        sent
    }
}

fn there(from: Endpoint) -> Endpoint {
    Endpoint { socket: THERE, ..from }
}

#[test]
fn a_mirror_forwards_what_the_home_would_by_its_own_socket() {
    let mut two = Two::new();
    let [a, b, c] = two.members();
    let train = [a.data(b.slot, 100), a.data(b.slot, 100), a.data(c.slot, 60)];
    let (actions, handed) = two.train(a.endpoint, 100, &train);
    let forward = |bytes, to| Action::Forward { bytes, segment_bytes: 100, to: there(to), tos: 0xb8 };
    assert_eq!(actions, [forward(0..200, b.endpoint), forward(200..260, c.endpoint)]);
    assert!(handed.is_empty());
    let share = two.there.transfer.shares().remove(0);
    assert_eq!((share.namespace, share.datagrams_forwarded, share.bytes_forwarded), (PORT, 3, 260));
    assert_eq!(share.members, [(a.slot.index, 3, 260)]);
    assert_eq!(two.there.transfer.status(two.there.now).counters.runs_forwarded, 2);
}

#[test]
fn a_gateway_whose_datagrams_reach_a_mirror_registers_at_home() {
    let mut two = Two::new();
    let mut gateway = Gateway::new(FIRST, 1);
    let started = gateway.start();
    let by_mirror = |two: &mut Two, gateway: &Gateway, datagram: Vec<u8>| {
        let (actions, mut handed) = two.train(gateway.endpoint, datagram.len(), &[datagram]);
        assert!(actions.is_empty());
        let handed = handed.pop().expect("what is not forwarded goes home");
        assert_eq!((handed.namespace, handed.remote), (PORT, gateway.endpoint.remote));
        two.handle(handed)
    };
    let init = gateway.init(&started, None).to_vec();
    let answer = only(by_mirror(&mut two, &gateway, init.clone()), gateway.endpoint);
    let cookie = gateway.cookie(&init, &answer);
    let again = gateway.init(&started, Some(&cookie)).to_vec();
    let response = only(by_mirror(&mut two, &gateway, again), gateway.endpoint);
    let last = gateway.last(started, &response);
    let sent = by_mirror(&mut two, &gateway, last);
    gateway.take_registered(&sent);
    assert!(!gateway.slot.is_none());
    assert_eq!(two.home.members(), [gateway.ip4]);
}

#[test]
fn a_mirror_follows_who_moves_and_who_leaves() {
    let mut two = Two::new();
    let [a, mut b, _] = two.members();
    let train = [a.data(b.slot, 100)];

    // b goes on from another address: a challenge there, its answer, and the slot is moved.
    let moved = at(FIRST, "198.51.100.2:6000");
    let keepalive = b.seal(&Message::Keepalive { seq: 9, change: 0 });
    for (to, probe) in two.home.deliver(moved, &keepalive) {
        assert_eq!(to, moved);
        let Some(Message::Probe { seq }) = b.open(&probe) else { panic!("an address is challenged first") };
        let answer = b.seal(&Message::ProbeReply { seq });
        two.home.deliver(moved, &answer);
    }
    assert!(!two.carry().is_empty());
    let (actions, _) = two.train(a.endpoint, 100, &train);
    assert!(matches!(&actions[..], [Action::Forward { to, .. }] if *to == there(moved)), "{actions:?}");

    // What it had sent before that finds its way by the home.
    let late = b.data(a.slot, 100);
    let (actions, handed) = two.train(b.endpoint, 100, std::slice::from_ref(&late));
    assert!(actions.is_empty(), "{actions:?}");
    assert_eq!(two.handle(handed[0].clone()), [(a.endpoint, late)]);

    two.home.pass(LEASE + Duration::from_secs(60));
    two.carry();
    let (actions, handed) = two.train(a.endpoint, 100, &train);
    assert!(actions.is_empty(), "who is gone neither sends nor is sent to: {actions:?}");
    assert_eq!(handed.len(), 1, "the home decides what its sender is told");
}

#[test]
fn what_a_mirror_does_not_know_yet_the_home_forwards() {
    let mut two = Two::new();
    let [a, b] = [1, 2].map(|n| Gateway::new(FIRST, n).join(&mut two.home));
    let datagram = a.data(b.slot, 100);
    let (actions, mut handed) = two.train(a.endpoint, 100, std::slice::from_ref(&datagram));
    assert!(actions.is_empty());
    assert_eq!(two.handle(handed.remove(0)), [(b.endpoint, datagram)]);
    let status = two.home.transfer.status(two.home.now);
    assert_eq!((status.counters.datagrams_forwarded, status.namespaces[0].bytes_forwarded), (1, 100));
}

#[test]
fn a_slot_of_another_generation_is_not_forwarded_by_a_mirror() {
    let mut two = Two::new();
    let [a, b, _] = two.members();
    let old = Slot { generation: b.slot.generation.wrapping_sub(1), ..b.slot };
    let (actions, handed) = two.train(a.endpoint, 100, &[a.data(old, 100)]);
    assert_eq!((actions.len(), handed.len()), (0, 1));
    // Nor from an address that is not the holder's.
    let (actions, handed) = two.train(at(FIRST, "203.0.113.9:9"), 100, &[a.data(b.slot, 100)]);
    assert_eq!((actions.len(), handed.len()), (0, 1));
}

#[test]
fn what_is_handed_over_is_bounded_and_the_rest_is_counted() {
    let mut two = Two::new();
    for _ in 0..1000 {
        two.there.train(at(THERE, "203.0.113.9:9"), 1, &mut [0x2f]);
    }
    assert_eq!(std::iter::from_fn(|| two.there.transfer.poll_handed()).count(), 256);
    assert_eq!(two.there.transfer.drops().get(DropReason::NoRoom), 744);
    two.there.train(at(THERE, "203.0.113.9:9"), 3000, &mut [0x2f; 3000]);
    assert_eq!(two.there.transfer.poll_handed(), None, "no message to the transfer is so long");
}

#[test]
fn changes_and_datagrams_of_namespaces_that_are_not_here_touch_nothing() {
    let mut two = Two::new();
    let [a, b, _] = two.members();
    let change = SlotChange { namespace: PORT + 7, index: b.slot.index, holder: None };
    two.there.transfer.mirror_slot(&change);
    two.there.transfer.mirror_slot(&SlotChange { namespace: PORT, index: u32::MAX, holder: None });
    two.there.transfer.mirror_slot(&SlotChange { namespace: PORT, index: 0, holder: None });
    assert_eq!(two.train(a.endpoint, 100, &[a.data(b.slot, 100)]).0.len(), 1);

    let handed =
        Handed { namespace: PORT + 1, remote: a.endpoint.remote, local: None, tos: 0, datagram: a.data(b.slot, 100) };
    assert!(two.handle(handed).is_empty());
    assert_eq!(two.home.transfer.drops().get(DropReason::UnknownSocket), 1);

    two.there.transfer.remove_namespace(THERE);
    assert_eq!(two.train(a.endpoint, 100, &[a.data(b.slot, 100)]).0.len(), 0);
    assert_eq!(two.there.transfer.drops().get(DropReason::UnknownSocket), 1);
}

#[test]
fn a_namespace_that_is_not_shared_keeps_no_journal() {
    let mut world = World::new();
    Gateway::new(FIRST, 1).join(&mut world);
    assert_eq!(world.transfer.poll_slot_change(), None);
    assert!(!world.transfer.share_namespace(SocketId(9)), "there is no such namespace");
    let config = TransferConfig {
        static_key: crate::session::handshake::StaticKey::from_seed([1; 32]),
        boot: 1,
        ticket_key: [9; 32],
        seed: [1; 32],
    };
    assert!(Transfer::new(config, Moment::from_nanos(0)).shares().is_empty());
}

#[test]
fn a_mirror_tells_where_a_gateway_is_seen_without_asking_the_home() {
    let mut two = Two::new();
    let key = ObserverKey::of(&keys(7, PORT));
    let asked = Observe::emit(&[5; 12], |covered| key.mac(covered)).to_vec();
    let from = at(THERE, "203.0.113.9:7000");
    let sent = two.there.answers(from, &asked);
    let [(to, answer)] = &sent[..] else { panic!("one answer") };
    assert_eq!((to.remote, Observed::parse(answer).unwrap().endpoint), (from.remote, from.remote));
    let wrong = Observe::emit(&[5; 12], |_| [1; 16]).to_vec();
    assert_eq!(two.there.answers(from, &wrong), []);
    assert_eq!(two.there.transfer.drops().get(DropReason::WrongToken), 1);
    assert!(two.there.transfer.poll_handed().is_none(), "the home hears nothing of it");
}
