//! Packets, and their segments, in the plainest way: every sum over 16-bit words, every packet from its first byte to
//! its last.

use std::ops::Range;

use crate::gateway::segments::virtio::{Cut, CutKind, Partial};
use crate::gateway::segments::{Coalescer, VirtioHeader};
use crate::seam::{Action, Offloads, VIRTIO_BYTES};

/// An interface that does it all.
pub(super) const ALL: Offloads = Offloads { checksum: true, tcp: true, udp: true };

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
pub(super) const ECE: u8 = 0x40;
pub(super) const CWR: u8 = 0x80;

/// What a packet is made of, but its payload.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) v6: bool,
    pub(super) tcp: bool,
    /// Traffic class and, IPv6, flow label.
    pub(super) class: u8,
    pub(super) label: u32,
    pub(super) ttl: u8,
    /// The word with DF and the fragment's place.
    pub(super) fragment: u16,
    pub(super) id: u16,
    pub(super) ip_options: Vec<u8>,
    pub(super) hosts: [u8; 2],
    pub(super) ports: [u16; 2],
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<u8>,
}

impl Spec {
    pub(super) fn new(v6: bool, tcp: bool) -> Self {
        Self {
            v6,
            tcp,
            class: 0,
            label: 0x12345,
            ttl: 64,
            fragment: 0x4000,
            id: 1000,
            ip_options: vec![],
            hosts: [1, 2],
            ports: [40000, 5201],
            sequence: 0x0102_0304,
            acknowledgement: 77,
            flags: ACK,
            window: 512,
            urgent: 0,
            options: if tcp { vec![1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8] } else { vec![] },
        }
    }

    pub(super) fn all() -> [Self; 4] {
        [Self::new(false, true), Self::new(true, true), Self::new(false, false), Self::new(true, false)]
    }

    pub(super) fn kind(&self) -> CutKind {
        match (self.tcp, self.v6) {
            (true, false) => CutKind::Tcp4,
            (true, true) => CutKind::Tcp6,
            (false, _) => CutKind::Udp,
        }
    }

    pub(super) fn ip_bytes(&self) -> usize {
        if self.v6 { 40 } else { 20 + self.ip_options.len() }
    }

    pub(super) fn header_bytes(&self) -> usize {
        self.ip_bytes() + if self.tcp { 20 + self.options.len() } else { 8 }
    }

    /// The packet with its checksums complete.
    pub(super) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        if self.v6 {
            let first = 6_u32 << 28 | u32::from(self.class) << 20 | self.label;
            packet.extend_from_slice(&first.to_be_bytes());
            packet.extend_from_slice(&[0, 0, if self.tcp { 6 } else { 17 }, self.ttl]);
            for host in self.hosts {
                packet.extend_from_slice(&[0xfd, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 172, 168, 0, host]);
            }
        } else {
            packet.extend_from_slice(&[0x45 + self.ip_options.len() as u8 / 4, self.class, 0, 0]);
            packet.extend_from_slice(&self.id.to_be_bytes());
            packet.extend_from_slice(&self.fragment.to_be_bytes());
            packet.extend_from_slice(&[self.ttl, if self.tcp { 6 } else { 17 }, 0, 0]);
            for host in self.hosts {
                packet.extend_from_slice(&[172, 168, 0, host]);
            }
            packet.extend_from_slice(&self.ip_options);
        }
        for port in self.ports {
            packet.extend_from_slice(&port.to_be_bytes());
        }
        if self.tcp {
            packet.extend_from_slice(&self.sequence.to_be_bytes());
            packet.extend_from_slice(&self.acknowledgement.to_be_bytes());
            packet.extend_from_slice(&[0x50 + self.options.len() as u8 * 4, self.flags]);
            packet.extend_from_slice(&self.window.to_be_bytes());
            packet.extend_from_slice(&[0, 0]);
            packet.extend_from_slice(&self.urgent.to_be_bytes());
            packet.extend_from_slice(&self.options);
        } else {
            packet.extend_from_slice(&[0, 0, 0, 0]);
        }
        packet.extend_from_slice(payload);
        finish(&mut packet);
        packet
    }

    /// The header of the superpacket with such headers.
    pub(super) fn cut(&self, payload_bytes: usize) -> VirtioHeader {
        VirtioHeader {
            checksum: Some(self.partial()),
            cut: Some(Cut {
                kind: self.kind(),
                ecn: self.tcp && self.flags & CWR != 0,
                header_bytes: self.header_bytes() as u16,
                payload_bytes: payload_bytes as u16,
            }),
        }
    }

    pub(super) fn partial(&self) -> Partial {
        Partial { start: self.ip_bytes() as u16, offset: if self.tcp { 16 } else { 6 } }
    }
}

/// So many bytes of payload, no two stretches alike.
pub(super) fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// The sum of 16-bit words, folded.
pub(super) fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Where the transport header starts, whether it is TCP, and where the payload starts.
pub(super) fn layout(packet: &[u8]) -> (usize, bool, usize) {
    let v6 = packet[0] >> 4 == 6;
    let at = if v6 { 40 } else { usize::from(packet[0] & 15) * 4 };
    let tcp = packet[if v6 { 6 } else { 9 }] == 6;
    (at, tcp, at + if tcp { usize::from(packet[at + 12] >> 4) * 4 } else { 8 })
}

fn checksum_at(packet: &[u8]) -> usize {
    let (at, tcp, _) = layout(packet);
    at + if tcp { 16 } else { 6 }
}

fn pseudo_header(packet: &[u8]) -> Vec<u8> {
    let (at, tcp, _) = layout(packet);
    let mut pseudo = if packet[0] >> 4 == 6 { packet[8..40].to_vec() } else { packet[12..20].to_vec() };
    pseudo.extend_from_slice(&((packet.len() - at) as u32).to_be_bytes());
    pseudo.extend_from_slice(&[0, 0, 0, if tcp { 6 } else { 17 }]);
    pseudo
}

