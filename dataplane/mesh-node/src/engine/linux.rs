//! What the two Linux engines have in common behind the trait: the words of `mesh-udp`.

use mesh_core::seam::{Arrival, Endpoint, Origin, SocketId};

use super::{EngineCounters, Wake};

pub(super) fn endpoint(to: &Endpoint) -> mesh_udp::Endpoint {
    mesh_udp::Endpoint { socket: number(to.socket), remote: to.remote, local: to.local }
}

pub(super) fn number(socket: SocketId) -> mesh_udp::SocketId {
    mesh_udp::SocketId(socket.0)
}

pub(super) fn arrival(train: &mesh_udp::Train) -> Arrival {
    let origin = match train.origin() {
        mesh_udp::Origin::Outside(from) => {
            Origin::Outside(Endpoint { socket: SocketId(from.socket.0), remote: from.remote, local: from.local })
        }
        mesh_udp::Origin::Inside => Origin::Inside,
    };
    Arrival { origin, segment_bytes: train.segment_bytes(), tos: train.tos() }
}

pub(super) fn counters(counted: &mesh_udp::Counters) -> EngineCounters {
    EngineCounters {
        trains_in: counted.trains_in,
        datagrams_in: counted.datagrams_in,
        bytes_in: counted.bytes_in,
        sends: counted.sends,
        datagrams_out: counted.datagrams_out,
        bytes_out: counted.bytes_out,
        inside_in: counted.inside_in,
        inside_out: counted.inside_out,
        drops_receive_full: counted.drops_receive_full,
        drops_send_full: counted.drops_send_full,
        drops_send_failed: counted.drops_send_failed,
        drops_inside_full: counted.drops_inside_full,
        drops_truncated: counted.drops_truncated,
        starved: counted.starved,
        held: counted.held,
        resent_singly: counted.resent_singly,
        system_calls: counted.enters,
        buffers_in_flight_max: counted.buffers_in_flight_max,
        lengths_in: counted.lengths_in.0,
        lengths_out: counted.lengths_out.0,
        batches: counted.batches.0,
    }
}

impl Wake for mesh_udp::Waker {
    fn wake(&self) {
        self.wake();
    }
}

/// Implements the trait for an adapter with a field `engine`: the two engines have the same methods. `$flush` is how it is flushed.
macro_rules! implement {
    ($adapter:ty, $name:literal, $flush:expr) => {
        impl $crate::engine::Engine for $adapter {
            type Train = mesh_udp::Train;
            type Waker = mesh_udp::Waker;

            fn add_socket(&mut self, socket: UdpSocket, local_address: bool) -> io::Result<SocketId> {
                self.engine.add_socket(socket, local_address).map(|number| SocketId(number.0))
            }

            fn copy_socket(&self, socket: SocketId) -> io::Result<UdpSocket> {
                self.engine.copy_socket(linux::number(socket))
            }

            fn add_sender(&mut self, copy: UdpSocket) -> io::Result<SocketId> {
                self.engine.add_sender(copy).map(|number| SocketId(number.0))
            }

            fn remove_socket(&mut self, socket: SocketId) -> io::Result<()> {
                self.engine.remove_socket(linux::number(socket))
            }

            fn add_inside(&mut self, device: InsideDevice) -> io::Result<()> {
                self.engine.add_inside(device.fd)
            }

            fn add_inside_writer(&mut self, device: InsideDevice) -> io::Result<()> {
                self.engine.add_inside_writer(device.fd)
            }

            fn waker(&self) -> Self::Waker {
                self.engine.waker()
            }

            fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Self::Train>) -> io::Result<()> {
                self.engine.wait(timeout, batch)
            }

            fn arrival(&self, train: &Self::Train) -> Arrival {
                linux::arrival(train)
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

            fn forward(
                &mut self,
                train: &Self::Train,
                bytes: Range<usize>,
                segment_bytes: usize,
                to: &Endpoint,
                tos: u8,
            ) {
                self.engine.forward(train, bytes, segment_bytes, &linux::endpoint(to), tos);
            }

            fn send(&mut self, slab: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
                self.engine.send(slab, segment_bytes, &linux::endpoint(to), tos);
            }

            fn deliver(&mut self, train: &Self::Train, bytes: Range<usize>) {
                self.engine.deliver(train, bytes);
            }

            fn deliver_more(&mut self, train: &Self::Train, bytes: Range<usize>) {
                self.engine.deliver_more(train, bytes);
            }

            fn deliver_slab(&mut self, slab: Range<usize>) {
                self.engine.deliver_slab(slab);
            }

            fn release(&mut self, train: Self::Train) {
                self.engine.release(train);
            }

            fn flush(&mut self) -> io::Result<()> {
                $flush(&mut self.engine)
            }

            fn counters(&self) -> EngineCounters {
                linux::counters(&self.engine.counters())
            }

            fn name(&self) -> &'static str {
                $name
            }

            fn offloads(&self) -> Vec<&'static str> {
                super::udp_offloads(self.engine.offloads())
            }
        }
    };
}

pub(super) use implement;
