//! The NAT Port Mapping Protocol, RFC 6886: the address outside, and a mapping of one UDP port.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Target;
use super::answer::{Granted, LIFETIME, Refused, judge};
use super::exchange::{Read, ask};

const VERSION: u8 = 0;
const ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
const RESPONSE: u8 = 0x80;
/// Version, operation, result (16 bits), the router's seconds since its start.
const HEADER_BYTES: usize = 8;

/// Asks for a mapping, or for it to go on: then `before` is the port outside.
pub(super) async fn map(target: &Target, before: Option<u16>) -> Result<Granted, Refused> {
    // First the port: a router that grants none need not be asked for its address.
    let wished = before.unwrap_or(target.port);
    let question = request(target.port, wished, LIFETIME);
    let (port, lifetime) = ask(target, &question, |bytes| mapped(target.port, bytes)).await??;
    let ip = ask(target, &[VERSION, ADDRESS], address).await??;
    judge(ip, port, lifetime)
}

/// Gives a mapping back.
pub(super) async fn unmap(target: &Target) -> Result<(), Refused> {
    let question = request(target.port, 0, Duration::ZERO);
    ask(target, &question, |bytes| mapped(target.port, bytes)).await?.map(drop)
}

fn request(own: u16, wished: u16, lifetime: Duration) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..2].copy_from_slice(&[VERSION, MAP_UDP]);
    bytes[4..6].copy_from_slice(&own.to_be_bytes());
    bytes[6..8].copy_from_slice(&wished.to_be_bytes());
    bytes[8..12].copy_from_slice(&u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
    bytes
}

/// Reads what both answers begin with; the rest of it.
fn header(operation: u8, bytes: &[u8]) -> Read<Result<&[u8], Refused>> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Read::Other };
    if header[..2] != [VERSION, RESPONSE | operation] {
        return Read::Other;
    }
    Read::Answer(match u16::from_be_bytes([header[2], header[3]]) {
        0 => Ok(rest),
        1 | 5 => Err(Refused::Unsupported),
        2 => Err(Refused::No("not authorized".into())),
        3 => Err(Refused::No("no network".into())),
        4 => Err(Refused::No("no resources".into())),
        code => Err(Refused::No(format!("NAT-PMP error {code}"))),
    })
}

fn address(bytes: &[u8]) -> Read<Result<Ipv4Addr, Refused>> {
    match header(ADDRESS, bytes) {
        Read::Answer(Ok(rest)) => match rest.first_chunk::<4>() {
            Some(ip) => Read::Answer(Ok(Ipv4Addr::from(*ip))),
            None => Read::Other,
        },
        Read::Answer(Err(refused)) => Read::Answer(Err(refused)),
        Read::Other => Read::Other,
    }
}

/// The port outside, and for how long.
fn mapped(own: u16, bytes: &[u8]) -> Read<Result<(u16, Duration), Refused>> {
    match header(MAP_UDP, bytes) {
        Read::Answer(Ok(&[high, low, port_high, port_low, a, b, c, d, ..])) if [high, low] == own.to_be_bytes() => {
            let lifetime = Duration::from_secs(u32::from_be_bytes([a, b, c, d]).into());
            Read::Answer(Ok((u16::from_be_bytes([port_high, port_low]), lifetime)))
        }
        Read::Answer(Err(refused)) => Read::Answer(Err(refused)),
        Read::Answer(Ok(_)) | Read::Other => Read::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T>(read: Read<T>) -> Option<T> {
        match read {
            Read::Answer(answer) => Some(answer),
            Read::Other => None,
        }
    }

    const MAPPED: [u8; 16] = [0, 0x81, 0, 0, 0, 0, 0, 9, 0xf0, 0x0d, 0x12, 0x34, 0, 0, 0x1c, 0x20];
    const ADDRESS_IS: [u8; 12] = [0, 0x80, 0, 0, 0, 0, 0, 9, 198, 51, 100, 7];

    #[test]
    fn questions_and_answers_are_as_the_rfc_draws_them() {
        assert_eq!(request(0xf00d, 0xbeef, LIFETIME), [0, 1, 0, 0, 0xf0, 0x0d, 0xbe, 0xef, 0, 0, 2, 88]);
        assert_eq!(of(mapped(0xf00d, &MAPPED)), Some(Ok((0x1234, Duration::from_secs(7200)))));
        assert_eq!(of(address(&ADDRESS_IS)), Some(Ok(Ipv4Addr::new(198, 51, 100, 7))));
    }

    #[test]
    fn errors_are_told() {
        for (code, refused) in [
            (1, Refused::Unsupported),
            (2, Refused::No("not authorized".into())),
            (5, Refused::Unsupported),
            (77, Refused::No("NAT-PMP error 77".into())),
        ] {
            let mut bytes = MAPPED;
            bytes[3] = code;
            assert_eq!(of(mapped(0xf00d, &bytes)), Some(Err(refused.clone())));
            assert_eq!(of(mapped(0xf00d, &bytes[..8])), Some(Err(refused)));
        }
    }

    #[test]
    fn what_answers_something_else_is_passed_over() {
        for length in 0..16 {
            assert_eq!(of(mapped(0xf00d, &MAPPED[..length])), None, "{length} bytes");
        }
        for length in 0..12 {
            assert_eq!(of(address(&ADDRESS_IS[..length])), None, "{length} bytes");
        }
        assert_eq!(of(mapped(0xf00e, &MAPPED)), None, "another port");
        assert_eq!(of(mapped(0xf00d, &ADDRESS_IS)), None, "another question");
        assert_eq!(of(address(&MAPPED)), None, "another question");
        assert_eq!(of(address(&[0; 12])), None, "a question");
    }
}
