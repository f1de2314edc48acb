//! What becomes of a send that the kernel refused, by cause.

use std::ops::Range;

use crate::gather::Run;

/// The verdict over a refused send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The socket buffer is full: keep a copy of the whole run until there is room.
    Hold,
    /// The socket buffer is full, and a part is not worth the trouble.
    Full,
    /// The kernel will not have it, now or later.
    Failed,
    /// The kernel would not cut it: each of `bytes` is to be judged alone. What lies before is too long and lost.
    Singly {
        /// The bytes to be sent again, cut at the run's stride.
        bytes: Range<u32>,
        /// Datagrams lost.
        lost: u32,
        /// The device of this socket's route cannot cut at all, and will not be able to later.
        never: bool,
    },
}

/// Judges the failure `error` of sending `bytes` of a run, `segments` datagrams.
///
/// - `EIO`: the device computes no checksums and so cannot cut (or IPsec stands in the way); it will not be able later.
/// - `EMSGSIZE`: a segment is larger than the path to this destination takes. All full segments are equally long: where one is too
///   long all are, and only a shorter last one may pass. Other destinations are not concerned.
/// - `EINVAL`: an old kernel that refuses this many segments, or this length of them.
pub fn judge(error: i32, run: &Run, bytes: &Range<u32>, segments: u32) -> Refusal {
    match error {
        libc::EAGAIN if *bytes == (0..run.bytes) => Refusal::Hold,
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Refusal::Full,
        libc::EMSGSIZE if segments > 1 => {
            let length = bytes.end - bytes.start;
            let (full, last) = (length / run.segment_bytes, length % run.segment_bytes);
            Refusal::Singly { bytes: bytes.end - last..bytes.end, lost: full, never: false }
        }
        libc::EIO | libc::EINVAL if segments > 1 => {
            Refusal::Singly { bytes: bytes.clone(), lost: 0, never: error == libc::EIO }
        }
        _ => Refusal::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Refusal, judge};
    use crate::gather::{Gather, Memory, Run, SEGMENTS_MAX};
    use crate::{Endpoint, SocketId};

    /// A run of two full datagrams of 100 bytes and one of 50.
    fn run() -> Run {
        let to = Endpoint { socket: SocketId(0), remote: SocketAddr::from(([10, 0, 0, 1], 7)), local: None };
        let mut gather = Gather::new();
        gather.push(Memory::Slab, 0..250, 100, &to, 0, SEGMENTS_MAX);
        gather.runs()[0]
    }

    #[test]
    fn each_cause_has_its_own_remedy() {
        let run = run();
        let whole = |error| judge(error, &run, &(0..250), 3);
        assert_eq!(whole(libc::EAGAIN), Refusal::Hold);
        assert_eq!(judge(libc::EAGAIN, &run, &(0..100), 1), Refusal::Full);
        assert_eq!(whole(libc::ENOBUFS), Refusal::Full);
        assert_eq!(whole(libc::EIO), Refusal::Singly { bytes: 0..250, lost: 0, never: true });
        assert_eq!(whole(libc::EINVAL), Refusal::Singly { bytes: 0..250, lost: 0, never: false });
        assert_eq!(whole(libc::EMSGSIZE), Refusal::Singly { bytes: 200..250, lost: 2, never: false });
        for error in [libc::EIO, libc::EINVAL, libc::EMSGSIZE] {
            assert_eq!(judge(error, &run, &(0..100), 1), Refusal::Failed);
        }
        assert_eq!(whole(libc::ENETUNREACH), Refusal::Failed);
    }

    #[test]
    fn of_equal_datagrams_that_are_too_long_none_is_left() {
        let to = Endpoint { socket: SocketId(0), remote: SocketAddr::from(([10, 0, 0, 1], 7)), local: None };
        let mut gather = Gather::new();
        gather.push(Memory::Slab, 0..200, 100, &to, 0, SEGMENTS_MAX);
        let Refusal::Singly { bytes, lost, .. } = judge(libc::EMSGSIZE, &gather.runs()[0], &(0..200), 2) else {
            panic!("two segments are judged one by one");
        };
        assert!(bytes.is_empty());
        assert_eq!(lost, 2);
    }
}
