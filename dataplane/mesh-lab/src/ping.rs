//! ICMP echo (RFC 792) and ICMPv6 echo (RFC 4443), so that a laboratory needs no `ping` program.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto, socket,
};

use crate::host::Host;
use crate::sys;

/// The longest echo payload: an IPv4 packet of 65,535 bytes less 20 of IP header and 8 of ICMP header.
const SIZE_MAX: usize = 65_507;

/// How to ping. Change what matters: `Ping { count: 10, ..Ping::default() }`.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    /// Requests to send, 1 to 65,535.
    pub count: u16,
    /// Time from one request to the next.
    pub interval: Duration,
    /// How long the answer to a request counts.
    pub timeout: Duration,
    /// Bytes of payload after the 8 bytes of ICMP header, up to 65,507.
    pub size: usize,
    /// Never fragment: a packet too large for a link ends as a failure instead.
    pub dont_fragment: bool,
}

impl Default for Ping {
    /// Three requests of 56 bytes, 50 ms apart, answered within a second.
    fn default() -> Ping {
        let (interval, timeout) = (Duration::from_millis(50), Duration::from_secs(1));
        Ping { count: 3, interval, timeout, size: 56, dont_fragment: false }
    }
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PingFailure {
    /// The host itself could not send it: no route, too long, interface down.
    NotSent(Errno),
    /// A machine on the way refused it by an ICMP error.
    Refused {
        /// Who refused it.
        from: IpAddr,
        /// ICMP (RFC 792) or ICMPv6 (RFC 4443) type.
        kind: u8,
        /// Code within the type.
        code: u8,
        /// The MTU named in a "fragmentation needed" or "packet too big".
        mtu: Option<u32>,
    },
}

/// What came of a ping.
#[derive(Clone, Debug, Default)]
pub struct PingReport {
    /// Requests that left the host.
    pub sent: u32,
    /// Requests that were answered in time with the payload that was sent.
    pub received: u32,
    /// Answers beyond the first to a request.
    pub duplicates: u32,
    /// Answers whose payload was not the one sent.
    pub corrupted: u32,
    /// Time from request to answer, in the order of the requests; lost ones are missing.
    pub rtts: Vec<Duration>,
    /// Failures with the number of their request, from 0.
    pub failures: Vec<(u16, PingFailure)>,
}

impl PingReport {
    /// Every request was answered, once and intact.
    #[must_use]
    pub fn perfect(&self) -> bool {
        self.sent > 0
            && self.received == self.sent
            && self.duplicates == 0
            && self.corrupted == 0
            && self.failures.is_empty()
    }
}

impl fmt::Display for PingReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} sent, {} received", self.sent, self.received)?;
        let (least, most) = (self.rtts.iter().min(), self.rtts.iter().max());
        if let (Some(least), Some(most)) = (least, most) {
            let mean = self.rtts.iter().sum::<Duration>() / self.rtts.len() as u32;
            let ms = |time: &Duration| time.as_secs_f64() * 1e3;
            write!(formatter, ", {:.3}/{:.3}/{:.3} ms (least/mean/most)", ms(least), ms(&mean), ms(most))?;
        }
        for (count, what) in [(self.duplicates, "duplicate"), (self.corrupted, "corrupted")] {
            if count > 0 {
                write!(formatter, ", {count} {what}")?;
            }
        }
        self.failures.first().map_or(Ok(()), |(_, failure)| write!(formatter, ", {failure:?}"))
    }
}

/// The ICMP of one address family.
struct Dialect {
    request: u8,
    reply: u8,
    /// The types of errors that quote the packet they are about.
    errors: &'static [u8],
    /// Type and code of the error that names an MTU.
    too_big: (u8, u8),
}

const V4: Dialect = Dialect { request: 8, reply: 0, errors: &[3, 11, 12], too_big: (3, 4) };
const V6: Dialect = Dialect { request: 128, reply: 129, errors: &[1, 2, 3, 4], too_big: (2, 0) };

const ICMP_HEADER_BYTES: usize = 8;
const IPV6_HEADER_BYTES: usize = 40;

impl Host {
    /// Pings `destination` from inside the host.
    ///
    /// # Errors
    /// `ping` is out of range, or raw sockets are refused. That nobody answers is in the report.
    pub fn ping(&self, destination: IpAddr, ping: Ping) -> Result<PingReport> {
        if ping.count == 0 || ping.size > SIZE_MAX {
            bail!("a ping has 1 to 65,535 requests of 0 to {SIZE_MAX} bytes, not {} of {}", ping.count, ping.size);
        }
        self.run(|| Pinger::open(destination, ping)?.run())
            .with_context(|| format!("ping {destination} from {}", self.name()))
    }
}

struct Pinger {
    socket: OwnedFd,
    destination: IpAddr,
    dialect: &'static Dialect,
    identifier: u16,
    ping: Ping,
    payload: Vec<u8>,
    /// Requests that wait for an answer.
    waiting: BTreeMap<u16, Instant>,
    answered: BTreeMap<u16, Duration>,
    report: PingReport,
}

