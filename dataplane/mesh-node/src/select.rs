//! Which engine runs: `-engine auto|uring|mmsg|portable`.

use std::fmt;
use std::io;
use std::str::FromStr;
#[cfg(target_os = "linux")]
use std::sync::Once;

use mesh_core::seam::SocketId;

use crate::engine::Engine;
use crate::engine::portable::Portable;
#[cfg(target_os = "linux")]
use crate::engine::{mmsg::Mmsg, uring::Uring};

/// `-engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best that works here.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// recvmmsg and sendmmsg of Linux.
    Mmsg,
    /// What works everywhere.
    Portable,
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "mmsg" => Ok(Self::Mmsg),
            "portable" => Ok(Self::Portable),
            other => Err(format!("-engine {other} does not exist: give auto, uring, mmsg or portable")),
        }
    }
}

/// An engine that exists on this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// One io_uring ring for each core.
    #[cfg(target_os = "linux")]
    Uring,
    /// epoll, recvmmsg and sendmmsg.
    #[cfg(target_os = "linux")]
    Mmsg,
    /// tokio and plain sockets.
    Portable,
}

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The engine.
    pub kind: EngineKind,
    /// For people.
    pub reason: String,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            #[cfg(target_os = "linux")]
            EngineKind::Uring => "uring",
            #[cfg(target_os = "linux")]
            EngineKind::Mmsg => "mmsg",
            EngineKind::Portable => "portable",
        };
        write!(f, "{name} ({})", self.reason)
    }
}

/// Chooses. An engine asked for by name that does not work is an error, never replaced by another.
pub fn select(choice: EngineChoice) -> anyhow::Result<Selection> {
    select_by(choice, probe_uring)
}

#[cfg(target_os = "linux")]
fn select_by(choice: EngineChoice, probe: impl FnOnce() -> Result<(), String>) -> anyhow::Result<Selection> {
    let (kind, reason) = match choice {
        EngineChoice::Portable => (EngineKind::Portable, "as asked".into()),
        EngineChoice::Mmsg => (EngineKind::Mmsg, "as asked".into()),
        EngineChoice::Uring => match probe() {
            Ok(()) => (EngineKind::Uring, "as asked".into()),
            Err(why) => anyhow::bail!("engine uring does not work here: {why}, or run with -engine mmsg"),
        },
        EngineChoice::Auto => match probe() {
            Ok(()) => (EngineKind::Uring, "io_uring works here".into()),
            Err(why) => (EngineKind::Mmsg, why),
        },
    };
    Ok(Selection { kind, reason })
}

#[cfg(not(target_os = "linux"))]
fn select_by(choice: EngineChoice, probe: impl FnOnce() -> Result<(), String>) -> anyhow::Result<Selection> {
    let reason = match (choice, probe()) {
        (EngineChoice::Uring, Err(why)) => {
            anyhow::bail!("engine uring does not work here: {why}: run with -engine portable")
        }
        (EngineChoice::Mmsg, _) => anyhow::bail!("engine mmsg is a part of Linux: run with -engine portable"),
        (EngineChoice::Auto, Err(why)) => why,
        (EngineChoice::Portable, _) | (_, Ok(())) => "as asked".into(),
    };
    Ok(Selection { kind: EngineKind::Portable, reason })
}

/// Makes a small ring and drops it.
#[cfg(target_os = "linux")]
fn probe_uring() -> Result<(), String> {
    let smallest = mesh_uring::Config { sockets_max: 1, buffers_first: 1, buffers_max: 1, ..Default::default() };
    mesh_uring::Engine::new(smallest).map(drop).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
fn probe_uring() -> Result<(), String> {
    Err("io_uring is a part of Linux".into())
}

/// An engine that a worker can make for itself.
pub trait Make: Engine + 'static {
    /// Whether its threads are pinned to one processor each.
    const PINNED: bool;

    /// Whether two engines can share sockets and the virtual interface: one thread receives, another sends.
    const SHARES: bool;

    /// Makes one with room for `sockets` sockets, on the thread that will use it.
    fn make(sockets: u16) -> io::Result<Self>;

    /// Says once in the life of the program when a socket's buffers are smaller than the engine asked for.
    fn note_buffers(&self, _socket: SocketId) {}
}

