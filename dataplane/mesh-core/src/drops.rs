//! Why datagrams are dropped, and how many were.
//!
//! Bad packets are counted here by reason: they are never a panic and never a log line each.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// Declares the reasons once: variant, name, description.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a datagram, or an inner packet, went nowhere. Shared by both programs; each uses its part.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// All reasons, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason's name in statistics, in kebab-case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    // Frames, both programs.
    /// A datagram of no bytes.
    Empty = "empty",
    /// Shorter than the frame's fixed part.
    TooShort = "too-short",
    /// A field is out of range, or a length does not fit.
    Malformed = "malformed",
    /// This version, but a frame type that it does not have.
    UnknownType = "unknown-type",
    /// A frame that the receiver has no use for.
    UnexpectedType = "unexpected-type",
    /// A frame of the first EasyMesh, which has no notion of versions.
    FirstEdition = "first-edition",
    /// A frame of another wire version.
    OtherVersion = "other-version",
    /// Arrived on a socket that no namespace is bound to.
    UnknownSocket = "unknown-socket",

    // Relaying.
    /// The source slot or its generation is not known.
    UnknownSource = "unknown-source",
    /// The destination slot or its generation is not known.
    UnknownDestination = "unknown-destination",
    /// The source slot is registered at another endpoint.
    EndpointMoved = "endpoint-moved",
    /// From a slot to itself.
    ToItself = "to-itself",
    /// For a joined transfer, and there is none of that number.
    UnknownTransfer = "unknown-transfer",

    // Handshakes.
    /// The MAC is not that of the namespace's token.
    WrongToken = "wrong-token",
    /// No cookie yet: the address was asked to prove itself.
    NoCookie = "no-cookie",
    /// A cookie that was not issued to this address, or is too old.
    WrongCookie = "wrong-cookie",
    /// Too many handshakes at once.
    Busy = "busy",
    /// Repeats a handshake message that is being worked on.
    Duplicate = "duplicate",
    /// A response or final of a handshake that is not under way.
    UnknownHandshake = "unknown-handshake",
    /// The handshake's Noise message does not authenticate, or its payload is not acceptable.
    HandshakeFailed = "handshake-failed",
    /// A handshake of two that accept no cipher in common.
    NoCommonCipher = "no-common-cipher",

    // Sealed frames.
    /// No session has this index.
    UnknownSession = "unknown-session",
    /// Seen before, or older than the replay window.
    Replayed = "replayed",
    /// The tag is wrong.
    NotAuthentic = "not-authentic",
    /// Authentic, but from an endpoint that is not the session's.
    WrongEndpoint = "wrong-endpoint",
    /// A sealed message of a kind that is not known, or has no meaning here.
    UnknownMessage = "unknown-message",
    /// More requests than a member may send.
    RateLimited = "rate-limited",
    /// An answer found no room.
    NoRoom = "no-room",
    /// A request shorter than its answer: nobody is answered with more bytes than it sent.
    Unpadded = "unpadded",
    /// What it says is older than what is known.
    Outdated = "outdated",

    // Inner packets on their way out of a gateway.
    /// Not a whole IPv4 or IPv6 packet.
    BadInnerPacket = "bad-inner-packet",
    /// What an interface, or a peer, left undone of it does not fit it: a cut into segments, or a checksum.
    BadOffload = "bad-offload",
    /// Its source is not an address of this gateway.
    SourceNotOurs = "source-not-ours",
    /// Its destination is outside the virtual network.
    OutOfNetwork = "out-of-network",
    /// For several: broadcast, multicast, the network's own address.
    ManyDestinations = "many-destinations",
    /// For this gateway itself.
    OwnAddress = "own-address",
    /// Nobody holds its destination; the sender was told.
    HostUnreachable = "host-unreachable",
    /// Too long even for two halves; the sender was told.
    TooBig = "too-big",
    /// Too many packets wait for sessions.
    QueueFull = "queue-full",
    /// Waited too long for a session.
    QueueExpired = "queue-expired",
    /// More peers than the table holds.
    TooManyPeers = "too-many-peers",

    // Frames for a gateway.
    /// From an address that is neither the transfer's nor on a path to a peer.
    UnknownEndpoint = "unknown-endpoint",
    /// An inner packet whose source is not an address of the session's peer.
    SpoofedSource = "spoofed-source",
    /// An inner packet that is not for this gateway.
    NotForUs = "not-for-us",
    /// A data frame with a flag that was not agreed upon.
    UnexpectedFlags = "unexpected-flags",
    /// An inner packet whose outer one met congestion, of a sender that knows no marks of it: the loss tells it (RFC 6040).
    Congestion = "congestion",
    /// Half a packet whose other half never came, or that makes no sense.
    HalfLost = "half-lost",
    /// A handshake by a key that does not hold the address it claims.
    Impostor = "impostor",
    /// The peer's handshake gives way to ours, begun at the same time.
    SimultaneousHandshake = "simultaneous-handshake",
    /// Too many frames wait for the end of a handshake.
    HeldFull = "held-full",
    /// The counter lies beyond what one session may carry.
    PastLimit = "past-limit",
}

/// How many were dropped, by reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops {
    counts: [u64; DropReason::ALL.len()],
}

impl Default for Drops {
    fn default() -> Self {
        Self { counts: [0; DropReason::ALL.len()] }
    }
}

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: DropReason) {
        self.counts[reason as usize] += 1;
    }

    /// Counts `datagrams` at once.
    pub fn count_many(&mut self, reason: DropReason, datagrams: u64) {
        self.counts[reason as usize] += datagrams;
    }

    /// How many were dropped for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.counts[reason as usize]
    }

    /// How many were dropped in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The reasons that occurred, with their counts, in the order of [`DropReason::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.get(reason))).filter(|&(_, count)| count > 0)
    }
}

/// A map from name to count of the reasons that occurred.
impl Serialize for Drops {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (reason, count) in self.iter() {
            map.serialize_entry(reason.name(), &count)?;
        }
        map.end()
    }
}
