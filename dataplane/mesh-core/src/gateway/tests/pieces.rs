//! The pieces: packets read, segment sizes, halves, answers, indexes, timers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mesh_wire::half::{Half, Part, cut};
use proptest::prelude::*;

use crate::gateway::halves::{JOINS_MAX, JOINS_PER_PEER_MAX, Joined, Joiner};
use crate::gateway::icmp::{Complaint, Complaints};
use crate::gateway::indexes::{Indexes, Owner};
use crate::gateway::ip::{self, Network, Whereto};
use crate::gateway::mss;
use crate::gateway::timers::{Bucket, Timers, backoff};
use crate::seam::Moment;

const NOW: Moment = Moment::from_nanos(5_000_000_000);

fn network() -> Network {
    Network::new(Ipv4Addr::new(172, 168, 0, 1), 16, [0xfd, 1, 2, 3, 4, 5, 0, 0])
}

/// A TCP segment with `options`, checksum complete.
fn tcp(options: &[u8], syn: bool) -> Vec<u8> {
    let (source, destination) = ([172, 168, 0, 1], [172, 168, 0, 2]);
    let builder = etherparse::PacketBuilder::ipv4(source, destination, 64).tcp(1, 2, 3, 4);
    let builder = builder.options_raw(options).unwrap();
    let builder = if syn { builder.syn() } else { builder.ack(1) };
    let mut packet = Vec::new();
    builder.write(&mut packet, b"odd").unwrap();
    packet
}

fn checksum_is_good(packet: &[u8]) -> bool {
    let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
    let (Some(etherparse::NetSlice::Ipv4(net)), Some(etherparse::TransportSlice::Tcp(segment))) =
        (sliced.net, sliced.transport)
    else {
        panic!("TCP over IPv4");
    };
    let sum = segment.to_header().calc_checksum_ipv4(&net.header().to_header(), segment.payload()).unwrap();
    sum == segment.checksum()
}

#[test]
fn segment_size_is_found_wherever_it_stands() {
    for options in [
        &[2, 4, 5, 180][..],
        &[1, 2, 4, 5, 180, 0, 0, 0],
        &[3, 3, 7, 2, 4, 5, 180, 0],
        &[1, 1, 1, 4, 2, 2, 4, 5, 180, 1, 1, 1],
    ] {
        let mut packet = tcp(options, true);
        assert!(checksum_is_good(&packet));
        let inner = ip::parse(&packet).unwrap();
        assert!(mss::clamp(&mut packet, &inner, 1240, false), "{options:?}");
        assert!(checksum_is_good(&packet), "{options:?}");
        let at = packet.windows(4).position(|window| window == [2, 4, 4, 176]);
        assert!(at.is_some(), "1240 - 40 = 1200 is announced: {options:?}");
    }
}

#[test]
fn what_is_no_syn_with_a_segment_size_stays() {
    for (options, syn) in [
        (&[2, 4, 5, 180][..], false),
        (&[1, 1, 1, 1], true),
        (&[0, 2, 4, 5, 180, 0, 0, 0], true),
        (&[2, 3, 5, 180], true),
        (&[8, 40, 1, 1], true),
        (&[8, 0, 1, 1], true),
        (&[1, 1, 1, 2], true),
    ] {
        let mut packet = tcp(options, syn);
        let before = packet.clone();
        let inner = ip::parse(&packet).unwrap();
        assert!(!mss::clamp(&mut packet, &inner, 1240, false), "{options:?}");
        assert_eq!(packet, before);
    }
}

