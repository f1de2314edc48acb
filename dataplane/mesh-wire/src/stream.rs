//! Frames over a byte stream: where a network lets no UDP pass, the same frames go over TCP, each behind its length.
//!
//! ```text
//!  0               1               2               3
//! +-------------------------------+-------------------------------+
//! |  n, the length of the frame   |  the frame: n bytes ...       |
//! +-------------------------------+-------------------------------+
//! |  the next n                   |  ...
//! +-------------------------------+---
//! ```
//!
//! A frame here is what would be one datagram, so it is never empty and never longer than one. A length that says
//! otherwise ends the stream: behind it nobody knows where a frame begins.

use crate::Malformed;
use crate::read::u16_at;

/// Bytes of a length.
pub const LENGTH_BYTES: usize = 2;

/// Longest frame, in bytes: the longest payload of a UDP datagram over IPv4.
pub const FRAME_BYTES_MAX: usize = 65_507;

/// Memory that a reader keeps while nothing waits in it, in bytes at most.
const KEPT_BYTES: usize = 4096;

/// What goes before a frame of `bytes` bytes.
///
/// # Errors
/// [`Malformed`] when no frame is that long.
pub fn length(bytes: usize) -> Result<[u8; LENGTH_BYTES], Malformed> {
    match u16::try_from(bytes) {
        Ok(0) => Err(Malformed::TooShort),
        Ok(length) if bytes <= FRAME_BYTES_MAX => Ok(length.to_be_bytes()),
        Ok(_) | Err(_) => Err(Malformed::TooLong),
    }
}

/// Finds the frames in a stream, however it is cut into pieces. Holds no more than what was fed last and one frame that
/// is not whole yet.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where the next length is to be.
    at: usize,
}

impl Frames {
    /// Takes the next piece of the stream. Whatever [`Frames::next`] has to say should be asked for before the next
    /// piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(piece);
    }

    /// The next frame; `None`: it is not whole yet.
    ///
    /// # Errors
    /// [`Malformed`] for the length of no frame. There is no next frame after that.
    #[expect(clippy::should_implement_trait, reason = "a frame is lent, and may be an error")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, Malformed> {
        let waiting = &self.bytes[self.at..];
        if waiting.is_empty() {
            self.at = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            return Ok(None);
        }
        let Ok(frame_bytes) = u16_at(waiting, 0).map(usize::from) else { return Ok(None) };
        length(frame_bytes)?;
        let end = self.at + LENGTH_BYTES + frame_bytes;
        let Some(frame) = self.bytes.get(self.at + LENGTH_BYTES..end) else { return Ok(None) };
        self.at = end;
        Ok(Some(frame))
    }

    /// Bytes that were fed and are in no frame that was handed out.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.at
    }
}
