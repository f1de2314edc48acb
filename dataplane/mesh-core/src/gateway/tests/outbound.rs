//! The half of a gateway that sends: what it knows, what it seals, and what it leaves to the other half.

use std::net::Ipv4Addr;
use std::time::Duration;

use etherparse::PacketBuilder;

use super::packets::ping;
use super::world::{Output, World, config, ip4};
use crate::gateway::{LaneChange, Outbound, OutboundEvent, PathChoice};
use crate::node::Node as _;
use crate::seam::{Action, Arrival, Offloads, Origin, Slab, VIRTIO_BYTES};

const ALL: Offloads = Offloads { checksum: true, tcp: true, udp: true };

/// Two gateways that have talked, and the sending half of the first.
fn split(offloads: Offloads, path: PathChoice) -> (World, Outbound) {
    let mut world = World::empty();
    world.start_transfer(1);
    for number in [1, 2] {
        world.insert(number, crate::gateway::GatewayConfig { offloads, path, ..config(number, u64::from(number)) });
    }
    world.run(Duration::from_secs(1));
    let mut half = world.gateways.get_mut(&1).unwrap().outbound();
    let first = [vec![0; offloads.header_bytes()], ping(1, 2, 1)].concat();
    world.inside(1, &first);
    world.run(Duration::from_secs(2));
    assert_eq!(world.packets(2), 1);
    tell(&mut world, &mut half);
    (world, half)
}

/// Carries what the gateway tells of lanes to the half, and answers how many changes there were.
fn tell(world: &mut World, half: &mut Outbound) -> usize {
    let mut told = 0;
    while let Some(change) = world.gateways.get_mut(&1).unwrap().poll_lane() {
        half.change(change);
        told += 1;
    }
    told
}

/// Hands a packet to the half, and what it makes of it to the network; what it says of it comes back.
fn send(world: &mut World, half: &mut Outbound, packet: &[u8]) -> (usize, Vec<OutboundEvent>) {
    let mut memory = vec![0; 2 * Slab::ROOM_BYTES];
    let mut bytes = packet.to_vec();
    let mut actions = Vec::new();
    let arrival = Arrival { origin: Origin::Inside, segment_bytes: bytes.len(), tos: 0 };
    half.handle(world.now, &arrival, &mut bytes, &mut Slab::new(&mut memory, 0), &mut actions);
    let mut frames = 0;
    let mut output = Output::default();
    for action in actions {
        if let Action::Send { slab, segment_bytes, .. } = &action {
            frames += slab.len().div_ceil(*segment_bytes);
        }
        super::world::carry_out(action, &[], &memory, &mut output);
    }
    world.settle(1, output);
    (frames, std::iter::from_fn(|| half.poll_event()).collect())
}

fn packet_out(world: &World) -> u64 {
    world.gateways[&1].status(world.now).peers[0].packets_out
}

#[test]
fn it_sends_with_the_session_and_the_books_are_kept() {
    let (mut world, mut half) = split(Offloads::NONE, PathChoice::Relay);
    let before = packet_out(&world);
    let (frames, events) = send(&mut world, &mut half, &ping(1, 2, 2));
    assert!(matches!(events[..], [OutboundEvent::Sends(peer)] if peer == ip4(2)), "{events:?}");
    let now = world.now;
    world.gateways.get_mut(&1).unwrap().sends_to(now, ip4(2));
    assert_eq!(frames, 1);
    for seq in 3..10 {
        let (frames, events) = send(&mut world, &mut half, &ping(1, 2, seq));
        assert_eq!((frames, events.len()), (1, 0), "known to be in use");
    }
    world.run(Duration::from_millis(1500));
    assert_eq!(world.packets(2), 9);
    assert_eq!(packet_out(&world), before + 8);
    // After a rest the gateway hears of the next one; both halves seal with one counter, and nothing is taken for a replay.
    world.run(Duration::from_secs(3));
    world.inside(1, &ping(1, 2, 10));
    let (_, events) = send(&mut world, &mut half, &ping(1, 2, 11));
    assert!(matches!(events[..], [OutboundEvent::Sends(_)]), "{events:?}");
    world.run(Duration::from_secs(1));
    assert_eq!(world.packets(2), 11);
}

