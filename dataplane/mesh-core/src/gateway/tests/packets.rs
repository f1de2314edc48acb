//! Packets through the tunnel: the first one, long ones, spoofed ones, those for nobody.

use std::net::Ipv6Addr;
use std::time::Duration;

use etherparse::PacketBuilder;

use super::world::{Fate, LATENCY, World, config, ip4, keys};
use crate::drops::DropReason;
use crate::gateway::OuterSize;
use crate::gateway::peers::QUEUE_PACKETS_MAX;

pub(super) fn ping(from: u8, to: u8, seq: u16) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(ip4(from).octets(), ip4(to).octets(), 64).icmpv4_echo_request(1, seq);
    let mut packet = Vec::new();
    builder.write(&mut packet, b"abcdefgh").unwrap();
    packet
}

pub(super) fn udp6(from: u8, to: u8, total_bytes: usize) -> Vec<u8> {
    let (source, destination) = (keys().ula(ip4(from)), keys().ula(ip4(to)));
    let builder = PacketBuilder::ipv6(source.octets(), destination.octets(), 64).udp(1000, 2000);
    let payload: Vec<u8> = (0..total_bytes - 48).map(|at| at as u8).collect();
    let mut packet = Vec::new();
    builder.write(&mut packet, &payload).unwrap();
    assert_eq!(packet.len(), total_bytes);
    packet
}

fn syn(from: u8, to: u8, mss: u16) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(ip4(from).octets(), ip4(to).octets(), 64)
        .tcp(1000, 80, 7, 1024)
        .syn()
        .options(&[etherparse::TcpOptionElement::MaximumSegmentSize(mss)])
        .unwrap();
    let mut packet = Vec::new();
    builder.write(&mut packet, &[]).unwrap();
    packet
}

#[test]
fn first_ping_passes_within_three_round_trips() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 1));
    let took = world.run_until(Duration::from_secs(2), |world| world.packets(2) == 1).expect("the ping arrives");
    // Lookup: one round trip to the transfer. Init and response: two links each way. Final and ping: two links.
    assert_eq!(took, LATENCY * 8, "in links");
    assert_eq!(world.delivered[&2][0].1, ping(1, 2, 1));
    world.inside(2, &ping(2, 1, 1));
    let back = world.run_until(Duration::from_secs(1), |world| world.packets(1) == 1).expect("the answer arrives");
    assert_eq!(back, LATENCY * 2);
}

#[test]
fn packets_that_wait_leave_in_order_and_are_bounded() {
    let mut world = World::with(&[1, 2]);
    for seq in 0..50 {
        world.inside(1, &ping(1, 2, seq));
    }
    world.run(Duration::from_millis(500));
    let arrived: Vec<Vec<u8>> = world.delivered[&2].iter().map(|(_, packet)| packet.clone()).collect();
    let expect: Vec<Vec<u8>> = (0..QUEUE_PACKETS_MAX as u16).map(|seq| ping(1, 2, seq)).collect();
    assert_eq!(arrived, expect);
    assert_eq!(world.gateways[&1].drops().get(DropReason::QueueFull), 50 - QUEUE_PACKETS_MAX as u64);
}

#[test]
fn address_that_nobody_holds_is_unreachable() {
    let mut world = World::with(&[1]);
    world.inside(1, &ping(1, 9, 1));
    let took = world.run_until(Duration::from_secs(1), |world| world.packets(1) == 1).expect("an answer");
    assert_eq!(took, LATENCY * 2);
    let answer = &world.delivered[&1][0].1;
    assert_eq!(answer[12..16], ip4(9).octets());
    assert_eq!(answer[16..20], ip4(1).octets());
    assert_eq!(answer[20..22], [3, 1], "host unreachable");
    assert_eq!(answer[28..], ping(1, 9, 1)[..], "quotes the packet");
    assert!(etherparse::SlicedPacket::from_ip(answer).is_ok());
    // Remembered for a while: the next is answered at once.
    world.inside(1, &ping(1, 9, 2));
    assert_eq!(world.packets(1), 2);
}

#[test]
fn ipv6_to_nobody_is_unreachable_too() {
    let mut world = World::with(&[1]);
    world.inside(1, &udp6(1, 9, 100));
    world.run(Duration::from_millis(100));
    let answer = &world.delivered[&1][0].1;
    assert_eq!(answer[40..42], [1, 3], "address unreachable");
    let etherparse::SlicedPacket { net, transport, .. } = etherparse::SlicedPacket::from_ip(answer).unwrap();
    let Some(etherparse::NetSlice::Ipv6(net)) = net else { panic!("not IPv6") };
    let Some(etherparse::TransportSlice::Icmpv6(icmp)) = transport else { panic!("not ICMPv6") };
    let header = net.header();
    assert!(icmp.is_checksum_valid(header.source_addr().octets(), header.destination_addr().octets()));
}

