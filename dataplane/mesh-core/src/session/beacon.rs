//! Beacons sealed and opened: only those who have the namespace's token can make or read one.

use mesh_wire::TAG_BYTES;
use mesh_wire::beacon::{BEACON_HEADER_BYTES, Beacon};

use super::aead::{OpenError, OpeningKey, SealingKey};
use super::cipher::Cipher;
use super::token::NamespaceKeys;

/// Every gateway must be able to read every beacon, whatever ciphers it likes best.
const CIPHER: Cipher = Cipher::ChaCha20Poly1305;

/// Makes the beacons of one start.
pub struct Sealer {
    sender: [u8; 16],
    counter: u64,
    key: SealingKey,
}

impl Sealer {
    /// For the start that is called `sender`, 16 random bytes that no other start has.
    pub fn new(keys: &NamespaceKeys, sender: [u8; 16]) -> Self {
        Self { sender, counter: 0, key: SealingKey::new(CIPHER, &keys.beacon(&sender)) }
    }

    /// The start's name.
    pub fn sender(&self) -> &[u8; 16] {
        &self.sender
    }

    /// The next beacon, with `message` in it.
    pub fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let header = Beacon::header(&self.sender, self.counter);
        let mut bytes = Vec::with_capacity(BEACON_HEADER_BYTES + message.len() + TAG_BYTES);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(message);
        let tag = self.key.seal(self.counter, &header, &mut bytes[BEACON_HEADER_BYTES..]);
        bytes.extend_from_slice(&tag);
        bytes
    }
}

opaque_debug!(Sealer);

/// Opens a beacon: the message in it.
///
/// # Errors
/// It was not made with the namespace's token, or changed on the way.
pub fn open(keys: &NamespaceKeys, beacon: &Beacon<'_>) -> Result<Vec<u8>, OpenError> {
    let mut body = beacon.sealed.to_vec();
    let header = Beacon::header(&beacon.sender, beacon.counter);
    let bytes = OpeningKey::new(CIPHER, &keys.beacon(&beacon.sender)).open(beacon.counter, &header, &mut body)?;
    body.truncate(bytes);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use mesh_wire::beacon::Beacon;

    use super::{Sealer, open};
    use crate::session::token::{NamespaceKeys, StretchedToken};

    fn keys(token: u8, namespace: u16) -> NamespaceKeys {
        NamespaceKeys::derive(&StretchedToken::from_bytes([token; 32]), namespace, None)
    }

    #[test]
    fn members_of_the_namespace_alone_can_read_a_beacon() {
        let mut sealer = Sealer::new(&keys(1, 8000), [7; 16]);
        let (first, second) = (sealer.seal(b"here"), sealer.seal(b"here"));
        assert_ne!(first[26..], second[26..], "each has its own nonce");
        let beacon = Beacon::parse(&second).unwrap();
        assert_eq!((beacon.sender, beacon.counter), ([7; 16], 2));
        assert_eq!(open(&keys(1, 8000), &beacon).unwrap(), b"here");
        assert!(open(&keys(2, 8000), &beacon).is_err(), "another token");
        assert!(open(&keys(1, 8001), &beacon).is_err(), "another namespace");
        assert!(!second.windows(4).any(|bytes| bytes == b"here"));
        for at in 2..second.len() {
            let mut changed = second.clone();
            changed[at] ^= 1;
            assert!(open(&keys(1, 8000), &Beacon::parse(&changed).unwrap()).is_err(), "byte {at}");
        }
    }
}
