//! Packets become superpackets: each rule.

use super::plain::{
    self, ACK, ALL, CWR, ECE, FIN, HEADER_BYTES, PSH, RST, SYN, Spec, TAG_BYTES, URG, complete, finish, join,
    make_partial, payload, segment, taken,
};
use super::single::payload_of_zero;
use crate::drops::DropReason;
use crate::gateway::segments::virtio::Partial;
use crate::gateway::segments::{Coalescer, VirtioHeader};
use crate::seam::{Action, Offloads};

const EACH: usize = 1000;

/// So many segments of one flow, complete.
fn segments(spec: &Spec, count: usize) -> Vec<Vec<u8>> {
    segment(&spec.packet(&payload(count * EACH)), EACH)
}

fn marked(packets: Vec<Vec<u8>>) -> Vec<(Vec<u8>, bool)> {
    let mark = |mut packet: Vec<u8>| {
        make_partial(&mut packet);
        (packet, true)
    };
    packets.into_iter().map(mark).collect()
}

fn unmarked(packets: Vec<Vec<u8>>) -> Vec<(Vec<u8>, bool)> {
    packets.into_iter().map(|packet| (packet, false)).collect()
}

/// How many packets each of those that are delivered stands for. Together they must be those that were offered, in
/// order.
#[track_caller]
fn counts(offered: &[(Vec<u8>, bool)]) -> Vec<usize> {
    let mut seen = Vec::new();
    let mut counts = Vec::new();
    for (header, packet) in join(offered) {
        let packets = taken(&header, &packet);
        counts.push(packets.len());
        seen.extend(packets);
    }
    let whole = |(packet, partial): &(Vec<u8>, bool)| {
        let mut packet = packet.clone();
        if *partial {
            complete(&mut packet);
        }
        packet
    };
    assert_eq!(seen, offered.iter().map(whole).collect::<Vec<_>>());
    counts
}

/// Four segments, of which `change` makes others, marked or not: so they are delivered.
#[track_caller]
fn check(spec: &Spec, change: impl Fn(&mut [Vec<u8>]), wanted: &[usize]) {
    let mut packets = segments(spec, 4);
    change(&mut packets);
    assert_eq!(counts(&unmarked(packets.clone())), wanted, "complete");
    assert_eq!(counts(&marked(packets)), wanted, "partial");
}

/// As [`check`], with one byte of the third packet's headers another; its checksums fit.
#[track_caller]
fn check_byte(spec: &Spec, at: usize, bits: u8, wanted: &[usize]) {
    let change = |packets: &mut [Vec<u8>]| {
        packets[2][at] ^= bits;
        finish(&mut packets[2]);
    };
    check(spec, change, wanted);
}

#[test]
fn segments_join() {
    for spec in Spec::all() {
        check(&spec, |_| {}, &[4]);
    }
}

#[test]
fn a_superpacket_lies_where_its_packets_lay() {
    let spec = Spec::new(false, true);
    let packets: Vec<Vec<u8>> = marked(segments(&spec, 3)).into_iter().map(|(packet, _)| packet).collect();
    let (mut train, places) = plain::train(&packets);
    let before = train.clone();
    let mut actions = Vec::new();
    let mut coalescer = Coalescer::new(ALL);
    for place in places.clone() {
        coalescer.offer(&mut train, place, true, &mut actions).unwrap();
    }
    assert_eq!(actions, []);
    coalescer.finish(&mut train, &mut actions);
    let header_bytes = spec.header_bytes();
    assert_eq!(
        actions,
        [
            Action::Deliver { bytes: places[0].start - 10..places[0].end },
            Action::DeliverMore { bytes: places[1].start + header_bytes..places[1].end },
            Action::DeliverMore { bytes: places[2].start + header_bytes..places[2].end },
        ]
    );
    // Nothing else was written but the header in front and the first packet's own.
    let first = HEADER_BYTES - 10..HEADER_BYTES + header_bytes;
    assert_eq!(train[..first.start], before[..first.start]);
    assert_eq!(train[first.end..], before[first.end..]);
    let wanted = VirtioHeader::parse(&train[first]).unwrap();
    assert_eq!(wanted, spec.cut(EACH));
}

