//! What holds for whatever comes.

use std::collections::HashMap;
use std::ops::Range;

use proptest::prelude::*;

use super::cut::cut;
use super::plain::{self, ACK, ALL, CWR, ECE, FIN, PSH, Spec, complete, make_partial, payload, segment, taken};
use crate::gateway::segments::{Coalescer, Cutter, VirtioHeader, arrive, leave};
use crate::seam::{Action, Offloads};

/// Headers of any kind, of a superpacket that may be cut.
fn specs() -> impl Strategy<Value = Spec> {
    let fixed = (any::<bool>(), any::<bool>(), any::<u8>(), 0..1_u32 << 20, any::<u8>(), any::<bool>(), any::<u16>());
    let options = (0..4_usize, 0..=10_usize);
    let tcp = (any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>(), any::<[bool; 4]>());
    (fixed, options, tcp, any::<[u16; 2]>(), any::<[u8; 2]>()).prop_map(|(fixed, options, tcp, ports, hosts)| {
        let mut spec = Spec::new(fixed.0, fixed.1);
        (spec.class, spec.label, spec.ttl, spec.id) = (fixed.2, fixed.3, fixed.4, fixed.6);
        spec.fragment = if fixed.5 { 0x4000 } else { 0 };
        spec.ip_options = vec![1; if spec.v6 { 0 } else { options.0 * 4 }];
        (spec.sequence, spec.acknowledgement, spec.window, spec.urgent) = (tcp.0, tcp.1, tcp.2, tcp.3);
        let [psh, fin, ece, cwr] = tcp.4;
        spec.flags = ACK;
        for (set, flag) in [(psh, PSH), (fin, FIN), (ece, ECE), (cwr, CWR)] {
            spec.flags |= if set { flag } else { 0 };
        }
        spec.options = if spec.tcp { payload(options.1 * 4) } else { vec![] };
        (spec.ports, spec.hosts) = (ports, hosts);
        spec
    })
}

/// One step of a flow in a random train.
#[derive(Clone, Debug)]
enum Step {
    /// Segments of a superpacket: payload bytes of all, and of each.
    Burst(usize, usize),
    /// A pure acknowledgement, or an empty datagram.
    Empty,
    /// One packet with such flags, of such a length.
    Flags(u8, usize),
    /// From now on the traffic class, the time to live, or the window and options are others.
    Change(u8),
    /// The next sequence number or identification is skipped.
    Skip,
    /// A packet with wrong checksums.
    Broken(bool),
    /// A fragment, for TCP too.
    Fragment,
    /// A datagram without a checksum.
    Unsummed,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..9000_usize, 1..1400_usize).prop_map(|(all, each)| Step::Burst(all, each.max(all / 70 + 1))),
        4 => (1..9_usize, 1..1400_usize).prop_map(|(count, each)| Step::Burst(count * each, each)),
        1 => Just(Step::Empty),
        2 => (any::<u8>(), 1..1400_usize).prop_map(|(flags, bytes)| Step::Flags(flags, bytes)),
        1 => (0..6_u8).prop_map(Step::Change),
        1 => Just(Step::Skip),
        1 => any::<bool>().prop_map(Step::Broken),
        1 => Just(Step::Fragment),
        1 => Just(Step::Unsummed),
    ]
}