/// Fills in lengths and checksums.
pub(super) fn finish(packet: &mut [u8]) {
    let (at, tcp, _) = layout(packet);
    let total = packet.len();
    if packet[0] >> 4 == 6 {
        packet[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
    } else {
        packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        packet[10..12].copy_from_slice(&[0, 0]);
        let checksum = !naive_sum(&packet[..at]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    if !tcp {
        packet[at + 4..at + 6].copy_from_slice(&((total - at) as u16).to_be_bytes());
    }
    complete(packet);
}

/// Fills in the transport's checksum.
pub(super) fn complete(packet: &mut [u8]) {
    let (at, tcp, _) = layout(packet);
    let field = checksum_at(packet);
    packet[field..field + 2].copy_from_slice(&[0, 0]);
    let mut all = pseudo_header(packet);
    all.extend_from_slice(&packet[at..]);
    let checksum = match !naive_sum(&all) {
        0 if !tcp => 0xffff,
        checksum => checksum,
    };
    packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Leaves the transport's checksum to be completed.
pub(super) fn make_partial(packet: &mut [u8]) {
    let field = checksum_at(packet);
    let sum = naive_sum(&pseudo_header(packet));
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The packets that a superpacket stands for, complete.
pub(super) fn segment(superpacket: &[u8], payload_bytes: usize) -> Vec<Vec<u8>> {
    let (at, tcp, header_bytes) = layout(superpacket);
    let (header, payload) = superpacket.split_at(header_bytes);
    let count = payload.chunks(payload_bytes).count();
    let mut packets = Vec::new();
    for (number, chunk) in payload.chunks(payload_bytes).enumerate() {
        let mut packet = header.to_vec();
        packet.extend_from_slice(chunk);
        if packet[0] >> 4 == 4 {
            let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(number as u16);
            packet[4..6].copy_from_slice(&id.to_be_bytes());
        }
        if tcp {
            let sequence = u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap());
            let sequence = sequence.wrapping_add((number * payload_bytes) as u32);
            packet[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
            if number + 1 < count {
                packet[at + 13] &= !(FIN | PSH);
            }
            if number > 0 {
                packet[at + 13] &= !CWR;
            }
        }
        finish(&mut packet);
        packets.push(packet);
    }
    packets
}

/// Bytes in front of each packet of a train, and behind it.
pub(super) const HEADER_BYTES: usize = 28;
pub(super) const TAG_BYTES: usize = 16;

/// A train of packets that were opened, and where they lie.
pub(super) fn train(packets: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut bytes = Vec::new();
    let mut places = Vec::new();
    for packet in packets {
        bytes.extend_from_slice(&[0xee; HEADER_BYTES]);
        places.push(bytes.len()..bytes.len() + packet.len());
        bytes.extend_from_slice(packet);
        bytes.extend_from_slice(&[0xdd; TAG_BYTES]);
    }
    (bytes, places)
}

/// What an interface with offloads gets: headers and packets.
pub(super) fn delivered(train: &[u8], actions: &[Action]) -> Vec<(VirtioHeader, Vec<u8>)> {
    let mut written: Vec<Vec<u8>> = Vec::new();
    let mut more = 0;
    for action in actions {
        match action {
            Action::Deliver { bytes } => {
                written.push(train[bytes.clone()].to_vec());
                more = 0;
            }
            Action::DeliverMore { bytes } => {
                written.last_mut().unwrap().extend_from_slice(&train[bytes.clone()]);
                more += 1;
                assert!(more <= Action::MORE_MAX);
            }
            Action::Forward { .. } | Action::Send { .. } | Action::DeliverSlab { .. } => panic!("{action:?}"),
        }
    }
    let split = |bytes: Vec<u8>| (VirtioHeader::parse(&bytes).unwrap(), bytes[VIRTIO_BYTES..].to_vec());
    written.into_iter().map(split).collect()
}

/// Joins packets of a train, each with its mark, for an interface that does it all.
pub(super) fn join(packets: &[(Vec<u8>, bool)]) -> Vec<(VirtioHeader, Vec<u8>)> {
    let bare: Vec<Vec<u8>> = packets.iter().map(|(packet, _)| packet.clone()).collect();
    let (mut train, places) = train(&bare);
    let mut actions = Vec::new();
    let mut coalescer = Coalescer::new(ALL);
    for (place, (_, partial)) in places.into_iter().zip(packets) {
        coalescer.offer(&mut train, place, *partial, &mut actions).unwrap();
    }
    coalescer.finish(&mut train, &mut actions);
    delivered(&train, &actions)
}

/// What the system makes of a packet that it is given: the packets it stands for, complete.
pub(super) fn taken(header: &VirtioHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut packet = packet.to_vec();
    if let Some(cut) = header.cut {
        let (at, tcp, header_bytes) = layout(&packet);
        assert_eq!(header.checksum, Some(Partial { start: at as u16, offset: if tcp { 16 } else { 6 } }));
        assert_eq!(usize::from(cut.header_bytes), header_bytes);
        let mut unfinished = packet.clone();
        finish(&mut unfinished);
        make_partial(&mut unfinished);
        assert_eq!(packet, unfinished, "lengths, header checksum and pseudo header's sum are those of the whole");
        return segment(&packet, usize::from(cut.payload_bytes));
    }
    if header.checksum.is_some() {
        let mut unfinished = packet.clone();
        make_partial(&mut unfinished);
        assert_eq!(packet, unfinished, "the pseudo header's sum is right");
        complete(&mut packet);
    }
    vec![packet]
}
