//! What a TUN interface does by itself: segments, datagrams and checksums that the system leaves to it, and that it takes back.

use std::os::fd::{AsFd, OwnedFd};

use mesh_core::seam::{Offloads, VIRTIO_BYTES};
use nix::errno::Errno;
use nix::libc;
use nix::unistd::write;

use super::sys;

/// What is asked for, the most first: each is a set of features and what they stand for. USO came with Linux 6.2.
const STEPS: [(u32, Offloads); 3] = [
    (TCP | libc::TUN_F_USO4 | libc::TUN_F_USO6, Offloads { checksum: true, tcp: true, udp: true }),
    (TCP, Offloads { checksum: true, tcp: true, udp: false }),
    (libc::TUN_F_CSUM, Offloads { checksum: true, tcp: false, udp: false }),
];
const TCP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// Asks for as much as the kernel has, of a queue that was attached with a virtio-net header.
///
/// # Errors
/// The kernel has none of it, or no header of our size.
pub(super) fn enable(queue: &OwnedFd) -> Result<Offloads, Errno> {
    sys::set_header_bytes(queue, VIRTIO_BYTES)?;
    sys::set_little_endian(queue)?;
    let mut refused = Errno::EINVAL;
    for (features, offloads) in STEPS {
        match sys::set_offload(queue, features) {
            Ok(()) => return Ok(offloads),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Tries whether an interface that is up takes what it says it takes: a packet with its header in front, that stands for several if
/// it takes such. The packet's IP header has a wrong checksum, so that the system drops it before anybody sees it.
///
/// # Errors
/// What the kernel says to it.
pub(super) fn try_out(queue: &impl AsFd, offloads: Offloads) -> Result<(), Errno> {
    let packet = probe(offloads);
    match write(queue, &packet) {
        Ok(written) if written == packet.len() => Ok(()),
        Ok(_) => Err(Errno::EMSGSIZE),
        Err(error) => Err(error),
    }
}

const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const SEGMENT_BYTES: usize = 8;

/// A virtio-net header, and behind it TCP of three segments, or of one.
fn probe(offloads: Offloads) -> Vec<u8> {
    let payload = if offloads.tcp { 3 * SEGMENT_BYTES } else { SEGMENT_BYTES };
    let total = u8::try_from(IP_BYTES + TCP_BYTES + payload).expect("it is short");
    let mut packet = vec![0; VIRTIO_BYTES];
    // The checksum is to be completed, from the TCP header on, in its field.
    packet[0] = 1;
    packet[6] = IP_BYTES as u8;
    packet[8] = 16;
    if offloads.tcp {
        packet[1] = 1;
        packet[2] = (IP_BYTES + TCP_BYTES) as u8;
        packet[4] = SEGMENT_BYTES as u8;
    }
    packet.extend_from_slice(&[0x45, 0, 0, total, 0, 0, 0, 0, 1, 6, 0xba, 0xad, 192, 0, 2, 1, 192, 0, 2, 2]);
    // A reset, to which nobody answers either.
    packet.extend_from_slice(&[0, 9, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 4, 0, 0, 0, 0, 0, 0]);
    packet.resize(packet.len() + payload, 0);
    packet
}

/// How many segments one packet of an interface with this MTU may stand for, so that they are one train outside: 64 datagrams and
/// 65,487 bytes, which one send carries over IPv6.
pub(super) const fn segments_max(mtu: u32) -> u32 {
    let fit = 65_487 / (mtu + mesh_wire::sealed::OVERHEAD_BYTES as u32);
    if fit > 64 {
        64
    } else if fit == 0 {
        1
    } else {
        fit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_segments_as_one_send_carries() {
        assert_eq!(segments_max(1_380), 45);
        assert_eq!(segments_max(1_280), 49);
        assert_eq!(segments_max(576), 64);
        assert_eq!(segments_max(9_000), 7);
        assert_eq!(segments_max(65_535), 1);
    }

    #[test]
    fn the_probe_is_a_whole_packet_that_nobody_takes() {
        for (_, offloads) in STEPS {
            let packet = probe(offloads);
            let ip = &packet[VIRTIO_BYTES..];
            assert_eq!(usize::from(ip[3]), ip.len());
            let sum = ip[..IP_BYTES].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>();
            assert_ne!((sum & 0xffff) + (sum >> 16), 0xffff, "its checksum is wrong");
            assert_eq!(packet[1] == 1, offloads.tcp);
        }
    }
}
