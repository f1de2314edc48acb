//! The beacon: "I am here", to everybody on a local network.
//!
//! ```text
//! +---------------------------------------------------------------+
//! | vers. | type  |     zero      |                               |
//! +---------------+---------------+                               +
//! |                 sender: random for each start (16 bytes)      |
//! +---------------------------------------------------------------+
//! |            counter of the sender's beacons (8 bytes)          |
//! +---------------------------------------------------------------+
//! |      sealed: a Presence message, and the tag (16 bytes)       |
//! +---------------------------------------------------------------+
//! ```
//!
//! Who has no key of the namespace learns that there is a gateway, and whether it is the one of a while ago; nothing else. The
//! bytes before the sealed ones are its associated data.

use crate::frame::FrameType;
use crate::read::{array, u64_at};
use crate::{Malformed, TAG_BYTES};

/// Bytes before the sealed ones.
pub const BEACON_HEADER_BYTES: usize = 2 + 16 + 8;
/// Longest beacon, in bytes.
pub const BEACON_BYTES_MAX: usize = 256;

/// A beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon<'a> {
    /// Random number of the sender's start.
    pub sender: [u8; 16],
    /// Counts its beacons, from 1.
    pub counter: u64,
    /// The sealed message and its tag.
    pub sealed: &'a [u8],
}

impl<'a> Beacon<'a> {
    /// Reads a beacon.
    ///
    /// # Errors
    /// [`Malformed`] when it is shorter than a tag, or longer than [`BEACON_BYTES_MAX`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        if datagram.len() > BEACON_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        let sealed = datagram.get(BEACON_HEADER_BYTES..).filter(|sealed| sealed.len() > TAG_BYTES);
        Ok(Self {
            sender: array(datagram, 2)?,
            counter: u64_at(datagram, 18)?,
            sealed: sealed.ok_or(Malformed::TooShort)?,
        })
    }

    /// The bytes before the sealed ones.
    pub fn header(sender: &[u8; 16], counter: u64) -> [u8; BEACON_HEADER_BYTES] {
        let mut bytes = [0; BEACON_HEADER_BYTES];
        bytes[0] = FrameType::Beacon.byte();
        bytes[2..18].copy_from_slice(sender);
        bytes[18..].copy_from_slice(&counter.to_be_bytes());
        bytes
    }
}
