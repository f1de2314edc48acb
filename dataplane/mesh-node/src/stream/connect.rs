//! The gateway's side: a thread that keeps one connection to the transfer, and the bridge to it.
//!
//! It is there while the state machine wants it. The addresses are tried in their order, each for two seconds; without
//! any answer again after a second. Whoever takes connections on the transfer's port and never gives an answer is asked
//! less and less often.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mesh_core::gateway::Stream;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::pipe::{Pipe, RECEIVE_BYTES, Scratch, scratch};
use super::{Counts, Present, prepare};
use crate::imp;
use crate::outside::{Place, Places};

/// How long one address may take to answer.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// Between a connection that was of use and the next try: the transfer may be back at once.
const AGAIN_SOON: Duration = Duration::from_millis(100);
/// Between two rounds of the addresses.
const AGAIN: Duration = Duration::from_secs(1);
/// The same at most, where connections are taken and nothing is said.
const AGAIN_MOST: Duration = Duration::from_secs(30);

/// Where to connect to, and from: changed by others at any time.
#[derive(Clone, Debug, Default)]
pub struct Target(Arc<Mutex<(Vec<SocketAddr>, Places)>>);

impl Target {
    /// The addresses of the transfer, most preferred first.
    pub fn set_addresses(&self, addresses: &[SocketAddr]) {
        addresses.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).0);
    }

    /// Where sockets of each family are bound.
    pub fn set_places(&self, places: Places) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = places;
    }

    /// The addresses for which there is a place, with that.
    fn ways(&self) -> Vec<(SocketAddr, Place)> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (addresses, places) = &*guard;
        let place = |address: &SocketAddr| if address.is_ipv4() { places.ipv4 } else { places.ipv6 };
        addresses.iter().filter_map(|address| Some((*address, place(address)?))).collect()
    }
}

/// A bridge. Dropping it ends it, when what was said by it last has left.
#[derive(Debug)]
pub struct Bridge {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    /// Starts the thread. `engine` is the address of the engine's socket for it; `tell` is called with each connection,
    /// and when it is there no more.
    ///
    /// # Errors
    /// The system gives no thread, no socket or nothing to wait with.
    pub fn start(
        engine: SocketAddr,
        target: Target,
        counts: Arc<Counts>,
        tell: impl Fn(Option<Stream>) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let udp = {
            let _guard = runtime.enter();
            towards_engine(engine)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("mesh-stream".into()).spawn(move || {
            let mut connector = Connector { udp, target, counts, tell, scratch: scratch(), fruitless: 0 };
            runtime.block_on(connector.keep(stopped));
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread for TCP panicked");
        }
    }
}

fn towards_engine(engine: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    // Less will do.
    let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.connect(&engine.into())?;
    UdpSocket::from_std(socket.into())
}

struct Connector<T> {
    udp: UdpSocket,
    target: Target,
    counts: Arc<Counts>,
    tell: T,
    scratch: Scratch,
    /// Connections one after the other by which nothing came.
    fruitless: u32,
}

impl<T: Fn(Option<Stream>)> Connector<T> {
    /// Connects again and again until it is told to stop.
    async fn keep(&mut self, mut stopped: oneshot::Receiver<()>) {
        let Ok(bridge) = self.udp.local_addr() else { return };
        loop {
            let connected = tokio::select! {
                connected = self.connect() => connected,
                _ = &mut stopped => return,
            };
            let mut pause = AGAIN;
            if let Some((tcp, transfer)) = connected {
                let (stop, of_use) = self.carry(tcp, Stream { bridge, transfer }, &mut stopped).await;
                if stop {
                    return;
                }
                self.fruitless = if of_use { 0 } else { self.fruitless.saturating_add(1) };
                pause = match self.fruitless {
                    0 => AGAIN_SOON,
                    times => AGAIN.saturating_mul(1 << (times - 1).min(5)).min(AGAIN_MOST),
                };
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = &mut stopped => return,
            }
        }
    }

    /// Tries each address once.
    async fn connect(&self) -> Option<(TcpStream, SocketAddr)> {
        for (address, place) in self.target.ways() {
            let connected = match socket(place) {
                Ok(socket) => {
                    timeout(CONNECT_TIME, socket.connect(address)).await.unwrap_or_else(|late| Err(late.into()))
                }
                Err(error) => Err(error),
            };
            match connected {
                Ok(tcp) => return Some((tcp, address)),
                Err(error) => tracing::debug!(%address, %error, "TCP"),
            }
        }
        None
    }

    /// Serves one connection. Whether it was told to stop, and whether anything came by it.
    async fn carry(&self, tcp: TcpStream, stream: Stream, stopped: &mut oneshot::Receiver<()>) -> (bool, bool) {
        prepare(&SockRef::from(&tcp));
        let _present = Present::new(&self.counts);
        self.forget_waiting();
        let frames_before = self.counts.report().frames_in;
        (self.tell)(Some(stream));
        let mut pipe = Pipe::new(tcp, &self.udp, &self.counts, &self.scratch, None);
        let stop = tokio::select! {
            ended = pipe.carry(|| {}) => {
                self.counts.note(&ended);
                tracing::info!(transfer = %stream.transfer, why = %ended, "the TCP connection ended");
                false
            }
            _ = stopped => {
                pipe.finish().await;
                true
            }
        };
        (self.tell)(None);
        (stop, self.counts.report().frames_in > frames_before)
    }

    /// Drops what was sent while there was no connection: it is too old.
    fn forget_waiting(&self) {
        let mut scratch = self.scratch.borrow_mut();
        while self.udp.try_recv(&mut scratch).is_ok() {
            Counts::add(&self.counts.dropped, 1);
        }
    }
}

/// A socket for a connection that leaves by this place.
fn socket(place: Place) -> io::Result<TcpSocket> {
    let local = SocketAddr::new(place.address, 0);
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Some(interface) = place.interface {
        imp::tie(&socket, local.is_ipv6(), interface)?;
    }
    socket.bind(&local.into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}