#[test]
fn marks_may_differ_within_a_run() {
    for spec in Spec::all() {
        let mut packets = unmarked(segments(&spec, 6));
        for number in [0, 3, 4] {
            make_partial(&mut packets[number].0);
            packets[number].1 = true;
        }
        assert_eq!(counts(&packets), [6]);
        let packets: Vec<_> = unmarked(segments(&spec, 3)).into_iter().chain(marked(segments(&spec, 3))).collect();
        assert_eq!(counts(&packets[..3]), [3]);
    }
}

#[test]
fn a_single_packet_is_left_as_it_came() {
    for spec in Spec::all() {
        let packet = spec.packet(&payload(300));
        assert_eq!(join(&[(packet.clone(), false)]), [(VirtioHeader::default(), packet.clone())]);
        // Also if its checksum is wrong: it is not looked at.
        let mut wrong = packet.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(join(&[(wrong.clone(), false)]), [(VirtioHeader::default(), wrong)]);
        let [(unfinished, _)] = &marked(vec![packet])[..] else { panic!("one") };
        let header = VirtioHeader { checksum: Some(spec.partial()), cut: None };
        assert_eq!(join(&[(unfinished.clone(), true)]), [(header, unfinished.clone())]);
    }
}

#[test]
fn the_field_of_a_marked_packet_is_written_anew() {
    for spec in Spec::all() {
        let wanted = marked(segments(&spec, 2));
        for offered in [wanted.clone(), wanted[..1].to_vec()] {
            let mut changed = offered.clone();
            for (packet, _) in &mut changed {
                let Partial { start, offset } = spec.partial();
                packet[usize::from(start + offset)] ^= 0xa5;
            }
            assert_eq!(join(&changed), join(&offered));
        }
    }
}

#[test]
fn a_shorter_packet_is_the_last_of_its_run() {
    for spec in Spec::all() {
        let packets = segment(&spec.packet(&payload(3500)), EACH);
        assert_eq!(counts(&unmarked(packets.clone())), [4]);
        let mut next = spec.clone();
        next.sequence += 3500;
        next.id += 4;
        let both = [packets, segments(&next, 2)].concat();
        assert_eq!(counts(&marked(both)), [4, 2]);
    }
}

#[test]
fn a_longer_packet_begins_a_run() {
    for spec in Spec::all() {
        let mut first = spec.clone();
        first.sequence -= 10;
        first.id -= 1;
        let both = [vec![first.packet(&payload(10))], segments(&spec, 3)].concat();
        assert_eq!(counts(&unmarked(both)), [1, 3]);
    }
}

#[test]
fn psh_and_fin_end_a_run() {
    for v6 in [false, true] {
        let spec = Spec::new(v6, true);
        let flags_at = spec.ip_bytes() + 13;
        for flag in [PSH, FIN, PSH | FIN] {
            check_byte(&spec, flags_at, flag, &[3, 1]);
            let first = |packets: &mut [Vec<u8>]| {
                packets[0][flags_at] |= flag;
                finish(&mut packets[0]);
            };
            check(&spec, first, &[1, 3]);
        }
    }
}

#[test]
fn cwr_is_for_the_first_of_a_run_only() {
    for v6 in [false, true] {
        let mut spec = Spec::new(v6, true);
        check_byte(&spec, spec.ip_bytes() + 13, CWR, &[2, 2]);
        spec.flags |= CWR;
        let packets = marked(segments(&spec, 3));
        let joined = join(&packets);
        assert_eq!(joined.len(), 1);
        assert!(joined[0].0.cut.unwrap().ecn);
        assert_eq!(counts(&packets), [3]);
        // As accurate ECN has it, on several in a row.
        let all = |packets: &mut [Vec<u8>]| {
            for packet in packets {
                packet[spec.ip_bytes() + 13] |= CWR;
                finish(packet);
            }
        };
        check(&spec, all, &[1, 1, 1, 1]);
    }
}

