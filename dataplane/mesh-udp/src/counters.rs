//! What an engine counts. Each engine counts for itself, without a lock; sums are made by who reads.

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
    /// Datagrams dropped: the receive buffers of the sockets were full. Counted by the kernel, of the sockets there are.
    pub drops_receive_full: u64,
    /// Datagrams dropped: the socket's send buffer stayed full.
    pub drops_send_full: u64,
    /// Datagrams dropped: the kernel refused them (unreachable, too long), or their socket is gone.
    pub drops_send_failed: u64,
    /// Packets dropped: the virtual interface took no more.
    pub drops_inside_full: u64,
    /// Trains dropped because the kernel cut them or what it tells of them.
    pub drops_truncated: u64,
    /// Times there was no receive buffer when the kernel had a datagram (`ENOBUFS` of a ring).
    pub starved: u64,
    /// Sends that met a full socket buffer and waited as a copy.
    pub held: u64,
    /// Sends of several segments that the kernel refused and that went out again one by one.
    pub resent_singly: u64,
    /// System calls that moved datagrams or waited for them.
    pub enters: u64,
    /// Most receive buffers that were the caller's at one time.
    pub buffers_in_flight_max: u64,
    /// Datagrams of each train received.
    pub lengths_in: Lengths,
    /// Datagrams of each send.
    pub lengths_out: Lengths,
    /// Trains handed out by each wait that handed out any.
    pub batches: Lengths,
}

/// A histogram of lengths: 1, 2 to 3, 4 to 7, and so on, each class twice as wide as the one before, the last without an end (128 and
/// more).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths(pub [u64; Self::CLASSES]);

impl Lengths {
    /// How many classes there are.
    pub const CLASSES: usize = 8;

    /// Counts one of this length; zero counts as one.
    pub fn note(&mut self, length: usize) {
        let class = length.max(1).ilog2() as usize;
        self.0[class.min(Self::CLASSES - 1)] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::Lengths;

    #[test]
    fn each_class_is_twice_as_wide_as_the_one_before() {
        let mut lengths = Lengths::default();
        for length in [0, 1, 2, 3, 4, 7, 8, 63, 64, 127, 128, usize::MAX] {
            lengths.note(length);
        }
        assert_eq!(lengths.0, [2, 2, 2, 1, 0, 1, 2, 2]);
    }
}
