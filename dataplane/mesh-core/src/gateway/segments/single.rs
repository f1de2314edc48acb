//! Packets that stand for themselves, and what is left undone of their checksums.

use super::checksum::sum;
use super::layout::{Layout, put_word};
use super::virtio::{Partial, VirtioHeader};
use crate::drops::DropReason;
use crate::seam::Offloads;

/// From inside to outside: readies a packet, in front of which `header` without a cut was found, for its way. Answers
/// whether it travels with [`CHECKSUM_PARTIAL`](mesh_wire::sealed::flags::CHECKSUM_PARTIAL); else its checksum is
/// complete, and was completed here where the interface left that undone for something that the mark does not stand
/// for: another protocol than TCP and UDP, or one behind IPv6 extension headers.
///
/// The mark says that the far side is to find the transport by itself. What it does not read is the field: it may hold
/// anything after [`mss::clamp`](crate::gateway::mss::clamp).
///
/// # Errors
/// [`DropReason::BadOffload`]: the checksum lies outside of the packet, or the packet stands for several.
pub(in crate::gateway) fn leave(packet: &mut [u8], header: &VirtioHeader) -> Result<bool, DropReason> {
    if header.cut.is_some() {
        return Err(DropReason::BadOffload);
    }
    let Some(partial) = header.checksum else { return Ok(false) };
    if Layout::read(packet).is_some_and(|layout| layout.partial() == partial) {
        return Ok(true);
    }
    complete_at(packet, partial)?;
    Ok(false)
}

/// Completes the partial checksum of a TCP or UDP packet in software. What its field holds is not read.
///
/// # Errors
/// [`DropReason::BadOffload`]: not a whole TCP or UDP packet, or a fragment, or with IPv6 extension headers.
pub(in crate::gateway) fn complete(packet: &mut [u8]) -> Result<(), DropReason> {
    let layout = Layout::read(packet).ok_or(DropReason::BadOffload)?;
    let checksum = layout.checksum(packet);
    put_word(packet, layout.checksum_at(), checksum);
    Ok(())
}

/// Outside to inside: readies a packet that is delivered alone, and says which header goes in front where the interface
/// has offloads. `partial` tells whether it came with the mark. For packets of a train there is
/// [`Coalescer`](super::Coalescer); this is for those that lie elsewhere.
///
/// # Errors
/// [`DropReason::BadOffload`]: marked, and not a whole TCP or UDP packet, or a fragment, or with IPv6 extension
/// headers.
pub(in crate::gateway) fn arrive(
    packet: &mut [u8],
    partial: bool,
    offloads: Offloads,
) -> Result<VirtioHeader, DropReason> {
    if !partial {
        return Ok(VirtioHeader::default());
    }
    let layout = Layout::read(packet).ok_or(DropReason::BadOffload)?;
    Ok(arrive_as(packet, &layout, offloads))
}

/// As [`arrive`], for a packet whose checksum is partial and whose headers were read.
pub(super) fn arrive_as(packet: &mut [u8], layout: &Layout, offloads: Offloads) -> VirtioHeader {
    if !offloads.checksum {
        let checksum = layout.checksum(packet);
        put_word(packet, layout.checksum_at(), checksum);
        return VirtioHeader::default();
    }
    let pseudo = layout.pseudo_sum(packet, packet.len() - layout.transport_at);
    put_word(packet, layout.checksum_at(), pseudo);
    VirtioHeader { checksum: Some(layout.partial()), cut: None }
}

/// Completes a checksum of any protocol, by what its field holds, as an interface does.
fn complete_at(packet: &mut [u8], Partial { start, offset }: Partial) -> Result<(), DropReason> {
    let bytes = packet.get_mut(usize::from(start)..).ok_or(DropReason::BadOffload)?;
    let at = usize::from(offset);
    if at + 2 > bytes.len() {
        return Err(DropReason::BadOffload);
    }
    let checksum = !sum(bytes);
    // It may be UDP's, where zero would say that there is none; to others both spellings are the same.
    put_word(bytes, at, if checksum == 0 { 0xffff } else { checksum });
    Ok(())
}
