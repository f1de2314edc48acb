//! Padding of requests: nobody is answered with more bytes than it sent, be it sealed or not. A request travels in a frame that
//! adds no less than the frame of its answer does, so it is enough that its message is not the shorter one.
//!
//! | request | its answers |
//! |---|---|
//! | `Register`, in a final or alone | `Registered`, `Refused` |
//! | `Keepalive` | `KeepaliveAck` |
//! | `Lookup` | `Found`, `NotFound` |
//! | `Identity`, in a final | `Confirm`, `Close` |
//! | `Probe` | `ProbeReply` |
//! | `PathProbe` | `PathReply` |
//! | `SizeProbe` | `SizeReply` |
//! | `SearchRequest` | `SearchGrant`, `SearchRefused` |
//! | `SearchBegin` | `SearchReady` |
//!
//! A `Hello` needs none: its frame is of one length, which no response exceeds.

use super::{Message, NAME_BYTES_MAX, TICKET_BYTES_MAX, tag};

/// Bytes before the value of a field.
const FIELD_HEADER_BYTES: usize = 3;

/// Bytes of a field with a value of so many.
const fn field(value_bytes: usize) -> usize {
    FIELD_HEADER_BYTES + value_bytes
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

const KIND: usize = 1;
const NUMBER: usize = field(4);
const BOOT: usize = field(8);
const IP4: usize = field(4);
const KEY: usize = field(32);
const SLOT: usize = field(6);
const ENDPOINT_MAX: usize = field(18);
const REASON: usize = field(1);
const LEASE_SECONDS: usize = field(2);
const BYTES: usize = field(2);
const PORT: usize = field(2);
const NAME_MAX: usize = field(NAME_BYTES_MAX);
const TICKET_MAX: usize = field(TICKET_BYTES_MAX);
const PEER_MAX: usize = IP4 + KEY + SLOT + BOOT + NAME_MAX + ENDPOINT_MAX;

const REGISTERED_MAX: usize = KIND + NUMBER + SLOT + ENDPOINT_MAX + BOOT + LEASE_SECONDS + NUMBER + TICKET_MAX + PORT;
const REFUSED: usize = KIND + NUMBER + REASON + IP4;
const KEEPALIVE_ACK_MAX: usize = KIND + NUMBER + ENDPOINT_MAX + BOOT + NUMBER;
const FOUND_MAX: usize = KIND + NUMBER + NUMBER + PEER_MAX;
const NOT_FOUND_MAX: usize = KIND + NUMBER + max(IP4, SLOT);
const CONFIRM: usize = KIND + IP4;
const CLOSE: usize = KIND + REASON;
const PROBE_REPLY: usize = KIND + NUMBER;
const PATH_REPLY_MAX: usize = KIND + NUMBER + NUMBER + ENDPOINT_MAX;
const SIZE_REPLY: usize = KIND + NUMBER + BYTES;
const SEARCH_GRANT_MAX: usize = KIND + NUMBER + ENDPOINT_MAX + LEASE_SECONDS;
const SEARCH_REFUSED: usize = KIND + NUMBER + LEASE_SECONDS;
const SEARCH_READY: usize = KIND + NUMBER + NUMBER;

impl Message {
    /// Length of the longest answer to this message, in bytes; 0 where there is none that it has to make room for.
    pub const fn answer_bytes_max(&self) -> usize {
        match self {
            Self::Register { .. } => max(REGISTERED_MAX, REFUSED),
            Self::Keepalive { .. } => KEEPALIVE_ACK_MAX,
            Self::Lookup { .. } => max(FOUND_MAX, NOT_FOUND_MAX),
            Self::Identity { .. } => max(CONFIRM, CLOSE),
            Self::Probe { .. } => PROBE_REPLY,
            Self::PathProbe { .. } => PATH_REPLY_MAX,
            Self::SizeProbe { .. } => SIZE_REPLY,
            Self::SearchRequest { .. } => max(SEARCH_GRANT_MAX, SEARCH_REFUSED),
            Self::SearchBegin { .. } => SEARCH_READY,
            Self::Hello { .. }
            | Self::Welcome { .. }
            | Self::Registered { .. }
            | Self::Refused { .. }
            | Self::KeepaliveAck { .. }
            | Self::Found { .. }
            | Self::NotFound { .. }
            | Self::Change { .. }
            | Self::Goodbye
            | Self::Confirm { .. }
            | Self::ProbeReply { .. }
            | Self::Close { .. }
            | Self::Candidates { .. }
            | Self::Presence { .. }
            | Self::PathReply { .. }
            | Self::SizeReply { .. }
            | Self::SearchGrant { .. }
            | Self::SearchRefused { .. }
            | Self::SearchReady { .. } => 0,
        }
    }

    /// The message's bytes, and behind them zeros until they are as many as the longest answer has: how requests are sent.
    pub fn to_padded_vec(&self) -> Vec<u8> {
        let mut bytes = self.to_vec();
        if self.answer_bytes_max() > bytes.len() {
            // The header of the field may be more than is missing.
            let total = self.answer_bytes_max().max(bytes.len() + FIELD_HEADER_BYTES);
            pad(&mut bytes, total);
        }
        bytes
    }

    /// The message's bytes, and behind them zeros until they are `total`: how the size of a path is asked for. `None` where that is
    /// too few for them, and for an answer, or more than one field holds.
    pub fn to_vec_of(&self, total: usize) -> Option<Vec<u8>> {
        let mut bytes = self.to_vec();
        let zeros = total.checked_sub(bytes.len() + FIELD_HEADER_BYTES)?;
        if total < self.answer_bytes_max() || zeros > usize::from(u16::MAX) {
            return None;
        }
        pad(&mut bytes, total);
        Some(bytes)
    }
}

/// Appends a field of zeros, so that there are `total` bytes: at least as many more as its header has.
fn pad(bytes: &mut Vec<u8>, total: usize) {
    let zeros = total - bytes.len() - FIELD_HEADER_BYTES;
    bytes.push(tag::PADDING);
    bytes.extend_from_slice(&u16::try_from(zeros).expect("paddings are below 64 KiB").to_be_bytes());
    bytes.resize(total, 0);
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use bytes::Bytes;

    use super::*;
    use crate::message::{CloseReason, PeerRecord, RefusedReason, Target};
    use crate::route::Slot;

    const IP4_MAX: Ipv4Addr = Ipv4Addr::BROADCAST;
    const SLOT_MAX: Slot = Slot { index: u32::MAX, generation: u16::MAX };

    fn requests() -> Vec<Message> {
        let name = "n".repeat(NAME_BYTES_MAX);
        let register = |name: &str, ticket: &'static [u8]| Message::Register {
            request: 1,
            boot: 1,
            ip4: IP4_MAX,
            name: name.to_owned(),
            ticket: Bytes::from_static(ticket),
        };
        vec![
            register("", b""),
            register(&name, &[0; TICKET_BYTES_MAX]),
            Message::Keepalive { seq: 1, change: 1 },
            Message::Lookup { request: 1, target: Target::Address(IP4_MAX) },
            Message::Lookup { request: 1, target: Target::Slot(SLOT_MAX) },
            Message::Identity { ip4: IP4_MAX, boot: 1 },
            Message::Probe { seq: 1 },
            Message::PathProbe { seq: 1, sent: 1 },
            Message::SizeProbe { seq: 1 },
            Message::SearchRequest { request: 1, target: Target::Address(IP4_MAX) },
            Message::SearchBegin { request: 1, endpoint: SocketAddr::from((IP4_MAX, 1)) },
        ]
    }

    /// The longest of each answer to a request.
    fn longest_answers(request: &Message) -> Vec<Message> {
        let observed = SocketAddr::from(([0xffff; 8], u16::MAX));
        let peer = PeerRecord {
            ip4: IP4_MAX,
            key: [1; 32],
            slot: SLOT_MAX,
            boot: u64::MAX,
            name: "n".repeat(NAME_BYTES_MAX),
            observed: Some(observed),
        };
        match request {
            Message::Register { .. } => vec![
                Message::Registered {
                    request: 1,
                    slot: SLOT_MAX,
                    observed,
                    boot: 1,
                    lease_seconds: 1,
                    change: 1,
                    ticket: Bytes::from_static(&[0; TICKET_BYTES_MAX]),
                    other_port: Some(1),
                },
                Message::Refused { request: 1, reason: RefusedReason::Full, ip4: IP4_MAX },
            ],
            Message::Keepalive { .. } => vec![Message::KeepaliveAck { seq: 1, observed, boot: 1, change: 1 }],
            Message::Lookup { .. } => vec![
                Message::Found { request: 1, change: 1, peer },
                Message::NotFound { request: 1, target: Target::Slot(SLOT_MAX) },
                Message::NotFound { request: 1, target: Target::Address(IP4_MAX) },
            ],
            Message::Identity { .. } => {
                vec![Message::Confirm { ip4: IP4_MAX }, Message::Close { reason: CloseReason::Impostor }]
            }
            Message::Probe { .. } => vec![Message::ProbeReply { seq: 1 }],
            Message::PathProbe { .. } => vec![Message::PathReply { seq: 1, received: 1, observed }],
            Message::SizeProbe { .. } => vec![Message::SizeReply { seq: 1, bytes: u16::MAX }],
            Message::SearchRequest { .. } => vec![
                Message::SearchGrant { request: 1, target: observed, seconds: 1 },
                Message::SearchRefused { request: 1, wait_seconds: 1 },
            ],
            Message::SearchBegin { .. } => vec![Message::SearchReady { request: 1, sockets: 1 }],
            Message::Hello { .. }
            | Message::Welcome { .. }
            | Message::Registered { .. }
            | Message::Refused { .. }
            | Message::KeepaliveAck { .. }
            | Message::Found { .. }
            | Message::NotFound { .. }
            | Message::Change { .. }
            | Message::Goodbye
            | Message::Confirm { .. }
            | Message::ProbeReply { .. }
            | Message::Close { .. }
            | Message::Candidates { .. }
            | Message::Presence { .. }
            | Message::PathReply { .. }
            | Message::SizeReply { .. }
            | Message::SearchGrant { .. }
            | Message::SearchRefused { .. }
            | Message::SearchReady { .. } => panic!("not a request: {request:?}"),
        }
    }

    #[test]
    fn no_answer_is_longer_than_its_padded_request() {
        for request in requests() {
            let padded = request.to_padded_vec();
            let longest = longest_answers(&request).iter().map(|answer| answer.to_vec().len()).max().unwrap();
            assert_eq!(longest, request.answer_bytes_max(), "the widths are those of {request:?}");
            assert!(padded.len() >= longest, "{request:?}");
            assert!(padded.len() <= request.to_vec().len().max(longest + FIELD_HEADER_BYTES - 1), "{request:?}");
        }
    }

    #[test]
    fn padding_is_skipped_by_readers() {
        for request in requests() {
            assert_eq!(Message::decode(&request.to_padded_vec()), Ok(Some(request)));
        }
    }

    #[test]
    fn probes_of_a_size_are_exactly_as_long_as_asked() {
        let probe = Message::SizeProbe { seq: 7 };
        for total in [13, 14, 100, 1428, 8928, 65_000] {
            let bytes = probe.to_vec_of(total).unwrap();
            assert_eq!(bytes.len(), total);
            assert_eq!(Message::decode(&bytes), Ok(Some(probe.clone())), "{total}");
        }
        for total in [0, 8, 10, 12, 70_000] {
            assert_eq!(probe.to_vec_of(total), None, "{total}");
        }
    }

    #[test]
    fn what_is_no_request_is_not_padded() {
        for request in requests() {
            for answer in longest_answers(&request) {
                assert_eq!(answer.to_padded_vec(), answer.to_vec());
            }
        }
        assert_eq!(Message::Goodbye.to_padded_vec(), Message::Goodbye.to_vec());
    }
}
