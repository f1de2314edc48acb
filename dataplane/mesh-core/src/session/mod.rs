//! Cryptography of the mesh: what a token becomes, how two parties agree on keys, and how packets are sealed.
//!
//! Nothing here reads a clock, a socket or a global source of randomness: time is a [`crate::seam::Moment`], randomness is
//! handed in as bytes, so that every run can be repeated. From the outside in, as a datagram meets them:
//!
//! 1. [`token`]: the token is stretched once, and each namespace's keys are derived from it;
//! 2. [`mac`]: a handshake datagram proves that its sender knows the token, and under load that it can receive at its address;
//! 3. [`handshake`] and [`jobs`]: Noise `XXpsk0`, as work to be run away from the data threads;
//! 4. [`cipher`] and [`aead`]: the ciphers, and packets sealed and opened in place;
//! 5. [`replay`]: no packet counts twice;
//! 6. [`keyring`]: the sessions of one peer, changed without losing a packet.
//!
//! `library` is what carries out the ciphers of packets; `random` gives the secrets of a run, and forgets them.
//!
//! Secrets are wiped when they are dropped, and none has a `Debug` that shows it.

/// A `Debug` that shows the name of a type and nothing it holds.
macro_rules! opaque_debug {
    ($($name:ident),+) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}

pub mod aead;
pub mod beacon;
pub mod cipher;
pub mod handshake;
pub mod jobs;
pub mod keyring;
pub mod mac;
pub mod replay;
pub mod sealer;
pub mod token;

mod library;
pub(crate) mod random;
mod wipe;

/// A static X25519 public key: who someone is.
pub type PublicKey = [u8; 32];
