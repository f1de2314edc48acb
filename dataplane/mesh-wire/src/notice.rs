//! Unsealed hints, each shorter than what it answers. They never stop a retry and change no state but that of a retry timer.
//!
//! ```text
//! RegisterAgain (16 bytes)                 Error (8 bytes)
//! +--------+--------+--------------+       +--------+--------+---------+---------+
//! |  0x26  | reason | bytes 2..16  |       |  0x27  | reason | lowest  | highest |
//! +--------+--------+ of the frame |       +--------+--------+---------+---------+
//! |        that is answered        |       | first four bytes of the datagram    |
//! +--------------------------------+       +-------------------------------------+
//! ```

use crate::frame::FrameType;
use crate::read::{array, u8_at};
use crate::route::{ROUTE_BYTES, Route};
use crate::{Malformed, VERSION};

/// Why a relay does not forward for this sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AgainReason {
    /// The source slot or its generation is not known: the relay may have been restarted.
    UnknownSource = 1,
    /// The destination slot or its generation is not known: the peer may have registered anew.
    UnknownDestination = 2,
    /// The source is known at another address.
    EndpointMoved = 3,
}

/// "Register again": a relay got a frame it could not place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterAgain {
    /// Why.
    pub reason: AgainReason,
    /// The addresses of the frame that is answered.
    pub route: Route,
}

impl RegisterAgain {
    /// Its length in bytes.
    pub const BYTES: usize = ROUTE_BYTES;

    /// Reads a notice.
    ///
    /// # Errors
    /// [`Malformed`] when it is too short, too long, or the reason is not known.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() > Self::BYTES {
            return Err(Malformed::TooLong);
        }
        let reason = match u8_at(datagram, 1)? {
            1 => AgainReason::UnknownSource,
            2 => AgainReason::UnknownDestination,
            3 => AgainReason::EndpointMoved,
            _ => return Err(Malformed::BadField),
        };
        Ok(Self { reason, route: Route::parse(datagram)? })
    }

    /// Its bytes.
    pub fn emit(&self) -> [u8; Self::BYTES] {
        self.route.emit(FrameType::RegisterAgain, self.reason as u8)
    }
}

/// The named reasons of an [`ErrorReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorReason {
    /// The wire version is not spoken here; the reply names those that are.
    Version = 1,
    /// Too many handshakes at once; try later.
    Busy = 2,
}

/// An error that cannot be sealed because nothing is shared yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// What is wrong.
    pub reason: ErrorReason,
    /// Lowest wire version spoken here.
    pub version_lowest: u8,
    /// Highest wire version spoken here.
    pub version_highest: u8,
    /// The first four bytes of the datagram that is answered.
    pub answers: [u8; 4],
}

impl ErrorReply {
    /// Its length in bytes. A shorter datagram gets no reply.
    pub const BYTES: usize = 8;

    /// The reply to a datagram, or `None` when that is shorter than the reply.
    pub fn to(reason: ErrorReason, datagram: &[u8]) -> Option<Self> {
        if datagram.len() < Self::BYTES {
            return None;
        }
        let answers = array(datagram, 0).ok()?;
        Some(Self { reason, version_lowest: VERSION, version_highest: VERSION, answers })
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// [`Malformed`] when it has another length, or the reason is not known.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() > Self::BYTES {
            return Err(Malformed::TooLong);
        }
        let reason = match u8_at(datagram, 1)? {
            1 => ErrorReason::Version,
            2 => ErrorReason::Busy,
            _ => return Err(Malformed::BadField),
        };
        Ok(Self {
            reason,
            version_lowest: u8_at(datagram, 2)?,
            version_highest: u8_at(datagram, 3)?,
            answers: array(datagram, 4)?,
        })
    }

    /// Its bytes.
    pub fn emit(&self) -> [u8; Self::BYTES] {
        let [a, b, c, d] = self.answers;
        [FrameType::Error.byte(), self.reason as u8, self.version_lowest, self.version_highest, a, b, c, d]
    }
}