/// The packets of a step, complete, each with whether it may travel marked partial.
fn packets_of(spec: &mut Spec, step: &Step) -> Vec<(Vec<u8>, bool)> {
    let flags = spec.flags;
    let mut after = 1;
    let made = match *step {
        Step::Burst(all, each) => {
            let packets = segment(&spec.packet(&payload(all)), each);
            after = packets.len();
            spec.sequence = spec.sequence.wrapping_add(all as u32);
            packets.into_iter().map(|packet| (packet, true)).collect()
        }
        Step::Empty => vec![(spec.packet(&[]), true)],
        Step::Flags(flags, bytes) => {
            spec.flags = flags;
            let packet = spec.packet(&payload(bytes));
            spec.sequence = spec.sequence.wrapping_add(bytes as u32);
            vec![(packet, true)]
        }
        Step::Change(what) => {
            after = 0;
            match what {
                0 => spec.class ^= 3,
                1 => spec.ttl -= 1,
                2 => spec.window += 1,
                3 => spec.acknowledgement += 9,
                4 => spec.fragment ^= 0x4000,
                _ => spec.options.iter_mut().for_each(|option| *option ^= 1),
            }
            vec![]
        }
        Step::Skip => {
            spec.sequence = spec.sequence.wrapping_add(1);
            vec![]
        }
        Step::Broken(header) => {
            let mut packet = spec.packet(&payload(500));
            let at = if header && !spec.v6 { 10 } else { spec.header_bytes() };
            packet[at] ^= 0x10;
            spec.sequence = spec.sequence.wrapping_add(500);
            vec![(packet, false)]
        }
        Step::Fragment if !spec.v6 => {
            let kept = spec.fragment;
            spec.fragment |= 0x2000;
            let packet = spec.packet(&payload(200));
            spec.fragment = kept;
            vec![(packet, false)]
        }
        Step::Unsummed if !spec.tcp => {
            let mut packet = spec.packet(&payload(200));
            let at = spec.ip_bytes() + 6;
            packet[at..at + 2].fill(0);
            vec![(packet, false)]
        }
        Step::Fragment | Step::Unsummed => vec![],
    };
    spec.flags = flags;
    spec.id = spec.id.wrapping_add(after as u16);
    made
}

/// A flow's name: its protocol, addresses and ports.
fn flow(packet: &[u8]) -> Vec<u8> {
    let (at, _, _) = plain::layout(packet);
    let mut name = if packet[0] >> 4 == 6 { packet[8..40].to_vec() } else { packet[12..20].to_vec() };
    name.push(packet[if packet[0] >> 4 == 6 { 6 } else { 9 }]);
    name.extend_from_slice(&packet[at..at + 4]);
    name
}

fn by_flow(packets: impl IntoIterator<Item = Vec<u8>>) -> HashMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    for packet in packets {
        flows.entry(flow(&packet)).or_default().push(packet);
    }
    flows
}

