//! Inner packets become frames: laid into the slab behind their header, and sealed there.
//!
//! A packet that stands for many (the virtual interface has segmentation offloads) is cut while it is laid there, into one train
//! that goes in one send. What still lacks its checksum goes without it, and its frame says so.

use mesh_wire::TAG_BYTES;
use mesh_wire::frame::FrameType;
use mesh_wire::sealed::{COUNTER_AT, HEADER_BYTES, OVERHEAD_BYTES, SealedHeader, flags};

use super::ip::{self, Inner};
use super::paths::Path;
use super::segments::{Cutter, VirtioHeader, complete, leave};
use super::tos;
use crate::drops::DropReason;
use crate::seam::{Action, Offloads, Slab, VIRTIO_BYTES};
use crate::session::sealer::Sealer;

/// What is sealed with, and where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SealTo<'a> {
    pub(super) sealer: &'a Sealer,
    pub(super) path: &'a Path,
    /// The longest inner packet that the path carries in one piece, in bytes.
    pub(super) fits: usize,
}

/// A packet from the virtual interface.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    virtio: VirtioHeader,
    bytes: &'a mut [u8],
    inner: Inner,
}

impl<'a> Packet<'a> {
    /// Reads one, with what an interface with these offloads puts in front of it.
    ///
    /// # Errors
    /// [`DropReason::BadInnerPacket`] and [`DropReason::BadOffload`].
    pub(super) fn read(bytes: &'a mut [u8], offloads: Offloads) -> Result<Self, DropReason> {
        let mut virtio = VirtioHeader::default();
        let mut bytes = bytes;
        if offloads.checksum {
            virtio = VirtioHeader::parse(bytes)?;
            bytes = &mut bytes[VIRTIO_BYTES..];
        }
        let inner = ip::parse(bytes)?;
        Ok(Self { virtio, bytes, inner })
    }

    /// Its addresses, and what it carries.
    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Length without what the interface put in front, in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The packet without what the interface put in front.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Calls `each` with each packet that this one stands for, complete with its checksum, until one fails. `scratch` is where they
    /// are laid.
    pub(super) fn each_complete(
        &mut self,
        scratch: &mut Vec<u8>,
        mut each: impl FnMut(&mut [u8]) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        if self.virtio.cut.is_none() {
            if leave(self.bytes, &self.virtio)? {
                complete(self.bytes)?;
            }
            return each(self.bytes);
        }
        let mut cutter = Cutter::new(self.bytes, &self.virtio)?;
        scratch.resize(cutter.longest(), 0);
        while let Some(bytes) = cutter.write_next(scratch) {
            complete(&mut scratch[..bytes])?;
            each(&mut scratch[..bytes])?;
        }
        Ok(())
    }
}

/// What a packet was sealed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) frames: u32,
    /// The longest inner packet in them, in bytes.
    pub(super) longest: usize,
}

/// Seals a packet as one frame, or as one train of the packets that it stands for.
///
/// # Errors
/// [`DropReason::TooBig`] where the path does not carry it in one piece; others are the packet's fault, or there is no room.
pub(super) fn seal(
    to: &SealTo<'_>,
    packet: &mut Packet<'_>,
    slab: &mut Slab<'_>,
    actions: &mut Vec<Action>,
) -> Result<Sealed, DropReason> {
    let tos = tos::of(packet.bytes);
    if packet.virtio.cut.is_some() {
        let cutter = Cutter::new(packet.bytes, &packet.virtio)?;
        if cutter.longest() > to.fits {
            return Err(DropReason::TooBig);
        }
        let sealed = Sealed { frames: cutter.segments() as u32, longest: cutter.longest() };
        actions.push(seal_train(to, tos, cutter, slab)?);
        return Ok(sealed);
    }
    if packet.bytes.len() > to.fits {
        return Err(DropReason::TooBig);
    }
    let partial = leave(packet.bytes, &packet.virtio)?;
    let flags = if partial { flags::CHECKSUM_PARTIAL } else { 0 };
    actions.push(seal_frame(to, flags, tos, [packet.bytes, &[]], slab)?);
    Ok(Sealed { frames: 1, longest: packet.bytes.len() })
}

/// Cuts a packet that stands for many while it is laid into the slab, and seals each.
fn seal_train(to: &SealTo<'_>, tos: u8, mut cutter: Cutter<'_>, slab: &mut Slab<'_>) -> Result<Action, DropReason> {
    let segments = cutter.segments();
    let stride = OVERHEAD_BYTES + cutter.longest();
    let total = segments * OVERHEAD_BYTES + cutter.total_bytes();
    let mut free = slab.free().get_mut(..total).ok_or(DropReason::NoRoom)?;
    let first = to.sealer.reserve(segments as u64).ok_or(DropReason::PastLimit)?;
    let mut header = header(to, flags::CHECKSUM_PARTIAL, first);
    for counter in first..first + segments as u64 {
        header[COUNTER_AT..].copy_from_slice(&counter.to_be_bytes());
        let (head, rest) = free.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header);
        let Some(bytes) = cutter.write_next(rest) else { break };
        let (body, rest) = rest.split_at_mut(bytes);
        let tag = to.sealer.seal(counter, &header, body);
        let (place, rest) = rest.split_at_mut(TAG_BYTES);
        place.copy_from_slice(&tag);
        free = rest;
    }
    Ok(Action::Send { slab: slab.take(total), segment_bytes: stride, to: to.path.endpoint, tos })
}

/// Lays header and plaintext, given in two pieces, into the slab and seals them there; they leave with this TOS byte.
pub(super) fn seal_frame(
    to: &SealTo<'_>,
    flags: u8,
    tos: u8,
    plaintext: [&[u8]; 2],
    slab: &mut Slab<'_>,
) -> Result<Action, DropReason> {
    let [one, two] = plaintext;
    let total = OVERHEAD_BYTES + one.len() + two.len();
    let free = slab.free().get_mut(..total).ok_or(DropReason::NoRoom)?;
    let counter = to.sealer.reserve(1).ok_or(DropReason::PastLimit)?;
    let header = header(to, flags, counter);
    let (head, rest) = free.split_at_mut(HEADER_BYTES);
    let (body, tag) = rest.split_at_mut(one.len() + two.len());
    head.copy_from_slice(&header);
    body[..one.len()].copy_from_slice(one);
    body[one.len()..].copy_from_slice(two);
    tag.copy_from_slice(&to.sealer.seal(counter, &header, body));
    Ok(Action::Send { slab: slab.take(total), segment_bytes: total, to: to.path.endpoint, tos })
}

fn header(to: &SealTo<'_>, flags: u8, counter: u64) -> [u8; HEADER_BYTES] {
    SealedHeader {
        frame: FrameType::Data,
        flags,
        route: to.path.route,
        receiver_index: to.sealer.remote_index(),
        counter,
    }
    .emit()
}
