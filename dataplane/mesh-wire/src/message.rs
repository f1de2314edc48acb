//! Messages: the payloads of handshakes and the plaintext of control frames.
//!
//! ```text
//! +--------+--------------------------------------------+
//! |  kind  |  fields, each: tag (8), length (16), value |
//! +--------+--------------------------------------------+
//! ```
//!
//! A reader skips tags it does not know, so fields can be added; of a tag that is there twice the first counts. Tag 0 holds
//! nothing but zeros: requests are [padded](Message::to_padded_vec) with it, so that no answer is longer than its request.

mod padding;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{BufMut, Bytes};

use crate::Malformed;
use crate::read::{array, u8_at, u16_at, u32_at, u64_at};
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
        /// The one cipher chosen.
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
}

/// Numbers of the fields; one meaning and one width each, whatever the message.
mod tag {
    /// Zeros, to be skipped.
    pub(super) const PADDING: u8 = 0;
    pub(super) const REQUEST: u8 = 1;
    pub(super) const BOOT: u8 = 2;
    pub(super) const IP4: u8 = 3;
    pub(super) const KEY: u8 = 4;
    pub(super) const SLOT: u8 = 5;
    pub(super) const ENDPOINT: u8 = 6;
    pub(super) const NAME: u8 = 7;
    pub(super) const FEATURES: u8 = 8;
    pub(super) const TICKET: u8 = 9;
    pub(super) const REASON: u8 = 10;
    pub(super) const CHANGE: u8 = 11;
    pub(super) const LEASE_SECONDS: u8 = 12;
    pub(super) const CIPHERS: u8 = 13;
    pub(super) const SEQ: u8 = 14;
    pub(super) const NUMBER: u8 = 15;
    /// One past the highest.
    pub(super) const END: usize = 16;
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
            Self::Registered { request, slot, observed, boot, lease_seconds, change, ticket } => {
                w.kind(kind::REGISTERED).number(tag::REQUEST, *request).slot(*slot).endpoint(*observed).boot(*boot);
                w.put(tag::LEASE_SECONDS, &lease_seconds.to_be_bytes()).number(tag::CHANGE, *change);
                w.put_some(tag::TICKET, ticket);
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
                lease_seconds: u16_at(f.exactly(tag::LEASE_SECONDS, 2)?, 0)?,
                change: f.number(tag::CHANGE)?,
                ticket: f.ticket()?,
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
            _ => return Ok(None),
        }))
    }
}

/// Appends a kind and fields.
struct Writer<'a, B: BufMut> {
    out: &'a mut B,
}

impl<B: BufMut> Writer<'_, B> {
    fn kind(&mut self, kind: u8) -> &mut Self {
        self.out.put_u8(kind);
        self
    }

    fn put(&mut self, tag: u8, value: &[u8]) -> &mut Self {
        self.out.put_u8(tag);
        self.out.put_u16(u16::try_from(value.len()).expect("fields are far below 64 KiB"));
        self.out.put_slice(value);
        self
    }

    /// Leaves an empty field out.
    fn put_some(&mut self, tag: u8, value: &[u8]) -> &mut Self {
        if value.is_empty() { self } else { self.put(tag, value) }
    }

    fn number(&mut self, tag: u8, value: u32) -> &mut Self {
        self.put(tag, &value.to_be_bytes())
    }

    fn boot(&mut self, value: u64) -> &mut Self {
        self.put(tag::BOOT, &value.to_be_bytes())
    }

    fn ip4(&mut self, value: Ipv4Addr) -> &mut Self {
        self.put(tag::IP4, &value.octets())
    }

    fn slot(&mut self, slot: Slot) -> &mut Self {
        let [a, b, c, d] = slot.index.to_be_bytes();
        let [e, f] = slot.generation.to_be_bytes();
        self.put(tag::SLOT, &[a, b, c, d, e, f])
    }

    fn endpoint(&mut self, endpoint: SocketAddr) -> &mut Self {
        let mut value = [0; 18];
        let address = match endpoint.ip() {
            IpAddr::V4(ip) => {
                value[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                value[..16].copy_from_slice(&ip.octets());
                16
            }
        };
        value[address..address + 2].copy_from_slice(&endpoint.port().to_be_bytes());
        self.put(tag::ENDPOINT, &value[..address + 2])
    }

    fn target(&mut self, target: Target) -> &mut Self {
        match target {
            Target::Address(ip4) => self.ip4(ip4),
            Target::Slot(slot) => self.slot(slot),
        }
    }

    fn peer(&mut self, peer: &PeerRecord) -> &mut Self {
        self.ip4(peer.ip4).put(tag::KEY, &peer.key).slot(peer.slot).boot(peer.boot);
        self.put_some(tag::NAME, peer.name.as_bytes())
    }
}

