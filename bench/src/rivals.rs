//! Relays as others write them, each as good as its author would make it: what our engines are compared with.
//!
//! Each runs as a program of its own, `bench rival NAME`, so that its processor time is its process's. They know one thing of the
//! wire: bytes 4 to 8 of a datagram, where a destination's slot stands, hold the number of a flow, and its datagrams go to the
//! flow's port. Whatever has no number of a flow there is dropped. No table of clients, no check of who sends: the least work a
//! relay can do, so a comparison favours them.
//!
//! Equal for all: socket buffers as large as our engines ask for, receive buffers of `DATAGRAM_BYTES`, no offloads.

mod epoll;
mod recvfrom;
mod recvmmsg;
mod sys;
mod tokio;
mod tokio_uring;

use std::convert::Infallible;
use std::fmt;
use std::io::{self, Write as _};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};

pub(crate) use sys::pin;

/// Bytes of a receive buffer. The links carry 1,500 at most; a datagram that fills a buffer may have been cut and is dropped.
const DATAGRAM_BYTES: usize = 2_048;
/// Receive buffer of each socket in bytes as the kernel counts them: what our io_uring engine asks for.
pub const SOCKET_RECEIVE_BYTES: usize = 8 << 20;
/// Send buffer of each socket in bytes as the kernel counts them: what our io_uring engine asks for.
pub const SOCKET_SEND_BYTES: usize = 4 << 20;
/// How long ports may be busy that a program before had.
const BUSY: Duration = Duration::from_secs(5);
/// How often a busy port is tried.
const BUSY_LOOK: Duration = Duration::from_millis(10);
/// What a rival prints, alone on a line, when all its ports are bound.
pub const READY: &str = "ready";

/// How a rival receives and sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Rival {
    /// `recvmmsg` and `sendmmsg`, 64 at a time, on one socket.
    Recvmmsg,
    /// `recvfrom` and `sendto`, on one socket.
    Recvfrom,
    /// `epoll` over all sockets, `recvmmsg` and `sendmmsg` on those that are ready.
    Epoll,
    /// A task of tokio for each socket, `recv_from` and `send_to`.
    Tokio,
    /// Tasks of tokio-uring for each socket, `recv_from` and `send_to`.
    TokioUring,
}

impl Rival {
    /// Every rival, in the order to show.
    pub const ALL: [Self; 5] = [Self::Recvmmsg, Self::Recvfrom, Self::Epoll, Self::Tokio, Self::TokioUring];

    /// Its name on the command line and in all tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recvmmsg => "recvmmsg",
            Self::Recvfrom => "recvfrom",
            Self::Epoll => "epoll",
            Self::Tokio => "tokio",
            Self::TokioUring => "tokio-uring",
        }
    }

    /// What it is, in a sentence for the report.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Recvmmsg => "Written here: recvmmsg and sendmmsg of 64 on one blocking socket, no offloads.",
            Self::Recvfrom => "Written here: recvfrom and sendto on one blocking socket.",
            Self::Epoll => {
                "Written here: epoll over all sockets, recvmmsg and sendmmsg of 64 on the ready ones, no offloads."
            }
            Self::Tokio => "Written here: a tokio task for each socket that awaits recv_from and send_to.",
            Self::TokioUring => {
                "Written here: tokio-uring tasks, several for each socket, that await recv_from and send_to."
            }
        }
    }

    /// Whether it listens on more than one port.
    pub const fn many_ports(self) -> bool {
        match self {
            // A thread for each of a thousand ports is what nobody would run.
            Self::Recvmmsg | Self::Recvfrom => false,
            Self::Epoll | Self::Tokio | Self::TokioUring => true,
        }
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The command line of a rival.
#[derive(Clone, Debug, Args)]
pub struct RivalOptions {
    /// Which one.
    pub rival: Rival,
    /// The first address it listens on.
    #[arg(long)]
    pub listen: SocketAddrV4,
    /// How many ports it listens on, from the first on.
    #[arg(long, default_value_t = 1)]
    pub ports: u16,
    /// Where the datagrams of flow 0 go. Those of flow 1 go to the next port, and so on.
    #[arg(long)]
    pub to: SocketAddrV4,
    /// How many flows there are.
    #[arg(long, default_value_t = 1)]
    pub flows: u16,
}

/// Runs a rival until it is killed: it returns with an error only. Prints [`READY`] when its ports are bound.
///
/// # Errors
/// The options make no sense, a port is taken, or a socket fails.
pub fn run(options: &RivalOptions) -> Result<()> {
    let Err(error) = run_for_good(options);
    Err(error)
}

fn run_for_good(options: &RivalOptions) -> Result<Infallible> {
    let RivalOptions { rival, listen, ports, to, flows } = options;
    ensure!(*ports == 1 || rival.many_ports(), "{rival} has one port, not {ports}");
    let listen = range(*listen, *ports).context("--listen and --ports")?;
    let routes = Routes(range(*to, *flows).context("--to and --flows")?.into());
    let sockets = bind(&listen)?;
    match rival {
        Rival::Recvmmsg => recvmmsg::run(&one(sockets), &routes),
        Rival::Recvfrom => recvfrom::run(&one(sockets), &routes),
        Rival::Epoll => epoll::run(&sockets, &routes),
        Rival::Tokio => tokio::run(sockets, routes),
        Rival::TokioUring => tokio_uring::run(sockets, routes),
    }
}

/// The socket of a rival that has one.
fn one(mut sockets: Vec<UdpSocket>) -> UdpSocket {
    sockets.pop().expect("one port was asked for")
}

/// `count` addresses, each a port after the one before.
fn range(first: SocketAddrV4, count: u16) -> Result<Vec<SocketAddrV4>> {
    ensure!(count > 0, "there must be at least one");
    let last = first.port().checked_add(count - 1);
    let last = last.with_context(|| format!("{count} ports from {} on are more than there are", first.port()))?;
    Ok((first.port()..=last).map(|port| SocketAddrV4::new(*first.ip(), port)).collect())
}

/// Where each flow goes.
#[derive(Clone, Debug)]
struct Routes(Box<[SocketAddrV4]>);

impl Routes {
    /// Where a datagram goes; `None` if it is too short to tell, may have been cut, or names no flow.
    fn of(&self, datagram: &[u8]) -> Option<SocketAddr> {
        if datagram.len() >= DATAGRAM_BYTES {
            return None;
        }
        Some(self.0[flow(datagram, self.0.len())?].into())
    }
}

/// The number of the flow that a datagram names, below `flows`.
fn flow(datagram: &[u8], flows: usize) -> Option<usize> {
    let number = datagram.get(4..8)?.try_into().map(u32::from_be_bytes).ok()?;
    usize::try_from(number).ok().filter(|number| *number < flows)
}

/// Binds the ports.
fn bind(listen: &[SocketAddrV4]) -> Result<Vec<UdpSocket>> {
    allow_files(listen.len() as u64 + 64)?;
    let deadline = Instant::now() + BUSY;
    let socket = |address: &SocketAddrV4| -> Result<UdpSocket> {
        let socket = bind_one(*address, deadline).with_context(|| format!("bind UDP {address}"))?;
        size_buffers(&socket).context("size the buffers of a socket")?;
        Ok(socket)
    };
    listen.iter().map(socket).collect()
}

/// Binds a port; one that is busy is tried again until the deadline. The kernel takes the ring of a program that was killed down
/// a moment after the program's end, and its sockets with it.
#[expect(clippy::disallowed_methods, reason = "a poll: nobody tells when a port becomes free")]
fn bind_one(address: SocketAddrV4, deadline: Instant) -> io::Result<UdpSocket> {
    loop {
        match UdpSocket::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(BUSY_LOOK);
            }
            bound => return bound,
        }
    }
}

