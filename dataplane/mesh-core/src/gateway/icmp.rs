//! Answers to the sender of an inner packet that cannot go on: host unreachable and packet too big.
//!
//! As RFC 1122 section 3.2.2 and RFC 4443 section 2.4 ask: never about an ICMP error, a later fragment, or a packet to or from
//! an address that is not one host's; and at a limited rate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ip::{IPV4_BYTES, IPV6_BYTES, Inner, protocol};
use super::segments::checksum::{fold, sum};
use super::timers::Bucket;
use crate::seam::Moment;

/// Answers each second, and at once after a quiet time. A ping sweep over the network is answered in full at 500 a second.
const RATE_PER_SECOND: u32 = 500;
const BURST: u32 = 256;

/// Longest IPv4 answer: what every host must take (RFC 1812, section 4.3.2.3).
const IPV4_ANSWER_BYTES_MAX: usize = 576;
/// Longest IPv6 answer: the minimum MTU (RFC 4443, section 2.4 c).
const IPV6_ANSWER_BYTES_MAX: usize = 1280;
const ICMP_BYTES: usize = 8;
const TTL: u8 = 64;

/// What is said of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// Nobody holds its destination.
    HostUnreachable,
    /// It is longer than the path carries: packets of so many bytes pass.
    TooBig(u16),
}

/// Composes answers at a limited rate.
#[derive(Debug)]
pub(super) struct Complaints {
    bucket: Bucket,
}

impl Complaints {
    pub(super) fn new(now: Moment) -> Self {
        Self { bucket: Bucket::new(now, RATE_PER_SECOND, BURST) }
    }

    /// The answer to `packet`, or `None` where there must be none.
    ///
    /// It comes from the address that was not reached. From our own one, which a router would use, the system that sent the
    /// packet takes nothing on an interface: to it that is a forged source.
    pub(super) fn about(&mut self, now: Moment, packet: &[u8], inner: &Inner, complaint: Complaint) -> Option<Vec<u8>> {
        if inner.later_fragment || !is_one_host(inner.source) || is_icmp_error(packet, inner) {
            return None;
        }
        if !self.bucket.take(now) {
            return None;
        }
        match (inner.destination, inner.source) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Some(answer_v4(packet, complaint, from, to)),
            (IpAddr::V6(from), IpAddr::V6(to)) => Some(answer_v6(packet, complaint, from, to)),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

fn is_one_host(address: IpAddr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Errors, and what is too short to tell.
fn is_icmp_error(packet: &[u8], inner: &Inner) -> bool {
    let kind = packet.get(inner.payload_at).copied();
    match (inner.source, inner.protocol) {
        // Everything but the queries: echo, timestamp, information, address mask.
        (IpAddr::V4(_), protocol::ICMP) => !matches!(kind, Some(0 | 8..=10 | 13..=18)),
        (IpAddr::V6(_), protocol::ICMPV6) => !matches!(kind, Some(128..)),
        _ => false,
    }
}

fn answer_v4(packet: &[u8], complaint: Complaint, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let quote = &packet[..packet.len().min(IPV4_ANSWER_BYTES_MAX - IPV4_BYTES - ICMP_BYTES)];
    let total = u16::try_from(IPV4_BYTES + ICMP_BYTES + quote.len()).expect("at most 576");
    let mut answer = Vec::with_capacity(usize::from(total));
    // Precedence 6, as RFC 1812 section 4.3.2.5 asks of errors.
    answer.extend_from_slice(&[0x45, 0xc0]);
    answer.extend_from_slice(&total.to_be_bytes());
    answer.extend_from_slice(&[0, 0, 0, 0, TTL, protocol::ICMP, 0, 0]);
    answer.extend_from_slice(&from.octets());
    answer.extend_from_slice(&to.octets());
    let checksum = !sum(&answer);
    answer[10..12].copy_from_slice(&checksum.to_be_bytes());
    let (code, mtu) = match complaint {
        Complaint::HostUnreachable => (1, 0),
        Complaint::TooBig(mtu) => (4, mtu),
    };
    answer.extend_from_slice(&[3, code, 0, 0, 0, 0]);
    answer.extend_from_slice(&mtu.to_be_bytes());
    answer.extend_from_slice(quote);
    let checksum = !sum(&answer[IPV4_BYTES..]);
    answer[IPV4_BYTES + 2..IPV4_BYTES + 4].copy_from_slice(&checksum.to_be_bytes());
    answer
}

fn answer_v6(packet: &[u8], complaint: Complaint, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let quote = &packet[..packet.len().min(IPV6_ANSWER_BYTES_MAX - IPV6_BYTES - ICMP_BYTES)];
    let payload = u16::try_from(ICMP_BYTES + quote.len()).expect("at most 1240");
    let mut answer = Vec::with_capacity(IPV6_BYTES + usize::from(payload));
    answer.extend_from_slice(&[0x60, 0, 0, 0]);
    answer.extend_from_slice(&payload.to_be_bytes());
    answer.extend_from_slice(&[protocol::ICMPV6, TTL]);
    answer.extend_from_slice(&from.octets());
    answer.extend_from_slice(&to.octets());
    let (kind, code, mtu) = match complaint {
        Complaint::HostUnreachable => (1, 3, 0),
        Complaint::TooBig(mtu) => (2, 0, u32::from(mtu)),
    };
    answer.extend_from_slice(&[kind, code, 0, 0]);
    answer.extend_from_slice(&mtu.to_be_bytes());
    answer.extend_from_slice(quote);
    // The pseudo header of RFC 8200, section 8.1: addresses, length, next header.
    let pseudo = u64::from(payload) + u64::from(protocol::ICMPV6) + u64::from(sum(&answer[8..IPV6_BYTES]));
    let checksum = !fold(pseudo + u64::from(sum(&answer[IPV6_BYTES..])));
    answer[IPV6_BYTES + 2..IPV6_BYTES + 4].copy_from_slice(&checksum.to_be_bytes());
    answer
}
