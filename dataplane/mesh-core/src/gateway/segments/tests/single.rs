//! Packets that stand for themselves.

use super::plain::{self, ALL, Spec, make_partial, naive_sum, payload};
use crate::drops::DropReason;
use crate::gateway::segments::virtio::Partial;
use crate::gateway::segments::{VirtioHeader, arrive, complete, leave};
use crate::seam::Offloads;

fn asks(partial: Partial) -> VirtioHeader {
    VirtioHeader { checksum: Some(partial), cut: None }
}

#[test]
fn a_partial_checksum_of_tcp_or_udp_travels_as_it_is() {
    for mut spec in Spec::all() {
        for options in [0, 8, 40] {
            spec.ip_options = vec![1; if spec.v6 { 0 } else { options }];
            let mut packet = spec.packet(&payload(333));
            make_partial(&mut packet);
            let before = packet.clone();
            assert_eq!(leave(&mut packet, &asks(spec.partial())), Ok(true));
            assert_eq!(packet, before);
        }
    }
}

#[test]
fn a_complete_packet_travels_as_it_is() {
    for spec in Spec::all() {
        let mut packet = spec.packet(&payload(100));
        let before = packet.clone();
        assert_eq!(leave(&mut packet, &VirtioHeader::default()), Ok(false));
        assert_eq!(packet, before);
    }
}

#[test]
fn other_partial_checksums_are_completed_before_they_travel() {
    // UDP behind an extension header of IPv6.
    let plain = Spec::new(true, false).packet(&payload(101));
    let mut packet = plain[..40].to_vec();
    packet[5] += 8;
    packet[6] = 60;
    packet.extend_from_slice(&[17, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend_from_slice(&plain[40..]);
    let complete = packet.clone();
    let mut unfinished = plain.clone();
    make_partial(&mut unfinished);
    packet[54..56].copy_from_slice(&unfinished[46..48]);
    assert_ne!(packet, complete);
    assert_eq!(leave(&mut packet, &asks(Partial { start: 48, offset: 6 })), Ok(false));
    assert_eq!(packet, complete);

    // A fragment, of which the mark would say nothing.
    let mut spec = Spec::new(false, false);
    spec.fragment = 0x2000;
    let mut packet = spec.packet(&payload(64));
    let wanted = !naive_sum(&packet[20..]);
    assert_eq!(leave(&mut packet, &asks(spec.partial())), Ok(false));
    assert_eq!(packet[26..28], wanted.to_be_bytes());
}

#[test]
fn a_completed_zero_is_written_as_ones() {
    let mut packet = Spec::new(false, false).packet(&payload(64));
    packet[9] = 136;
    packet[20..].fill(0);
    packet[26..28].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(leave(&mut packet, &asks(Partial { start: 20, offset: 6 })), Ok(false));
    assert_eq!(packet[26..28], [0xff, 0xff]);
}

#[test]
fn a_checksum_outside_of_the_packet_is_refused() {
    let packet = Spec::new(false, true).packet(&payload(60));
    let end = packet.len() as u16;
    for partial in [
        Partial { start: end, offset: 0 },
        Partial { start: end + 1, offset: 0 },
        Partial { start: u16::MAX, offset: u16::MAX },
        Partial { start: 20, offset: end - 20 },
        Partial { start: 20, offset: end - 21 },
    ] {
        let mut changed = packet.clone();
        assert_eq!(leave(&mut changed, &asks(partial)), Err(DropReason::BadOffload), "{partial:?}");
        assert_eq!(changed, packet);
    }
    assert_eq!(leave(&mut packet.clone(), &Spec::new(false, true).cut(20)), Err(DropReason::BadOffload));
}

#[test]
fn completing_reads_nothing_of_the_field() {
    for spec in Spec::all() {
        for bytes in [1, 2, 31, 1348] {
            let whole = spec.packet(&payload(bytes));
            let at = spec.ip_bytes() + usize::from(spec.partial().offset);
            for field in [[0, 0], [0xff, 0xff], [0x12, 0x34]] {
                let mut packet = whole.clone();
                packet[at..at + 2].copy_from_slice(&field);
                complete(&mut packet).unwrap();
                assert_eq!(packet, whole);
            }
        }
    }
}

/// A payload for which the checksum of `spec` comes out as zero.
pub(super) fn payload_of_zero(spec: &Spec) -> Vec<u8> {
    let mut bytes = payload(64);
    bytes[..2].copy_from_slice(&[0, 0]);
    let at = spec.ip_bytes() + usize::from(spec.partial().offset);
    let packet = spec.packet(&bytes);
    let checksum = [packet[at], packet[at + 1]];
    bytes[..2].copy_from_slice(&checksum);
    bytes
}

#[test]
fn zero_is_spelled_with_ones_in_udp_only() {
    for spec in Spec::all() {
        let mut packet = spec.packet(&payload_of_zero(&spec));
        let at = spec.ip_bytes() + usize::from(spec.partial().offset);
        make_partial(&mut packet);
        complete(&mut packet).unwrap();
        let wanted = if spec.tcp { [0, 0] } else { [0xff, 0xff] };
        assert_eq!(packet[at..at + 2], wanted);
    }
}

#[test]
fn an_arriving_partial_checksum_is_completed_or_left_to_the_interface() {
    for spec in Spec::all() {
        let whole = spec.packet(&payload(77));
        let at = spec.ip_bytes() + usize::from(spec.partial().offset);
        let mut packet = whole.clone();
        packet[at] ^= 0x55;
        assert_eq!(arrive(&mut packet, true, Offloads::NONE), Ok(VirtioHeader::default()));
        assert_eq!(packet, whole);
        packet[at] ^= 0x55;
        let header = arrive(&mut packet, true, ALL).unwrap();
        assert_eq!(header, asks(spec.partial()));
        assert_eq!(plain::taken(&header, &packet), std::slice::from_ref(&whole));

        let mut wrong = whole.clone();
        wrong[at] ^= 0x55;
        let before = wrong.clone();
        assert_eq!(arrive(&mut wrong, false, ALL), Ok(VirtioHeader::default()));
        assert_eq!(wrong, before);
    }
}

#[test]
fn a_mark_on_what_is_not_tcp_or_udp_is_refused() {
    let mut icmp = Spec::new(false, false).packet(&payload(64));
    icmp[9] = 1;
    let mut fragment = Spec::new(false, false);
    fragment.fragment = 0x2000;
    let mut behind = Spec::new(true, true).packet(&payload(64));
    behind[6] = 60;
    let mut short = Spec::new(false, true).packet(&payload(64));
    short.truncate(100);
    for packet in [icmp, fragment.packet(&payload(64)), behind, short, vec![], vec![0x45]] {
        assert_eq!(arrive(&mut packet.clone(), true, ALL), Err(DropReason::BadOffload));
        assert_eq!(complete(&mut packet.clone()), Err(DropReason::BadOffload));
        assert_eq!(arrive(&mut packet.clone(), false, ALL), Ok(VirtioHeader::default()));
    }
}
