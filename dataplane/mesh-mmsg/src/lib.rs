//! The Linux engine for kernels and containers without io_uring: epoll, `recvmmsg` with `UDP_GRO`, `sendmmsg` with `UDP_SEGMENT`.
//!
//! Blind to what the datagrams carry. One [`Engine`] belongs to the thread that made it. Sockets, trains and their gathering into
//! sends are those of `mesh-udp`, shared with `mesh-uring`; here is how the kernel is entered.
//!
//! # The life of a buffer
//!
//! 1. A slot (`slots.rs`) is free, or stands behind one of the receive headers (`receive.rs`). The slots used last are the first to
//!    be used again, so that few of them are busy and stay in cache.
//! 2. epoll tells which sockets have something; one `recvmmsg` of each fills the slots of the first headers.
//!    [`Engine::wait`] mints one [`Train`] for each.
//! 3. The caller looks at the bytes and may change them ([`Engine::split`]), and names ranges of them to be sent
//!    ([`Engine::forward`]) or written to the interface ([`Engine::deliver`]). Nothing is copied.
//! 4. [`Engine::release`] takes the token back; the bytes stay as they are until the flush.
//! 5. The next [`Engine::wait`], or [`Engine::flush`], gathers the queued ranges into as few sends as order allows, and hands the sends of one socket to one
//!    `sendmmsg` (`send.rs`). A send that met a full socket buffer is kept as a copy until epoll says that there is room.
//! 6. The slot is free.
//!
//! # Fairness
//!
//! One `recvmmsg` takes at most 64 trains of a socket, and no more than fit the cache; then the other sockets that are ready have their turn.
//!
//! # Unsafe
//!
//! It lives in `sys.rs` only: `recvmmsg` and `sendmmsg`, whose headers point to mapped memory.
#![cfg(target_os = "linux")]

mod config;
mod engine;
mod receive;
mod send;
mod slots;
mod sys;

pub use config::Config;
pub use engine::Engine;
pub use mesh_udp::socket::SocketBuffers;
pub use mesh_udp::{Counters, Endpoint, Origin, Scratch, SocketId, Technique, Train, Waker, Without};