proptest! {
    #[test]
    fn reading_and_clamping_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>(), tcp in any::<bool>()) {
        if bytes.len() >= 40 {
            let total = bytes.len() as u16;
            if v6 {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(total - 40).to_be_bytes());
                if tcp { bytes[6] = 6; }
            } else {
                bytes[0] = 0x45;
                bytes[2..4].copy_from_slice(&total.to_be_bytes());
                if tcp { bytes[9] = 6; }
            }
        }
        if let Ok(inner) = ip::parse(&bytes) {
            mss::clamp(&mut bytes, &inner, 100, false);
            Complaints::new(NOW).about(NOW, &bytes, &inner, Complaint::TooBig(1280));
        }
    }

    #[test]
    fn halves_of_any_packet_join_in_any_order(packet in prop::collection::vec(any::<u8>(), 2..3000), swap in any::<bool>()) {
        let whole = packet.len() as u16;
        let (one, two) = packet.split_at(cut(packet.len()));
        let mut halves = [
            Half { part: Part::First, id: 7, packet_bytes: whole, bytes: one },
            Half { part: Part::Second, id: 7, packet_bytes: whole, bytes: two },
        ];
        if swap {
            halves.reverse();
        }
        let (mut joiner, mut out) = (Joiner::default(), [0; 4000]);
        prop_assert_eq!(joiner.join(NOW, 1, &halves[0], 0, &mut out), Joined::Waits);
        prop_assert_eq!(joiner.join(NOW, 1, &halves[1], 0, &mut out), Joined::Whole { bytes: packet.len(), tos: 0 });
        prop_assert_eq!(&out[..packet.len()], &packet[..]);
        prop_assert_eq!(joiner.len(), 0);
    }
}

#[test]
fn joiner_is_bounded_in_number_and_time() {
    let mut joiner = Joiner::default();
    let half = |id| Half { part: Part::First, id, packet_bytes: 4, bytes: &[1, 2] };
    for id in 0..1000 {
        joiner.join(NOW, u32::from(id), &half(id), 0, &mut []);
    }
    assert_eq!((joiner.len(), joiner.lost()), (JOINS_MAX, 1000 - JOINS_MAX as u64));
    joiner.join(NOW + Duration::from_secs(2), 1, &half(0), 0, &mut []);
    assert_eq!(joiner.len(), 1);
}

#[test]
fn halves_of_one_peer_do_not_push_out_those_of_another() {
    let (mut joiner, mut out) = (Joiner::default(), [0; 10]);
    let first = |id| Half { part: Part::First, id, packet_bytes: 4, bytes: &[1, 2] };
    let second = Half { part: Part::Second, id: 7, packet_bytes: 4, bytes: &[3, 4] };
    joiner.join(NOW, 1, &first(7), 0, &mut out);
    for id in 0..100 {
        joiner.join(NOW, 2, &first(id), 0, &mut out);
    }
    assert_eq!(joiner.len(), 1 + JOINS_PER_PEER_MAX);
    assert_eq!(joiner.join(NOW, 1, &second, 0, &mut out), Joined::Whole { bytes: 4, tos: 0 });
    joiner.forget(2);
    assert_eq!(joiner.len(), 0, "they go with the peer's sessions");
}

#[test]
fn halves_of_different_peers_or_packets_do_not_join() {
    let (mut joiner, mut out) = (Joiner::default(), [0; 10]);
    let first = Half { part: Part::First, id: 1, packet_bytes: 4, bytes: &[1, 2] };
    let second = Half { part: Part::Second, id: 1, packet_bytes: 4, bytes: &[3, 4] };
    assert_eq!(joiner.join(NOW, 1, &first, 0, &mut out), Joined::Waits);
    assert_eq!(joiner.join(NOW, 2, &second, 0, &mut out), Joined::Waits);
    assert_eq!(joiner.join(NOW, 1, &Half { id: 2, ..second }, 0, &mut out), Joined::Waits);
    assert_eq!(joiner.join(NOW, 1, &first, 0, &mut out), Joined::Waits);
    assert_eq!(joiner.join(NOW, 1, &second, 0, &mut out), Joined::Whole { bytes: 4, tos: 0 });
}

