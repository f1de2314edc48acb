//! A link mode does to trains of packets what it says, and steering chooses the CPU that takes what arrives.
#![cfg(target_os = "linux")]

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mesh_lab::{Host, Interface, Lab, Link, LinkMode, Ping, isolated};
use nix::sys::socket::sockopt::{UdpGroSegment, UdpGsoSegment};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt};
use socket2::SockRef;

/// Datagrams in a train.
const TRAIN: usize = 10;

/// Bytes of a datagram.
const DATAGRAM_BYTES: usize = 1000;

/// Ethernet, IPv4 and UDP.
const HEADERS_BYTES: usize = 14 + 20 + 8;

/// The kernel lets nobody in a user namespace set how long a receiver waits or where it works.
fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.trim_end().ends_with("4294967295"))
}

/// What a train has become on its way.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Payload bytes of each frame the sender let go.
    sent: Vec<usize>,
    /// Payload bytes of each piece the receiver's socket got.
    received: Vec<usize>,
}

/// Sends one train from one end of a link to the other.
fn send_train(link: &Link) -> Result<Seen> {
    let (a, b) = (link.a().host(), link.b().host());
    // The way is known before the train comes: nothing of it waits for an answer to ARP.
    assert!(a.ping(b.ipv4()?, Ping::default())?.perfect());
    let (sender, receiver) = sockets(a, b)?;
    setsockopt(&receiver, UdpGroSegment, &true)?;
    setsockopt(&sender, UdpGsoSegment, &0)?;
    let payload: Vec<u8> = (0..TRAIN * DATAGRAM_BYTES).map(|at| (at / DATAGRAM_BYTES) as u8 + (at % 7) as u8).collect();
    let capture = a.capture("eth0")?;
    let size = DATAGRAM_BYTES as u16;
    let parts = [IoSlice::new(&payload)];
    let control = [ControlMessage::UdpGsoSegments(&size)];
    sendmsg::<SockaddrIn>(sender.as_raw_fd(), &parts, &control, MsgFlags::empty(), None)?;

    let (mut received, mut bytes) = (Vec::new(), Vec::new());
    while bytes.len() < payload.len() {
        let (piece, segment) = receive(&receiver)?;
        assert!(piece.len() <= DATAGRAM_BYTES || segment == Some(DATAGRAM_BYTES), "{} of {segment:?}", piece.len());
        received.push(piece.len());
        bytes.extend(piece);
    }
    assert_eq!(bytes, payload);
    let recording = capture.stop()?;
    assert_eq!(recording.lost, 0);
    let sent = recording.frames.iter().filter(|frame| frame.outgoing && frame.bytes.len() >= DATAGRAM_BYTES);
    Ok(Seen { sent: sent.map(|frame| frame.bytes.len() - HEADERS_BYTES).collect(), received })
}

/// A connected pair of sockets.
fn sockets(a: &Host, b: &Host) -> Result<(UdpSocket, UdpSocket)> {
    let (sender, receiver) = (a.udp((a.ipv4()?, 0).into())?, b.udp((b.ipv4()?, 0).into())?);
    sender.connect(receiver.local_addr()?)?;
    receiver.connect(sender.local_addr()?)?;
    receiver.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok((sender, receiver))
}

/// The next piece and the size of its datagrams, if it is a train.
fn receive(socket: &UdpSocket) -> Result<(Vec<u8>, Option<usize>)> {
    let mut buffer = vec![0; 1 << 16];
    let mut control = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let mut segment = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::UdpGroSegments(size) = part {
            segment = Some(usize::try_from(size)?);
        }
    }
    let length = message.bytes;
    buffer.truncate(length);
    Ok((buffer, segment))
}

fn singles() -> Vec<usize> {
    vec![DATAGRAM_BYTES; TRAIN]
}

#[test]
fn wire_cuts_trains_and_merges_none() {
    isolated(|| {
        let lab = Lab::new("wire")?;
        let link = lab.link(&lab.host("a")?, &lab.host("b")?, &["10.1.0.0/24"])?;
        link.set_mode(LinkMode::Wire)?;
        assert_eq!(send_train(&link)?, Seen { sent: singles(), received: singles() });
        for end in [link.a(), link.b()] {
            let features = end.features()?;
            for feature in ["tx-udp-segmentation", "tx-tcp-segmentation", "tx-generic-segmentation", "rx-gro"] {
                assert_eq!(features.get(feature), Some(&false), "{feature}");
            }
        }
        Ok(())
    });
}

