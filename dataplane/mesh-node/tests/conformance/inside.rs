//! The virtual interface, in a network namespace of its own.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use mesh_core::seam::Origin;
use mesh_node::engine::EngineCounters;
use mesh_node::inside::{InsideConfig, InsideDevice};

use crate::namespace;
use crate::support::{Conforms, Patience, Rig, SOON};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const ULA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x9, 0, 0, 0, 0, 0, 1);

fn open() -> InsideDevice {
    let config =
        InsideConfig { name_hint: None, ipv4: OURS, prefix: 16, ula: Some((ULA, 64)), mtu: 1400, offload: false };
    InsideDevice::open(&config).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn reads_and_writes_the_interface<E: Conforms>() {
    namespace::enter(E::NAME, "reads_and_writes_the_interface", || {
        let mut rig = Rig::<E>::new();
        rig.engine.add_inside(open()).expect("add the interface");
        let socket = UdpSocket::bind((OURS, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for round in 0..200_u16 {
            let text = vec![round as u8; 1 + usize::from(round) * 6];
            socket.send_to(&text, (THEIRS, 7)).unwrap();
            let patience = Patience::new("a packet from the interface");
            let mut answered = false;
            while !answered {
                patience.check(rig.engine.counters());
                rig.turn(SOON, |engine, train, arrival| {
                    assert_eq!(arrival.origin, Origin::Inside);
                    let (packet, mut slab) = engine.split(train);
                    assert_eq!(arrival.segment_bytes, packet.len(), "one packet at a time");
                    // The kernel says more than it was asked to (IPv6 neighbour discovery); answer what is ours.
                    if packet[0] != 0x45 || packet[9] != 17 {
                        return;
                    }
                    turn_round(packet);
                    answered = true;
                    if round % 2 == 0 {
                        let bytes = packet.len();
                        engine.deliver(train, 0..bytes);
                    } else {
                        let copy = slab.append(packet).expect("room for a packet");
                        let used = slab.used();
                        engine.keep_slab(used);
                        engine.deliver_slab(copy);
                    }
                });
            }
            let mut buffer = [0; 2000];
            let (bytes, from) = socket.recv_from(&mut buffer).expect("the answer comes out of the interface");
            assert_eq!((&buffer[..bytes], from), (&text[..], (THEIRS, 7).into()));
        }
        let counters = rig.engine.counters();
        assert!(counters.inside_in >= 200, "{counters:?}");
        assert_eq!((counters.inside_out, counters.drops_inside_full), (200, 0));
    });
}

/// Swaps sender and receiver of an IPv4 UDP packet; its checksums do not change.
fn turn_round(packet: &mut [u8]) {
    let (head, tail) = packet.split_at_mut(16);
    head[12..16].swap_with_slice(&mut tail[..4]);
    packet[20..24].rotate_left(2);
}

pub(crate) fn an_interface_has_its_addresses_and_vanishes<E: Conforms>() {
    namespace::enter(E::NAME, "an_interface_has_its_addresses_and_vanishes", || {
        let device = open();
        assert_eq!(device.name, "mesh0");
        UdpSocket::bind((OURS, 0)).expect("the IPv4 address is there");
        if device.ula.is_some() {
            // The kernel takes a moment to decide that nobody else has it.
            let patience = Patience::new("the IPv6 address");
            while UdpSocket::bind((ULA, 0)).is_err() {
                patience.check(EngineCounters::default());
                std::thread::yield_now();
            }
            let mtu = std::fs::read_to_string("/proc/sys/net/ipv6/conf/mesh0/mtu").unwrap();
            assert_eq!(mtu.trim(), "1400");
        }
        let mut rig = Rig::<E>::new();
        rig.engine.add_inside(device).expect("add the interface");
        let second = InsideConfig {
            name_hint: Some("other".into()),
            ipv4: [10, 7, 0, 1].into(),
            prefix: 24,
            ula: None,
            mtu: 1300,
            offload: false,
        };
        let second = InsideDevice::open(&second).unwrap();
        assert_eq!(second.name, "other");
        assert!(rig.engine.add_inside(second).is_err(), "an engine has one interface at most");
        rig.turn(Duration::ZERO, |_, _, _| {});
        drop(rig);
        assert!(!exists("mesh0"), "the interface vanishes with the engine");
        assert!(!exists("other"), "and with a device that was not taken");
    });
}

pub(crate) fn a_second_interface_takes_the_next_name<E: Conforms>() {
    namespace::enter(E::NAME, "a_second_interface_takes_the_next_name", || {
        let first = open();
        let config = InsideConfig {
            name_hint: None,
            ipv4: [10, 6, 0, 1].into(),
            prefix: 24,
            ula: None,
            mtu: 1400,
            offload: false,
        };
        let second = InsideDevice::open(&config).unwrap();
        assert_eq!((&*first.name, &*second.name), ("mesh0", "mesh1"));
        drop(first);
        assert_eq!(open().name, "mesh0", "a name is free again when its interface is gone");
    });
}

fn exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}