#[test]
fn destinations_are_told_apart() {
    let network = network();
    let peer = Ipv4Addr::new(172, 168, 3, 4);
    for (destination, expect) in [
        ("172.168.3.4", Whereto::Peer(peer)),
        ("fd01:203:405::aca8:304", Whereto::Peer(peer)),
        ("172.168.0.1", Whereto::Ourselves),
        ("fd01:203:405::aca8:1", Whereto::Ourselves),
        ("172.168.0.0", Whereto::Several),
        ("172.168.255.255", Whereto::Several),
        ("255.255.255.255", Whereto::Several),
        ("224.0.0.1", Whereto::Several),
        ("ff02::1", Whereto::Several),
        ("172.169.3.4", Whereto::Elsewhere),
        ("fd01:203:405::1:aca8:304", Whereto::Elsewhere),
        ("fe80::1", Whereto::Elsewhere),
    ] {
        assert_eq!(network.whereto(destination.parse::<IpAddr>().unwrap()), expect, "{destination}");
    }
}

#[test]
fn nobody_complains_about_complaints() {
    let about = |packet: &[u8]| {
        let inner = ip::parse(packet).unwrap();
        Complaints::new(NOW).about(NOW, packet, &inner, Complaint::HostUnreachable)
    };
    let ping = super::packets::ping(1, 2, 3);
    let answer = about(&ping).expect("a ping is answered");
    assert_eq!(about(&answer), None, "an error is not");
    let mut fragment = ping.clone();
    fragment[7] = 1;
    assert_eq!(about(&fragment), None);
    let mut from_nobody = ping;
    from_nobody[12..16].fill(0);
    assert_eq!(about(&from_nobody), None);
}

#[test]
fn complaints_are_rare_enough() {
    let ping = super::packets::ping(1, 2, 3);
    let inner = ip::parse(&ping).unwrap();
    let mut complaints = Complaints::new(NOW);
    let mut count = |now| {
        (0..10_000).filter(|_| complaints.about(now, &ping, &inner, Complaint::HostUnreachable).is_some()).count()
    };
    assert_eq!(count(NOW), 256);
    assert_eq!(count(NOW + Duration::from_millis(100)), 50);
}

#[test]
fn index_of_an_earlier_holder_hits_nothing() {
    let mut rng = <rand_chacha::ChaCha12Rng as rand::SeedableRng>::from_seed([1; 32]);
    let mut indexes = Indexes::default();
    let first = indexes.allocate(Owner::Session(1), &mut rng).unwrap();
    indexes.release(first);
    let second = indexes.allocate(Owner::Session(2), &mut rng).unwrap();
    assert_eq!((indexes.owner(first), indexes.owner(second)), (None, Some(Owner::Session(2))));
    indexes.release(first);
    assert_eq!(indexes.owner(second), Some(Owner::Session(2)), "a second release hits nobody");
}

#[test]
fn timers_fire_once_and_at_the_earliest_time_asked_for() {
    let mut timers = Timers::default();
    let at = |millis| NOW + Duration::from_millis(millis);
    timers.by(1, at(50));
    timers.by(1, at(20));
    timers.by(1, at(90));
    timers.by(2, at(30));
    assert_eq!(timers.next(), Some(at(20)));
    assert_eq!(timers.take(at(10)), None);
    assert_eq!(timers.take(at(60)), Some(1));
    assert_eq!(timers.take(at(60)), Some(2));
    assert_eq!(timers.take(at(1000)), None);
    assert_eq!(timers.next(), None);
}

#[test]
fn bucket_and_backoff_keep_their_rates() {
    let mut bucket = Bucket::new(NOW, 10, 3);
    assert_eq!((0..9).filter(|_| bucket.take(NOW)).count(), 3);
    let ready = bucket.ready_at(NOW);
    assert_eq!(ready, NOW + Duration::from_millis(100));
    assert!(bucket.take(ready) && !bucket.take(ready));
    let waits = [0, 1, 2, 3, 60].map(|n| backoff(Duration::from_millis(250), Duration::from_secs(1), n).as_millis());
    assert_eq!(waits, [250, 500, 1000, 1000, 1000]);
}
