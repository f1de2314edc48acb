//! Data and control: what is sealed under a session's keys.
//!
//! ```text
//!  0               1               2               3
//! +---------------------------------------------------------------+
//! |               route header (16 bytes, see route.rs)           |
//! +---------------------------------------------------------------+
//! |                 receiver's session index                      |
//! +---------------------------------------------------------------+
//! |                      counter (64 bits)                        |
//! |                                                               |
//! +---------------------------------------------------------------+
//! |   ciphertext: an inner IP packet, half of one, or a message   |
//! |                            ...                                |
//! +---------------------------------------------------------------+
//! |                   authentication tag (16)                     |
//! +---------------------------------------------------------------+
//! ```
//!
//! The 28 bytes before the ciphertext are the AEAD's associated data; the nonce is four zero bytes and the counter.

use crate::frame::FrameType;
use crate::read::{array, u32_at, u64_at};
use crate::route::{ROUTE_BYTES, Route};
use crate::{Malformed, TAG_BYTES};

/// Bytes before the ciphertext.
pub const HEADER_BYTES: usize = ROUTE_BYTES + 4 + 8;

/// Where the counter lies in a header: its last 8 bytes.
pub const COUNTER_AT: usize = ROUTE_BYTES + 4;

/// What sealing adds to an inner packet, in bytes: 44.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// Flags of a data frame.
pub mod flags {
    /// The inner transport checksum covers the pseudo header only; the receiver completes it.
    pub const CHECKSUM_PARTIAL: u8 = 0x01;
    /// The plaintext is the first [half](crate::half) of an inner packet.
    pub const FIRST_HALF: u8 = 0x02;
    /// The plaintext is the second [half](crate::half) of an inner packet.
    pub const SECOND_HALF: u8 = 0x04;
}

/// The header of a sealed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedHeader {
    /// [`FrameType::Data`] or [`FrameType::Control`].
    pub frame: FrameType,
    /// See [`flags`]; zero for control.
    pub flags: u8,
    /// Addresses on a relayed path.
    pub route: Route,
    /// The index the receiver gave its session in the handshake.
    pub receiver_index: u32,
    /// Counts the datagrams of one direction of a session from zero.
    pub counter: u64,
}

impl SealedHeader {
    /// Reads the fixed part; checks that a tag follows.
    ///
    /// # Errors
    /// [`Malformed::TooShort`] below 44 bytes, [`Malformed::BadField`] for another frame type.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() < OVERHEAD_BYTES {
            return Err(Malformed::TooShort);
        }
        let frame = match datagram[0] {
            byte if byte == FrameType::Data.byte() => FrameType::Data,
            byte if byte == FrameType::Control.byte() => FrameType::Control,
            _ => return Err(Malformed::BadField),
        };
        Ok(Self {
            frame,
            flags: datagram[1],
            route: Route::parse(datagram)?,
            receiver_index: u32_at(datagram, 16)?,
            counter: u64_at(datagram, 20)?,
        })
    }

    /// The 28 bytes of the header.
    pub fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..ROUTE_BYTES].copy_from_slice(&self.route.emit(self.frame, self.flags));
        header[16..20].copy_from_slice(&self.receiver_index.to_be_bytes());
        header[20..28].copy_from_slice(&self.counter.to_be_bytes());
        header
    }
}

/// The header as bytes, of a datagram that [`SealedHeader::parse`] accepted: the associated data.
///
/// # Errors
/// [`Malformed::TooShort`].
pub fn associated_data(datagram: &[u8]) -> Result<[u8; HEADER_BYTES], Malformed> {
    array(datagram, 0)
}
