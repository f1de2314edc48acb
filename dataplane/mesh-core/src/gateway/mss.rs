//! Keeps TCP from needing halves: lowers the maximum segment size that a SYN announces (RFC 9293, section 3.7.1).

use super::ip::{IPV4_BYTES, IPV6_BYTES, Inner, protocol};
use std::net::IpAddr;

/// Bytes of a TCP header without options.
const TCP_BYTES: usize = 20;
/// The flag in byte 13 of the header.
const SYN: u8 = 0x02;
/// Option kinds.
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the MSS of a SYN so that its segments fit inner packets of `inner_bytes`; leaves everything else alone.
///
/// A complete checksum is corrected by the difference (RFC 1624). A `partial` one covers the pseudo header only, is filled in later,
/// and takes the changed bytes in by itself. Answers whether the packet was changed.
pub(super) fn clamp(packet: &mut [u8], inner: &Inner, inner_bytes: usize, partial: bool) -> bool {
    if inner.protocol != protocol::TCP || inner.later_fragment {
        return false;
    }
    let Some(tcp) = packet.get_mut(inner.payload_at..) else { return false };
    if tcp.len() < TCP_BYTES || tcp[13] & SYN == 0 {
        return false;
    }
    let header_bytes = usize::from(tcp[12] >> 4) * 4;
    if header_bytes < TCP_BYTES || header_bytes > tcp.len() {
        return false;
    }
    let ip_bytes = match inner.source {
        IpAddr::V4(_) => IPV4_BYTES,
        IpAddr::V6(_) => IPV6_BYTES,
    };
    let highest = u16::try_from(inner_bytes.saturating_sub(ip_bytes + TCP_BYTES)).unwrap_or(u16::MAX);
    let Some(at) = find_mss(&tcp[..header_bytes]) else { return false };
    let announced = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    if announced <= highest {
        return false;
    }
    tcp[at..at + 2].copy_from_slice(&highest.to_be_bytes());
    if partial {
        return true;
    }
    // An option may start at an odd byte; its words then count with their bytes swapped.
    let (old, new) = if at % 2 == 0 { (announced, highest) } else { (announced.swap_bytes(), highest.swap_bytes()) };
    let checksum = u16::from_be_bytes([tcp[16], tcp[17]]);
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded to 16 bits");
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Where the value of the MSS option lies within a TCP header.
fn find_mss(header: &[u8]) -> Option<usize> {
    let mut at = TCP_BYTES;
    loop {
        match *header.get(at)? {
            OPTION_END => return None,
            OPTION_NOP => at += 1,
            kind => {
                let bytes = usize::from(*header.get(at + 1)?);
                if bytes < 2 || at + bytes > header.len() {
                    return None;
                }
                if kind == OPTION_MSS {
                    return (bytes == 4).then_some(at + 2);
                }
                at += bytes;
            }
        }
    }
}
