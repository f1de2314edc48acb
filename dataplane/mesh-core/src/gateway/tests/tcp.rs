//! UDP gets no answer, and TCP does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::packets::ping;
use super::streams::{BY_STREAM, Tcp, by_bridge, seen_by_transfer};
use super::world::{CONTROL, Datagram, Fate, World, address_of, config, ip4};
use crate::drops::DropReason;
use crate::gateway::Event;
use crate::seam::{Arrival, Endpoint, Origin, Slab, SocketId};

fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Whose UDP is dropped: shared with the world's hook.
type Blocked = Rc<RefCell<Vec<u8>>>;

/// A world in which UDP can be taken from gateways.
fn world() -> (World, Blocked) {
    let mut world = World::empty();
    world.start_transfer(1);
    let blocked = Blocked::default();
    let blocks = Rc::clone(&blocked);
    world.fate = Box::new(move |d| if is_blocked(&blocks, d) { Fate::Drop } else { Fate::Pass });
    (world, blocked)
}

fn is_blocked(blocked: &Blocked, datagram: &Datagram) -> bool {
    blocked.borrow().iter().any(|number| [datagram.from, datagram.to].contains(&address_of(*number)))
}

/// Starts a gateway that may use TCP.
fn start(world: &mut World, number: u8) {
    let mut config = config(number, 1);
    config.sockets.stream = Some(BY_STREAM);
    world.insert(number, config);
}

/// Gateways 1 and 2, of which those in `blocked` have no UDP, all registered.
fn pair(blocked: &[u8]) -> (World, Blocked) {
    let (mut world, blocks) = world();
    blocks.borrow_mut().extend(blocked);
    start(&mut world, 1);
    start(&mut world, 2);
    let took = world.run_until(second(5), |world| [1, 2].iter().all(|number| is_registered(world, *number)));
    took.unwrap_or_else(|| panic!("{blocked:?}: {:?}", world.events));
    (world, blocks)
}

fn is_registered(world: &World, number: u8) -> bool {
    world.gateways[&number].relay.is_healthy()
}

fn over_tcp(world: &World, number: u8) -> bool {
    world.gateways[&number].status(world.now).transfer.over_tcp
}

fn slot(world: &World, number: u8) -> Option<u32> {
    world.gateways[&number].status(world.now).transfer.slot
}

/// What was said of the way, in order.
fn ways(world: &World, number: u8) -> Vec<bool> {
    let way = |event: &Event| {
        let Event::OverTcp { over_tcp, transfer } = event else { return None };
        assert_eq!(*transfer, world.transfer_at, "people are shown the transfer");
        Some(*over_tcp)
    };
    world.events[&number].iter().filter_map(way).collect()
}

fn wishes(world: &World, number: u8) -> Vec<bool> {
    let wish = |event: &Event| if let Event::StreamWanted(wanted) = event { Some(*wanted) } else { None };
    world.events[&number].iter().filter_map(wish).collect()
}

/// Pings both ways every ten milliseconds; how many of each way were sent.
fn traffic(world: &mut World, time: Duration) -> u16 {
    let count = u16::try_from(time.as_millis() / 10).unwrap();
    for seq in 0..count {
        world.inside(1, &ping(1, 2, seq));
        world.inside(2, &ping(2, 1, seq));
        world.run(millis(10));
    }
    count
}

/// The same until something arrives at 2 again.
fn time_to_traffic(world: &mut World, most: Duration) -> Duration {
    let (start, before) = (world.now, world.packets(2));
    while world.packets(2) == before {
        traffic(world, millis(50));
        assert!(world.now.since(start) < most, "{:?}", world.events);
    }
    world.now.since(start)
}

#[test]
fn gateway_without_udp_registers_over_tcp() {
    for blocked in [&[1][..], &[2], &[1, 2]] {
        let (mut world, _) = pair(blocked);
        for number in [1, 2] {
            let tcp = blocked.contains(&number);
            assert_eq!((over_tcp(&world, number), ways(&world, number)), (tcp, vec![true; usize::from(tcp)]));
            let status = world.gateways[&number].status(world.now).transfer;
            assert_eq!(status.endpoint, Some(world.transfer_at));
            assert_eq!(status.observed, (!tcp).then(|| address_of(number)), "nobody is told a loopback address");
            assert!(world.events[&number].contains(&Event::Registered {
                transfer: world.transfer_at,
                observed: world.gateways[&number].relay.registration().unwrap().observed,
                slot: world.gateways[&number].relay.slot.unwrap(),
                first: true,
            }));
        }
        let sent = traffic(&mut world, second(1));
        world.run(second(1));
        assert_eq!((world.packets(1), world.packets(2)), (usize::from(sent), usize::from(sent)), "{blocked:?}");
        assert_eq!(world.gateways[&1].status(world.now).peers[0].endpoint, Some(world.transfer_at));
    }
}

