//! One vector for each frame and message, with its fields spelled out.

use std::net::Ipv4Addr;

use bytes::Bytes;

use super::hex;
use crate::Malformed;
use crate::beacon::Beacon;
use crate::cookie::CookieReply;
use crate::frame::{FirstByte, FrameType, classify};
use crate::half::{Half, Part};
use crate::handshake::{self, Final, INIT_BYTES, Init, Kind, Response};
use crate::message::{Candidate, CandidateKind, CloseReason, Mapping, Message, PeerRecord, RefusedReason, Target};
use crate::notice::{AgainReason, ErrorReason, ErrorReply, RegisterAgain};
use crate::observe::{Observe, Observed, mac_input};
use crate::route::{Destination, Route, Slot};
use crate::sealed::{SealedHeader, flags};
use crate::stream::{FRAME_BYTES_MAX, Frames, length};

const ROUTE: Route = Route {
    destination: Destination { transfer: 0x0102, slot: Slot { index: 0x0304_0506, generation: 0x0708 } },
    source: Slot { index: 0x090a_0b0c, generation: 0x0d0e },
};

#[test]
fn first_byte_names_version_and_type() {
    assert_eq!(classify(0x20), FirstByte::Frame(FrameType::Data));
    assert_eq!(classify(0x27), FirstByte::Frame(FrameType::Error));
    assert_eq!(classify(0x2a), FirstByte::Frame(FrameType::Beacon));
    assert_eq!(classify(0x28), FirstByte::UnknownType);
    for first_edition in [0x00, 0x10, 0x45, 0x60] {
        assert_eq!(classify(first_edition), FirstByte::FirstEdition);
    }
    assert_eq!(classify(0x30), FirstByte::OtherVersion(3));
    assert_eq!(classify(0xff), FirstByte::OtherVersion(15));
    for byte in 0..=255u8 {
        if let FirstByte::Frame(frame) = classify(byte) {
            assert_eq!(frame.byte(), byte);
        }
    }
}

#[test]
fn data_header_is_28_bytes_in_this_order() {
    let header = SealedHeader {
        frame: FrameType::Data,
        flags: flags::CHECKSUM_PARTIAL,
        route: ROUTE,
        receiver_index: 0x1112_1314,
        counter: 0x2122_2324_2526_2728,
    };
    let bytes = hex("20 01  0102 03040506 0708  090a0b0c 0d0e  11121314  2122232425262728");
    assert_eq!(header.emit().as_slice(), bytes);
    let datagram = [bytes, vec![0; 16]].concat();
    assert_eq!(SealedHeader::parse(&datagram), Ok(header));
    assert!(SealedHeader::parse(&datagram[..43]).is_err());
}

#[test]
fn direct_path_has_zero_addresses_and_the_same_size() {
    let header = SealedHeader { frame: FrameType::Data, flags: 0, route: Route::DIRECT, receiver_index: 1, counter: 2 };
    assert_eq!(header.emit().as_slice(), hex("20 00 0000 00000000 0000 00000000 0000 00000001 0000000000000002"));
}

