//! What is shared between the two halves of a gateway about one peer.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::gateway::paths::Path;
use crate::gateway::sealing::{SealTo, Sealed};
use crate::seam::SocketId;
use crate::session::sealer::Sealer;

/// How packets to one peer are sealed, and where they go.
#[derive(Debug)]
pub struct Lane {
    sealer: Arc<Sealer>,
    path: Path,
    fits: usize,
    counts: Arc<Counts>,
}

/// A lane to a peer, in the place of the one before; or none any more.
#[derive(Debug)]
pub struct LaneChange {
    /// The peer.
    pub ip4: Ipv4Addr,
    /// The lane.
    pub lane: Option<Lane>,
}

/// What went by a lane. Written by the half that sends, read by the other one.
#[derive(Debug, Default)]
struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
    frames: AtomicU64,
    /// The longest inner packet, in bytes, since that was last looked at.
    longest: AtomicUsize,
    /// Whether the gateway knows that it is in use.
    known: AtomicBool,
}

/// What went by a lane since somebody looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::gateway) struct Tally {
    pub(in crate::gateway) packets: u64,
    pub(in crate::gateway) bytes: u64,
    pub(in crate::gateway) frames: u64,
    /// The longest inner packet, in bytes.
    pub(in crate::gateway) longest: usize,
}

impl Lane {
    /// The socket it sends by, as the gateway's engine numbers it.
    pub fn socket(&self) -> SocketId {
        self.path.endpoint.socket
    }

    /// The same by the number that another engine gives the socket.
    #[must_use]
    pub fn by(mut self, socket: SocketId) -> Self {
        self.path.endpoint.socket = socket;
        self
    }

    pub(super) fn seal_to(&self) -> SealTo<'_> {
        SealTo { sealer: &self.sealer, path: &self.path, fits: self.fits }
    }

    /// Counts a packet of `bytes`. Whether the gateway has to hear that the lane is in use.
    pub(super) fn count(&self, sealed: Sealed, bytes: usize) -> bool {
        // One thread writes: an addition in two steps loses nothing. The order against `known` is what counts: whoever clears it
        // reads the counts once more afterwards.
        let counts = &self.counts;
        let add = |count: &AtomicU64, by: u64| count.store(count.load(Ordering::Relaxed) + by, Ordering::Relaxed);
        add(&counts.frames, u64::from(sealed.frames));
        if sealed.longest > counts.longest.load(Ordering::Relaxed) {
            counts.longest.store(sealed.longest, Ordering::Relaxed);
        }
        add(&counts.bytes, bytes as u64);
        counts.packets.fetch_add(1, Ordering::SeqCst);
        !counts.known.load(Ordering::SeqCst) && !counts.known.swap(true, Ordering::SeqCst)
    }
}

/// The gateway's own copy of a lane it told of.
#[derive(Debug)]
pub(in crate::gateway) struct Published {
    sealer: Arc<Sealer>,
    pub(in crate::gateway) path: Path,
    fits: usize,
    counts: Arc<Counts>,
    seen: Tally,
}

impl Published {
    pub(super) fn new(to: &SealTo<'_>, sealer: &Arc<Sealer>) -> Self {
        let counts = Arc::new(Counts::default());
        Self { sealer: sealer.clone(), path: *to.path, fits: to.fits, counts, seen: Tally::default() }
    }

    /// The other end of it.
    pub(super) fn lane(&self) -> Lane {
        Lane { sealer: self.sealer.clone(), path: self.path, fits: self.fits, counts: self.counts.clone() }
    }

    /// Whether it is still right.
    pub(super) fn is(&self, to: &SealTo<'_>) -> bool {
        std::ptr::eq(&*self.sealer, to.sealer) && self.path == *to.path && self.fits == to.fits
    }

    /// From here on the next packet is told of. `false` when there was one since the last [`Published::read`], which was not.
    pub(super) fn rest(&self) -> bool {
        self.counts.known.store(false, Ordering::SeqCst);
        // One that came in between found the lane known to be in use.
        self.counts.packets.load(Ordering::SeqCst) == self.seen.packets
    }

    /// What went by since the last time.
    pub(super) fn read(&mut self) -> Tally {
        let counts = &self.counts;
        let packets = counts.packets.load(Ordering::SeqCst);
        let longest = if packets > self.seen.packets { counts.longest.swap(0, Ordering::Relaxed) } else { 0 };
        let now = Tally {
            longest,
            packets,
            bytes: counts.bytes.load(Ordering::Relaxed),
            frames: counts.frames.load(Ordering::Relaxed),
        };
        let tally = Tally {
            longest,
            packets: now.packets - self.seen.packets,
            bytes: now.bytes - self.seen.bytes,
            frames: now.frames - self.seen.frames,
        };
        self.seen = now;
        tally
    }
}
