//! A capture sees what is on the cable, and an injector can put it there again.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "the times of captured frames are those of the wall clock")]

use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use mesh_lab::{Lab, Ping, isolated};

#[test]
fn capture_sees_frames_and_injector_replays_them() {
    isolated(|| {
        let lab = Lab::new("replay")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        lab.link(&a, &b, &["10.1.0.0/24"])?;
        let server = b.udp((b.ipv4()?, 8000).into())?;
        let client = a.udp((a.ipv4()?, 0).into())?;
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut buffer = [0; 100];

        let (at_a, at_b, start) = (a.capture("eth0")?, b.capture("eth0")?, SystemTime::now());
        client.send_to(b"the secret word", server.local_addr()?)?;
        assert_eq!(server.recv_from(&mut buffer)?.0, 15);
        let (at_a, at_b) = (at_a.stop()?, at_b.stop()?);

        assert_eq!((at_a.lost, at_b.lost), (0, 0));
        let sent = at_a.find(b"secret word").unwrap();
        let received = at_b.find(b"secret word").unwrap();
        assert!(sent.outgoing && !received.outgoing);
        assert_eq!(sent.bytes.len(), 14 + 20 + 8 + 15);
        assert!(sent.at >= start - Duration::from_secs(1) && sent.at <= SystemTime::now());
        assert!(at_a.find(b"secret wort").is_none());

        server.set_read_timeout(Some(Duration::from_millis(200)))?;
        let nothing = server.recv_from(&mut buffer).unwrap_err().kind();
        assert!(matches!(nothing, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{nothing}");
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Its checksum is unfinished where offload leaves that to the receiver, which then drops the frame.
        a.injector("eth0")?.send(&with_udp_checksum_zero(&sent.bytes))?;
        let (length, from) = server.recv_from(&mut buffer)?;
        assert_eq!((&buffer[..length], from), (&b"the secret word"[..], client.local_addr()?));

        let path = std::env::temp_dir().join(format!("mesh-lab-test-{}.pcap", std::process::id()));
        at_a.write_pcap(&path)?;
        let file = std::fs::read(&path)?;
        std::fs::remove_file(&path)?;
        assert_eq!(file.len(), 24 + at_a.frames.iter().map(|frame| 16 + frame.bytes.len()).sum::<usize>());
        Ok(())
    });
}

#[test]
fn capture_loses_nothing_in_a_burst() {
    isolated(|| {
        let lab = Lab::new("burst")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let lan = lab.lan(&[&a, &b], &["10.1.0.0/24"])?;
        assert!(a.ping(b.ipv4()?, Ping::default())?.perfect());
        let client = a.udp((a.ipv4()?, 0).into())?;
        let captures = [a.capture("eth0")?, lan.switch().capture("p0")?, b.capture("eth0")?];
        for number in 0..5000_u32 {
            client.send_to(&[b"burst".as_slice(), &number.to_be_bytes()].concat(), (b.ipv4()?, 9))?;
        }
        // The kernel handles a host's packets in order: when the ping is back, all before it have passed.
        assert!(a.ping(b.ipv4()?, Ping::default())?.perfect());
        for capture in captures {
            let recording = capture.stop()?;
            let seen = recording.frames.iter().filter(|frame| frame.bytes.get(42..47) == Some(b"burst")).count() as u64;
            assert_eq!(seen + recording.lost, 5000);
            assert!(seen > 0 && recording.find(&[b"burst".as_slice(), &0_u32.to_be_bytes()].concat()).is_some());
        }
        Ok(())
    });
}

/// In IPv4 a checksum of 0 means that there is none (RFC 768).
fn with_udp_checksum_zero(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[14 + 20 + 6..14 + 20 + 8].fill(0);
    frame
}
