//! Hosts, links, switches and routers carry packets as real ones do.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mesh_lab::{Errno, Lab, Ping, PingFailure, isolated, tcp_copy};

const QUICK: Ping =
    Ping { count: 1, interval: Duration::ZERO, timeout: Duration::from_millis(300), size: 56, dont_fragment: false };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn two_hosts_reach_each_other_over_a_link() {
    isolated(|| {
        let lab = Lab::new("two")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        lab.link(&a, &b, &["10.1.0.0/24", "fd01::/64"])?;
        assert_eq!((a.ipv4()?, b.ipv4()?), (ip("10.1.0.1"), ip("10.1.0.2")));
        for (from, to) in [(&a, b.ipv4()?), (&b, a.ipv4()?), (&a, b.ipv6()?), (&b, a.ipv6()?), (&a, a.ipv4()?)] {
            let report = from.ping(to, Ping { count: 5, interval: Duration::from_millis(5), ..Ping::default() })?;
            assert!(report.perfect() && report.received == 5 && report.rtts.len() == 5, "{to}: {report:?}");
        }
        // An address nobody has, on the link and off it.
        let silent = a.ping(ip("10.1.0.77"), QUICK)?;
        assert_eq!((silent.sent, silent.received), (1, 0));
        let nowhere = a.ping(ip("10.99.0.1"), QUICK)?;
        assert_eq!(nowhere.failures, [(0, PingFailure::NotSent(Errno::ENETUNREACH))]);
        Ok(())
    });
}

#[test]
fn hosts_of_a_lan_reach_each_other_until_unplugged() {
    isolated(|| {
        let lab = Lab::new("lan")?;
        let (a, b, c) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let lan = lab.lan(&[&a, &b, &c], &["10.1.0.0/24", "fd01::/64"])?;
        for from in [&a, &b, &c] {
            for to in [&a, &b, &c] {
                for address in [to.ipv4()?, to.ipv6()?] {
                    let report = from.ping(address, QUICK)?;
                    assert!(report.perfect(), "{from:?} to {address}: {report:?}");
                }
            }
        }
        lan.unplug(&b)?;
        assert_eq!(a.ping(b.ipv4()?, QUICK)?.received, 0);
        assert!(a.ping(c.ipv4()?, QUICK)?.perfect(), "the others stay connected");
        lan.plug(&b)?;
        assert!(a.ping(b.ipv4()?, QUICK)?.perfect(), "the cable is back");
        assert!(b.ping(c.ipv6()?, QUICK)?.perfect(), "the cable is back, by IPv6");
        Ok(())
    });
}

#[test]
fn interface_that_is_removed_comes_back_as_another_of_the_same_name() {
    isolated(|| {
        let lab = Lab::new("remove")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let lan = lab.lan(&[&a, &b], &["10.1.0.0/24", "fd01::/64"])?;
        let index = || a.run(|| Ok(nix::net::if_::if_nametoindex("eth0").ok()));
        let before = index()?;
        lan.remove(&a)?;
        assert_eq!(index()?, None);
        assert!(lan.remove(&a).is_err(), "it is away");
        lan.restore(&a)?;
        let after = index()?;
        assert!(after.is_some() && after != before, "{before:?} and {after:?}");
        for address in [b.ipv4()?, b.ipv6()?] {
            assert!(a.ping(address, QUICK)?.perfect(), "{address}");
        }
        Ok(())
    });
}

#[test]
fn router_forwards_and_a_host_does_not() {
    isolated(|| {
        for (forwards, name) in [(true, "router"), (false, "host")] {
            let lab = Lab::new(name)?;
            let (a, b) = (lab.host("a")?, lab.host("b")?);
            let middle = if forwards { lab.router("r")? } else { lab.host("r")? };
            let left = lab.link(&a, &middle, &["10.1.0.0/24", "fd01::/64"])?;
            let right = lab.link(&b, &middle, &["10.2.0.0/24", "fd02::/64"])?;
            for (host, link) in [(&a, &left), (&b, &right)] {
                for net in link.b().addresses() {
                    host.default_route(net.address())?;
                }
            }
            for to in [b.ipv4()?, b.ipv6()?] {
                assert_eq!(a.ping(to, QUICK)?.perfect(), forwards, "{name} to {to}");
            }
        }
        Ok(())
    });
}

#[test]
fn routes_and_addresses_survive_a_link_that_goes_down() {
    isolated(|| {
        let lab = Lab::new("down")?;
        let (a, r, b) = (lab.host("a")?, lab.router("r")?, lab.host("b")?);
        let left = lab.link(&a, &r, &["10.1.0.0/24", "fd01::/64"])?;
        let right = lab.link(&b, &r, &["10.2.0.0/24", "fd02::/64"])?;
        for (host, link) in [(&a, &left), (&b, &right)] {
            for net in link.b().addresses() {
                host.default_route(net.address())?;
            }
        }
        assert!(a.ping(b.ipv4()?, QUICK)?.perfect());
        left.down()?;
        assert_eq!(a.ping(b.ipv4()?, QUICK)?.failures, [(0, PingFailure::NotSent(Errno::ENETUNREACH))]);
        assert_eq!(b.ping(a.ipv4()?, QUICK)?.received, 0);
        left.up()?;
        assert!(a.ping(b.ipv4()?, QUICK)?.perfect());
        assert!(b.ping(a.ipv6()?, QUICK)?.perfect());
        Ok(())
    });
}

