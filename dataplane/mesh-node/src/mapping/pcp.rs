//! The Port Control Protocol, RFC 6887: the operation MAP for one UDP port.
//!
//! ```text
//! request                                     response
//!  0  version 2                                0  version 2
//!  1  0 | operation 1                          1  0x80 | operation 1
//!  2  reserved                                 2  reserved, 3: result code
//!  4  lifetime wished, seconds                 4  lifetime granted (or of the error), seconds
//!  8  our address, IPv4 mapped into IPv6       8  the router's seconds since its start, reserved
//! 24  nonce, 12 bytes                         24  nonce
//! 36  protocol 17, reserved                   36  protocol, reserved
//! 40  our port, port outside wished           40  our port, port outside
//! 44  address outside wished                  44  address outside
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::time::Duration;

use super::Target;
use super::answer::{Granted, LIFETIME, Refused, judge};
use super::exchange::{Read, ask};

/// The version of PCP; NAT-PMP has 0.
const VERSION: u8 = 2;
const VERSION_OF_NATPMP: u8 = 0;
const MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
const UDP: u8 = 17;
/// Of both directions.
const MESSAGE_BYTES: usize = 60;
/// Of a response that tells an error.
const HEADER_BYTES: usize = 24;

/// Asks for a mapping, or for it to go on: then `before` is what was granted.
pub(super) async fn map(target: &Target, nonce: &[u8; 12], before: Option<SocketAddrV4>) -> Result<Granted, Refused> {
    let wished = before.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, target.port));
    let question = request(target, nonce, LIFETIME, wished);
    ask(target, &question, |bytes| response(target, nonce, bytes)).await?.and_then(|(outside, lifetime)| {
        let ip = outside.ip().to_ipv4_mapped().ok_or_else(|| Refused::No("it gives an IPv6 address".into()))?;
        judge(ip, outside.port(), lifetime)
    })
}

/// Gives a mapping back.
pub(super) async fn unmap(target: &Target, nonce: &[u8; 12]) -> Result<(), Refused> {
    let nothing = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let question = request(target, nonce, Duration::ZERO, nothing);
    ask(target, &question, |bytes| response(target, nonce, bytes)).await?.map(drop)
}

fn request(target: &Target, nonce: &[u8; 12], lifetime: Duration, wished: SocketAddrV4) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    bytes[0] = VERSION;
    bytes[1] = MAP;
    bytes[4..8].copy_from_slice(&u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
    bytes[8..24].copy_from_slice(&target.client.to_ipv6_mapped().octets());
    bytes[24..36].copy_from_slice(nonce);
    bytes[36] = UDP;
    bytes[40..42].copy_from_slice(&target.port.to_be_bytes());
    bytes[42..44].copy_from_slice(&wished.port().to_be_bytes());
    bytes[44..60].copy_from_slice(&wished.ip().to_ipv6_mapped().octets());
    bytes
}

type Answer = Result<(std::net::SocketAddrV6, Duration), Refused>;

fn response(target: &Target, nonce: &[u8; 12], bytes: &[u8]) -> Read<Answer> {
    let [version, operation, _, code, ..] = *bytes else { return Read::Other };
    if version == VERSION_OF_NATPMP && operation & RESPONSE != 0 {
        // NAT-PMP answers a version that it does not know with its own (RFC 6887 appendix A).
        return Read::Answer(Err(Refused::Unsupported));
    }
    let (Some(header), true) = (bytes.first_chunk::<HEADER_BYTES>(), operation == RESPONSE | MAP) else {
        return Read::Other;
    };
    let whole = bytes.first_chunk::<MESSAGE_BYTES>();
    let is_ours = |bytes: &[u8; MESSAGE_BYTES]| {
        bytes[24..36] == *nonce && bytes[36] == UDP && bytes[40..42] == target.port.to_be_bytes()
    };
    match (code, whole) {
        _ if whole.is_some_and(|bytes| !is_ours(bytes)) => Read::Other,
        (0, Some(bytes)) if version == VERSION => {
            let lifetime = Duration::from_secs(word(header, 4).into());
            let port = u16::from_be_bytes([bytes[42], bytes[43]]);
            let mut ip = [0; 16];
            ip.copy_from_slice(&bytes[44..60]);
            Read::Answer(Ok((std::net::SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, 0), lifetime)))
        }
        (0, _) => Read::Other,
        (1, _) => Read::Answer(Err(Refused::Unsupported)),
        (code, _) => Read::Answer(Err(Refused::No(meaning(code)))),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(*bytes[at..].first_chunk().expect("the message is longer"))
}

