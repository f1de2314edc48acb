//! Fields of messages: how they are written, and how they are found again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{BufMut, Bytes};

use super::{NAME_BYTES_MAX, PeerRecord, TICKET_BYTES_MAX, Target};
use crate::Malformed;
use crate::read::{array, u8_at, u16_at, u32_at, u64_at};
use crate::route::Slot;

/// Numbers of the fields; one meaning and one width each, whatever the message.
pub(super) mod tag {
    /// Zeros, to be skipped.
    pub(in crate::message) const PADDING: u8 = 0;
    pub(in crate::message) const REQUEST: u8 = 1;
    pub(in crate::message) const BOOT: u8 = 2;
    pub(in crate::message) const IP4: u8 = 3;
    pub(in crate::message) const KEY: u8 = 4;
    pub(in crate::message) const SLOT: u8 = 5;
    pub(in crate::message) const ENDPOINT: u8 = 6;
    pub(in crate::message) const NAME: u8 = 7;
    pub(in crate::message) const FEATURES: u8 = 8;
    pub(in crate::message) const TICKET: u8 = 9;
    pub(in crate::message) const REASON: u8 = 10;
    pub(in crate::message) const CHANGE: u8 = 11;
    pub(in crate::message) const LEASE_SECONDS: u8 = 12;
    pub(in crate::message) const CIPHERS: u8 = 13;
    pub(in crate::message) const SEQ: u8 = 14;
    pub(in crate::message) const NUMBER: u8 = 15;
    pub(in crate::message) const ACKNOWLEDGED: u8 = 16;
    pub(in crate::message) const MAPPING: u8 = 17;
    pub(in crate::message) const CANDIDATES: u8 = 18;
    pub(in crate::message) const COUNT: u8 = 19;
    pub(in crate::message) const BYTES: u8 = 20;
    pub(in crate::message) const PORT: u8 = 30;
    /// One past the highest.
    pub(super) const END: usize = 31;
}

/// Appends a kind and fields.
pub(super) struct Writer<'a, B: BufMut> {
    pub(super) out: &'a mut B,
}

impl<B: BufMut> Writer<'_, B> {
    pub(super) fn kind(&mut self, kind: u8) -> &mut Self {
        self.out.put_u8(kind);
        self
    }

    pub(super) fn put(&mut self, tag: u8, value: &[u8]) -> &mut Self {
        self.out.put_u8(tag);
        self.out.put_u16(u16::try_from(value.len()).expect("fields are far below 64 KiB"));
        self.out.put_slice(value);
        self
    }

    /// Leaves an empty field out.
    pub(super) fn put_some(&mut self, tag: u8, value: &[u8]) -> &mut Self {
        if value.is_empty() { self } else { self.put(tag, value) }
    }

    pub(super) fn number(&mut self, tag: u8, value: u32) -> &mut Self {
        self.put(tag, &value.to_be_bytes())
    }

    pub(super) fn boot(&mut self, value: u64) -> &mut Self {
        self.put(tag::BOOT, &value.to_be_bytes())
    }

    pub(super) fn ip4(&mut self, value: Ipv4Addr) -> &mut Self {
        self.put(tag::IP4, &value.octets())
    }

    pub(super) fn slot(&mut self, slot: Slot) -> &mut Self {
        let [a, b, c, d] = slot.index.to_be_bytes();
        let [e, f] = slot.generation.to_be_bytes();
        self.put(tag::SLOT, &[a, b, c, d, e, f])
    }

    pub(super) fn endpoint(&mut self, endpoint: SocketAddr) -> &mut Self {
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

    pub(super) fn target(&mut self, target: Target) -> &mut Self {
        match target {
            Target::Address(ip4) => self.ip4(ip4),
            Target::Slot(slot) => self.slot(slot),
        }
    }

    pub(super) fn peer(&mut self, peer: &PeerRecord) -> &mut Self {
        self.ip4(peer.ip4).put(tag::KEY, &peer.key).slot(peer.slot).boot(peer.boot);
        self.put_some(tag::NAME, peer.name.as_bytes());
        if let Some(observed) = peer.observed {
            self.endpoint(observed);
        }
        self
    }
}

/// The fields of one message by tag.
pub(super) struct Fields<'a> {
    by_tag: [Option<&'a [u8]>; tag::END],
}

