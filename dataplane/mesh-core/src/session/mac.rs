//! The two MACs that a handshake datagram must pass before anything of it costs us work.
//!
//! The first proves that the sender knows the token; without it there is no answer at all. The second proves, when we are busy,
//! that it receives what we send to its address: it is keyed with a cookie that we sealed and sent there, and that only we could
//! have made, so nothing is remembered for the asker.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::token::NamespaceKeys;
use super::wipe::Wiped;
use crate::seam::{Endpoint, Moment};

/// Length of either MAC, and of a cookie, in bytes: the first half of an HMAC-SHA256 (RFC 2104 section 5).
pub const MAC_BYTES: usize = 16;

/// Length of a sealed cookie with its tag, in bytes.
pub const SEALED_COOKIE_BYTES: usize = 32;

/// How long a cookie secret makes cookies; its cookies are accepted as long again.
pub const COOKIE_SECRET_LIFE: Duration = Duration::from_secs(120);

/// The first MAC: over all `bytes` of the datagram before it.
pub fn mac1(keys: &NamespaceKeys, bytes: &[u8]) -> [u8; MAC_BYTES] {
    hmac_half(keys.mac(), bytes)
}

/// Whether `mac` is the first MAC of `bytes`, in constant time.
pub fn verify_mac1(keys: &NamespaceKeys, bytes: &[u8], mac: &[u8]) -> bool {
    mac1(keys, bytes).ct_eq(mac).into()
}

/// The key of the MACs of questions where one is seen, at one port of a transfer. Good for nothing else. Wiped when dropped.
#[derive(Clone)]
pub struct ObserverKey(Zeroizing<[u8; MAC_BYTES]>);

impl ObserverKey {
    /// That of a namespace: of the port of its number.
    pub fn of(keys: &NamespaceKeys) -> Self {
        Self(Zeroizing::new(hmac_half(keys.mac(), b"observe")))
    }

    /// The MAC of `bytes`.
    pub fn mac(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        hmac_half(self.0.as_slice(), bytes)
    }

    /// Whether `mac` is that of `bytes`, in constant time.
    pub fn verify(&self, bytes: &[u8], mac: &[u8]) -> bool {
        self.mac(bytes).ct_eq(mac).into()
    }
}

/// Two keys are equal when they make the same MACs.
impl PartialEq for ObserverKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}
impl Eq for ObserverKey {}

/// The second MAC: over all `bytes` before it, the first MAC included.
pub fn mac2(cookie: &Cookie, bytes: &[u8]) -> [u8; MAC_BYTES] {
    hmac_half(cookie.0.as_slice(), bytes)
}

/// Proof that its holder receives at an address. Wiped when dropped.
#[derive(Clone)]
pub struct Cookie(Zeroizing<[u8; MAC_BYTES]>);

impl Cookie {
    /// Seals it for a CookieReply. `nonce` is random; `asked` is the first MAC of the datagram that asked, so that the reply
    /// is good for it alone.
    pub fn seal(
        &self,
        keys: &NamespaceKeys,
        nonce: [u8; NONCE_LEN],
        asked: &[u8; MAC_BYTES],
    ) -> [u8; SEALED_COOKIE_BYTES] {
        let mut sealed = [0; SEALED_COOKIE_BYTES];
        let (body, tag) = sealed.split_at_mut(MAC_BYTES);
        body.copy_from_slice(self.0.as_slice());
        let made = cookie_key(keys)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(asked), body)
            .expect("a cookie is short");
        tag.copy_from_slice(made.as_ref());
        sealed
    }

    /// Opens a CookieReply to the datagram whose first MAC was `asked`; `None` when it is not one.
    pub fn open(
        keys: &NamespaceKeys,
        nonce: [u8; NONCE_LEN],
        asked: &[u8; MAC_BYTES],
        sealed: &[u8; SEALED_COOKIE_BYTES],
    ) -> Option<Self> {
        let mut bytes = Zeroizing::new(*sealed);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = cookie_key(keys).open_in_place(nonce, Aad::from(asked), bytes.as_mut_slice()).ok()?;
        Some(Self(Zeroizing::new((*opened).try_into().expect("32 bytes less a tag of 16"))))
    }
}

/// Makes cookies and recognises them, without remembering to whom they went.
pub struct CookieJar {
    current: Zeroizing<[u8; 32]>,
    previous: Option<Zeroizing<[u8; 32]>>,
    since: Moment,
}

impl CookieJar {
    /// A jar with a first secret of 32 random bytes.
    pub fn new(random: [u8; 32], now: Moment) -> Self {
        Self { current: Zeroizing::new(random), previous: None, since: now }
    }

    /// Takes a new secret from `random` when the current one has served its time. Call it before [`CookieJar::cookie`] and
    /// [`CookieJar::verify`].
    pub fn refresh(&mut self, now: Moment, random: impl FnOnce() -> [u8; 32]) {
        let age = now.since(self.since);
        if age < COOKIE_SECRET_LIFE {
            return;
        }
        let old = std::mem::replace(&mut self.current, Zeroizing::new(random()));
        self.previous = (age < 2 * COOKIE_SECRET_LIFE).then_some(old);
        self.since = now;
    }

    /// The cookie of an endpoint; see [`endpoint_bytes`].
    pub fn cookie(&self, endpoint: &[u8]) -> Cookie {
        make(&self.current, endpoint)
    }

    /// Whether `mac` is the second MAC of `bytes`, made with a cookie that this endpoint was sent not long ago.
    pub fn verify(&self, endpoint: &[u8], bytes: &[u8], mac: &[u8]) -> bool {
        let matches = |secret: &Zeroizing<[u8; 32]>| bool::from(mac2(&make(secret, endpoint), bytes).ct_eq(mac));
        matches(&self.current) || self.previous.as_ref().is_some_and(matches)
    }
}

opaque_debug!(Cookie, CookieJar, ObserverKey);

/// What a cookie is bound to: the socket, the remote address (IPv4 as IPv4-mapped) and the remote port.
pub fn endpoint_bytes(endpoint: &Endpoint) -> [u8; 20] {
    let address = match endpoint.remote.ip() {
        IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&endpoint.socket.0.to_be_bytes());
    bytes[2..18].copy_from_slice(&address.octets());
    bytes[18..].copy_from_slice(&endpoint.remote.port().to_be_bytes());
    bytes
}

fn make(secret: &Zeroizing<[u8; 32]>, endpoint: &[u8]) -> Cookie {
    Cookie(Zeroizing::new(hmac_half(secret.as_slice(), endpoint)))
}

fn cookie_key(keys: &NamespaceKeys) -> Wiped<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, keys.cookie()).expect("the key has 32 bytes");
    Wiped::new(LessSafeKey::new(key))
}

fn hmac_half(key: &[u8], bytes: &[u8]) -> [u8; MAC_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes);
    let mut half = [0; MAC_BYTES];
    half.copy_from_slice(&tag.as_ref()[..MAC_BYTES]);
    half
}

#[cfg(test)]
mod tests;