#[test]
fn udp_is_given_two_seconds() {
    let (mut world, blocked) = world();
    blocked.borrow_mut().push(1);
    start(&mut world, 1);
    let wanted = world.run_until(second(5), |world| !wishes(world, 1).is_empty()).unwrap();
    assert!(wanted >= second(2) && wanted < millis(2100), "{wanted:?}");
    let took = world.run_until(second(5), |world| is_registered(world, 1)).unwrap();
    assert!(took < millis(500), "{took:?}");

    // Where UDP works, nobody asks for more.
    let (mut world, _) = pair(&[]);
    traffic(&mut world, second(60));
    world.run(second(600));
    assert!(wishes(&world, 1).is_empty() && wishes(&world, 2).is_empty());
}

/// Each address of the transfer is asked by UDP before TCP is.
#[test]
fn every_address_has_its_turn_first() {
    let (mut world, _) = world();
    let unused = (1..=15).map(|last| format!("192.0.2.{}:8000", 100 + last).parse().unwrap());
    world.name = unused.chain([world.transfer_at]).collect();
    start(&mut world, 1);
    world.run_until(second(8), |world| is_registered(world, 1)).unwrap();
    assert!(wishes(&world, 1).is_empty(), "the last of sixteen answered");
}

#[test]
fn registration_goes_to_tcp_within_five_seconds_and_keeps_its_place() {
    for slow in [0, 50, 150] {
        let (mut world, blocked) = pair(&[]);
        world.streams.late = millis(slow);
        time_to_traffic(&mut world, second(3));
        let slots = [1, 2].map(|number| slot(&world, number));
        blocked.borrow_mut().push(1);
        traffic(&mut world, millis(50));
        let took = time_to_traffic(&mut world, second(20));
        assert!(took < second(5), "{took:?} with {slow} ms more by TCP");
        assert!(over_tcp(&world, 1) && !over_tcp(&world, 2));
        assert_eq!([1, 2].map(|number| slot(&world, number)), slots, "the same member, the same place");
        let (before, sent) = (world.packets(2), traffic(&mut world, second(5)));
        world.run(second(1));
        assert!(world.packets(2) - before >= usize::from(sent), "nothing is lost any more");
        for number in [1, 2] {
            assert!(!world.events[&number].iter().any(|event| matches!(event, Event::PeerDown { .. })));
        }
        nothing_is_left(&mut world);
    }
}

/// What is on its way over the stream while the registration moves arrives, on either side, however slow TCP is.
#[test]
fn back_on_udp_nothing_is_lost() {
    for slow in [0, 30, 200, 400] {
        let (mut world, blocked) = pair(&[1, 2]);
        world.streams.late = millis(slow);
        time_to_traffic(&mut world, second(8));
        traffic(&mut world, second(3));
        world.run(second(3));
        let (slots, before) = ([1, 2].map(|number| slot(&world, number)), [1, 2].map(|number| world.packets(number)));
        blocked.borrow_mut().clear();
        let mut sent = 0;
        let start = world.now;
        while over_tcp(&world, 1) || over_tcp(&world, 2) {
            sent += usize::from(traffic(&mut world, millis(100)));
            assert!(world.now.since(start) < second(60), "{slow} ms: {:?}", world.events);
        }
        println!("{slow} ms more by TCP: back on UDP after {:?}", world.now.since(start));
        sent += usize::from(traffic(&mut world, second(7)));
        world.run(second(2));
        for (number, before) in [1, 2].into_iter().zip(before) {
            assert_eq!(world.packets(number) - before, sent, "{slow} ms: all arrived at {number}");
            assert_eq!((ways(&world, number), wishes(&world, number)), (vec![true, false], vec![true, false]));
            let gateway = &world.gateways[&number];
            assert_eq!(gateway.status(world.now).transfer.observed, Some(address_of(number)));
            assert_eq!((gateway.drops().get(DropReason::UnknownEndpoint), gateway.indexes.taken()), (0, 2));
        }
        assert_eq!([1, 2].map(|number| slot(&world, number)), slots);
        assert_eq!(world.transfer.as_ref().unwrap().drops().get(DropReason::EndpointMoved), 0);
    }
}

