//! The three messages of a handshake: `Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s` (The Noise Protocol Framework, revision 34),
//! wrapped in addresses, session indexes and the MACs that keep strangers from costing anything.
//!
//! ```text
//! Init (exactly 320 bytes)          Response (at most 320)            Final (at most 1200)
//! +----------------------------+    +----------------------------+    +----------------------------+
//! | route header          (16) |    | route header          (16) |    | route header          (16) |
//! | sender's index         (4) |    | sender's index         (4) |    | receiver's index       (4) |
//! | kind, 0, noise length  (4) |    | receiver's index       (4) |    | kind, 0, noise length  (4) |
//! | noise message 1            |    | kind, 0, noise length  (4) |    | noise message 3            |
//! | zeros up to 288            |    | noise message 2            |    | mac1                  (16) |
//! | mac1                  (16) |    | mac1                  (16) |    +----------------------------+
//! | mac2, or zeros        (16) |    +----------------------------+
//! +----------------------------+
//! ```
//!
//! `mac1` is keyed by the token and covers all before it; `mac2` is keyed by the [cookie](crate::cookie). The init is padded so
//! that nobody is answered with more bytes than it sent.

use crate::frame::FrameType;
use crate::read::{array, u8_at, u16_at, u32_at};
use crate::route::{ROUTE_BYTES, Route};
use crate::{CONTROL_BYTES_MAX, Malformed};

/// Bytes of a MAC.
pub const MAC_BYTES: usize = 16;

/// Exact length of an init.
pub const INIT_BYTES: usize = 320;

/// Longest response.
pub const RESPONSE_BYTES_MAX: usize = INIT_BYTES;

const INIT_NOISE_AT: usize = ROUTE_BYTES + 8;
const INIT_MAC1_AT: usize = INIT_BYTES - 2 * MAC_BYTES;
const INIT_MAC2_AT: usize = INIT_BYTES - MAC_BYTES;
const RESPONSE_NOISE_AT: usize = ROUTE_BYTES + 12;
const FINAL_NOISE_AT: usize = ROUTE_BYTES + 8;

/// Longest Noise message of an init.
pub const INIT_NOISE_BYTES_MAX: usize = INIT_MAC1_AT - INIT_NOISE_AT;
/// Longest Noise message of a response.
pub const RESPONSE_NOISE_BYTES_MAX: usize = RESPONSE_BYTES_MAX - RESPONSE_NOISE_AT - MAC_BYTES;
/// Longest Noise message of a final.
pub const FINAL_NOISE_BYTES_MAX: usize = CONTROL_BYTES_MAX - FINAL_NOISE_AT - MAC_BYTES;

/// Between whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A gateway speaks to a transfer.
    GatewayToTransfer = 1,
    /// A gateway speaks to a gateway.
    GatewayToGateway = 2,
}

impl Kind {
    fn parse(datagram: &[u8], at: usize) -> Result<Self, Malformed> {
        match u8_at(datagram, at)? {
            1 => Ok(Self::GatewayToTransfer),
            2 => Ok(Self::GatewayToGateway),
            _ => Err(Malformed::BadField),
        }
    }
}

/// The first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init<'a> {
    /// Addresses on a relayed path.
    pub route: Route,
    /// The index the initiator wants to be called by.
    pub sender_index: u32,
    /// Between whom.
    pub kind: Kind,
    /// Noise message 1.
    pub noise: &'a [u8],
    /// MAC under the token.
    pub mac1: [u8; MAC_BYTES],
    /// MAC under a cookie; zeros without one.
    pub mac2: [u8; MAC_BYTES],
}

