//! Routers translate and filter as the routers of the world do, rules drop what they say, and hosts move, with plain
//! sockets of UDP.
#![cfg(target_os = "linux")]

mod hosts;
mod rules;
mod translation;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, bail};
use mesh_lab::{Host, Internet, Lab, Nat, Site, SitePlan};

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
