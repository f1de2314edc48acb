//! Routers translate and filter as the routers of the world do, and rules drop what they say.
#![cfg(target_os = "linux")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mesh_lab::{DropRule, Host, Internet, Lab, Nat, Ping, Site, SitePlan, Udp, isolated};

/// How long to wait for what must come.
const COMES: Duration = Duration::from_secs(5);

/// How long to wait for what must not come: a thousand times what it would take.
const STAYS_AWAY: Duration = Duration::from_millis(100);

/// A socket of a host, at its first IPv4 address.
fn socket(host: &Host, port: u16) -> Result<UdpSocket> {
    host.udp((host.ipv4()?, port).into())
}

fn receive(socket: &UdpSocket, wait: Duration) -> Result<Option<(Vec<u8>, SocketAddr)>> {
    socket.set_read_timeout(Some(wait))?;
    let mut buffer = [0; 2000];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Ok(Some((buffer[..length].to_vec(), from))),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends a datagram that must arrive, and returns the sender's address as the receiver sees it.
fn passes(from: &UdpSocket, to: &UdpSocket, at: SocketAddr) -> Result<SocketAddr> {
    from.send_to(b"passes", at)?;
    match receive(to, COMES)? {
        Some((bytes, seen)) if bytes == b"passes" => Ok(seen),
        other => bail!("{other:?} came from {from:?} to {to:?} at {at}"),
    }
}

/// Sends a datagram that must not arrive.
fn vanishes(from: &UdpSocket, to: &UdpSocket, at: SocketAddr) -> Result<()> {
    from.send_to(b"vanishes", at)?;
    match receive(to, STAYS_AWAY)? {
        None => Ok(()),
        Some((_, seen)) => bail!("it came from {seen}, sent by {from:?} to {to:?} at {at}"),
    }
}

/// Two servers with a socket each, and a site of two hosts behind a NAT.
struct Scene {
    internet: Host,
    servers: [Host; 2],
    site: Site,
    one: UdpSocket,
    two: UdpSocket,
}

impl Scene {
    fn new(name: &str, nat: Nat) -> Result<Scene> {
        let lab = Lab::new(name)?;
        let mut internet = Internet::new(&lab)?;
        let (one, two) = (internet.server("one", None)?, internet.server("two", None)?);
        let site = internet.site("site", &SitePlan { nat: Some(nat), hosts: 2, ..SitePlan::default() })?;
        let servers = [one.host().clone(), two.host().clone()];
        let (one, two) = (socket(&servers[0], 1000)?, socket(&servers[1], 1000)?);
        Ok(Scene { internet: internet.router().clone(), servers, site, one, two })
    }

    /// A socket of the first or second host of the site, number 0 or 1.
    fn inside(&self, host: usize, port: u16) -> Result<UdpSocket> {
        socket(&self.site.hosts()[host], port)
    }

    /// A port of the router's outside address.
    fn public(&self, port: u16) -> Result<SocketAddr> {
        Ok((self.site.uplink().ipv4()?, port).into())
    }
}

/// Where `to`, a server, sees `from`.
fn seen(from: &UdpSocket, to: &UdpSocket) -> Result<SocketAddr> {
    passes(from, to, to.local_addr()?)
}

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
        // The router can be reached, what is behind it cannot.
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

        router.set_udp_timeout(Duration::from_secs(1))?;
        let third = seen(&inside, &scene.one)?;
        assert_eq!(third, second);
        assert_eq!(receive(&inside, Duration::from_millis(700))?, None);
        assert_eq!(passes(&scene.one, &inside, third)?, scene.one.local_addr()?, "not over");
        assert_eq!(receive(&inside, Duration::from_millis(1200))?, None);
        vanishes(&scene.one, &inside, third)?;
        assert!(router.set_udp_timeout(Duration::from_millis(500)).is_err());
        Ok(())
    });
}