#[test]
fn equal_ece_joins_and_a_change_of_it_does_not() {
    let mut spec = Spec::new(false, true);
    check_byte(&spec, 33, ECE, &[2, 1, 1]);
    spec.flags |= ECE;
    check(&spec, |_| {}, &[4]);
}

#[test]
fn syn_rst_and_urgent_data_never_join() {
    for flag in [SYN, RST, URG] {
        let mut spec = Spec::new(true, true);
        check_byte(&spec, 53, flag, &[2, 1, 1]);
        spec.flags |= flag;
        check(&spec, |_| {}, &[1, 1, 1, 1]);
    }
}

#[test]
fn what_a_cut_copies_has_to_be_equal() {
    let tcp4 = Spec::new(false, true);
    // Traffic class, DF, time to live; acknowledgement, reserved bits, window, urgent pointer, timestamps.
    for at in [1, 8, 28, 31, 34, 35, 38, 39, 47, 51] {
        check_byte(&tcp4, at, 1, &[2, 1, 1]);
    }
    check_byte(&tcp4, 32, 1, &[2, 1, 1]);
    check_byte(&tcp4, 6, 0x40, &[2, 1, 1]);
    let tcp6 = Spec::new(true, true);
    // Traffic class, flow label, hop limit.
    for (at, bits) in [(0, 1), (1, 0x10), (1, 1), (3, 1), (7, 1), (48, 1), (54, 1), (71, 1)] {
        check_byte(&tcp6, at, bits, &[2, 1, 1]);
    }
    check_byte(&Spec::new(false, false), 8, 1, &[2, 1, 1]);
    check_byte(&Spec::new(true, false), 3, 1, &[2, 1, 1]);
}

#[test]
fn what_a_cut_counts_has_to_be_next() {
    let tcp4 = Spec::new(false, true);
    check_byte(&tcp4, 27, 1, &[2, 1, 1]);
    check_byte(&tcp4, 5, 1, &[2, 1, 1]);
    check_byte(&Spec::new(true, true), 44, 0x80, &[2, 1, 1]);
    for tcp in [false, true] {
        let mut wraps = Spec::new(false, tcp);
        wraps.id = 0xfffe;
        wraps.sequence = u32::MAX - 1500;
        check(&wraps, |_| {}, &[4]);
        let missing = unmarked(segments(&wraps, 5)).into_iter().enumerate().filter(|(number, _)| *number != 2);
        assert_eq!(counts(&missing.map(|(_, packet)| packet).collect::<Vec<_>>()), [2, 2]);
    }
}

#[test]
fn equal_identifications_do_not_join() {
    for tcp in [false, true] {
        let equal = |packets: &mut [Vec<u8>]| {
            for packet in packets {
                packet[4..6].fill(0);
                finish(packet);
            }
        };
        check(&Spec::new(false, tcp), equal, &[1, 1, 1, 1]);
    }
}

#[test]
fn without_df_packets_join_too() {
    for tcp in [false, true] {
        let spec = Spec { fragment: 0, ..Spec::new(false, tcp) };
        check(&spec, |_| {}, &[4]);
        check(&Spec { fragment: 0x8000, ..spec }, |_| {}, &[1, 1, 1, 1]);
    }
}

#[test]
fn fragments_and_ipv4_options_do_not_join() {
    for tcp in [false, true] {
        let spec = Spec::new(false, tcp);
        let options = Spec { ip_options: vec![1; 4], ..spec.clone() };
        check(&options, |_| {}, &[1, 1, 1, 1]);
        for fragment in [0x2000, 0x0010, 0x2010] {
            let fragments = unmarked(segments(&Spec { fragment, ..spec.clone() }, 3));
            assert_eq!(counts(&fragments), [1, 1, 1]);
        }
    }
}

