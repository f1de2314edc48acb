//! Packets of several pieces and packets with a virtio-net header, at a real TUN interface in a network namespace of the test's own.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::ops::Range;
use std::thread;

use super::sys::{interface, interface_with_offloads, lower, raise, remove, set_mtu};
use super::tokens::refused;
use super::{
    Engine, PATIENCE, add, compose, endpoint, engine, origin, peer, receive, send_train, set_int, take, turns_until,
};
use crate::gather::RUNS_MAX;
use crate::writes::PIECES_MAX;
use crate::{Origin, Train};

/// Of a virtio-net header.
const HEADER_BYTES: usize = 10;

const OURS: [u8; 4] = [172, 168, 0, 1];
const THEIRS: [u8; 4] = [172, 168, 0, 2];

/// Of an IPv4 and of a UDP header, and of a TCP header without options.
const IP: usize = 20;
const UDP: usize = 8;
const TCP: usize = 20;

/// An IPv4 packet from the other side of the interface; the checksum of what it carries is left to the caller.
fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(IP + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(THEIRS);
    packet.extend(OURS);
    let sum = !fold(sum(&packet));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A UDP packet to a port of ours, without a checksum.
fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(UDP + payload.len()).unwrap();
    let head = [[0, 7], port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    packet(17, &[&head, payload].concat())
}

/// Bytes that differ in every place, for each number.
fn pattern(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + number * 31 + at / 256) as u8).collect()
}

/// Cuts bytes in `pieces`, and lays them out with a byte between every two; the ranges where they lie.
fn scatter(bytes: &[u8], pieces: usize) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut scattered = Vec::new();
    let mut ranges = Vec::new();
    for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
        ranges.push(scattered.len()..scattered.len() + piece.len());
        scattered.extend_from_slice(piece);
        scattered.push(0xee);
    }
    (scattered, ranges)
}

fn deliver_pieces<E: Engine>(engine: &mut E, train: &Train, mut ranges: impl Iterator<Item = Range<usize>>) {
    engine.deliver(train, ranges.next().expect("a packet has a piece"));
    ranges.for_each(|range| engine.deliver_more(train, range));
}

/// An engine with a socket on the loopback, by which a test gives it trains, and an interface.
struct Rig<E> {
    engine: E,
    /// Trains that were received and not asked for yet.
    waiting: VecDeque<Train>,
    giver: UdpSocket,
    address: SocketAddr,
    /// Of the kernel's side of the interface.
    socket: UdpSocket,
}

