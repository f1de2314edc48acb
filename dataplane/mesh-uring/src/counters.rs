//! What an engine counts.

/// Counts since the engine was made; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Trains received from the network.
    pub trains_in: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Bytes received, payload of UDP.
    pub bytes_in: u64,
    /// Send operations that succeeded (one may carry a whole train).
    pub sends: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Bytes sent, payload of UDP.
    pub bytes_out: u64,
    /// Packets read from the virtual interface.
    pub inside_in: u64,
    /// Packets written to the virtual interface.
    pub inside_out: u64,
    /// Datagrams dropped: the socket's send buffer stayed full.
    pub drops_send_full: u64,
    /// Datagrams dropped: the kernel refused them (unreachable, too long), or their socket is gone.
    pub drops_send_failed: u64,
    /// Packets dropped: the virtual interface took no more.
    pub drops_inside_full: u64,
    /// Trains dropped because the kernel cut them or what it tells of them.
    pub drops_truncated: u64,
    /// Times the kernel found no receive buffer.
    pub starved: u64,
    /// Sends that met a full socket buffer and waited as a copy.
    pub held: u64,
    /// Sends of several segments that the kernel refused and that went out again one by one.
    pub resent_singly: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
}
