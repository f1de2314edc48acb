//! All memory that sends and writes read from, by name.

use mesh_udp::area::Area;
use mesh_udp::gather::{Memory, Piece};

use crate::buffers::Pool;
use crate::tun::Inside;

/// Room that is free in the slab each time it is handed out, in bytes: one full train and its cut-off neighbours.
pub(crate) const SLAB_ROOM_BYTES: usize = 128 * 1024;

/// The slab, in bytes of address space; memory only as far as it was written. Enough for the largest batch of trains, each of
/// which takes all the room it was offered.
pub(crate) const SLAB_BYTES: usize = 257 * SLAB_ROOM_BYTES;

/// The pools and the slab.
#[derive(Debug)]
pub(crate) struct Memories {
    pub(crate) outside: Pool,
    pub(crate) inside: Option<Inside>,
    pub(crate) slab: Area,
}

impl Memories {
    /// The address of a piece.
    pub(crate) fn address(&self, piece: &Piece) -> *mut u8 {
        let range = piece.range();
        match piece.memory {
            Memory::Outside(buffer) => self.outside.address(buffer, range),
            Memory::Inside(buffer) => self.inside().pool.address(buffer, range),
            Memory::Slab => self.slab.address(&range),
        }
    }

    /// The bytes of a queued piece.
    pub(crate) fn bytes(&self, piece: &Piece) -> &[u8] {
        let range = piece.range();
        match piece.memory {
            Memory::Outside(buffer) => self.outside.queued_bytes(buffer, range),
            Memory::Inside(buffer) => self.inside().pool.queued_bytes(buffer, range),
            Memory::Slab => self.slab.bytes(range),
        }
    }

    fn inside(&self) -> &Inside {
        self.inside.as_ref().expect("a train from the interface has an interface")
    }

    /// Leaves all mappings in place for good.
    pub(crate) fn leak(&mut self) {
        self.outside.leak();
        self.slab.leak();
        if let Some(inside) = &mut self.inside {
            inside.pool.leak();
        }
    }
}
