//! Names to addresses, on a thread that may block.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

/// `HOST:PORT`; an IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text} {why}: give HOST:PORT, as in example.com:8000 or [2001:db8::1]:8000");
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(wrong("has no port, or no brackets around the IPv6 address"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(|| wrong("has no port in 1..65535"))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(address) => {
                address.parse::<Ipv6Addr>().map_err(|_| wrong("has no IPv6 address in its brackets"))?;
                address
            }
            None => host,
        };
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '[' | ']' | '/' | '@');
        if host.is_empty() || host.contains(bad) || (bracketed.is_none() && host.contains(':')) {
            return Err(wrong("has no host that can be looked up"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Most addresses of one name that are looked at.
pub const ADDRESSES_MAX: usize = 8;

/// Asks the system's resolver; blocks for as long as it does. Each address once, in its order, IPv4 never mapped into IPv6.
///
/// # Errors
/// The resolver's; `NotFound` when the name has no address.
pub fn resolve(target: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in (target.host.as_str(), target.port).to_socket_addrs()? {
        let address = match address.ip() {
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(address, |ip| SocketAddr::new(ip.into(), address.port())),
            IpAddr::V4(_) => address,
        };
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_told_apart() {
        for (text, host, port) in [
            ("www.domain.com:8000", "www.domain.com", 8000),
            ("192.0.2.7:1", "192.0.2.7", 1),
            ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ] {
            let target: HostPort = text.parse().unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port));
            assert_eq!(target.to_string(), text);
        }
        for wrong in [
            "",
            "host",
            "host:",
            "host:0",
            "host:65536",
            ":8000",
            "::1",
            "[::1]",
            "[::1:8000",
            "2001:db8::1",
            "a b:1",
            "[x]:1",
            "a:b:1",
            "user@host:1",
        ] {
            let why = wrong.parse::<HostPort>().unwrap_err();
            assert!(why.contains("give HOST:PORT"), "{why}");
        }
    }

    #[test]
    fn literals_resolve_without_asking_anyone() {
        let addresses = resolve(&"127.0.0.1:8000".parse().unwrap()).unwrap();
        assert_eq!(addresses, ["127.0.0.1:8000".parse().unwrap()]);
        let mapped = resolve(&"[::ffff:192.0.2.1]:9".parse().unwrap()).unwrap();
        assert_eq!(mapped, ["192.0.2.1:9".parse().unwrap()]);
    }
}
