//! Headings as the kernel writes them, and as it never should.

use std::net::SocketAddr;

use super::{CONTROL_BYTES, HEADING_BYTES, NAME_BYTES, OUT_BYTES, parse};

/// A heading from `127.0.0.1:7` with these control messages.
fn heading(flags: u32, messages: &[(i32, i32, &[u8])]) -> [u8; HEADING_BYTES] {
    let mut bytes = [0; HEADING_BYTES];
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes[OUT_BYTES..OUT_BYTES + 2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    bytes[OUT_BYTES + 2..OUT_BYTES + 8].copy_from_slice(&[0, 7, 127, 0, 0, 1]);
    let mut at = OUT_BYTES + NAME_BYTES;
    for (level, kind, data) in messages {
        bytes[at..at + 8].copy_from_slice(&(16 + data.len()).to_ne_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&level.to_ne_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&kind.to_ne_bytes());
        bytes[at + 16..at + 16 + data.len()].copy_from_slice(data);
        at += (16 + data.len()).next_multiple_of(8);
    }
    let control = (at - OUT_BYTES - NAME_BYTES) as u32;
    bytes[4..8].copy_from_slice(&control.to_ne_bytes());
    bytes
}

#[test]
fn segment_size_tos_and_local_address_are_read() {
    let gro = 100_i32.to_ne_bytes();
    let mut info = [0; 12];
    info[4..8].copy_from_slice(&[127, 0, 0, 2]);
    let heading = heading(
        0,
        &[
            (libc::SOL_UDP, libc::UDP_GRO, &gro),
            (libc::IPPROTO_IP, libc::IP_TOS, &[0xb8]),
            (libc::IPPROTO_IP, libc::IP_PKTINFO, &info),
        ],
    );
    let received = parse(&heading, HEADING_BYTES + 250).unwrap();
    assert_eq!((received.length, received.segment_bytes, received.tos), (250, 100, 0xb8));
    assert_eq!(received.remote, SocketAddr::from(([127, 0, 0, 1], 7)));
    assert_eq!(received.local, Some([127, 0, 0, 2].into()));
}

#[test]
fn a_datagram_alone_is_its_own_stride_and_an_empty_one_has_stride_one() {
    let received = parse(&heading(0, &[]), HEADING_BYTES + 250).unwrap();
    assert_eq!(received.segment_bytes, 250);
    let received = parse(&heading(0, &[]), HEADING_BYTES).unwrap();
    assert_eq!((received.length, received.segment_bytes), (0, 1));
}

#[test]
fn what_was_cut_is_refused() {
    assert_eq!(parse(&heading(libc::MSG_TRUNC as u32, &[]), HEADING_BYTES + 10), None);
    assert_eq!(parse(&heading(libc::MSG_CTRUNC as u32, &[]), HEADING_BYTES + 10), None);
    assert_eq!(parse(&heading(0, &[]), HEADING_BYTES - 1), None);
}

#[test]
fn nonsense_in_control_messages_ends_the_walk() {
    let mut bytes = heading(0, &[(libc::IPPROTO_IP, libc::IP_TOS, &[4])]);
    let at = OUT_BYTES + NAME_BYTES;
    for length in [0_usize, 1, 15, CONTROL_BYTES + 1, usize::MAX] {
        bytes[at..at + 8].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(parse(&bytes, HEADING_BYTES + 1).unwrap().tos, 0);
    }
    bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(parse(&bytes, HEADING_BYTES + 1).is_some());
}
