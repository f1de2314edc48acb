//! Candidates: places where a gateway may be reached without a relay, as one tells a peer.
//!
//! ```text
//! +--------+--------+----------------------+-----------+
//! |  kind  | length | address (4 or 16)    | port (16) |   for each; length counts address and port
//! +--------+--------+----------------------+-----------+
//! ```
//!
//! The terms are those of RFC 8445, section 4. A reader skips kinds and lengths it does not know.

use std::net::{IpAddr, SocketAddr};

use crate::Malformed;
use crate::read::{array, u8_at, u16_at};

/// Most candidates in one list; further ones are left out by writers and skipped by readers.
pub const CANDIDATES_MAX: usize = 16;

/// How a candidate is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CandidateKind {
    /// An address of one of the gateway's interfaces.
    Host = 1,
    /// Where a transfer sees it.
    Observed = 2,
    /// Its router maps this to it, by PCP, NAT-PMP or UPnP.
    Mapped = 3,
    /// Where other peers see it.
    Seen = 4,
}

impl CandidateKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Host),
            2 => Some(Self::Observed),
            3 => Some(Self::Mapped),
            4 => Some(Self::Seen),
            _ => None,
        }
    }
}

/// One place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// How it is known.
    pub kind: CandidateKind,
    /// Where it is.
    pub endpoint: SocketAddr,
}

/// How a NAT chooses the outside port of one inside port (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mapping {
    /// Not known.
    #[default]
    Unknown = 0,
    /// The same for all destinations, or there is no NAT.
    EndpointIndependent = 1,
    /// Another one for each destination.
    EndpointDependent = 2,
    /// The same for two ports of one address; whether it is for other addresses is not known.
    PortIndependent = 3,
}

impl Mapping {
    /// Numbers of later versions are not known here.
    pub(super) const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::EndpointIndependent,
            2 => Self::EndpointDependent,
            3 => Self::PortIndependent,
            _ => Self::Unknown,
        }
    }
}

pub(super) fn encode(list: &[Candidate]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(list.len() * 8);
    for candidate in list.iter().take(CANDIDATES_MAX) {
        bytes.push(candidate.kind as u8);
        match candidate.endpoint.ip() {
            IpAddr::V4(ip) => {
                bytes.push(6);
                bytes.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes.push(18);
                bytes.extend_from_slice(&ip.octets());
            }
        }
        bytes.extend_from_slice(&candidate.endpoint.port().to_be_bytes());
    }
    bytes
}

pub(super) fn decode(mut bytes: &[u8]) -> Result<Vec<Candidate>, Malformed> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let (kind, length) = (u8_at(bytes, 0)?, usize::from(u8_at(bytes, 1)?));
        let value = bytes.get(2..2 + length).ok_or(Malformed::TooShort)?;
        bytes = &bytes[2 + length..];
        let ip: IpAddr = match length {
            6 => array::<4>(value, 0)?.into(),
            18 => array::<16>(value, 0)?.into(),
            _ => continue,
        };
        let endpoint = SocketAddr::new(ip, u16_at(value, length - 2)?);
        if let Some(kind) = CandidateKind::from_byte(kind)
            && list.len() < CANDIDATES_MAX
        {
            list.push(Candidate { kind, endpoint });
        }
    }
    Ok(list)
}
