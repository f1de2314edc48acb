//! The wire of EasyMesh, version 2: bytes to types and back.
//!
//! One frame per file, each with its picture. Integers are big-endian. Nothing here reads a clock, a socket or a source of
//! randomness, and no input panics: decoders answer with [`Malformed`].
//!
//! ```text
//!  byte 0          byte 1
//! +-------+-------+--------+
//! | vers. | type  | flags  |
//! +-------+-------+--------+
//! ```
//!
//! | type | frame | file |
//! |---|---|---|
//! | 0 | [`data`](sealed): an inner IP packet, sealed end to end | `sealed.rs` |
//! | 1 | [`HandshakeInit`](handshake::Init) | `handshake.rs` |
//! | 2 | [`HandshakeResponse`](handshake::Response) | `handshake.rs` |
//! | 3 | [`HandshakeFinal`](handshake::Final) | `handshake.rs` |
//! | 4 | [`CookieReply`](cookie::CookieReply) | `cookie.rs` |
//! | 5 | [`control`](sealed): a [`message`], sealed | `sealed.rs` |
//! | 6 | [`RegisterAgain`](notice::RegisterAgain), unsealed hint | `notice.rs` |
//! | 7 | [`ErrorReply`](notice::ErrorReply), unsealed hint | `notice.rs` |
//! | 11 | [`Observe`](observe::Observe), unsealed question | `observe.rs` |
//! | 12 | [`Observed`](observe::Observed), its answer | `observe.rs` |
//!
//! Types 0 to 5 start with a [`route`] header. A relay checks it and forwards the datagram untouched. Where UDP does not pass,
//! the same frames go over TCP, see [`stream`].
//!
//! Nobody is answered with more bytes than it sent: an init is [padded](handshake) to the longest response, and every request
//! to its [longest answer](message::Message::to_padded_vec). Who answers measures, and sends nothing longer.
#![forbid(unsafe_code)]

pub mod beacon;
pub mod cookie;
pub mod frame;
pub mod half;
pub mod handshake;
pub mod message;
pub mod notice;
pub mod observe;
pub mod route;
pub mod sealed;
pub mod stream;

mod read;

#[cfg(test)]
mod tests;

/// The wire version spoken here: the high nibble of byte 0.
pub const VERSION: u8 = 2;

/// Longest control datagram, in bytes: it passes every path that IPv6 promises. Only a [probe of a path's size] is as long as it asks
/// for.
///
/// [probe of a path's size]: message::Message::SizeProbe
pub const CONTROL_BYTES_MAX: usize = 1200;

/// Bytes of an AEAD tag (AES-256-GCM and ChaCha20-Poly1305 alike).
pub const TAG_BYTES: usize = 16;

/// A datagram or message that does not follow the wire. Its cause is fixed text: it names no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than its fixed part, or than a length it names.
    TooShort,
    /// Longer than the frame may be.
    TooLong,
    /// A field holds a value outside its range.
    BadField,
    /// A field that must be there is not.
    MissingField,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooShort => "too short",
            Self::TooLong => "too long",
            Self::BadField => "a field is out of range",
            Self::MissingField => "a field is missing",
        })
    }
}

impl std::error::Error for Malformed {}