#[test]
fn packets_without_payload_do_not_join_and_keep_their_place() {
    for spec in Spec::all() {
        let mut packets = segments(&spec, 4);
        let mut empty = spec.clone();
        empty.sequence += 2 * EACH as u32;
        empty.id += 2;
        packets.insert(2, empty.packet(&[]));
        for packet in if spec.v6 { &mut [][..] } else { &mut packets[3..] } {
            let id = u16::from_be_bytes([packet[4], packet[5]]) + 1;
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            finish(packet);
        }
        assert_eq!(counts(&unmarked(packets.clone())), [2, 1, 2]);
        assert_eq!(counts(&marked(packets)), [2, 1, 2]);
    }
}

#[test]
fn datagrams_without_a_checksum_do_not_join() {
    for v6 in [false, true] {
        let spec = Spec::new(v6, false);
        let mut packets = unmarked(segments(&spec, 4));
        for (packet, _) in &mut packets {
            packet[spec.ip_bytes() + 6..spec.ip_bytes() + 8].fill(0);
        }
        assert_eq!(counts(&packets), [1, 1, 1, 1]);
        // A mark says that there is one to be.
        packets.iter_mut().for_each(|(_, partial)| *partial = true);
        assert_eq!(counts(&packets), [4]);
    }
}

#[test]
fn a_packet_with_a_wrong_checksum_passes_alone_and_unchanged() {
    for spec in Spec::all() {
        let header_at = if spec.v6 { None } else { Some(10) };
        for at in [Some(spec.header_bytes() + 5), Some(spec.ip_bytes() + 7), header_at].into_iter().flatten() {
            for (number, wanted) in [(0, &[1, 3][..]), (1, &[1, 1, 2]), (2, &[2, 1, 1]), (3, &[3, 1])] {
                let mut packets = unmarked(segments(&spec, 4));
                if at == spec.ip_bytes() + 7 && spec.tcp {
                    // A wrong sequence number does not even fit.
                    continue;
                }
                packets[number].0[at] ^= 4;
                assert_eq!(counts(&packets), wanted, "byte {at} of packet {number}");
            }
        }
    }
}

#[test]
fn a_wrong_header_checksum_of_a_marked_packet_passes_alone_too() {
    let mut packets = marked(segments(&Spec::new(false, true), 4));
    packets[2].0[11] ^= 1;
    assert_eq!(counts(&packets), [2, 1, 1]);
}

#[test]
fn a_checksum_spelled_otherwise_passes_alone() {
    let spec = Spec::new(true, true);
    let mut first = spec.clone();
    first.sequence -= 64;
    let zero = spec.packet(&payload_of_zero(&spec));
    assert_eq!(zero[56..58], [0, 0]);
    let before = first.packet(&payload(64));
    assert_eq!(counts(&unmarked(vec![before.clone(), zero.clone()])), [2]);
    let mut ones = zero;
    ones[56..58].fill(0xff);
    assert_eq!(counts(&unmarked(vec![before, ones])), [1, 1]);
}

#[test]
fn at_most_64_packets_join() {
    for spec in Spec::all() {
        let packets = segment(&spec.packet(&payload(1300)), 10);
        assert_eq!(counts(&marked(packets)), [64, 64, 2]);
    }
}

#[test]
fn at_most_65535_bytes_join() {
    for spec in Spec::all() {
        let headers = spec.header_bytes();
        // Twice as many bytes as one superpacket has, which the plain way could not make at once.
        let mut packets = segment(&spec.packet(&payload(40_000)), 10_000);
        let mut next = spec.clone();
        next.sequence += 40_000;
        next.id += 4;
        packets.extend(segment(&next.packet(&payload(30_000)), 10_000));
        assert_eq!(counts(&marked(packets.clone())), [6, 1]);

        let last = 65_535 - headers - 60_000;
        for (bytes, wanted) in [(last, &[7][..]), (last + 1, &[6, 1])] {
            let mut end = next.clone();
            end.sequence += 20_000;
            end.id += 2;
            packets.truncate(6);
            packets.push(end.packet(&payload(bytes)));
            assert_eq!(counts(&marked(packets.clone())), wanted);
        }
    }
}

