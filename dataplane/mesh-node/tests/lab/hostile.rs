//! Eavesdroppers, replays and garbage against the real programs.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_lab::{Frame, Host, Ping, isolated};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::fixture::{ONE, Site, TOKEN, ip, status, status_until};

const MARKER: &[u8] = b"an inner payload that nobody outside may read";
const PORT: u16 = 5000;

/// Sends markers one by one, so that each is a frame of its own on the wire.
fn send_markers(site: &Site, receiver: &UdpSocket, count: usize) -> Result<()> {
    let socket = site.offices[0].udp(SocketAddr::from((ip(0), 0)))?;
    receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut buffer = [0; 2048];
    for _ in 0..count {
        socket.send_to(MARKER, (IpAddr::V4(ip(1)), PORT))?;
        let (length, _) = receiver.recv_from(&mut buffer).context("a marker is lost")?;
        assert_eq!(&buffer[..length], MARKER);
    }
    Ok(())
}

/// How many markers arrive until none does for half a second.
fn received(socket: &UdpSocket) -> Result<usize> {
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 2048];
    let mut count = 0;
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        assert_eq!(&buffer[..length], MARKER);
        count += 1;
    }
    Ok(count)
}

fn refused_as_replay(host: &Host) -> Result<u64> {
    status(host, "gateway")?["replayed"].as_u64().context("a counter")
}

/// Data frames that arrived at a gateway from the transfer.
fn data_frames(frames: &[Frame]) -> Vec<&Frame> {
    frames
        .iter()
        .filter(|frame| !frame.outgoing && frame.bytes.get(23) == Some(&17) && frame.bytes.get(42) == Some(&0x20))
        .collect()
}

/// The frame without its UDP checksum, which was left to the hardware when it was captured; over IPv4 none is needed (RFC 768).
pub(crate) fn without_checksum(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.bytes.clone();
    bytes[40..42].fill(0);
    bytes
}

#[test]
fn captures_show_nothing_and_replays_deliver_nothing() {
    isolated(|| {
        let site = Site::new("capture", 2)?;
        let _transfer = site.transfer("1", &[])?;
        let captures =
            [site.cloud.capture("eth0")?, site.offices[0].capture("eth0")?, site.offices[1].capture("eth0")?];
        let mut gateways = vec![site.gateway(0, &[])?, site.gateway(1, &[])?];
        assert!(site.ping(0, 1, ONE)?.perfect());
        let receiver = site.offices[1].udp(SocketAddr::from((ip(1), PORT)))?;
        send_markers(&site, &receiver, 200)?;

        let recordings = captures.into_iter().map(mesh_lab::Capture::stop).collect::<Result<Vec<_>>>()?;
        let inner_pair = [ip(0).octets(), ip(1).octets()].concat();
        for recording in &recordings {
            assert!(recording.frames.len() > 200, "the tap saw the traffic: {}", recording.frames.len());
            for secret in [MARKER, &MARKER[..12], TOKEN.as_bytes(), &TOKEN.as_bytes()[..12], &inner_pair] {
                assert!(recording.find(secret).is_none(), "{:?} is on the wire", String::from_utf8_lossy(secret));
            }
        }

        // What the second gateway got is put before it again, as it came, from the cloud's link.
        let captured = data_frames(&recordings[2].frames);
        assert!(captured.len() >= 200, "{} data frames were captured", captured.len());
        let injector = site.cloud.injector("eth0")?;
        let replay = || -> Result<()> {
            for frame in &captured {
                injector.send(&without_checksum(frame))?;
            }
            Ok(())
        };
        let before = refused_as_replay(&site.offices[1])?;
        replay()?;
        assert_eq!(received(&receiver)?, 0, "within the same session");
        let after = refused_as_replay(&site.offices[1])?;
        assert!(after - before >= captured.len() as u64, "counted as replay: {before} to {after}");
        assert!(site.ping(0, 1, ONE)?.perfect(), "the session goes on");

        // Both ends restarted.
        drop(receiver);
        gateways.clear();
        gateways.push(site.gateway(0, &[])?);
        gateways.push(site.gateway(1, &[])?);
        site.ping_until_answered(0, 1, Duration::from_secs(3))?;
        let receiver = site.offices[1].udp(SocketAddr::from((ip(1), PORT)))?;
        replay()?;
        assert_eq!(received(&receiver)?, 0, "after both ends restarted");
        assert!(site.ping(0, 1, ONE)?.perfect());
        Ok(())
    });
}

