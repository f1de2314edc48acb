//! From the token that people type to the keys of each namespace.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ring::hkdf;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Edition of the salt and the cost below. What is stored stretched is stored with it.
pub const STRETCH_VERSION: u8 = 1;

/// The salt of edition 1. It is the same everywhere, because two machines share nothing but the token.
const STRETCH_SALT: &[u8] = b"EasyMesh token v1";
/// Memory of edition 1, in KiB: what the smallest routers can spare for a moment.
const STRETCH_KIB: u32 = 32 * 1024;
/// Passes of edition 1: about 100 ms on a small server.
const STRETCH_PASSES: u32 = 3;
/// Lanes of edition 1.
const STRETCH_LANES: u32 = 1;

/// A token below this many bits can be guessed by whoever recorded one handshake.
const TOKEN_BITS_WANTED: f64 = 80.0;

/// A token after Argon2id (RFC 9106): slow to guess. Wiped when dropped.
#[derive(Clone)]
pub struct StretchedToken(Zeroizing<[u8; 32]>);

impl StretchedToken {
    /// Stretches `token`, any bytes of any length. Takes about 100 ms and 32 MiB, on purpose: do it once.
    pub fn stretch(token: &[u8]) -> Self {
        let params = argon2::Params::new(STRETCH_KIB, STRETCH_PASSES, STRETCH_LANES, Some(32))
            .expect("the cost is within the limits of Argon2");
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut stretched = Zeroizing::new([0; 32]);
        let mut memory = Zeroizing::new(vec![argon2::Block::default(); argon2.params().block_count()]);
        argon2
            .hash_password_into_with_memory(token, STRETCH_SALT, stretched.as_mut_slice(), memory.as_mut_slice())
            .expect("a token is shorter than 4 GiB and the salt longer than 8 bytes");
        Self(stretched)
    }

    /// A token that was stored stretched, with [`STRETCH_VERSION`].
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// For the state file. As good as the token: whoever has it is a member.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// 24 bits by which people can compare tokens without showing them.
    pub fn fingerprint(&self) -> [u8; 3] {
        let mut fingerprint = [0; 3];
        expand(&self.extract(&[]), &[b"fingerprint"], &mut fingerprint);
        fingerprint
    }

    /// Extracts from `material` with this token as salt.
    fn extract(&self, material: &[u8]) -> hkdf::Prk {
        hkdf::Salt::new(hkdf::HKDF_SHA256, self.0.as_slice()).extract(material)
    }
}

impl PartialEq for StretchedToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for StretchedToken {}

/// The keys of one namespace (a port of the transfer). About 180 bytes, derived in microseconds. Wiped when dropped.
#[derive(Clone)]
pub struct NamespaceKeys {
    namespace: u16,
    mac: Zeroizing<[u8; 32]>,
    cookie: Zeroizing<[u8; 32]>,
    psk_transfer: Zeroizing<[u8; 32]>,
    psk_gateway: Zeroizing<[u8; 32]>,
    beacon: Zeroizing<[u8; 32]>,
    /// The 40 bits behind `fd` (RFC 4193 section 3.2: the Global ID).
    ula: [u8; 5],
}