#[test]
fn nic_cuts_trains_and_merges_them_again() {
    isolated(|| {
        let lab = Lab::new("nic")?;
        let link = lab.link(&lab.host("a")?, &lab.host("b")?, &["10.1.0.0/24"])?;
        link.set_mode(LinkMode::Nic)?;
        // How much is merged depends on when the receiving kernel works.
        for _ in 0..20 {
            let seen = send_train(&link)?;
            assert_eq!(seen.sent, singles());
            eprintln!("{:?}", seen.received);
            if seen.received.len() < TRAIN {
                return Ok(());
            }
        }
        bail!("nothing was merged in 20 trains");
    });
}

#[test]
fn veth_passes_trains_uncut() {
    isolated(|| {
        let lab = Lab::new("veth")?;
        let link = lab.link(&lab.host("a")?, &lab.host("b")?, &["10.1.0.0/24"])?;
        let whole = || Seen { sent: vec![TRAIN * DATAGRAM_BYTES], received: vec![TRAIN * DATAGRAM_BYTES] };
        assert_eq!(send_train(&link)?, whole(), "a new link");
        let features = link.a().features()?;
        // Going through the other modes leaves nothing behind.
        link.set_mode(LinkMode::Nic)?;
        link.set_mode(LinkMode::Wire)?;
        assert_ne!(link.a().features()?, features);
        link.set_mode(LinkMode::Veth)?;
        assert_eq!(send_train(&link)?, whole());
        assert_eq!(link.a().features()?, features);
        Ok(())
    });
}

#[test]
fn steered_packets_are_taken_by_the_cpu_chosen() {
    isolated(|| {
        let lab = Lab::new("steering")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let link = lab.link(&a, &b, &["10.1.0.0/24"])?;
        let end = link.b();
        if in_user_namespace() {
            let error = format!("{:#}", end.steer_receive(&[0]).unwrap_err());
            assert!(error.contains("rps_cpus") || error.contains("mount a /sys"), "{error}");
            return Ok(());
        }
        assert_eq!(end.receive_steering()?, []);
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
        let last = online.trim().rsplit([',', '-']).next().and_then(|number| number.parse::<usize>().ok());
        let last = last.with_context(|| format!("{online:?} names no CPU"))?;
        let (sender, receiver) = sockets(&a, &b)?;
        for cpu in [0, last, 0] {
            end.steer_receive(&[cpu])?;
            assert_eq!(end.receive_steering()?, [cpu]);
            for _ in 0..20 {
                sender.send(b"which CPU takes this?")?;
                receiver.recv(&mut [0; 100])?;
                assert_eq!(SockRef::from(&receiver).cpu_affinity()?, cpu, "the CPU that put it into the socket");
            }
        }
        end.steer_receive(&[])?;
        assert_eq!(end.receive_steering()?, []);
        assert!(end.steer_receive(&[8191]).is_err(), "no machine of today has so many CPUs");
        Ok(())
    });
}

#[test]
fn settings_of_an_interface_follow_its_host() {
    isolated(|| {
        let lab = Lab::new("names")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let link = lab.link(&a, &b, &["10.1.0.0/24"])?;
        // Both are called eth0; the machine may have one of that name, too.
        let steered = |end: &Interface| end.receive_steering();
        assert_eq!((link.a().name(), link.b().name()), ("eth0", "eth0"));
        if !in_user_namespace() {
            link.a().steer_receive(&[0])?;
            assert_eq!((steered(link.a())?, steered(link.b())?), (vec![0], vec![]));
        }
        link.a().set_transmit_offloads(false)?;
        let cuts = |end: &Interface| -> Result<bool> { Ok(!end.features()?["tx-udp-segmentation"]) };
        assert!(cuts(link.a())? && !cuts(link.b())?);
        let other = IpAddr::V4(*SocketAddrV4::new([10, 1, 0, 2].into(), 0).ip());
        assert!(a.ping(other, Ping::default())?.perfect());
        Ok(())
    });
}
