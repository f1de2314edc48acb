//! Routers translate and filter as the routers of the world do, and rules drop what they say.
#![cfg(target_os = "linux")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, bail};
use mesh_lab::{Host, Internet, Lab, Nat, SitePlan, isolated};

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

#[test]
fn port_restricted_nat_keeps_the_port_and_lets_answers_in_only() {
    isolated(|| {
        let lab = Lab::new("restricted")?;
        let mut internet = Internet::new(&lab)?;
        let (one, two) = (internet.server("one", None)?, internet.server("two", None)?);
        let site = internet.site("site", &SitePlan::default())?;
        let (inside, one, two) = (socket(&site.hosts()[0], 4000)?, socket(one.host(), 1)?, socket(two.host(), 1)?);
        let public: SocketAddr = (site.uplink().ipv4()?, 4000).into();
        // A probe before the mapping is there, which must not spoil it.
        vanishes(&two, &inside, public)?;
        assert_eq!(passes(&inside, &one, one.local_addr()?)?, public);
        vanishes(&two, &inside, public)?;
        assert_eq!(passes(&inside, &two, two.local_addr()?)?, public, "one mapping for all destinations");
        assert_eq!(passes(&two, &inside, public)?, two.local_addr()?);
        assert_eq!(passes(&one, &inside, public)?, one.local_addr()?);
        Ok(())
    });
}

#[test]
fn symmetric_nat_has_a_port_for_each_destination() {
    isolated(|| {
        let lab = Lab::new("symmetric")?;
        let mut internet = Internet::new(&lab)?;
        let (one, two) = (internet.server("one", None)?, internet.server("two", None)?);
        let site = internet.site("site", &SitePlan { nat: Some(Nat::Symmetric), ..SitePlan::default() })?;
        let (inside, one, two) = (socket(&site.hosts()[0], 4000)?, socket(one.host(), 1)?, socket(two.host(), 1)?);
        let seen = [passes(&inside, &one, one.local_addr()?)?, passes(&inside, &two, two.local_addr()?)?];
        let public: IpAddr = site.uplink().ipv4()?;
        assert_eq!(seen.map(|seen| seen.ip()), [public; 2]);
        assert!(seen[0].port() != seen[1].port() && !seen.iter().any(|seen| seen.port() == 4000), "{seen:?}");
        assert_eq!(passes(&inside, &one, one.local_addr()?)?, seen[0], "it stays");
        vanishes(&two, &inside, seen[0])?;
        assert_eq!(passes(&two, &inside, seen[1])?, two.local_addr()?);
        Ok(())
    });
}
