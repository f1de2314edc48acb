//! The transfer's side: TCP on the number of every namespace's port, and a bridge for each connection.
//!
//! Whoever connects is a stranger. So connections are bounded, in all and for each address; what earns no answer from
//! the relay within ten seconds is closed, and what is idle after a minute. A port that something else holds is tried
//! again each second, as UDP ports are, and costs nothing but the fallback.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::pipe::{Patience, Pipe, RECEIVE_BYTES, Scratch, scratch};
use super::source::{Addresses, Source, source};
use super::{Counts, Present, StreamReport, prepare};
use crate::clock;
use crate::log::{LineBudget, announce_warning};
use crate::ports::{Busy, WARN_AFTER};

/// Connections at one time. One address may have as many as it leaves places, as with handshakes: a crowd behind one
/// NAT gets half of them, and nobody keeps the others out.
pub const CONNECTIONS_MAX: usize = 1024;
/// Descriptors of a connection: its own, and that of its socket towards the relay.
pub const FILES_EACH: usize = 2;

/// For how long a connection stays that nobody needs. A gateway gives a sign of life every 20 s.
const PATIENCE: Patience = Patience { unanswered: Duration::from_secs(10), idle: Duration::from_secs(60) };
/// Connections that wait to be taken, for each port.
const BACKLOG: i32 = 128;
/// How long a port rests when the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What the transfer says of TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListenReport {
    /// How many ports are listened on.
    pub ports_bound: usize,
    /// Ports that something else holds, as ranges: `8003`, `8010-8012`.
    pub ports_busy: Vec<String>,
    /// What their bridges did.
    #[serde(flatten)]
    pub streams: StreamReport,
}

/// Whose connection is behind a loopback address.
type Clients = Arc<Mutex<BTreeMap<SocketAddr, SocketAddr>>>;

/// What other threads may see of the thread that listens.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    counts: Arc<Counts>,
    clients: Clients,
    /// How many ports are listened on, and which are not.
    ports: Arc<Mutex<(usize, Vec<String>)>>,
}

impl Shown {
    /// What there is to say now.
    pub fn report(&self) -> ListenReport {
        let (ports_bound, ports_busy) = self.ports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ListenReport { ports_bound, ports_busy, streams: self.counts.report() }
    }

    /// The address of the gateway that the relay sees at `endpoint`, if it came by TCP.
    pub fn client(&self, endpoint: SocketAddr) -> Option<SocketAddr> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&endpoint).copied()
    }
}

/// The thread that listens.
#[derive(Debug)]
pub struct Listening {
    ports: UnboundedSender<Vec<u16>>,
    thread: JoinHandle<()>,
    shown: Shown,
}

impl Listening {
    /// Starts the thread, which takes as many as `connections_max` connections at one time.
    ///
    /// # Errors
    /// The system gives no thread, or nothing to wait with.
    pub fn start(connections_max: usize) -> io::Result<Self> {
        Self::start_with(connections_max, PATIENCE)
    }

