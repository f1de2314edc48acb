//! The counting sink: nf_tables counts data frames at the ingress of an interface and drops them there.
//!
//! That is the cheapest end a datagram can have: no route, no socket, no wake, and a train is dropped whole. It also costs all
//! systems the same, on whichever processor their datagrams arrive. What is no data frame passes, so that clients stay registered;
//! ChannelData of TURN counts as one, because servers send nothing else in it.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use mesh_lab::Interface;

use super::Head;
use super::frame::FIRST_BYTE;
use super::frames::{IPV4_BYTES, UDP_BYTES};
use super::netfilter::DropRules;
use crate::relay::Payload;

/// Bytes that an IPv4 packet has beside the UDP payload; a train has them once.
const HEADERS_BYTES: u64 = (IPV4_BYTES + UDP_BYTES) as u64;

/// Tells the tables of one host apart.
static TABLES: AtomicU32 = AtomicU32::new(0);

/// Counts and drops the data frames that arrive for some ports, until it is dropped itself.
#[derive(Debug)]
pub struct Counter {
    rules: DropRules,
}

/// What a counter has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames as the kernel held them: a train is one.
    pub frames: u64,
    /// Bytes from the IPv4 header on; a train has its headers once.
    pub bytes: u64,
}

impl Counter {
    /// Counts from now on what arrives on `interface` for these UDP ports. Where counters overlap, the first one made takes it.
    ///
    /// # Errors
    /// The kernel lacks nf_tables, or its hook at the ingress.
    pub fn new(interface: &Interface, ports: RangeInclusive<u16>) -> Result<Self> {
        let table = format!("bench-{}", TABLES.fetch_add(1, Ordering::Relaxed));
        let first = [FIRST_BYTE..=FIRST_BYTE, Head::CHANNEL_FIRST_BYTES];
        let rules = DropRules::new(interface.host(), interface.name(), &table, ports, &first)?;
        Ok(Self { rules })
    }

    /// What was counted since it was made. It takes some ten microseconds.
    ///
    /// # Errors
    /// The interface is gone, and the rules with it.
    pub fn read(&mut self) -> Result<Count> {
        let (frames, bytes) = self.rules.read()?;
        Ok(Count { frames, bytes })
    }

    /// What is counted when nothing more has arrived for `quiet`.
    ///
    /// # Errors
    /// As [`Counter::read`].
    #[expect(clippy::disallowed_methods, reason = "silence has no event to wait for")]
    pub fn settled(&mut self, quiet: Duration) -> Result<Count> {
        let mut last = self.read()?;
        loop {
            thread::sleep(quiet);
            let now = self.read()?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
    }
}

impl Count {
    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Count) -> Count {
        Count { frames: self.frames.saturating_sub(earlier.frames), bytes: self.bytes.saturating_sub(earlier.bytes) }
    }

    /// What would have been counted if each datagram had come without the `head_bytes` before its body: exactly, if all have one
    /// size.
    #[must_use]
    pub fn without_heads(self, payload: Payload, head_bytes: usize) -> Count {
        let head_bytes = head_bytes as f64;
        let datagrams = self.payload_bytes() as f64 / (payload.mean() + head_bytes);
        Count { bytes: self.bytes - (datagrams * head_bytes).round() as u64, ..self }
    }

    /// Bytes of UDP payload.
    pub fn payload_bytes(self) -> u64 {
        self.bytes.saturating_sub(HEADERS_BYTES * self.frames)
    }

    /// Datagrams: exactly, if all have one size, else by their mean size.
    pub fn datagrams(self, payload: Payload) -> f64 {
        self.payload_bytes() as f64 / payload.mean()
    }

    /// Datagrams in a train on average; 0 if nothing came.
    pub fn train(self, payload: Payload) -> f64 {
        if self.frames == 0 { 0.0 } else { self.datagrams(payload) / self.frames as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_has_its_headers_once() {
        let count = Count { frames: 3, bytes: 3 * 28 + 50 * 100 };
        assert_eq!(count.payload_bytes(), 5_000);
        assert_eq!(count.datagrams(Payload::Bytes(100)), 50.0);
        assert_eq!(count.train(Payload::Bytes(1_000)), 5.0 / 3.0);
        assert_eq!(Count::default().train(Payload::Imix), 0.0);
    }

    #[test]
    fn heads_do_not_count() {
        let count = Count { frames: 3, bytes: 3 * 28 + 50 * 104 };
        let bodies = count.without_heads(Payload::Bytes(100), 4);
        assert_eq!((bodies.frames, bodies.payload_bytes()), (3, 5_000));
        assert_eq!(bodies.datagrams(Payload::Bytes(100)), 50.0);
        assert_eq!(count.without_heads(Payload::Bytes(104), 0), count);
        assert_eq!(Count::default().without_heads(Payload::Imix, 4), Count::default());
    }

    #[test]
    fn later_counts_begin_at_earlier_ones() {
        let (early, late) = (Count { frames: 2, bytes: 200 }, Count { frames: 5, bytes: 900 });
        assert_eq!(late.since(early), Count { frames: 3, bytes: 700 });
    }
}