impl Pinger {
    fn open(destination: IpAddr, ping: Ping) -> Result<Pinger> {
        static NEXT_IDENTIFIER: AtomicU16 = AtomicU16::new(1);
        let (family, protocol, dialect) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, &V4),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, &V6),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Raw, flags, protocol).context("open a raw socket")?;
        if ping.dont_fragment {
            let (level, option, value) = match destination {
                IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
                IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1),
            };
            sys::set_int_option(socket.as_fd(), level, option, value).context("forbid fragments")?;
        }
        Ok(Pinger {
            socket,
            destination,
            dialect,
            // The process id keeps apart programs that share the host.
            identifier: NEXT_IDENTIFIER.fetch_add(1, Ordering::Relaxed) ^ (std::process::id() as u16).rotate_left(8),
            ping,
            payload: (0..ping.size).map(|place| place as u8).collect(),
            waiting: BTreeMap::new(),
            answered: BTreeMap::new(),
            report: PingReport::default(),
        })
    }

    fn run(mut self) -> Result<PingReport> {
        let start = Instant::now();
        let mut next = 0;
        loop {
            let now = Instant::now();
            let due = start + self.ping.interval * u32::from(next);
            if next < self.ping.count && now >= due {
                self.send(next)?;
                next += 1;
                continue;
            }
            self.waiting.retain(|_, sent| now < *sent + self.ping.timeout);
            let last_answer = self.waiting.values().max().map(|sent| *sent + self.ping.timeout);
            let until = if next < self.ping.count { Some(due) } else { last_answer };
            let Some(until) = until else { break };
            // Rounded up, or the loop would spin through the last millisecond.
            let left = until.saturating_duration_since(now).as_millis() + 1;
            let mut ends = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ends, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(0) | Err(Errno::EINTR) => {}
                polled => {
                    polled.context("wait for answers")?;
                    self.receive()?;
                }
            }
        }
        self.report.received = self.answered.len() as u32;
        self.report.rtts = self.answered.into_values().collect();
        Ok(self.report)
    }

    fn send(&mut self, sequence: u16) -> Result<()> {
        let mut packet = vec![self.dialect.request, 0, 0, 0];
        packet.extend_from_slice(&self.identifier.to_be_bytes());
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&self.payload);
        if self.destination.is_ipv4() {
            // The kernel adds the checksum of ICMPv6 only, which covers addresses.
            let checksum = checksum(&packet);
            packet[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        let to = SockaddrStorage::from(SocketAddr::new(self.destination, 0));
        let sent = Instant::now();
        match sendto(self.socket.as_raw_fd(), &packet, &to, MsgFlags::empty()) {
            Ok(_) => {
                self.report.sent += 1;
                self.waiting.insert(sequence, sent);
            }
            Err(error @ (Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::EFAULT)) => {
                return Err(error).context("send a request");
            }
            Err(error) => self.report.failures.push((sequence, PingFailure::NotSent(error))),
        }
        Ok(())
    }

    /// Reads all packets that have come.
    fn receive(&mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((length, Some(from))) => {
                    if let Some(from) = ip_of(&from) {
                        self.handle(from, &buffer[..length], Instant::now());
                    }
                }
                Ok((_, None)) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                // What the socket was told about an earlier packet; the request it was about stays lost.
                Err(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EMSGSIZE | Errno::ENETDOWN) => {}
                Err(error) => return Err(error).context("read an answer"),
            }
        }
    }

    fn handle(&mut self, from: IpAddr, packet: &[u8], now: Instant) {
        // A raw IPv4 socket gets the IP header too, an IPv6 one does not.
        let icmp = if self.destination.is_ipv4() { after_ipv4_header(packet) } else { Some(packet) };
        let Some((header, rest)) = icmp.and_then(<[u8]>::split_first_chunk::<ICMP_HEADER_BYTES>) else { return };
        let [kind, code, _, _, word @ ..] = *header;
        if kind == self.dialect.reply {
            let Some(sequence) = self.own_sequence(word).filter(|_| from == self.destination) else { return };
            self.answer(sequence, rest, now);
        } else if self.dialect.errors.contains(&kind) {
            let quoted =
                if self.destination.is_ipv4() { after_ipv4_header(rest) } else { rest.get(IPV6_HEADER_BYTES..) };
            let Some((quoted, _)) = quoted.and_then(<[u8]>::split_first_chunk::<ICMP_HEADER_BYTES>) else { return };
            let [quoted_kind, _, _, _, quoted_word @ ..] = *quoted;
            let sequence = self.own_sequence(quoted_word).filter(|_| quoted_kind == self.dialect.request);
            let Some(sequence) = sequence.filter(|sequence| self.waiting.remove(sequence).is_some()) else { return };
            let mtu = u32::from_be_bytes(word);
            // IPv4 has the MTU in the low 16 bits of the word; the high ones are 0 (RFC 1191).
            let mtu = ((kind, code) == self.dialect.too_big).then_some(mtu);
            self.report.failures.push((sequence, PingFailure::Refused { from, kind, code, mtu }));
        }
    }

    /// The sequence number in the second word of an echo, if the echo is ours.
    fn own_sequence(&self, [id_high, id_low, high, low]: [u8; 4]) -> Option<u16> {
        (u16::from_be_bytes([id_high, id_low]) == self.identifier).then_some(u16::from_be_bytes([high, low]))
    }

    fn answer(&mut self, sequence: u16, payload: &[u8], now: Instant) {
        if payload != self.payload {
            self.report.corrupted += 1;
        } else if self.answered.contains_key(&sequence) {
            self.report.duplicates += 1;
        } else if let Some(sent) = self.waiting.remove(&sequence)
            && now < sent + self.ping.timeout
        {
            self.answered.insert(sequence, now - sent);
        }
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn after_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 0xf) * 4..)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_matches_the_example_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }
}