/// The fields of one message by tag.
struct Fields<'a> {
    by_tag: [Option<&'a [u8]>; tag::END],
}

impl<'a> Fields<'a> {
    fn parse(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut by_tag = [None; tag::END];
        while !bytes.is_empty() {
            let tag = usize::from(u8_at(bytes, 0)?);
            let end = 3 + usize::from(u16_at(bytes, 1)?);
            let value = bytes.get(3..end).ok_or(Malformed::TooShort)?;
            if let Some(field) = by_tag.get_mut(tag) {
                field.get_or_insert(value);
            }
            bytes = &bytes[end..];
        }
        Ok(Self { by_tag })
    }

    fn has(&self, tag: u8) -> bool {
        self.by_tag[usize::from(tag)].is_some()
    }

    fn get(&self, tag: u8) -> Result<&'a [u8], Malformed> {
        self.by_tag[usize::from(tag)].ok_or(Malformed::MissingField)
    }

    fn exactly(&self, tag: u8, bytes: usize) -> Result<&'a [u8], Malformed> {
        let value = self.get(tag)?;
        if value.len() == bytes { Ok(value) } else { Err(Malformed::BadField) }
    }

    fn at_most(&self, tag: u8, bytes: usize) -> Result<&'a [u8], Malformed> {
        let value = self.by_tag[usize::from(tag)].unwrap_or_default();
        if value.len() <= bytes { Ok(value) } else { Err(Malformed::TooLong) }
    }

    fn byte(&self, tag: u8) -> Result<u8, Malformed> {
        u8_at(self.exactly(tag, 1)?, 0)
    }

    fn number(&self, tag: u8) -> Result<u32, Malformed> {
        u32_at(self.exactly(tag, 4)?, 0)
    }

    fn boot(&self) -> Result<u64, Malformed> {
        u64_at(self.exactly(tag::BOOT, 8)?, 0)
    }

    fn ip4(&self) -> Result<Ipv4Addr, Malformed> {
        array::<4>(self.exactly(tag::IP4, 4)?, 0).map(Ipv4Addr::from)
    }

    fn slot(&self) -> Result<Slot, Malformed> {
        let value = self.exactly(tag::SLOT, 6)?;
        Ok(Slot { index: u32_at(value, 0)?, generation: u16_at(value, 4)? })
    }

    fn endpoint(&self) -> Result<SocketAddr, Malformed> {
        let value = self.get(tag::ENDPOINT)?;
        let ip: IpAddr = match value.len() {
            6 => array::<4>(value, 0)?.into(),
            18 => array::<16>(value, 0)?.into(),
            _ => return Err(Malformed::BadField),
        };
        Ok(SocketAddr::new(ip, u16_at(value, value.len() - 2)?))
    }

    /// Of a lookup: an address, else a slot.
    fn target(&self) -> Result<Target, Malformed> {
        if self.has(tag::IP4) { self.ip4().map(Target::Address) } else { self.slot().map(Target::Slot) }
    }

    fn name(&self) -> Result<String, Malformed> {
        let value = self.at_most(tag::NAME, NAME_BYTES_MAX)?;
        let name = std::str::from_utf8(value).map_err(|_| Malformed::BadField)?;
        // It ends up in tables on terminals.
        if name.chars().any(char::is_control) { Err(Malformed::BadField) } else { Ok(name.to_owned()) }
    }

    fn ticket(&self) -> Result<Bytes, Malformed> {
        self.at_most(tag::TICKET, TICKET_BYTES_MAX).map(Bytes::copy_from_slice)
    }

    fn peer(&self) -> Result<PeerRecord, Malformed> {
        Ok(PeerRecord {
            ip4: self.ip4()?,
            key: array(self.exactly(tag::KEY, 32)?, 0)?,
            slot: self.slot()?,
            boot: self.boot()?,
            name: self.name()?,
        })
    }
}
