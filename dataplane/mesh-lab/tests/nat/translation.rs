//! Which port a router gives, whom it lets in, and when it forgets.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_lab::{Host, Internet, Lab, Nat, Ping, SitePlan, isolated};

use crate::{COMES, STAYS_AWAY, Scene, passes, receive, seen, socket, vanishes};

const QUICK: Ping = Ping { count: 1, interval: Duration::ZERO, timeout: STAYS_AWAY, size: 56, dont_fragment: false };

#[test]
fn port_restricted_nat_keeps_the_port_and_lets_answers_in_only() {
    isolated(|| {
        let scene = Scene::new("restricted", Nat::PortRestricted)?;
        let (inside, public) = (scene.inside(0, 4000)?, scene.public(4000)?);
        // A probe before the mapping is there must not spoil it.
        vanishes(&scene.two, &inside, public)?;
        assert_eq!(seen(&inside, &scene.one)?, public);
        vanishes(&scene.two, &inside, public)?;
        assert_eq!(seen(&inside, &scene.two)?, public, "one mapping for all destinations");
        for server in [&scene.one, &scene.two] {
            assert_eq!(passes(server, &inside, public)?, server.local_addr()?);
        }
        // Another port of a host that was sent to is as strange as another host.
        vanishes(&socket(&scene.servers[0], 1001)?, &inside, public)?;
        // Nor does it help to know the way to the LAN.
        scene.internet.route("10.1.0.0/24", public.ip())?;
        vanishes(&scene.two, &scene.inside(1, 4000)?, (scene.site.hosts()[1].ipv4()?, 4000).into())?;
        assert_eq!(passes(&scene.two, &inside, public)?, scene.two.local_addr()?);
        Ok(())
    });
}

#[test]
fn port_of_two_hosts_behind_a_nat_is_given_to_the_second_only_where_it_is_free() {
    isolated(|| {
        // Which server the second host turns to first, while the first host has sent to number 0.
        for order in [[0, 1], [1, 0]] {
            let scene = Scene::new("clash", Nat::PortRestricted)?;
            let (first, second, public) = (scene.inside(0, 4000)?, scene.inside(1, 4000)?, scene.public(4000)?);
            let servers = [&scene.one, &scene.two];
            assert_eq!(seen(&first, servers[0])?, public);
            let mut given = [public; 2];
            for server in order {
                given[server] = seen(&second, servers[server])?;
            }
            assert!(given[0].ip() == public.ip() && given[0].port() != 4000, "{given:?}");
            if order == [0, 1] {
                assert_eq!(given[1], given[0], "where it has moved once it stays");
            } else {
                assert_eq!(given[1], public, "it moves where it must");
            }
            assert_eq!(passes(servers[0], &first, public)?, servers[0].local_addr()?);
            for (server, given) in servers.into_iter().zip(given) {
                assert_eq!(passes(server, &second, given)?, server.local_addr()?);
            }
        }
        Ok(())
    });
}

#[test]
fn symmetric_nat_draws_a_port_for_each_destination() {
    isolated(|| {
        let scene = Scene::new("symmetric", Nat::Symmetric)?;
        let inside = scene.inside(0, 4000)?;
        let ports = [seen(&inside, &scene.one)?, seen(&inside, &scene.two)?];
        for (server, port) in [&scene.one, &scene.two].into_iter().zip(ports) {
            assert_eq!(seen(&inside, server)?, port, "it stays");
            assert_eq!(passes(server, &inside, port)?, server.local_addr()?);
        }
        vanishes(&scene.two, &inside, ports[0])?;
        vanishes(&scene.one, &inside, ports[1])?;
        vanishes(&scene.one, &inside, scene.public(4000)?)?;

        // Every port of a server is a destination of its own.
        let server = scene.one.local_addr()?.ip();
        let mut drawn = Vec::new();
        for port in 2000..2100 {
            let to = socket(&scene.servers[0], port)?;
            drawn.push(passes(&inside, &to, (server, port).into())?.port());
        }
        drawn.sort_unstable();
        drawn.dedup();
        // Of 64,512 ports 100 draws meet twice in one of 13 runs; three times is one in some thousand million.
        assert!(drawn.len() >= 96 && drawn[0] >= 1024, "{drawn:?}");
        // All 100 within half of the range: chance 100 / 2^99.
        assert!(drawn[drawn.len() - 1] - drawn[0] > 32_000, "{drawn:?}");
        Ok(())
    });
}