/// The words by which the registration moves are lost now and then: data stays where it passes.
#[test]
fn losing_the_words_of_the_move_loses_no_data() {
    for lost in 0..64_u32 {
        let (mut world, blocked) = pair(&[1]);
        time_to_traffic(&mut world, second(3));
        traffic(&mut world, second(1));
        world.run(second(1));
        let before = [1, 2].map(|number| world.packets(number));
        blocked.borrow_mut().clear();
        // Of the first control frames by UDP, those are lost whose bit is set.
        let control = Cell::new(0);
        world.fate = Box::new(move |d| {
            let by_udp = [d.from, d.to].contains(&address_of(1));
            if d.kind() != CONTROL || !by_udp {
                return Fate::Pass;
            }
            control.set(control.get() + 1);
            if control.get() <= 6 && lost >> (control.get() - 1) & 1 == 1 { Fate::Drop } else { Fate::Pass }
        });
        let sent = usize::from(traffic(&mut world, second(90)));
        world.run(second(1));
        assert!(!over_tcp(&world, 1), "{lost:b}: {:?}", world.events[&1]);
        let arrived = [1, 2].map(|number| world.packets(number)).into_iter().zip(before);
        for (arrived, before) in arrived {
            assert_eq!(arrived - before, sent, "{lost:b}: {:?}", world.events[&1]);
        }
    }
}

/// UDP passes one way only: the stream keeps the registration, and it does not go back and forth.
#[test]
fn udp_of_one_direction_is_no_udp() {
    for outwards in [true, false] {
        let (mut world, blocked) = pair(&[1]);
        time_to_traffic(&mut world, second(3));
        blocked.borrow_mut().clear();
        world.fate = Box::new(move |d| {
            let at = if outwards { d.to } else { d.from };
            if at == address_of(1) { Fate::Drop } else { Fate::Pass }
        });
        let before = world.packets(2);
        let sent = traffic(&mut world, second(100));
        assert!(over_tcp(&world, 1));
        assert_eq!((ways(&world, 1), wishes(&world, 1)), (vec![true], vec![true]));
        world.run(second(1));
        assert_eq!(world.packets(2) - before, usize::from(sent));
    }
}

/// A network where UDP works for some seconds and then does not.
#[test]
fn udp_that_comes_and_goes_is_not_chased() {
    let (mut world, blocked) = pair(&[1]);
    for _ in 0..30 {
        traffic(&mut world, second(5));
        blocked.borrow_mut().clear();
        traffic(&mut world, second(5));
        blocked.borrow_mut().push(1);
    }
    let moves = ways(&world, 1).len();
    assert!(moves <= 2 * 300 / 20, "{moves} moves in 300 s");
}

#[test]
fn transfer_that_is_down_is_found_as_fast_as_without_tcp() {
    for away in [1, 3, 8, 30] {
        for blocked in [&[][..], &[1], &[1, 2]] {
            let (mut world, _) = pair(blocked);
            time_to_traffic(&mut world, second(5));
            for boot in 2..5 {
                world.transfer = None;
                traffic(&mut world, second(away));
                world.start_transfer(boot);
                let took = time_to_traffic(&mut world, second(20));
                assert!(took <= second(3), "{took:?} after {away} s, without UDP at {blocked:?}");
                traffic(&mut world, second(10));
                for number in [1, 2] {
                    assert_eq!(over_tcp(&world, number), blocked.contains(&number), "after {away} s: {number}");
                    assert_eq!(wishes(&world, number).last().copied().unwrap_or(false), blocked.contains(&number));
                }
            }
            for number in [1, 2] {
                assert!(!world.events[&number].iter().any(|event| matches!(event, Event::PeerDown { .. })));
            }
            nothing_is_left(&mut world);
        }
    }
}

/// Idle sessions end, and what was tried on the way has left nothing behind.
fn nothing_is_left(world: &mut World) {
    world.run(second(400));
    for gateway in world.gateways.values() {
        assert_eq!(gateway.indexes.taken(), 1, "the registration");
    }
}

