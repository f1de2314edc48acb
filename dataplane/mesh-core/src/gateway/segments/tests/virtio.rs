//! The header in front of packets.

use proptest::prelude::*;

use crate::drops::DropReason;
use crate::gateway::segments::VirtioHeader;
use crate::gateway::segments::virtio::{Cut, CutKind, Partial};

fn check(bytes: [u8; 10], header: VirtioHeader) {
    assert_eq!(VirtioHeader::parse(&bytes), Ok(header));
    assert_eq!(header.emit(), bytes);
}

#[test]
fn golden_bytes() {
    check([0; 10], VirtioHeader::default());
    let checksum = Some(Partial { start: 20, offset: 6 });
    check([1, 0, 0, 0, 0, 0, 20, 0, 6, 0], VirtioHeader { checksum, cut: None });
    let checksum = Some(Partial { start: 0x0128, offset: 16 });
    for (byte, kind, ecn) in [
        (1, CutKind::Tcp4, false),
        (4, CutKind::Tcp6, false),
        (5, CutKind::Udp, false),
        (0x81, CutKind::Tcp4, true),
        (0x84, CutKind::Tcp6, true),
    ] {
        let cut = Some(Cut { kind, ecn, header_bytes: 0x0234, payload_bytes: 1348 });
        check([1, byte, 0x34, 2, 0x44, 5, 0x28, 1, 16, 0], VirtioHeader { checksum, cut });
    }
}

#[test]
fn what_else_flags_say_is_not_read() {
    assert_eq!(VirtioHeader::parse(&[2, 0, 9, 9, 9, 9, 9, 9, 9, 9]), Ok(VirtioHeader::default()));
    let header = VirtioHeader::parse(&[0xff, 0, 0, 0, 0, 0, 40, 0, 16, 0, 0x60]).unwrap();
    assert_eq!(header, VirtioHeader { checksum: Some(Partial { start: 40, offset: 16 }), cut: None });
}

#[test]
fn a_bad_header_is_refused() {
    for bytes in [
        &[0_u8; 9][..],
        &[],
        &[1, 3, 28, 0, 100, 0, 20, 0, 6, 0],
        &[1, 2, 40, 0, 100, 0, 20, 0, 16, 0],
        &[1, 0x80, 40, 0, 100, 0, 20, 0, 16, 0],
        &[1, 0x11, 40, 0, 100, 0, 20, 0, 16, 0],
        &[1, 1, 40, 0, 0, 0, 20, 0, 16, 0],
    ] {
        assert_eq!(VirtioHeader::parse(bytes), Err(DropReason::BadOffload), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn what_is_read_is_written_again(bytes in any::<[u8; 10]>()) {
        if let Ok(header) = VirtioHeader::parse(&bytes) {
            prop_assert_eq!(VirtioHeader::parse(&header.emit()), Ok(header));
        }
    }
}
