//! What is counted: small pieces of the data path, each alone, on the real types.

use std::hint::black_box;

use anyhow::{Result, bail, ensure};
use mesh_core::node::Node as _;
use mesh_core::seam::{Action, Moment, Slab};
use mesh_core::session::aead::{OpeningKey, SealingKey};
use mesh_core::session::cipher::Cipher;
use mesh_core::session::replay::Window;
use mesh_node::clock;
use mesh_node::helpers::Helpers;
use mesh_node::mailbox::mailbox;
use mesh_node::pump::{Flow, Pump};
use mesh_wire::TAG_BYTES;
use mesh_wire::frame::{self, FrameType};
use mesh_wire::route::{Destination, Route, Slot};
use mesh_wire::sealed::{HEADER_BYTES, OVERHEAD_BYTES, SealedHeader};

use crate::engine::{Memory, NoBell};
use crate::world::{World, at_gateway, at_transfer, packets};

/// Datagrams of a train.
const TRAIN: usize = 40;
/// Bytes of an inner packet where its length does not matter.
const INNER_BYTES: usize = 500;
/// Inner packet for the gateways: the longest that an unproven path takes whole, about.
const GATEWAY_BYTES: usize = 1100;

/// The time, where the clock is ours.
const NOW: Moment = Moment::from_nanos(1_000_000_000_000);

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    kind: Kind,
    /// Datagrams that one repetition handles.
    pub(crate) datagrams: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// First byte, route header and header of sealed frames.
    Parse,
    /// The transfer's verdict on a train: runs.
    Decide { changes: bool },
    /// One turn of the loop of a data thread: a train in, runs ready to send, with an engine that has no network.
    Hop { changes: bool },
    /// Header, encryption, tag.
    Seal(Cipher, usize),
    /// Header, replay window, decryption.
    Open(Cipher, usize),
    /// Packets of the virtual interface to datagrams.
    GatewayOut,
    /// Datagrams to packets for the virtual interface.
    GatewayIn,
}

const fn op(name: &'static str, kind: Kind, datagrams: usize) -> Operation {
    Operation { name, kind, datagrams }
}

const AES: Cipher = Cipher::Aes256Gcm;
const CHACHA: Cipher = Cipher::ChaCha20Poly1305;

/// All of them.
pub(crate) const ALL: [Operation; 22] = [
    op("parse-1", Kind::Parse, 1),
    op("parse-40", Kind::Parse, TRAIN),
    op("decide-1", Kind::Decide { changes: false }, 1),
    op("decide-40", Kind::Decide { changes: false }, TRAIN),
    op("decide-40-changes", Kind::Decide { changes: true }, TRAIN),
    op("hop-1", Kind::Hop { changes: false }, 1),
    op("hop-40", Kind::Hop { changes: false }, TRAIN),
    op("hop-40-changes", Kind::Hop { changes: true }, TRAIN),
    op("seal-aes-64", Kind::Seal(AES, 64), 1),
    op("seal-aes-1400", Kind::Seal(AES, 1400), 1),
    op("seal-aes-1400-40", Kind::Seal(AES, 1400), TRAIN),
    op("seal-chacha-64", Kind::Seal(CHACHA, 64), 1),
    op("seal-chacha-1400", Kind::Seal(CHACHA, 1400), 1),
    op("seal-chacha-1400-40", Kind::Seal(CHACHA, 1400), TRAIN),
    op("open-aes-64", Kind::Open(AES, 64), 1),
    op("open-aes-1400", Kind::Open(AES, 1400), 1),
    op("open-aes-1400-40", Kind::Open(AES, 1400), TRAIN),
    op("open-chacha-64", Kind::Open(CHACHA, 64), 1),
    op("open-chacha-1400", Kind::Open(CHACHA, 1400), 1),
    op("open-chacha-1400-40", Kind::Open(CHACHA, 1400), TRAIN),
    op("gateway-out-40", Kind::GatewayOut, TRAIN),
    op("gateway-in-40", Kind::GatewayIn, TRAIN),
];

impl Operation {
    pub(crate) fn named(name: &str) -> Result<Self> {
        match ALL.into_iter().find(|operation| operation.name == name) {
            Some(operation) => Ok(operation),
            None => bail!("no operation {name}"),
        }
    }

