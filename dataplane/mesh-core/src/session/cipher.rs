//! The ciphers two sides can agree on.

use super::library;

/// An authenticated cipher for data and control packets. Both have a 256-bit key, a 96-bit nonce and a 128-bit tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-256-GCM (NIST SP 800-38D): the faster one where the processor helps.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439): the faster one everywhere else.
    ChaCha20Poly1305,
}

impl Cipher {
    /// Its bit in the Hello and Welcome messages.
    pub const fn bit(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The cipher of exactly this one bit.
    pub const fn from_bit(bit: u8) -> Option<Self> {
        match bit {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Its name, as people write it; it also separates the keys of the two ciphers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }

    /// Name of the library that carries it out on this processor.
    pub fn library(self) -> &'static str {
        library::name(self)
    }
}

/// What a Welcome names where there is no cipher in common.
pub const NO_CIPHER: u8 = 0;

/// A set of ciphers, as a Hello offers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CipherSet(u8);

impl CipherSet {
    /// Every bit that has a meaning.
    const KNOWN: u8 = Cipher::Aes256Gcm.bit() | Cipher::ChaCha20Poly1305.bit();

    /// No cipher.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// All that this program can do.
    pub const fn supported() -> Self {
        Self(Self::KNOWN)
    }

    /// Just `cipher`.
    pub const fn only(cipher: Cipher) -> Self {
        Self(cipher.bit())
    }

    /// From the wire; bits without a meaning are ciphers of later editions and are left out.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::KNOWN)
    }

    /// For the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether `cipher` is in it.
    pub const fn contains(self, cipher: Cipher) -> bool {
        self.0 & cipher.bit() != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What one side of a handshake offers and accepts: one cipher at least, in the order in which it prefers them.
///
/// The initiator's order does not travel, only the set does; the responder chooses by its own. So a side leaves out what is slow
/// on it, and what is chosen is fast on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ciphers {
    first: Cipher,
    second: Option<Cipher>,
}

impl Ciphers {
    /// `cipher` and no other.
    pub const fn only(cipher: Cipher) -> Self {
        Self { first: cipher, second: None }
    }

    /// Every cipher, `first` before all others.
    pub const fn all(first: Cipher) -> Self {
        let second = match first {
            Cipher::Aes256Gcm => Cipher::ChaCha20Poly1305,
            Cipher::ChaCha20Poly1305 => Cipher::Aes256Gcm,
        };
        Self { first, second: Some(second) }
    }

    /// By what was measured on this machine, each in the same unit of data for a time: AES only where it is not the slower one.
    /// ChaCha20 is always there, as it is fast enough everywhere, and software AES an order of magnitude slower.
    pub const fn by_speed(aes: u64, chacha: u64) -> Self {
        if aes >= chacha { Self::all(Cipher::Aes256Gcm) } else { Self::only(Cipher::ChaCha20Poly1305) }
    }

    /// As [`Ciphers::by_speed`], where nothing was measured: AES where the processor has it in hardware.
    pub fn detected() -> Self {
        if aes_in_hardware() { Self::all(Cipher::Aes256Gcm) } else { Self::only(Cipher::ChaCha20Poly1305) }
    }

    /// Every cipher, that before which the processor suggests: for sessions whose other side may be told to insist on one, and
    /// that carry little.
    pub fn obliging() -> Self {
        Self::all(Self::detected().first)
    }

    /// In the order of preference.
    pub fn iter(self) -> impl Iterator<Item = Cipher> {
        std::iter::once(self.first).chain(self.second)
    }

    /// Without the order: what a Hello offers.
    pub fn set(self) -> CipherSet {
        self.iter().collect()
    }

    /// Whether `cipher` is among them.
    pub fn contains(self, cipher: Cipher) -> bool {
        self.iter().any(|ours| ours == cipher)
    }

    /// The one we prefer of those that are also in `theirs`; `None` when there is none.
    pub fn choose(self, theirs: CipherSet) -> Option<Cipher> {
        self.iter().find(|cipher| theirs.contains(*cipher))
    }
}

impl FromIterator<Cipher> for CipherSet {
    fn from_iter<I: IntoIterator<Item = Cipher>>(ciphers: I) -> Self {
        Self(ciphers.into_iter().fold(0, |bits, cipher| bits | cipher.bit()))
    }
}

/// Whether the processor has instructions for AES and for the multiplication GCM needs.
fn aes_in_hardware() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_protocol() {
        assert_eq!(Cipher::Aes256Gcm.bit(), 1);
        assert_eq!(Cipher::ChaCha20Poly1305.bit(), 2);
        for bit in 0..=u8::MAX {
            assert_eq!(Cipher::from_bit(bit).map(Cipher::bit), [1, 2].contains(&bit).then_some(bit));
        }
    }

    #[test]
    fn unknown_bits_are_left_out() {
        assert_eq!(CipherSet::from_bits(0xff), CipherSet::supported());
        assert_eq!(CipherSet::from_bits(0xfc), CipherSet::empty());
    }

    #[test]
    fn choice_lies_in_both_sets() {
        let aes = Ciphers::only(Cipher::Aes256Gcm);
        let chacha = Ciphers::only(Cipher::ChaCha20Poly1305);
        assert_eq!(aes.choose(CipherSet::supported()), Some(Cipher::Aes256Gcm));
        assert_eq!(Ciphers::all(Cipher::Aes256Gcm).choose(chacha.set()), Some(Cipher::ChaCha20Poly1305));
        assert_eq!(aes.choose(chacha.set()), None);
        for first in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            assert_eq!(Ciphers::all(first).choose(CipherSet::supported()), Some(first));
            assert_eq!(Ciphers::all(first).set(), CipherSet::supported());
        }
    }

    #[test]
    fn aes_is_used_where_it_is_fast_on_both_sides() {
        let (fast, slow) = (Ciphers::by_speed(5000, 2000), Ciphers::by_speed(100, 2000));
        assert_eq!(fast.choose(fast.set()), Some(Cipher::Aes256Gcm));
        for (ours, theirs) in [(fast, slow), (slow, fast), (slow, slow)] {
            assert_eq!(ours.choose(theirs.set()), Some(Cipher::ChaCha20Poly1305));
        }
        assert_eq!(Ciphers::detected() == Ciphers::by_speed(2, 1), aes_in_hardware());
        assert!(Ciphers::detected().contains(Cipher::ChaCha20Poly1305), "the one everybody can do is always offered");
        assert_eq!(Ciphers::obliging().set(), CipherSet::supported());
    }
}
