//! A question to the router in one datagram, repeated until there is an answer that belongs to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Target;
use super::answer::Refused;
use crate::imp;

/// Where routers listen for PCP and NAT-PMP (RFC 6887 section 19.3).
const SERVER_PORT: u16 = 5351;

/// Where hosts listen for what a router tells all of them: that it was restarted, or has another address outside.
const CLIENT_PORT: u16 = 5350;

/// How long each repetition is waited for.
const WAITS: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1000)];

/// No answer is longer (RFC 6887 section 7).
const ANSWER_BYTES_MAX: usize = 1100;

/// What a reader makes of a datagram from the router.
pub(super) enum Read<T> {
    /// It is the answer.
    Answer(T),
    /// It answers something else.
    Other,
}

/// Asks the router, from our address and by our interface: it maps ports of whoever asks.
///
/// # Errors
/// [`Refused::Silent`] when nothing comes that `read` takes for the answer, or nobody listens there.
pub(super) async fn ask<T>(target: &Target, question: &[u8], read: impl Fn(&[u8]) -> Read<T>) -> Result<T, Refused> {
    exchange(target, question, read).await.map_err(|error| {
        tracing::debug!(router = %target.router, %error, "no answer about a mapping");
        Refused::Silent
    })
}

async fn exchange<T>(target: &Target, question: &[u8], read: impl Fn(&[u8]) -> Read<T>) -> io::Result<T> {
    // Connected: what others send is not ours to read, and nobody listening there is told at once.
    let socket = bound(target.client, 0, target.interface)?;
    socket.connect(&SocketAddr::from((target.router, SERVER_PORT)).into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let answer = async {
        let mut bytes = [0; ANSWER_BYTES_MAX];
        loop {
            let length = socket.recv(&mut bytes).await?;
            if let Read::Answer(answer) = read(&bytes[..length]) {
                return Ok(answer);
            }
        }
    };
    tokio::pin!(answer);
    for wait in WAITS {
        socket.send(question).await?;
        if let Ok(answer) = timeout(wait, &mut answer).await {
            return answer;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Hears what the router tells all hosts; `None` where that cannot be heard: there are other ways to find out.
pub(super) fn announcements(target: &Target) -> Option<UdpSocket> {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        // Other programs listen there too.
        socket.set_reuse_address(true)?;
        if let Some(interface) = target.interface {
            imp::tie(&socket, false, interface)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).into())?;
        // All hosts are in this group without asking; where they are not, they ask.
        socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 1), &target.client)?;
        UdpSocket::from_std(socket.into())
    };
    open().inspect_err(|error: &io::Error| tracing::debug!(%error, "what routers announce is not heard")).ok()
}

/// Waits for the router itself to announce something.
pub(super) async fn announced(socket: Option<&UdpSocket>, router: Ipv4Addr) {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.recv_from(&mut [0; ANSWER_BYTES_MAX]).await {
            Ok((_, SocketAddr::V4(from))) if from == SocketAddrV4::new(router, SERVER_PORT) => return,
            Ok(_) => {}
            // A socket that fails once may fail without end.
            Err(_) => return std::future::pending().await,
        }
    }
}

/// A socket at our address.
fn bound(client: Ipv4Addr, port: u16, interface: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    if let Some(interface) = interface {
        imp::tie(&socket, false, interface)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((client, port)).into())?;
    Ok(socket)
}