    /// Whether its count is mostly that of a cipher, of which there is one for each generation of processors.
    pub(crate) fn is_crypto(&self) -> bool {
        match self.kind {
            Kind::Parse | Kind::Decide { .. } | Kind::Hop { .. } => false,
            Kind::Seal(..) | Kind::Open(..) | Kind::GatewayOut | Kind::GatewayIn => true,
        }
    }

    /// Repetitions that make what differs from start to start (hash seeds of the standard library, addresses) vanish.
    pub(crate) fn times(&self) -> usize {
        match (self.is_crypto(), self.datagrams) {
            (false, _) => 4000,
            (true, 1) => 400,
            (true, _) => 25,
        }
    }

    /// Does it `times` times, and says after each how many were done. All is laid out for `capacity` repetitions, so that the
    /// set-up does not depend on `times`.
    pub(crate) fn run(&self, times: usize, capacity: usize, after: impl FnMut(usize)) -> Result<()> {
        ensure!(times <= capacity, "{times} repetitions, laid out for {capacity}");
        match self.kind {
            Kind::Parse => self.parse(times, after),
            Kind::Decide { changes } => self.decide(changes, times, after),
            Kind::Hop { changes } => self.hop(changes, times, after),
            Kind::Seal(cipher, bytes) => self.seal(cipher, bytes, times, after),
            Kind::Open(cipher, bytes) => self.open(cipher, bytes, times, capacity, after),
            Kind::GatewayOut => self.gateway_out(times, after),
            Kind::GatewayIn => self.gateway_in(times, capacity, after),
        }
    }

    /// A world and a train of its first gateway.
    fn train(&self, now: Moment, changes: bool) -> Result<(World, Vec<u8>)> {
        let mut world = World::new(now)?;
        let train = world.sealed(&mut packets(self.datagrams, INNER_BYTES, changes), INNER_BYTES);
        ensure!(train.len() == self.datagrams * (INNER_BYTES + OVERHEAD_BYTES), "a train of {} bytes", train.len());
        Ok((world, train))
    }

    fn parse(&self, times: usize, after: impl FnMut(usize)) -> Result<()> {
        let (_, train) = self.train(NOW, false)?;
        repeat(times, after, |_| {
            for datagram in black_box(&train[..]).chunks(INNER_BYTES + OVERHEAD_BYTES) {
                black_box(frame::classify(datagram[0]));
                black_box(SealedHeader::parse(datagram)).expect("a frame of a gateway");
            }
            Ok(())
        })
    }

    fn decide(&self, changes: bool, times: usize, after: impl FnMut(usize)) -> Result<()> {
        let (World { now, mut transfer, mut slab, mut actions, .. }, mut train) = self.train(NOW, changes)?;
        let arrival = at_transfer(INNER_BYTES + OVERHEAD_BYTES);
        let runs = if changes { self.datagrams } else { 1 };
        repeat(times, after, |_| {
            transfer.handle(now, &arrival, black_box(&mut train), &mut Slab::new(&mut slab, 0), &mut actions);
            ensure!(actions.len() == runs, "{runs} runs expected, not {actions:?}");
            actions.clear();
            Ok(())
        })
    }

    fn hop(&self, changes: bool, times: usize, mut after: impl FnMut(usize)) -> Result<()> {
        // The loop reads the clock itself.
        let (World { transfer, .. }, train) = self.train(clock::now(), changes)?;
        let engine = Memory::new(at_transfer(INNER_BYTES + OVERHEAD_BYTES), train);
        let (mailbox, inbox) = mailbox(NoBell);
        let before = transfer.drops().total();
        let mut turns = 0;
        let mut dropped = 0;
        let observe = |_: &mut Memory, transfer: &mut mesh_core::transfer::Transfer, _| {
            turns += 1;
            dropped = transfer.drops().total() - before;
            after(turns);
            if turns < times { Flow::Continue } else { Flow::Stop }
        };
        Pump::new(engine, transfer, inbox, mailbox, Helpers::start(1, 1)?, observe).run()?;
        ensure!(turns == times && dropped == 0, "{turns} turns of {times}, {dropped} datagrams dropped");
        Ok(())
    }

    fn seal(&self, cipher: Cipher, bytes: usize, times: usize, after: impl FnMut(usize)) -> Result<()> {
        let mut seal = Sealer::new(cipher, bytes, self.datagrams);
        repeat(times, after, |_| {
            seal.next_train();
            black_box(&seal.train);
            Ok(())
        })
    }

