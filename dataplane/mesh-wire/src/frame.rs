//! The first byte: which version, which frame.

use crate::VERSION;

/// The frames of this version. The number is the low nibble of byte 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// An inner IP packet, sealed end to end.
    Data = 0,
    /// First message of a handshake.
    HandshakeInit = 1,
    /// Second message of a handshake.
    HandshakeResponse = 2,
    /// Third message of a handshake.
    HandshakeFinal = 3,
    /// "Prove your address first."
    CookieReply = 4,
    /// A sealed message of the control plane.
    Control = 5,
    /// "I do not know you here; register again."
    RegisterAgain = 6,
    /// An unsealed error with a named reason.
    Error = 7,
    /// "I am here", on a local network.
    Beacon = 10,
    /// "Where do you see me?"
    Observe = 11,
    /// "There."
    Observed = 12,
}

impl FrameType {
    /// Byte 0 of this frame.
    pub const fn byte(self) -> u8 {
        VERSION << 4 | self as u8
    }

    /// Whether the frame starts with a [route header](crate::route) and may be relayed.
    pub const fn has_route(self) -> bool {
        (self as u8) <= Self::Control as u8
    }
}

/// What byte 0 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstByte {
    /// A frame of this version.
    Frame(FrameType),
    /// This version, a type that it does not have.
    UnknownType,
    /// A frame of the first EasyMesh (2021): plaintext IP (4, 6), JSON (0), ping (1). It has no notion of versions and cannot be
    /// told anything; such datagrams are dropped.
    FirstEdition,
    /// Another version: its sender is told which versions are spoken here.
    OtherVersion(u8),
}

/// Reads byte 0.
pub const fn classify(first: u8) -> FirstByte {
    match (first >> 4, first & 0x0f) {
        (VERSION, 0) => FirstByte::Frame(FrameType::Data),
        (VERSION, 1) => FirstByte::Frame(FrameType::HandshakeInit),
        (VERSION, 2) => FirstByte::Frame(FrameType::HandshakeResponse),
        (VERSION, 3) => FirstByte::Frame(FrameType::HandshakeFinal),
        (VERSION, 4) => FirstByte::Frame(FrameType::CookieReply),
        (VERSION, 5) => FirstByte::Frame(FrameType::Control),
        (VERSION, 6) => FirstByte::Frame(FrameType::RegisterAgain),
        (VERSION, 7) => FirstByte::Frame(FrameType::Error),
        (VERSION, 10) => FirstByte::Frame(FrameType::Beacon),
        (VERSION, 11) => FirstByte::Frame(FrameType::Observe),
        (VERSION, 12) => FirstByte::Frame(FrameType::Observed),
        (VERSION, _) => FirstByte::UnknownType,
        (0 | 1 | 4 | 6, _) => FirstByte::FirstEdition,
        (version, _) => FirstByte::OtherVersion(version),
    }
}
