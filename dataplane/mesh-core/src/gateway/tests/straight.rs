//! What the tests of straight paths share: gateways that are neighbours or far apart, pings, and what became of the path.

use std::net::SocketAddr;
use std::time::Duration;

use super::packets::ping;
use super::world::{Datagram, World, address_of, config, ip4};
use crate::gateway::{
    BEACON_GROUP_IPV4, BEACON_PORT, BeaconSocket, Beacons, GatewayConfig, LocalAddress, PathChoice, PathKind,
};
use crate::seam::SocketId;

/// One ping a 100 ms from gateway `from` to gateway `to`; how many arrived.
pub(super) fn pings(world: &mut World, (from, to): (u8, u8), count: u16) -> usize {
    let before = world.packets(to);
    for number in 0..count {
        world.inside(from, &ping(from, to, number));
        world.run(Duration::from_millis(100));
    }
    world.packets(to) - before
}

/// The path by which gateway `from` sends to `to`.
pub(super) fn path(world: &World, from: u8, to: u8) -> Option<PathKind> {
    let status = world.gateways[&from].status(world.now);
    status.peers.iter().find(|peer| peer.ip4 == ip4(to)).and_then(|peer| peer.path)
}

/// The own address of gateway `number` on the network that all gateways are on.
pub(super) fn local(number: u8) -> LocalAddress {
    LocalAddress { address: address_of(number).ip(), prefix: 24, interface: 2 }
}

/// What a gateway that knows its port starts with.
pub(super) fn with_port(number: u8, boot: u64, path: PathChoice) -> GatewayConfig {
    let mut config = GatewayConfig { path, ..config(number, boot) };
    config.sockets.ports = (address_of(number).port(), 0);
    config
}

/// A gateway with beacons.
pub(super) fn neighbour(world: &mut World, number: u8, boot: u64, path: PathChoice) {
    neighbour_with(world, number, with_port(number, boot, path));
}

/// The same with all that it starts with.
pub(super) fn neighbour_with(world: &mut World, number: u8, config: GatewayConfig) {
    world.insert(number, config);
    let now = world.now;
    let gateway = world.gateways.get_mut(&number).unwrap();
    gateway.network_changed(now, &[local(number)]);
    let to = (BEACON_GROUP_IPV4, BEACON_PORT).into();
    let sending = vec![BeaconSocket { socket: SocketId(0), interface: 2, to }];
    gateway.set_beacons(now, Beacons { hearing: Vec::new(), sending });
}

/// Two gateways that have found the direct path, and have lost nothing on the way there.
pub(super) fn direct() -> World {
    let mut world = World::with_paths(&[1, 2]);
    assert_eq!(pings(&mut world, (1, 2), 20), 20, "from the first one on");
    assert_eq!((path(&world, 1, 2), path(&world, 2, 1)), (Some(PathKind::Direct), Some(PathKind::Direct)));
    world
}

pub(super) fn is_straight(datagram: &Datagram, transfer: SocketAddr) -> bool {
    datagram.from != transfer && datagram.to != transfer
}

/// A NAT that has forgotten what it gave the gateway at `old`, which is at `new` from here on; what is sent to the old place is lost.
pub(super) fn moved(old: SocketAddr, new: SocketAddr) -> Box<dyn FnMut(&mut Datagram)> {
    Box::new(move |datagram| {
        if datagram.from == old {
            datagram.from = new;
        } else if datagram.to == new {
            datagram.to = old;
        } else if datagram.to == old {
            datagram.to = SocketAddr::from(([10, 0, 0, 99], 9));
        }
    })
}
