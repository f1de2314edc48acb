//! Many clients in one thread: gateways without a virtual interface, over few or many sockets.
//!
//! Drive it like this:
//! 1. [`Fleet::add_socket`] and [`Fleet::add_client`]; one socket serves any number of clients, each with another port of the transfer;
//! 2. [`Fleet::enrol`] registers all that are not;
//! 3. [`Fleet::tend`] from time to time keeps them registered;
//! 4. dropping it has all of them say goodbye.
//!
//! Nothing happens in between: no thread works for it. An idle gateway shows a sign of life every 20 s, and a transfer keeps a silent
//! one for 120 s ([`mesh_core::transfer::LEASE`]). Tended every 5 s, clients speak every 20 to 25 s; whoever tends less often than once
//! a minute may lose them.
//!
//! A client is a [`Gateway`] and some words: about [`CLIENT_BYTES`], measured as resident memory of 2,000 of them with what their
//! handshakes leave in the heap. So 100,000 take 1.3 GB.
//!
//! How fast clients can be registered is up to the transfer, too: it remembers each handshake for 5 s, and has room for 1,024 in a
//! namespace and 4,096 in all. What it has no room for is asked again after a second.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mesh_core::gateway::{Event, Gateway, GatewayConfig, OuterSize, PathChoice, Sockets};
use mesh_core::node::Node as _;
use mesh_core::seam::{Action, Arrival, Endpoint, Moment, Offloads, Origin, Slab, SocketId};
use mesh_core::session::cipher::Ciphers;
use mesh_core::session::handshake::StaticKey;
use mesh_core::session::token::{NamespaceKeys, StretchedToken};
use mesh_wire::CONTROL_BYTES_MAX;
use mesh_wire::frame::FrameType;
use mesh_wire::route::Slot;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt::UdpGroSegment;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};
use nix::time::{ClockId, clock_gettime};

/// Handshakes under way at once: enough to keep the transfer busy, and few enough that none waits until it is given up.
const IN_FLIGHT_MAX: usize = 64;
/// Registrations may make no progress for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long [`Fleet::tend`] waits for answers. A relay that comes out of overload answers late, or the second question only.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Datagrams read from one socket before the others have their turn.
const READS_EACH: usize = 256;
/// Sockets that one call tells of.
const EVENTS_EACH: usize = 256;
/// The longest sleep in one turn.
const TURN_MAX: Duration = Duration::from_millis(100);

/// Memory of one registered client, in bytes, roughly.
pub const CLIENT_BYTES: usize = 13 * 1024;

/// Virtual addresses are given out from here on; the network is 10.0.0.0/8.
const FIRST_ADDRESS: u32 = 0x0a00_0001;
const PREFIX: u8 = 8;
/// Clients of a fleet, at most: as many as the network has addresses for.
pub const CLIENTS_MAX: usize = 1 << 23;

/// A client of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u32);

/// A socket of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FleetSocket(u16);

/// Clients of transfers. See the [module](self).
#[derive(Debug)]
pub struct Fleet {
    token: StretchedToken,
    keys: BTreeMap<u16, NamespaceKeys>,
    epoll: Epoll,
    sockets: Vec<UdpSocket>,
    clients: Vec<Client>,
    /// Which client of a socket hears from which transfer.
    places: HashMap<(FleetSocket, SocketAddrV4), u32>,
    /// When clients are to be looked at. An entry that does not fit its client's `wakes_at` is stale.
    timers: BinaryHeap<Reverse<(Moment, u32)>>,
    /// The next client to be started.
    started: usize,
    registered: usize,
    /// Clients that asked something.
    waiting: usize,
    /// What went wrong for good with one of them.
    trouble: Option<String>,
    slab: Vec<u8>,
    datagram: Vec<u8>,
}

#[derive(Debug)]
struct Client {
    socket: FleetSocket,
    transfer: SocketAddrV4,
    /// From its start on.
    gateway: Option<Box<Gateway>>,
    slot: Option<Slot>,
    wakes_at: Option<Moment>,
    /// Whether it spoke last.
    waits: bool,
}

/// Why a client has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Time,
    Datagram,
}

