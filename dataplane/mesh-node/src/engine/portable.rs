//! The portable engine behind the trait: names and types change hands here, nothing else.

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::Duration;

use mesh_core::seam::{Arrival, Endpoint, Origin, Slab, SocketId};

use super::{Engine, EngineCounters, Wake};
use crate::inside::InsideDevice;

/// tokio and `quinn-udp`, from the crate `compat-win`: Windows, and Linux where io_uring is refused.
#[derive(Debug)]
pub struct Portable {
    engine: compat_win::Engine,
}

impl Portable {
    /// An engine without sockets, with offloads where the system has them.
    ///
    /// # Errors
    /// What the system says when it refuses what a runtime needs (file descriptors).
    pub fn new() -> io::Result<Self> {
        Self::with_config(compat_win::Config::default())
    }

    /// The same with limits of one's own.
    ///
    /// # Errors
    /// As [`Portable::new`].
    pub fn with_config(config: compat_win::Config) -> io::Result<Self> {
        Ok(Self { engine: compat_win::Engine::new(config)? })
    }
}

impl Engine for Portable {
    type Train = compat_win::Train;
    type Waker = compat_win::Waker;

    fn add_socket(&mut self, socket: UdpSocket, local_address: bool) -> io::Result<SocketId> {
        self.engine.add_socket(socket, local_address).map(SocketId)
    }

    fn remove_socket(&mut self, socket: SocketId) -> io::Result<()> {
        self.engine.remove_socket(socket.0)
    }

    fn add_inside(&mut self, device: InsideDevice) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        let device = compat_win::Inside::from_fd(device.fd);
        #[cfg(windows)]
        let device = device.device;
        self.engine.add_inside(device)
    }

    fn waker(&self) -> Self::Waker {
        self.engine.waker()
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Self::Train>) -> io::Result<()> {
        self.engine.wait(timeout, batch)
    }

    fn arrival(&self, train: &Self::Train) -> Arrival {
        let origin = match train.origin() {
            compat_win::Origin::Outside(from) => {
                Origin::Outside(Endpoint { socket: SocketId(from.socket), remote: from.remote, local: from.local })
            }
            compat_win::Origin::Inside => Origin::Inside,
        };
        Arrival { origin, segment_bytes: train.segment_bytes(), tos: train.tos() }
    }

    fn split<'a>(&'a mut self, train: &'a mut Self::Train) -> (&'a mut [u8], Slab<'a>) {
        let (bytes, scratch) = self.engine.split(train, Slab::ROOM_BYTES);
        (bytes, Slab::new(scratch.memory, scratch.used))
    }

    fn slab(&mut self) -> Slab<'_> {
        let scratch = self.engine.scratch(Slab::ROOM_BYTES);
        Slab::new(scratch.memory, scratch.used)
    }

    fn keep_slab(&mut self, used: usize) {
        self.engine.keep_scratch(used);
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

    fn deliver_more(&mut self, train: &Self::Train, bytes: Range<usize>) {
        self.engine.deliver_more(train, bytes);
    }

    fn deliver_slab(&mut self, slab: Range<usize>) {
        self.engine.deliver_scratch(slab);
    }

    fn release(&mut self, train: Self::Train) {
        self.engine.release(train);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.engine.flush();
        Ok(())
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
            // Every slot holds the longest train there is.
            drops_truncated: 0,
            starved: counted.starved,
            ..EngineCounters::default()
        }
    }

    fn name(&self) -> &'static str {
        "portable"
    }

    fn offloads(&self) -> Vec<&'static str> {
        super::udp_offloads(self.engine.offloads())
    }
}

impl Wake for compat_win::Waker {
    fn wake(&self) {
        self.wake();
    }
}

fn endpoint(to: &Endpoint) -> compat_win::Endpoint {
    compat_win::Endpoint { socket: to.socket.0, remote: to.remote, local: to.local }
}