impl<'a> Init<'a> {
    /// Reads an init. MACs are not checked: see [`Init::mac1_input`] and [`Init::mac2_input`].
    ///
    /// # Errors
    /// [`Malformed`] when it has another length or a field is out of range.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        if datagram.len() > INIT_BYTES {
            return Err(Malformed::TooLong);
        }
        if datagram.len() < INIT_BYTES {
            return Err(Malformed::TooShort);
        }
        let noise_bytes = usize::from(u16_at(datagram, 22)?);
        if noise_bytes > INIT_NOISE_BYTES_MAX {
            return Err(Malformed::BadField);
        }
        Ok(Self {
            route: Route::parse(datagram)?,
            sender_index: u32_at(datagram, 16)?,
            kind: Kind::parse(datagram, 20)?,
            noise: &datagram[INIT_NOISE_AT..INIT_NOISE_AT + noise_bytes],
            mac1: array(datagram, INIT_MAC1_AT)?,
            mac2: array(datagram, INIT_MAC2_AT)?,
        })
    }

    /// The bytes that `mac1` covers, of a datagram that [`Init::parse`] accepted.
    pub fn mac1_input(datagram: &[u8]) -> &[u8] {
        &datagram[..INIT_MAC1_AT.min(datagram.len())]
    }

    /// The bytes that `mac2` covers, of a datagram that [`Init::parse`] accepted.
    pub fn mac2_input(datagram: &[u8]) -> &[u8] {
        &datagram[..INIT_MAC2_AT.min(datagram.len())]
    }

    /// Writes an init. `mac1` and `mac2` are asked for in turn with the bytes they cover; without a cookie `mac2` answers zeros.
    ///
    /// # Panics
    /// When `noise` is longer than [`INIT_NOISE_BYTES_MAX`]: the caller made it.
    pub fn emit(
        route: &Route,
        sender_index: u32,
        kind: Kind,
        noise: &[u8],
        mac1: impl FnOnce(&[u8]) -> [u8; MAC_BYTES],
        mac2: impl FnOnce(&[u8]) -> [u8; MAC_BYTES],
    ) -> [u8; INIT_BYTES] {
        assert!(noise.len() <= INIT_NOISE_BYTES_MAX, "a first Noise message of {} bytes", noise.len());
        let mut bytes = [0; INIT_BYTES];
        bytes[..ROUTE_BYTES].copy_from_slice(&route.emit(FrameType::HandshakeInit, 0));
        bytes[16..20].copy_from_slice(&sender_index.to_be_bytes());
        bytes[20] = kind as u8;
        bytes[22..24].copy_from_slice(&length(noise));
        bytes[INIT_NOISE_AT..INIT_NOISE_AT + noise.len()].copy_from_slice(noise);
        let mac = mac1(&bytes[..INIT_MAC1_AT]);
        bytes[INIT_MAC1_AT..INIT_MAC2_AT].copy_from_slice(&mac);
        let mac = mac2(&bytes[..INIT_MAC2_AT]);
        bytes[INIT_MAC2_AT..].copy_from_slice(&mac);
        bytes
    }
}

/// The second message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// Addresses on a relayed path.
    pub route: Route,
    /// The index the responder wants to be called by.
    pub sender_index: u32,
    /// The index from the init.
    pub receiver_index: u32,
    /// Between whom.
    pub kind: Kind,
    /// Noise message 2.
    pub noise: &'a [u8],
    /// MAC under the token.
    pub mac1: [u8; MAC_BYTES],
}

