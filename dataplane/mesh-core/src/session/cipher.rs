//! The ciphers two sides can agree on.

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

    /// The algorithm that carries it out.
    pub(super) fn algorithm(self) -> &'static ring::aead::Algorithm {
        match self {
            Self::Aes256Gcm => &ring::aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &ring::aead::CHACHA20_POLY1305,
        }
    }
}

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

    /// What this machine wants to use: AES only where the processor has it in hardware. As both sides offer this, AES is chosen
    /// where both have it, and ChaCha20 otherwise: software AES is an order of magnitude slower.
    pub fn fast() -> Self {
        if aes_in_hardware() { Self::supported() } else { Self::only(Cipher::ChaCha20Poly1305) }
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

    /// The best cipher in both sets, by the speed of this machine; `None` when they have none in common.
    pub fn choose(self, other: Self) -> Option<Cipher> {
        let order = if aes_in_hardware() {
            [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]
        } else {
            [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm]
        };
        order.into_iter().find(|cipher| self.contains(*cipher) && other.contains(*cipher))
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
        let aes = CipherSet::only(Cipher::Aes256Gcm);
        let chacha = CipherSet::only(Cipher::ChaCha20Poly1305);
        assert_eq!(aes.choose(CipherSet::supported()), Some(Cipher::Aes256Gcm));
        assert_eq!(CipherSet::supported().choose(chacha), Some(Cipher::ChaCha20Poly1305));
        assert_eq!(aes.choose(chacha), None);
        let preferred = CipherSet::supported().choose(CipherSet::supported());
        assert_eq!(preferred == Some(Cipher::Aes256Gcm), aes_in_hardware());
        assert!(CipherSet::fast().contains(Cipher::ChaCha20Poly1305), "the one everybody can do is always offered");
    }
}
