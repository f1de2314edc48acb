//! Inner packets: what may cross the tunnel, and whose addresses they carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::drops::DropReason;

/// Bytes of an IPv4 header without options.
pub(super) const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub(super) const IPV6_BYTES: usize = 40;

/// IP protocol numbers.
pub(super) mod protocol {
    pub(in crate::gateway) const ICMP: u8 = 1;
    pub(in crate::gateway) const TCP: u8 = 6;
    pub(in crate::gateway) const UDP: u8 = 17;
    pub(in crate::gateway) const ICMPV6: u8 = 58;
}

/// The facts of a valid inner packet that the gateway decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inner {
    /// Its source.
    pub(super) source: IpAddr,
    /// Its destination.
    pub(super) destination: IpAddr,
    /// Protocol of what follows the fixed header and IPv4 options. IPv6 extension headers are not walked.
    pub(super) protocol: u8,
    /// Where that starts.
    pub(super) payload_at: usize,
    /// A fragment other than the first: its payload starts with no transport header.
    pub(super) later_fragment: bool,
}

/// Reads a packet: version, header length, and a total length that is exactly the bytes at hand.
///
/// # Errors
/// [`DropReason::BadInnerPacket`].
pub(super) fn parse(packet: &[u8]) -> Result<Inner, DropReason> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        _ => Err(DropReason::BadInnerPacket),
    }
}

fn parse_v4(packet: &[u8]) -> Result<Inner, DropReason> {
    let header: &[u8; IPV4_BYTES] = packet.first_chunk().ok_or(DropReason::BadInnerPacket)?;
    let payload_at = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if payload_at < IPV4_BYTES || payload_at > total || total != packet.len() {
        return Err(DropReason::BadInnerPacket);
    }
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    Ok(Inner {
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
        protocol: header[9],
        payload_at,
        later_fragment: fragment_offset != 0,
    })
}

fn parse_v6(packet: &[u8]) -> Result<Inner, DropReason> {
    let header: &[u8; IPV6_BYTES] = packet.first_chunk().ok_or(DropReason::BadInnerPacket)?;
    let payload_bytes = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if IPV6_BYTES + payload_bytes != packet.len() {
        return Err(DropReason::BadInnerPacket);
    }
    let source: [u8; 16] = header[8..24].try_into().expect("16 bytes");
    let destination: [u8; 16] = header[24..40].try_into().expect("16 bytes");
    Ok(Inner {
        source: Ipv6Addr::from(source).into(),
        destination: Ipv6Addr::from(destination).into(),
        protocol: header[6],
        payload_at: IPV6_BYTES,
        later_fragment: false,
    })
}

/// The virtual network's addresses, and ours among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// Our virtual address.
    ip4: Ipv4Addr,
    /// Bits of the network that are fixed.
    prefix: u8,
    /// The first 64 bits of every unique local address of the namespace (RFC 4193).
    ula: [u8; 8],
}

/// Where an inner packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereto {
    /// To the peer with this virtual address.
    Peer(Ipv4Addr),
    /// To ourselves.
    Ourselves,
    /// To several: broadcast, multicast, the network's own address.
    Several,
    /// Out of the network.
    Elsewhere,
}

impl Network {
    pub(super) fn new(ip4: Ipv4Addr, prefix: u8, ula: [u8; 8]) -> Self {
        assert!(prefix <= 32, "a prefix of {prefix} bits");
        Self { ip4, prefix, ula }
    }

    /// Our virtual address.
    pub(super) const fn ip4(&self) -> Ipv4Addr {
        self.ip4
    }

    /// Our unique local address.
    pub(super) fn ip6(&self) -> Ipv6Addr {
        self.ula_of(self.ip4)
    }

    /// The unique local address that goes with a virtual address: the namespace's 64 bits, 32 zeros, the address.
    pub(super) fn ula_of(&self, ip4: Ipv4Addr) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.ula);
        octets[12..].copy_from_slice(&ip4.octets());
        octets.into()
    }

    /// Whether `address` is one of the two that the holder of `ip4` may use.
    pub(super) fn belongs_to(&self, address: IpAddr, ip4: Ipv4Addr) -> bool {
        match address {
            IpAddr::V4(address) => address == ip4,
            IpAddr::V6(address) => address == self.ula_of(ip4),
        }
    }

    /// Whether a host may hold `ip4` in this network.
    pub(super) fn is_host(&self, ip4: Ipv4Addr) -> bool {
        self.contains(ip4) && !self.is_edge(ip4)
    }

    /// Where a packet with this destination goes.
    pub(super) fn whereto(&self, destination: IpAddr) -> Whereto {
        let ip4 = match destination {
            IpAddr::V4(ip4) if ip4.is_multicast() || ip4.is_broadcast() => return Whereto::Several,
            IpAddr::V4(ip4) => ip4,
            IpAddr::V6(ip6) if ip6.is_multicast() => return Whereto::Several,
            IpAddr::V6(ip6) => {
                let octets = ip6.octets();
                if octets[..8] != self.ula || octets[8..12] != [0; 4] {
                    return Whereto::Elsewhere;
                }
                Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15])
            }
        };
        if ip4 == self.ip4 {
            Whereto::Ourselves
        } else if !self.contains(ip4) {
            Whereto::Elsewhere
        } else if self.is_edge(ip4) {
            Whereto::Several
        } else {
            Whereto::Peer(ip4)
        }
    }

    fn contains(&self, ip4: Ipv4Addr) -> bool {
        (ip4.to_bits() ^ self.ip4.to_bits()) & !self.host_mask() == 0
    }

    /// The network's own address or its broadcast address; networks of 31 and 32 bits have neither (RFC 3021).
    fn is_edge(&self, ip4: Ipv4Addr) -> bool {
        let host = ip4.to_bits() & self.host_mask();
        self.prefix < 31 && (host == 0 || host == self.host_mask())
    }

    fn host_mask(&self) -> u32 {
        u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0)
    }
}
