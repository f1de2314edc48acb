//! The cookie reply: an address must be proven before it costs its answerer state or a Diffie-Hellman.
//!
//! ```text
//! +---------------------------------------------------------------+
//! |               route header (16 bytes, see route.rs)           |
//! +---------------------------------------------------------------+
//! |      receiver's index: the sender index of the init           |
//! +---------------------------------------------------------------+
//! |                        nonce (12 bytes)                       |
//! +---------------------------------------------------------------+
//! |                   sealed cookie (16 + 16 tag)                 |
//! +---------------------------------------------------------------+
//! ```

use crate::Malformed;
use crate::frame::FrameType;
use crate::read::{array, u32_at};
use crate::route::{ROUTE_BYTES, Route};

/// The answer to a handshake init from an unproven address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// Addresses on a relayed path.
    pub route: Route,
    /// The sender index of the init that is answered.
    pub receiver_index: u32,
    /// Nonce of the sealed cookie.
    pub nonce: [u8; 12],
    /// The cookie, sealed under a key of the token, the init's first MAC as associated data.
    pub sealed: [u8; 32],
}

impl CookieReply {
    /// Its length in bytes.
    pub const BYTES: usize = ROUTE_BYTES + 4 + 12 + 32;

    /// Reads a reply.
    ///
    /// # Errors
    /// [`Malformed`] when it has another length.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() > Self::BYTES {
            return Err(Malformed::TooLong);
        }
        Ok(Self {
            route: Route::parse(datagram)?,
            receiver_index: u32_at(datagram, 16)?,
            nonce: array(datagram, 20)?,
            sealed: array(datagram, 32)?,
        })
    }

    /// Its bytes.
    pub fn emit(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..ROUTE_BYTES].copy_from_slice(&self.route.emit(FrameType::CookieReply, 0));
        bytes[16..20].copy_from_slice(&self.receiver_index.to_be_bytes());
        bytes[20..32].copy_from_slice(&self.nonce);
        bytes[32..].copy_from_slice(&self.sealed);
        bytes
    }
}
