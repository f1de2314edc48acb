//! The gateway's side: an engine that is a socket, and a transfer that is a listener.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use mesh_core::gateway::Stream;

use super::{LIMIT, frame, read_end, read_frames, receive, stream_of, until};
use crate::iface::Outside;
use crate::outside::{Place, Places};
use crate::stream::Counts;
use crate::stream::connect::{Bridge, Target};

/// The bridge under test with what it says, and the engine behind it.
struct Gateway {
    engine: UdpSocket,
    counts: Arc<Counts>,
    told: Receiver<Option<Stream>>,
    bridge: Option<Bridge>,
}

impl Gateway {
    fn start(addresses: &[SocketAddr]) -> Self {
        Self::start_at(addresses, Places::wanted(&Outside::Routed, &[], true).unwrap())
    }

    fn start_at(addresses: &[SocketAddr], places: Places) -> Self {
        let engine = UdpSocket::bind("127.0.0.1:0").unwrap();
        engine.set_read_timeout(Some(LIMIT)).unwrap();
        let target = Target::default();
        target.set_addresses(addresses);
        target.set_places(places);
        let (tell, told) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let at = engine.local_addr().unwrap();
        let bridge = Bridge::start(at, target, Arc::clone(&counts), move |stream| _ = tell.send(stream)).unwrap();
        Self { engine, counts, told, bridge: Some(bridge) }
    }

    #[track_caller]
    fn connected(&self) -> Stream {
        self.told.recv_timeout(LIMIT).expect("a word").expect("a connection")
    }

    #[track_caller]
    fn disconnected(&self) {
        assert_eq!(self.told.recv_timeout(LIMIT).expect("a word"), None);
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nothing listens.
fn nobody() -> SocketAddr {
    listener().1
}

#[test]
fn frames_pass_both_ways() {
    let (listener, address) = listener();
    let gateway = Gateway::start(&[address]);
    let (mut transfer, _) = listener.accept().unwrap();
    let stream = gateway.connected();
    assert_eq!(stream.transfer, address);
    let sent: Vec<Vec<u8>> = (1..100).map(|number| frame(number, 13 * number as usize)).collect();
    for frame in &sent {
        gateway.engine.send_to(frame, stream.bridge).unwrap();
    }
    assert_eq!(read_frames(&mut transfer, sent.len()), sent);
    for piece in stream_of(&sent).chunks(777) {
        transfer.write_all(piece).unwrap();
    }
    for frame in &sent {
        assert_eq!(receive(&gateway.engine), (frame.clone(), stream.bridge));
    }
    // What arrived is counted a moment after it was passed on.
    until("all are counted", || gateway.counts.report().frames_in == 99);
    let report = gateway.counts.report();
    assert_eq!((report.frames_in, report.frames_out, report.dropped, report.connections), (99, 99, 0, 1));
}

/// A program of this machine that is not the engine says something to the bridge.
#[test]
fn only_the_engine_is_heard() {
    let (listener, address) = listener();
    let gateway = Gateway::start(&[address]);
    let (mut transfer, _) = listener.accept().unwrap();
    let stream = gateway.connected();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..10 {
        stranger.send_to(&frame(number, 70), stream.bridge).unwrap();
        gateway.engine.send_to(&frame(100 + number, 80), stream.bridge).unwrap();
    }
    assert!(read_frames(&mut transfer, 10).iter().all(|frame| frame.len() == 80));
}

#[test]
fn addresses_are_tried_in_their_order_until_one_answers() {
    let (listener, address) = listener();
    let gateway = Gateway::start(&[nobody(), "[::1]:1".parse().unwrap(), address]);
    let _transfer = listener.accept().unwrap();
    assert_eq!(gateway.connected().transfer, address);
}

#[test]
fn only_families_with_a_place_are_tried() {
    let (listener, address) = listener();
    let ipv6_only = Places { ipv4: None, ipv6: Some(Place { interface: None, address: "::".parse().unwrap() }) };
    let gateway = Gateway::start_at(&[address], ipv6_only);
    assert_eq!(gateway.told.recv_timeout(Duration::from_millis(1500)), Err(RecvTimeoutError::Timeout));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
    drop(gateway);
    // An address that was chosen is where it comes from.
    let from: Ipv4Addr = "127.0.0.9".parse().unwrap();
    let chosen = Places { ipv4: Some(Place { interface: None, address: from.into() }), ipv6: None };
    let _gateway = Gateway::start_at(&[address], chosen);
    listener.set_nonblocking(false).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), from);
}

