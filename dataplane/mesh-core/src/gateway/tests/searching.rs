//! The search by one gateway alone, whose peer is in the test's hand: what it may be made to do, and what not.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_wire::message::{Candidate, CandidateKind, Mapping, Message};

use super::packets::ping;
use super::world::{Datagram, Fate, World, address_of, ip4};
use crate::gateway::{Event, SEARCH_SOCKETS, SearchState};
use crate::seam::SocketId;

const SECOND: Duration = Duration::from_secs(1);
/// A second port of the transfer.
const OTHER_PORT: &str = "192.0.2.1:8001";

/// Two gateways that reach each other by the relay alone. The NAT of the first maps by destination, as far as it knows.
fn world(hard: bool) -> World {
    let mut world = World::with_paths(&[1, 2]);
    let straight = |datagram: &Datagram| {
        let relay: SocketAddr = "192.0.2.1:8000".parse().unwrap();
        datagram.from != relay && datagram.to != relay
    };
    world.fate = Box::new(move |datagram| if straight(datagram) { Fate::Drop } else { Fate::Pass });
    // Both addresses have to be such as the Internet has.
    let public = |number: u8| SocketAddr::from(([198, 51, 100, number], 5000));
    world.translate = Box::new(move |datagram| {
        for number in [1, 2] {
            if datagram.from == address_of(number) {
                datagram.from = public(number);
            }
            if datagram.to == public(number) {
                datagram.to = address_of(number);
            }
        }
    });
    let now = world.now;
    for number in [1, 2] {
        world.gateways.get_mut(&number).unwrap().network_changed(now, &[]);
    }
    world.run(2 * SECOND);
    let (now, seen_at) = (world.now, SocketAddr::from(([198, 51, 100, 1], if hard { 5001 } else { 5000 })));
    let gateway = world.gateways.get_mut(&1).unwrap();
    assert!(gateway.candidates.note_seen(now, seen_at, OTHER_PORT.parse().unwrap()));
    gateway.collect_candidates(now);
    assert_eq!(gateway.candidates.mapping(), if hard { Mapping::EndpointDependent } else { Mapping::PortIndependent });
    keep_talking(&mut world, 2 * SECOND);
    world
}

fn keep_talking(world: &mut World, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        world.inside(1, &ping(1, 2, 0));
        world.run(SECOND / 10);
    }
}

/// Gateway 2 says something to gateway 1.
fn say(world: &mut World, message: &Message) {
    let now = world.now;
    let gateway = world.gateways.get_mut(&2).unwrap();
    let id = gateway.peers.find(ip4(1)).unwrap();
    gateway.send_to_peer(now, id, message);
}

/// Opens what gateway 1 asks for, for a while; how many it was, and how many of them it had closed.
fn open_for(world: &mut World, time: Duration) -> (u32, usize) {
    let (end, mut opened, mut closed) = (world.now + time, 0, 0);
    while world.now < end {
        for event in std::mem::take(world.events.get_mut(&1).unwrap()) {
            if let Event::OpenSockets { count } = event {
                let numbers: Vec<SocketId> =
                    (0..count).map(|number| SocketId(100 + (opened + number) as u16)).collect();
                opened += count;
                let now = world.now;
                world.gateways.get_mut(&1).unwrap().sockets_opened(now, &numbers);
            } else if let Event::CloseSockets(sockets) = event {
                closed += sockets.len();
            }
        }
        world.inside(1, &ping(1, 2, 0));
        world.run(SECOND / 50);
    }
    (opened, closed)
}

fn state(world: &World) -> Option<SearchState> {
    world.gateways[&1].status(world.now).peers.iter().find(|peer| peer.ip4 == ip4(2)).and_then(|peer| peer.search)
}

fn begin(request: u32, place: &str) -> Message {
    Message::SearchBegin { request, endpoint: place.parse().unwrap() }
}

