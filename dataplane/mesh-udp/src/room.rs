//! How large the receive buffer of a socket is: as large as its rate asks for.
//!
//! A buffer bridges the time for which its thread does something else. What is more than that only makes datagrams wait when more
//! comes than can be relayed, and lets one flooded port hold kernel memory that others need. So a socket begins with a small one, and
//! has it changed when the rate of what arrives asks for another.

use std::time::{Duration, Instant};

/// What a socket begins with, and has at least, as the kernel counts it.
const FIRST_BYTES: u32 = 1 << 20;

/// The time that a buffer bridges.
const BRIDGED: Duration = Duration::from_millis(50);

/// Kernel memory of a datagram beside its payload, roughly.
const DATAGRAM_BYTES: u64 = 768;

/// The receive buffer of a socket.
#[derive(Debug)]
pub(crate) struct Room {
    /// What it may grow to.
    limit_bytes: u32,
    /// What it has.
    bytes: u32,
    /// What has arrived since the last look, as the kernel counts it.
    arrived: u64,
    since: Option<Instant>,
}

impl Room {
    /// For a socket that may have up to `limit_bytes`.
    pub(crate) fn new(limit_bytes: u32) -> Self {
        Self { limit_bytes, bytes: limit_bytes.min(FIRST_BYTES), arrived: 0, since: None }
    }

    /// What it is to have now.
    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Notes a train of so many bytes and datagrams. `true`: it is time for a [look](Room::look).
    pub(crate) fn note(&mut self, bytes: usize, datagrams: usize) -> bool {
        self.arrived += bytes as u64 + datagrams as u64 * DATAGRAM_BYTES;
        self.arrived >= u64::from(self.bytes / 2)
    }

    /// What it is to have from now on, if that is to change: half as much again as it has, or less than half of it.
    pub(crate) fn look(&mut self, now: Instant) -> Option<u32> {
        let arrived = std::mem::take(&mut self.arrived);
        let passed = now.duration_since(self.since.replace(now)?).as_nanos().max(1);
        let wanted = u128::from(arrived) * BRIDGED.as_nanos() / passed;
        let least = self.limit_bytes.min(FIRST_BYTES);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).clamp(least, self.limit_bytes);
        let changes = wanted >= self.bytes.saturating_add(self.bytes / 2).min(self.limit_bytes) && wanted > self.bytes
            || wanted < self.bytes / 2;
        changes.then(|| std::mem::replace(&mut self.bytes, wanted)).map(|_| wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{FIRST_BYTES, Room};

    const LIMIT: u32 = 8 << 20;

    /// The buffer after a second of datagrams of 1,200 bytes, so many a second.
    fn after(room: &mut Room, start: Instant, per_second: u32) -> u32 {
        for number in 0..per_second {
            if room.note(1200, 1) {
                room.look(start + Duration::from_secs(1) * number / per_second);
            }
        }
        room.bytes()
    }

    #[test]
    fn it_grows_and_shrinks_with_the_rate() {
        let (mut room, start) = (Room::new(LIMIT), Instant::now());
        assert_eq!(room.bytes(), FIRST_BYTES);
        assert_eq!(after(&mut room, start, 5_000), FIRST_BYTES, "a slow one stays as it is");
        let second = Duration::from_secs(1);
        let middling = after(&mut room, start + second, 40_000);
        assert!((3 << 20..5 << 20).contains(&middling), "{middling}");
        assert_eq!(after(&mut room, start + 2 * second, 400_000), LIMIT);
        assert!(after(&mut room, start + 3 * second, 40_000) <= LIMIT / 2 + (1 << 20));
        assert_eq!(after(&mut room, start + 4 * second, 9_000), FIRST_BYTES);
    }

    #[test]
    fn a_small_limit_is_kept() {
        let mut room = Room::new(200_000);
        assert_eq!(room.bytes(), 200_000);
        assert_eq!(after(&mut room, Instant::now(), 400_000), 200_000);
    }
}
