//! Runs as lists: what is queued on the left, what leaves on the right.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Gather, Memory, Piece, SEGMENTS_MAX};
use crate::train::{Endpoint, SocketId};

fn to(host: u8) -> Endpoint {
    Endpoint { socket: SocketId(0), remote: SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), 7)), local: None }
}

/// Queues single datagrams `(host, bytes)`, each in a buffer of its own, and lists `(host, segment, [lengths])` of the runs.
fn runs_of(datagrams: &[(u8, usize)]) -> Vec<(u8, u32, Vec<u32>)> {
    let mut gather = Gather::new();
    for (index, &(host, bytes)) in datagrams.iter().enumerate() {
        gather.push(Memory::Outside(index as u16), 160..160 + bytes, bytes.max(1), &to(host), 0, SEGMENTS_MAX);
    }
    list(&gather)
}

fn list(gather: &Gather) -> Vec<(u8, u32, Vec<u32>)> {
    let host = |remote: SocketAddr| match remote {
        SocketAddr::V4(remote) => remote.ip().octets()[3],
        SocketAddr::V6(_) => 0,
    };
    let lengths = |run| gather.pieces(run).map(|piece: Piece| piece.length).collect::<Vec<_>>();
    gather.runs().iter().map(|run| (host(run.to.remote), run.segment_bytes, lengths(run))).collect()
}

#[test]
fn equal_datagrams_to_two_destinations_make_two_runs() {
    assert_eq!(
        runs_of(&[(1, 100), (2, 100), (1, 100), (2, 100)]),
        [(1, 100, vec![100, 100]), (2, 100, vec![100, 100])]
    );
}

#[test]
fn a_shorter_datagram_closes_its_run() {
    assert_eq!(runs_of(&[(1, 100), (1, 60), (1, 100)]), [(1, 100, vec![100, 60]), (1, 100, vec![100])]);
}

#[test]
fn a_longer_datagram_starts_a_run_that_later_ones_join() {
    assert_eq!(
        runs_of(&[(1, 60), (1, 100), (1, 60), (1, 60)]),
        [(1, 60, vec![60]), (1, 100, vec![100, 60]), (1, 60, vec![60])]
    );
}

#[test]
fn an_empty_datagram_is_a_run_alone() {
    assert_eq!(runs_of(&[(1, 60), (1, 0), (1, 60)]), [(1, 60, vec![60]), (1, 1, vec![0]), (1, 60, vec![60])]);
}

#[test]
fn a_train_is_one_piece_and_neighbours_of_one_buffer_are_joined() {
    let mut gather = Gather::new();
    gather.push(Memory::Outside(3), 160..160 + 1000, 100, &to(1), 0, SEGMENTS_MAX);
    assert_eq!(list(&gather), [(1, 100, vec![1000])]);
    gather.push(Memory::Outside(3), 1160..1260, 100, &to(1), 0, SEGMENTS_MAX);
    gather.push(Memory::Outside(3), 1300..1400, 100, &to(1), 0, SEGMENTS_MAX);
    assert_eq!(list(&gather), [(1, 100, vec![1100, 100])]);
    assert_eq!(gather.runs()[0].segments, 12);
}

#[test]
fn a_train_that_ends_short_closes_its_run() {
    let mut gather = Gather::new();
    gather.push(Memory::Outside(0), 0..250, 100, &to(1), 0, SEGMENTS_MAX);
    gather.push(Memory::Outside(1), 0..200, 100, &to(1), 0, SEGMENTS_MAX);
    assert_eq!(list(&gather), [(1, 100, vec![250]), (1, 100, vec![200])]);
    assert_eq!(gather.runs()[0].segments, 3);
}

#[test]
fn a_run_ends_at_the_limit_of_segments_and_of_bytes() {
    let many: Vec<(u8, usize)> = vec![(1, 10); SEGMENTS_MAX + 1];
    let runs = runs_of(&many);
    assert_eq!((runs.len(), runs[0].2.len(), runs[1].2.len()), (2, SEGMENTS_MAX, 1));

    let long: Vec<(u8, usize)> = vec![(1, 30_000); 3];
    assert_eq!(runs_of(&long), [(1, 30_000, vec![30_000, 30_000]), (1, 30_000, vec![30_000])]);
}