    pub(super) fn start_with(connections_max: usize, patience: Patience) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (ports, orders) = unbounded_channel();
        let shown = Shown::default();
        let seen = shown.clone();
        let thread = thread::Builder::new().name("mesh-stream".into()).spawn(move || {
            let server = Server {
                shown: seen,
                patience,
                addresses: Addresses::default(),
                places: RefCell::new(Places { max: connections_max, ..Places::default() }),
                scratch: scratch(),
                lines: RefCell::default(),
            };
            LocalSet::new().block_on(&runtime, serve(Rc::new(server), orders));
        })?;
        Ok(Self { ports, thread, shown })
    }

    /// Listens on these ports, whose UDP sockets are bound and served.
    pub fn open(&self, ports: Vec<u16>) {
        // The thread ends when it is told to, and not before.
        let _ = self.ports.send(ports);
    }

    /// What other threads may see.
    pub fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// Closes all ports and connections.
    pub fn end(self) {
        drop(self.ports);
        if self.thread.join().is_err() {
            tracing::error!("the thread for TCP panicked");
        }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Server {
    shown: Shown,
    patience: Patience,
    addresses: Addresses,
    places: RefCell<Places>,
    scratch: Scratch,
    lines: RefCell<LineBudget>,
}

/// Opens ports as they are ordered, until there is nobody to order more.
async fn serve(server: Rc<Server>, mut orders: UnboundedReceiver<Vec<u16>>) {
    let (mut wanted, mut bound, mut warned) = (Busy::default(), 0, false);
    let started = Instant::now();
    loop {
        let retry = wanted.retry_in(started.elapsed());
        tokio::select! {
            order = orders.recv() => match order {
                Some(ports) => ports.into_iter().for_each(|port| wanted.put_back(port)),
                None => return,
            },
            () = sleep(retry.unwrap_or_default()), if retry.is_some() => {}
        }
        let (opened, refused) = wanted.bind_with(listen);
        for (port, listener) in opened {
            bound += 1;
            spawn_local(accept(Rc::clone(&server), port, listener));
            if warned {
                tracing::info!(port, "a TCP port that was busy is bound");
            }
        }
        let busy = wanted.ranges();
        *server.shown.ports.lock().unwrap_or_else(PoisonError::into_inner) = (bound, busy.clone());
        if !warned && !wanted.is_empty() && started.elapsed() >= WARN_AFTER {
            warned = true;
            let why = refused.map_or_else(|| "in use by others".to_owned(), |error| error.to_string());
            announce_warning(format_args!(
                "TCP ports are skipped and tried again each second ({why}): {}; gateways without UDP do not reach these networks",
                busy.join(", ")
            ));
        }
    }
}

/// Listens on a port for both families, or for IPv4 alone where IPv6 is switched off.
fn listen(port: u16) -> io::Result<TcpListener> {
    let open = |domain, address: SocketAddr| {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        // Elsewhere it means that connections of a predecessor are no hindrance; Windows would share the port with
        // anyone.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    match open(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
            open(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        other => other,
    }
}

/// Takes the connections of one port.
async fn accept(server: Rc<Server>, port: u16, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((tcp, client)) => server.take(port, tcp, client),
            // Who connected has gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                server.say(|| tracing::warn!(port, %error, "no connection can be taken: tried again in a second"));
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Server {
    /// A line that strangers can cause.
    fn say(&self, line: impl FnOnce()) {
        self.lines.borrow_mut().spend(clock::now(), line);
    }

    fn take(self: &Rc<Self>, port: u16, tcp: TcpStream, client: SocketAddr) {
        let source = source(client.ip());
        if !self.places.borrow_mut().take(source) {
            Counts::add(&self.shown.counts.refused, 1);
            // Closed so that nothing of it stays.
            let _ = tcp.set_zero_linger();
            return;
        }
        let place = Place { server: Rc::clone(self), source };
        spawn_local(async move { place.server.bridge(port, tcp, client, &place.source).await });
    }

    /// One connection, from its begin to its end.
    async fn bridge(&self, port: u16, tcp: TcpStream, client: SocketAddr, source: &Source) {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let opened = self.towards_relay(port, source).and_then(|udp| Ok((udp.local_addr()?, udp)));
        let (endpoint, udp) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                return self.say(|| tracing::warn!(port, %client, %error, "a TCP connection has no way to the relay"));
            }
        };
        let _present = Present::new(&self.shown.counts);
        let _named = Named::new(&self.shown.clients, endpoint, client);
        prepare(&SockRef::from(&tcp));
        let mut pipe = Pipe::new(tcp, &udp, &self.shown.counts, &self.scratch, Some(self.patience));
        let told = || self.say(|| tracing::info!(port, %client, %endpoint, "a gateway came by TCP"));
        let ended = pipe.carry(told).await;
        self.shown.counts.note(&ended);
        if pipe.is_answered() {
            self.say(|| tracing::info!(port, %client, why = %ended, "a TCP connection ended"));
        }
    }

    /// A socket that the relay tells from those of other sources.
    fn towards_relay(&self, port: u16, source: &Source) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        // Less will do.
        let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
        socket.bind(&SocketAddr::from((self.addresses.of(source), 0)).into())?;
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        UdpSocket::from_std(socket.into())
    }
}

/// The connections there are, by source.
#[derive(Debug, Default)]
struct Places {
    max: usize,
    taken: usize,
    by_source: BTreeMap<Source, usize>,
}

impl Places {
    /// Whether there was one for this source.
    fn take(&mut self, source: Source) -> bool {
        let of_source = self.by_source.get(&source).copied().unwrap_or(0);
        if of_source >= self.max - self.taken {
            return false;
        }
        self.taken += 1;
        *self.by_source.entry(source).or_default() += 1;
        true
    }

    fn give_back(&mut self, source: &Source) {
        self.taken -= 1;
        if let Some(count) = self.by_source.get_mut(source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(source);
            }
        }
    }
}

/// A connection's place, given back with it.
struct Place {
    server: Rc<Server>,
    source: Source,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.places.borrow_mut().give_back(&self.source);
    }
}

/// A loopback address that stands for a client.
struct Named<'a> {
    clients: &'a Clients,
    endpoint: SocketAddr,
}

impl<'a> Named<'a> {
    fn new(clients: &'a Clients, endpoint: SocketAddr, client: SocketAddr) -> Self {
        clients.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint, client);
        Self { clients, endpoint }
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_half_of_the_places_and_others_the_rest() {
        let mut places = Places { max: 1024, ..Places::default() };
        let [one, other] = [[1; 16], [2; 16]];
        let taken = (0..2000).filter(|_| places.take(one)).count();
        assert_eq!(taken, 512);
        assert_eq!((0..2000).filter(|_| places.take(other)).count(), 256);
        assert!(places.take([3; 16]));
        for _ in 0..512 {
            places.give_back(&one);
        }
        assert!(!places.by_source.contains_key(&one), "nothing is remembered of who is gone");
        assert!(places.take(one) && places.taken == 258);
        let mut none = Places::default();
        assert!(!none.take(one));
    }
}