/// Result codes, RFC 6887 section 7.4.
fn meaning(code: u8) -> String {
    let meaning = match code {
        2 => "not authorized",
        3 => "malformed request",
        4 => "unsupported operation",
        7 => "no network",
        8 => "no resources",
        10 => "quota exceeded",
        11 => "no such address or port outside",
        12 => "another router stands between",
        _ => return format!("PCP error {code}"),
    };
    meaning.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 12] = *b"twelve bytes";

    fn target() -> Target {
        Target { router: Ipv4Addr::new(10, 1, 0, 1), client: Ipv4Addr::new(10, 1, 0, 2), interface: None, port: 0xf00d }
    }

    /// What a router answers that maps the port to 198.51.100.7:4660 for two hours.
    fn granted() -> Vec<u8> {
        let mut bytes = vec![2, 0x81, 0, 0, 0, 0, 0x1c, 0x20, 0, 0, 0, 9];
        bytes.resize(24, 0);
        bytes.extend_from_slice(&NONCE);
        bytes.extend_from_slice(&[17, 0, 0, 0, 0xf0, 0x0d, 0x12, 0x34]);
        bytes.extend_from_slice(&Ipv4Addr::new(198, 51, 100, 7).to_ipv6_mapped().octets());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Answer> {
        match response(&target(), &NONCE, bytes) {
            Read::Answer(answer) => Some(answer),
            Read::Other => None,
        }
    }

    #[test]
    fn the_request_is_as_the_rfc_draws_it() {
        let bytes = request(&target(), &NONCE, LIFETIME, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0xbeef));
        let mut expect = vec![2, 1, 0, 0, 0, 0, 2, 88];
        expect.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 2]);
        expect.extend_from_slice(b"twelve bytes");
        expect.extend_from_slice(&[17, 0, 0, 0, 0xf0, 0x0d, 0xbe, 0xef]);
        expect.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(bytes.as_slice(), expect);
    }

    #[test]
    fn what_is_granted_is_read() {
        let (outside, lifetime) = read(&granted()).unwrap().unwrap();
        assert_eq!((outside.to_string().as_str(), lifetime.as_secs()), ("[::ffff:198.51.100.7]:4660", 7200));
        // Options behind it are passed over.
        assert_eq!(read(&[granted(), vec![0; 40]].concat()).unwrap(), read(&granted()).unwrap());
    }

    #[test]
    fn an_error_ends_the_question_and_another_version_the_protocol() {
        let mut bytes = granted();
        bytes[3] = 2;
        assert_eq!(read(&bytes), Some(Err(Refused::No("not authorized".into()))));
        assert_eq!(read(&bytes[..24]), Some(Err(Refused::No("not authorized".into()))), "without the request's copy");
        bytes[3] = 99;
        assert_eq!(read(&bytes), Some(Err(Refused::No("PCP error 99".into()))));
        bytes[3] = 1;
        assert_eq!(read(&bytes), Some(Err(Refused::Unsupported)));
        assert_eq!(read(&[0, 0x80, 0, 1, 0, 0, 0, 9]), Some(Err(Refused::Unsupported)), "as NAT-PMP says it");
    }

    #[test]
    fn what_answers_something_else_is_passed_over() {
        for length in 0..60 {
            let cut = &granted()[..length];
            assert_eq!(read(cut), None, "{length} bytes");
        }
        // Version, direction, operation, nonce, protocol, our port.
        for (at, value) in [(0, 1), (1, 1), (1, 0x82), (24, 0), (35, 0), (36, 6), (40, 0), (41, 0)] {
            let mut bytes = granted();
            bytes[at] = value;
            assert_eq!(read(&bytes), None, "byte {at}");
        }
    }
}
