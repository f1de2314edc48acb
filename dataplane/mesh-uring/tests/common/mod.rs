//! Helpers of the engine's tests.
#![allow(dead_code, reason = "each test file uses some of them")]
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mesh_uring::{Config, Engine, Origin, SocketId, Train};

/// Longer than anything here takes on a slow machine; a test that waits for it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn engine() -> Engine {
    Engine::new(Config::default()).expect("io_uring on this machine")
}

/// Adds a socket on the loopback and returns its number and address.
pub(crate) fn add(engine: &mut Engine) -> (SocketId, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (engine.add_socket(socket, false).unwrap(), address)
}

/// A plain socket on the loopback that gives up after a while.
pub(crate) fn peer() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends `bytes` from a plain socket cut every `segment` by the kernel: they arrive as one train.
pub(crate) fn send_train(socket: &UdpSocket, bytes: &[u8], segment: u16, to: SocketAddr) {
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(segment));
    assert_eq!(socket.send_to(bytes, to).unwrap(), bytes.len());
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0);
}

#[expect(unsafe_code, reason = "a socket option that std does not know")]
pub(crate) fn set_int(socket: &impl AsRawFd, level: i32, option: i32, value: i32) {
    // SAFETY: the kernel reads the four bytes of `value`.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    assert_eq!(result, 0, "setsockopt {level} {option}: {}", std::io::Error::last_os_error());
}

/// Runs turns until `done` of the engine; `each` sees every train.
pub(crate) fn turns_until(
    engine: &mut Engine,
    mut each: impl FnMut(&mut Engine, &mut Train),
    mut done: impl FnMut(&Engine) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    let mut batch = Vec::new();
    while !done(engine) {
        assert!(Instant::now() < end, "waited in vain: {:?}", engine.counters());
        engine.wait(Some(Duration::from_millis(20)), &mut batch).unwrap();
        for mut train in batch.drain(..) {
            each(engine, &mut train);
            engine.release(train);
        }
        engine.flush().unwrap();
    }
}

/// Sends every train back to where it came from.
pub(crate) fn echo(engine: &mut Engine, train: &mut Train) {
    let Origin::Outside(from) = train.origin() else { panic!("a train from the network") };
    engine.forward(train, 0..train.len(), train.segment_bytes(), &from, train.tos());
}

/// Turns that echo until `datagrams` went out.
pub(crate) fn echo_until(engine: &mut Engine, datagrams: u64) {
    turns_until(engine, echo, |engine| engine.counters().datagrams_out >= datagrams);
}