#[test]
fn full_cone_nat_lets_everybody_send_to_a_port_that_was_used() {
    isolated(|| {
        let scene = Scene::new("cone", Nat::FullCone)?;
        let (inside, public) = (scene.inside(0, 4000)?, scene.public(4000)?);
        vanishes(&scene.two, &inside, public)?;
        assert_eq!(seen(&inside, &scene.one)?, public);
        assert_eq!(passes(&scene.two, &inside, public)?, scene.two.local_addr()?);
        assert_eq!(seen(&inside, &scene.two)?, public);
        vanishes(&scene.two, &inside, scene.public(4001)?)?;
        scene.site.router().forget_flows()?;
        vanishes(&scene.two, &inside, public)?;
        assert_eq!(seen(&inside, &scene.one)?, public);
        assert_eq!(passes(&scene.two, &inside, public)?, scene.two.local_addr()?);
        // As another kind it has forgotten too.
        scene.site.uplink().outside().set_nat(Some(Nat::PortRestricted))?;
        scene.site.router().forget_flows()?;
        assert_eq!(seen(&inside, &scene.one)?, public);
        vanishes(&scene.two, &inside, public)?;
        Ok(())
    });
}

#[test]
fn nat_has_no_hairpin_and_passes_what_is_no_datagram() {
    isolated(|| {
        for nat in [Nat::PortRestricted, Nat::Symmetric, Nat::FullCone] {
            let scene = Scene::new("hairpin", nat)?;
            let (first, second) = (scene.inside(0, 4000)?, scene.inside(1, 4000)?);
            let public = seen(&first, &scene.one)?;
            vanishes(&second, &first, public)?;
            // Nor is it refused: a connected socket would hear of that.
            second.connect(public)?;
            second.send(b"unanswered")?;
            assert_eq!(receive(&second, STAYS_AWAY)?, None);
            passes(&first, &socket(&scene.site.hosts()[1], 4001)?, (scene.site.hosts()[1].ipv4()?, 4001).into())?;

            // What the router itself listens on is for the LAN and for itself.
            let (router, outside) = (scene.site.router(), scene.site.uplink().ipv4()?);
            let own = router.udp((outside, 5000).into())?;
            passes(&router.udp((outside, 5001).into())?, &own, own.local_addr()?)?;
            vanishes(&scene.one, &own, own.local_addr()?)?;
            let near = router.udp((scene.site.router().interface("eth1")?.addresses()[0].address(), 5000).into())?;
            passes(&first, &near, near.local_addr()?)?;

            let (server, client) = (&scene.servers[0], &scene.site.hosts()[0]);
            assert!(client.ping(server.ipv4()?, Ping::default())?.perfect());
            let listener = server.tcp_listen((server.ipv4()?, 80).into())?;
            client.tcp_connect(listener.local_addr()?, COMES)?;
            assert_eq!(listener.accept()?.1.ip(), scene.site.uplink().ipv4()?);
        }
        Ok(())
    });
}

#[test]
fn site_behind_a_carrier_is_translated_twice() {
    isolated(|| {
        let lab = Lab::new("carrier")?;
        let mut internet = Internet::new(&lab)?;
        let (one, two) = (internet.server("one", None)?, internet.server("two", None)?);
        let (one, two) = (socket(one.host(), 1000)?, socket(two.host(), 1000)?);
        let mut carrier = internet.carrier("carrier", Nat::PortRestricted, None)?;
        let left = internet.site_behind(&mut carrier, "left", &SitePlan::default())?;
        let right = internet.site_behind(&mut carrier, "right", &SitePlan::default())?;
        let (a, b) = (socket(&left.hosts()[0], 4000)?, socket(&right.hosts()[0], 4000)?);
        let public: SocketAddr = (carrier.uplink().ipv4()?, 4000).into();
        vanishes(&two, &a, public)?;
        assert_eq!(seen(&a, &one)?, public);
        assert_eq!(seen(&a, &two)?, public);
        assert_eq!(passes(&one, &a, public)?, one.local_addr()?);
        let moved = seen(&b, &one)?;
        assert!(moved.ip() == public.ip() && moved.port() != 4000, "one public address for both sites: {moved}");
        assert_eq!(passes(&one, &b, moved)?, one.local_addr()?);
        vanishes(&b, &a, public)?;
        // Before the carrier each has an address of its own, where both are let in once both have sent.
        let [near_a, near_b] = [&left, &right].map(|site| site.uplink().ipv4());
        let (near_a, near_b) = (SocketAddr::from((near_a?, 4000)), SocketAddr::from((near_b?, 4000)));
        vanishes(&a, &b, near_b)?;
        assert_eq!(passes(&b, &a, near_a)?, near_b);
        // The carrier forgets, the site does not.
        carrier.uplink().outside().set_nat(Some(Nat::Symmetric))?;
        carrier.router().forget_flows()?;
        vanishes(&one, &a, public)?;
        let drawn = [seen(&a, &one)?, seen(&a, &two)?];
        assert!(drawn[0].port() != drawn[1].port() && !drawn.contains(&public), "{drawn:?}");
        Ok(())
    });
}

