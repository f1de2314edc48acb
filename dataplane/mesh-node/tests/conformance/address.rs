//! What travels beside the bytes: TOS, and the local address that was asked.

use std::net::{Ipv4Addr, UdpSocket};

use crate::support::{Conforms, Rig, outside, peer, receive_from};

/// Sends a datagram with `tos` through the engine and back; the TOS byte that came back.
fn tos_round_trip<E: Conforms>(tos: u8) -> u8 {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
    use std::os::fd::AsRawFd;

    let (mut rig, _, address) = Rig::<E>::with_socket();
    let peer = peer();
    setsockopt(&peer, sockopt::Ipv4Tos, &i32::from(tos)).expect("a TOS byte");
    setsockopt(&peer, sockopt::IpRecvTos, &true).expect("received TOS bytes");
    peer.send_to(b"marked", address).unwrap();
    rig.echo(1);
    let mut buffer = [0; 64];
    let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!(u8, i32);
    let message = recvmsg::<SockaddrStorage>(peer.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
        .expect("a datagram that was sent arrives");
    let mut marks = message.cmsgs().expect("whole control messages");
    marks
        .find_map(|mark| if let ControlMessageOwned::Ipv4Tos(tos) = mark { Some(tos) } else { None })
        .expect("the system reports the TOS byte")
}

pub(crate) fn ecn_travels_with_what_is_forwarded<E: Conforms>() {
    for ecn in 0..=3 {
        assert_eq!(tos_round_trip::<E>(ecn) & 3, ecn);
    }
}

pub(crate) fn dscp_travels_where_the_engine_reports_it<E: Conforms>() {
    let expected = if E::WHOLE_TOS { 0xB8 | 2 } else { 2 };
    assert_eq!(tos_round_trip::<E>(0xB8 | 2), expected);
}

pub(crate) fn answers_leave_from_the_address_that_was_asked<E: Conforms>() {
    for wildcard in ["0.0.0.0:0", "[::]:0"] {
        let mut rig = Rig::<E>::new();
        let socket = UdpSocket::bind(wildcard).expect("a socket on all addresses");
        let port = socket.local_addr().unwrap().port();
        rig.engine.add_socket(socket, true).unwrap();
        let peer = peer();
        for last in 1..=3 {
            let asked = Ipv4Addr::new(127, 0, 0, last);
            peer.send_to(b"where?", (asked, port)).unwrap();
            let arrival = rig.expect(b"where?");
            assert_eq!(outside(arrival).local, Some(asked.into()), "{wildcard}");
            peer.send_to(b"here?", (asked, port)).unwrap();
            rig.echo(1);
            assert_eq!(receive_from(&peer), (b"here?".to_vec(), (asked, port).into()), "{wildcard}");
        }
    }
}
