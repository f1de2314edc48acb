//! Packets that stand for several: what an interface with [`Offloads`](crate::seam::Offloads) gives and takes.
//!
//! The system hands such an interface up to 64 KiB of one TCP connection, or of one UDP flow, as one packet with one
//! set of headers, a *superpacket*; and it leaves the checksums of TCP and UDP undone. In front of each packet a
//! virtio-net header says which. The mesh carries ordinary packets, so:
//!
//! 1. `virtio.rs` reads and writes that header;
//! 2. `cut.rs`, from inside to outside: [`Cutter`] gives the packets that a superpacket stands for one by one, each
//!    written where it is sealed;
//! 3. `join.rs`, from outside to inside: [`Coalescer`] makes superpackets of neighbours in a train, where they lie;
//! 4. `single.rs`: packets that stand for themselves, in both directions; `layout.rs` says where the headers of a
//!    packet lie, and `checksum.rs` adds.
//!
//! A checksum that was left undone stays so until the far side: the frame is marked with
//! [`CHECKSUM_PARTIAL`](mesh_wire::sealed::flags::CHECKSUM_PARTIAL), and authenticated anyway. The far side hands the
//! packet to its interface as one whose checksum is to be completed, or completes it where the interface cannot. The
//! mark alone says all: the packet is whole, it is TCP or UDP right behind the IP header, and its checksum field is not
//! read, but written anew.
//!
//! No state machine, no clock, and nothing is allocated but what the list of actions may need.

pub(super) mod checksum;
mod cut;
mod join;
mod layout;
mod single;
mod virtio;

#[cfg(test)]
mod tests;

pub(super) use self::cut::Cutter;
pub(super) use self::join::Coalescer;
pub(super) use self::single::{arrive, complete, leave};
pub(super) use self::virtio::VirtioHeader;