#[test]
fn firewall_lets_answers_in_only() {
    isolated(|| {
        let lab = Lab::new("firewall")?;
        let mut internet = Internet::new(&lab)?;
        let server = internet.server("server", None)?;
        let mut carrier = internet.carrier("carrier", Nat::Symmetric, None)?;
        let plan = SitePlan { ipv6: true, ..SitePlan::default() };
        let sites = [internet.site("left", &plan)?, internet.site_behind(&mut carrier, "right", &plan)?];
        let socket = |host: &Host| host.udp((host.ipv6()?, 4000).into());
        let server = socket(server.host())?;
        let [a, b] = [&sites[0].hosts()[0], &sites[1].hosts()[0]].map(socket);
        let (a, b) = (a?, b?);
        let (at_a, at_b) = (a.local_addr()?, b.local_addr()?);
        vanishes(&server, &a, at_a)?;
        assert_eq!(seen(&a, &server)?, at_a, "no translation");
        assert_eq!(passes(&server, &a, at_a)?, server.local_addr()?);
        vanishes(&a, &b, at_b)?;
        assert_eq!(passes(&b, &a, at_a)?, at_b, "both have sent");
        assert_eq!(passes(&a, &b, at_b)?, at_a);
        let router = sites[0].router().udp((sites[0].uplink().ipv6()?, 5000).into())?;
        vanishes(&server, &router, router.local_addr()?)?;
        // The router can be pinged, what is behind it cannot.
        assert_eq!(sites[0].hosts()[0].ping(at_b.ip(), QUICK)?.received, 0);
        assert!(sites[0].hosts()[0].ping(sites[1].uplink().ipv6()?, Ping::default())?.perfect());
        sites[1].router().forget_flows()?;
        vanishes(&server, &b, at_b)?;
        sites[1].uplink().outside().set_firewall(false)?;
        assert_eq!(passes(&server, &b, at_b)?, server.local_addr()?);
        Ok(())
    });
}

#[test]
fn mapping_ends_when_its_time_is_over_or_the_router_forgets() {
    isolated(|| {
        let scene = Scene::new("forget", Nat::Symmetric)?;
        let (inside, router) = (scene.inside(0, 4000)?, scene.site.router());
        assert_eq!(router.flows()?, 0);
        let first = seen(&inside, &scene.one)?;
        assert_eq!(router.flows()?, 1);
        seen(&inside, &scene.two)?;
        assert_eq!(router.flows()?, 2);
        assert_eq!(passes(&scene.one, &inside, first)?, scene.one.local_addr()?);
        assert_eq!(router.flows()?, 2, "an answer belongs to the flow");
        router.forget_flows()?;
        assert_eq!(router.flows()?, 0);
        vanishes(&scene.one, &inside, first)?;
        assert_eq!(router.flows()?, 0, "what is not let in leaves nothing behind");
        let second = seen(&inside, &scene.one)?;
        // The same port by chance: once in 64,512 times.
        assert_ne!(second, first);

        router.set_udp_timeout(Duration::from_secs(2))?;
        assert_eq!(seen(&inside, &scene.one)?, second);
        assert_eq!(passes(&scene.one, &inside, second)?, scene.one.local_addr()?, "not over");
        assert_eq!(receive(&inside, Duration::from_millis(2200))?, None);
        vanishes(&scene.one, &inside, second)?;
        assert!(router.set_udp_timeout(Duration::from_millis(500)).is_err());
        Ok(())
    });
}
