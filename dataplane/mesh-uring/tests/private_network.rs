//! The engine against a real TUN interface and a link that takes nothing, in a network namespace of the test's own.
//!
//! Each test runs itself again under `unshare` (util-linux), which needs no root where user namespaces are allowed.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod common;

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{PATIENCE, peer, set_int, turns_until};
use mesh_uring::{Config, Endpoint, Engine, Origin};

const MARK: &str = "MESH_URING_PRIVATE_NETWORK";

/// Runs the calling test in a network of its own; true inside.
fn in_private_network(test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(MARK, "1")
        .output()
        .expect("unshare of util-linux");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// `struct ifreq` with an address or flags behind the name.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    data: [u8; 24],
}

impl InterfaceRequest {
    fn new(name: &str, data: &[u8]) -> Self {
        let mut request = Self { name: [0; libc::IFNAMSIZ], data: [0; 24] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request.data[..data.len()].copy_from_slice(data);
        request
    }

    #[expect(unsafe_code, reason = "ioctl of network interfaces")]
    fn call(mut self, on: &impl AsRawFd, what: libc::c_ulong) {
        // SAFETY: the kernel reads and writes one `ifreq`, which has this size and layout.
        let result = unsafe { libc::ioctl(on.as_raw_fd(), what, &raw mut self) };
        assert_eq!(result, 0, "ioctl {what:#x}: {}", std::io::Error::last_os_error());
    }
}

/// Makes an interface that is up, with an address of a /24.
fn interface(name: &str, kind: i32, address: [u8; 4]) -> OwnedFd {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    let flags = (kind | libc::IFF_NO_PI) as u16;
    InterfaceRequest::new(name, &flags.to_ne_bytes()).call(&device, libc::TUNSETIFF);
    let control = UdpSocket::bind("0.0.0.0:0").unwrap();
    let name_of = |address: [u8; 4]| {
        let mut name = [0; 16];
        name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        name[4..8].copy_from_slice(&address);
        name
    };
    InterfaceRequest::new(name, &name_of(address)).call(&control, libc::SIOCSIFADDR);
    InterfaceRequest::new(name, &name_of([255, 255, 255, 0])).call(&control, libc::SIOCSIFNETMASK);
    let up = (libc::IFF_UP | libc::IFF_RUNNING) as u16;
    InterfaceRequest::new(name, &up.to_ne_bytes()).call(&control, libc::SIOCSIFFLAGS);
    let device = OwnedFd::from(device);
    nonblocking(&device);
    device
}

#[expect(unsafe_code, reason = "fcntl")]
fn nonblocking(device: &OwnedFd) {
    // SAFETY: sets a flag of a descriptor we own.
    let result = unsafe { libc::fcntl(device.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(result, 0);
}

#[test]
fn packets_come_from_the_interface_and_go_back_to_it() {
    if !in_private_network("packets_come_from_the_interface_and_go_back_to_it") {
        return;
    }
    let device = interface("mesh0", libc::IFF_TUN, [172, 168, 0, 1]);
    let mut engine = Engine::new(Config { buffers_first: 4, buffers_max: 64, ..Config::default() }).unwrap();
    engine.add_inside(device).unwrap();
    let socket = UdpSocket::bind("172.168.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // More than there are buffers to begin with, all waiting before the first read. Each comes back with its addresses
    // exchanged, which leaves the checksums as they are.
    for number in 0..100_u16 {
        let bytes = vec![number as u8; 10 + 10 * usize::from(number)];
        socket.send_to(&bytes, ("172.168.0.2", socket.local_addr().unwrap().port())).unwrap();
    }
    let mut odd = 0;
    turns_until(
        &mut engine,
        |engine, train| {
            assert_eq!(train.origin(), Origin::Inside);
            assert_eq!((train.segment_bytes(), train.tos()), (train.len(), 0));
            let length = train.len();
            let (packet, scratch) = engine.split(train);
            if packet[0] >> 4 != 4 {
                return;
            }
            let (source, destination) = packet[12..20].split_at_mut(4);
            source.swap_with_slice(destination);
            odd += 1;
            if odd % 2 == 0 {
                engine.deliver(train, 0..length);
            } else {
                let used = scratch.used;
                scratch.memory[used..used + length].copy_from_slice(packet);
                engine.keep_slab(used + length);
                engine.deliver_slab(used..used + length);
            }
        },
        |engine| engine.counters().inside_out >= 100,
    );
    let mut buffer = [0; 2048];
    for number in 0..100_u16 {
        assert_eq!(socket.recv(&mut buffer).unwrap(), 10 + 10 * usize::from(number));
        assert_eq!(buffer[0], number as u8);
    }
    let counters = engine.counters();
    assert_eq!(counters.drops_inside_full, 0);
    assert!(counters.starved > 0, "the pool of the interface had to grow");
    // What is no packet is refused, counted, and harms nothing.
    engine.slab().memory[0] = 0xff;
    engine.keep_slab(1);
    engine.deliver_slab(0..1);
    engine.flush().unwrap();
    assert_eq!(engine.counters().drops_inside_full, 1);
    drop(engine);
    assert!(!std::path::Path::new("/proc/sys/net/ipv4/conf/mesh0").exists(), "the interface went with the engine");
}

/// A socket whose packets nobody takes: its neighbour does not answer, and they queue up in the socket's account.
fn stuck_engine() -> (Engine, Endpoint, OwnedFd) {
    let device = interface("stuck0", libc::IFF_TAP, [10, 9, 0, 1]);
    let mut engine = Engine::new(Config { socket_send_bytes: 8192, ..Config::default() }).unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // The mode of the socket must not matter: the ring waits all the same.
    socket.set_nonblocking(true).unwrap();
    let socket = engine.add_socket(socket, false).unwrap();
    (engine, Endpoint { socket, remote: "10.9.0.2:9".parse().unwrap(), local: None }, device)
}

#[test]
fn a_full_send_buffer_holds_a_few_and_drops_the_rest_in_bounded_time() {
    if !in_private_network("a_full_send_buffer_holds_a_few_and_drops_the_rest_in_bounded_time") {
        return;
    }
    let (mut engine, to, _device) = stuck_engine();
    let total = 200;
    for _ in 0..total {
        engine.send(0..1000, 1000, &to, 0);
        engine.flush().unwrap();
    }
    let counters = engine.counters();
    assert!(counters.held > 0 && counters.held <= 16, "{counters:?}");
    assert!(counters.drops_send_full > 0, "{counters:?}");
    // The held ones are given up in time, and the engine does not spin meanwhile.
    let start = Instant::now();
    let enters = counters.enters;
    turns_until(
        &mut engine,
        |_, _| {},
        |engine| {
            let counters = engine.counters();
            counters.datagrams_out + counters.drops_send_full == total
        },
    );
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(engine.counters().enters - enters < 100, "{:?}", engine.counters());
    assert_eq!(engine.counters().drops_send_failed, 0);
}

#[test]
fn held_sends_leave_in_order_when_there_is_room_again() {
    if !in_private_network("held_sends_leave_in_order_when_there_is_room_again") {
        return;
    }
    let (mut engine, to, device) = stuck_engine();
    let numbers = 12_u32;
    for number in 0..numbers {
        let scratch = engine.slab();
        let used = scratch.used;
        scratch.memory[used..used + 4].copy_from_slice(&number.to_be_bytes());
        engine.keep_slab(used + 1000);
        engine.send(used..used + 1000, 1000, &to, 0);
        engine.flush().unwrap();
    }
    assert!(engine.counters().held > 0, "{:?}", engine.counters());
    assert!(engine.counters().datagrams_out < u64::from(numbers));
    // The neighbour answers: the tap becomes it.
    let mut seen = Vec::new();
    let mut answered = false;
    let end = Instant::now() + PATIENCE;
    let mut batch = Vec::new();
    while seen.len() < numbers as usize {
        assert!(Instant::now() < end, "{seen:?} {:?}", engine.counters());
        engine.wait(Some(Duration::from_millis(1)), &mut batch).unwrap();
        let mut frame = [0; 2048];
        while let Ok(length) = nix::unistd::read(&device, &mut frame) {
            match frame[12..14] {
                // ARP: who has 10.9.0.2? Only the request for it is answered, once.
                [8, 6] if frame[38..42] == [10, 9, 0, 2] && !answered => {
                    let mut reply = frame[..42].to_vec();
                    reply.copy_within(6..12, 0);
                    reply[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
                    reply[20..22].copy_from_slice(&[0, 2]);
                    reply.copy_within(22..32, 32);
                    reply[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
                    reply[28..32].copy_from_slice(&[10, 9, 0, 2]);
                    nix::unistd::write(&device, &reply).unwrap();
                    answered = true;
                }
                [8, 0] if length >= 46 && frame[23] == 17 => {
                    seen.push(u32::from_be_bytes(frame[42..46].try_into().unwrap()));
                }
                _ => {}
            }
        }
    }
    assert_eq!(seen, (0..numbers).collect::<Vec<_>>());
    assert_eq!(engine.counters().drops_send_full, 0);
}

#[test]
fn a_stuck_socket_can_be_removed_and_an_engine_with_one_dropped() {
    if !in_private_network("a_stuck_socket_can_be_removed_and_an_engine_with_one_dropped") {
        return;
    }
    let (mut engine, to, _device) = stuck_engine();
    for _ in 0..20 {
        engine.send(0..1000, 1000, &to, 0);
    }
    engine.send(0..20_000, 1000, &to, 0);
    engine.flush().unwrap();
    let start = Instant::now();
    engine.remove_socket(to.socket).unwrap();
    engine.flush().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    let counters = engine.counters();
    assert_eq!(counters.datagrams_out + counters.drops_send_full, 40, "{counters:?}");
    let again = engine.add_socket(UdpSocket::bind("0.0.0.0:0").unwrap(), false).unwrap();
    for _ in 0..20 {
        engine.send(0..1000, 1000, &Endpoint { socket: again, ..to }, 0);
        engine.flush().unwrap();
    }
    let start = Instant::now();
    drop(engine);
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
}

#[test]
fn segments_longer_than_the_link_takes_are_counted_and_a_short_tail_passes() {
    if !in_private_network("segments_longer_than_the_link_takes_are_counted_and_a_short_tail_passes") {
        return;
    }
    let _device = interface("link0", libc::IFF_TUN, [10, 8, 0, 1]);
    let mut engine = Engine::new(Config::default()).unwrap();
    let socket = engine.add_socket(UdpSocket::bind("0.0.0.0:0").unwrap(), false).unwrap();
    let to = Endpoint { socket, remote: "10.8.0.2:9".parse().unwrap(), local: None };
    // The link takes 1500 bytes: 1472 of payload.
    engine.send(0..3 * 1473 + 100, 1473, &to, 0);
    engine.flush().unwrap();
    let counters = engine.counters();
    assert_eq!((counters.drops_send_failed, counters.datagrams_out, counters.resent_singly), (3, 1, 1));
    engine.send(0..3 * 1472 + 100, 1472, &to, 0);
    engine.flush().unwrap();
    let counters = engine.counters();
    assert_eq!((counters.drops_send_failed, counters.datagrams_out, counters.resent_singly), (3, 5, 1));
}

#[test]
fn a_socket_that_may_not_cut_falls_back_to_single_datagrams() {
    if !in_private_network("a_socket_that_may_not_cut_falls_back_to_single_datagrams") {
        return;
    }
    // Nothing is configured but the loopback, which must be brought up.
    let control = UdpSocket::bind("0.0.0.0:0").unwrap();
    InterfaceRequest::new("lo", &(libc::IFF_UP as u16).to_ne_bytes()).call(&control, libc::SIOCSIFFLAGS);
    let mut engine = Engine::new(Config::default()).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Without checksums the kernel refuses to cut (EINVAL).
    set_int(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    let socket = engine.add_socket(socket, false).unwrap();
    let sink = peer();
    let to = Endpoint { socket, remote: sink.local_addr().unwrap(), local: None };
    for (index, byte) in engine.slab().memory[..950].iter_mut().enumerate() {
        *byte = (index / 100) as u8;
    }
    engine.keep_slab(950);
    engine.send(0..950, 100, &to, 0);
    engine.flush().unwrap();
    let counters = engine.counters();
    assert_eq!((counters.datagrams_out, counters.resent_singly, counters.sends), (10, 1, 10));
    let mut buffer = [0; 200];
    for number in 0..10_u8 {
        let length = sink.recv(&mut buffer).unwrap();
        assert_eq!((length, buffer[0]), (if number < 9 { 100 } else { 50 }, number));
    }
}
