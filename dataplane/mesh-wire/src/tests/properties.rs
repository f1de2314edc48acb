//! For any bytes: no panic, and what is read and written again is the same.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use proptest::prelude::*;

use crate::CONTROL_BYTES_MAX;
use crate::cookie::CookieReply;
use crate::frame::{FrameType, classify};
use crate::half::{Half, Part};
use crate::handshake::{Final, Init, Response};
use crate::message::{Message, NAME_BYTES_MAX, PeerRecord, TICKET_BYTES_MAX, Target};
use crate::notice::{ErrorReason, ErrorReply, RegisterAgain};
use crate::observe::{OBSERVE_BYTES, Observe, Observed, mac_input};
use crate::route::{Destination, ROUTE_BYTES, Route, Slot};
use crate::sealed::{HEADER_BYTES, SealedHeader};
use crate::stream::{FRAME_BYTES_MAX, Frames, LENGTH_BYTES, length};

fn slot() -> impl Strategy<Value = Slot> {
    (any::<u32>(), any::<u16>()).prop_map(|(index, generation)| Slot { index, generation })
}

fn route() -> impl Strategy<Value = Route> {
    (any::<u16>(), slot(), slot())
        .prop_map(|(transfer, to, source)| Route { destination: Destination { transfer, slot: to }, source })
}

