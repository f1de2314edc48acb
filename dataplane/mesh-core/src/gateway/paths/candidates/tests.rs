use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_wire::message::{Candidate, CandidateKind, Mapping};

use super::{Candidates, Exchange, Sources, is_place};
use crate::gateway::local::LocalAddress;
use crate::seam::Moment;

const START: Moment = Moment::from_nanos(1_000_000_000);
const TRANSFER: &str = "192.0.2.1:8000";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn local(address: &str) -> LocalAddress {
    LocalAddress { address: ip(address), prefix: 24, interface: 2 }
}

fn collect(candidates: &mut Candidates, local: &[LocalAddress], observed: &str) -> bool {
    let observed = Some((at(observed), at(TRANSFER)));
    candidates.collect(&Sources { local, ports: (5000, 6000), observed, mapped: None })
}

#[test]
fn a_list_has_each_place_once_and_its_number_grows_with_news() {
    let mut candidates = Candidates::default();
    let addresses = [local("10.0.0.7"), local("2001:db8::7")];
    let sources = Sources {
        local: &addresses,
        ports: (5000, 6000),
        observed: Some((at("198.51.100.3:5000"), at(TRANSFER))),
        mapped: Some(at("198.51.100.3:5000")),
    };
    assert!(candidates.collect(&sources));
    assert!(!candidates.collect(&sources));
    let host = |endpoint: &str| Candidate { kind: CandidateKind::Host, endpoint: at(endpoint) };
    let mapped = Candidate { kind: CandidateKind::Mapped, endpoint: at("198.51.100.3:5000") };
    assert_eq!(candidates.list(), [host("10.0.0.7:5000"), host("[2001:db8::7]:6000"), mapped]);
    assert_eq!(candidates.number(), 1);
    assert!(candidates.collect(&Sources { mapped: None, ..sources }));
    assert_eq!(candidates.number(), 2);
}

#[test]
fn who_came_over_tcp_is_not_told_of_as_observed() {
    let mut candidates = Candidates::default();
    assert!(!collect(&mut candidates, &[], "127.3.4.5:5000"));
    assert!(candidates.list().is_empty());
}

#[test]
fn a_nat_is_known_by_what_two_see() {
    let inside = [local("10.0.0.7")];
    let mut candidates = Candidates::default();
    collect(&mut candidates, &inside, "198.51.100.3:5000");
    assert_eq!(candidates.mapping(), Mapping::Unknown, "one who sees us knows nothing of others");
    candidates.note_seen(START, at("198.51.100.3:5000"), at("203.0.113.9:0"));
    collect(&mut candidates, &inside, "198.51.100.3:5000");
    assert_eq!(candidates.mapping(), Mapping::EndpointIndependent);
    assert!(candidates.note_seen(START, at("198.51.100.3:6111"), at("203.0.113.10:0")));
    collect(&mut candidates, &inside, "198.51.100.3:5000");
    assert_eq!(candidates.mapping(), Mapping::EndpointDependent);
    candidates.forget_seen();
    collect(&mut candidates, &[local("198.51.100.3")], "198.51.100.3:5000");
    assert_eq!(candidates.mapping(), Mapping::EndpointIndependent, "there is no NAT");
}

#[test]
fn two_ports_of_the_transfer_tell_a_nat_that_maps_by_destination_and_of_others_no_more_than_they_know() {
    let inside = [local("10.0.0.7")];
    let mut candidates = Candidates::default();
    let other_port = at("192.0.2.1:8001");
    candidates.note_seen(START, at("198.51.100.3:5000"), other_port);
    collect(&mut candidates, &inside, "198.51.100.3:5000");
    assert_eq!(candidates.mapping(), Mapping::PortIndependent, "it may differ for other addresses");
    candidates.note_seen(START, at("198.51.100.3:5000"), at("203.0.113.9:0"));
    collect(&mut candidates, &inside, "198.51.100.3:5000");
    assert_eq!(candidates.mapping(), Mapping::EndpointIndependent);
    candidates.note_seen(START + Duration::from_secs(10), at("198.51.100.3:5003"), other_port);
    collect(&mut candidates, &inside, "198.51.100.3:5000");
    assert_eq!(candidates.mapping(), Mapping::EndpointDependent);
    candidates.forget_seen_by(other_port);
    collect(&mut candidates, &inside, "198.51.100.3:5000");
    assert_eq!(candidates.mapping(), Mapping::EndpointIndependent);
}

#[test]
fn what_was_seen_is_bounded_and_forgotten() {
    let mut candidates = Candidates::default();
    for number in 1..=200 {
        candidates.note_seen(START, at("198.51.100.3:5000"), SocketAddr::from(([203, 0, 113, number], 0)));
    }
    assert!(candidates.seen.len() <= 8);
    assert!(!candidates.note_seen(START, at("198.51.100.3:5000"), at("203.0.113.200:0")), "no news");
    candidates.note_seen(START + Duration::from_secs(301), at("198.51.100.3:5001"), at("203.0.113.1:0"));
    assert_eq!(candidates.seen.len(), 1);
}

#[test]
fn places_that_lead_nowhere_are_none() {
    for bad in [
        "127.0.0.1:5000",
        "0.0.0.0:5000",
        "224.0.0.1:5000",
        "255.255.255.255:5000",
        "10.0.0.1:0",
        "[::1]:5000",
        "[::]:5000",
        "[ff02::1]:5000",
        "[fe80::1]:5000",
        "[::ffff:10.0.0.1]:5000",
    ] {
        assert!(!is_place(&at(bad)), "{bad}");
    }
    assert!(is_place(&at("10.0.0.1:5000")) && is_place(&at("[2001:db8::1]:5000")));
}

/// Two that tell each other over a way that loses what `lost` says.
fn exchange(lost: impl Fn(u32) -> bool) -> (u32, Exchange, Exchange) {
    let mut sides = [Exchange::default(), Exchange::default()];
    let numbers = [3, 7];
    sides[0].begin(START);
    sides[1].begin(START + Duration::from_millis(5));
    let (mut sent, mut way) = (0, Vec::new());
    for millis in 0..60_000 {
        let now = START + Duration::from_millis(millis);
        for side in 0..2 {
            if sides[side].is_due(now, numbers[side]) {
                sent += 1;
                if !lost(sent) {
                    way.push((now + Duration::from_millis(20), 1 - side, numbers[side], sides[side].theirs));
                }
            }
        }
        for (_, to, number, acknowledged) in way.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            sides[to].take(now, number, acknowledged, numbers[to]);
        }
    }
    let [one, other] = sides;
    (sent, one, other)
}

#[test]
fn lists_are_told_until_both_have_them_and_no_longer() {
    let (sent, one, other) = exchange(|_| false);
    assert_eq!((one.theirs, other.theirs), (7, 3));
    assert!(sent <= 5, "{sent}");
    let (sent, one, other) = exchange(|number| number <= 3 || number == 6);
    assert_eq!((one.theirs, other.theirs), (7, 3));
    assert!(sent <= 14, "{sent}");
    let (sent, ..) = exchange(|_| true);
    assert!(sent <= 16, "a peer that says nothing is not told for ever: {sent}");
}
