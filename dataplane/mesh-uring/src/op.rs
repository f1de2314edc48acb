//! What a completion belongs to, packed into the 64 bits of its user data.
//!
//! ```text
//!  63      56 55      48 47                    32 31                                0
//! +----------+----------+------------------------+----------------------------------+
//! |   kind   |    0     |  socket, slot or index |            generation            |
//! +----------+----------+------------------------+----------------------------------+
//! ```

/// An operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// The multishot receive of a socket. The generation tells it from the receive of a socket that had the number before.
    Receive { socket: u16, generation: u32 },
    /// The read of the virtual interface.
    Read,
    /// The poll of the waker.
    Wake,
    /// A send that does not wait, by its slot.
    Send { slot: u16 },
    /// A send that waits for room in the socket buffer, by its place among the held ones.
    Held { slot: u16 },
    /// A write to the virtual interface.
    Write,
    /// A cancellation, whose own outcome says nothing new.
    Cancel,
}

const RECEIVE: u64 = 1;
const READ: u64 = 2;
const WAKE: u64 = 3;
const SEND: u64 = 4;
const HELD: u64 = 5;
const WRITE: u64 = 6;
const CANCEL: u64 = 7;

impl Op {
    pub(crate) fn encode(self) -> u64 {
        let pack = |kind: u64, index: u16, generation: u32| kind << 56 | u64::from(index) << 32 | u64::from(generation);
        match self {
            Self::Receive { socket, generation } => pack(RECEIVE, socket, generation),
            Self::Read => pack(READ, 0, 0),
            Self::Wake => pack(WAKE, 0, 0),
            Self::Send { slot } => pack(SEND, slot, 0),
            Self::Held { slot } => pack(HELD, slot, 0),
            Self::Write => pack(WRITE, 0, 0),
            Self::Cancel => pack(CANCEL, 0, 0),
        }
    }

    /// `None` for user data that no operation of this engine carries.
    pub(crate) fn decode(user_data: u64) -> Option<Self> {
        let index = (user_data >> 32 & 0xffff) as u16;
        let generation = (user_data & 0xffff_ffff) as u32;
        Some(match user_data >> 56 {
            RECEIVE => Self::Receive { socket: index, generation },
            READ => Self::Read,
            WAKE => Self::Wake,
            SEND => Self::Send { slot: index },
            HELD => Self::Held { slot: index },
            WRITE => Self::Write,
            CANCEL => Self::Cancel,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Op;

    #[test]
    fn every_operation_survives_its_user_data() {
        let ops = [
            Op::Receive { socket: 0, generation: 0 },
            Op::Receive { socket: u16::MAX, generation: u32::MAX },
            Op::Read,
            Op::Wake,
            Op::Send { slot: 511 },
            Op::Held { slot: 63 },
            Op::Write,
            Op::Cancel,
        ];
        for op in ops {
            assert_eq!(Op::decode(op.encode()), Some(op));
        }
        assert_eq!(Op::decode(0), None);
        assert_eq!(Op::decode(u64::MAX), None);
    }
}