/// What is delivered of `offered`, each by the port it comes from and how many packets it stands for.
fn ports(offered: &[(Vec<u8>, bool)]) -> Vec<(u16, usize)> {
    let port = |packet: &[u8]| {
        let (at, _, _) = plain::layout(packet);
        u16::from_be_bytes([packet[at], packet[at + 1]])
    };
    join(offered).iter().map(|(header, packet)| (port(packet), taken(header, packet).len())).collect()
}

fn in_turn(flows: &[Spec], count: usize) -> Vec<Vec<u8>> {
    let segments: Vec<_> = flows.iter().map(|spec| segments(spec, count)).collect();
    (0..count).flat_map(|number| segments.iter().map(move |flow| flow[number].clone())).collect()
}

fn flow(port: u16) -> Spec {
    Spec { ports: [port, 5201], ..Spec::new(false, port.is_multiple_of(2)) }
}

#[test]
fn four_flows_in_turn_join_each_with_its_own() {
    let flows = [flow(1), flow(2), flow(4), flow(6)];
    assert_eq!(ports(&marked(in_turn(&flows, 5))), [(1, 5), (2, 5), (4, 5), (6, 5)]);
}

#[test]
fn a_fifth_flow_ends_the_oldest_run() {
    let flows = [flow(2), flow(4), flow(6), flow(8)];
    let mut packets = in_turn(&flows, 2);
    packets.extend(segments(&flow(1), 2));
    assert_eq!(ports(&marked(packets)), [(2, 2), (4, 2), (6, 2), (8, 2), (1, 2)]);
    let five = [flow(2), flow(4), flow(6), flow(8), flow(10)];
    let all = ports(&marked(in_turn(&five, 2)));
    assert_eq!(all.iter().map(|(_, count)| count).sum::<usize>(), 10);
    assert_eq!(all[..2], [(2, 1), (4, 1)]);
}

#[test]
fn a_flow_is_told_by_protocol_addresses_and_ports() {
    let base = Spec::new(false, true);
    for other in [
        Spec { ports: [40_000, 5202], ..base.clone() },
        Spec { ports: [40_001, 5201], ..base.clone() },
        Spec { hosts: [1, 3], ..base.clone() },
        Spec { hosts: [3, 2], ..base.clone() },
        Spec::new(false, false),
        Spec::new(true, true),
    ] {
        let delivered = join(&marked(in_turn(&[base.clone(), other], 3)));
        assert_eq!(delivered.iter().map(|(header, packet)| taken(header, packet).len()).collect::<Vec<_>>(), [3, 3]);
    }
}

#[test]
fn what_does_not_join_lets_runs_of_other_flows_be() {
    let mut packets = segments(&flow(2), 3);
    packets.insert(1, Spec { ports: [7, 7], ..Spec::new(false, true) }.packet(&[]));
    assert_eq!(ports(&marked(packets)), [(7, 1), (2, 3)]);
}

#[test]
fn what_has_no_flow_ends_all_runs() {
    let mut packets = unmarked(in_turn(&[flow(2), flow(4)], 2));
    let mut icmp = Spec::new(false, false).packet(&payload(56));
    icmp[9] = 1;
    packets.insert(2, (icmp.clone(), false));
    let delivered = join(&packets);
    let is_icmp: Vec<bool> = delivered.iter().map(|(_, packet)| packet[9] == 1).collect();
    assert_eq!(is_icmp, [false, false, true, false, false]);
    assert_eq!(delivered[2], (VirtioHeader::default(), icmp));
}

#[test]
fn a_mark_on_what_is_not_tcp_or_udp_is_refused() {
    let mut packet = Spec::new(false, false).packet(&payload(56));
    packet[9] = 1;
    let mut packets = segments(&Spec::new(false, true), 2);
    packets.insert(1, packet);
    let (mut train, places) = plain::train(&packets);
    let mut actions = Vec::new();
    let mut coalescer = Coalescer::new(ALL);
    assert_eq!(coalescer.offer(&mut train, places[0].clone(), false, &mut actions), Ok(()));
    assert_eq!(coalescer.offer(&mut train, places[1].clone(), true, &mut actions), Err(DropReason::BadOffload));
    assert_eq!(coalescer.offer(&mut train, places[2].clone(), false, &mut actions), Ok(()));
    coalescer.finish(&mut train, &mut actions);
    assert_eq!(plain::delivered(&train, &actions).len(), 1);
}