impl Fleet {
    /// A fleet without clients, whose transfers have this token.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub fn new(token: &StretchedToken) -> Result<Self> {
        Ok(Self {
            token: token.clone(),
            keys: BTreeMap::new(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll")?,
            sockets: Vec::new(),
            clients: Vec::new(),
            places: HashMap::new(),
            timers: BinaryHeap::new(),
            started: 0,
            registered: 0,
            waiting: 0,
            trouble: None,
            slab: vec![0; Slab::ROOM_BYTES],
            datagram: vec![0; 65_536],
        })
    }

    /// Adds a bound socket.
    ///
    /// # Errors
    /// There are 65,535 already, or it cannot be watched.
    pub fn add_socket(&mut self, socket: UdpSocket) -> Result<FleetSocket> {
        let number = u16::try_from(self.sockets.len()).context("a fleet has at most 65,536 sockets")?;
        socket.set_nonblocking(true).context("set up a socket")?;
        // As gateways have it: where links gather what arrives, the kernel does so for sockets that ask for trains.
        setsockopt(&socket, UdpGroSegment, &true).context("set UDP_GRO")?;
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number.into())).context("watch a socket")?;
        self.sockets.push(socket);
        Ok(FleetSocket(number))
    }

    /// Adds a client of the transfer at this address and port, which speaks by this socket. [`Fleet::enrol`] registers it.
    ///
    /// # Errors
    /// The socket has a client of that transfer and port already, or there are [`CLIENTS_MAX`].
    pub fn add_client(&mut self, socket: FleetSocket, transfer: SocketAddrV4) -> Result<ClientId> {
        ensure!(self.clients.len() < CLIENTS_MAX, "a fleet has at most {CLIENTS_MAX} clients");
        let number = u32::try_from(self.clients.len()).expect("below 2^23");
        let taken = self.places.insert((socket, transfer), number);
        ensure!(taken.is_none(), "the socket has a client of {transfer} already");
        self.clients.push(Client { socket, transfer, gateway: None, slot: None, wakes_at: None, waits: false });
        Ok(ClientId(number))
    }

    /// How many clients are registered.
    pub fn registered(&self) -> usize {
        self.registered
    }

    /// A client's place in its transfer's table.
    ///
    /// # Errors
    /// It is not registered.
    pub fn slot(&self, client: ClientId) -> Result<Slot> {
        let client = usize::try_from(client.0).ok().and_then(|number| self.clients.get(number));
        client.and_then(|client| client.slot).context("the client is not registered")
    }

    /// Registers all clients that are not, and returns when they are.
    ///
    /// # Errors
    /// The transfer refuses one, or answers none for 10 s.
    pub fn enrol(&mut self) -> Result<()> {
        let (mut progress, mut progress_at) = (self.registered, now());
        while self.registered < self.clients.len() {
            while self.started < self.clients.len() && self.started - self.registered < IN_FLIGHT_MAX {
                self.start_next()?;
            }
            self.turn(TURN_MAX)?;
            self.check()?;
            if self.registered > progress {
                (progress, progress_at) = (self.registered, now());
            }
            if now().since(progress_at) > PATIENCE {
                let (registered, all) = (self.registered, self.clients.len());
                bail!("the transfer registered {registered} of {all} clients and then none for {PATIENCE:?}");
            }
        }
        self.settle()
    }

    /// Keeps the registrations alive: throws away what has gathered in the sockets, says what is due, and waits for the answers.
    ///
    /// # Errors
    /// A client lost its registration or was given another slot, or the transfer does not answer for 5 s.
    pub fn tend(&mut self) -> Result<()> {
        self.turn(Duration::ZERO)?;
        self.settle()
    }

    /// Waits until no client waits for an answer.
    fn settle(&mut self) -> Result<()> {
        let begun = now();
        loop {
            self.check()?;
            if self.waiting == 0 {
                return Ok(());
            }
            ensure!(
                now().since(begun) < ANSWER_TIME,
                "the transfer did not answer {} clients for {ANSWER_TIME:?}",
                self.waiting
            );
            self.turn(TURN_MAX)?;
        }
    }

    /// # Errors
    /// Something went wrong for good.
    fn check(&self) -> Result<()> {
        match &self.trouble {
            None => Ok(()),
            Some(trouble) => bail!("{trouble}"),
        }
    }

    /// Starts the next client.
    fn start_next(&mut self) -> Result<()> {
        let number = self.started;
        let client = &mut self.clients[number];
        let port = client.transfer.port();
        let keys = self.keys.entry(port).or_insert_with(|| NamespaceKeys::derive(&self.token, port, None));
        let address = FIRST_ADDRESS + u32::try_from(number).expect("below 2^23");
        let config = GatewayConfig {
            ip4: Ipv4Addr::from_bits(address),
            prefix: PREFIX,
            static_key: StaticKey::from_seed(rand::random()),
            boot: rand::random(),
            keys: keys.clone(),
            name: String::new(),
            sockets: Sockets { ipv4: Some(SocketId(client.socket.0)), ..Sockets::default() },
            offloads: Offloads::NONE,
            outer_bytes: OuterSize::Assumed,
            path: PathChoice::Relay,
            pins: Vec::new(),
            ciphers: Ciphers::detected(),
            pinned_transfer_key: None,
            seed: rand::random(),
        };
        let now = now();
        let mut gateway = Gateway::new(config, now);
        gateway.set_transfer(now, &[client.transfer.into()]);
        client.gateway = Some(Box::new(gateway));
        self.started += 1;
        self.attend(number, Cause::Time)
    }

    /// Takes what has arrived and does what is due, after at most `wait`.
    fn turn(&mut self, wait: Duration) -> Result<()> {
        let next = self.timers.peek().map(|Reverse((at, _))| at.since(now()));
        let wait = next.map_or(wait, |next| wait.min(next));
        let millis = u16::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u16::MAX);
        let mut events = [EpollEvent::empty(); EVENTS_EACH];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::from(millis)) {
            Err(Errno::EINTR) => 0,
            ready => ready.context("wait for datagrams")?,
        };
        for event in &events[..ready] {
            self.read(FleetSocket(u16::try_from(event.data()).expect("as it was added")))?;
        }
        let now = now();
        while let Some(&Reverse((at, number))) = self.timers.peek().filter(|Reverse((at, _))| *at <= now) {
            self.timers.pop();
            let number = usize::try_from(number).expect("below 2^23");
            let client = &mut self.clients[number];
            if client.wakes_at == Some(at) {
                client.wakes_at = None;
                if let Some(gateway) = &mut client.gateway {
                    gateway.handle_timeout(now);
                }
                self.attend(number, Cause::Time)?;
            }
        }
        Ok(())
    }

    /// Reads what has gathered in a socket. Data frames are thrown away.
    fn read(&mut self, socket: FleetSocket) -> Result<()> {
        for _ in 0..READS_EACH {
            let train = match receive(&self.sockets[usize::from(socket.0)], &mut self.datagram) {
                Ok(train) => train,
                Err(Errno::EWOULDBLOCK) => return Ok(()),
                Err(error) if is_passing(&error.into()) => continue,
                Err(error) => return Err(error).context("read a client's socket"),
            };
            let datagram = &mut self.datagram[..train.bytes];
            let (Some(first), Some(remote)) = (datagram.first(), train.from) else { continue };
            if *first == FrameType::Data.byte() || train.segment_bytes > CONTROL_BYTES_MAX {
                continue;
            }
            let Some(number) = self.places.get(&(socket, remote)) else { continue };
            let number = usize::try_from(*number).expect("below 2^23");
            let client = &mut self.clients[number];
            let Some(gateway) = &mut client.gateway else { continue };
            let endpoint = Endpoint { socket: SocketId(socket.0), remote: SocketAddr::V4(remote), local: None };
            let arrival = Arrival { origin: Origin::Outside(endpoint), segment_bytes: train.segment_bytes, tos: 0 };
            // A client has no peers, so that all it wants to send comes from `poll_transmit`.
            let mut actions = Vec::new();
            gateway.handle(now(), &arrival, datagram, &mut Slab::new(&mut self.slab, 0), &mut actions);
            if std::mem::take(&mut client.waits) {
                self.waiting -= 1;
            }
            self.attend(number, Cause::Datagram)?;
        }
        Ok(())
    }

    /// Does all that a client's gateway wants done after an input.
    fn attend(&mut self, number: usize, cause: Cause) -> Result<()> {
        let client = &mut self.clients[number];
        let Some(gateway) = &mut client.gateway else { return Ok(()) };
        loop {
            let mut idle = true;
            while let Some(job) = gateway.poll_job() {
                let done = job.run();
                gateway.handle_job(now(), done);
                idle = false;
            }
            let mut slab = Slab::new(&mut self.slab, 0);
            while let Some(action) = gateway.poll_transmit(now(), &mut slab) {
                idle = false;
                let Action::Send { slab: bytes, to, .. } = action else { continue };
                // What it says under its session when it was asked is an answer, and ends the talk.
                let asks =
                    cause == Cause::Time || slab.bytes(bytes.clone()).first() != Some(&FrameType::Control.byte());
                match self.sockets[usize::from(client.socket.0)].send_to(slab.bytes(bytes), to.remote) {
                    Ok(_) => {}
                    // As if it were lost on the way.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_passing(&error) => {}
                    Err(error) => return Err(error).with_context(|| format!("send to {}", to.remote)),
                }
                if asks && !std::mem::replace(&mut client.waits, true) {
                    self.waiting += 1;
                }
                slab = Slab::new(&mut self.slab, 0);
            }
            if idle {
                break;
            }
        }
        while let Some(event) = gateway.poll_event() {
            let trouble = match event {
                Event::Registered { slot, .. } => match client.slot {
                    None => {
                        client.slot = Some(slot);
                        self.registered += 1;
                        continue;
                    }
                    Some(before) if before == slot => continue,
                    Some(_) => "was given another slot".to_owned(),
                },
                Event::Refused { reason, .. } => format!("is refused: {reason:?}"),
                Event::TransferKeyChanged => "hears a transfer with another key".to_owned(),
                Event::VersionMismatch { .. } => "hears a transfer that speaks other versions".to_owned(),
                // It is asked again; patience ends elsewhere. There is no socket for a stream.
                Event::TransferSilent { .. }
                | Event::TransferBack
                | Event::ResolveTransfer
                | Event::StreamWanted(_)
                | Event::OpenSockets { .. }
                | Event::InsideMtu { .. }
                | Event::CloseSockets(_)
                | Event::ObserverKeyWanted { .. }
                | Event::OverTcp { .. } => continue,
                Event::PeerUp { .. }
                | Event::PeerDown { .. }
                | Event::PathChanged { .. }
                | Event::NoCommonCipher { .. }
                | Event::Impostor { .. } => {
                    continue;
                }
            };
            self.trouble
                .get_or_insert_with(|| format!("client {number}, of the transfer {}, {trouble}", client.transfer));
        }
        let wakes_at = gateway.poll_timeout();
        if wakes_at != client.wakes_at {
            client.wakes_at = wakes_at;
            if let Some(at) = wakes_at {
                self.timers.push(Reverse((at, u32::try_from(number).expect("below 2^23"))));
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for number in 0..self.started {
            if let Some(gateway) = &mut self.clients[number].gateway {
                gateway.stop(now());
                // Whoever does not hear it will notice the silence.
                let _ = self.attend(number, Cause::Time);
            }
        }
    }
}

/// What one reading of a socket gave: a datagram, or several of one size that came together.
struct Train {
    bytes: usize,
    segment_bytes: usize,
    from: Option<SocketAddrV4>,
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> nix::Result<Train> {
    let mut control = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let segments = message.cmsgs()?.find_map(|part| {
        let ControlMessageOwned::UdpGroSegments(size) = part else { return None };
        usize::try_from(size).ok()
    });
    let from = message.address.map(SocketAddrV4::from);
    Ok(Train { bytes: message.bytes, segment_bytes: segments.unwrap_or(message.bytes), from })
}

/// Errors that say something about an earlier datagram, or nothing.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    ) || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// The clock of gateways.
fn now() -> Moment {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had this clock since 2.6.39");
    let nanos = Duration::from(time).as_nanos();
    Moment::from_nanos(u64::try_from(nanos).expect("584 years are not over"))
}