/// Random, cut, mutated and replayed datagrams to every port; none may be answered with more bytes than it had.
#[test]
fn garbage_is_counted_and_answered_shorter_or_not_at_all() {
    isolated(|| {
        let site = Site::new("garbage", 3)?;
        let transfer = site.transfer("20", &[])?;
        let capture = site.cloud.capture("eth0")?;
        let gateways = [site.gateway(0, &[])?, site.gateway(1, &[])?];
        assert!(site.ping(0, 1, ONE)?.perfect());
        let genuine: Vec<Vec<u8>> = capture
            .stop()?
            .frames
            .iter()
            .filter(|frame| frame.bytes.get(23) == Some(&17))
            .map(|frame| frame.bytes[42..].to_vec())
            .collect();
        assert!(genuine.len() > 10, "{} datagrams to start from", genuine.len());
        let mut targets: Vec<SocketAddr> =
            (8000..8020).map(|port| SocketAddr::new(site.cloud.ipv4().expect("it has one"), port)).collect();
        for office in &site.offices[..2] {
            targets.push(gateway_endpoint(office)?);
        }
        let before: Vec<u64> =
            [&transfer, &gateways[0], &gateways[1]].map(mesh_lab::Process::rss).into_iter().collect::<Result<_>>()?;

        let stranger = site.offices[2].udp(SocketAddr::from(([0, 0, 0, 0], 0)))?;
        stranger.set_nonblocking(true)?;
        let mut rng = StdRng::seed_from_u64(7);
        let (mut sent, mut answered) = (0usize, 0usize);
        let mut buffer = vec![0; 65_536];
        let mut drain = |answered: &mut usize| {
            while let Ok((length, _)) = stranger.recv_from(&mut buffer) {
                *answered += length;
            }
        };
        for round in 0..60_000 {
            let mut bytes: Vec<u8> = match round % 6 {
                0 => (0..rng.random_range(0..1400)).map(|_| rng.random()).collect(),
                1 => b"\x10{\"IP\":\"::1\"".to_vec(),
                2 if round % 600 == 2 => vec![0x20; 65_507],
                2 => Vec::new(),
                _ => genuine[rng.random_range(0..genuine.len())].clone(),
            };
            if !bytes.is_empty() && rng.random_bool(0.6) {
                let at = rng.random_range(0..bytes.len());
                if rng.random_bool(0.3) { bytes.truncate(at) } else { bytes[at] = rng.random() }
            }
            let to = targets[rng.random_range(0..targets.len())];
            if stranger.send_to(&bytes, to).is_ok() {
                sent += bytes.len();
            }
            drain(&mut answered);
        }
        assert!(site.ping(0, 1, Ping { count: 20, interval: Duration::from_millis(10), ..ONE })?.received > 0);
        site.ping_until_answered(0, 1, Duration::from_secs(3))?;
        drain(&mut answered);
        println!("{sent} bytes of garbage earned {answered} bytes of answers");
        assert!(answered <= sent);
        let drops = |status: &Value| -> u64 {
            status["drops"].as_object().map_or(0, |drops| drops.values().filter_map(Value::as_u64).sum())
        };
        assert!(
            drops(&status(&site.cloud, "transfer")?) > 10_000,
            "counted by reason: {:#}",
            status(&site.cloud, "transfer")?["drops"]
        );
        let after: Vec<u64> =
            [&transfer, &gateways[0], &gateways[1]].map(mesh_lab::Process::rss).into_iter().collect::<Result<_>>()?;
        for (before, after) in before.iter().zip(&after) {
            assert!(*after < before + 16_000_000, "memory grew from {before} to {after}");
        }
        Ok(())
    });
}

/// The address of a gateway's outside socket.
fn gateway_endpoint(office: &Host) -> Result<SocketAddr> {
    let status =
        status_until(office, "gateway", Duration::from_secs(2), |status| status["transfer"]["observed"].is_string())?;
    status["transfer"]["observed"].as_str().context("an address")?.parse().context("an address and port")
}