/// Six flows: more than runs are open at a time.
fn flows() -> Vec<Spec> {
    let mut flows: Vec<Spec> = Spec::all().to_vec();
    flows.push(Spec { ports: [40001, 5201], ..Spec::new(false, true) });
    flows.push(Spec { hosts: [1, 9], sequence: u32::MAX - 2000, id: 0xfff0, ..Spec::new(false, true) });
    flows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cutting_is_plain_segmentation(spec in specs(), bytes in 1..65_000_usize, payload_bytes in 1..3000_usize) {
        let payload_bytes = payload_bytes.max(bytes / 300 + 1);
        let mut packet = spec.packet(&payload(bytes));
        make_partial(&mut packet);
        let mut packets = cut(&packet, &spec.cut(payload_bytes));
        packets.iter_mut().for_each(|packet| complete(packet));
        prop_assert_eq!(packets, segment(&packet, payload_bytes));
    }

    #[test]
    fn what_was_cut_joins_to_the_same(
        spec in specs(),
        segments in 2..=64_usize,
        payload_bytes in 1..3000_usize,
        last in 1..3000_usize,
        complete_too in any::<u64>(),
    ) {
        let mut spec = spec;
        spec.ip_options.clear();
        let payload_bytes = payload_bytes.min((65_535 - spec.header_bytes()) / segments);
        let bytes = (segments - 1) * payload_bytes + last.min(payload_bytes);
        let mut packet = spec.packet(&payload(bytes));
        make_partial(&mut packet);
        let header = spec.cut(payload_bytes);
        let mut packets = Vec::new();
        for (number, mut packet) in cut(&packet, &header).into_iter().enumerate() {
            // Some come from a sender that completes checksums.
            let partial = complete_too >> number & 1 == 0;
            if !partial {
                complete(&mut packet);
            }
            packets.push((packet, partial));
        }
        prop_assert_eq!(plain::join(&packets), vec![(header, packet)]);
    }

    #[test]
    fn joined_trains_stand_for_what_was_offered(
        steps in prop::collection::vec((0..6_usize, steps()), 1..40),
        marks in any::<u64>(),
        mixed in any::<bool>(),
        offloads in prop::sample::select(vec![
            ALL,
            Offloads { udp: false, ..ALL },
            Offloads { tcp: false, ..ALL },
            Offloads { tcp: false, udp: false, ..ALL },
            Offloads::NONE,
        ]),
    ) {
        let mut specs = flows();
        let mut queues: Vec<Vec<(Vec<u8>, bool)>> = vec![vec![]; if mixed { specs.len() } else { 1 }];
        for (flow, step) in &steps {
            queues[if mixed { *flow } else { 0 }].extend(packets_of(&mut specs[*flow], step));
        }
        // One of each flow in turn, or as they came.
        let longest = queues.iter().map(Vec::len).max().unwrap_or(0);
        let offered: Vec<(Vec<u8>, bool)> =
            (0..longest).flat_map(|at| queues.iter().filter_map(move |queue| queue.get(at).cloned())).collect();

        let mut seen = Vec::new();
        let mut coalescer = Coalescer::new(offloads);
        // A train is at most 64 KiB.
        for packets in offered.chunks(40) {
            let mut sent = Vec::new();
            let mut partial = Vec::new();
            for (number, (packet, may)) in packets.iter().enumerate() {
                let mut packet = packet.clone();
                partial.push(*may && marks >> (number % 64) & 1 == 1);
                if partial[number] {
                    make_partial(&mut packet);
                }
                sent.push(packet);
            }
            let (mut train, places) = plain::train(&sent);
            let mut actions = Vec::new();
            for (place, partial) in places.into_iter().zip(partial) {
                coalescer.offer(&mut train, place, partial, &mut actions).unwrap();
            }
            coalescer.finish(&mut train, &mut actions);
            if offloads.checksum {
                for (header, packet) in plain::delivered(&train, &actions) {
                    prop_assert!(packet.len() <= 65_535);
                    if let Some(cut) = header.cut {
                        let allowed = if plain::layout(&packet).1 { offloads.tcp } else { offloads.udp };
                        prop_assert!(allowed, "joined what the interface does not take joined");
                        prop_assert!(packet.len() > usize::from(cut.header_bytes + cut.payload_bytes));
                    }
                    seen.extend(taken(&header, &packet));
                }
            } else {
                for action in actions {
                    let Action::Deliver { bytes } = action else { panic!("{action:?}") };
                    seen.push(train[bytes].to_vec());
                }
            }
        }
        let offered = by_flow(offered.into_iter().map(|(packet, _)| packet));
        prop_assert_eq!(by_flow(seen), offered);
    }

    #[test]
    fn nothing_panics_at_hostile_bytes(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        header in any::<[u8; 10]>(),
        base in prop::option::of(specs()),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        good in any::<bool>(),
    ) {
        let mut virtio = VirtioHeader::parse(&header);
        if let Some(base) = base {
            // Nearly good: one byte of the headers is another.
            bytes = base.packet(&bytes);
            let at = at.index(base.header_bytes());
            bytes[at] = value;
            if good {
                virtio = Ok(base.cut(7));
            }
        }
        if let Ok(virtio) = virtio {
            if let Ok(mut cutter) = Cutter::new(&bytes, &virtio) {
                let mut out = vec![0; cutter.longest()];
                let mut count = 0;
                while cutter.write_next(&mut out).is_some() {
                    count += 1;
                }
                prop_assert_eq!(count, cutter.segments());
            }
            let _ = leave(&mut bytes.clone(), &VirtioHeader { cut: None, ..virtio });
        }
        for partial in [false, true] {
            let _ = arrive(&mut bytes.clone(), partial, ALL);
            let (mut train, places): (Vec<u8>, Vec<Range<usize>>) =
                plain::train(&[bytes.clone(), bytes.clone(), bytes.clone()]);
            let mut actions = Vec::new();
            let mut coalescer = Coalescer::new(ALL);
            for place in places {
                let _ = coalescer.offer(&mut train, place, partial, &mut actions);
            }
            coalescer.finish(&mut train, &mut actions);
            if !partial {
                let delivered = plain::delivered(&train, &actions);
                let seen: Vec<Vec<u8>> = delivered.iter().flat_map(|(header, packet)| taken(header, packet)).collect();
                prop_assert_eq!(seen, vec![bytes.clone(); 3]);
            }
        }
    }
}