/// Neither passes: that is told once, and neither is given up.
#[test]
fn without_any_way_both_are_tried() {
    let (mut world, blocked) = world();
    world.streams.tcp = Tcp::Blocked;
    blocked.borrow_mut().push(1);
    start(&mut world, 1);
    world.run(second(100));
    let silent = world.events[&1].iter().filter(|event| matches!(event, Event::TransferSilent { .. })).count();
    assert_eq!((silent, wishes(&world, 1), world.streams.made), (1, vec![true], 0));
    world.streams.tcp = Tcp::Open;
    let took = world.run_until(second(5), |world| is_registered(world, 1)).unwrap();
    assert!(took < millis(2500) && over_tcp(&world, 1), "{took:?}");
}

#[test]
fn transfer_that_comes_later_is_found_over_tcp() {
    let mut world = World::empty();
    world.fate =
        Box::new(
            |d| if seen_by_transfer(d.from).or(seen_by_transfer(d.to)).is_some() { Fate::Pass } else { Fate::Drop },
        );
    start(&mut world, 1);
    world.run(second(30));
    let silent = world.events[&1].iter().filter(|event| matches!(event, Event::TransferSilent { .. })).count();
    assert_eq!((silent, wishes(&world, 1)), (1, vec![true]), "told once, asked for once");
    world.start_transfer(1);
    let took = world.run_until(second(5), |world| is_registered(world, 1)).unwrap();
    assert!(took <= second(2), "{took:?}");
    assert!(world.events[&1].contains(&Event::TransferBack));
}

/// Something else has the TCP port, or a proxy takes connections to nowhere.
#[test]
fn mute_port_is_tried_anew_and_stands_in_no_ones_way() {
    let (mut world, blocked) = world();
    world.streams.tcp = Tcp::Mute;
    blocked.borrow_mut().push(1);
    start(&mut world, 1);
    world.run(second(120));
    let made = world.streams.made;
    assert!((12..=30).contains(&made), "{made} connections in 118 s: one every four to eight seconds");
    blocked.borrow_mut().clear();
    let took = world.run_until(second(5), |world| is_registered(world, 1)).unwrap();
    assert!(took <= second(2), "{took:?}");
    world.run(millis(100));
    assert_eq!((over_tcp(&world, 1), wishes(&world, 1).last()), (false, Some(&false)));
}

/// The network swallows what the connection carries, and tells neither end.
#[test]
fn stream_that_fell_silent_is_made_anew() {
    let (mut world, _) = pair(&[1]);
    time_to_traffic(&mut world, second(3));
    traffic(&mut world, second(2));
    let made = world.streams.made;
    world.streams.tcp = Tcp::Mute;
    traffic(&mut world, second(4));
    assert!(world.streams.made > made, "the connection is not trusted any more");
    world.streams.tcp = Tcp::Open;
    let took = time_to_traffic(&mut world, second(20));
    assert!(took <= second(9), "{took:?}");
    assert_eq!(ways(&world, 1), [true], "it was over TCP all the time");
}

#[test]
fn session_over_tcp_gets_new_keys_each_hour() {
    let (mut world, _) = pair(&[1]);
    time_to_traffic(&mut world, second(3));
    let slots = slot(&world, 1);
    for _ in 0..8 {
        world.run(second(900));
        time_to_traffic(&mut world, second(5));
    }
    assert_eq!((over_tcp(&world, 1), slot(&world, 1)), (true, slots));
    assert!(world.transfer.as_ref().unwrap().status(world.now).counters.handshakes >= 4);
    assert_eq!(ways(&world, 1), [true]);
    nothing_is_left(&mut world);
}

/// An idle gateway on TCP says little: a keepalive, and two words by UDP, every 20 s.
#[test]
fn idle_gateway_over_tcp_says_little() {
    let (mut world, _) = pair(&[1]);
    world.run(second(5));
    world.capture = Some(Vec::new());
    world.run(second(600));
    let capture = world.capture.take().unwrap();
    let mine = |d: &&Datagram| {
        d.from == address_of(1) || [d.from, d.to].into_iter().any(|address| seen_by_transfer(address) == Some(1))
    };
    let frames = capture.iter().filter(mine).count();
    assert!((110..=140).contains(&frames), "{frames} in 600 s");
}

#[test]
fn gateway_without_a_socket_for_it_never_wants_a_stream() {
    let (mut world, blocked) = world();
    blocked.borrow_mut().push(1);
    world.start_gateway(1, 1);
    world.run(second(60));
    assert!(wishes(&world, 1).is_empty());
}

