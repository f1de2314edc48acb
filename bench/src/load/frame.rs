//! The body of a datagram: a data frame of the real wire, with a stamp where the ciphertext would be.
//!
//! ```text
//!  0               1               2               3
//! +---------------------------------------------------------------+
//! |               route header (16 bytes, see mesh-wire)          |
//! +---------------------------------------------------------------+
//! |     receiver's session index: here the number of the flow     |
//! +---------------------------------------------------------------+
//! |             counter: here the place in the flow               |
//! |                                                               |
//! +---------------------------------------------------------------+
//! |        when it was due: nanoseconds since 1970 (64 bits)      |
//! |                                                               |
//! +---------------------------------------------------------------+
//! |                            run                                |
//! +---------------------------------------------------------------+
//! |           filler and the place of the tag: zero               |
//! +---------------------------------------------------------------+
//! ```
//!
//! A relay reads the route and nothing else, so it cannot tell such a datagram from a sealed one.

use mesh_wire::frame::FrameType;
use mesh_wire::route::ROUTE_BYTES;
use mesh_wire::sealed::{HEADER_BYTES, OVERHEAD_BYTES};

/// Bytes of the stamp.
const STAMP_BYTES: usize = 8 + 4;

/// Bytes that [`Stamp::write`] writes and [`Stamp::read`] reads.
pub const FRONT_BYTES: usize = HEADER_BYTES + STAMP_BYTES;

/// The shortest body.
pub const BODY_BYTES_MIN: usize = 64;

/// The longest body: a whole Ethernet frame over IPv4.
pub const BODY_BYTES_MAX: usize = 1_472;

const _: () = assert!(STAMP_BYTES + OVERHEAD_BYTES <= BODY_BYTES_MIN);

/// The first byte of every body.
pub const FIRST_BYTE: u8 = FrameType::Data.byte();

/// What a body says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The number of its flow, from 0.
    pub flow: u32,
    /// Its place in the flow, from 0 in each run.
    pub sequence: u64,
    /// When it was due, in nanoseconds since 1970 by `CLOCK_REALTIME`: the clock by which the kernel stamps what it receives.
    pub due: u64,
    /// The run it belongs to.
    pub run: u32,
}

impl Stamp {
    /// Writes the front of a body; what lies behind it stays.
    pub fn write(&self, route: &[u8; ROUTE_BYTES], front: &mut [u8; FRONT_BYTES]) {
        front[..16].copy_from_slice(route);
        front[16..20].copy_from_slice(&self.flow.to_be_bytes());
        front[20..28].copy_from_slice(&self.sequence.to_be_bytes());
        front[28..36].copy_from_slice(&self.due.to_be_bytes());
        front[36..40].copy_from_slice(&self.run.to_be_bytes());
    }

    /// Reads a body; nothing if it is too short or no data frame.
    pub fn read(body: &[u8]) -> Option<Self> {
        if *body.first()? != FIRST_BYTE || body.len() < BODY_BYTES_MIN {
            return None;
        }
        Some(Self {
            flow: u32::from_be_bytes(*body.get(16..)?.first_chunk()?),
            sequence: u64::from_be_bytes(*body.get(20..)?.first_chunk()?),
            due: u64::from_be_bytes(*body.get(28..)?.first_chunk()?),
            run: u32::from_be_bytes(*body.get(36..)?.first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use mesh_wire::route::{Destination, Route, Slot};
    use mesh_wire::sealed::SealedHeader;

    use super::*;

    const STAMP: Stamp = Stamp { flow: 7, sequence: 1 << 40, due: u64::MAX - 1, run: 0xfedc_ba98 };

    fn route() -> Route {
        let slot = |index| Slot { index, generation: 0x1234 };
        Route { destination: Destination::here(slot(9)), source: slot(5) }
    }

    fn body(bytes: usize) -> Vec<u8> {
        let mut body = vec![0; bytes];
        let front = body.first_chunk_mut().expect("a body is longer than its front");
        STAMP.write(&route().emit(FrameType::Data, 0), front);
        body
    }

    #[test]
    fn what_is_written_is_read_and_is_a_data_frame_of_the_wire() {
        for bytes in [BODY_BYTES_MIN, 65, BODY_BYTES_MAX] {
            let body = body(bytes);
            assert_eq!(Stamp::read(&body), Some(STAMP));
            let header = SealedHeader::parse(&body).unwrap();
            assert_eq!((header.frame, header.route), (FrameType::Data, route()));
            assert_eq!((header.receiver_index, header.counter), (STAMP.flow, STAMP.sequence));
        }
    }

    #[test]
    fn the_tag_of_the_shortest_body_is_left_alone() {
        let body = body(BODY_BYTES_MIN);
        assert_eq!(body[BODY_BYTES_MIN - mesh_wire::TAG_BYTES..], [0; mesh_wire::TAG_BYTES]);
    }

    #[test]
    fn what_is_no_body_is_not_read() {
        assert_eq!(Stamp::read(&[]), None);
        assert_eq!(Stamp::read(&body(BODY_BYTES_MIN)[..BODY_BYTES_MIN - 1]), None);
        let mut control = body(BODY_BYTES_MIN);
        control[0] = FrameType::Control.byte();
        assert_eq!(Stamp::read(&control), None);
    }
}