impl<E: Engine> Rig<E> {
    fn new(offloads: bool) -> Self {
        raise("lo");
        let device = match offloads {
            true => interface_with_offloads("mesh0", OURS),
            false => interface("mesh0", libc::IFF_TUN, OURS),
        };
        let mut engine = engine::<E>();
        engine.add_inside(device).unwrap();
        let (_, address) = add(&mut engine);
        let socket = UdpSocket::bind((Ipv4Addr::from(OURS), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { engine, waiting: VecDeque::new(), giver: peer(), address, socket }
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// A train of these bytes, which the engine has received.
    fn train(&mut self, bytes: &[u8]) -> Train {
        self.giver.send_to(bytes, self.address).unwrap();
        loop {
            if let Some(place) = self.waiting.iter().position(|train| train.origin() != Origin::Inside) {
                return self.waiting.remove(place).expect("it was just there");
            }
            self.waiting.extend(take(&mut self.engine, 1));
        }
    }

    /// The next packet of the interface.
    fn next(&mut self) -> Train {
        loop {
            if let Some(train) = self.waiting.pop_front() {
                assert_eq!((train.origin(), train.segment_bytes()), (Origin::Inside, train.len()));
                return train;
            }
            self.waiting.extend(take(&mut self.engine, 1));
        }
    }

    /// Writes one packet, in pieces, and waits until it is out of the engine's hands.
    fn write(&mut self, bytes: &[u8], pieces: usize) {
        let (scattered, ranges) = scatter(bytes, pieces);
        let train = self.train(&scattered);
        deliver_pieces(&mut self.engine, &train, ranges.into_iter());
        self.engine.release(train);
        self.engine.flush();
    }
}

pub fn packets_of_many_pieces_arrive_whole_and_in_order_among_others<E: Engine>() {
    let mut rig = Rig::<E>::new(false);
    let port = rig.port();
    let mut written = 0;
    for turn in 0..30 {
        // A whole turn of packets: alone in one piece, in as many as there can be, and from the slab.
        let mut trains = Vec::new();
        for number in 0..6 {
            let pieces = [1, PIECES_MAX, 2, 40, 1, 3][number];
            let (scattered, ranges) = scatter(&datagram(port, &pattern(turn * 10 + number, 1300)), pieces);
            assert!(ranges.len() <= pieces && ranges.len() + 1 >= pieces, "{}", ranges.len());
            trains.push((rig.train(&scattered), ranges));
        }
        for (train, ranges) in &trains {
            deliver_pieces(&mut rig.engine, train, ranges.iter().cloned());
        }
        let last = datagram(port, &pattern(turn * 10 + 6, 1300));
        let range = compose(&mut rig.engine, &last);
        rig.engine.deliver_slab(range);
        trains.into_iter().for_each(|(train, _)| rig.engine.release(train));
        rig.engine.flush();
        written += 7;
        for number in 0..7 {
            assert_eq!(receive(&rig.socket), pattern(turn * 10 + number, 1300), "packet {number} of turn {turn}");
        }
    }
    let counters = rig.engine.counters();
    assert_eq!((counters.inside_out, counters.drops_inside_full), (written, 0));
    // More pieces in one turn than any round has room for.
    let (scattered, ranges) = scatter(&datagram(port, &pattern(1, 64)), PIECES_MAX);
    let train = rig.train(&scattered);
    for _ in 0..150 {
        deliver_pieces(&mut rig.engine, &train, ranges.iter().cloned());
    }
    rig.engine.release(train);
    rig.engine.flush();
    (0..150).for_each(|_| assert_eq!(receive(&rig.socket), pattern(1, 64)));
}

pub fn a_packet_goes_on_after_more_sends_than_one_round_takes<E: Engine>() {
    let mut rig = Rig::<E>::new(false);
    let (scattered, ranges) = scatter(&datagram(rig.port(), &pattern(5, 1000)), 3);
    let train = rig.train(&scattered);
    let from = origin(&train);
    let sink = peer();
    let to = endpoint(from.socket, &sink);
    rig.engine.deliver(&train, ranges[0].clone());
    rig.engine.deliver_more(&train, ranges[1].clone());
    // Of changing TOS, so that each is a send of its own.
    (0..RUNS_MAX + 10).for_each(|number| rig.engine.forward(&train, 0..10, 10, &to, 4 * (number % 2) as u8));
    rig.engine.deliver_more(&train, ranges[2].clone());
    rig.engine.release(train);
    rig.engine.flush();
    assert_eq!(receive(&rig.socket), pattern(5, 1000));
    let counters = rig.engine.counters();
    assert_eq!((counters.inside_out, counters.drops_inside_full), (1, 0));
    assert_eq!(counters.datagrams_out, RUNS_MAX as u64 + 10);
}

pub fn a_packet_of_too_many_pieces_is_refused_and_one_of_a_dropped_beginning_counts_once<E: Engine>() {
    let mut rig = Rig::<E>::new(false);
    let train = rig.train(&[0; 1000]);
    refused("packet to go on with", || rig.engine.deliver_more(&train, 0..1));
    deliver_pieces(&mut rig.engine, &train, (0..PIECES_MAX).map(|at| 2 * at..2 * at + 1));
    refused("too many pieces", || rig.engine.deliver_more(&train, 900..901));
    refused("a range beyond its train", || rig.engine.deliver_more(&train, 900..1001));
    rig.engine.flush();
    refused("packet to go on with", || rig.engine.deliver_more(&train, 0..1));
    // What is no packet is refused, and counted once.
    assert_eq!((rig.engine.counters().inside_out, rig.engine.counters().drops_inside_full), (0, 1));
    // An empty one is none, and what follows belongs to it.
    rig.engine.deliver(&train, 5..5);
    rig.engine.deliver_more(&train, 0..10);
    rig.engine.deliver_more(&train, 20..30);
    rig.engine.release(train);
    rig.engine.flush();
    assert_eq!((rig.engine.counters().inside_out, rig.engine.counters().drops_inside_full), (0, 2));
    // An engine without an interface.
    let mut other = engine::<E>();
    let (_, address) = add(&mut other);
    rig.giver.send_to(&[0; 100], address).unwrap();
    let train = take(&mut other, 1).remove(0);
    deliver_pieces(&mut other, &train, [0..10, 20..30, 40..50].into_iter());
    other.release(train);
    other.flush();
    assert_eq!((other.counters().inside_out, other.counters().drops_inside_full), (0, 1));
}

pub fn packets_that_the_interface_refuses_are_counted_once_each<E: Engine>() {
    let mut rig = Rig::<E>::new(false);
    let good = datagram(rig.port(), &pattern(1, 1000));
    lower("mesh0");
    rig.write(&good, 1);
    rig.write(&good, 30);
    rig.write(&good, 2);
    assert_eq!((rig.engine.counters().inside_out, rig.engine.counters().drops_inside_full), (0, 3));
    raise("mesh0");
    rig.write(&good, 30);
    assert_eq!(receive(&rig.socket), pattern(1, 1000));
    assert_eq!((rig.engine.counters().inside_out, rig.engine.counters().drops_inside_full), (1, 3));
    // Taken away from under the engine, which says so once at most; the sockets go on, as each of these comes by one.
    let (scattered, ranges) = scatter(&good, 30);
    let train = rig.train(&scattered);
    remove("mesh0");
    for _ in 0..3 {
        deliver_pieces(&mut rig.engine, &train, ranges.iter().cloned());
    }
    rig.engine.release(train);
    rig.engine.flush();
    assert_eq!((rig.engine.counters().inside_out, rig.engine.counters().drops_inside_full), (1, 6));
    assert!(
        (0..5).filter(|_| rig.engine.wait(Some(std::time::Duration::from_millis(5)), &mut Vec::new()).is_err()).count()
            <= 1
    );
    let sink = peer();
    sink.send_to(b"go on", rig.address).unwrap();
    super::echo_until(&mut rig.engine, 1);
    assert_eq!(receive(&sink), b"go on");
}

/// A TCP packet of the other side behind its virtio-net header, which leaves the checksum, and where `segment` is not zero the
/// cutting, to the kernel.
fn tcp_packet(
    ports: (u16, u16),
    numbers: (u32, u32),
    flags: u8,
    options: &[u8],
    payload: &[u8],
    segment: u16,
) -> Vec<u8> {
    let head = TCP + options.len();
    let mut segment_bytes = Vec::new();
    segment_bytes.extend(ports.0.to_be_bytes());
    segment_bytes.extend(ports.1.to_be_bytes());
    segment_bytes.extend(numbers.0.to_be_bytes());
    segment_bytes.extend(numbers.1.to_be_bytes());
    segment_bytes.extend([((head / 4) << 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment_bytes.extend(options);
    segment_bytes.extend(payload);
    let pseudo = [&THEIRS[..], &OURS[..], &[0, 6], &(segment_bytes.len() as u16).to_be_bytes()].concat();
    segment_bytes[16..18].copy_from_slice(&fold(sum(&pseudo)).to_be_bytes());
    let mut all = vec![1, u8::from(segment > 0)];
    for field in [(IP + head) as u16, segment, IP as u16, 16] {
        all.extend(field.to_le_bytes());
    }
    all.extend(packet(6, &segment_bytes));
    all
}

/// The TCP header of a packet that the engine read, and what it carries; `None` for anything else.
fn tcp_of(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let packet = &packet[HEADER_BYTES..];
    (packet[0] == 0x45 && packet[9] == 6).then(|| {
        let (head, rest) = packet[IP..].split_at(usize::from(packet[IP + 12] >> 4) * 4);
        (head, &rest[..usize::from(u16::from_be_bytes([packet[2], packet[3]])) - IP - head.len()])
    })
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().unwrap())
}

pub fn a_tcp_superpacket_of_many_pieces_arrives_bit_exact<E: Engine>() {
    const MSS: u16 = 1400;
    const FIN_ETC: u8 = 0b111;
    let mut rig = Rig::<E>::new(true);
    let caller = thread::spawn(|| {
        let mut stream = TcpStream::connect(SocketAddrV4::new(THEIRS.into(), 80)).unwrap();
        let mut text = vec![0; 40 * usize::from(MSS)];
        stream.read_exact(&mut text).unwrap();
        stream.write_all(&pattern(9, 12_000)).unwrap();
        (text, stream)
    });
    // The other side: answers the call, says it all in one packet, and listens.
    let said = pattern(3, 40 * usize::from(MSS));
    let mut heard = Vec::new();
    let mut longest = 0;
    let mut first = 0;
    while heard.len() < 12_000 {
        let mut train = rig.next();
        let packet = rig.engine.split(&mut train).0.to_vec();
        rig.engine.release(train);
        let Some((head, carried)) = tcp_of(&packet) else { continue };
        assert_eq!(packet[0] & 1, 1, "the checksum is left to who takes it: {:?}", &packet[..HEADER_BYTES]);
        let ports = (80, u16::from_be_bytes([head[0], head[1]]));
        if head[13] & FIN_ETC == 0b10 {
            first = number(&head[4..]) + 1;
            let mss = [&[2, 4][..], &MSS.to_be_bytes()].concat();
            rig.write(&tcp_packet(ports, (1000, first), 0b1_0010, &mss, &[], 0), 2);
        } else if carried.is_empty() && number(&head[8..]) == 1001 {
            let superpacket = tcp_packet(ports, (1001, first), 0b1_1000, &[], &said, MSS);
            let (scattered, mut ranges) = scatter(&superpacket[HEADER_BYTES + IP + TCP..], 40);
            let mut all = superpacket[..HEADER_BYTES + IP + TCP].to_vec();
            all.push(0xee);
            ranges.iter_mut().for_each(|range| *range = range.start + all.len()..range.end + all.len());
            ranges.insert(0, 0..all.len() - 1);
            all.extend(scattered);
            let train = rig.train(&all);
            assert_eq!(ranges.len(), 41);
            deliver_pieces(&mut rig.engine, &train, ranges.into_iter());
            rig.engine.release(train);
            rig.engine.flush();
        } else if !carried.is_empty() && number(&head[4..]) == first + heard.len() as u32 {
            longest = longest.max(carried.len());
            if carried.len() > usize::from(MSS) {
                let header = &packet[..HEADER_BYTES];
                let lengths = [header[1], header[4], header[5]];
                assert_eq!(lengths, [1, MSS.to_le_bytes()[0], MSS.to_le_bytes()[1]], "{header:?}");
            }
            heard.extend_from_slice(carried);
            rig.write(
                &tcp_packet(ports, (1001 + said.len() as u32, first + heard.len() as u32), 0b1_0000, &[], &[], 0),
                1,
            );
        }
    }
    let (text, _stream) = caller.join().unwrap();
    assert_eq!((text == said, heard == pattern(9, 12_000)), (true, true));
    assert!(longest >= 2 * usize::from(MSS), "{longest} bytes at a time");
    assert_eq!(rig.engine.counters().drops_inside_full, 0);
}

/// Exchanges the addresses of a UDP packet behind a virtio-net header; its checksums stay right.
fn turn_round(packet: &mut [u8]) {
    let addresses = HEADER_BYTES + 12;
    packet[addresses..addresses + 8].rotate_left(4);
    packet[addresses + 8..addresses + 12].rotate_left(2);
}

/// The next packet that is UDP over IPv4.
fn next_datagram<E: Engine>(rig: &mut Rig<E>) -> Train {
    loop {
        let mut train = rig.next();
        let packet = rig.engine.split(&mut train).0;
        if packet[HEADER_BYTES] == 0x45 && packet[HEADER_BYTES + 9] == 17 {
            return train;
        }
        rig.engine.release(train);
    }
}

pub fn a_udp_superpacket_is_one_train_behind_its_header<E: Engine>() {
    let mut rig = Rig::<E>::new(true);
    let to = SocketAddr::from((THEIRS, rig.port()));
    let said = pattern(2, 40_000);
    send_train(&rig.socket, &said, 1000, to);
    let mut train = next_datagram(&mut rig);
    let packet = rig.engine.split(&mut train).0;
    let head = HEADER_BYTES + IP + UDP;
    assert_eq!(packet.len(), head + 40_000);
    assert_eq!(packet[head..], said);
    // VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4; segments of 1000 bytes; the checksum's place in the UDP header.
    assert_eq!((packet[0] & 1, packet[1], &packet[4..10]), (1, 5, &[0xe8, 3, 20, 0, 6, 0][..]));
    turn_round(packet);
    // The segments in reverse order, and so written piece by piece.
    let segments: Vec<u8> = said.rchunks(1000).flatten().copied().collect();
    packet[head..].copy_from_slice(&segments);
    let pieces = (0..40).map(|number| head + (39 - number) * 1000..head + (40 - number) * 1000);
    deliver_pieces(&mut rig.engine, &train, std::iter::once(0..head).chain(pieces));
    rig.engine.release(train);
    rig.engine.flush();
    for chunk in said.chunks(1000) {
        assert_eq!(receive(&rig.socket), chunk);
    }
    // And it can be taken whole.
    set_int(&rig.socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    send_train(&rig.socket, &said, 1000, to);
    let mut train = next_datagram(&mut rig);
    turn_round(rig.engine.split(&mut train).0);
    rig.engine.deliver(&train, 0..train.len());
    rig.engine.release(train);
    rig.engine.flush();
    assert_eq!(receive(&rig.socket), said);
    assert_eq!((rig.engine.counters().inside_out, rig.engine.counters().drops_inside_full), (2, 0));
}

pub fn the_longest_packet_comes_and_goes_with_its_header<E: Engine>() {
    let mut rig = Rig::<E>::new(true);
    set_mtu("mesh0", 65_535);
    let said = pattern(4, 65_535 - IP - UDP);
    let to = SocketAddr::from((THEIRS, rig.port()));
    rig.socket.send_to(&said, to).unwrap();
    let mut train = next_datagram(&mut rig);
    assert_eq!(train.len(), HEADER_BYTES + 65_535);
    turn_round(rig.engine.split(&mut train).0);
    rig.engine.deliver(&train, 0..1000);
    rig.engine.deliver_more(&train, 1000..train.len());
    rig.engine.release(train);
    rig.engine.flush();
    assert_eq!(receive(&rig.socket), said);
    turns_until(&mut rig.engine, |_, _| {}, |engine| engine.counters().inside_out == 1);
    assert_eq!(rig.engine.counters().drops_truncated, 0);
}