#[test]
fn bridge_that_nobody_asked_for_is_not_used() {
    let (mut world, _) = pair(&[]);
    let stream = super::super::Stream { bridge: by_bridge(1).remote, transfer: world.transfer_at };
    let now = world.now;
    world.gateways.get_mut(&1).unwrap().set_stream(now, Some(stream));
    time_to_traffic(&mut world, second(3));
    assert!(!over_tcp(&world, 1) && world.gateways[&1].relay.fallback.endpoint().is_none());
}

/// Hands a datagram to gateway 1 as if it came by this socket from there; how many of them it dropped.
fn forge(world: &mut World, from: Endpoint, datagram: &[u8]) {
    let arrival = Arrival { origin: Origin::Outside(from), segment_bytes: datagram.len().max(1), tos: 0 };
    let (mut memory, mut actions) = (vec![0; Slab::ROOM_BYTES], Vec::new());
    let (now, gateway) = (world.now, world.gateways.get_mut(&1).unwrap());
    let mut bytes = datagram.to_vec();
    crate::node::Node::handle(gateway, now, &arrival, &mut bytes, &mut Slab::new(&mut memory, 0), &mut actions);
    assert!(actions.is_empty(), "nothing comes of it");
}

/// Another program of this machine writes to the bridge's socket; somebody outside repeats by UDP what went over the
/// stream.
#[test]
fn only_the_bridge_and_the_transfer_are_heard() {
    let (mut world, _) = pair(&[1]);
    time_to_traffic(&mut world, second(3));
    world.capture = Some(Vec::new());
    traffic(&mut world, second(25));
    let capture = world.capture.clone().unwrap();
    let mut other = by_bridge(1);
    other.remote.set_port(1);
    let dropped = |world: &World, reason| world.gateways[&1].drops().get(reason);
    let before = dropped(&world, DropReason::UnknownEndpoint);
    let stranger = super::world::keys();
    let init = mesh_wire::handshake::Init::emit(
        &mesh_wire::route::Route::DIRECT,
        5,
        mesh_wire::handshake::Kind::GatewayToGateway,
        &[3; 80],
        |bytes| crate::session::mac::mac1(&stranger, bytes),
        |_| [0; 16],
    );
    forge(&mut world, other, &init);
    assert_eq!(dropped(&world, DropReason::UnknownEndpoint), before + 1);
    let by_udp = Endpoint { socket: SocketId(0), remote: world.transfer_at, local: None };
    let (ways_before, seen): (_, Vec<Datagram>) =
        (ways(&world, 1), capture.into_iter().filter(|d| seen_by_transfer(d.to) == Some(1)).collect());
    assert!(seen.len() > 1000);
    for datagram in &seen {
        forge(&mut world, other, &datagram.bytes);
        forge(&mut world, by_udp, &datagram.bytes);
    }
    // The next ones before the stream brings them: taken from the wire, and told by UDP first.
    let before = world.packets(1);
    let sent = traffic(&mut world, second(3));
    world.run(second(1));
    assert_eq!((world.packets(1) - before, ways(&world, 1)), (usize::from(sent), ways_before));
    assert!(over_tcp(&world, 1) && is_registered(&world, 1));
}

/// Who is refused stays where it is answered, and has its address when it is free.
#[test]
fn refused_over_tcp_it_asks_on() {
    let (mut world, blocked) = pair(&[]);
    blocked.borrow_mut().push(3);
    let mut rival = config(3, 1);
    (rival.ip4, rival.sockets.stream) = (ip4(1), Some(BY_STREAM));
    world.insert(3, rival);
    world.run(second(30));
    assert!(world.events[&3].iter().any(|event| matches!(event, Event::Refused { first: true, .. })));
    assert!(over_tcp(&world, 3));
    let now = world.now;
    world.gateways.get_mut(&1).unwrap().stop(now);
    world.train(1, address_of(99), vec![0x2f; 60], 60);
    let took = world.run_until(second(5), |world| is_registered(world, 3)).unwrap();
    assert!(took < second(2), "{took:?}");
}

#[test]
fn stopping_over_tcp_says_goodbye_over_tcp() {
    let (mut world, _) = pair(&[1]);
    world.run(second(1));
    let now = world.now;
    world.gateways.get_mut(&1).unwrap().stop(now);
    world.train(1, address_of(99), vec![0x2f; 60], 60);
    world.run(second(1));
    let members = &world.transfer.as_ref().unwrap().status(world.now).namespaces[0].members;
    assert_eq!(members.iter().map(|member| member.ip).collect::<Vec<_>>(), [ip4(2)]);
}
