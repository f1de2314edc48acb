//! "Where do you see me?", asked of a second port of a transfer: whether a NAT shows us at the same place there tells how it maps.
//!
//! ```text
//! Observe (48 bytes)                       Observed (48 bytes)
//! +--------+--------+---------+            +--------+--------+-----------+
//! |  0x2b  |   0    | 0   (2) |            |  0x2c  |   0    | port  (2) |
//! +--------+--------+---------+            +--------+--------+-----------+
//! |  nonce (12)               |            |  nonce (12), from the Observe |
//! +---------------------------+            +-------------------------------+
//! |  zeros (16)               |            |  address (16)                 |
//! +---------------------------+            +-------------------------------+
//! |  MAC (16)                 |            |  MAC (16)                     |
//! +---------------------------+            +-------------------------------+
//! ```
//!
//! An IPv4 address is IPv4-mapped. Both MACs cover all bytes before them, under a key of the namespace of the port that is asked: whoever
//! does not know its token gets no answer, and can give none. An answer has as many bytes as its question, and nothing is remembered for it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::Malformed;
use crate::frame::FrameType;
use crate::read::{array, u8_at, u16_at};

/// Length of either frame, in bytes.
pub const OBSERVE_BYTES: usize = 48;
/// Bytes of the nonce.
pub const NONCE_BYTES: usize = 12;

const NONCE_AT: usize = 4;
const ADDRESS_AT: usize = NONCE_AT + NONCE_BYTES;
const MAC_AT: usize = ADDRESS_AT + 16;

/// The part of a frame that its MAC covers; all of it, when it is shorter than a frame.
pub fn mac_input(datagram: &[u8]) -> &[u8] {
    &datagram[..MAC_AT.min(datagram.len())]
}

/// "Where do you see me?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Random; echoed in the answer.
    pub nonce: [u8; NONCE_BYTES],
    /// Its MAC, to be verified.
    pub mac: [u8; 16],
}

impl Observe {
    /// Reads a question.
    ///
    /// # Errors
    /// [`Malformed`] when it has another length.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        check_length(datagram)?;
        Ok(Self { nonce: array(datagram, NONCE_AT)?, mac: array(datagram, MAC_AT)? })
    }

    /// The bytes of a question; `mac` is given what it covers.
    pub fn emit(nonce: &[u8; NONCE_BYTES], mac: impl FnOnce(&[u8]) -> [u8; 16]) -> [u8; OBSERVE_BYTES] {
        let mut bytes = [0; OBSERVE_BYTES];
        bytes[0] = FrameType::Observe.byte();
        bytes[NONCE_AT..ADDRESS_AT].copy_from_slice(nonce);
        let made = mac(&bytes[..MAC_AT]);
        bytes[MAC_AT..].copy_from_slice(&made);
        bytes
    }
}

/// "There."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// From the question.
    pub nonce: [u8; NONCE_BYTES],
    /// Where the question came from.
    pub endpoint: SocketAddr,
    /// Its MAC, to be verified.
    pub mac: [u8; 16],
}

impl Observed {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`Malformed`] when it has another length.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        check_length(datagram)?;
        let address = Ipv6Addr::from(array::<16>(datagram, ADDRESS_AT)?);
        let ip = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
        let endpoint = SocketAddr::new(ip, u16_at(datagram, 2)?);
        Ok(Self { nonce: array(datagram, NONCE_AT)?, endpoint, mac: array(datagram, MAC_AT)? })
    }

    /// The bytes of an answer; `mac` is given what it covers.
    pub fn emit(
        nonce: &[u8; NONCE_BYTES],
        endpoint: &SocketAddr,
        mac: impl FnOnce(&[u8]) -> [u8; 16],
    ) -> [u8; OBSERVE_BYTES] {
        let mut bytes = [0; OBSERVE_BYTES];
        bytes[0] = FrameType::Observed.byte();
        bytes[2..NONCE_AT].copy_from_slice(&endpoint.port().to_be_bytes());
        bytes[NONCE_AT..ADDRESS_AT].copy_from_slice(nonce);
        let address = match endpoint.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        bytes[ADDRESS_AT..MAC_AT].copy_from_slice(&address.octets());
        let made = mac(&bytes[..MAC_AT]);
        bytes[MAC_AT..].copy_from_slice(&made);
        bytes
    }
}

fn check_length(datagram: &[u8]) -> Result<(), Malformed> {
    u8_at(datagram, OBSERVE_BYTES - 1)?;
    if datagram.len() > OBSERVE_BYTES { Err(Malformed::TooLong) } else { Ok(()) }
}