    fn open(
        &self,
        cipher: Cipher,
        bytes: usize,
        times: usize,
        capacity: usize,
        after: impl FnMut(usize),
    ) -> Result<()> {
        let mut seal = Sealer::new(cipher, bytes, self.datagrams);
        let mut trains: Vec<Vec<u8>> = (0..capacity).map(|_| seal.next_train().to_vec()).collect();
        let key = OpeningKey::new(cipher, &KEY);
        let mut window = Window::new();
        repeat(times, after, |number| {
            for datagram in trains[number].chunks_exact_mut(bytes + OVERHEAD_BYTES) {
                let header = SealedHeader::parse(datagram)?;
                let (associated, sealed) = datagram.split_at_mut(HEADER_BYTES);
                let fresh = window.check(header.counter).is_ok();
                let opened = key.open(header.counter, associated, sealed);
                ensure!(fresh && opened == Ok(bytes), "not opened: {opened:?}");
                window.commit(header.counter);
            }
            Ok(())
        })
    }

    fn gateway_out(&self, times: usize, after: impl FnMut(usize)) -> Result<()> {
        let mut world = World::new(NOW)?;
        let packets = packets(self.datagrams, GATEWAY_BYTES, false);
        let mut work = packets.clone();
        repeat(times, after, |_| {
            work.copy_from_slice(&packets);
            world.inside(0, &mut work, GATEWAY_BYTES);
            let sealed = world.actions.iter().filter(|action| matches!(action, Action::Send { .. })).count();
            ensure!(sealed == self.datagrams, "not sealed whole: {:?}", world.actions);
            world.actions.clear();
            Ok(())
        })
    }

    fn gateway_in(&self, times: usize, capacity: usize, after: impl FnMut(usize)) -> Result<()> {
        let mut world = World::new(NOW)?;
        let plain = packets(self.datagrams, GATEWAY_BYTES, false);
        let mut trains: Vec<_> = (0..capacity).map(|_| world.sealed(&mut plain.clone(), GATEWAY_BYTES)).collect();
        let arrival = at_gateway(GATEWAY_BYTES + OVERHEAD_BYTES);
        let World { now, mut gateways, mut slab, mut actions, .. } = world;
        repeat(times, after, |number| {
            gateways[1].handle(now, &arrival, &mut trains[number], &mut Slab::new(&mut slab, 0), &mut actions);
            let opened = actions.iter().filter(|action| matches!(action, Action::Deliver { .. })).count();
            ensure!(opened == self.datagrams, "not delivered: {actions:?}");
            actions.clear();
            Ok(())
        })
    }
}

/// A key of a session.
const KEY: [u8; 32] = [5; 32];

/// Seals one train after the other into the same memory, as a gateway does.
struct Sealer {
    key: SealingKey,
    counter: u64,
    stride: usize,
    train: Vec<u8>,
}

impl Sealer {
    fn new(cipher: Cipher, bytes: usize, datagrams: usize) -> Self {
        let stride = bytes + OVERHEAD_BYTES;
        Self { key: SealingKey::new(cipher, &KEY), counter: 0, stride, train: vec![0xab; stride * datagrams] }
    }

    fn next_train(&mut self) -> &[u8] {
        for datagram in black_box(&mut self.train[..]).chunks_exact_mut(self.stride) {
            let destination = Destination::here(Slot { index: 2, generation: 7 });
            let route = Route { destination, source: Slot { index: 1, generation: 9 } };
            let counter = self.counter;
            self.counter += 1;
            let header = SealedHeader { frame: FrameType::Data, flags: 0, route, receiver_index: 3, counter }.emit();
            let (head, body_and_tag) = datagram.split_at_mut(HEADER_BYTES);
            head.copy_from_slice(&header);
            let (body, tag) = body_and_tag.split_at_mut(body_and_tag.len() - TAG_BYTES);
            tag.copy_from_slice(&self.key.seal(counter, &header, body));
        }
        &self.train
    }
}

fn repeat(times: usize, mut after: impl FnMut(usize), mut work: impl FnMut(usize) -> Result<()>) -> Result<()> {
    for number in 0..times {
        work(number)?;
        after(number + 1);
    }
    Ok(())
}