#[test]
fn a_range_longer_than_one_send_is_cut_at_segments() {
    let mut gather = Gather::new();
    gather.push(Memory::Slab, 0..131_072, 1200, &to(1), 0, SEGMENTS_MAX);
    let bytes: Vec<u32> = gather.runs().iter().map(|run| run.bytes).collect();
    assert_eq!(bytes, [54 * 1200, 54 * 1200, 131_072 - 2 * 54 * 1200]);
    assert_eq!(gather.runs()[2].segments, 2);
    let mut alone = Gather::new();
    alone.push(Memory::Slab, 0..250, 100, &to(1), 0, 1);
    assert_eq!(list(&alone), [(1, 100, vec![100]), (1, 100, vec![100]), (1, 50, vec![50])]);
}

#[test]
fn another_tos_or_local_address_is_another_run_and_the_latest() {
    let mut gather = Gather::new();
    let elsewhere = Endpoint { local: Some(Ipv4Addr::LOCALHOST.into()), ..to(1) };
    gather.push(Memory::Outside(0), 0..10, 10, &to(1), 0, SEGMENTS_MAX);
    gather.push(Memory::Outside(1), 0..10, 10, &to(1), 3, SEGMENTS_MAX);
    gather.push(Memory::Outside(2), 0..10, 10, &to(1), 0, SEGMENTS_MAX);
    gather.push(Memory::Outside(3), 0..10, 10, &elsewhere, 0, SEGMENTS_MAX);
    assert_eq!(gather.runs().len(), 4);
}

#[test]
fn order_to_each_destination_holds_for_any_mix() {
    // A plain generator with a printed seed: sizes from few values so that runs form, more destinations than the cache has ways.
    for seed in 1..200_u64 {
        let mut state = seed;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let hosts = 1 + next(200);
        let mut gather = Gather::new();
        let mut queued: Vec<Vec<(u16, u32)>> = vec![Vec::new(); 256];
        for index in 0..600_u16 {
            let host = next(hosts) as u8;
            let bytes = [0, 20, 20, 20, 60, 1200][next(6) as usize];
            gather.push(Memory::Outside(index), 0..bytes, bytes.max(1), &to(host), 0, SEGMENTS_MAX);
            queued[host as usize].push((index, bytes as u32));
        }
        let mut left: Vec<Vec<(u16, u32)>> = vec![Vec::new(); 256];
        for run in gather.runs() {
            let SocketAddr::V4(remote) = run.to.remote else { panic!("all are IPv4") };
            let pieces: Vec<Piece> = gather.pieces(run).collect();
            assert!(pieces.len() <= SEGMENTS_MAX, "seed {seed}");
            for (place, piece) in pieces.iter().enumerate() {
                let Memory::Outside(buffer) = piece.memory else { panic!("all are of the sockets") };
                let last = place + 1 == pieces.len();
                assert!(piece.length == run.segment_bytes || last && piece.length <= run.segment_bytes, "seed {seed}");
                left[remote.ip().octets()[3] as usize].push((buffer, piece.length));
            }
        }
        assert_eq!(left, queued, "seed {seed}");
        gather.clear();
        assert!(gather.is_empty());
    }
}

/// A data thread that finds more to send than ever before asks the system for no memory.
#[test]
fn what_is_queued_until_it_is_full_never_grows() {
    for (bytes, in_pairs) in [(100, false), (100, true), (6400, false)] {
        let mut gather = Gather::new();
        let room = (gather.runs.capacity(), gather.pieces.capacity());
        let mut number = 0_u16;
        while !gather.is_full() {
            // Nothing lies beside what came before; in pairs they join, else each is longer than its run.
            let host = if in_pairs { 1 } else { number as u8 };
            gather.push(Memory::Outside(number), 0..bytes, 100, &to(host), (number >> 8) as u8, SEGMENTS_MAX);
            number += 1;
        }
        // What comes then may have as many datagrams as a train.
        gather.push(Memory::Slab, 0..6400, 100, &to(200), 0, 1);
        assert_eq!((gather.runs.capacity(), gather.pieces.capacity()), room, "{bytes} bytes, pairs: {in_pairs}");
    }
}