#[test]
fn ipv6_packet_of_1280_bytes_travels_as_two_halves() {
    let mut world = World::with(&[1, 2]);
    let packet = udp6(1, 2, 1280);
    for _ in 0..3 {
        world.inside(1, &packet);
        world.run(Duration::from_millis(300));
    }
    let arrived: Vec<&Vec<u8>> = world.delivered[&2].iter().map(|(_, packet)| packet).collect();
    assert_eq!(arrived, [&packet; 3], "one that waited, and two at once");
}

#[test]
fn half_that_is_alone_is_given_up() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_millis(300));
    // Of two frames of one packet the second is lost.
    world.fate = Box::new(|datagram| {
        let second = datagram.kind() == 0 && datagram.bytes[1] == 4;
        if second { Fate::Drop } else { Fate::Pass }
    });
    world.inside(1, &udp6(1, 2, 1280));
    world.run(Duration::from_secs(3));
    world.fate = Box::new(|_| Fate::Pass);
    world.inside(1, &udp6(1, 2, 1280));
    world.run(Duration::from_millis(100));
    assert_eq!(world.packets(2), 2, "the ping and the whole packet");
    assert_eq!(world.gateways[&2].status(world.now).halves_lost, 1);
}

#[test]
fn syn_leaves_with_a_segment_size_that_fits() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &syn(1, 2, 1460));
    world.run(Duration::from_millis(300));
    // 1280 outer - 28 IPv4 and UDP - 44 sealing - 40 inner headers.
    assert_eq!(world.delivered[&2][0].1, syn(1, 2, 1168), "as if it had been announced, checksum included");
    world.inside(1, &syn(1, 2, 900));
    world.run(Duration::from_millis(300));
    assert_eq!(world.delivered[&2][1].1, syn(1, 2, 900), "a lower one stays");
}

#[test]
fn packet_longer_than_the_interface_is_refused_with_the_size_that_passes() {
    let mut world = World::with(&[1, 2]);
    world.inside(1, &ping(1, 2, 1));
    // Until it is known that no more passes.
    world.run(Duration::from_secs(3));
    world.inside(1, &udp6(1, 2, 1400));
    let answer = &world.delivered[&1][0].1;
    assert_eq!(answer[40..42], [2, 0], "packet too big");
    assert_eq!(answer[44..48], 1280_u32.to_be_bytes());
}

#[test]
fn mtu_never_falls_below_what_ipv6_needs() {
    assert_eq!(OuterSize::Assumed.inside_mtu(), 1280);
    assert_eq!(OuterSize::Fixed(100).inside_mtu(), 1280);
    assert_eq!(OuterSize::Fixed(1500).inside_mtu(), 1408);
}

#[test]
fn only_our_own_packets_go_out_and_only_to_peers() {
    let mut world = World::with(&[1, 2]);
    let other_source = ping(3, 2, 1);
    let to_ourselves = ping(1, 1, 1);
    let mut broadcast = ping(1, 2, 1);
    broadcast[16..20].copy_from_slice(&[172, 168, 255, 255]);
    let mut away = ping(1, 2, 1);
    away[16..20].copy_from_slice(&[8, 8, 8, 8]);
    let mut multicast = udp6(1, 2, 80);
    multicast[24..40].copy_from_slice(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
    for packet in [other_source, to_ourselves, broadcast, away, multicast, vec![0x45; 3], vec![]] {
        world.inside(1, &packet);
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.packets(2), 0);
    let drops = world.gateways[&1].drops();
    for (reason, count) in [
        (DropReason::SourceNotOurs, 1),
        (DropReason::OwnAddress, 1),
        (DropReason::ManyDestinations, 2),
        (DropReason::OutOfNetwork, 1),
        (DropReason::BadInnerPacket, 1),
    ] {
        assert_eq!(drops.get(reason), count, "{}", reason.name());
    }
}

#[test]
fn inner_source_that_is_not_the_peers_is_not_delivered() {
    let mut world = World::with(&[2]);
    // A gateway that believes to be 3 too: it takes any source for its own once its address is changed inside.
    world.insert(1, config(1, 1));
    world.run(Duration::from_millis(300));
    world.inside(1, &ping(1, 2, 1));
    world.run(Duration::from_millis(300));
    assert_eq!(world.packets(2), 1);
    let honest = world.gateways[&1].network;
    world.gateways.get_mut(&1).unwrap().network = crate::gateway::ip::Network::new(ip4(3), 16, [0xfd; 8]);
    world.inside(1, &ping(3, 2, 2));
    world.gateways.get_mut(&1).unwrap().network = honest;
    world.run(Duration::from_millis(300));
    assert_eq!(world.packets(2), 1);
    assert_eq!(world.gateways[&2].drops().get(DropReason::SpoofedSource), 1);
}
