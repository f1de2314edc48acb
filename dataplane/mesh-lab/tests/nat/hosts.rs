//! Hosts change their addresses and their place while their sockets live, and LANs carry what is for all.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs as _, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Emulation, Host, Internet, Lab, Nat, Ping, SitePlan, isolated};
use nix::net::if_::if_nametoindex;

use crate::{COMES, STAYS_AWAY, Scene, passes, receive, seen, socket, vanishes};

fn ip(text: &str) -> Result<IpAddr> {
    Ok(text.parse()?)
}

/// A socket of a host at whatever address it has.
fn everywhere(host: &Host, port: u16) -> Result<UdpSocket> {
    host.udp((Ipv4Addr::UNSPECIFIED, port).into())
}

/// Waits until the kernel has done what it does by itself, in its own time.
#[expect(clippy::disallowed_methods, reason = "a poll has to pause")]
fn until(done: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + COMES;
    while !done()? {
        ensure!(Instant::now() < deadline, "it is not done");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn host_gets_another_address_while_its_socket_lives() {
    isolated(|| {
        let scene = Scene::new("address", Nat::PortRestricted)?;
        let (host, router) = (&scene.site.hosts()[0], scene.site.router());
        let (inside, public) = (everywhere(host, 4000)?, scene.public(4000)?);
        assert_eq!(seen(&inside, &scene.one)?, public);
        let eth0 = host.interface("eth0")?;
        eth0.set_addresses(&["10.1.0.77/24"])?;
        assert_eq!(host.ipv4()?, ip("10.1.0.77")?);
        let moved = seen(&inside, &scene.one)?;
        assert!(moved.ip() == public.ip() && moved.port() != 4000, "the flow of the old address has the port: {moved}");
        assert_eq!(passes(&scene.one, &inside, moved)?, scene.one.local_addr()?);
        vanishes(&scene.one, &inside, public)?;

        // Another network: the route is gone until there is a router again.
        eth0.remove_address("10.1.0.77/24")?;
        eth0.add_address("10.9.0.5/24")?;
        let unsent = inside.send_to(b"nowhere", scene.one.local_addr()?).err().context("there is no route")?;
        assert_eq!(unsent.kind(), ErrorKind::NetworkUnreachable);
        let lan = router.interface("eth1")?;
        lan.add_address("10.9.0.1/24")?;
        host.default_route(ip("10.9.0.1")?)?;
        passes(&scene.one, &inside, seen(&inside, &scene.one)?)?;

        // A second address of the same network outlives the first.
        eth0.add_address("10.9.0.6/24")?;
        eth0.remove_address("10.9.0.5/24")?;
        passes(&scene.one, &inside, seen(&inside, &scene.one)?)?;
        Ok(())
    });
}

#[test]
fn router_gets_another_public_address() {
    isolated(|| {
        let scene = Scene::new("renewed", Nat::PortRestricted)?;
        let (inside, public) = (scene.inside(0, 4000)?, scene.public(4000)?);
        assert_eq!(seen(&inside, &scene.one)?, public);
        let renewed: SocketAddr = (scene.site.uplink().renew_ipv4()?, 4000).into();
        assert!(renewed != public && scene.public(4000)? == renewed, "{renewed}");
        assert_eq!(seen(&inside, &scene.one)?, renewed);
        assert_eq!(passes(&scene.one, &inside, renewed)?, scene.one.local_addr()?);
        vanishes(&scene.one, &inside, public)?;
        for _ in 0..5 {
            let renewed = scene.site.uplink().renew_ipv4()?;
            assert_eq!(seen(&inside, &scene.one)?, (renewed, 4000).into());
        }
        assert_eq!(scene.public(4000)?, renewed, "they come again");
        // A line that is switched off takes its flows along.
        scene.site.uplink().outside().down()?;
        until(|| Ok(scene.site.router().flows()? == 0))?;
        Ok(())
    });
}

#[test]
fn interface_carries_packets_as_soon_as_it_is_up() {
    isolated(|| {
        let mut scene = Scene::new("up", Nat::Symmetric)?;
        let inside = everywhere(&scene.site.hosts()[0], 4000)?;
        let mapping = seen(&inside, &scene.one)?;
        let port = scene.site.lan().ports()[1].clone();
        let upstream = scene.site.uplink().upstream().clone();
        let switch = scene.site.lan().switch().clone();
        for noticed in [false, false, true, true] {
            port.down()?;
            assert!(inside.send_to(b"nowhere", scene.one.local_addr()?).is_err());
            upstream.down()?;
            // From the server: what the router is to send would wait for its neighbour, and come later.
            vanishes(&scene.one, &inside, mapping)?;
            if noticed {
                // It looks for carriers at most once a second.
                for (host, name) in [(&switch, "p1"), (scene.site.router(), "eth0")] {
                    until(|| Ok(host.list_interfaces()?.iter().any(|own| own.name == name && own.state != "UP")))?;
                }
            }
            upstream.up()?;
            port.up()?;
            assert_eq!(seen(&inside, &scene.one)?, mapping, "the router remembers");
            assert_eq!(passes(&scene.one, &inside, mapping)?, scene.one.local_addr()?);
        }
        // With the cable pulled out there is nothing to wait for.
        let host = scene.site.hosts()[0].clone();
        scene.site.lan().unplug(&host)?;
        port.down()?;
        port.up()?;
        vanishes(&scene.one, &inside, mapping)?;
        scene.site.lan().plug(&host)?;
        assert_eq!(seen(&inside, &scene.one)?, mapping);
        Ok(())
    });
}

#[test]
fn host_moves_to_another_lan() {
    isolated(|| {
        let lab = Lab::new("move")?;
        let mut internet = Internet::new(&lab)?;
        let server = internet.server("server", None)?;
        let server = socket(server.host(), 1000)?;
        let mut office = internet.site("office", &SitePlan { hosts: 2, ..SitePlan::default() })?;
        // The same private network as at the office.
        let at_home = SitePlan { lan: Some("10.1.0.0/24".to_owned()), hosts: 3, ..SitePlan::default() };
        let mut home = internet.site("home", &at_home)?;
        let (laptop, neighbour) = (&office.hosts()[0].clone(), &office.hosts()[1].clone());
        let inside = everywhere(laptop, 4000)?;
        assert_eq!(seen(&inside, &server)?.ip(), office.uplink().ipv4()?);
        // The first address there is one that the laptop itself keeps.
        let (near, there) = (socket(neighbour, 4000)?, socket(&home.hosts()[2], 4000)?);
        passes(&inside, &near, near.local_addr()?)?;

        laptop.interface("eth0")?.down()?;
        let wireless = home.lan().attach(laptop, &["10.1.0.50/24"])?;
        assert_eq!(wireless.name(), "eth1");
        laptop.default_route(ip("10.1.0.1")?)?;
        assert_eq!(seen(&inside, &server)?.ip(), home.uplink().ipv4()?);
        assert_eq!(passes(&inside, &there, there.local_addr()?)?, (ip("10.1.0.50")?, 4000).into());
        vanishes(&inside, &near, (ip("10.1.0.3")?, 4000).into())?;

        // And back.
        wireless.down()?;
        laptop.interface("eth0")?.up()?;
        assert_eq!(seen(&inside, &server)?.ip(), office.uplink().ipv4()?);
        passes(&inside, &near, near.local_addr()?)?;
        // Unplugged, it has an address and nobody to talk to.
        office.lan().unplug(laptop)?;
        vanishes(&inside, &near, near.local_addr()?)?;
        Ok(())
    });
}

#[test]
fn lan_carries_multicast_and_broadcast() {
    isolated(|| {
        const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
        const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x1234, 0x5678);
        let lab = Lab::new("multicast")?;
        let mut internet = Internet::new(&lab)?;
        let site = internet.site("site", &SitePlan { hosts: 3, ipv6: true, ..SitePlan::default() })?;
        let elsewhere = internet.site("elsewhere", &SitePlan::default())?;
        let [a, b, c] = [0, 1, 2].map(|host| everywhere(&site.hosts()[host], 4000));
        let (a, b, c, outside) = (a?, b?, c?, everywhere(&elsewhere.hosts()[0], 4000)?);
        let from: SocketAddr = (site.hosts()[0].ipv4()?, 4000).into();
        let reaches_all = |receivers: &[&UdpSocket], at: IpAddr| -> Result<()> {
            a.send_to(at.to_string().as_bytes(), (at, 4000))?;
            for receiver in receivers {
                assert_eq!(receive(receiver, COMES)?, Some((at.to_string().into_bytes(), from)), "{receiver:?}");
            }
            Ok(())
        };
        b.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED)?;
        reaches_all(&[&b], GROUP.into())?;
        assert_eq!(receive(&c, STAYS_AWAY)?, None, "it has not joined");
        c.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED)?;
        reaches_all(&[&b, &c], GROUP.into())?;
        a.set_broadcast(true)?;
        for everybody in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 1, 0, 255)] {
            reaches_all(&[&b, &c], everybody.into())?;
        }
        assert_eq!(receive(&outside, STAYS_AWAY)?, None, "a router keeps it on the LAN");

        let bound = |host: usize| -> Result<(UdpSocket, u32)> {
            let host = &site.hosts()[host];
            let index = host.run(|| if_nametoindex("eth0").context("look up eth0"))?;
            Ok((host.udp((Ipv6Addr::UNSPECIFIED, 4006).into())?, index))
        };
        let ((a, a_index), (b, b_index)) = (bound(0)?, bound(1)?);
        b.join_multicast_v6(&GROUP_V6, b_index)?;
        passes(&a, &b, SocketAddrV6::new(GROUP_V6, 4006, 0, a_index).into())?;
        Ok(())
    });
}

