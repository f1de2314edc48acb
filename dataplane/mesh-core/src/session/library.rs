//! The library that carries out the ciphers of packets. Both have the same interface and make the same bytes; everything but packets is
//! ring's either way.
//!
//! AWS-LC, where the feature `aws-lc` is on, takes a fifth less time for whole AES packets on processors with AVX-512 and VAES, and half
//! as much again as ring on those without, for which its code is older: so it serves AES there, and ring everything else. On Windows it
//! does without AVX-512, and is left out.
//!
//! An expanded key of AWS-LC lies on the heap, in an `EVP_AEAD_CTX` of 600 bytes: `EVP_AEAD_CTX_free` gives it back through
//! `OPENSSL_free`, which overwrites all of it first (`crypto/mem.c`; not with allocators that `CRYPTO_set_mem_functions` put in, and
//! nobody here does), and a key that is moved leaves no copy behind. One of ring's has no heap and no drop, so whoever holds it
//! wipes its bytes: [`super::wipe`]. Neither allocates to seal or open.

use ring::aead as ring_aead;

#[cfg(all(feature = "aws-lc", target_os = "linux"))]
use aws_lc_rs::aead as aws_aead;

use super::aead::TAG_BYTES;
use super::cipher::Cipher;
use super::wipe::Wiped;

/// Bytes of a nonce.
pub(super) const NONCE_BYTES: usize = 12;

/// An expanded key. Wiped when dropped.
pub(super) enum Key {
    Ring(Wiped<ring_aead::LessSafeKey>),
    #[cfg(all(feature = "aws-lc", target_os = "linux"))]
    AwsLc(aws_aead::LessSafeKey),
}

/// What is expected of keys and lengths, which all hold.
const KEY: &str = "both ciphers have keys of 32 bytes";
const LENGTH: &str = "a packet is far below the 64 GiB that one nonce may cover";

impl Key {
    /// Expands a key by the library that is faster here.
    pub(super) fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        #[cfg(all(feature = "aws-lc", target_os = "linux"))]
        if serves(cipher) {
            return Self::by_aws_lc(cipher, key);
        }
        Self::by_ring(cipher, key)
    }

    pub(super) fn by_ring(cipher: Cipher, key: &[u8; 32]) -> Self {
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &ring_aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &ring_aead::CHACHA20_POLY1305,
        };
        let key = ring_aead::UnboundKey::new(algorithm, key).expect(KEY);
        Self::Ring(Wiped::new(ring_aead::LessSafeKey::new(key)))
    }

    #[cfg(all(feature = "aws-lc", target_os = "linux"))]
    pub(super) fn by_aws_lc(cipher: Cipher, key: &[u8; 32]) -> Self {
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &aws_aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aws_aead::CHACHA20_POLY1305,
        };
        let key = aws_aead::UnboundKey::new(algorithm, key).expect(KEY);
        Self::AwsLc(aws_aead::LessSafeKey::new(key))
    }

    /// Encrypts in place, and returns the tag.
    pub(super) fn seal(&self, nonce: [u8; NONCE_BYTES], header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let mut bytes = [0; TAG_BYTES];
        match self {
            Self::Ring(key) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, ring_aead::Aad::from(header), body).expect(LENGTH);
                bytes.copy_from_slice(tag.as_ref());
            }
            #[cfg(all(feature = "aws-lc", target_os = "linux"))]
            Self::AwsLc(key) => {
                let nonce = aws_aead::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, aws_aead::Aad::from(header), body).expect(LENGTH);
                bytes.copy_from_slice(tag.as_ref());
            }
        }
        bytes
    }

    /// Decrypts in place, and returns the length of the plaintext; `None` if it is not authentic.
    pub(super) fn open(&self, nonce: [u8; NONCE_BYTES], header: &[u8], body_and_tag: &mut [u8]) -> Option<usize> {
        match self {
            Self::Ring(key) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce);
                let opened = key.open_in_place(nonce, ring_aead::Aad::from(header), body_and_tag);
                opened.ok().map(|plaintext| plaintext.len())
            }
            #[cfg(all(feature = "aws-lc", target_os = "linux"))]
            Self::AwsLc(key) => {
                let nonce = aws_aead::Nonce::assume_unique_for_key(nonce);
                let opened = key.open_in_place(nonce, aws_aead::Aad::from(header), body_and_tag);
                opened.ok().map(|plaintext| plaintext.len())
            }
        }
    }
}

/// Whether AWS-LC serves a cipher on this processor.
#[cfg(all(feature = "aws-lc", target_os = "linux"))]
fn serves(cipher: Cipher) -> bool {
    #[cfg(target_arch = "x86_64")]
    return cipher == Cipher::Aes256Gcm
        && std::arch::is_x86_feature_detected!("vaes")
        && std::arch::is_x86_feature_detected!("vpclmulqdq")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Which library serves a cipher on this processor, for status.
pub(super) fn name(cipher: Cipher) -> &'static str {
    #[cfg(all(feature = "aws-lc", target_os = "linux"))]
    if serves(cipher) {
        return "aws-lc";
    }
    let _ = cipher;
    "ring"
}
