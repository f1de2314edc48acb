//! The portable engine: moves datagrams between UDP sockets, a virtual interface and its caller, on Windows and on Linux.
//!
//! It runs on a current-thread tokio runtime, but is driven from outside by plain blocking calls, and it never looks inside a
//! payload. Receive and segmentation offloads come from `quinn-udp`; where that cannot be had, plain sockets serve.
//!
//! One turn:
//! 1. [`Engine::wait`] hands out a batch of [`Train`] tokens; the bytes stay in the engine's pool.
//! 2. [`Engine::split`] lends the bytes of one train together with scratch memory for composing answers.
//! 3. [`Engine::forward`], [`Engine::send`], [`Engine::deliver`] and [`Engine::deliver_scratch`] queue ranges of either.
//! 4. [`Engine::release`] gives a train back, [`Engine::flush`] sends what is queued.
//!
//! After warm-up none of this allocates on Linux.

#[cfg(windows)]
pub mod device;
mod engine;
mod inside;
mod outgoing;
mod ready;
mod slots;
mod socket;

pub use engine::{Config, Engine};
pub use inside::Inside;
#[cfg(windows)]
pub use inside::{InsideConfig, set_mtu};
pub use ready::Waker;
pub use slots::{Origin, Scratch, Train};

use std::net::{IpAddr, SocketAddr};

/// Where a datagram comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Number of the socket, as [`Engine::add_socket`] gave it.
    pub socket: u16,
    /// The other side; IPv4 is always `SocketAddr::V4`, never mapped into IPv6.
    pub remote: SocketAddr,
    /// The local address that was asked, where the socket reports it; answers leave from there.
    pub local: Option<IpAddr>,
}

/// What the engine counted since it was made; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Trains received.
    pub trains_in: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Bytes received, payload of UDP.
    pub bytes_in: u64,
    /// Send operations that the kernel accepted; one may carry a whole train.
    pub sends: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Bytes sent, payload of UDP.
    pub bytes_out: u64,
    /// Packets read from the virtual interface.
    pub inside_in: u64,
    /// Packets written to the virtual interface.
    pub inside_out: u64,
    /// Datagrams dropped because a send buffer stayed full.
    pub drops_send_full: u64,
    /// Datagrams dropped because the kernel refused them.
    pub drops_send_failed: u64,
    /// Packets dropped because the virtual interface did not take them.
    pub drops_inside_full: u64,
    /// Times that no receive buffer was free.
    pub starved: u64,
}