proptest! {
    #[test]
    fn any_datagram_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let _ = bytes.first().map(|byte| classify(*byte));
        if let Ok(route) = Route::parse(&bytes) {
            prop_assert_eq!(&route.emit(FrameType::Data, bytes[1])[1..], &bytes[1..ROUTE_BYTES]);
        }
        if let Ok(header) = SealedHeader::parse(&bytes) {
            prop_assert_eq!(&header.emit()[..], &bytes[..HEADER_BYTES]);
        }
        let _ = (Init::parse(&bytes), Response::parse(&bytes), Final::parse(&bytes), CookieReply::parse(&bytes));
        let _ = (RegisterAgain::parse(&bytes), ErrorReply::parse(&bytes), Message::decode(&bytes));
        let _ = (Observe::parse(&bytes), Observed::parse(&bytes), mac_input(&bytes));
        let _ = (Half::parse(Part::First, &bytes), Half::parse(Part::Second, &bytes));
    }

    #[test]
    fn a_mutated_frame_is_read_without_panic(frame in 0u8..8, bytes in prop::collection::vec(any::<u8>(), 1..400)) {
        let mut bytes = bytes;
        bytes[0] = 0x20 | frame;
        bytes.resize(320, 0);
        if bytes.len() > 27 {
            // Lengths near the edges are where readers go wrong.
            bytes[22] = 1;
            bytes[26] = 1;
        }
        let _ = (Init::parse(&bytes), Response::parse(&bytes), Final::parse(&bytes));
    }

    #[test]
    fn error_reply_is_never_longer_than_its_cause(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
        if let Some(reply) = ErrorReply::to(ErrorReason::Version, &bytes) {
            prop_assert!(reply.emit().len() <= bytes.len());
        }
    }

    #[test]
    fn route_survives(route in route(), flags in any::<u8>()) {
        let bytes = route.emit(FrameType::Control, flags);
        prop_assert_eq!(Route::parse(&bytes), Ok(route));
        prop_assert_eq!(bytes[1], flags);
    }

    #[test]
    fn register_survives_and_fits(
        request in any::<u32>(),
        boot in any::<u64>(),
        ip4 in any::<u32>(),
        name in "[a-z0-9äö-]{0,24}",
        ticket in prop::collection::vec(any::<u8>(), 0..=TICKET_BYTES_MAX),
    ) {
        prop_assume!(name.len() <= NAME_BYTES_MAX);
        let message = Message::Register { request, boot, ip4: Ipv4Addr::from(ip4), name, ticket: Bytes::from(ticket) };
        let bytes = message.to_vec();
        prop_assert!(bytes.len() < CONTROL_BYTES_MAX / 2);
        prop_assert_eq!(Message::decode(&bytes), Ok(Some(message)));
    }

    #[test]
    fn found_survives(
        request in any::<u32>(),
        ip4 in any::<u32>(),
        key in any::<[u8; 32]>(),
        slot in slot(),
        boot in any::<u64>(),
        change in any::<u32>(),
    ) {
        let peer = PeerRecord { ip4: Ipv4Addr::from(ip4), key, slot, boot, name: String::new(), observed: None };
        let message = Message::Found { request, change, peer };
        prop_assert_eq!(Message::decode(&message.to_vec()), Ok(Some(message)));
    }

    #[test]
    fn messages_of_a_search_survive(request in any::<u32>(), ip in any::<u32>(), port in any::<u16>(), number in any::<u16>()) {
        let (ip4, target) = (Ipv4Addr::from(ip), SocketAddr::from((Ipv4Addr::from(ip), port)));
        for message in [
            Message::SearchRequest { request, target: Target::Address(ip4) },
            Message::SearchGrant { request, target, seconds: number },
            Message::SearchRefused { request, wait_seconds: number },
            Message::SearchBegin { request, endpoint: target },
            Message::SearchReady { request, sockets: number.into() },
        ] {
            prop_assert_eq!(Message::decode(&message.to_padded_vec()), Ok(Some(message)));
        }
    }

    #[test]
    fn observed_survives_and_is_as_long_as_its_question(
        nonce in any::<[u8; 12]>(),
        ip in any::<u128>(),
        port in any::<u16>(),
        mac in any::<[u8; 16]>(),
    ) {
        let ip = IpAddr::from(ip.to_be_bytes()).to_canonical();
        let endpoint = SocketAddr::new(ip, port);
        let bytes = Observed::emit(&nonce, &endpoint, |_| mac);
        prop_assert_eq!(Observed::parse(&bytes), Ok(Observed { nonce, endpoint, mac }));
        prop_assert_eq!(Observe::emit(&nonce, |_| mac).len(), OBSERVE_BYTES);
        prop_assert_eq!(bytes.len(), OBSERVE_BYTES);
    }

    #[test]
    fn cut_message_is_an_error_or_another_message_but_no_panic(cut in 0usize..90, seed in any::<[u8; 32]>()) {
        let peer = PeerRecord { ip4: Ipv4Addr::LOCALHOST, key: seed, slot: Slot::NONE, boot: 1, name: "x".to_owned(), observed: None };
        let bytes = Message::Found { request: 1, change: 0, peer }.to_vec();
        let _ = Message::decode(&bytes[..cut.min(bytes.len())]);
    }

    /// However TCP cuts a stream, the frames are the same, and no more is held than one of them and what was fed last.
    #[test]
    fn any_split_of_a_stream_gives_the_same_frames(
        sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut stream = Vec::new();
        for frame in &sent {
            stream.extend_from_slice(&length(frame.len()).unwrap());
            stream.extend_from_slice(frame);
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let (mut frames, mut received) = (Frames::default(), Vec::new());
        for piece in cuts.windows(2) {
            frames.feed(&stream[piece[0]..piece[1]]);
            while let Some(frame) = frames.next().unwrap() {
                received.push(frame.to_vec());
            }
            prop_assert!(frames.waiting() < LENGTH_BYTES + 2000);
        }
        prop_assert_eq!(received, sent);
        prop_assert_eq!(frames.waiting(), 0);
    }

    /// Garbage is read as frames or refused; it never panics, and what waits is bounded.
    #[test]
    fn any_stream_is_read_without_panic(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..100),
    ) {
        let mut frames = Frames::default();
        for piece in pieces {
            frames.feed(&piece);
            let end = loop {
                match frames.next() {
                    Ok(Some(frame)) => prop_assert!((1..=FRAME_BYTES_MAX).contains(&frame.len())),
                    other => break other.map(|_| ()),
                }
            };
            if end.is_err() {
                break;
            }
            prop_assert!(frames.waiting() < LENGTH_BYTES + FRAME_BYTES_MAX);
        }
    }
}
