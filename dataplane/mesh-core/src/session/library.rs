//! The library that carries out the ciphers of packets: AWS-LC on Linux with the feature `aws-lc`, else ring. Both have the same
//! interface and make the same bytes; everything but packets is ring's either way.
//!
//! An expanded key of AWS-LC lies on the heap, in an `EVP_AEAD_CTX` of 600 bytes: `EVP_AEAD_CTX_free` gives it back through
//! `OPENSSL_free`, which overwrites all of it first (`crypto/mem.c`; not with allocators that `CRYPTO_set_mem_functions` put in, and
//! nobody here does), and a key that is moved leaves no copy behind. One of ring's has no heap and no drop, so whoever holds it
//! wipes its bytes: [`super::wipe`]. Neither allocates to seal or open.

#[cfg(all(feature = "aws-lc", target_os = "linux"))]
pub(super) use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
#[cfg(not(all(feature = "aws-lc", target_os = "linux")))]
pub(super) use ring::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};

/// Its name, for status.
#[cfg(all(feature = "aws-lc", target_os = "linux"))]
pub(super) const NAME: &str = "aws-lc";
/// Its name, for status.
#[cfg(not(all(feature = "aws-lc", target_os = "linux")))]
pub(super) const NAME: &str = "ring";
