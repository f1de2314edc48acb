//! Superpackets become packets.

use super::plain::{ACK, CWR, ECE, FIN, PSH, Spec, complete, layout, make_partial, payload, segment};
use crate::drops::DropReason;
use crate::gateway::segments::virtio::{CutKind, Partial};
use crate::gateway::segments::{Cutter, VirtioHeader};

/// A superpacket as an interface gives it.
fn superpacket(spec: &Spec, bytes: usize) -> Vec<u8> {
    let mut packet = spec.packet(&payload(bytes));
    make_partial(&mut packet);
    packet
}

/// The packets it is cut into, each written over what was there before.
pub(super) fn cut(packet: &[u8], header: &VirtioHeader) -> Vec<Vec<u8>> {
    let mut cutter = Cutter::new(packet, header).unwrap();
    let count = cutter.segments();
    let longest = cutter.longest();
    let total = cutter.total_bytes();
    let mut packets = Vec::new();
    let mut out = vec![0xcc; longest + 3];
    while let Some(bytes) = cutter.write_next(&mut out) {
        assert!(bytes <= longest);
        assert!(out[bytes..].len() >= 3);
        packets.push(out[..bytes].to_vec());
        out.fill(0xcc);
    }
    assert_eq!(packets.len(), count);
    assert_eq!(packets.iter().map(Vec::len).sum::<usize>(), total);
    assert_eq!(packets[0].len(), longest);
    assert_eq!(cutter.write_next(&mut out), None);
    packets
}

/// Each is what plain segmentation yields, but for its checksum, which is partial.
fn check(spec: &Spec, bytes: usize, payload_bytes: usize) {
    let packet = superpacket(spec, bytes);
    let packets = cut(&packet, &spec.cut(payload_bytes));
    let mut plain = segment(&packet, payload_bytes);
    for packet in &mut plain {
        make_partial(packet);
    }
    assert_eq!(packets, plain);
}

#[test]
fn segments_are_those_of_plain_segmentation() {
    for spec in Spec::all() {
        for (bytes, payload_bytes) in
            [(4000, 1000), (4001, 1000), (3999, 1000), (65_000, 1348), (65_000, 1347), (7, 1), (1000, 1000), (5, 1000)]
        {
            check(&spec, bytes, payload_bytes);
        }
    }
}

