//! Many behind one address, and one that makes the transfer speak to many.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::frame::FrameType;
use mesh_wire::message::{Message, Target};

use super::world::*;
use crate::drops::DropReason;
use crate::node::Node;
use crate::transfer::handshake::PER_NAMESPACE_MAX;
use crate::transfer::lookups::{WATCHERS_MAX, WATCHING_MAX};

/// Proves an endpoint and begins a handshake there; whether it was answered.
fn begin(world: &mut World, gateway: &mut Gateway, endpoint: &str) -> bool {
    gateway.endpoint = at(gateway.endpoint.socket, endpoint);
    let started = gateway.start();
    let bare = gateway.init(&started, None);
    let reply = only(world.deliver(gateway.endpoint, &bare), gateway.endpoint);
    let proven = gateway.init(&started, Some(&gateway.cookie(&bare, &reply)));
    world.deliver(gateway.endpoint, &proven).iter().any(|(_, sent)| sent[0] == FrameType::HandshakeResponse.byte())
}

#[test]
fn one_address_leaves_half_of_the_handshakes_to_others() {
    for address in ["203.0.113.66:", "[2001:db8:1:2:"] {
        let mut world = World::new();
        let mut answered = 0;
        for n in 0..3000_u32 {
            let mut gateway = Gateway::new(FIRST, 66);
            gateway.boot = u64::from(n) + 100;
            let endpoint = match address.strip_prefix('[') {
                None => format!("{address}{}", 1000 + n),
                // Any host has a /64 to itself.
                Some(_) => format!("{address}{:x}::1]:5000", n + 1),
            };
            answered += usize::from(begin(&mut world, &mut gateway, &endpoint));
        }
        assert_eq!(answered, PER_NAMESPACE_MAX / 2);
        // Another one behind the next address finds room, and so does a whole /24.
        for n in 1..=200 {
            let mut honest = Gateway::new(FIRST, n);
            assert!(begin(&mut world, &mut honest, &format!("192.0.2.{n}:5000")), "{n}");
        }
    }
}

#[test]
fn one_address_leaves_room_in_all_namespaces_together() {
    let mut world = World::new();
    let sockets: Vec<_> = (10..30).map(crate::seam::SocketId).collect();
    for socket in &sockets {
        world.transfer.add_namespace(*socket, PORT + socket.0, keys(7, PORT + socket.0));
    }
    let mut answered = 0;
    for n in 0..6000_u32 {
        let mut gateway = Gateway::new(sockets[n as usize % sockets.len()], 66);
        gateway.boot = u64::from(n) + 100;
        answered += usize::from(begin(&mut world, &mut gateway, &format!("203.0.113.66:{}", 1000 + n)));
    }
    assert_eq!(answered, 2048);
    let mut honest = Gateway::new(sockets[0], 1);
    assert!(begin(&mut world, &mut honest, "192.0.2.1:5000"));
}

/// A thousand gateways behind one NAT, started at once: each tries once a second, as gateways do.
#[test]
fn crowd_behind_one_address_is_let_in_within_seconds() {
    let mut world = World::new();
    let mut crowd: Vec<_> = (0..1000_u32)
        .map(|n| {
            let [_, _, high, low] = n.to_be_bytes();
            let mut gateway = Gateway::new(FIRST, 1);
            let mut seed = [77; 32];
            (seed[8], seed[9]) = (high, low);
            gateway.key = crate::session::handshake::StaticKey::from_seed(seed);
            gateway.ip4 = Ipv4Addr::new(10, 1, high, low);
            gateway.endpoint = at(FIRST, &format!("203.0.113.66:{}", 1000 + n));
            gateway
        })
        .collect();
    for second in 0..4 {
        // All inits come before the first final.
        let mut under_way = Vec::new();
        for gateway in crowd.iter_mut().filter(|gateway| gateway.slot.is_none()) {
            let started = gateway.start();
            let bare = gateway.init(&started, None);
            let reply = only(world.deliver(gateway.endpoint, &bare), gateway.endpoint);
            let proven = gateway.init(&started, Some(&gateway.cookie(&bare, &reply)));
            let sent = world.deliver(gateway.endpoint, &proven);
            if let Some((_, response)) =
                sent.into_iter().find(|(_, sent)| sent[0] == FrameType::HandshakeResponse.byte())
            {
                under_way.push((gateway, started, response));
            }
        }
        for (gateway, started, response) in under_way {
            let last = gateway.last(started, &response);
            let sent = world.deliver(gateway.endpoint, &last);
            gateway.take_registered(&sent);
        }
        world.pass(Duration::from_secs(1));
        if world.members().len() == crowd.len() {
            assert!(second >= 1, "the share holds them back for a moment");
            return;
        }
    }
    panic!("{} of 1000 after four seconds", world.members().len());
}

