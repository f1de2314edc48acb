//! The engine of `recvmmsg` and `sendmmsg` behind the trait: names and types change hands here, nothing else.

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::Duration;

use mesh_core::seam::{Arrival, Endpoint, Slab, SocketId};

use super::{EngineCounters, linux};
use crate::inside::InsideDevice;

/// epoll, `recvmmsg` and `sendmmsg` with the kernel's offloads, from the crate `mesh-mmsg`: Linux without io_uring.
#[derive(Debug)]
pub struct Mmsg {
    engine: mesh_mmsg::Engine,
}

impl Mmsg {
    /// An engine without sockets.
    ///
    /// # Errors
    /// When there are no descriptors or no address space left.
    pub fn new() -> io::Result<Self> {
        Self::with_config(mesh_mmsg::Config::default())
    }

    /// The same with sizes of one's own.
    ///
    /// # Errors
    /// As [`Mmsg::new`].
    pub fn with_config(config: mesh_mmsg::Config) -> io::Result<Self> {
        Ok(Self { engine: mesh_mmsg::Engine::new(config)? })
    }

    /// The buffer sizes that a socket got, to say once where they could not be raised; `None` for a number not in use.
    pub fn socket_buffers(&self, socket: SocketId) -> Option<mesh_mmsg::SocketBuffers> {
        self.engine.socket_buffers(linux::number(socket))
    }
}

linux::implement!(Mmsg, "mmsg", |engine: &mut mesh_mmsg::Engine| {
    engine.flush();
    Ok(())
});
