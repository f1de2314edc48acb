//! Messages: the payloads of handshakes and the plaintext of control frames.
//!
//! ```text
//! +--------+--------------------------------------------+
//! |  kind  |  fields, each: tag (8), length (16), value |
//! +--------+--------------------------------------------+
//! ```
//!
//! A reader skips tags it does not know, so fields can be added; of a tag that is there twice the first counts. Tag 0 holds
//! nothing but zeros: requests are [padded](Message::to_padded_vec) with it, so that no answer is longer than its request, and
//! probes of a path's size are as long as what they ask for.

mod candidate;
mod fields;
mod padding;

use std::net::{Ipv4Addr, SocketAddr};

use bytes::{BufMut, Bytes};

pub use self::candidate::{CANDIDATES_MAX, Candidate, CandidateKind, Mapping};

use self::fields::{Fields, Writer, tag};
use crate::Malformed;
use crate::read::{u8_at, u16_at, u64_at};
use crate::route::Slot;

/// Longest name of a gateway, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest ticket, in bytes.
pub const TICKET_BYTES_MAX: usize = 128;

/// A gateway's X25519 static public key.
pub type PublicKey = [u8; 32];

/// Why a registration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefusedReason {
    /// Another key holds the virtual address.
    AddressTaken = 1,
    /// Another live start registered with the same key: a cloned machine.
    KeyInUse = 2,
    /// The namespace is full.
    Full = 3,
    /// Not an address that can be held.
    BadAddress = 4,
}

/// Why a peer closes a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// The gateway stops.
    Stopping = 1,
    /// The session was idle.
    Idle = 2,
    /// The key does not match the address it claims.
    Impostor = 3,
}

/// What a lookup asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The holder of a virtual address.
    Address(Ipv4Addr),
    /// The holder of a slot.
    Slot(Slot),
}

/// What a transfer vouches for: this key holds this virtual address, in this slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Virtual address.
    pub ip4: Ipv4Addr,
    /// Static key.
    pub key: PublicKey,
    /// Where the transfer forwards to it.
    pub slot: Slot,
    /// Random number of the peer's start: another one means its sessions are gone.
    pub boot: u64,
    /// Its name; may be empty.
    pub name: String,
    /// Where the transfer sees it now; `None` where that leads nowhere else, as for one that came over TCP.
    pub observed: Option<SocketAddr>,
}

