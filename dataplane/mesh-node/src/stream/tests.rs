//! Bridges between real sockets on loopback addresses, with whoever is at either end in the test's hand.

mod connecting;
mod listening;

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use mesh_wire::stream::{Frames, length};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// A frame as a relay answers with: of a type that is no hint.
fn frame(number: u32, bytes: usize) -> Vec<u8> {
    let mut frame = vec![0x20, 0];
    frame.extend(number.to_be_bytes());
    frame.resize(bytes.max(6), (number % 251) as u8);
    frame
}

/// Frames as TCP carries them.
fn stream_of(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&length(frame.len()).unwrap()[..], frame].concat()).collect()
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// A UDP port for both families whose TCP side is free too, as a transfer's is.
fn port() -> (UdpSocket, u16) {
    loop {
        let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("the host has IPv6");
        let port = udp.local_addr().unwrap().port();
        udp.set_read_timeout(Some(LIMIT)).unwrap();
        if TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok() {
            return (udp, port);
        }
    }
}

/// Reads `count` frames.
#[track_caller]
fn read_frames(tcp: &mut TcpStream, count: usize) -> Vec<Vec<u8>> {
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut frames, mut found, mut piece) = (Frames::default(), Vec::new(), [0; 5000]);
    while found.len() < count {
        let bytes = tcp.read(&mut piece).expect("frames come");
        assert!(bytes > 0, "closed after {} of {count} frames", found.len());
        frames.feed(&piece[..bytes]);
        while let Some(frame) = frames.next().unwrap() {
            found.push(frame.to_vec());
        }
    }
    assert_eq!((found.len(), frames.waiting()), (count, 0));
    found
}

/// Waits until the other end has closed a connection.
#[track_caller]
fn read_end(tcp: &mut TcpStream) {
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    let mut piece = [0; 5000];
    loop {
        match tcp.read(&mut piece) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

/// Receives one datagram.
#[track_caller]
fn receive(udp: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 65_536];
    let (length, from) = udp.recv_from(&mut bytes).expect("a datagram comes");
    bytes.truncate(length);
    (bytes, from)
}

/// Writes, and does not care whether the other end has closed meanwhile.
fn write_anyway(tcp: &mut TcpStream, bytes: &[u8]) -> bool {
    tcp.write_all(bytes).is_ok()
}