#[test]
fn rule_drops_what_it_names_until_it_is_lifted() {
    isolated(|| {
        let scene = Scene::new("rules", Nat::PortRestricted)?;
        let (inside, public) = (scene.inside(0, 4000)?, scene.public(4000)?);
        let (dns, client) = (socket(&scene.servers[0], 53)?, &scene.site.hosts()[0]);
        let (near, server) = (client.ipv4()?, scene.servers[0].ipv4()?);
        seen(&inside, &scene.one)?;
        seen(&inside, &scene.two)?;
        let router = scene.site.router();
        let out = || vanishes(&inside, &scene.one, scene.one.local_addr()?);
        let back = || vanishes(&scene.one, &inside, public);

        let all = router.drop_udp(Udp::all())?;
        out()?;
        back()?;
        vanishes(&inside, &dns, dns.local_addr()?)?;
        assert_eq!(all.dropped()?, 3);
        assert!(client.ping(server, Ping::default())?.perfect(), "nothing but UDP");
        all.lift()?;
        assert_eq!(seen(&inside, &scene.one)?, public);

        {
            let _all = router.drop_udp(Udp::all().but_dns())?;
            out()?;
            back()?;
            let dns_sees = seen(&inside, &dns)?;
            assert_eq!(passes(&dns, &inside, dns_sees)?, dns.local_addr()?);
        }
        assert_eq!(seen(&inside, &scene.one)?, public, "lifted with its handle");

        // In the router addresses are those of the inside, on the internet those of the outside.
        for (place, from) in [(router, near), (&scene.internet, public.ip())] {
            for udp in
                [Udp::all().from(from), Udp::all().to(server).to_port(1000), Udp::all().from_port(4000).to(server)]
            {
                let rule = place.drop_udp(udp)?;
                out()?;
                assert_eq!(passes(&scene.one, &inside, public)?, scene.one.local_addr()?, "{udp:?}: one way only");
                assert_eq!(rule.dropped()?, 1, "{udp:?}");
            }
            let other = place.drop_udp(Udp::all().from(from).to(server).to_port(999))?;
            seen(&inside, &scene.one)?;
            assert_eq!(other.dropped()?, 0);
            let both = place.drop_udp(Udp::between(server, from))?;
            out()?;
            back()?;
            assert_eq!(seen(&inside, &scene.two)?, public, "the others pass");
            assert_eq!(both.dropped()?, 2);
        }
        // A rule of the receiver itself.
        let deaf = scene.servers[0].drop_udp(Udp::all())?;
        out()?;
        deaf.lift()?;
        seen(&inside, &scene.one)?;
        for wrong in [Udp::all().share(0.0), Udp::all().share(1.1), Udp::all().from(near).to("fd01::1".parse()?)] {
            assert!(router.drop_udp(wrong).is_err(), "{wrong:?}");
        }
        Ok(())
    });
}

#[test]
fn rule_drops_a_share_of_datagrams() {
    isolated(|| {
        let scene = Scene::new("loss", Nat::PortRestricted)?;
        let inside = scene.inside(0, 4000)?;
        let public = seen(&inside, &scene.one)?;
        let (near, server) = (scene.site.hosts()[0].ipv4()?, scene.one.local_addr()?);
        let there = |rule: &DropRule| arrived(&inside, &scene.one, server, rule);
        let back = |rule: &DropRule| arrived(&scene.one, &inside, public, rule);
        // Six standard deviations of 1000 draws.
        let rule = scene.site.router().drop_udp(Udp::all().from(near).share(0.3))?;
        assert!((613..787).contains(&there(&rule)?));
        assert_eq!(back(&rule)?, 1000, "one direction");
        rule.lift()?;
        let rule = scene.site.router().drop_udp(Udp::between(near, server.ip()).share(0.9))?;
        assert!((43..157).contains(&there(&rule)?));
        assert!((43..157).contains(&back(&rule)?));
        Ok(())
    });
}

/// How many of 1000 datagrams arrive; the rule has dropped the others.
fn arrived(from: &UdpSocket, to: &UdpSocket, at: SocketAddr, rule: &DropRule) -> Result<u64> {
    let (before, mut arrived) = (rule.dropped()?, 0);
    // Few at a time, so that the receiver's buffer holds them.
    for group in 1..=10 {
        for _ in 0..100 {
            from.send_to(b"one of many", at)?;
        }
        let deadline = Instant::now() + COMES;
        while arrived + rule.dropped()? - before < group * 100 {
            while receive(to, Duration::from_millis(5))?.is_some() {
                arrived += 1;
            }
            assert!(Instant::now() < deadline, "{arrived} arrived, {} dropped", rule.dropped()? - before);
        }
    }
    assert_eq!(arrived + rule.dropped()? - before, 1000);
    Ok(arrived)
}