impl<'a> Response<'a> {
    /// Reads a response; the MAC is not checked.
    ///
    /// # Errors
    /// [`Malformed`] when lengths do not fit or a field is out of range.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        if datagram.len() > RESPONSE_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        let noise = noise_and_mac(datagram, 26, RESPONSE_NOISE_AT)?;
        Ok(Self {
            route: Route::parse(datagram)?,
            sender_index: u32_at(datagram, 16)?,
            receiver_index: u32_at(datagram, 20)?,
            kind: Kind::parse(datagram, 24)?,
            noise,
            mac1: array(datagram, datagram.len() - MAC_BYTES)?,
        })
    }

    /// Appends a response to `out`.
    ///
    /// # Panics
    /// When `noise` is longer than [`RESPONSE_NOISE_BYTES_MAX`]: the caller made it.
    pub fn emit(
        out: &mut Vec<u8>,
        route: &Route,
        sender_index: u32,
        receiver_index: u32,
        kind: Kind,
        noise: &[u8],
        mac1: impl FnOnce(&[u8]) -> [u8; MAC_BYTES],
    ) {
        assert!(noise.len() <= RESPONSE_NOISE_BYTES_MAX, "a second Noise message of {} bytes", noise.len());
        let start = out.len();
        out.extend_from_slice(&route.emit(FrameType::HandshakeResponse, 0));
        out.extend_from_slice(&sender_index.to_be_bytes());
        out.extend_from_slice(&receiver_index.to_be_bytes());
        out.extend_from_slice(&[kind as u8, 0]);
        out.extend_from_slice(&length(noise));
        out.extend_from_slice(noise);
        let mac = mac1(&out[start..]);
        out.extend_from_slice(&mac);
    }
}

/// The third message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Final<'a> {
    /// Addresses on a relayed path.
    pub route: Route,
    /// The index from the response.
    pub receiver_index: u32,
    /// Between whom.
    pub kind: Kind,
    /// Noise message 3.
    pub noise: &'a [u8],
    /// MAC under the token.
    pub mac1: [u8; MAC_BYTES],
}

impl<'a> Final<'a> {
    /// Reads a final; the MAC is not checked.
    ///
    /// # Errors
    /// [`Malformed`] when lengths do not fit or a field is out of range.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        if datagram.len() > CONTROL_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        let noise = noise_and_mac(datagram, 22, FINAL_NOISE_AT)?;
        Ok(Self {
            route: Route::parse(datagram)?,
            receiver_index: u32_at(datagram, 16)?,
            kind: Kind::parse(datagram, 20)?,
            noise,
            mac1: array(datagram, datagram.len() - MAC_BYTES)?,
        })
    }

    /// Appends a final to `out`.
    ///
    /// # Panics
    /// When `noise` is longer than [`FINAL_NOISE_BYTES_MAX`]: the caller made it.
    pub fn emit(
        out: &mut Vec<u8>,
        route: &Route,
        receiver_index: u32,
        kind: Kind,
        noise: &[u8],
        mac1: impl FnOnce(&[u8]) -> [u8; MAC_BYTES],
    ) {
        assert!(noise.len() <= FINAL_NOISE_BYTES_MAX, "a third Noise message of {} bytes", noise.len());
        let start = out.len();
        out.extend_from_slice(&route.emit(FrameType::HandshakeFinal, 0));
        out.extend_from_slice(&receiver_index.to_be_bytes());
        out.extend_from_slice(&[kind as u8, 0]);
        out.extend_from_slice(&length(noise));
        out.extend_from_slice(noise);
        let mac = mac1(&out[start..]);
        out.extend_from_slice(&mac);
    }
}

/// The bytes that `mac1` of a response or a final covers: all but the last 16.
pub fn mac1_input(datagram: &[u8]) -> &[u8] {
    &datagram[..datagram.len().saturating_sub(MAC_BYTES)]
}

/// The Noise message of a frame that holds nothing after it but `mac1`.
fn noise_and_mac(datagram: &[u8], length_at: usize, noise_at: usize) -> Result<&[u8], Malformed> {
    let noise_bytes = usize::from(u16_at(datagram, length_at)?);
    let end = noise_at + noise_bytes + MAC_BYTES;
    match datagram.len() {
        shorter if shorter < end => Err(Malformed::TooShort),
        longer if longer > end => Err(Malformed::TooLong),
        _ => Ok(&datagram[noise_at..noise_at + noise_bytes]),
    }
}

fn length(noise: &[u8]) -> [u8; 2] {
    u16::try_from(noise.len()).expect("bounded by the frame").to_be_bytes()
}
