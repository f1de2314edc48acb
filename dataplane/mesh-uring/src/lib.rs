//! The Linux io_uring engine: moves trains of datagrams between UDP sockets, a TUN interface and its caller.
//!
//! Blind to what the datagrams carry. One [`Engine`] is one ring and belongs to the thread that made it; a host with many cores runs
//! one on each. Sockets, trains and their gathering into sends are those of `mesh-udp`; here is how the kernel is entered.
//!
//! # The life of a buffer
//!
//! 1. A slot of the pool (`buffers.rs`) lies in the *provided-buffer ring*: it is the kernel's.
//! 2. The multishot receive of some socket (`receive.rs`), or the multishot read of the interface (`tun.rs`), fills it and posts a
//!    completion. [`Engine::wait`] parses the completion and mints one [`Train`], the only handle there is to that slot.
//! 3. The caller looks at the bytes and may change them ([`Engine::split`]), and names ranges of them to be sent
//!    ([`Engine::forward`]) or written to the interface ([`Engine::deliver`]). Nothing is copied: a queued range is a buffer
//!    number, an offset and a length.
//! 4. [`Engine::release`] takes the token back. The slot is nobody's, and its bytes stay as they are.
//! 5. The next [`Engine::wait`], or [`Engine::flush`], gathers the queued ranges into as few sends as order allows, points their
//!    iovecs into the slots and submits them (`send.rs`). Each send copies the bytes into the socket before the submission
//!    returns: it carries `MSG_DONTWAIT`, which turns "would block" into a failure, and is silent on success. What failed is
//!    read from the completion queue before anything is reused; a send that met a full socket buffer is kept as a copy.
//! 6. The slot is spare, and goes back into the provided-buffer ring as that has room.
//!
//! A token that is dropped instead of released costs its slot for good and nothing else; debug builds assert on it.
//!
//! In steady state the thread makes no system call but `io_uring_enter`: one in `wait`, which submits what the turn before queued,
//! collects what has arrived, and waits if nothing has. Timers ride on it and cost no submission. (On a host with several addresses
//! the system is asked about each remote address every two seconds, see `mesh_udp::sources`.)
//!
//! # Unsafe
//!
//! It lives in four files: `sys.rs` (the system calls that have no wrapper), `ring.rs` (the queues of the ring), `post.rs` (what is
//! put into them, and why its memory stays valid) and `buffers.rs` (the ring of buffers shared with the kernel). Every public
//! function is safe for every argument: an out-of-range range, or a token of another engine, is a panic.
#![cfg(target_os = "linux")]

mod buffers;
mod config;
mod engine;
mod error;
mod heading;
mod memory;
mod op;
mod pace;
mod post;
mod receive;
mod ring;
mod send;
mod sys;
mod tun;

pub use config::Config;
pub use engine::Engine;
pub use error::SetupError;
pub use mesh_udp::socket::SocketBuffers;
pub use mesh_udp::{Counters, Endpoint, Origin, Scratch, SocketId, Technique, Train, Waker, Without};
pub use ring::Features;