#[test]
fn what_it_cannot_seal_is_handed_over_as_it_came() {
    let (mut world, mut half) = split(Offloads::NONE, PathChoice::Relay);
    let mut others = ping(1, 2, 1);
    others[12..16].copy_from_slice(&Ipv4Addr::new(1, 2, 3, 4).octets());
    let long = {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4(ip4(1).octets(), ip4(2).octets(), 64).udp(1, 2);
        builder.write(&mut packet, &[7; 1400]).unwrap();
        packet
    };
    for packet in [others, ping(1, 9, 1), vec![0x45; 3], long] {
        let (frames, events) = send(&mut world, &mut half, &packet);
        assert_eq!(frames, 0);
        let [OutboundEvent::Packet(bytes)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(**bytes, *packet);
    }
}

#[test]
fn a_session_that_ends_takes_its_lane_along_and_a_new_one_brings_another() {
    let (mut world, mut half) = split(Offloads::NONE, PathChoice::Relay);
    assert_eq!(tell(&mut world, &mut half), 0, "nothing has changed");
    // Another start of the peer closes the session.
    world.insert(2, config(2, 77));
    world.run(Duration::from_secs(2));
    world.inside(2, &ping(2, 1, 1));
    world.run(Duration::from_secs(2));
    assert!(tell(&mut world, &mut half) > 0);
    let (frames, _) = send(&mut world, &mut half, &ping(1, 2, 5));
    assert_eq!(frames, 1);
    world.run(Duration::from_secs(1));
    assert!(world.delivered[&2].iter().any(|(_, packet)| *packet == ping(1, 2, 5)), "under the new session");
    // Nothing is sealed after the end.
    let now = world.now;
    world.gateways.get_mut(&1).unwrap().stop(now);
    let mut gone = false;
    while let Some(LaneChange { lane, .. }) = world.gateways.get_mut(&1).unwrap().poll_lane() {
        gone |= lane.is_none();
    }
    assert!(gone, "the lane ends with the gateway");
}

#[test]
fn a_packet_that_stands_for_many_comes_out_as_it_went_in() {
    let (mut world, mut half) = split(ALL, PathChoice::Relay);
    let payload: Vec<u8> = (0..20_000_u32).map(|at| (at * 7) as u8).collect();
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(ip4(1).octets(), ip4(2).octets(), 64).tcp(1000, 2000, 5, 500);
    builder.write(&mut packet, &payload).unwrap();
    // The checksum covers the pseudo header: what an interface with offloads leaves there.
    let mut sum = 6 + (packet.len() as u32 - 20);
    for word in packet[12..20].chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[36..38].copy_from_slice(&(sum as u16).to_be_bytes());
    let mut header = [0; VIRTIO_BYTES];
    header[..2].copy_from_slice(&[1, 1]);
    header[2..4].copy_from_slice(&40_u16.to_le_bytes());
    header[4..6].copy_from_slice(&1000_u16.to_le_bytes());
    header[6..8].copy_from_slice(&20_u16.to_le_bytes());
    header[8..10].copy_from_slice(&16_u16.to_le_bytes());
    let whole = [&header[..], &packet].concat();
    let (frames, _) = send(&mut world, &mut half, &whole);
    assert_eq!(frames, 20);
    let before = world.packets(2);
    world.run(Duration::from_secs(1));
    // The network here carries datagrams one by one: each is a packet of its own, whose checksum is left to the interface.
    assert_eq!(world.packets(2), before + 20);
    let mut got = Vec::new();
    for (number, (_, one)) in world.delivered[&2].iter().skip(before).enumerate() {
        assert_eq!((one[0], one[1]), (1, 0), "packet {number}");
        assert_eq!(one[VIRTIO_BYTES + 24..VIRTIO_BYTES + 28], (5 + 1000 * number as u32).to_be_bytes());
        got.extend_from_slice(&one[VIRTIO_BYTES + 40..]);
    }
    assert_eq!(got, payload);
}