#[test]
fn finished_handshakes_take_no_place() {
    let mut world = World::new();
    for n in 0..PER_NAMESPACE_MAX as u32 + 200 {
        let mut gateway = Gateway::new(FIRST, 1);
        gateway.boot = u64::from(n);
        gateway.endpoint = at(FIRST, &format!("203.0.113.66:{}", 1000 + n));
        let last = gateway.up_to_final(&mut world);
        world.deliver(gateway.endpoint, &last);
    }
    assert_eq!(world.transfer.drops().get(DropReason::Busy), 0);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.transfer.status(world.now).handshakes_pending, 0);
}

/// Those that were refused stay as long as they ask, but not all of them.
#[test]
fn sessions_that_no_member_holds_are_bounded() {
    let mut world = World::new();
    let holder = Gateway::new(FIRST, 1).join(&mut world);
    let mut refused: Vec<_> = (0..1500_u32)
        .map(|n| {
            let mut gateway = Gateway::new(FIRST, 2);
            gateway.ip4 = holder.ip4;
            gateway.boot = u64::from(n);
            gateway.endpoint = at(FIRST, &format!("203.0.113.66:{}", 1000 + n));
            gateway.register(&mut world);
            gateway
        })
        .collect();
    assert_eq!(world.transfer.spaces.get(FIRST).unwrap().guests.len(), 1500);
    for _ in 0..8 {
        world.pass(Duration::from_secs(1));
        for gateway in &mut refused {
            let register = gateway.register_message();
            gateway.ask(&mut world, &register);
        }
    }
    let space = world.transfer.spaces.get(FIRST).unwrap();
    assert!(space.guests.len() <= 1025, "{}", space.guests.len());
    assert_eq!(space.links(), space.guests.len() + 1);
    world.pass(Duration::from_secs(6));
    let space = world.transfer.spaces.get(FIRST).unwrap();
    assert_eq!((space.links(), space.guests.len()), (1, 0));
}

/// A member may have many sessions, and change from one to another: those it has left are bounded, too.
#[test]
fn sessions_that_a_member_has_left_are_bounded() {
    let mut world = World::new();
    let first = Gateway::new(FIRST, 1).join(&mut world);
    let mut sessions: Vec<_> = (0..1500_u32)
        .map(|n| {
            let mut gateway = Gateway::new(FIRST, 1);
            (gateway.ip4, gateway.boot) = (first.ip4, first.boot);
            gateway.endpoint = at(FIRST, &format!("203.0.113.66:{}", 1000 + n));
            gateway.register(&mut world);
            gateway
        })
        .collect();
    assert!(world.transfer.spaces.get(FIRST).unwrap().guests.len() <= 1024);
    for _ in 0..3 {
        world.pass(Duration::from_secs(3));
        for session in &mut sessions {
            let register = session.register_message();
            session.ask(&mut world, &register);
        }
        let space = world.transfer.spaces.get(FIRST).unwrap();
        assert!(space.guests.len() <= 1024, "{}", space.guests.len());
        assert_eq!(space.links(), space.guests.len() + 1);
    }
    world.pass(Duration::from_secs(11));
    assert_eq!(world.transfer.spaces.get(FIRST).unwrap().links(), 1);
}

fn lookup(ip4: Ipv4Addr) -> Message {
    Message::Lookup { request: 1, target: Target::Address(ip4) }
}

fn register_as(gateway: &mut Gateway, name: &str) -> Vec<u8> {
    let Message::Register { request, boot, ip4, ticket, .. } = gateway.register_message() else { unreachable!() };
    gateway.seal(&Message::Register { request, boot, ip4, name: name.to_owned(), ticket })
}

