//! Which ciphers a gateway offers: by what they cost on this machine, measured at its start, or as it was told.
//!
//! What the processor says of itself tells that it has instructions, not what they are worth under this hypervisor; what sealing
//! and opening take does.

use std::fmt;
use std::time::{Duration, Instant};

use mesh_core::session::aead::{OpeningKey, SealingKey, TAG_BYTES};
use mesh_core::session::cipher::{Cipher, Ciphers};
use serde::Serialize;

/// Bytes of the packets that are sealed and opened to see what that takes: what most of a busy stream's packets have.
const PACKET_BYTES: usize = 1380;
/// Bytes in front that are authenticated only, as in a data frame.
const HEADER_BYTES: usize = 28;
/// Packets in a row, as in a train; between two looks at the clock.
const PACKETS: usize = 16;
/// How long one cipher is tried. The best row counts: whatever else the machine does only makes one slower.
const PATIENCE: Duration = Duration::from_millis(1);
/// Rows that are tried however long they take. The first one warms up.
const ROWS_MIN: u32 = 3;

/// `-cipher`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CipherChoice {
    /// The faster one is preferred, and AES is offered where it is that.
    #[default]
    Auto,
    /// AES-256-GCM and nothing else.
    Aes,
    /// ChaCha20-Poly1305 and nothing else.
    ChaCha,
}

impl std::str::FromStr for CipherChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "aes" => Ok(Self::Aes),
            "chacha" => Ok(Self::ChaCha),
            other => Err(format!("-cipher {other} does not exist: give auto, aes or chacha")),
        }
    }
}

impl fmt::Display for CipherChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Aes => "aes",
            Self::ChaCha => "chacha",
        })
    }
}

impl CipherChoice {
    /// What is offered and accepted on a machine of this speed.
    pub fn ciphers(self, speed: CipherSpeed) -> Ciphers {
        match self {
            Self::Auto => Ciphers::by_speed(speed.aes_mbit_s, speed.chacha_mbit_s),
            Self::Aes => Ciphers::only(Cipher::Aes256Gcm),
            Self::ChaCha => Ciphers::only(Cipher::ChaCha20Poly1305),
        }
    }
}

/// What one processor of this machine seals or opens in packets of 1380 bytes, their payload alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CipherSpeed {
    /// With AES-256-GCM, in Mbit/s.
    pub aes_mbit_s: u64,
    /// With ChaCha20-Poly1305, in Mbit/s.
    pub chacha_mbit_s: u64,
}

impl CipherSpeed {
    /// Tries both ciphers: takes about two milliseconds, and some more where AES is software.
    pub fn measure() -> Self {
        Self { aes_mbit_s: mbit_s(Cipher::Aes256Gcm), chacha_mbit_s: mbit_s(Cipher::ChaCha20Poly1305) }
    }
}

fn mbit_s(cipher: Cipher) -> u64 {
    // Nothing that is sealed here leaves, nor is it a secret.
    let (sealing, opening) = (SealingKey::new(cipher, &[1; 32]), OpeningKey::new(cipher, &[1; 32]));
    let mut packets = [[0_u8; HEADER_BYTES + PACKET_BYTES + TAG_BYTES]; PACKETS];
    let started = Instant::now();
    let mut best = Duration::MAX;
    let mut rows = 0;
    while rows < ROWS_MIN || started.elapsed() < PATIENCE {
        let row = Instant::now();
        for (counter, packet) in (0..).zip(&mut packets) {
            let (header, body) = packet.split_at_mut(HEADER_BYTES);
            let (body, tag) = body.split_at_mut(PACKET_BYTES);
            tag.copy_from_slice(&sealing.seal(counter, header, body));
        }
        for (counter, packet) in (0..).zip(&mut packets) {
            let (header, body) = packet.split_at_mut(HEADER_BYTES);
            let opened = opening.open(counter, header, body);
            assert_eq!(opened, Ok(PACKET_BYTES), "what was sealed with a key opens with it");
        }
        best = best.min(row.elapsed());
        rows += 1;
    }
    // Each packet was sealed and opened. A clock that did not move has not measured anything: then it is fast.
    let bits = 2 * 8 * (PACKETS * PACKET_BYTES) as u128;
    let nanos = best.as_nanos().max(1);
    u64::try_from(bits * 1000 / nanos).unwrap_or(u64::MAX)
}

/// What a gateway says of its ciphers.
#[derive(Clone, Debug, Serialize)]
pub struct CipherReport {
    /// `-cipher`.
    pub choice: String,
    /// Names of those that it offers and accepts, the preferred one first.
    pub offered: Vec<&'static str>,
    /// What carries AES out: `aws-lc` or `ring`, which carries ChaCha20 out.
    pub library: &'static str,
    /// What was measured at the start.
    #[serde(flatten)]
    pub speed: CipherSpeed,
}

impl CipherReport {
    /// Of a gateway that was told `choice`, on a machine of this speed.
    pub fn new(choice: CipherChoice, speed: CipherSpeed) -> Self {
        Self {
            choice: choice.to_string(),
            offered: choice.ciphers(speed).iter().map(Cipher::name).collect(),
            library: Cipher::Aes256Gcm.library(),
            speed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_in_the_range_of_processors() {
        let CipherSpeed { aes_mbit_s, chacha_mbit_s } = CipherSpeed::measure();
        for (name, rate) in [("AES", aes_mbit_s), ("ChaCha20", chacha_mbit_s)] {
            // Software AES on a small core does some 100 Mbit/s, the best of hardware some 100 Gbit/s.
            assert!((5..1_000_000).contains(&rate), "{name}: {rate} Mbit/s");
        }
    }

    #[test]
    fn the_faster_one_is_preferred_unless_told_otherwise() {
        let speed = |aes_mbit_s, chacha_mbit_s| CipherSpeed { aes_mbit_s, chacha_mbit_s };
        let offered = |choice, speed| CipherReport::new(choice, speed).offered;
        let (aes, chacha) = (Cipher::Aes256Gcm.name(), Cipher::ChaCha20Poly1305.name());
        assert_eq!(offered(CipherChoice::Auto, speed(3000, 1000)), [aes, chacha]);
        assert_eq!(offered(CipherChoice::Auto, speed(100, 1000)), [chacha]);
        for speed in [speed(3000, 1000), speed(100, 1000)] {
            assert_eq!(offered(CipherChoice::Aes, speed), [aes]);
            assert_eq!(offered(CipherChoice::ChaCha, speed), [chacha]);
        }
    }

    #[test]
    fn choices_are_shown_as_they_are_written() {
        for text in ["auto", "aes", "chacha"] {
            assert_eq!(text.parse::<CipherChoice>().unwrap().to_string(), text);
        }
    }
}
