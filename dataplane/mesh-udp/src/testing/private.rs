//! A real TUN interface and a link that takes nothing, in a network namespace of the test's own.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::sys::{interface, raise};
use super::{
    Engine, Limits, PATIENCE, add, compose, echo_until, endpoint, engine, peer, receive, set_int, turns_until,
};
use crate::held::{HELD_PER_SOCKET_MAX, HELD_TIME};
use crate::{Endpoint, Origin};

const MARK: &str = "MESH_PRIVATE_NETWORK";

/// Runs the calling test in a network of its own; true inside.
pub fn entered(test: &str) -> bool {
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

pub fn packets_come_from_the_interface_and_go_back_to_it<E: Engine>() {
    let device = interface("mesh0", libc::IFF_TUN, [172, 168, 0, 1]);
    let mut engine = engine::<E>();
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
    for number in 0..100_u16 {
        assert_eq!(receive(&socket), vec![number as u8; 10 + 10 * usize::from(number)]);
    }
    assert!(engine.counters().inside_in >= 100);
    assert_eq!(engine.counters().drops_inside_full, 0);
    // What is no packet is refused, counted, and harms nothing.
    let range = compose(&mut engine, &[0xff]);
    engine.deliver_slab(range);
    engine.flush();
    assert_eq!((engine.counters().drops_inside_full, engine.counters().inside_out), (1, 100));
    // There is one interface at most.
    let another = interface("mesh1", libc::IFF_TUN, [172, 169, 0, 1]);
    assert_eq!(engine.add_inside(another).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    drop(engine);
    assert!(!std::path::Path::new("/proc/sys/net/ipv4/conf/mesh0").exists(), "the interface went with the engine");
}

/// A socket whose packets nobody takes: its neighbour does not answer, and they queue up in the socket's account.
fn stuck_engine<E: Engine>() -> (E, Endpoint, OwnedFd) {
    let device = interface("stuck0", libc::IFF_TAP, [10, 9, 0, 1]);
    let mut engine = E::make(Limits { send_bytes: Some(8192), ..Limits::default() });
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // The mode of the socket must not matter.
    socket.set_nonblocking(true).unwrap();
    let socket = engine.add_socket(socket, false).unwrap();
    (engine, Endpoint { socket, remote: "10.9.0.2:9".parse().unwrap(), local: None }, device)
}

pub fn a_full_send_buffer_holds_a_few_and_drops_the_rest_in_bounded_time<E: Engine>() {
    let (mut engine, to, _device) = stuck_engine::<E>();
    let total = 200;
    for _ in 0..total {
        engine.send(0..1000, 1000, &to, 0);
        engine.flush();
    }
    let counters = engine.counters();
    assert!(counters.held > 0 && counters.held <= HELD_PER_SOCKET_MAX as u64, "{counters:?}");
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

pub fn held_sends_are_given_up_in_the_middle_of_a_wait<E: Engine>() {
    let (mut engine, to, _device) = stuck_engine::<E>();
    for _ in 0..20 {
        engine.send(0..1000, 1000, &to, 0);
        engine.flush();
    }
    let waker = engine.waker();
    let (over, waits) = mpsc::channel();
    let other = thread::spawn(move || {
        // Far longer than anything is held, on a machine that has much else to do too.
        let waited = waits.recv_timeout(10 * HELD_TIME);
        waker.wake();
        waited
    });
    // No timeout and no datagram: the engine looks after what it holds of its own accord.
    engine.wait(None, &mut Vec::new()).unwrap();
    let counters = engine.counters();
    over.send(()).unwrap_or_default();
    assert!(other.join().unwrap().is_err(), "the wait ended before it was told to");
    assert_eq!(counters.datagrams_out + counters.drops_send_full, 20, "{counters:?}");
}

/// The neighbours on a link, who say where they are only when they are told to.
struct Neighbours {
    link: OwnedFd,
    /// Those who answer, by the last byte of their address.
    awake: Vec<u8>,
    /// The questions for those who do not.
    unanswered: Vec<[u8; 42]>,
    /// What arrived: last byte of the address, and the number in the datagram.
    seen: Vec<(u8, u32)>,
}

impl Neighbours {
    fn new(link: OwnedFd, awake: &[u8]) -> Self {
        Self { link, awake: awake.to_vec(), unanswered: Vec::new(), seen: Vec::new() }
    }

    /// Reads what was put on the link, and answers.
    fn look(&mut self) {
        let mut frame = [0; 2048];
        while let Ok(length) = nix::unistd::read(&self.link, &mut frame) {
            match frame[12..14] {
                // ARP: who has 10.9.0.x?
                [8, 6] if frame[38..41] == [10, 9, 0] => {
                    let question = *frame.first_chunk().expect("42 bytes of many");
                    if self.awake.contains(&frame[41]) {
                        self.answer(question);
                    } else {
                        self.unanswered.push(question);
                    }
                }
                [8, 0] if length >= 46 && frame[23] == 17 => {
                    self.seen.push((frame[33], u32::from_be_bytes(frame[42..46].try_into().unwrap())));
                }
                _ => {}
            }
        }
    }

    fn answer(&self, mut frame: [u8; 42]) {
        let (asked, own) = ([10, 9, 0, frame[41]], [2, 0, 0, 0, 0, frame[41]]);
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&own);
        frame[20..22].copy_from_slice(&[0, 2]);
        frame.copy_within(22..32, 32);
        frame[22..28].copy_from_slice(&own);
        frame[28..32].copy_from_slice(&asked);
        nix::unistd::write(&self.link, &frame).unwrap();
    }

    /// Has one more answer, also what it was asked before.
    fn wake(&mut self, neighbour: u8) {
        self.look();
        self.awake.push(neighbour);
        let (for_it, rest) = self.unanswered.drain(..).partition(|question| question[41] == neighbour);
        self.unanswered = rest;
        let questions: Vec<[u8; 42]> = for_it;
        self.answer(*questions.last().expect("the kernel has asked for it"));
    }

    /// The numbers that arrived at one of them.
    fn seen_by(&self, neighbour: u8) -> Vec<u32> {
        self.seen.iter().filter(|(by, _)| *by == neighbour).map(|(_, number)| *number).collect()
    }
}

/// Sends a datagram of 1000 bytes that begins with its number.
fn send_number<E: Engine>(engine: &mut E, to: &Endpoint, number: u32) {
    let mut bytes = [0; 1000];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    let range = compose(engine, &bytes);
    engine.send(range, 1000, to, 0);
    engine.flush();
}

pub fn held_sends_leave_in_order_when_there_is_room_again<E: Engine>() {
    let (mut engine, to, link) = stuck_engine::<E>();
    let numbers = 12_u32;
    let begun = Instant::now();
    (0..numbers).for_each(|number| send_number(&mut engine, &to, number));
    assert!(engine.counters().held > 0, "{:?}", engine.counters());
    assert!(engine.counters().datagrams_out < u64::from(numbers));
    let mut neighbours = Neighbours::new(link, &[2]);
    let mut slowly = false;
    while neighbours.seen.len() as u64 + engine.counters().drops_send_full < u64::from(numbers) {
        assert!(begun.elapsed() < PATIENCE, "{:?} {:?}", neighbours.seen, engine.counters());
        slowly |= engine.counters().datagrams_out < u64::from(numbers) && begun.elapsed() >= HELD_TIME;
        engine.wait(Some(Duration::from_millis(1)), &mut Vec::new()).unwrap();
        neighbours.look();
    }
    let seen = neighbours.seen_by(2);
    assert!(seen.is_sorted() && seen.len() > 3, "{seen:?}");
    // On a machine that stood still for so long what waited was dropped, as it must be.
    assert!(engine.counters().drops_send_full == 0 || slowly, "{seen:?} {:?}", engine.counters());
}

/// Room comes piece by piece: what finds some leaves, what finds none after all waits on.
pub fn held_sends_leave_as_far_as_there_is_room<E: Engine>() {
    let (mut engine, first, link) = stuck_engine::<E>();
    let second = Endpoint { remote: "10.9.0.3:9".parse().unwrap(), ..first };
    let mut neighbours = Neighbours::new(link, &[3]);
    let begun = Instant::now();
    // Most of the buffer is taken by what waits for the second neighbour, the rest and all that is held by the first.
    let mut sent = 0;
    while engine.counters().held == 0 {
        let to = if sent < 3 { &second } else { &first };
        send_number(&mut engine, to, sent);
        sent += 1;
    }
    let before = engine.counters().datagrams_out;
    for number in sent..sent + 8 {
        send_number(&mut engine, &first, number);
    }
    let total = u64::from(sent) + 8;
    assert_eq!((engine.counters().held, engine.counters().datagrams_out), (9, before));
    let mut slowly = false;
    let mut turn = |engine: &mut E, neighbours: &mut Neighbours| {
        let counters = engine.counters();
        assert!(begun.elapsed() < PATIENCE, "{:?} {counters:?}", neighbours.seen);
        slowly |= counters.datagrams_out < total && begun.elapsed() >= HELD_TIME;
        engine.wait(Some(Duration::from_millis(1)), &mut Vec::new()).unwrap();
        neighbours.look();
        slowly
    };
    while engine.counters().datagrams_out == before && !turn(&mut engine, &mut neighbours) {}
    // A few more turns: the buffer is full again.
    for _ in 0..5 {
        turn(&mut engine, &mut neighbours);
    }
    let counters = engine.counters();
    let some = counters.datagrams_out;
    let waits = before < some && some < total && counters.drops_send_full == 0;
    assert!(turn(&mut engine, &mut neighbours) || waits, "{counters:?}");
    assert_eq!(neighbours.seen_by(2), []);
    neighbours.wake(2);
    while (neighbours.seen.len() as u64) + engine.counters().drops_send_full < total {
        turn(&mut engine, &mut neighbours);
    }
    let counters = engine.counters();
    assert!(turn(&mut engine, &mut neighbours) || counters.drops_send_full == 0, "{counters:?}");
    assert!(neighbours.seen_by(2).is_sorted() && neighbours.seen_by(3) == [0, 1, 2], "{:?}", neighbours.seen);
}

pub fn a_stuck_socket_delays_no_other<E: Engine>() {
    let (mut engine, to, _device) = stuck_engine::<E>();
    raise("lo");
    let (_, address) = add(&mut engine);
    for _ in 0..30 {
        engine.send(0..1000, 1000, &to, 0);
        engine.flush();
    }
    assert!(engine.counters().held > 0, "{:?}", engine.counters());
    let peer = peer();
    let before = engine.counters().datagrams_out;
    let start = Instant::now();
    for round in 1..=100 {
        peer.send_to(&[round as u8; 50], address).unwrap();
        engine.send(0..1000, 1000, &to, 0);
        echo_until(&mut engine, before + round);
        assert_eq!(receive(&peer), [round as u8; 50]);
    }
    // The engine looks after held sends every 20 ms: echoes that waited for that would take 2 s.
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
}

pub fn a_stuck_socket_can_be_removed_and_an_engine_with_one_dropped<E: Engine>() {
    let (mut engine, to, _device) = stuck_engine::<E>();
    for _ in 0..20 {
        engine.send(0..1000, 1000, &to, 0);
        engine.flush();
    }
    engine.send(0..20_000, 1000, &to, 0);
    engine.flush();
    assert_eq!(engine.counters().held, HELD_PER_SOCKET_MAX as u64);
    let start = Instant::now();
    engine.remove_socket(to.socket).unwrap();
    engine.flush();
    assert!(start.elapsed() < Duration::from_secs(1));
    let counters = engine.counters();
    assert_eq!(counters.datagrams_out + counters.drops_send_full, 40, "{counters:?}");
    let again = engine.add_socket(UdpSocket::bind("0.0.0.0:0").unwrap(), false).unwrap();
    for _ in 0..20 {
        engine.send(0..1000, 1000, &Endpoint { socket: again, ..to }, 0);
        engine.flush();
    }
    let start = Instant::now();
    drop(engine);
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
}

pub fn segments_longer_than_the_link_takes_are_counted_and_a_short_tail_passes<E: Engine>() {
    let _device = interface("link0", libc::IFF_TUN, [10, 8, 0, 1]);
    let mut engine = engine::<E>();
    let socket = engine.add_socket(UdpSocket::bind("0.0.0.0:0").unwrap(), false).unwrap();
    let to = Endpoint { socket, remote: "10.8.0.2:9".parse().unwrap(), local: None };
    // The link takes 1500 bytes: 1472 of payload.
    engine.send(0..3 * 1473 + 100, 1473, &to, 0);
    engine.flush();
    let counters = engine.counters();
    assert_eq!((counters.drops_send_failed, counters.datagrams_out, counters.resent_singly), (3, 1, 1));
    engine.send(0..3 * 1472 + 100, 1472, &to, 0);
    engine.flush();
    let counters = engine.counters();
    assert_eq!((counters.drops_send_failed, counters.datagrams_out, counters.resent_singly), (3, 5, 1));
    assert_eq!(engine.offloads(), (true, true), "the path is too narrow, the socket can cut");
}

pub fn a_socket_that_may_not_cut_falls_back_to_single_datagrams<E: Engine>() {
    raise("lo");
    let mut engine = engine::<E>();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Without checksums the kernel refuses to cut (EINVAL).
    set_int(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    let socket = engine.add_socket(socket, false).unwrap();
    let sink = peer();
    let bytes: Vec<u8> = (0..950).map(|index| (index / 100) as u8).collect();
    let range = compose(&mut engine, &bytes);
    engine.send(range, 100, &endpoint(socket, &sink), 0);
    engine.flush();
    let counters = engine.counters();
    assert_eq!((counters.datagrams_out, counters.resent_singly, counters.sends), (10, 1, 10));
    for number in 0..10_u8 {
        assert_eq!(receive(&sink), vec![number; if number < 9 { 100 } else { 50 }]);
    }
}