#[test]
fn one_path_is_longer_than_another() {
    isolated(|| {
        let lab = Lab::new("paths")?;
        let mut internet = Internet::new(&lab)?;
        let delay = |ms| Some(Emulation { delay: Duration::from_millis(ms), ..Emulation::default() });
        let cloud = internet.server("cloud", delay(40))?;
        let left = internet.site("left", &SitePlan { path: delay(5), hosts: 2, ..SitePlan::default() })?;
        internet.set_name("relay.example", cloud.host().ipv4()?)?;
        let nat = Some(Nat::Symmetric);
        let right = internet.site("right", &SitePlan { path: delay(5), nat, ..SitePlan::default() })?;
        let rtt = |from: &Host, to: IpAddr| -> Result<Duration> {
            // The first one also finds the neighbours on the way.
            from.ping(to, Ping { count: 1, ..Ping::default() })?;
            let mut report = from.ping(to, Ping { count: 4, interval: Duration::from_millis(2), ..Ping::default() })?;
            assert!(report.perfect(), "{report:?}");
            report.rtts.sort();
            Ok(report.rtts[0])
        };
        // Never early, and never so late that it would be another path: a busy machine adds some.
        let within = |ms: Range<u128>, rtt: Duration| ms.contains(&rtt.as_millis());
        let (a, b) = (&left.hosts()[0], &right.hosts()[0]);
        for host in [a, b] {
            let named = host.run(|| Ok(("relay.example", 80).to_socket_addrs()?.collect::<Vec<_>>()))?;
            assert_eq!(named, [(cloud.host().ipv4()?, 80).into()]);
            let far = rtt(host, cloud.host().ipv4()?)?;
            assert!(within(90..180, far), "{far:?}");
        }
        let (direct, near) = (rtt(a, right.uplink().ipv4()?)?, rtt(a, left.hosts()[1].ipv4()?)?);
        assert!(within(20..90, direct) && within(0..20, near), "{direct:?} {near:?}");
        left.uplink().path()?.set(Emulation { delay: Duration::from_millis(30), ..Emulation::default() })?;
        let slower = rtt(a, right.uplink().ipv4()?)?;
        assert!(within(70..140, slower), "{slower:?}");
        Ok(())
    });
}