impl NamespaceKeys {
    /// Derives the keys of `namespace`. `secret`, stretched like a token, is known to gateways only and goes into the key that
    /// they share among themselves.
    pub fn derive(token: &StretchedToken, namespace: u16, secret: Option<&StretchedToken>) -> Self {
        let number = namespace.to_be_bytes();
        let prk = token.extract(&[]);
        let key = |prk: &hkdf::Prk, label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            expand(prk, &[label, &number], key.as_mut_slice());
            key
        };
        let psk_gateway = match secret {
            Some(secret) => key(&token.extract(secret.0.as_slice()), b"psk gateway"),
            None => key(&prk, b"psk gateway"),
        };
        let mut ula = [0; 5];
        expand(&prk, &[b"ula", &number], &mut ula);
        Self {
            namespace,
            mac: key(&prk, b"mac"),
            cookie: key(&prk, b"cookie"),
            psk_transfer: key(&prk, b"psk transfer"),
            psk_gateway,
            beacon: key(&prk, b"beacon"),
            ula,
        }
    }

    /// The namespace: the port of the transfer.
    pub fn namespace(&self) -> u16 {
        self.namespace
    }

    /// The namespace's IPv6 network, a ULA (RFC 4193), and the length of its prefix.
    pub fn ula_prefix(&self) -> (Ipv6Addr, u8) {
        (self.ula(Ipv4Addr::UNSPECIFIED), 64)
    }

    /// The IPv6 address of the gateway that has the virtual address `ip4`.
    pub fn ula(&self, ip4: Ipv4Addr) -> Ipv6Addr {
        let mut bytes = [0; 16];
        bytes[0] = 0xfd;
        bytes[1..6].copy_from_slice(&self.ula);
        bytes[12..].copy_from_slice(&ip4.octets());
        Ipv6Addr::from(bytes)
    }

    /// The virtual address behind an address made by [`NamespaceKeys::ula`]; `None` for any other.
    pub fn ip4_of(&self, ip6: Ipv6Addr) -> Option<Ipv4Addr> {
        let bytes = ip6.octets();
        let ip4 = Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]);
        (self.ula(ip4) == ip6 && !ip4.is_unspecified()).then_some(ip4)
    }

    /// The key of the first MAC of handshake datagrams.
    pub(super) fn mac(&self) -> &[u8; 32] {
        &self.mac
    }

    /// The key that cookies are sealed with.
    pub(super) fn cookie(&self) -> &[u8; 32] {
        &self.cookie
    }

    /// The pre-shared key of handshakes between gateway and transfer.
    pub(super) fn psk_transfer(&self) -> &[u8; 32] {
        &self.psk_transfer
    }

    /// The key under which `sender` seals its beacons. Each has its own, so that their counters are nonces.
    pub(super) fn beacon(&self, sender: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, self.beacon.as_slice()).extract(sender);
        let mut key = Zeroizing::new([0; 32]);
        expand(&prk, &[b"beacon of a sender"], key.as_mut_slice());
        key
    }

    /// The pre-shared key of handshakes among gateways.
    pub(super) fn psk_gateway(&self) -> &[u8; 32] {
        &self.psk_gateway
    }
}

opaque_debug!(StretchedToken, NamespaceKeys);

/// The length of an output of HKDF.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Bytes for one use of a static key, which serves for nothing but handshakes otherwise.
pub(super) fn derive_from_key<const N: usize>(secret: &[u8; 32], usage: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"EasyMesh static key").extract(secret);
    expand(&prk, &[usage.as_bytes()], &mut bytes);
    bytes
}

fn expand(prk: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) {
    prk.expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("the outputs are far shorter than the limit of HKDF");
}

/// Characters of [`random_token`]: no two look alike, and none means anything to a shell. 32 of them, so 5 bits each.
const TOKEN_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A new token from 32 random bytes: 32 letters and digits, 160 bits, the same in single quotes, double quotes or none.
pub fn random_token(random: [u8; 32]) -> Zeroizing<String> {
    let random = Zeroizing::new(random);
    Zeroizing::new(random.iter().map(|byte| char::from(TOKEN_ALPHABET[usize::from(byte % 32)])).collect())
}

/// Whether `token` is surely easy to guess: under about 80 bits, if each of its characters were drawn at random from the kinds
/// that occur in it. Repetitions and runs like `1234` do not count. Sentences of a language are overrated by this.
pub fn weak(token: &str) -> bool {
    let characters: Zeroizing<Vec<char>> = Zeroizing::new(token.chars().collect());
    let each = kinds(&characters).log2();
    let mut pairs = BTreeSet::new();
    let mut bits = if characters.is_empty() { 0.0 } else { each };
    for pair in characters.windows(2) {
        // A character adds nothing when its neighbour, or the same pair before, foretells it.
        let neighbours = u32::from(pair[0]).abs_diff(u32::from(pair[1])) <= 1;
        if pairs.insert((pair[0], pair[1])) && !neighbours {
            bits += each;
        }
        if bits >= TOKEN_BITS_WANTED {
            return false;
        }
    }
    true
}

/// How many characters there are of the kinds that occur.
fn kinds(characters: &[char]) -> f64 {
    if characters.iter().all(char::is_ascii_digit) {
        return 10.0;
    }
    if characters.iter().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
        || characters.iter().all(|c| matches!(c, '0'..='9' | 'A'..='F'))
    {
        return 16.0;
    }
    let lower = characters.iter().any(char::is_ascii_lowercase);
    let upper = characters.iter().any(char::is_ascii_uppercase);
    let digit = characters.iter().any(char::is_ascii_digit);
    let sign = characters.iter().any(|c| c.is_ascii() && !c.is_ascii_alphanumeric());
    let foreign = characters.iter().any(|c| !c.is_ascii());
    [(lower, 26.0), (upper, 26.0), (digit, 10.0), (sign, 33.0), (foreign, 100.0)]
        .into_iter()
        .map(|(there, count)| if there { count } else { 0.0 })
        .sum()
}

#[cfg(test)]
pub(super) mod tests;
