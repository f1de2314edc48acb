//! The virtio-net header (virtio 1.2, section 5.1.6), which an interface with offloads puts in front of each packet.
//!
//! ```text
//!  0       1       2               4               6               8              10
//! +-------+-------+---------------+---------------+---------------+---------------+
//! | flags | kind  | header bytes  | payload bytes | sum starts at | field beyond  |
//! +-------+-------+---------------+---------------+---------------+---------------+
//! ```

use crate::drops::DropReason;
use crate::seam::VIRTIO_BYTES;

/// Flag: the checksum covers the pseudo header only, and is to be completed. Another one, that the checksum was found
/// right (2), and those that may come are without meaning here, and are not read.
const NEEDS_CHECKSUM: u8 = 1;
/// Kinds of packets that are several.
const CUT_NONE: u8 = 0;
const CUT_TCP4: u8 = 1;
const CUT_TCP6: u8 = 4;
const CUT_UDP: u8 = 5;
/// Added to a kind of TCP: the first segment carries CWR (RFC 3168), which the others must not.
const CUT_ECN: u8 = 0x80;

/// What the header says of the packet behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::gateway) struct VirtioHeader {
    /// The transport's checksum is to be completed.
    pub(in crate::gateway) checksum: Option<Partial>,
    /// The packet stands for several.
    pub(in crate::gateway) cut: Option<Cut>,
}

/// A checksum to be completed: the field holds the sum of the pseudo header, not complemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Partial {
    /// Where in the packet the bytes begin that are to be added; they go on to its end.
    pub(in crate::gateway) start: u16,
    /// The field, counted from `start`.
    pub(in crate::gateway) offset: u16,
}

/// A packet that stands for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Cut {
    /// Of what they are.
    pub(in crate::gateway) kind: CutKind,
    /// CWR is for the first of them only.
    pub(in crate::gateway) ecn: bool,
    /// Bytes of all headers. Only a hint where it is read: Linux says how much of the packet lies in one piece.
    pub(in crate::gateway) header_bytes: u16,
    /// Bytes of payload of each but the last. Never zero where it was read.
    pub(in crate::gateway) payload_bytes: u16,
}

/// What a packet that stands for several is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum CutKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams over IPv4 or IPv6.
    Udp,
}

impl VirtioHeader {
    /// Reads the header at the start of `bytes`; the packet follows it.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`]: too short, a kind that is not known, or segments of no payload.
    pub(in crate::gateway) fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let header: &[u8; VIRTIO_BYTES] = bytes.first_chunk().ok_or(DropReason::BadOffload)?;
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let checksum = (header[0] & NEEDS_CHECKSUM != 0).then(|| Partial { start: word(6), offset: word(8) });
        if header[1] == CUT_NONE {
            return Ok(Self { checksum, cut: None });
        }
        let kind = match header[1] & !CUT_ECN {
            CUT_TCP4 => CutKind::Tcp4,
            CUT_TCP6 => CutKind::Tcp6,
            CUT_UDP => CutKind::Udp,
            _ => return Err(DropReason::BadOffload),
        };
        let cut = Cut { kind, ecn: header[1] & CUT_ECN != 0, header_bytes: word(2), payload_bytes: word(4) };
        if cut.payload_bytes == 0 {
            return Err(DropReason::BadOffload);
        }
        Ok(Self { checksum, cut: Some(cut) })
    }

    /// The header's bytes.
    pub(in crate::gateway) fn emit(&self) -> [u8; VIRTIO_BYTES] {
        let mut bytes = [0; VIRTIO_BYTES];
        if let Some(Partial { start, offset }) = self.checksum {
            bytes[0] = NEEDS_CHECKSUM;
            bytes[6..8].copy_from_slice(&start.to_le_bytes());
            bytes[8..10].copy_from_slice(&offset.to_le_bytes());
        }
        if let Some(cut) = &self.cut {
            let kind = match cut.kind {
                CutKind::Tcp4 => CUT_TCP4,
                CutKind::Tcp6 => CUT_TCP6,
                CutKind::Udp => CUT_UDP,
            };
            bytes[1] = kind | if cut.ecn { CUT_ECN } else { 0 };
            bytes[2..4].copy_from_slice(&cut.header_bytes.to_le_bytes());
            bytes[4..6].copy_from_slice(&cut.payload_bytes.to_le_bytes());
        }
        bytes
    }
}
