//! An engine without a network: it hands the pump the same train each turn and keeps the runs that are ready to send.

use std::hint::black_box;
use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::Duration;

use mesh_core::seam::{Arrival, Endpoint, Slab, SocketId};
use mesh_node::engine::{Engine, EngineCounters, Wake};
use mesh_node::inside::InsideDevice;

/// See the [module](self).
pub(crate) struct Memory {
    arrival: Arrival,
    /// `None` while the pump has it.
    train: Option<Vec<u8>>,
    slab: Vec<u8>,
    slab_used: usize,
    ready: Vec<(Range<usize>, usize, Endpoint, u8)>,
}

impl Memory {
    pub(crate) fn new(arrival: Arrival, train: Vec<u8>) -> Self {
        Self { arrival, train: Some(train), slab: vec![0; Slab::ROOM_BYTES], slab_used: 0, ready: Vec::new() }
    }

    fn queue(&mut self, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        self.ready.push((bytes, segment_bytes, *to, tos));
    }
}

/// Nobody waits, so nobody is woken.
#[derive(Clone)]
pub(crate) struct NoBell;

impl Wake for NoBell {
    fn wake(&self) {}
}

impl Engine for Memory {
    type Train = Vec<u8>;
    type Waker = NoBell;

    fn add_socket(&mut self, _: UdpSocket, _: bool) -> io::Result<SocketId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove_socket(&mut self, _: SocketId) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn add_inside(&mut self, _: InsideDevice) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn waker(&self) -> NoBell {
        NoBell
    }

    fn wait(&mut self, _: Option<Duration>, batch: &mut Vec<Vec<u8>>) -> io::Result<()> {
        self.flush()?;
        batch.extend(self.train.take());
        Ok(())
    }

    fn arrival(&self, _: &Vec<u8>) -> Arrival {
        self.arrival
    }

    fn split<'a>(&'a mut self, train: &'a mut Vec<u8>) -> (&'a mut [u8], Slab<'a>) {
        (train, Slab::new(&mut self.slab, self.slab_used))
    }

    fn slab(&mut self) -> Slab<'_> {
        Slab::new(&mut self.slab, self.slab_used)
    }

    fn keep_slab(&mut self, used: usize) {
        self.slab_used = used;
    }

    fn forward(&mut self, _: &Vec<u8>, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        self.queue(bytes, segment_bytes, to, tos);
    }

    fn send(&mut self, slab: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        self.queue(slab, segment_bytes, to, tos);
    }

    fn deliver(&mut self, _: &Vec<u8>, _: Range<usize>) {}

    fn deliver_more(&mut self, _: &Vec<u8>, _: Range<usize>) {}

    fn deliver_slab(&mut self, _: Range<usize>) {}

    fn release(&mut self, train: Vec<u8>) {
        self.train = Some(train);
    }

    fn flush(&mut self) -> io::Result<()> {
        black_box(&self.ready);
        self.ready.clear();
        self.slab_used = 0;
        Ok(())
    }

    fn counters(&self) -> EngineCounters {
        EngineCounters::default()
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    fn offloads(&self) -> Vec<&'static str> {
        Vec::new()
    }
}