#[test]
fn mtu_limits_the_packets_of_a_path() {
    isolated(|| {
        let lab = Lab::new("mtu")?;
        let (a, r, b) = (lab.host("a")?, lab.router("r")?, lab.host("b")?);
        let left = lab.link(&a, &r, &["10.1.0.0/24", "fd01::/64"])?;
        let right = lab.link(&r, &b, &["10.2.0.0/24", "fd02::/64"])?;
        right.set_mtu(1300)?;
        for net in left.b().addresses() {
            a.default_route(net.address())?;
        }
        for net in right.a().addresses() {
            b.default_route(net.address())?;
        }
        // Payload + 8 of ICMP + 20 of IPv4 or 40 of IPv6.
        for (to, headers, from, kind, code) in [(b.ipv4()?, 28, "10.1.0.2", 3, 4), (b.ipv6()?, 48, "fd01::2", 2, 0)] {
            let whole = |size| Ping { size, dont_fragment: true, ..QUICK };
            assert!(a.ping(to, whole(1300 - headers))?.perfect(), "{to}: a packet of the MTU");
            let refused = PingFailure::Refused { from: ip(from), kind, code, mtu: Some(1300) };
            assert_eq!(a.ping(to, whole(1301 - headers))?.failures, [(0, refused)], "{to}: one byte more");
            let unsent = [(0, PingFailure::NotSent(Errno::EMSGSIZE))];
            assert_eq!(a.ping(to, whole(1501 - headers))?.failures, unsent, "{to}: more than the own link");
            assert!(a.ping(to, Ping { size: 4000, ..QUICK })?.perfect(), "{to}: in fragments");
        }
        Ok(())
    });
}

#[test]
fn copy_arrives_intact_and_tells_its_rate() {
    isolated(|| {
        let lab = Lab::new("copy")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        lab.link(&a, &b, &["10.1.0.0/24"])?;
        let report = tcp_copy(&a, &b, b.ipv4()?, 20_000_003, 1)?;
        assert_eq!(report.bytes, 20_000_003);
        assert!(report.bits_per_second() > 1e6, "{report}");
        eprintln!("{report}");
        Ok(())
    });
}

#[test]
fn sockets_belong_to_their_host() {
    isolated(|| {
        let lab = Lab::new("udp")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        lab.link(&a, &b, &["10.1.0.0/24"])?;
        let server = b.udp((b.ipv4()?, 8000).into())?;
        // The same port on the other host is free, its address is not there.
        let client = a.udp((a.ipv4()?, 8000).into())?;
        assert!(a.udp((b.ipv4()?, 8001).into()).is_err());
        client.send_to(b"hello", server.local_addr()?)?;
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut buffer = [0; 100];
        let (length, from) = server.recv_from(&mut buffer)?;
        assert_eq!((&buffer[..length], from), (&b"hello"[..], client.local_addr()?));
        Ok(())
    });
}

#[test]
fn interfaces_are_listed_as_ip_addr_does() {
    isolated(|| {
        let lab = Lab::new("listing")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let link = lab.link(&a, &b, &["10.1.0.0/24", "fd01::/64"])?;
        link.set_mtu(1400)?;
        let list = a.list_interfaces()?;
        let names: Vec<_> = list.iter().map(|interface| interface.name.as_str()).collect();
        assert_eq!(names, ["lo", "eth0"]);
        let text = list[1].to_string();
        for part in ["eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400 qdisc ", "state UP", "link/ether "] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(text.contains("\n    inet 10.1.0.1/24 scope global eth0"), "{text}");
        assert!(text.contains("\n    inet6 fd01::1/64 scope global"), "{text}");
        eprintln!("{}\n{text}", list[0]);
        Ok(())
    });
}

#[test]
fn forty_hosts_on_a_switch_come_up_quickly() {
    isolated(|| {
        let start = Instant::now();
        let lab = Lab::new("forty")?;
        let hosts: Vec<_> = (1..=40).map(|number| lab.host(&format!("h{number}"))).collect::<Result<_, _>>()?;
        lab.lan(&hosts.iter().collect::<Vec<_>>(), &["10.1.0.0/24", "fd01::/64"])?;
        let built = start.elapsed();
        let (first, last) = (&hosts[0], &hosts[39]);
        for (from, to) in [(first, last.ipv4()?), (last, first.ipv6()?)] {
            let report = from.ping(to, Ping::default())?;
            assert!(report.perfect(), "{to}: {report:?}");
        }
        eprintln!("40 hosts in {built:?}");
        // Some 20 times the usual: a guard against a wait, not a measurement.
        assert!(built < Duration::from_secs(30), "{built:?}");
        Ok(())
    });
}
