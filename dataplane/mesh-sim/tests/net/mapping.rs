//! Which remotes see an inside host at the same outside address (RFC 4787, section 4.1).

use mesh_sim::net::{Dependence, NatConfig};
use mesh_sim::seeds;

use crate::scene::{ONE, OUTSIDE, PORT, Scene, TWO, at, port_of};

#[test]
fn remotes_see_one_address_or_several_as_the_kind_says() {
    seeds::each(20, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, _, host) = Scene::with_home(seed, kind);
            let mut seen = |to| port_of(scene.seen(host, PORT, to).expect("what goes out arrives"), OUTSIDE);
            let first = seen(at(ONE, 1000));
            let other_port = seen(at(ONE, 1001));
            let other_address = seen(at(TWO, 1000));
            assert_eq!(first, seen(at(ONE, 1000)), "the same remote sees the same, {kind:?}");
            if kind == NatConfig::LINUX {
                assert_eq!([first, other_port, other_address], [PORT; 3], "each mapping keeps its port");
                continue;
            }
            assert_eq!(first == other_port, kind.mapping != Dependence::AddressAndPort, "{kind:?}");
            assert_eq!(first == other_address, kind.mapping == Dependence::Nothing, "{kind:?}");
            let once_more = seen(at(TWO, 1001));
            assert_eq!(other_address == once_more, kind.mapping != Dependence::AddressAndPort, "{kind:?}");
        }
    });
}

#[test]
fn each_socket_and_host_has_mappings_of_its_own_and_gets_what_is_for_it() {
    seeds::each(20, |seed| {
        for kind in NatConfig::every_kind() {
            let (mut scene, home, host) = Scene::with_home(seed, kind);
            let other = scene.host(home, 11);
            let sockets = [(host, PORT), (host, PORT + 1), (other, PORT), (other, PORT + 1)];
            let outside = sockets.map(|(node, port)| scene.seen(node, port, at(ONE, 1000)).unwrap());
            for (number, (node, port)) in sockets.into_iter().enumerate() {
                let arrivals = scene.carry(scene.one, 1000, outside[number]);
                let to: Vec<_> = arrivals.iter().map(|arrival| (arrival.node, arrival.to.port())).collect();
                assert_eq!(to, [(node, port)], "an answer to {} of {kind:?}", outside[number]);
                assert_eq!(arrivals[0].from, at(ONE, 1000), "a remote keeps its address");
            }
        }
    });
}