/// Enlarges the buffers of a socket, past the system's limit where permitted.
fn size_buffers(socket: &UdpSocket) -> nix::Result<()> {
    // The kernel doubles what is asked, to account for its bookkeeping.
    let (receive, send) = (SOCKET_RECEIVE_BYTES / 2, SOCKET_SEND_BYTES / 2);
    setsockopt(socket, sockopt::RcvBufForce, &receive).or_else(|_| setsockopt(socket, sockopt::RcvBuf, &receive))?;
    setsockopt(socket, sockopt::SndBufForce, &send).or_else(|_| setsockopt(socket, sockopt::SndBuf, &send))
}

/// Raises the limit of open files to `wanted`, if it is lower.
pub(crate) fn allow_files(wanted: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .with_context(|| format!("raise the limit of open files from {soft} to {wanted} (ulimit -n)"))?;
    }
    Ok(())
}

/// Says that all ports are bound.
fn ready() -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}").and_then(|()| out.flush()).context("say that it is ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_goes_to_the_port_of_the_flow_it_names() {
        let routes = Routes(range("10.2.0.2:5000".parse().unwrap(), 3).unwrap().into());
        let datagram = |number: u32| [&[9; 4][..], &number.to_be_bytes(), &[7; 20]].concat();
        assert_eq!(routes.of(&datagram(0)), Some("10.2.0.2:5000".parse().unwrap()));
        assert_eq!(routes.of(&datagram(2)), Some("10.2.0.2:5002".parse().unwrap()));
        assert_eq!(routes.of(&datagram(3)), None);
        assert_eq!(routes.of(&datagram(u32::MAX)), None);
        assert_eq!(routes.of(&datagram(1)[..8]), Some("10.2.0.2:5001".parse().unwrap()));
        assert_eq!(routes.of(&datagram(1)[..7]), None);
        assert_eq!(routes.of(&[]), None);
        assert_eq!(routes.of(&[0; DATAGRAM_BYTES]), None, "it may have been cut");
    }

    #[test]
    fn a_range_of_ports_ends_with_the_last_there_is() {
        let first: SocketAddrV4 = "10.1.0.2:65530".parse().unwrap();
        assert_eq!(range(first, 6).unwrap().last().unwrap().port(), 65_535);
        assert!(range(first, 7).is_err());
        assert!(range(first, 0).is_err());
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for rival in Rival::ALL {
            assert_eq!(rival.to_possible_value().unwrap().get_name(), rival.name());
        }
        assert_eq!(Rival::ALL.len(), Rival::value_variants().len());
    }

    #[test]
    fn buffers_are_as_large_as_those_of_the_io_uring_engine() {
        let engine = mesh_uring::Config::default();
        assert_eq!(SOCKET_RECEIVE_BYTES, engine.socket_receive_bytes as usize);
        assert_eq!(SOCKET_SEND_BYTES, engine.socket_send_bytes as usize);
    }
}