#[test]
fn a_transfer_that_comes_back_is_found() {
    let (listener, address) = listener();
    let gateway = Gateway::start(&[address]);
    let (mut transfer, _) = listener.accept().unwrap();
    let bridge = gateway.connected().bridge;
    transfer.write_all(&stream_of(&[frame(1, 60)])).unwrap();
    receive(&gateway.engine);
    drop((listener, transfer));
    gateway.disconnected();
    // What the engine says into the void is too old for the next connection.
    for _ in 0..50 {
        gateway.engine.send_to(&frame(7, 90), bridge).unwrap();
    }
    let back = TcpListener::bind(address).unwrap();
    let start = Instant::now();
    let (mut transfer, _) = back.accept().unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let stream = gateway.connected();
    assert_eq!(stream, Stream { bridge, transfer: address }, "by the same socket");
    gateway.engine.send_to(&frame(8, 60), stream.bridge).unwrap();
    assert_eq!(read_frames(&mut transfer, 1), [frame(8, 60)]);
    assert_eq!(gateway.counts.report().dropped, 50);
}

/// Something else has the port: it is left alone more and more.
#[test]
fn who_never_answers_is_asked_less_and_less() {
    let (listener, address) = listener();
    let gateway = Gateway::start(&[address]);
    let mut at = Vec::new();
    let start = Instant::now();
    for garbage in [&b""[..], b"\0\0", b""] {
        let (mut other, _) = listener.accept().unwrap();
        at.push(start.elapsed());
        other.write_all(garbage).unwrap();
        drop(other);
        gateway.connected();
        gateway.disconnected();
    }
    let (first, second) = (at[1] - at[0], at[2] - at[1]);
    assert!(first >= Duration::from_secs(1) && second >= Duration::from_secs(2), "{at:?}");
    assert_eq!(gateway.counts.report().malformed, 1);
    // One that answers is trusted again.
    let (mut transfer, _) = listener.accept().unwrap();
    transfer.write_all(&stream_of(&[frame(1, 60)])).unwrap();
    receive(&gateway.engine);
    drop(transfer);
    let start = Instant::now();
    listener.accept().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
}

/// A gateway says goodbye to the transfer and its peers before it ends.
#[test]
fn last_words_leave() {
    let (listener, address) = listener();
    let mut gateway = Gateway::start(&[address]);
    let (mut transfer, _) = listener.accept().unwrap();
    let stream = gateway.connected();
    let words: Vec<Vec<u8>> = (0..200).map(|number| frame(number, 120)).collect();
    for frame in &words {
        gateway.engine.send_to(frame, stream.bridge).unwrap();
    }
    gateway.bridge = None;
    assert_eq!(read_frames(&mut transfer, words.len()), words);
    read_end(&mut transfer);
    gateway.disconnected();
    assert_eq!(gateway.counts.report().connections, 0);
}

/// The engine is gone already, and the transfer still talks: what the engine said last leaves all the same.
#[test]
fn last_words_of_an_engine_that_is_gone_leave() {
    let (listener, address) = listener();
    let Gateway { engine, counts, told, bridge } = Gateway::start(&[address]);
    let (mut transfer, _) = listener.accept().unwrap();
    let stream = told.recv().unwrap().unwrap();
    engine.send_to(&frame(1, 60), stream.bridge).unwrap();
    assert_eq!(read_frames(&mut transfer, 1), [frame(1, 60)]);
    engine.send_to(&frame(2, 60), stream.bridge).unwrap();
    drop(engine);
    for _ in 0..50 {
        transfer.write_all(&stream_of(&[frame(9, 60)])).unwrap();
    }
    until("they are dealt with", || counts.report().frames_in + counts.report().dropped >= 1);
    drop(bridge);
    assert_eq!(read_frames(&mut transfer, 1), [frame(2, 60)]);
    read_end(&mut transfer);
}

/// The transfer takes nothing any more: ending takes no longer for it, and what does not fit is dropped.
#[test]
fn a_connection_that_is_stuck_holds_nobody_up() {
    let (listener, address) = listener();
    let mut gateway = Gateway::start(&[address]);
    let (transfer, _) = listener.accept().unwrap();
    let stream = gateway.connected();
    let mut sent = 0;
    while gateway.counts.report().dropped < 100 {
        gateway.engine.send_to(&frame(sent, 60_000), stream.bridge).unwrap();
        sent += 1;
        until("it is dealt with", || {
            let report = gateway.counts.report();
            report.frames_out + report.dropped == u64::from(sent)
        });
    }
    let start = Instant::now();
    gateway.bridge = None;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    drop(transfer);
}

/// While nothing answers, ending takes no time either.
#[test]
fn ending_while_connecting() {
    let mut gateway = Gateway::start(&[nobody()]);
    gateway.bridge = None;
    assert_eq!(gateway.told.try_recv().ok(), None);
    // An address that swallows everything: a listener whose queue is full.
    let (listener, address) = listener();
    let mut crowd = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        crowd.push(client);
        assert!(crowd.len() < 10_000);
    }
    let mut gateway = Gateway::start(&[address]);
    let start = Instant::now();
    gateway.bridge = None;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    drop(listener);
}