#[test]
fn init_is_320_bytes_with_macs_last() {
    let bytes = Init::emit(
        &ROUTE,
        0x3132_3334,
        Kind::GatewayToTransfer,
        &[0xaa; 48],
        |covered| {
            assert_eq!(covered.len(), 288);
            [0xbb; 16]
        },
        |covered| {
            assert_eq!(covered.len(), 304);
            assert_eq!(covered[288..], [0xbb; 16]);
            [0xcc; 16]
        },
    );
    let head = hex("21 00 0102 03040506 0708 090a0b0c 0d0e  31323334  01 00 0030");
    assert_eq!(bytes[..24], head);
    assert_eq!(bytes[24..72], [0xaa; 48]);
    assert!(bytes[72..288].iter().all(|byte| *byte == 0));
    let init = Init::parse(&bytes).unwrap();
    assert_eq!((init.route, init.sender_index, init.kind), (ROUTE, 0x3132_3334, Kind::GatewayToTransfer));
    assert_eq!((init.noise, init.mac1, init.mac2), ([0xaa; 48].as_slice(), [0xbb; 16], [0xcc; 16]));
    assert_eq!((Init::mac1_input(&bytes).len(), Init::mac2_input(&bytes).len()), (288, 304));
    assert!(Init::parse(&bytes[..INIT_BYTES - 1]).is_err());
    assert!(Init::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn response_and_final_hold_nothing_but_their_noise() {
    let mut bytes = Vec::new();
    Response::emit(&mut bytes, &ROUTE, 0x4142_4344, 0x5152_5354, Kind::GatewayToGateway, &[0xaa; 3], |covered| {
        assert_eq!(covered.len(), 31);
        [0xbb; 16]
    });
    let head = hex("22 00 0102 03040506 0708 090a0b0c 0d0e  41424344 51525354  02 00 0003  aaaaaa");
    assert_eq!(bytes, [head, vec![0xbb; 16]].concat());
    let response = Response::parse(&bytes).unwrap();
    assert_eq!((response.sender_index, response.receiver_index), (0x4142_4344, 0x5152_5354));
    assert_eq!((response.noise, response.mac1), ([0xaa; 3].as_slice(), [0xbb; 16]));
    assert_eq!(handshake::mac1_input(&bytes).len(), 31);
    assert!(Response::parse(&bytes[..bytes.len() - 1]).is_err());

    let mut bytes = Vec::new();
    Final::emit(&mut bytes, &ROUTE, 0x6162_6364, Kind::GatewayToGateway, &[0xaa; 2], |_| [0xbb; 16]);
    let head = hex("23 00 0102 03040506 0708 090a0b0c 0d0e  61626364  02 00 0002  aaaa");
    assert_eq!(bytes, [head, vec![0xbb; 16]].concat());
    assert_eq!(Final::parse(&bytes).unwrap().noise, [0xaa; 2]);
    assert!(Final::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn cookie_reply_is_64_bytes() {
    let reply = CookieReply { route: ROUTE, receiver_index: 0x7172_7374, nonce: [0x0a; 12], sealed: [0x0b; 32] };
    let head = hex("24 00 0102 03040506 0708 090a0b0c 0d0e  71727374");
    assert_eq!(reply.emit().as_slice(), [head, vec![0x0a; 12], vec![0x0b; 32]].concat());
    assert_eq!(CookieReply::parse(&reply.emit()), Ok(reply));
}

#[test]
fn notices_are_shorter_than_what_they_answer() {
    let again = RegisterAgain { reason: AgainReason::UnknownDestination, route: ROUTE };
    assert_eq!(again.emit().as_slice(), hex("26 02 0102 03040506 0708 090a0b0c 0d0e"));
    assert_eq!(RegisterAgain::parse(&again.emit()), Ok(again));

    let datagram = hex("30 41 42 43 44 45 46 47");
    let error = ErrorReply::to(ErrorReason::Version, &datagram).unwrap();
    assert_eq!(error.emit().as_slice(), hex("27 01 02 02 30414243"));
    assert_eq!(ErrorReply::parse(&error.emit()), Ok(error));
    assert_eq!(ErrorReply::to(ErrorReason::Version, &datagram[..7]), None);
}

#[test]
fn beacon_has_these_bytes() {
    let sender = [0x44; 16];
    let header = Beacon::header(&sender, 0x0102);
    assert_eq!(header.to_vec(), hex(&format!("2a00 {} 0000000000000102", "44".repeat(16))));
    let whole = [header.as_slice(), &[7; 20]].concat();
    assert_eq!(Beacon::parse(&whole), Ok(Beacon { sender, counter: 0x0102, sealed: &[7; 20] }));
    assert!(Beacon::parse(&whole[..42]).is_err(), "there is nothing but a tag");
    assert!(Beacon::parse(&[whole.as_slice(), &[0; 240]].concat()).is_err());
    assert!(Beacon::parse(&[0x2a]).is_err());
}

#[test]
fn halves_tell_their_part_by_length() {
    assert_eq!(Half::header(0x0102, 5), [1, 2, 0, 5]);
    let first = Half::parse(Part::First, &[1, 2, 0, 5, 10, 11, 12]).unwrap();
    assert_eq!((first.id, first.packet_bytes, first.bytes), (0x0102, 5, [10, 11, 12].as_slice()));
    assert_eq!(Half::parse(Part::Second, &[1, 2, 0, 5, 13, 14]).unwrap().bytes, [13, 14]);
    assert!(Half::parse(Part::Second, &[1, 2, 0, 5, 10, 11, 12]).is_err());
    assert!(Half::parse(Part::First, &[1, 2, 0]).is_err());
}

/// The bytes of each message; decoding them gives the message back.
#[test]
fn messages_have_these_bytes() {
    let slot = Slot { index: 7, generation: 0x0102 };
    let peer = PeerRecord {
        ip4: Ipv4Addr::new(172, 168, 3, 2),
        key: [0x55; 32],
        slot,
        boot: 0x0102_0304_0506_0708,
        name: "nas".to_owned(),
        observed: None,
    };
    let seen = PeerRecord { observed: Some("192.0.2.1:4660".parse().unwrap()), ..peer.clone() };
    let peer_bytes = format!(
        "03 0004 aca80302  04 0020 {}  05 0006 000000070102  02 0008 0102030405060708  07 0003 6e6173",
        "55".repeat(32)
    );
    let ip4 = Ipv4Addr::new(172, 168, 3, 1);
    let cases = [
        (
            Message::Hello { ciphers: 3, features: 1, boot: 2, number: 0x0102 },
            "01  0d 0001 03  08 0004 00000001  02 0008 0000000000000002  0f 0008 0000000000000102".to_owned(),
        ),
        (Message::Welcome { cipher: 1, features: 0 }, "02  0d 0001 01  08 0004 00000000".to_owned()),
        (
            Message::Register { request: 9, boot: 1, ip4, name: "pc".to_owned(), ticket: Bytes::from_static(&[1, 2]) },
            "03  01 0004 00000009  02 0008 0000000000000001  03 0004 aca80301  07 0002 7063  09 0002 0102".to_owned(),
        ),
        (
            Message::Registered {
                request: 9,
                slot,
                observed: "192.0.2.1:4660".parse().unwrap(),
                boot: 2,
                lease_seconds: 120,
                change: 3,
                ticket: Bytes::new(),
                other_port: None,
            },
            "04  01 0004 00000009  05 0006 000000070102  06 0006 c00002011234  02 0008 0000000000000002  0c 0002 0078  0b 0004 00000003"
                .to_owned(),
        ),
        (
            Message::Registered {
                request: 9,
                slot,
                observed: "192.0.2.1:4660".parse().unwrap(),
                boot: 2,
                lease_seconds: 120,
                change: 3,
                ticket: Bytes::from_static(&[7]),
                other_port: Some(8001),
            },
            "04  01 0004 00000009  05 0006 000000070102  06 0006 c00002011234  02 0008 0000000000000002  0c 0002 0078  0b 0004 00000003 \
             09 0001 07  1e 0002 1f41"
                .to_owned(),
        ),
        (
            Message::Refused { request: 9, reason: RefusedReason::AddressTaken, ip4 },
            "05  01 0004 00000009  0a 0001 01  03 0004 aca80301".to_owned(),
        ),
        (Message::Keepalive { seq: 4, change: 3 }, "06  0e 0004 00000004  0b 0004 00000003".to_owned()),
        (
            Message::KeepaliveAck { seq: 4, observed: "[2001:db8::1]:4660".parse().unwrap(), boot: 2, change: 3 },
            "07  0e 0004 00000004  06 0012 20010db8000000000000000000000001 1234  02 0008 0000000000000002  0b 0004 00000003"
                .to_owned(),
        ),
        (Message::Lookup { request: 5, target: Target::Address(ip4) }, "08  01 0004 00000005  03 0004 aca80301".to_owned()),
        (Message::Lookup { request: 5, target: Target::Slot(slot) }, "08  01 0004 00000005  05 0006 000000070102".to_owned()),
        (
            Message::Found { request: 5, change: 6, peer: peer.clone() },
            format!("09  01 0004 00000005  0b 0004 00000006  {peer_bytes}"),
        ),
        (
            Message::Found { request: 5, change: 6, peer: seen },
            format!("09  01 0004 00000005  0b 0004 00000006  {peer_bytes}  06 0006 c00002011234"),
        ),
        (Message::NotFound { request: 5, target: Target::Address(ip4) }, "0a  01 0004 00000005  03 0004 aca80301".to_owned()),
        (Message::Change { number: 6, ip4, peer: None }, "0b  0b 0004 00000006  03 0004 aca80301".to_owned()),
        (Message::Change { number: 6, ip4: peer.ip4, peer: Some(peer) }, format!("0b  0b 0004 00000006  {peer_bytes}")),
        (Message::Goodbye, "0c".to_owned()),
        (Message::Identity { ip4, boot: 1 }, "0d  03 0004 aca80301  02 0008 0000000000000001".to_owned()),
        (Message::Confirm { ip4 }, "0e  03 0004 aca80301".to_owned()),
        (Message::Probe { seq: 1 }, "0f  0e 0004 00000001".to_owned()),
        (Message::ProbeReply { seq: 1 }, "10  0e 0004 00000001".to_owned()),
        (Message::Close { reason: CloseReason::Idle }, "11  0a 0001 02".to_owned()),
        (
            Message::Candidates {
                number: 2,
                acknowledged: 1,
                mapping: Mapping::EndpointDependent,
                list: vec![
                    Candidate { kind: CandidateKind::Host, endpoint: "10.0.0.1:4660".parse().unwrap() },
                    Candidate { kind: CandidateKind::Observed, endpoint: "[2001:db8::1]:4660".parse().unwrap() },
                ],
            },
            "12  0b 0004 00000002  10 0004 00000001  11 0001 02  \
             12 001c 01 06 0a000001 1234  02 12 20010db8000000000000000000000001 1234"
                .to_owned(),
        ),
        (Message::PathProbe { seq: 1, sent: 5 }, "13  0e 0004 00000001  13 0004 00000005".to_owned()),
        (
            Message::Presence { ip4, key: [0x55; 32], boot: 1, port: 4660 },
            format!("1e  03 0004 aca80301  04 0020 {}  02 0008 0000000000000001  1e 0002 1234", "55".repeat(32)),
        ),
        (
            Message::PathReply { seq: 1, received: 4, observed: "192.0.2.1:4660".parse().unwrap() },
            "14  0e 0004 00000001  13 0004 00000004  06 0006 c00002011234".to_owned(),
        ),
        (Message::SizeProbe { seq: 1 }, "15  0e 0004 00000001".to_owned()),
        (Message::SizeReply { seq: 1, bytes: 1472 }, "16  0e 0004 00000001  14 0002 05c0".to_owned()),
        (
            Message::SearchRequest { request: 5, target: Target::Address(ip4) },
            "18  01 0004 00000005  03 0004 aca80301".to_owned(),
        ),
        (
            Message::SearchGrant { request: 5, target: "192.0.2.1:4660".parse().unwrap(), seconds: 8 },
            "19  01 0004 00000005  06 0006 c00002011234  0c 0002 0008".to_owned(),
        ),
        (Message::SearchRefused { request: 5, wait_seconds: 43 }, "1a  01 0004 00000005  0c 0002 002b".to_owned()),
        (
            Message::SearchBegin { request: 5, endpoint: "192.0.2.1:4660".parse().unwrap() },
            "1b  01 0004 00000005  06 0006 c00002011234".to_owned(),
        ),
        (Message::SearchReady { request: 5, sockets: 256 }, "1c  01 0004 00000005  13 0004 00000100".to_owned()),
    ];
    for (message, text) in cases {
        assert_eq!(message.to_vec(), hex(&text), "{message:?}");
        assert_eq!(Message::decode(&hex(&text)), Ok(Some(message)));
    }
}

/// Requests as they are sent: behind the message a field of tag 0, which holds zeros.
#[test]
fn padded_requests_have_these_bytes() {
    let ip4 = Ipv4Addr::new(172, 168, 3, 1);
    let register = Message::Register { request: 9, boot: 1, ip4, name: "pc".to_owned(), ticket: Bytes::new() };
    let cases = [
        (
            register,
            "03  01 0004 00000009  02 0008 0000000000000001  03 0004 aca80301  07 0002 7063",
            Some(197 - 31 - 3),
        ),
        (Message::Keepalive { seq: 4, change: 3 }, "06  0e 0004 00000004  0b 0004 00000003", Some(47 - 15 - 3)),
        (
            Message::Lookup { request: 5, target: Target::Address(ip4) },
            "08  01 0004 00000005  03 0004 aca80301",
            Some(165 - 15 - 3),
        ),
        (Message::Identity { ip4, boot: 1 }, "0d  03 0004 aca80301  02 0008 0000000000000001", None),
        (Message::Probe { seq: 1 }, "0f  0e 0004 00000001", None),
        (Message::PathProbe { seq: 1, sent: 5 }, "13  0e 0004 00000001  13 0004 00000005", Some(36 - 15 - 3)),
        (Message::SizeProbe { seq: 1 }, "15  0e 0004 00000001", Some(13 - 8 - 3)),
        (
            Message::SearchRequest { request: 5, target: Target::Address(ip4) },
            "18  01 0004 00000005  03 0004 aca80301",
            Some(34 - 15 - 3),
        ),
    ];
    for (message, text, zeros) in cases {
        let padding = zeros.map_or_else(String::new, |zeros: usize| format!("00 {zeros:04x} {}", "00".repeat(zeros)));
        assert_eq!(message.to_padded_vec(), hex(&format!("{text} {padding}")), "{message:?}");
        assert_eq!(Message::decode(&message.to_padded_vec()), Ok(Some(message)));
    }
}

#[test]
fn observe_and_observed_are_48_bytes_with_the_mac_last() {
    let mac = |byte: u8| {
        move |covered: &[u8]| {
            assert_eq!(covered.len(), 32);
            [byte; 16]
        }
    };
    let nonce: [u8; 12] = std::array::from_fn(|at| at as u8 + 1);
    let asked = Observe::emit(&nonce, mac(0xaa));
    let text = format!("2b 00 0000  0102030405060708090a0b0c  {}  {}", "00".repeat(16), "aa".repeat(16));
    assert_eq!(asked.as_slice(), hex(&text));
    assert_eq!(Observe::parse(&asked), Ok(Observe { nonce, mac: [0xaa; 16] }));
    assert_eq!(mac_input(&asked), &asked[..32]);
    for (endpoint, address) in [
        ("192.0.2.1:4660", "00000000000000000000ffffc0000201"),
        ("[2001:db8::1]:4660", "20010db8000000000000000000000001"),
    ] {
        let endpoint = endpoint.parse().unwrap();
        let seen = Observed::emit(&nonce, &endpoint, mac(0xbb));
        let text = format!("2c 00 1234  0102030405060708090a0b0c  {address}  {}", "bb".repeat(16));
        assert_eq!(seen.as_slice(), hex(&text));
        assert_eq!(Observed::parse(&seen), Ok(Observed { nonce, endpoint, mac: [0xbb; 16] }));
        assert!(Observed::parse(&seen[..47]).is_err() && Observe::parse(&[&asked[..], &[0]].concat()).is_err());
    }
}

#[test]
fn candidates_of_unknown_kinds_or_lengths_are_skipped_and_there_are_sixteen_at_most() {
    let list = |text: &str| {
        let bytes = hex(text);
        let head = hex("12  0b 0004 00000002  10 0004 00000001  11 0001 07  12");
        let message = [head, vec![(bytes.len() >> 8) as u8, bytes.len() as u8], bytes].concat();
        match Message::decode(&message) {
            Ok(Some(Message::Candidates { mapping, list, .. })) => {
                assert_eq!(mapping, Mapping::Unknown, "a mapping of a later version");
                Ok(list)
            }
            other => Err(format!("{other:?}")),
        }
    };
    assert_eq!(list("09 06 0a000001 1234  01 03 aabbcc  01 06 0a000002 1234").unwrap().len(), 1);
    assert_eq!(list(&"01 06 0a000001 1234 ".repeat(40)).unwrap().len(), 16);
    assert_eq!(list("").unwrap(), []);
    assert!(list("01").is_err(), "a length is missing");
    assert!(list("01 06 0a0000").is_err(), "an address runs past the end");
}

#[test]
fn unknown_fields_are_skipped_and_unknown_kinds_are_none() {
    let known = Message::Probe { seq: 1 };
    let with_more = [known.to_vec(), hex("c8 0003 010203  0e 0004 00000009")].concat();
    assert_eq!(
        Message::decode(&with_more),
        Ok(Some(known)),
        "an unknown tag is skipped, of a second one the first counts"
    );
    assert_eq!(Message::decode(&hex("f0  01 0001 00")), Ok(None));
    assert!(Message::decode(&hex("f0  01 0005 00")).is_err(), "a field runs past the end");
    assert!(Message::decode(&[]).is_err());
    assert!(Message::decode(&hex("0f")).is_err(), "a field is missing");
    assert!(
        Message::decode(&hex("03  01 0004 00000009  02 0008 0000000000000001  03 0004 aca80301  07 0001 1b")).is_err(),
        "an escape in a name"
    );
}

/// A notice and an error as a stream carries them.
#[test]
fn frames_of_a_stream_stand_behind_their_length() {
    let stream = hex("0010 26020102030405060708090a0b0c0d0e  0008 2701020230414243");
    let mut frames = Frames::default();
    frames.feed(&stream);
    let again = RegisterAgain { reason: AgainReason::UnknownDestination, route: ROUTE };
    assert_eq!(frames.next(), Ok(Some(again.emit().as_slice())));
    let error = ErrorReply::to(ErrorReason::Version, &hex("30 41 42 43 44 45 46 47")).unwrap();
    assert_eq!(frames.next(), Ok(Some(error.emit().as_slice())));
    assert_eq!(frames.next(), Ok(None));
    assert_eq!(frames.waiting(), 0);
    assert_eq!([length(16), length(8), length(0x1234)], [Ok([0, 16]), Ok([0, 8]), Ok([0x12, 0x34])]);
}

#[test]
fn lengths_of_no_frame_end_a_stream() {
    assert_eq!(length(FRAME_BYTES_MAX), Ok([0xff, 0xe3]));
    assert_eq!(length(FRAME_BYTES_MAX + 1), Err(Malformed::TooLong));
    assert_eq!((length(0), length(usize::MAX)), (Err(Malformed::TooShort), Err(Malformed::TooLong)));
    for (bytes, why) in [("0000", Malformed::TooShort), ("ffe4", Malformed::TooLong), ("ffff", Malformed::TooLong)] {
        let mut frames = Frames::default();
        frames.feed(&hex(&format!("0001 aa {bytes}")));
        assert_eq!(frames.next(), Ok(Some([0xaa].as_slice())), "what came before is a frame all the same");
        assert_eq!(frames.next(), Err(why));
        frames.feed(&hex("0001 aa"));
        assert_eq!(frames.next(), Err(why), "and nothing after it is");
    }
}
