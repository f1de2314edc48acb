//! What crossed the simulated wires, as it left the nodes.

use std::net::SocketAddr;

use mesh_core::gateway::PROBED_BYTES;
use mesh_core::seam::Moment;
use mesh_wire::frame::{FirstByte, FrameType, classify};

use crate::net::{Datagram, NodeId};

/// One datagram as an eavesdropper sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was sent.
    pub at: Moment,
    /// Who sent it.
    pub sender: NodeId,
    /// Its source as its sender wrote it: a private address, where a NAT is to come.
    pub from: SocketAddr,
    /// Where it was sent to.
    pub to: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Counts everything and, when asked to, keeps it.
#[derive(Debug, Default)]
pub struct Wiretap {
    /// Datagrams sent in all.
    pub datagrams: u64,
    /// Bytes of IP packets sent in all.
    pub bytes: u64,
    /// Datagrams that a node wanted to send and could not: it had no such socket, or no address.
    pub unsent: u64,
    /// Longest datagram that is neither data nor a probe of a path's size, in bytes of UDP payload.
    pub control_bytes_max: usize,
    /// UDP payload bytes of all that is not data.
    pub control_bytes: u64,
    frames: [u64; 16],
    recording: bool,
    seen: Vec<Seen>,
}

impl Wiretap {
    /// Keeps every datagram from here on.
    pub fn record(&mut self) {
        self.recording = true;
    }

    /// How many frames of a type were sent.
    pub fn count(&self, frame: FrameType) -> u64 {
        self.frames[usize::from(frame as u8)]
    }

    /// What was kept, oldest first.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// Whether `pattern` stands anywhere in what was kept.
    pub fn contains(&self, pattern: &[u8]) -> bool {
        self.seen.iter().any(|seen| seen.bytes.windows(pattern.len()).any(|window| window == pattern))
    }

    pub(crate) fn note(&mut self, at: Moment, sender: NodeId, datagram: &Datagram) {
        let Datagram { from, to, bytes } = datagram;
        self.datagrams += 1;
        self.bytes += datagram.ip_bytes() as u64;
        let frame = match bytes.first().map(|first| classify(*first)) {
            Some(FirstByte::Frame(frame)) => Some(frame),
            _ => None,
        };
        if let Some(frame) = frame {
            self.frames[usize::from(frame as u8)] += 1;
        }
        if frame != Some(FrameType::Data) {
            // Probes of sizes are sealed as other messages, but known by their lengths.
            let probe = PROBED_BYTES.iter().any(|length| usize::from(*length) == datagram.ip_bytes());
            if !(probe && frame == Some(FrameType::Control)) {
                self.control_bytes_max = self.control_bytes_max.max(bytes.len());
            }
            self.control_bytes += bytes.len() as u64;
        }
        if self.recording {
            self.seen.push(Seen { at, sender, from: *from, to: *to, bytes: bytes.clone() });
        }
    }
}
