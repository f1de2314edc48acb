//! The randomness of one start: a generator whose past cannot be computed from what is in memory.
//!
//! A ChaCha generator keeps its seed, and all that it ever gave follows from that: whoever got hold of the memory would have the
//! ephemeral keys of every handshake since the start, and with them the sessions. So each [secret](Generator::secret) is half of
//! a draw whose other half becomes the next seed (fast key erasure). Between two secrets the generator serves as any other, for
//! what is no secret once it was used: indexes, nonces, salts.

use std::convert::Infallible;

use rand::{Rng, SeedableRng, TryRng};
use rand_chacha::ChaCha12Rng;
use zeroize::Zeroizing;

use super::wipe::Wiped;

/// A source of randomness that forgets what it gave. Wiped when dropped.
pub(crate) struct Generator(Wiped<ChaCha12Rng>);

impl Generator {
    /// All that it gives follows from `seed`, 32 bytes of fresh randomness.
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(Wiped::new(ChaCha12Rng::from_seed(*seed)))
    }

    /// 32 bytes for a key. Once they are wiped where they are used, nothing tells them any more.
    pub(crate) fn secret(&mut self) -> Zeroizing<[u8; 32]> {
        let (mut next, mut secret) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        self.0.fill_bytes(next.as_mut_slice());
        self.0.fill_bytes(secret.as_mut_slice());
        self.0 = Wiped::new(ChaCha12Rng::from_seed(*next));
        secret
    }

    /// The next `N` bytes, for what is sent in the open.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill_bytes(&mut bytes);
        bytes
    }

    /// The generator as it lies in memory.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> ChaCha12Rng {
        self.0.clone()
    }
}

impl TryRng for Generator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(dst);
        Ok(())
    }
}

opaque_debug!(Generator);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_does_not_follow_from_what_is_left() {
        let mut generator = Generator::from_seed([7; 32]);
        let given: Vec<_> = (0..4).map(|_| generator.secret()).collect();
        let mut stolen = generator.memory();
        assert_ne!(stolen.get_seed(), [7; 32]);
        stolen.set_word_pos(0);
        let mut again = vec![0; 4096];
        stolen.fill_bytes(&mut again);
        for secret in given {
            assert!(!again.windows(32).any(|window| window == secret.as_slice()));
            assert_ne!(stolen.get_seed(), *secret);
        }
    }

    #[test]
    fn runs_can_be_repeated_and_secrets_differ() {
        let run = || {
            let mut generator = Generator::from_seed([3; 32]);
            [*generator.secret(), *generator.secret(), generator.bytes(), *generator.secret()]
        };
        let all = run();
        assert_eq!(all, run());
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
    }
}
