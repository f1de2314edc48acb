//! The route header: who a datagram is for and whose slot it comes from, as a relay sees it.
//!
//! ```text
//!  0               1               2               3
//! +-------+-------+---------------+-------------------------------+
//! | vers. | type  |     flags     |     destination: transfer     |
//! +-------+-------+---------------+-------------------------------+
//! |                      destination: slot                        |
//! +-------------------------------+-------------------------------+
//! |    destination: generation    |         source: slot          |
//! +-------------------------------+-------------------------------+
//! |      source: slot (low)       |      source: generation       |
//! +-------------------------------+-------------------------------+
//! ```
//!
//! Slots index a transfer's table; a generation tells one holder of a slot from the next. On direct paths all 14 bytes are zero,
//! so the size of a datagram never depends on its path. Inner addresses show nowhere.

use crate::Malformed;
use crate::frame::FrameType;
use crate::read::{u16_at, u32_at};

/// Bytes of the route header.
pub const ROUTE_BYTES: usize = 16;

/// A gateway's place in a transfer's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Index into the table; 0 is nobody's: "whoever receives this".
    pub index: u32,
    /// Which holder of that index.
    pub generation: u16,
}

impl Slot {
    /// Nobody: the receiver itself as a destination, a direct path or an unregistered sender as a source.
    pub const NONE: Self = Self { index: 0, generation: 0 };

    /// Whether this is [`Slot::NONE`]'s index.
    pub const fn is_none(self) -> bool {
        self.index == 0
    }
}

/// A destination: which transfer, which slot there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// 0: the transfer that is asked; other numbers are its own names for joined neighbours.
    pub transfer: u16,
    /// The slot there.
    pub slot: Slot,
}

impl Destination {
    /// Whoever receives the datagram.
    pub const RECEIVER: Self = Self { transfer: 0, slot: Slot::NONE };

    /// A slot of the transfer that is asked.
    pub const fn here(slot: Slot) -> Self {
        Self { transfer: 0, slot }
    }
}

/// The header's fields beside type and flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Route {
    /// Whom it is for.
    pub destination: Destination,
    /// Whose slot it comes from.
    pub source: Slot,
}

impl Route {
    /// A direct path, or first words to a transfer: all zero.
    pub const DIRECT: Self = Self { destination: Destination::RECEIVER, source: Slot::NONE };

    /// Reads bytes 2 to 16 of a datagram.
    ///
    /// # Errors
    /// [`Malformed::TooShort`].
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        Ok(Self {
            destination: Destination {
                transfer: u16_at(datagram, 2)?,
                slot: Slot { index: u32_at(datagram, 4)?, generation: u16_at(datagram, 8)? },
            },
            source: Slot { index: u32_at(datagram, 10)?, generation: u16_at(datagram, 14)? },
        })
    }

    /// The whole 16-byte header of a frame.
    pub fn emit(&self, frame: FrameType, flags: u8) -> [u8; ROUTE_BYTES] {
        let mut header = [0; ROUTE_BYTES];
        header[0] = frame.byte();
        header[1] = flags;
        header[2..4].copy_from_slice(&self.destination.transfer.to_be_bytes());
        header[4..8].copy_from_slice(&self.destination.slot.index.to_be_bytes());
        header[8..10].copy_from_slice(&self.destination.slot.generation.to_be_bytes());
        header[10..14].copy_from_slice(&self.source.index.to_be_bytes());
        header[14..16].copy_from_slice(&self.source.generation.to_be_bytes());
        header
    }
}
