//! Packets sealed and opened in place.
//!
//! The nonce is four zero bytes and the packet's 64-bit counter, so a counter must never be used twice under one sealing key:
//! [`super::keyring::Established::reserve`] hands out each one once. The header that carries the counter is the associated
//! data.

use ring::hkdf;
use zeroize::Zeroizing;

use super::cipher::Cipher;
use super::library::{Key, NONCE_BYTES};

/// Bytes a tag adds to a packet, for both ciphers.
pub const TAG_BYTES: usize = 16;

/// Separates the keys of packets from every other use of a handshake's secrets.
const PACKET_KEY_SALT: &[u8] = b"EasyMesh/2 packet key";

/// Why a packet could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenError {
    /// Shorter than a tag.
    TooShort,
    /// Not sealed with this key, or changed on the way. The bytes are unusable now.
    Forged,
}

/// A key for sending, expanded. Wiped when dropped.
pub struct SealingKey(Key);

impl SealingKey {
    /// Expands `key` for `cipher`.
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        Self(Key::new(cipher, key))
    }

    /// Encrypts `body` in place and returns the tag that belongs behind it. `header` is authenticated and stays readable.
    pub fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        self.0.seal(nonce(counter), header, body)
    }
}

/// A key for receiving, expanded. Wiped when dropped.
pub struct OpeningKey(Key);

impl OpeningKey {
    /// Expands `key` for `cipher`.
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        Self(Key::new(cipher, key))
    }

    /// Decrypts in place; `body_and_tag` is the ciphertext followed by its tag. Returns the length of the plaintext, which
    /// then is the start of `body_and_tag`.
    ///
    /// This says nothing about replays: see [`super::replay`].
    pub fn open(&self, counter: u64, header: &[u8], body_and_tag: &mut [u8]) -> Result<usize, OpenError> {
        if body_and_tag.len() < TAG_BYTES {
            return Err(OpenError::TooShort);
        }
        self.0.open(nonce(counter), header, body_and_tag).ok_or(OpenError::Forged)
    }
}

/// The two keys of a session as they were derived, 64 bytes, from which the expanded ones, half a kilobyte each, are made when
/// they are needed. Whoever holds many quiet sessions keeps these. Wiped when dropped.
pub struct RawKeys {
    cipher: Cipher,
    sealing: Zeroizing<[u8; 32]>,
    opening: Zeroizing<[u8; 32]>,
}

impl RawKeys {
    /// Derives the packet keys from the two secrets of a handshake: what we send with, and what we receive with.
    pub(super) fn derive(cipher: Cipher, sealing: &[u8; 32], opening: &[u8; 32]) -> Self {
        Self { cipher, sealing: packet_key(cipher, sealing), opening: packet_key(cipher, opening) }
    }

    /// The same keys elsewhere: here they are wiped. A value that is moved leaves its bytes behind, in memory that may live long.
    pub fn take(&mut self) -> Self {
        let none = || Zeroizing::new([0; 32]);
        let empty = Self { cipher: self.cipher, sealing: none(), opening: none() };
        std::mem::replace(self, empty)
    }

    /// The cipher these keys are for.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Expands the key for sending.
    pub fn sealing_key(&self) -> SealingKey {
        SealingKey::new(self.cipher, &self.sealing)
    }

    /// Expands the key for receiving.
    pub fn opening_key(&self) -> OpeningKey {
        OpeningKey::new(self.cipher, &self.opening)
    }

    /// [`SealingKey::seal`] with a key expanded for this one packet.
    pub fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        self.sealing_key().seal(counter, header, body)
    }

    /// [`OpeningKey::open`] with a key expanded for this one packet.
    pub fn open(&self, counter: u64, header: &[u8], body_and_tag: &mut [u8]) -> Result<usize, OpenError> {
        self.opening_key().open(counter, header, body_and_tag)
    }
}

opaque_debug!(SealingKey, OpeningKey, RawKeys);

/// The nonce of a counter: four zero bytes, then the counter, most significant byte first.
fn nonce(counter: u64) -> [u8; NONCE_BYTES] {
    let mut bytes = [0; NONCE_BYTES];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    bytes
}

fn packet_key(cipher: Cipher, secret: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, PACKET_KEY_SALT)
        .extract(secret)
        .expand(&[cipher.name().as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *key))
        .expect("32 bytes are within the limit of HKDF");
    key
}

#[cfg(test)]
mod tests;