/// All messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Payload of a handshake init: what the initiator can do.
    Hello {
        /// Ciphers offered, a bit each: 1 AES-256-GCM, 2 ChaCha20-Poly1305.
        ciphers: u8,
        /// Features offered, a bit each.
        features: u32,
        /// Random number of the initiator's start.
        boot: u64,
        /// Counts the handshakes of that start, from 1: of two, the one with the lower number is the older, and may be a
        /// recording.
        number: u64,
    },
    /// Payload of a handshake response: what is used.
    Welcome {
        /// The one cipher chosen; 0: there is none in common, and the handshake ends here.
        cipher: u8,
        /// Features both sides have.
        features: u32,
    },
    /// A gateway asks to hold a virtual address.
    Register {
        /// Echoed in the answer.
        request: u32,
        /// Random number of this start.
        boot: u64,
        /// The address.
        ip4: Ipv4Addr,
        /// Name for people; may be empty.
        name: String,
        /// Sealed proof of an earlier lease; may be empty.
        ticket: Bytes,
    },
    /// The address is held.
    Registered {
        /// From the request.
        request: u32,
        /// Source slot for what the gateway sends.
        slot: Slot,
        /// Where the transfer sees the gateway.
        observed: SocketAddr,
        /// Random number of the transfer's start.
        boot: u64,
        /// The lease ends this many seconds after the gateway's last word.
        lease_seconds: u16,
        /// Number of the last [`Message::Change`] sent to this gateway.
        change: u32,
        /// Proof of this lease, to be shown after the transfer was restarted.
        ticket: Bytes,
        /// Another port of the transfer, which can be asked where it sees the gateway: see [`crate::observe`].
        other_port: Option<u16>,
    },
    /// The address is not held.
    Refused {
        /// From the request.
        request: u32,
        /// Why.
        reason: RefusedReason,
        /// The address.
        ip4: Ipv4Addr,
    },
    /// "I am here."
    Keepalive {
        /// Echoed in the answer.
        seq: u32,
        /// Number of the last change that was applied.
        change: u32,
    },
    /// Answer to a keepalive.
    KeepaliveAck {
        /// From the keepalive.
        seq: u32,
        /// Where the transfer sees the gateway.
        observed: SocketAddr,
        /// Random number of the transfer's start.
        boot: u64,
        /// Number of the last change sent.
        change: u32,
    },
    /// Who is it? Also subscribes to changes of that peer for a term.
    Lookup {
        /// Echoed in the answer.
        request: u32,
        /// Whom.
        target: Target,
    },
    /// Answer to a lookup.
    Found {
        /// From the lookup.
        request: u32,
        /// Number of the last [`Message::Change`] sent before: one with a higher number is newer.
        change: u32,
        /// Who it is.
        peer: PeerRecord,
    },
    /// Answer to a lookup: nobody.
    NotFound {
        /// From the lookup.
        request: u32,
        /// Whom was asked for.
        target: Target,
    },
    /// A peer that was looked up has changed.
    Change {
        /// Counts the changes sent to one gateway, from 1.
        number: u32,
        /// The virtual address.
        ip4: Ipv4Addr,
        /// Its holder, or `None`: nobody holds it any more.
        peer: Option<PeerRecord>,
    },
    /// The gateway stops: its address is free.
    Goodbye,
    /// Payload of a final between gateways: who the initiator is.
    Identity {
        /// Its virtual address.
        ip4: Ipv4Addr,
        /// Random number of its start.
        boot: u64,
    },
    /// The responder has the keys.
    Confirm {
        /// Its virtual address.
        ip4: Ipv4Addr,
    },
    /// Are you there?
    Probe {
        /// Echoed in the answer.
        seq: u32,
    },
    /// I am.
    ProbeReply {
        /// From the probe.
        seq: u32,
    },
    /// The session ends.
    Close {
        /// Why.
        reason: CloseReason,
    },
    /// Where a peer may reach us without a relay. Repeated until its number is acknowledged.
    Candidates {
        /// Counts the lists of one start, from 1.
        number: u32,
        /// Number of the last list of the receiver's that came; 0: none.
        acknowledged: u32,
        /// How our NAT maps, as far as it is known.
        mapping: Mapping,
        /// The places, most likely ones first; at most [`CANDIDATES_MAX`].
        list: Vec<Candidate>,
    },
    /// In a beacon: who is here, and where it takes handshakes.
    Presence {
        /// Its virtual address.
        ip4: Ipv4Addr,
        /// Its static key.
        key: PublicKey,
        /// Random number of its start.
        boot: u64,
        /// The port of its socket, at the address that the beacon comes from.
        port: u16,
    },
    /// Does this path carry, in both directions? Answered on the path it came by.
    PathProbe {
        /// Echoed in the answer.
        seq: u32,
        /// Frames sent on this path before this one, as the sender counts, modulo 2^32.
        sent: u32,
    },
    /// It does.
    PathReply {
        /// From the probe.
        seq: u32,
        /// Frames received on this path, the probe included, modulo 2^32.
        received: u32,
        /// Where the probe came from, as its receiver saw it.
        observed: SocketAddr,
    },
    /// Does a datagram of this length pass? The one message that may be longer than [`crate::CONTROL_BYTES_MAX`]. It is [padded](Message::to_vec_of) to the length that is asked for, and answered on the
    /// path it came by. Whoever does not know it does not answer, and is sent what every path is taken to carry.
    SizeProbe {
        /// Echoed in the answer.
        seq: u32,
    },
    /// It does.
    SizeReply {
        /// From the probe.
        seq: u32,
        /// Length of the datagram that the probe came as: what UDP carried, from the sealed frame's header to its tag.
        bytes: u16,
    },
    /// A gateway asks the transfer for leave to search for a peer behind a NAT that maps by destination: to send to ports of
    /// its public address that nobody has named.
    SearchRequest {
        /// Echoed in the answer.
        request: u32,
        /// For whom.
        target: Target,
    },
    /// It may.
    SearchGrant {
        /// From the request.
        request: u32,
        /// Where the transfer sees the peer at this moment: the address to search at, and a port that its NAT gave it.
        target: SocketAddr,
        /// For so long, in seconds.
        seconds: u16,
    },
    /// It may not.
    SearchRefused {
        /// From the request.
        request: u32,
        /// It may ask again after so many seconds.
        wait_seconds: u16,
    },
    /// A gateway that may search tells the peer, which is to open many ports of its NAT towards it.
    SearchBegin {
        /// Names the attempt.
        request: u32,
        /// Where the sender is seen from outside, whoever sees it.
        endpoint: SocketAddr,
    },
    /// The peer's answer.
    SearchReady {
        /// From the question.
        request: u32,
        /// Sockets that it opens; 0: it takes no part.
        sockets: u32,
    },
}

