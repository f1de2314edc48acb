use super::*;

fn endpoint(port: u16) -> Endpoint {
    Endpoint { socket: 0, remote: ([127, 0, 0, 1], port).into(), local: None }
}

/// The runs, as port, stride, segments and lengths of their pieces.
fn runs(outgoing: &Outgoing) -> Vec<(u16, usize, usize, Vec<usize>)> {
    let pieces = |run| outgoing.pieces(run).map(|(_, range)| range.len()).collect();
    outgoing.runs().iter().map(|run| (run.to.remote.port(), run.segment_bytes, run.segments, pieces(run))).collect()
}

#[test]
fn equal_datagrams_to_one_endpoint_share_a_run() {
    let mut outgoing = Outgoing::default();
    for slot in 0..3 {
        outgoing.push(Memory::Slot(slot), 0..100, 100, &endpoint(1), 0);
        outgoing.push(Memory::Slot(slot), 0..100, 100, &endpoint(2), 0);
    }
    assert_eq!(runs(&outgoing), [(1, 100, 3, vec![100; 3]), (2, 100, 3, vec![100; 3])]);
}

#[test]
fn neighbours_in_memory_stay_one_piece() {
    let mut outgoing = Outgoing::default();
    outgoing.push(Memory::Scratch, 0..100, 100, &endpoint(1), 0);
    outgoing.push(Memory::Scratch, 100..200, 100, &endpoint(1), 0);
    assert_eq!(runs(&outgoing), [(1, 100, 2, vec![200])]);
    assert!(outgoing.runs()[0].is_contiguous());
}

#[test]
fn a_shorter_datagram_closes_its_run() {
    let mut outgoing = Outgoing::default();
    for bytes in [100, 100, 40, 100] {
        outgoing.push(Memory::Slot(0), 0..bytes, 100, &endpoint(1), 0);
    }
    assert_eq!(runs(&outgoing), [(1, 100, 3, vec![100, 100, 40]), (1, 100, 1, vec![100])]);
}

#[test]
fn a_longer_datagram_opens_a_run() {
    let mut outgoing = Outgoing::default();
    for bytes in [100, 101] {
        outgoing.push(Memory::Slot(0), 0..bytes, 200, &endpoint(1), 0);
    }
    assert_eq!(runs(&outgoing), [(1, 100, 1, vec![100]), (1, 101, 1, vec![101])]);
}

#[test]
fn a_run_has_at_most_64_datagrams() {
    let mut outgoing = Outgoing::default();
    outgoing.push(Memory::Slot(0), 0..650, 10, &endpoint(1), 0);
    assert_eq!(runs(&outgoing), [(1, 10, 64, vec![640]), (1, 10, 1, vec![10])]);
}

#[test]
fn a_run_fits_into_one_ip_packet() {
    let mut outgoing = Outgoing::default();
    for slot in 0..2 {
        outgoing.push(Memory::Slot(slot), 0..60_000, 20_000, &endpoint(1), 0);
    }
    assert_eq!(runs(&outgoing), [(1, 20_000, 3, vec![60_000]), (1, 20_000, 3, vec![60_000])]);
}

#[test]
fn an_empty_datagram_stands_alone() {
    let mut outgoing = Outgoing::default();
    for bytes in [100, 0, 100] {
        outgoing.push(Memory::Slot(0), 0..bytes, 100, &endpoint(1), 0);
    }
    assert_eq!(runs(&outgoing), [(1, 100, 1, vec![100]), (1, 1, 1, vec![0]), (1, 100, 1, vec![100])]);
}

#[test]
fn another_tos_opens_a_run() {
    let mut outgoing = Outgoing::default();
    outgoing.push(Memory::Slot(0), 0..100, 100, &endpoint(1), 0);
    outgoing.push(Memory::Slot(0), 0..100, 100, &endpoint(1), 2);
    assert_eq!(runs(&outgoing).len(), 2);
}

#[test]
fn one_endpoint_keeps_its_order_when_its_run_lies_too_far_back() {
    let mut outgoing = Outgoing::default();
    outgoing.push(Memory::Slot(0), 0..100, 100, &endpoint(1), 0);
    for port in 100..200 {
        outgoing.push(Memory::Slot(0), 0..100, 100, &endpoint(port), 0);
    }
    outgoing.push(Memory::Slot(1), 0..100, 100, &endpoint(1), 0);
    let own: Vec<_> = outgoing.runs().iter().filter(|run| run.to.remote.port() == 1).copied().collect();
    let order: Vec<_> = own.iter().flat_map(|run| outgoing.pieces(run)).map(|(memory, _)| memory).collect();
    assert_eq!(order, [Memory::Slot(0), Memory::Slot(1)]);
}