#[cfg(target_os = "linux")]
impl Make for Mmsg {
    const PINNED: bool = true;
    const SHARES: bool = true;

    fn make(_sockets: u16) -> io::Result<Self> {
        Self::with_config(mesh_mmsg::Config {
            #[cfg(feature = "ablation")]
            without: crate::ablation::chosen(),
            ..Default::default()
        })
    }

    fn note_buffers(&self, socket: SocketId) {
        let wished = mesh_mmsg::Config::default();
        note_buffers(self.socket_buffers(socket), wished.socket_receive_bytes, wished.socket_send_bytes);
    }
}

#[cfg(target_os = "linux")]
impl Make for Uring {
    const PINNED: bool = true;
    const SHARES: bool = true;

    fn make(sockets: u16) -> io::Result<Self> {
        // The sockets_max of the default serves all but the widest ranges of ports.
        let default = mesh_uring::Config::default();
        let config = mesh_uring::Config {
            sockets_max: default.sockets_max.max(sockets),
            #[cfg(feature = "ablation")]
            without: crate::ablation::chosen(),
            ..default
        };
        Self::with_config(config).map_err(io::Error::other)
    }

    fn note_buffers(&self, socket: SocketId) {
        let wished = mesh_uring::Config::default();
        note_buffers(self.socket_buffers(socket), wished.socket_receive_bytes, wished.socket_send_bytes);
    }
}

#[cfg(target_os = "linux")]
fn note_buffers(got: Option<mesh_udp::socket::SocketBuffers>, receive_bytes: u32, send_bytes: u32) {
    static SAID: Once = Once::new();
    static SAID_OF_KERNEL: Once = Once::new();
    if mesh_udp::socket::kernel_mangles_trains() {
        SAID_OF_KERNEL.call_once(|| {
            tracing::info!("this kernel (Linux 7.0 to 7.1.4) mangles trains of UDP datagrams: each is sent alone; use 7.1.5 or later");
        });
    }
    let Some(got) = got else { return };
    if got.receive_bytes < receive_bytes || got.send_bytes < send_bytes {
        SAID.call_once(|| {
            tracing::info!(
                receive_bytes = got.receive_bytes,
                send_bytes = got.send_bytes,
                "socket buffers are smaller than wished: bursts may be lost; raise net.core.rmem_max and net.core.wmem_max"
            );
        });
    }
}

impl Make for Portable {
    const PINNED: bool = false;
    const SHARES: bool = false;

    fn make(_sockets: u16) -> io::Result<Self> {
        Self::new()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn refused() -> Result<(), String> {
        Err("io_uring is disabled (kernel.io_uring_disabled=2); set it to 0".into())
    }

    #[test]
    fn auto_takes_uring_where_it_works_and_says_why_where_not() {
        assert_eq!(select_by(EngineChoice::Auto, || Ok(())).unwrap().kind, EngineKind::Uring);
        let selection = select_by(EngineChoice::Auto, refused).unwrap();
        assert_eq!(selection.kind, EngineKind::Mmsg);
        assert!(
            selection.to_string().contains("mmsg (io_uring is disabled (kernel.io_uring_disabled=2)"),
            "{selection}"
        );
    }

    #[test]
    fn an_engine_asked_for_is_never_replaced() {
        let why = select_by(EngineChoice::Uring, refused).unwrap_err().to_string();
        assert!(
            why.contains("engine uring does not work here: io_uring is disabled") && why.contains("-engine mmsg"),
            "{why}"
        );
        assert_eq!(select_by(EngineChoice::Uring, || Ok(())).unwrap().kind, EngineKind::Uring);
        assert_eq!(
            select_by(EngineChoice::Portable, || unreachable!("not asked for")).unwrap().kind,
            EngineKind::Portable
        );
    }
}