impl<'a> Fields<'a> {
    pub(super) fn parse(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
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

    pub(super) fn has(&self, tag: u8) -> bool {
        self.by_tag[usize::from(tag)].is_some()
    }

    pub(super) fn get(&self, tag: u8) -> Result<&'a [u8], Malformed> {
        self.by_tag[usize::from(tag)].ok_or(Malformed::MissingField)
    }

    pub(super) fn exactly(&self, tag: u8, bytes: usize) -> Result<&'a [u8], Malformed> {
        let value = self.get(tag)?;
        if value.len() == bytes { Ok(value) } else { Err(Malformed::BadField) }
    }

    pub(super) fn at_most(&self, tag: u8, bytes: usize) -> Result<&'a [u8], Malformed> {
        let value = self.by_tag[usize::from(tag)].unwrap_or_default();
        if value.len() <= bytes { Ok(value) } else { Err(Malformed::TooLong) }
    }

    pub(super) fn byte(&self, tag: u8) -> Result<u8, Malformed> {
        u8_at(self.exactly(tag, 1)?, 0)
    }

    pub(super) fn number(&self, tag: u8) -> Result<u32, Malformed> {
        u32_at(self.exactly(tag, 4)?, 0)
    }

    pub(super) fn seconds(&self) -> Result<u16, Malformed> {
        u16_at(self.exactly(tag::LEASE_SECONDS, 2)?, 0)
    }

    pub(super) fn bytes(&self) -> Result<u16, Malformed> {
        u16_at(self.exactly(tag::BYTES, 2)?, 0)
    }

    /// A port, where there is one.
    pub(super) fn port(&self) -> Result<Option<u16>, Malformed> {
        if self.has(tag::PORT) { u16_at(self.exactly(tag::PORT, 2)?, 0).map(Some) } else { Ok(None) }
    }

    pub(super) fn boot(&self) -> Result<u64, Malformed> {
        u64_at(self.exactly(tag::BOOT, 8)?, 0)
    }

    pub(super) fn ip4(&self) -> Result<Ipv4Addr, Malformed> {
        array::<4>(self.exactly(tag::IP4, 4)?, 0).map(Ipv4Addr::from)
    }

    pub(super) fn key(&self) -> Result<[u8; 32], Malformed> {
        array(self.exactly(tag::KEY, 32)?, 0)
    }

    pub(super) fn slot(&self) -> Result<Slot, Malformed> {
        let value = self.exactly(tag::SLOT, 6)?;
        Ok(Slot { index: u32_at(value, 0)?, generation: u16_at(value, 4)? })
    }

    pub(super) fn endpoint(&self) -> Result<SocketAddr, Malformed> {
        let value = self.get(tag::ENDPOINT)?;
        let ip: IpAddr = match value.len() {
            6 => array::<4>(value, 0)?.into(),
            18 => array::<16>(value, 0)?.into(),
            _ => return Err(Malformed::BadField),
        };
        Ok(SocketAddr::new(ip, u16_at(value, value.len() - 2)?))
    }

    /// Of a lookup: an address, else a slot.
    pub(super) fn target(&self) -> Result<Target, Malformed> {
        if self.has(tag::IP4) { self.ip4().map(Target::Address) } else { self.slot().map(Target::Slot) }
    }

    pub(super) fn name(&self) -> Result<String, Malformed> {
        let value = self.at_most(tag::NAME, NAME_BYTES_MAX)?;
        let name = std::str::from_utf8(value).map_err(|_| Malformed::BadField)?;
        // It ends up in tables on terminals.
        if name.chars().any(char::is_control) { Err(Malformed::BadField) } else { Ok(name.to_owned()) }
    }

    pub(super) fn ticket(&self) -> Result<Bytes, Malformed> {
        self.at_most(tag::TICKET, TICKET_BYTES_MAX).map(Bytes::copy_from_slice)
    }

    pub(super) fn peer(&self) -> Result<PeerRecord, Malformed> {
        Ok(PeerRecord {
            ip4: self.ip4()?,
            key: self.key()?,
            slot: self.slot()?,
            boot: self.boot()?,
            name: self.name()?,
            observed: if self.has(tag::ENDPOINT) { Some(self.endpoint()?) } else { None },
        })
    }
}
