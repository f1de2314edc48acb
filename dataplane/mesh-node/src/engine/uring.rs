//! The io_uring engine behind the trait: names and types change hands here, nothing else.

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::Duration;

use mesh_core::seam::{Arrival, Endpoint, Origin, Slab, SocketId};

use super::{Engine, EngineCounters, Wake};
use crate::inside::InsideDevice;

/// One ring of the calling thread, from the crate `mesh-uring`. It is made on the thread that uses it.
#[derive(Debug)]
pub struct Uring {
    engine: mesh_uring::Engine,
}

impl Uring {
    /// An engine without sockets.
    ///
    /// # Errors
    /// Why this machine gives no ring, with the knob to turn.
    pub fn new() -> Result<Self, mesh_uring::SetupError> {
        Self::with_config(mesh_uring::Config::default())
    }

    /// The same with sizes of one's own.
    ///
    /// # Errors
    /// As [`Uring::new`].
    pub fn with_config(config: mesh_uring::Config) -> Result<Self, mesh_uring::SetupError> {
        Ok(Self { engine: mesh_uring::Engine::new(config)? })
    }

    /// What the kernel granted of what the engine asked for.
    pub fn features(&self) -> &mesh_uring::Features {
        self.engine.features()
    }

    /// The buffer sizes that a socket got, to say once where they could not be raised; `None` for a number not in use.
    pub fn socket_buffers(&self, socket: SocketId) -> Option<mesh_uring::SocketBuffers> {
        self.engine.socket_buffers(mesh_uring::SocketId(socket.0))
    }
}

fn endpoint(to: &Endpoint) -> mesh_uring::Endpoint {
    mesh_uring::Endpoint { socket: mesh_uring::SocketId(to.socket.0), remote: to.remote, local: to.local }
}

impl Engine for Uring {
    type Train = mesh_uring::Train;
    type Waker = mesh_uring::Waker;

    fn add_socket(&mut self, socket: UdpSocket, local_address: bool) -> io::Result<SocketId> {
        self.engine.add_socket(socket, local_address).map(|number| SocketId(number.0))
    }

    fn remove_socket(&mut self, socket: SocketId) -> io::Result<()> {
        self.engine.remove_socket(mesh_uring::SocketId(socket.0))
    }

    fn add_inside(&mut self, device: InsideDevice) -> io::Result<()> {
        self.engine.add_inside(device.fd)
    }

    fn waker(&self) -> Self::Waker {
        self.engine.waker()
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Self::Train>) -> io::Result<()> {
        self.engine.wait(timeout, batch)
    }

    fn arrival(&self, train: &Self::Train) -> Arrival {
        let origin = match train.origin() {
            mesh_uring::Origin::Outside(from) => {
                Origin::Outside(Endpoint { socket: SocketId(from.socket.0), remote: from.remote, local: from.local })
            }
            mesh_uring::Origin::Inside => Origin::Inside,
        };
        Arrival { origin, segment_bytes: train.segment_bytes(), tos: train.tos() }
    }

    fn split<'a>(&'a mut self, train: &'a mut Self::Train) -> (&'a mut [u8], Slab<'a>) {
        let (bytes, scratch) = self.engine.split(train);
        (bytes, Slab::new(scratch.memory, scratch.used))
    }

    fn slab(&mut self) -> Slab<'_> {
        let scratch = self.engine.slab();
        Slab::new(scratch.memory, scratch.used)
    }

    fn keep_slab(&mut self, used: usize) {
        self.engine.keep_slab(used);
    }

    fn forward(&mut self, train: &Self::Train, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        self.engine.forward(train, bytes, segment_bytes, &endpoint(to), tos);
    }

    fn send(&mut self, slab: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        self.engine.send(slab, segment_bytes, &endpoint(to), tos);
    }

    fn deliver(&mut self, train: &Self::Train, bytes: Range<usize>) {
        self.engine.deliver(train, bytes);
    }

    fn deliver_slab(&mut self, slab: Range<usize>) {
        self.engine.deliver_slab(slab);
    }

    fn release(&mut self, train: Self::Train) {
        self.engine.release(train);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.engine.flush()
    }

    fn counters(&self) -> EngineCounters {
        let counted = self.engine.counters();
        EngineCounters {
            trains_in: counted.trains_in,
            datagrams_in: counted.datagrams_in,
            bytes_in: counted.bytes_in,
            sends: counted.sends,
            datagrams_out: counted.datagrams_out,
            bytes_out: counted.bytes_out,
            inside_in: counted.inside_in,
            inside_out: counted.inside_out,
            drops_send_full: counted.drops_send_full,
            drops_send_failed: counted.drops_send_failed,
            drops_inside_full: counted.drops_inside_full,
            drops_truncated: counted.drops_truncated,
            starved: counted.starved,
        }
    }

    fn name(&self) -> &'static str {
        "uring"
    }

    fn offloads(&self) -> Vec<&'static str> {
        super::udp_offloads(self.engine.offloads())
    }
}

impl Wake for mesh_uring::Waker {
    fn wake(&self) {
        self.wake();
    }
}
