//! The TOS byte of inner and outer packets: DSCP and ECN, as RFC 6040 has it for tunnels ("normal mode").
//!
//! On the way out both are copied from the inner packet, so that what lies between treats and marks the outer one as it would the
//! inner one. On the way in the inner DSCP stays, and ECN is combined: where congestion was met outside, whoever sent the packet is
//! to know it.

use crate::drops::DropReason;

/// The two bits of ECN (RFC 3168), and what they say.
const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// Where an IPv4 header has its checksum.
const CHECKSUM: std::ops::Range<usize> = 10..12;

/// The TOS byte of an inner packet: what its outer one gets.
pub(super) fn of(packet: &[u8]) -> u8 {
    match *packet {
        [first, tos, ..] if first >> 4 == 4 => tos,
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        _ => 0,
    }
}

/// Lets an inner packet, which was read, tell the congestion that its outer one met.
///
/// # Errors
/// [`DropReason::Congestion`]: the outer packet met congestion, and the sender of the inner one would not understand a mark, so that
/// only a loss tells it.
pub(super) fn combine(packet: &mut [u8], outer: u8) -> Result<(), DropReason> {
    let inner = of(packet);
    let ecn = match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => return Err(DropReason::Congestion),
        (ECT_0 | ECT_1, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (same, _) => same,
    };
    if ecn != inner & ECN {
        set(packet, inner & !ECN | ecn);
    }
    Ok(())
}

/// The outer ECN of a packet that came as two halves: congestion that either met (RFC 3168, section 5.3); else that of the last.
pub(super) fn join(one: u8, last: u8) -> u8 {
    if one & ECN == CE { last | CE } else { last }
}

/// Sets the TOS byte.
fn set(packet: &mut [u8], tos: u8) {
    match packet {
        [first, second, ..] if *first >> 4 == 6 => {
            *first = *first & 0xf0 | tos >> 4;
            *second = *second & 0x0f | tos << 4;
        }
        [first, ..] if *first >> 4 == 4 => {
            let header_bytes = usize::from(*first & 0x0f) * 4;
            let Some(header) = packet.get_mut(..header_bytes).filter(|header| header.len() >= CHECKSUM.end) else {
                return;
            };
            // A packet with a wrong checksum keeps a wrong one: it is corrected by the difference (RFC 1624).
            let old = u16::from_be_bytes([header[0], header[1]]);
            header[1] = tos;
            let new = u16::from_be_bytes([header[0], header[1]]);
            let checksum = u16::from_be_bytes([header[10], header[11]]);
            let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let checksum = !u16::try_from(sum).expect("folded to 16 bits");
            header[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::{CE, ECT_0, ECT_1, NOT_ECT, combine, join, of, set};
    use crate::drops::DropReason;

    /// A packet of either family whose TOS byte is `tos`.
    fn packets(tos: u8) -> [Vec<u8>; 2] {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2).write(&mut v4, b"four").unwrap();
        PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(1, 2).write(&mut v6, b"six").unwrap();
        set(&mut v4, tos);
        set(&mut v6, tos);
        [v4, v6]
    }

    fn assert_whole(packet: &[u8]) {
        let (headers, _) = etherparse::IpHeaders::from_slice(packet).unwrap();
        if let etherparse::IpHeaders::Ipv4(header, _) = headers {
            assert_eq!(header.header_checksum, header.calc_header_checksum());
        }
    }

    #[test]
    fn the_byte_is_found_and_set_in_both_families() {
        for tos in [0, 0x02, 0xb8, 0xbb, 0xff] {
            for packet in packets(tos) {
                assert_eq!(of(&packet), tos);
                assert_whole(&packet);
            }
        }
        assert_eq!((of(&[]), of(&[0x45]), of(&[0x10, 0xff])), (0, 0, 0));
    }

    #[test]
    fn ecn_is_combined_by_the_table_of_rfc_6040_and_dscp_stays() {
        // By inner, of outer Not-ECT, ECT(0), ECT(1), CE; `None`: dropped.
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expect) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                for mut packet in packets(0xb8 | inner) {
                    let before = packet.clone();
                    // The outer DSCP was changed on the way.
                    let outcome = combine(&mut packet, 0x28 | outer);
                    match expect {
                        Some(ecn) => {
                            assert_eq!(outcome, Ok(()));
                            assert_eq!(of(&packet), 0xb8 | ecn, "inner {inner}, outer {outer}");
                            assert_whole(&packet);
                        }
                        None => {
                            assert_eq!(outcome, Err(DropReason::Congestion));
                            assert_eq!(packet, before);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn congestion_that_one_half_met_counts() {
        assert_eq!(join(CE, ECT_0), CE);
        assert_eq!(join(ECT_0, CE), CE);
        assert_eq!(join(ECT_0, ECT_0), ECT_0);
    }
}