/// Numbers of the message kinds.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const REGISTER: u8 = 3;
    pub(super) const REGISTERED: u8 = 4;
    pub(super) const REFUSED: u8 = 5;
    pub(super) const KEEPALIVE: u8 = 6;
    pub(super) const KEEPALIVE_ACK: u8 = 7;
    pub(super) const LOOKUP: u8 = 8;
    pub(super) const FOUND: u8 = 9;
    pub(super) const NOT_FOUND: u8 = 10;
    pub(super) const CHANGE: u8 = 11;
    pub(super) const GOODBYE: u8 = 12;
    pub(super) const IDENTITY: u8 = 13;
    pub(super) const CONFIRM: u8 = 14;
    pub(super) const PROBE: u8 = 15;
    pub(super) const PROBE_REPLY: u8 = 16;
    pub(super) const CLOSE: u8 = 17;
    pub(super) const CANDIDATES: u8 = 18;
    pub(super) const PATH_PROBE: u8 = 19;
    pub(super) const PATH_REPLY: u8 = 20;
    pub(super) const SIZE_PROBE: u8 = 21;
    pub(super) const SIZE_REPLY: u8 = 22;
    pub(super) const SEARCH_REQUEST: u8 = 24;
    pub(super) const SEARCH_GRANT: u8 = 25;
    pub(super) const SEARCH_REFUSED: u8 = 26;
    pub(super) const SEARCH_BEGIN: u8 = 27;
    pub(super) const SEARCH_READY: u8 = 28;
    pub(super) const PRESENCE: u8 = 30;
}