/// One member changes all the time: its watchers hear of it once a second, and of the last change always.
#[test]
fn changes_of_one_member_are_told_once_a_second() {
    let mut world = World::new();
    let mut member = Gateway::new(FIRST, 1).join(&mut world);
    let mut watchers: Vec<_> = (2..102).map(|n| Gateway::new(FIRST, n).join(&mut world)).collect();
    for watcher in &mut watchers {
        watcher.ask(&mut world, &lookup(member.ip4));
    }
    let (mut asked, mut caused) = (0, Vec::new());
    for n in 0..1000 {
        let datagram = register_as(&mut member, &format!("name {n}"));
        asked += datagram.len();
        caused.extend(world.deliver(member.endpoint, &datagram));
        if n % 100 == 99 {
            caused.extend(world.pass(Duration::from_millis(500)));
        }
    }
    caused.extend(world.pass(Duration::from_secs(5)));
    caused.retain(|(to, _)| to.remote != member.endpoint.remote);
    let bytes: usize = caused.iter().map(|(_, sent)| sent.len()).sum();
    assert!(bytes <= 2 * asked * watchers.len() / 100, "{asked} bytes caused {bytes}");
    for watcher in &watchers {
        let told = watcher.read(&caused);
        assert!((5..=12).contains(&told.len()), "{} changes in 5 s", told.len());
        let Some(Message::Change { peer: Some(last), .. }) = told.last() else { panic!("a change") };
        assert_eq!(last.name, "name 999");
    }
    world.pass(Duration::from_secs(2));
    assert!(world.transfer.spaces.get(FIRST).unwrap().announced.is_empty());
}

#[test]
fn member_that_comes_and_goes_is_told_of_as_it_is_in_the_end() {
    let mut world = World::new();
    let mut watcher = Gateway::new(FIRST, 2).join(&mut world);
    let mut member = Gateway::new(FIRST, 1).join(&mut world);
    watcher.ask(&mut world, &lookup(member.ip4));
    let mut told = Vec::new();
    for _ in 0..5 {
        let goodbye = member.seal(&Message::Goodbye);
        told.extend(watcher.read(&world.deliver(member.endpoint, &goodbye)));
        told.extend(watcher.read(&member.register(&mut world)));
    }
    assert_eq!(told.len(), 3);
    told.extend(watcher.read(&world.pass(Duration::from_secs(1))));
    let [.., Message::Change { number: 4, peer: Some(last), .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(last.slot, member.slot);
}

#[test]
fn member_changes_its_address_once_a_second() {
    let mut world = World::new();
    let mut member = Gateway::new(FIRST, 1).join(&mut world);
    for n in 0..100 {
        member.ip4 = Ipv4Addr::new(10, 0, 7, n);
        let register = member.register_message();
        member.ask(&mut world, &register);
    }
    assert_eq!(world.members(), [Ipv4Addr::new(10, 0, 0, 1)]);
    world.pass(Duration::from_secs(1));
    let register = member.register_message();
    assert_eq!(member.ask(&mut world, &register).len(), 1);
    assert_eq!(world.members(), [member.ip4]);
}

#[test]
fn subscriptions_of_a_namespace_are_bounded_and_few_find_room() {
    let mut world = World::new();
    let mut member = Gateway::new(FIRST, 1).join(&mut world);
    // Members as there are none in a test: they watch all but ten addresses of what is allowed.
    let address = |n: u32| Ipv4Addr::from(0x0b00_0000 + n);
    let space = world.transfer.spaces.get_mut(FIRST).unwrap();
    space.watchers.extend((0..WATCHERS_MAX as u32 - 10).map(|n| (address(n % 1024), 1000 + n / 1024)));
    for n in 0..WATCHING_MAX as u32 {
        assert_eq!(member.ask(&mut world, &lookup(address(n))).len(), 1, "it is answered all the same");
        world.now = world.now + Duration::from_millis(5);
    }
    let space = world.transfer.spaces.get(FIRST).unwrap();
    assert_eq!(space.watchers.len(), WATCHERS_MAX - 5, "one may watch as many as are left");
    assert_eq!(space.watching.values().map(|watching| watching.until.len()).sum::<usize>(), 5);
    // The next one finds room too.
    let mut other = Gateway::new(FIRST, 2).join(&mut world);
    other.ask(&mut world, &lookup(address(5000)));
    assert_eq!(world.transfer.spaces.get(FIRST).unwrap().watchers.len(), WATCHERS_MAX - 4);
}

#[test]
fn subscriptions_of_a_quiet_member_end_with_their_term() {
    let mut world = World::new();
    let mut member = Gateway::new(FIRST, 1).join(&mut world);
    for n in 0..100 {
        member.ask(&mut world, &lookup(Ipv4Addr::new(10, 5, 5, n)));
    }
    assert_eq!(world.transfer.spaces.get(FIRST).unwrap().watchers.len(), 100);
    for _ in 0..5 {
        world.pass(Duration::from_secs(100));
        member.ask(&mut world, &Message::Keepalive { seq: 1, change: 0 });
    }
    assert!(world.transfer.spaces.get(FIRST).unwrap().watchers.is_empty());
    assert!(world.transfer.poll_timeout().is_some());
}