/// What gateway 1 sent straight to `ip`.
fn sent_to(world: &World, ip: [u8; 4]) -> usize {
    let captured = world.capture.as_ref().unwrap().iter();
    captured
        .filter(|datagram| datagram.from.ip() == SocketAddr::from(([198, 51, 100, 1], 0)).ip())
        .filter(|datagram| datagram.to.ip() == std::net::IpAddr::from(ip))
        .count()
}

#[test]
fn a_peer_that_begins_searches_without_end_gets_one_in_its_budgets_and_then_none_for_longer_and_longer() {
    let mut world = world(true);
    world.capture = Some(Vec::new());
    let (mut opened, mut closed) = (0, 0);
    for request in 0..300 {
        say(&mut world, &begin(request, "198.51.100.2:5000"));
        let (more, less) = open_for(&mut world, SECOND / 2);
        (opened, closed) = (opened + more, closed + less);
    }
    // 150 s: at the start, after 38, and after 60 more.
    assert!((1..=3 * SEARCH_SOCKETS).contains(&opened) && opened.is_multiple_of(SEARCH_SOCKETS), "{opened}");
    let (_, less) = open_for(&mut world, 10 * SECOND);
    assert_eq!(closed + less, opened as usize, "none stays open");
    let sent = sent_to(&world, [10, 0, 0, 2]);
    assert!(sent <= 3 * 2 * SEARCH_SOCKETS as usize + 400, "{sent}");
}

#[test]
fn nothing_goes_where_the_transfer_does_not_see_the_peer() {
    let mut world = world(true);
    world.capture = Some(Vec::new());
    for (request, place) in
        ["203.0.113.66:5000", "[2001:db8::1]:5000", "198.51.100.2:0", "192.0.2.1:8000"].iter().enumerate()
    {
        say(&mut world, &begin(request as u32, place));
        assert_eq!(open_for(&mut world, SECOND).0, 0, "{place}");
    }
    assert_eq!(sent_to(&world, [203, 0, 113, 66]), 0);
}

#[test]
fn a_gateway_whose_nat_does_not_map_by_destination_takes_no_part_as_the_hard_side() {
    let mut world = world(false);
    say(&mut world, &begin(7, "198.51.100.2:5000"));
    assert_eq!(open_for(&mut world, 2 * SECOND).0, 0);
}

#[test]
fn a_program_that_can_open_no_socket_ends_in_nothing_and_is_asked_no_more() {
    let mut world = world(true);
    say(&mut world, &begin(7, "198.51.100.2:5000"));
    let mut asked = 0;
    let end = world.now + 10 * SECOND;
    while world.now < end {
        for event in std::mem::take(world.events.get_mut(&1).unwrap()) {
            if let Event::OpenSockets { count } = event {
                asked += count;
                let now = world.now;
                world.gateways.get_mut(&1).unwrap().sockets_opened(now, &[]);
            }
        }
        world.inside(1, &ping(1, 2, 0));
        world.run(SECOND / 50);
    }
    assert!((1..=8).contains(&asked), "{asked}");
    assert_ne!(state(&world), Some(SearchState::Searching), "it is over");
}

#[test]
fn the_easy_side_asks_the_transfer_and_waits_for_its_word_and_the_peers() {
    let mut world = world(false);
    let list = vec![Candidate { kind: CandidateKind::Observed, endpoint: "198.51.100.2:5000".parse().unwrap() }];
    let hard = Message::Candidates { number: 99, acknowledged: 1, mapping: Mapping::EndpointDependent, list };
    say(&mut world, &hard);
    world.capture = Some(Vec::new());
    keep_talking(&mut world, 6 * SECOND);
    // The peer knows that it is not the hard side, and says so: no port is searched.
    let ports: std::collections::BTreeSet<u16> = world
        .capture
        .as_ref()
        .unwrap()
        .iter()
        .filter(|datagram| datagram.from.port() == 5000 && datagram.to == address_of(2))
        .map(|datagram| datagram.to.port())
        .collect();
    assert!(ports.len() <= 1, "{ports:?}");
    assert_eq!(state(&world), Some(SearchState::Waiting));
}
