//! Halves: how an inner packet travels that is too long for its path.
//!
//! Nobody fragments outside. While a path is not proven to carry the packet, it is sealed as two data frames, and the receiver
//! joins them. Plaintext of each:
//!
//! ```text
//!  0               1               2               3
//! +-------------------------------+-------------------------------+
//! |              id               |     length of the packet      |
//! +-------------------------------+-------------------------------+
//! |  bytes: the first half holds ceil(length / 2) of them ...     |
//! +---------------------------------------------------------------+
//! ```

use crate::Malformed;
use crate::read::u16_at;

/// Bytes before the packet's own.
pub const HALF_HEADER_BYTES: usize = 4;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first ceil(length / 2) bytes.
    First,
    /// The rest.
    Second,
}

/// One half of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half<'a> {
    /// Which of the two.
    pub part: Part,
    /// The same in both halves, another for the next packet of the session.
    pub id: u16,
    /// Length of the whole packet in bytes, at least 2.
    pub packet_bytes: u16,
    /// This half's bytes.
    pub bytes: &'a [u8],
}

/// Where a packet of `packet_bytes` is cut.
pub const fn cut(packet_bytes: usize) -> usize {
    packet_bytes.div_ceil(2)
}

impl<'a> Half<'a> {
    /// Reads a plaintext.
    ///
    /// # Errors
    /// [`Malformed`] when it is too short, or holds another number of bytes than its half must.
    pub fn parse(part: Part, plaintext: &'a [u8]) -> Result<Self, Malformed> {
        let id = u16_at(plaintext, 0)?;
        let packet_bytes = u16_at(plaintext, 2)?;
        let bytes = &plaintext[HALF_HEADER_BYTES..];
        let whole = usize::from(packet_bytes);
        let want = match part {
            Part::First => cut(whole),
            Part::Second => whole - cut(whole),
        };
        if whole < 2 || bytes.len() != want {
            return Err(Malformed::BadField);
        }
        Ok(Self { part, id, packet_bytes, bytes })
    }

    /// The four bytes that go before a half.
    pub fn header(id: u16, packet_bytes: u16) -> [u8; HALF_HEADER_BYTES] {
        let [a, b] = id.to_be_bytes();
        let [c, d] = packet_bytes.to_be_bytes();
        [a, b, c, d]
    }
}
