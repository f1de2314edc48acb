//! What a caller may tune.

use mesh_udp::{Technique, Without};

/// Sizes of an engine. The defaults suit a relay of a thousand ports on two cores as well as a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Trains that one wait hands out at most, from 1 to 4,096. Each needs a slot: 68 KiB of address space, and memory only as far
    /// as datagrams filled it.
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
            batch_max: 256,
            socket_receive_bytes: 8 << 20,
            socket_send_bytes: 4 << 20,
            offload: true,
            fair: true,
            without: Without::default(),
        }
    }
}

impl Config {
    /// Whether sockets are kept from waiting behind one that is flooded.
    pub(crate) fn is_fair(&self) -> bool {
        self.fair && !self.without.technique(Technique::Fair)
    }
}
