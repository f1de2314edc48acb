//! Rules drop what they name, and nothing else.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;
use mesh_lab::{DropRule, Nat, Ping, Udp, isolated};

use crate::{COMES, Scene, passes, receive, seen, socket, vanishes};

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