impl Message {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut w = Writer { out };
        match self {
            Self::Hello { ciphers, features, boot, number } => {
                w.kind(kind::HELLO).put(tag::CIPHERS, &[*ciphers]).put(tag::FEATURES, &features.to_be_bytes());
                w.boot(*boot).put(tag::NUMBER, &number.to_be_bytes());
            }
            Self::Welcome { cipher, features } => {
                w.kind(kind::WELCOME).put(tag::CIPHERS, &[*cipher]).put(tag::FEATURES, &features.to_be_bytes());
            }
            Self::Register { request, boot, ip4, name, ticket } => {
                w.kind(kind::REGISTER).number(tag::REQUEST, *request).boot(*boot).ip4(*ip4);
                w.put_some(tag::NAME, name.as_bytes()).put_some(tag::TICKET, ticket);
            }
            Self::Registered { request, slot, observed, boot, lease_seconds, change, ticket, other_port } => {
                w.kind(kind::REGISTERED).number(tag::REQUEST, *request).slot(*slot).endpoint(*observed).boot(*boot);
                w.put(tag::LEASE_SECONDS, &lease_seconds.to_be_bytes()).number(tag::CHANGE, *change);
                w.put_some(tag::TICKET, ticket);
                if let Some(port) = other_port {
                    w.put(tag::PORT, &port.to_be_bytes());
                }
            }
            Self::Refused { request, reason, ip4 } => {
                w.kind(kind::REFUSED).number(tag::REQUEST, *request).put(tag::REASON, &[*reason as u8]).ip4(*ip4);
            }
            Self::Keepalive { seq, change } => {
                w.kind(kind::KEEPALIVE).number(tag::SEQ, *seq).number(tag::CHANGE, *change);
            }
            Self::KeepaliveAck { seq, observed, boot, change } => {
                w.kind(kind::KEEPALIVE_ACK).number(tag::SEQ, *seq).endpoint(*observed).boot(*boot);
                w.number(tag::CHANGE, *change);
            }
            Self::Lookup { request, target } => {
                w.kind(kind::LOOKUP).number(tag::REQUEST, *request).target(*target);
            }
            Self::Found { request, change, peer } => {
                w.kind(kind::FOUND).number(tag::REQUEST, *request).number(tag::CHANGE, *change).peer(peer);
            }
            Self::NotFound { request, target } => {
                w.kind(kind::NOT_FOUND).number(tag::REQUEST, *request).target(*target);
            }
            Self::Change { number, ip4, peer } => {
                w.kind(kind::CHANGE).number(tag::CHANGE, *number);
                match peer {
                    Some(peer) => w.peer(peer),
                    None => w.ip4(*ip4),
                };
            }
            Self::Goodbye => {
                w.kind(kind::GOODBYE);
            }
            Self::Identity { ip4, boot } => {
                w.kind(kind::IDENTITY).ip4(*ip4).boot(*boot);
            }
            Self::Confirm { ip4 } => {
                w.kind(kind::CONFIRM).ip4(*ip4);
            }
            Self::Probe { seq } => {
                w.kind(kind::PROBE).number(tag::SEQ, *seq);
            }
            Self::ProbeReply { seq } => {
                w.kind(kind::PROBE_REPLY).number(tag::SEQ, *seq);
            }
            Self::Close { reason } => {
                w.kind(kind::CLOSE).put(tag::REASON, &[*reason as u8]);
            }
            Self::Candidates { number, acknowledged, mapping, list } => {
                w.kind(kind::CANDIDATES).number(tag::CHANGE, *number).number(tag::ACKNOWLEDGED, *acknowledged);
                w.put(tag::MAPPING, &[*mapping as u8]).put(tag::CANDIDATES, &candidate::encode(list));
            }
            Self::Presence { ip4, key, boot, port } => {
                w.kind(kind::PRESENCE).ip4(*ip4).put(tag::KEY, key).boot(*boot).put(tag::PORT, &port.to_be_bytes());
            }
            Self::PathProbe { seq, sent } => {
                w.kind(kind::PATH_PROBE).number(tag::SEQ, *seq).number(tag::COUNT, *sent);
            }
            Self::PathReply { seq, received, observed } => {
                w.kind(kind::PATH_REPLY).number(tag::SEQ, *seq).number(tag::COUNT, *received).endpoint(*observed);
            }
            Self::SizeProbe { seq } => {
                w.kind(kind::SIZE_PROBE).number(tag::SEQ, *seq);
            }
            Self::SizeReply { seq, bytes } => {
                w.kind(kind::SIZE_REPLY).number(tag::SEQ, *seq).put(tag::BYTES, &bytes.to_be_bytes());
            }
            Self::SearchRequest { request, target } => {
                w.kind(kind::SEARCH_REQUEST).number(tag::REQUEST, *request).target(*target);
            }
            Self::SearchGrant { request, target, seconds } => {
                w.kind(kind::SEARCH_GRANT).number(tag::REQUEST, *request).endpoint(*target);
                w.put(tag::LEASE_SECONDS, &seconds.to_be_bytes());
            }
            Self::SearchRefused { request, wait_seconds } => {
                w.kind(kind::SEARCH_REFUSED).number(tag::REQUEST, *request);
                w.put(tag::LEASE_SECONDS, &wait_seconds.to_be_bytes());
            }
            Self::SearchBegin { request, endpoint } => {
                w.kind(kind::SEARCH_BEGIN).number(tag::REQUEST, *request).endpoint(*endpoint);
            }
            Self::SearchReady { request, sockets } => {
                w.kind(kind::SEARCH_READY).number(tag::REQUEST, *request).number(tag::COUNT, *sockets);
            }
        }
    }

    /// The message's bytes, without padding.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode(&mut out);
        out
    }

    /// Reads a message; `None` for a kind that is not known (a later version's).
    ///
    /// # Errors
    /// [`Malformed`] when a field runs past the end, has the wrong width or range, or one that must be there is not.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let kind = u8_at(bytes, 0)?;
        let f = Fields::parse(&bytes[1..])?;
        Ok(Some(match kind {
            kind::HELLO => Self::Hello {
                ciphers: f.byte(tag::CIPHERS)?,
                features: f.number(tag::FEATURES)?,
                boot: f.boot()?,
                number: u64_at(f.exactly(tag::NUMBER, 8)?, 0)?,
            },
            kind::WELCOME => Self::Welcome { cipher: f.byte(tag::CIPHERS)?, features: f.number(tag::FEATURES)? },
            kind::REGISTER => Self::Register {
                request: f.number(tag::REQUEST)?,
                boot: f.boot()?,
                ip4: f.ip4()?,
                name: f.name()?,
                ticket: f.ticket()?,
            },
            kind::REGISTERED => Self::Registered {
                request: f.number(tag::REQUEST)?,
                slot: f.slot()?,
                observed: f.endpoint()?,
                boot: f.boot()?,
                lease_seconds: f.seconds()?,
                change: f.number(tag::CHANGE)?,
                ticket: f.ticket()?,
                other_port: f.port()?,
            },
            kind::REFUSED => Self::Refused {
                request: f.number(tag::REQUEST)?,
                reason: match f.byte(tag::REASON)? {
                    1 => RefusedReason::AddressTaken,
                    2 => RefusedReason::KeyInUse,
                    3 => RefusedReason::Full,
                    4 => RefusedReason::BadAddress,
                    _ => return Err(Malformed::BadField),
                },
                ip4: f.ip4()?,
            },
            kind::KEEPALIVE => Self::Keepalive { seq: f.number(tag::SEQ)?, change: f.number(tag::CHANGE)? },
            kind::KEEPALIVE_ACK => Self::KeepaliveAck {
                seq: f.number(tag::SEQ)?,
                observed: f.endpoint()?,
                boot: f.boot()?,
                change: f.number(tag::CHANGE)?,
            },
            kind::LOOKUP => Self::Lookup { request: f.number(tag::REQUEST)?, target: f.target()? },
            kind::FOUND => {
                Self::Found { request: f.number(tag::REQUEST)?, change: f.number(tag::CHANGE)?, peer: f.peer()? }
            }
            kind::NOT_FOUND => Self::NotFound { request: f.number(tag::REQUEST)?, target: f.target()? },
            kind::CHANGE => Self::Change {
                number: f.number(tag::CHANGE)?,
                ip4: f.ip4()?,
                peer: if f.has(tag::KEY) { Some(f.peer()?) } else { None },
            },
            kind::GOODBYE => Self::Goodbye,
            kind::IDENTITY => Self::Identity { ip4: f.ip4()?, boot: f.boot()? },
            kind::CONFIRM => Self::Confirm { ip4: f.ip4()? },
            kind::PROBE => Self::Probe { seq: f.number(tag::SEQ)? },
            kind::PROBE_REPLY => Self::ProbeReply { seq: f.number(tag::SEQ)? },
            kind::CLOSE => Self::Close {
                reason: match f.byte(tag::REASON)? {
                    1 => CloseReason::Stopping,
                    2 => CloseReason::Idle,
                    3 => CloseReason::Impostor,
                    _ => return Err(Malformed::BadField),
                },
            },
            kind::CANDIDATES => Self::Candidates {
                number: f.number(tag::CHANGE)?,
                acknowledged: f.number(tag::ACKNOWLEDGED)?,
                mapping: Mapping::from_byte(f.byte(tag::MAPPING)?),
                list: candidate::decode(f.get(tag::CANDIDATES)?)?,
            },
            kind::PRESENCE => Self::Presence {
                ip4: f.ip4()?,
                key: f.key()?,
                boot: f.boot()?,
                port: u16_at(f.exactly(tag::PORT, 2)?, 0)?,
            },
            kind::PATH_PROBE => Self::PathProbe { seq: f.number(tag::SEQ)?, sent: f.number(tag::COUNT)? },
            kind::PATH_REPLY => {
                Self::PathReply { seq: f.number(tag::SEQ)?, received: f.number(tag::COUNT)?, observed: f.endpoint()? }
            }
            kind::SIZE_PROBE => Self::SizeProbe { seq: f.number(tag::SEQ)? },
            kind::SIZE_REPLY => Self::SizeReply { seq: f.number(tag::SEQ)?, bytes: f.bytes()? },
            kind::SEARCH_REQUEST => Self::SearchRequest { request: f.number(tag::REQUEST)?, target: f.target()? },
            kind::SEARCH_GRANT => {
                Self::SearchGrant { request: f.number(tag::REQUEST)?, target: f.endpoint()?, seconds: f.seconds()? }
            }
            kind::SEARCH_REFUSED => {
                Self::SearchRefused { request: f.number(tag::REQUEST)?, wait_seconds: f.seconds()? }
            }
            kind::SEARCH_BEGIN => Self::SearchBegin { request: f.number(tag::REQUEST)?, endpoint: f.endpoint()? },
            kind::SEARCH_READY => {
                Self::SearchReady { request: f.number(tag::REQUEST)?, sockets: f.number(tag::COUNT)? }
            }
            _ => return Ok(None),
        }))
    }
}
