//! What a caller may tune.

use mesh_udp::{Technique, Without};

/// Sizes of an engine. The defaults suit a relay of a thousand ports on two cores as well as a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Sockets that can be added at one time; at most 65,535. Reduced to what the limit of open files (`RLIMIT_NOFILE`) allows.
    pub sockets_max: u16,
    /// Receive buffers of each kind (sockets, interface) to begin with. They are 68 KiB of address space each, and memory
    /// only as far as datagrams filled them. Few are better: the kernel hands them out in turn, and those few stay in cache.
    pub buffers_first: u16,
    /// Receive buffers of each kind at most, a power of two up to 32,768. The pool doubles towards it when the kernel runs dry with all of them.
    pub buffers_max: u16,
    /// Trains that one wait hands out at most.
    pub batch_max: usize,
    /// Receive buffer asked for each socket, in bytes as the kernel counts them. A limit, not memory taken.
    pub socket_receive_bytes: u32,
    /// Send buffer asked for each socket, in bytes as the kernel counts them. A limit, not memory taken.
    pub socket_send_bytes: u32,
    /// Lets the sockets use UDP_GRO and UDP_SEGMENT. Without, every datagram is received and sent alone.
    pub offload: bool,
    /// What is left out, see [`Without`]: nothing, unless the feature `ablation` is on.
    pub without: Without,
    /// Keeps sockets from waiting behind one that is flooded. Only a test that shows what this is worth goes without.
    pub fair: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sockets_max: 4096,
            buffers_first: 64,
            buffers_max: 1024,
            batch_max: 256,
            socket_receive_bytes: 8 << 20,
            socket_send_bytes: 4 << 20,
            offload: true,
            without: Without::default(),
            fair: true,
        }
    }
}

impl Config {
    /// Whether sockets are kept from waiting behind one that is flooded.
    pub(crate) fn is_fair(&self) -> bool {
        self.fair && !self.without.technique(Technique::Fair)
    }
}
