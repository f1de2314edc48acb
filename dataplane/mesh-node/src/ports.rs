//! The transfer's UDP ports: one socket each, bound exclusively, dual-stack where the host has IPv6.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// For how long after the start busy ports are tried often: a killed predecessor keeps its ports until the kernel has torn its
/// ring down.
const EAGER_FOR: Duration = Duration::from_secs(2);
const EAGER_INTERVAL: Duration = Duration::from_millis(100);
const PATIENT_INTERVAL: Duration = Duration::from_secs(1);

/// Busy ports are told of after this time: by then they are not those of a predecessor.
pub const WARN_AFTER: Duration = Duration::from_millis(1000);
/// Without a single port by then, the start has failed.
pub const GIVE_UP_AFTER: Duration = Duration::from_millis(1500);

/// The ports that are not bound yet.
#[derive(Debug, Default)]
pub struct Busy(BTreeSet<u16>);

impl Busy {
    /// All ports of a range are to be bound.
    pub fn range(first: u16, count: u16) -> Self {
        Self((first..=first.saturating_add(count.saturating_sub(1))).collect())
    }

    /// Tries each of them, and takes out those that could be bound.
    ///
    /// # Errors
    /// Anything but a busy port: no permission for a low one, no descriptors left.
    pub fn bind(&mut self) -> io::Result<Vec<(u16, UdpSocket)>> {
        let name = |port, error: io::Error| io::Error::new(error.kind(), format!("UDP port {port}: {error}"));
        let (bound, refused) = self.bind_with(|port| bind(port).map_err(|error| name(port, error)));
        refused.map_or(Ok(bound), Err)
    }

    /// The same by `bind`. What it says to a port that is not busy ends the round; those bound before that are bound.
    pub fn bind_with<S>(&mut self, bind: impl Fn(u16) -> io::Result<S>) -> (Vec<(u16, S)>, Option<io::Error>) {
        let (mut bound, mut refused) = (Vec::new(), None);
        for &port in &self.0 {
            match bind(port) {
                Ok(socket) => bound.push((port, socket)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        for (port, _) in &bound {
            self.0.remove(port);
        }
        (bound, refused)
    }

    /// Adds a port to be bound, or puts one back that was bound but could not be used.
    pub fn put_back(&mut self, port: u16) {
        self.0.insert(port);
    }

    /// Whether this port is not bound yet.
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all ports are bound.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When to try again, `since` the start; `None` if nothing is left to try.
    pub fn retry_in(&self, since: Duration) -> Option<Duration> {
        let interval = if since < EAGER_FOR { EAGER_INTERVAL } else { PATIENT_INTERVAL };
        (!self.is_empty()).then_some(interval)
    }

    /// Compressed: `8003`, `8010-8012`.
    pub fn ranges(&self) -> Vec<String> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for &port in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
                _ => ranges.push((port, port)),
            }
        }
        let text = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
        ranges.into_iter().map(text).collect()
    }
}

/// Binds a port (0: any) for both families, or for IPv4 alone where IPv6 is switched off. No address is shared with another program.
///
/// # Errors
/// The port is busy, or the system gives no socket.
pub(crate) fn bind(port: u16) -> io::Result<UdpSocket> {
    let dual = Socket::new(Domain::IPV6, Type::DGRAM, None).and_then(|socket| {
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        Ok(socket)
    });
    let socket = match dual {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse && error.kind() != io::ErrorKind::PermissionDenied => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            socket
        }
        other => other?,
    };
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_compressed() {
        let busy = Busy([1, 2, 3, 7, 9, 10, 65_535].into());
        assert_eq!(busy.ranges(), ["1-3", "7", "9-10", "65535"]);
        assert_eq!(Busy::range(65_530, 6).ranges(), ["65530-65535"]);
        assert!(Busy::default().ranges().is_empty());
    }

    #[test]
    fn a_busy_port_is_skipped_and_bound_once_it_is_free() {
        let holder = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let mut busy = Busy::range(port, 1);
        assert!(busy.bind().unwrap().is_empty());
        assert_eq!((busy.len(), busy.retry_in(Duration::ZERO)), (1, Some(EAGER_INTERVAL)));
        assert_eq!(busy.retry_in(EAGER_FOR), Some(PATIENT_INTERVAL));
        drop(holder);
        let bound = busy.bind().unwrap();
        assert_eq!(bound.len(), 1);
        assert!(busy.is_empty() && busy.retry_in(Duration::ZERO).is_none());
        assert_eq!(
            UdpSocket::bind(("127.0.0.1", port)).unwrap_err().kind(),
            io::ErrorKind::AddrInUse,
            "bound exclusively"
        );
    }

    #[test]
    fn one_socket_hears_both_families() {
        let socket = bind(0).unwrap();
        let port = socket.local_addr().unwrap().port();
        for (from, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let Ok(sender) = UdpSocket::bind(from) else { continue };
            sender.send_to(b"x", (to, port)).unwrap();
            assert_eq!(socket.recv_from(&mut [0; 8]).unwrap().0, 1);
        }
    }
}