#[test]
fn options_travel_with_each_segment() {
    for mut spec in Spec::all() {
        if !spec.v6 {
            spec.ip_options = vec![7, 39, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        }
        if spec.tcp {
            spec.options = payload(40);
        }
        check(&spec, 5001, 1200);
    }
}

#[test]
fn the_longest_superpackets_are_cut() {
    for spec in Spec::all() {
        let most = 65_535 - if spec.v6 { spec.header_bytes() - 40 } else { spec.header_bytes() };
        check(&spec, most, 1348);
    }
}

#[test]
fn fin_and_psh_are_for_the_last_and_cwr_for_the_first() {
    let mut spec = Spec::new(false, true);
    spec.flags = ACK | FIN | PSH | CWR | ECE;
    let packets = cut(&superpacket(&spec, 3000), &spec.cut(1000));
    let flags: Vec<u8> = packets.iter().map(|packet| packet[33]).collect();
    assert_eq!(flags, [ACK | ECE | CWR, ACK | ECE, ACK | ECE | FIN | PSH]);
    let alone = cut(&superpacket(&spec, 1000), &spec.cut(1000));
    assert_eq!(alone[0][33], spec.flags);
    check(&spec, 3000, 1000);
}

#[test]
fn numbers_wrap() {
    let mut spec = Spec::new(false, true);
    spec.id = 0xfffe;
    spec.sequence = u32::MAX - 1500;
    let packets = cut(&superpacket(&spec, 4000), &spec.cut(1000));
    let ids: Vec<u16> = packets.iter().map(|packet| u16::from_be_bytes([packet[4], packet[5]])).collect();
    assert_eq!(ids, [0xfffe, 0xffff, 0, 1]);
    check(&spec, 4000, 1000);
}

#[test]
fn what_the_interface_left_in_fields_that_are_computed_does_not_matter() {
    for spec in Spec::all() {
        let packet = superpacket(&spec, 3000);
        let wanted = cut(&packet, &spec.cut(700));
        let mut other = packet.clone();
        let (at, tcp, _) = layout(&other);
        other[at + if tcp { 16 } else { 6 }] ^= 0xff;
        if !spec.v6 {
            other[10] ^= 0xff;
        }
        let mut header = spec.cut(700);
        let cut_of = header.cut.as_mut().unwrap();
        // Linux tells how much lies in one piece.
        cut_of.header_bytes = 9000;
        assert_eq!(cut(&other, &header), wanted);
    }
}

#[test]
fn tcp_is_cut_whose_checksum_was_complete_as_linux_does() {
    for spec in Spec::all() {
        let packet = spec.packet(&payload(3000));
        let header = VirtioHeader { checksum: None, ..spec.cut(700) };
        if spec.tcp {
            let mut packets = cut(&packet, &header);
            packets.iter_mut().for_each(|packet| complete(packet));
            assert_eq!(packets, segment(&packet, 700));
        } else {
            assert_eq!(Cutter::new(&packet, &header).err(), Some(DropReason::BadOffload));
        }
    }
}

/// The superpacket that `change` makes of a good one is refused.
#[track_caller]
fn refused(spec: &Spec, change: impl FnOnce(&mut Vec<u8>, &mut VirtioHeader)) {
    let mut packet = superpacket(spec, 3000);
    let mut header = spec.cut(1000);
    assert!(Cutter::new(&packet, &header).is_ok());
    change(&mut packet, &mut header);
    assert_eq!(Cutter::new(&packet, &header).err(), Some(DropReason::BadOffload));
}

#[test]
fn a_header_that_does_not_fit_is_refused() {
    for spec in Spec::all() {
        refused(&spec, |_, header| header.cut = None);
        refused(&spec, |_, header| header.cut.as_mut().unwrap().payload_bytes = 0);
        for kind in [CutKind::Tcp4, CutKind::Tcp6, CutKind::Udp] {
            if kind != spec.kind() {
                refused(&spec, |_, header| header.cut.as_mut().unwrap().kind = kind);
            }
        }
        let Partial { start, offset } = spec.partial();
        refused(&spec, |_, header| header.checksum = Some(Partial { start: start + 2, offset }));
        refused(&spec, |_, header| header.checksum = Some(Partial { start, offset: offset + 2 }));
        refused(&spec, |_, header| header.checksum = Some(Partial { start: u16::MAX, offset: u16::MAX }));
    }
}

#[test]
fn a_packet_that_does_not_fit_is_refused() {
    for spec in Spec::all() {
        refused(&spec, |packet, _| packet.clear());
        refused(&spec, |packet, _| packet.truncate(1));
        refused(&spec, |packet, _| packet.truncate(2000));
        refused(&spec, |packet, _| packet.push(0));
        refused(&spec, |packet, _| packet[0] = 0x75);
        refused(&spec, |packet, _| packet[if spec.v6 { 6 } else { 9 }] = if spec.v6 { 58 } else { 1 });
        refused(&spec, |packet, _| *packet = spec.packet(&[]));
        let at = spec.ip_bytes();
        if spec.tcp {
            refused(&spec, |packet, _| packet[at + 12] = 0x40);
            refused(&spec, |packet, _| {
                *packet = spec.packet(&payload(8));
                packet[at + 12] = 0xf0;
            });
        } else {
            refused(&spec, |packet, _| packet[at + 5] ^= 1);
        }
        if spec.v6 {
            // Hop-by-hop options, routing, fragment, destination options.
            for next in [0, 43, 44, 60] {
                refused(&spec, |packet, _| packet[6] = next);
            }
            // The length of a jumbogram.
            refused(&spec, |packet, _| packet[4..6].fill(0));
        } else {
            refused(&spec, |packet, _| packet[6] = 0x20);
            refused(&spec, |packet, _| packet[7] = 1);
            refused(&spec, |packet, _| packet[0] = 0x44);
        }
    }
}
