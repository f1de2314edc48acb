//! The engine on whatever system this runs on, with offloads and without. What every engine must do is tested where the engines
//! meet, in `mesh-node`; this is what must hold under Windows as well.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use compat_win::{Config, Endpoint, Engine, Origin, Train};

const PATIENCE: Duration = Duration::from_secs(20);

fn engines() -> [Engine; 2] {
    [true, false].map(|offload| Engine::new(Config { offload, ..Config::default() }).unwrap())
}

fn bind(engine: &mut Engine, host: IpAddr) -> (u16, SocketAddr) {
    let socket = UdpSocket::bind((host, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (engine.add_socket(socket, false).unwrap(), address)
}

fn peer(host: IpAddr) -> UdpSocket {
    let peer = UdpSocket::bind((host, 0)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
}

/// Echoes until `datagrams` came back out.
fn echo(engine: &mut Engine, datagrams: u64) {
    let end = Instant::now() + PATIENCE;
    let target = engine.counters().datagrams_out + datagrams;
    let mut batch: Vec<Train> = Vec::new();
    while engine.counters().datagrams_out < target {
        assert!(Instant::now() < end, "{:?}", engine.counters());
        engine.wait(Some(Duration::from_millis(100)), &mut batch).unwrap();
        for train in batch.drain(..) {
            let Origin::Outside(from) = train.origin() else { panic!("there is no interface") };
            engine.forward(&train, 0..train.bytes(), train.segment_bytes(), &from, train.tos());
            engine.release(train);
        }
        engine.flush();
    }
}

#[test]
fn echoes_in_order_over_both_families() {
    for mut engine in engines() {
        for host in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let (_, address) = bind(&mut engine, host);
            let peer = peer(host);
            let mut buffer = vec![0; 65_536];
            for round in 0..50_u8 {
                for step in 0..20_u8 {
                    peer.send_to(&[round, step, 0, 0][..2 + usize::from(step % 3)], address).unwrap();
                }
                echo(&mut engine, 20);
                for step in 0..20_u8 {
                    let bytes = peer.recv(&mut buffer).unwrap();
                    assert_eq!(buffer[..bytes], [round, step, 0, 0][..2 + usize::from(step % 3)], "{host}");
                }
            }
        }
    }
}

#[test]
fn carries_long_and_empty_datagrams() {
    for mut engine in engines() {
        let (_, address) = bind(&mut engine, Ipv4Addr::LOCALHOST.into());
        let peer = peer(Ipv4Addr::LOCALHOST.into());
        let mut buffer = vec![0; 65_536];
        for bytes in [65_507, 0, 1, 0, 9000] {
            peer.send_to(&vec![3; bytes], address).unwrap();
            echo(&mut engine, 1);
            assert_eq!(peer.recv(&mut buffer).unwrap(), bytes);
            assert!(buffer[..bytes].iter().all(|byte| *byte == 3));
        }
    }
}

#[test]
fn a_composed_train_keeps_its_boundaries() {
    for mut engine in engines() {
        let (socket, _) = bind(&mut engine, Ipv4Addr::LOCALHOST.into());
        let peer = peer(Ipv4Addr::LOCALHOST.into());
        let to = Endpoint { socket, remote: peer.local_addr().unwrap(), local: None };
        let bytes = 20 * 1000 + 10;
        let scratch = engine.scratch(bytes);
        for (number, datagram) in scratch.memory[..bytes].chunks_mut(1000).enumerate() {
            datagram.fill(number as u8);
        }
        engine.keep_scratch(bytes);
        engine.send(0..bytes, 1000, &to, 0);
        engine.flush();
        let mut buffer = vec![0; 65_536];
        for number in 0..21 {
            let bytes = peer.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..bytes], vec![number; if number < 20 { 1000 } else { 10 }]);
        }
        assert_eq!(engine.counters().datagrams_out, 21);
    }
}

#[test]
fn a_port_without_anyone_stops_nothing() {
    for mut engine in engines() {
        let (socket, address) = bind(&mut engine, Ipv4Addr::LOCALHOST.into());
        let nobody = peer(Ipv4Addr::LOCALHOST.into()).local_addr().unwrap();
        for _ in 0..20 {
            engine.scratch(100);
            engine.keep_scratch(100);
            engine.send(0..100, 100, &Endpoint { socket, remote: nobody, local: None }, 0);
            engine.flush();
            engine.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        }
        let peer = peer(Ipv4Addr::LOCALHOST.into());
        peer.send_to(b"still there?", address).unwrap();
        echo(&mut engine, 1);
        assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 12);
    }
}

#[test]
fn waits_end_in_time_or_by_the_waker() {
    for mut engine in engines() {
        let (_, _) = bind(&mut engine, Ipv4Addr::LOCALHOST.into());
        let timeout = Duration::from_millis(40);
        let before = Instant::now();
        engine.wait(Some(timeout), &mut Vec::new()).unwrap();
        assert!(before.elapsed() >= timeout);
        let waker = engine.waker();
        thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            engine.wait(None, &mut Vec::new()).unwrap();
        });
    }
}

#[test]
fn a_removed_socket_frees_its_port() {
    for mut engine in engines() {
        let (socket, address) = bind(&mut engine, Ipv4Addr::LOCALHOST.into());
        let peer = peer(Ipv4Addr::LOCALHOST.into());
        peer.send_to(b"busy", address).unwrap();
        echo(&mut engine, 1);
        engine.remove_socket(socket).unwrap();
        UdpSocket::bind(address).unwrap();
    }
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "without Engine::release")]
fn a_forgotten_train_is_noticed() {
    let [mut engine, _] = engines();
    let (_, address) = bind(&mut engine, Ipv4Addr::LOCALHOST.into());
    peer(Ipv4Addr::LOCALHOST.into()).send_to(b"forget me", address).unwrap();
    let mut batch = Vec::new();
    while batch.is_empty() {
        engine.wait(None, &mut batch).unwrap();
    }
    batch.truncate(batch.len() - 1);
}