/// Two segments of each flow for an interface with `offloads`: actions, and the train after them.
fn deliver(offloads: Offloads, partial: bool) -> (Vec<Action>, Vec<u8>, Vec<Vec<u8>>) {
    let whole: Vec<Vec<u8>> = Spec::all().iter().flat_map(|spec| segments(spec, 2)).collect();
    let offered = if partial { marked(whole.clone()) } else { unmarked(whole.clone()) };
    let bare: Vec<Vec<u8>> = offered.into_iter().map(|(packet, _)| packet).collect();
    let (mut train, places) = plain::train(&bare);
    let mut actions = Vec::new();
    let mut coalescer = Coalescer::new(offloads);
    for place in places {
        coalescer.offer(&mut train, place, partial, &mut actions).unwrap();
    }
    coalescer.finish(&mut train, &mut actions);
    (actions, train, whole)
}

#[test]
fn an_interface_without_offloads_gets_plain_complete_packets() {
    for partial in [false, true] {
        let (actions, train, whole) = deliver(Offloads::NONE, partial);
        let mut start = HEADER_BYTES;
        for (action, packet) in actions.iter().zip(&whole) {
            assert_eq!(*action, Action::Deliver { bytes: start..start + packet.len() });
            assert_eq!(train[start..start + packet.len()], packet[..]);
            start += packet.len() + TAG_BYTES + HEADER_BYTES;
        }
        assert_eq!(actions.len(), whole.len());
    }
}

#[test]
fn an_interface_gets_joined_only_what_it_takes() {
    for partial in [false, true] {
        for (offloads, wanted) in [
            (Offloads { checksum: true, tcp: false, udp: false }, &[1; 8][..]),
            (Offloads { checksum: true, tcp: true, udp: false }, &[1, 1, 1, 1, 2, 2]),
            (Offloads { checksum: true, tcp: false, udp: true }, &[1, 1, 1, 1, 2, 2]),
            (ALL, &[2, 2, 2, 2]),
        ] {
            let (actions, train, whole) = deliver(offloads, partial);
            let delivered = plain::delivered(&train, &actions);
            let mut counts: Vec<usize> = delivered.iter().map(|(header, packet)| taken(header, packet).len()).collect();
            counts.sort_unstable();
            assert_eq!(counts, wanted, "{offloads:?}");
            let mut seen: Vec<_> = delivered.iter().flat_map(|(header, packet)| taken(header, packet)).collect();
            let mut whole = whole;
            seen.sort_unstable();
            whole.sort_unstable();
            assert_eq!(seen, whole);
        }
    }
}

#[test]
fn the_next_train_begins_anew() {
    let spec = Spec::new(true, true);
    let packets = segments(&spec, 4);
    let mut coalescer = Coalescer::new(ALL);
    for packets in packets.chunks(2) {
        let (mut train, places) = plain::train(packets);
        let mut actions = Vec::new();
        for place in places {
            coalescer.offer(&mut train, place, false, &mut actions).unwrap();
        }
        coalescer.finish(&mut train, &mut actions);
        assert_eq!(actions.len(), 2);
        coalescer.finish(&mut train, &mut actions);
        assert_eq!(actions.len(), 2);
        let delivered = plain::delivered(&train, &actions);
        assert_eq!(taken(&delivered[0].0, &delivered[0].1), packets);
    }
}

#[test]
fn the_longest_headers_there_are_join() {
    for v6 in [false, true] {
        let mut spec = Spec::new(v6, true);
        spec.options = payload(40);
        check(&spec, |_| {}, &[4]);
        assert_eq!(spec.flags, ACK);
    }
}
