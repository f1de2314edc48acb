//! The io_uring engine behind the trait: names and types change hands here, nothing else.

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::Duration;

use mesh_core::seam::{Arrival, Endpoint, Slab, SocketId};

use super::{EngineCounters, linux};
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
        self.engine.socket_buffers(linux::number(socket))
    }
}

linux::implement!(Uring, "uring", mesh_uring::Engine::flush);
