//! The transfer's side: a relay that is a socket, and clients that behave or do not.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use mesh_wire::notice::{AgainReason, ErrorReason, ErrorReply, RegisterAgain};
use mesh_wire::route::Route;
use mesh_wire::stream::FRAME_BYTES_MAX;
use socket2::{Domain, Socket, Type};

use super::{LIMIT, frame, port, read_end, read_frames, receive, stream_of, until, write_anyway};
use crate::stream::StreamReport;
use crate::stream::listen::Listening;
use crate::stream::pipe::Patience;
#[cfg(target_os = "linux")]
use crate::stream::pipe::QUEUE_BYTES;

const PATIENT: Patience = Patience { unanswered: LIMIT, idle: LIMIT };

/// The thread under test, and the relay behind it.
struct Relay {
    listening: Listening,
    udp: UdpSocket,
    port: u16,
}

impl Relay {
    fn start(connections_max: usize, patience: Patience) -> Self {
        let (udp, port) = port();
        let listening = Listening::start_with(connections_max, patience).unwrap();
        listening.open(vec![port]);
        let shown = listening.shown();
        until("the port is bound", || shown.report().ports_bound == 1);
        assert!(shown.report().ports_busy.is_empty());
        Self { listening, udp, port }
    }

    fn report(&self) -> StreamReport {
        self.listening.shown().report().streams
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// A client at another address of this machine.
    fn connect_from(&self, address: IpAddr) -> TcpStream {
        let socket = Socket::new(Domain::for_address((address, 0).into()), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
        let to = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
        socket.connect(&SocketAddr::new(to.parse().unwrap(), self.port).into()).unwrap();
        socket.into()
    }

    /// Receives one frame and answers with it.
    fn echo(&self) -> SocketAddr {
        let (bytes, from) = receive(&self.udp);
        self.udp.send_to(&bytes, from).unwrap();
        from
    }
}

#[test]
fn frames_pass_both_ways_however_they_are_cut() {
    let relay = Relay::start(10, PATIENT);
    let mut client = relay.connect();
    client.set_nodelay(true).unwrap();
    let sent: Vec<Vec<u8>> = [6, 40, 1300, 9000, FRAME_BYTES_MAX, 7].into_iter().map(|bytes| frame(1, bytes)).collect();
    for cut in [1, 2, 3, 700, 100_000] {
        let stream = stream_of(&sent);
        let mut writer = client.try_clone().unwrap();
        let pieces = thread::spawn(move || {
            // Only the edges are cut that finely: a hundred thousand writes of a byte show nothing more.
            let (edge, rest) = stream.split_at(200);
            edge.chunks(cut).for_each(|piece| writer.write_all(piece).unwrap());
            rest.chunks(cut.max(1000)).for_each(|piece| writer.write_all(piece).unwrap());
        });
        for expect in &sent {
            let (bytes, from) = receive(&relay.udp);
            assert_eq!(bytes.len(), expect.len());
            assert!(bytes == *expect, "every byte");
            relay.udp.send_to(&bytes, from).unwrap();
        }
        pieces.join().unwrap();
        assert!(read_frames(&mut client, sent.len()) == sent);
    }
    let report = relay.report();
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!((report.frames_in, report.frames_out, report.dropped), (30, 30, 0));
    assert_eq!((report.bytes_in, report.bytes_out), (5 * bytes as u64, 5 * bytes as u64));
    relay.listening.end();
    read_end(&mut client);
}

/// The relay bounds what one address may order: clients are as many addresses as they are, and are known by name to
/// people.
#[test]
fn the_relay_tells_clients_apart() {
    let relay = Relay::start(100, PATIENT);
    let mut seen = BTreeSet::new();
    let mut clients = Vec::new();
    for address in ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"] {
        let address: IpAddr = address.parse().unwrap();
        let mut client = relay.connect_from(address);
        client.write_all(&stream_of(&[frame(1, 60)])).unwrap();
        let at = relay.echo();
        read_frames(&mut client, 1);
        let IpAddr::V4(ip) = at.ip().to_canonical() else { panic!("IPv4 on loopback: {at}") };
        assert!(ip.is_loopback() && ip != Ipv4Addr::LOCALHOST, "{ip}");
        seen.insert(ip);
        let endpoint = SocketAddr::new(ip.into(), at.port());
        assert_eq!(relay.listening.shown().client(endpoint), Some(client.local_addr().unwrap()));
        clients.push((client, endpoint));
    }
    assert_eq!(seen.len(), 4, "two connections of one address are one source");
    let (client, endpoint) = clients.pop().unwrap();
    drop(client);
    until("who has gone is forgotten", || relay.listening.shown().client(endpoint).is_none());
    assert_eq!(relay.report().connections, 4);
}

/// A client reads nothing: what does not fit is dropped and counted, the rest is what the queue and the kernel hold,
/// and other clients notice nothing. In a process of its own, whose memory nobody else uses.
#[cfg(target_os = "linux")]
#[test]
fn a_slow_reader_costs_a_queue_and_no_more() {
    mesh_lab::isolated(|| {
        mesh_lab::Lab::new("slow")?.host("cloud")?.run(|| {
            serve_a_slow_reader();
            Ok(())
        })
    });
}

#[cfg(target_os = "linux")]
fn serve_a_slow_reader() {
    const BYTES: usize = 1300;
    let relay = Relay::start(10, PATIENT);
    let (mut slow, mut quick) = (relay.connect(), relay.connect());
    slow.write_all(&stream_of(&[frame(0, 60)])).unwrap();
    let (_, to_slow) = receive(&relay.udp);
    quick.write_all(&stream_of(&[frame(0, 60)])).unwrap();
    let (_, to_quick) = receive(&relay.udp);
    let (mut number, before) = (0, resident_bytes());
    // Far more than a kernel's buffers hold on both sides: each turn waits until the bridge has dealt with the frames.
    while relay.report().dropped < 50_000 {
        for _ in 0..32 {
            number += 1;
            relay.udp.send_to(&frame(number, BYTES), to_slow).unwrap();
        }
        until("the frames are dealt with", || {
            let report = relay.report();
            report.frames_out + report.dropped == u64::from(number)
        });
        assert!(number < 200_000, "{:?}", relay.report());
    }
    let grown = resident_bytes().saturating_sub(before);
    // The queue, what it grew out of, and memory to read into; the allocator keeps as much again. 65 MB were offered.
    assert!(grown < 8 * QUEUE_BYTES, "{grown} bytes more for {number} frames of {BYTES}");
    relay.udp.send_to(&frame(7, 100), to_quick).unwrap();
    assert_eq!(read_frames(&mut quick, 1), [frame(7, 100)]);

    // When it reads at last, it finds whole frames in order.
    let report = relay.report();
    let queued = usize::try_from(report.frames_out - 1).unwrap();
    let numbers: Vec<u32> = read_frames(&mut slow, queued)
        .iter()
        .map(|frame| {
            assert_eq!(frame.len(), BYTES);
            u32::from_be_bytes(frame[2..6].try_into().unwrap())
        })
        .collect();
    assert!(numbers.is_sorted() && numbers[0] == 1, "the first ones are there");
    relay.udp.send_to(&frame(8, 100), to_slow).unwrap();
    assert_eq!(read_frames(&mut slow, 1), [frame(8, 100)], "and there is room again");
}

/// Memory of this process.
#[cfg(target_os = "linux")]
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kilobytes.unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn garbage_ends_a_connection_and_nothing_else() {
    let relay = Relay::start(10, PATIENT);
    let mut good = relay.connect();
    for (count, garbage) in [&[0, 0][..], &[0xff, 0xff, 1, 2, 3], &[0xff, 0xe4]].into_iter().enumerate() {
        let mut bad = relay.connect();
        bad.write_all(&[&stream_of(&[frame(3, 50)]), garbage].concat()).unwrap();
        assert_eq!(receive(&relay.udp).0, frame(3, 50), "what came before is a frame all the same");
        read_end(&mut bad);
        assert_eq!(relay.report().malformed, count as u64 + 1);
    }
    // Text is read as a length and that many bytes: the relay gets it, and drops it.
    let mut bad = relay.connect();
    bad.write_all(&[b'G'; 70_000]).unwrap();
    assert_eq!(receive(&relay.udp).0, [b'G'; 0x4747]);
    good.write_all(&stream_of(&[frame(4, 50)])).unwrap();
    until("the good one is heard", || receive(&relay.udp).0 == frame(4, 50));
}

#[test]
fn connections_are_bounded_in_all_and_for_each_address() {
    let relay = Relay::start(8, PATIENT);
    let from = |last| -> IpAddr { Ipv4Addr::new(127, 0, 0, last).into() };
    let mut greedy: Vec<TcpStream> = (0..6).map(|_| relay.connect_from(from(1))).collect();
    until("two are turned away", || relay.report().refused == 2);
    assert_eq!(relay.report().connections, 4);
    for refused in &mut greedy[4..] {
        read_end(refused);
    }
    let others: Vec<TcpStream> = (2..12).map(|last| relay.connect_from(from(last))).collect();
    until("and who comes when all are taken", || relay.report().refused == 8);
    assert_eq!(relay.report().connections, 8);

    greedy.clear();
    until("places are given back", || relay.report().connections == 4);
    let mut late = relay.connect_from(from(11));
    late.write_all(&stream_of(&[frame(1, 60)])).unwrap();
    relay.echo();
    read_frames(&mut late, 1);
    drop(others);
}

/// Whoever says nothing, or nothing of worth, is gone in time; hints are given to strangers too, and are no answer.
#[test]
fn connections_that_earn_no_answer_are_closed() {
    let patience = Patience { unanswered: Duration::from_millis(400), idle: LIMIT };
    let relay = Relay::start(10, patience);
    let start = Instant::now();
    let mut mute = relay.connect();
    let mut slow = relay.connect();
    slow.write_all(&[0, 200, 1]).unwrap();
    let mut stranger = relay.connect();
    stranger.write_all(&stream_of(&[frame(1, 60)])).unwrap();
    let (_, to_stranger) = receive(&relay.udp);
    let again = RegisterAgain { reason: AgainReason::UnknownSource, route: Route::DIRECT };
    let version = ErrorReply::to(ErrorReason::Version, &[0x35; 20]).unwrap();
    relay.udp.send_to(&again.emit(), to_stranger).unwrap();
    relay.udp.send_to(&version.emit(), to_stranger).unwrap();
    assert_eq!(read_frames(&mut stranger, 2), [again.emit().to_vec(), version.emit().to_vec()], "told all the same");
    let mut member = relay.connect();
    member.write_all(&stream_of(&[frame(2, 60)])).unwrap();
    relay.echo();
    for silent in [&mut mute, &mut slow, &mut stranger] {
        read_end(silent);
    }
    assert!(start.elapsed() >= patience.unanswered);
    assert_eq!(relay.report().unanswered, 3);
    until("they are gone", || relay.report().connections == 1);
    read_frames(&mut member, 1);
    member.write_all(&stream_of(&[frame(3, 60)])).unwrap();
    relay.echo();
    assert_eq!(read_frames(&mut member, 1), [frame(3, 60)]);
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    let patience = Patience { unanswered: Duration::from_millis(100), idle: Duration::from_millis(500) };
    let relay = Relay::start(10, patience);
    let (mut idle, mut busy, mut trickle) = (relay.connect(), relay.connect(), relay.connect());
    for client in [&mut idle, &mut busy, &mut trickle] {
        client.write_all(&stream_of(&[frame(1, 60)])).unwrap();
        relay.echo();
        read_frames(client, 1);
    }
    let (start, mut ended) = (Instant::now(), false);
    // A byte now and then makes no frame.
    let drip = stream_of(&[frame(2, 4000)]);
    for byte in drip.chunks(1) {
        busy.write_all(&stream_of(&[frame(3, 60)])).unwrap();
        relay.echo();
        read_frames(&mut busy, 1);
        write_anyway(&mut trickle, byte);
        ended = relay.report().connections == 1;
        if ended {
            break;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    assert!(ended && start.elapsed() >= patience.idle, "{:?}", relay.report());
    read_end(&mut idle);
    read_end(&mut trickle);
}

#[test]
fn a_busy_port_is_bound_when_it_is_free() {
    let (udp, port) = port();
    let (_other_udp, other) = super::port();
    let holder = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let listening = Listening::start_with(10, PATIENT).unwrap();
    listening.open(vec![port, other]);
    let shown = listening.shown();
    until("the other is bound", || shown.report().ports_bound == 1);
    assert_eq!(shown.report().ports_busy, [port.to_string()]);
    drop(holder);
    until("it is free", || shown.report().ports_bound == 2);
    assert!(shown.report().ports_busy.is_empty());
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(&stream_of(&[frame(5, 60)])).unwrap();
    assert_eq!(receive(&udp).0, frame(5, 60));
    assert!(TcpListener::bind(("0.0.0.0", port)).is_err(), "nobody else can have it");
}

/// The namespace's own socket is gone: nobody is left waiting.
#[test]
fn connections_end_with_the_relay() {
    let relay = Relay::start(10, PATIENT);
    let mut client = relay.connect();
    client.write_all(&stream_of(&[frame(1, 60)])).unwrap();
    relay.echo();
    read_frames(&mut client, 1);
    drop(relay.udp);
    while write_anyway(&mut client, &stream_of(&[frame(2, 60)])) {
        thread::park_timeout(Duration::from_millis(5));
    }
    until("it has ended", || relay.listening.shown().report().streams.connections == 0);
}

/// A client sends faster than the relay takes: TCP slows it down, and whatever was read is sent on.
#[test]
fn a_fast_sender_is_slowed_down_by_tcp() {
    let relay = Relay::start(10, PATIENT);
    let mut client = relay.connect();
    let frames: Vec<Vec<u8>> = (0..40_000).map(|number| frame(number, 1300)).collect();
    let stream = stream_of(&frames);
    let writer = thread::spawn(move || client.write_all(&stream).map(|()| client));
    let mut count = 0;
    relay.udp.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut bytes = [0; 2000];
    while let Ok(length) = relay.udp.recv(&mut bytes) {
        assert_eq!(length, 1300);
        count += 1;
    }
    assert_eq!(relay.report().frames_in, 40_000, "all were sent on");
    assert!(count > 1000, "{count} arrived");
    drop(writer.join().unwrap().unwrap());
}
