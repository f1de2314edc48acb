//! The sending half of a session: a key and a counter that several threads may seal with.

use std::sync::atomic::{AtomicU64, Ordering};

use super::aead::{SealingKey, TAG_BYTES};
use super::keyring::PACKETS_MAX;

/// Seals packets of one session. Each counter is handed out once, to whichever thread asks; that is all its users share, so none
/// waits for another.
#[derive(Debug)]
pub struct Sealer {
    remote_index: u32,
    key: SealingKey,
    /// The next counter to be used.
    counter: AtomicU64,
}

impl Sealer {
    /// With nothing sealed so far. `remote_index` is what packets name the session by.
    pub(super) fn new(remote_index: u32, key: SealingKey) -> Self {
        Self { remote_index, key, counter: AtomicU64::new(0) }
    }

    /// The index by which we name this session to the peer.
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Counters handed out so far.
    pub fn sent(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Whether a new handshake is needed before anything more is sealed.
    pub fn is_used_up(&self) -> bool {
        self.sent() >= PACKETS_MAX
    }

    /// Takes `packets` counters for packets to be sealed, and returns the first. `None` when the session is used up: then it
    /// takes a new handshake. Counters that are then not used are lost, and nothing else.
    pub fn reserve(&self, packets: u64) -> Option<u64> {
        // No other memory hangs on the counter: what matters is that no two get the same, which holds in every order.
        let end = |first: u64| first.checked_add(packets).filter(|end| *end <= PACKETS_MAX);
        self.counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, end).ok()
    }

    /// Seals `body` in place with a counter from [`Sealer::reserve`], each used once; see [`SealingKey::seal`].
    pub fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        debug_assert!(counter < self.sent(), "counters are reserved before they are used");
        self.key.seal(counter, header, body)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;
    use crate::session::cipher::Cipher;

    #[test]
    fn threads_get_each_counter_once_and_none_past_the_limit() {
        let sealer = Sealer::new(1, SealingKey::new(Cipher::ChaCha20Poly1305, &[1; 32]));
        sealer.reserve(PACKETS_MAX - 40_000).unwrap();
        let take = || {
            let mut taken = Vec::new();
            while let Some(first) = sealer.reserve(3) {
                taken.push(first);
            }
            taken
        };
        let firsts: Vec<u64> = thread::scope(|scope| {
            let threads = [scope.spawn(take), scope.spawn(take), scope.spawn(take)];
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(firsts.len(), 40_000 / 3);
        assert_eq!(firsts.iter().collect::<HashSet<_>>().len(), firsts.len());
        assert!(
            firsts.iter().all(|first| (first - (PACKETS_MAX - 40_000)).is_multiple_of(3) && first + 3 <= PACKETS_MAX)
        );
        assert!(!sealer.is_used_up());
        assert_eq!(sealer.reserve(1), Some(PACKETS_MAX - 1));
        assert!(sealer.is_used_up());
    }
}
