//! What is sent is what both sinks see.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::Result;
use bench::load::{Generator, Head, Pace};
use bench::relay::Payload;
use mesh_lab::LinkMode;
use mesh_wire::frame::FrameType;

use crate::fixture::{PROCESSOR, Pair, RECEIVER, SENDER, count_until, flows_of};

/// Payload, burst and flows, and how many bursts a run has: little enough for the receive buffer that any kernel grants, so that the
/// tap may read as late as it likes.
const LOADS: [(Payload, u16, u16, u64); 7] = [
    (Payload::Bytes(64), 1, 1, 150),
    (Payload::Bytes(1_472), 1, 1, 80),
    (Payload::Bytes(1_200), 1, 70, 70),
    (Payload::Bytes(64), 40, 3, 3),
    (Payload::Bytes(1_400), 16, 4, 5),
    (Payload::Bytes(1_472), 40, 2, 2),
    (Payload::Imix, 4, 5, 24),
];

/// How often each of them runs.
const RUNS: usize = 10;

fn agree(mode: LinkMode) -> Result<()> {
    let pair = Pair::new("agree")?;
    pair.set_mode(mode)?;
    let (mut counter, mut tap) = (pair.counter()?, pair.tap()?);
    for (payload, burst, flows, bursts) in LOADS.into_iter().flat_map(|load| std::iter::repeat_n(load, RUNS)) {
        let load = format!("{payload} bytes, {burst} at a time, {flows} flows, {mode}");
        let mut generator = pair.generator(flows, payload, burst)?;
        let before = counter.read()?;
        let datagrams = bursts * u64::from(burst);
        let sent = generator.run(Pace::PerSecond(datagrams * 100), Duration::from_millis(10))?;
        assert_eq!((sent.refused, sent.datagrams, sent.planned), (0, datagrams, datagrams), "{load}");
        let count = count_until(&mut counter, before.payload_bytes() + sent.bytes)?.since(before);
        assert_eq!(count.payload_bytes(), sent.bytes, "{load}");
        if let Payload::Bytes(_) = payload {
            assert_eq!(count.datagrams(payload), sent.datagrams as f64, "{load}");
        }

        let seen = tap.take(sent.run)?;
        assert_eq!(seen.dropped, 0, "{load}");
        assert_eq!((seen.received, seen.lost(&sent)), (sent.datagrams, 0), "{load}");
        assert_eq!((seen.duplicates, seen.reordered, seen.missing, seen.misplaced), (0, 0, 0, 0), "{load}");
        assert_eq!(seen.latency.len(), sent.datagrams, "{load}");
        assert_eq!(seen.flows.len() as u64, bursts.min(flows.into()), "{load}");
        assert_eq!(
            seen.trains.iter().map(|(datagrams, frames)| u64::from(*datagrams) * frames).sum::<u64>(),
            sent.datagrams
        );
        assert_eq!(seen.trains.values().sum::<u64>(), count.frames, "{load}");
        match mode {
            LinkMode::Wire => assert_eq!(seen.trains, BTreeMap::from([(1, sent.datagrams)]), "{load}"),
            LinkMode::Veth => assert_eq!(seen.trains, BTreeMap::from([(burst, sent.frames)]), "{load}"),
            // What is gathered depends on who is awake when.
            LinkMode::Nic => {}
        }
    }
    Ok(())
}

#[test]
fn both_sinks_see_what_was_sent_one_by_one() {
    mesh_lab::isolated(|| agree(LinkMode::Wire));
}

#[test]
fn both_sinks_see_what_was_sent_and_gathered() {
    mesh_lab::isolated(|| agree(LinkMode::Nic));
}

#[test]
fn both_sinks_see_trains_as_they_were_sent() {
    mesh_lab::isolated(|| agree(LinkMode::Veth));
}

#[test]
fn at_full_speed_what_is_missing_was_refused_by_the_link() {
    mesh_lab::isolated(|| {
        let pair = Pair::new("full")?;
        pair.set_mode(LinkMode::Wire)?;
        let (mut counter, mut tap) = (pair.counter()?, pair.tap()?);
        let mut generator = pair.generator(3, Payload::Bytes(64), 16)?;
        let sent = generator.run(Pace::Full, Duration::from_millis(20))?;
        assert!(sent.datagrams > 0);
        let seen = tap.take(sent.run)?;
        let count = count_until(&mut counter, (sent.datagrams - sent.refused) * 64)?;
        assert!(count.datagrams(Payload::Bytes(64)) <= sent.datagrams as f64);
        assert_eq!(seen.duplicates + seen.reordered, 0);
        if seen.dropped == 0 && sent.refused == 0 {
            assert_eq!(seen.lost(&sent), 0);
        }
        Ok(())
    });
}

#[test]
fn merged_bursts_arrive_one_by_one_where_the_link_cuts() {
    mesh_lab::isolated(|| {
        let pair = Pair::new("merged")?;
        pair.set_mode(LinkMode::Wire)?;
        let (mut counter, payload) = (pair.counter()?, Payload::Bytes(64));
        let mut generator = pair.generator(1, payload, 3)?;
        generator.merge_bursts()?;
        let sent = generator.run(Pace::Full, Duration::from_millis(2))?;
        assert_eq!(sent.datagrams, sent.frames * 39, "thirteen bursts of three");
        let count = count_until(&mut counter, (sent.datagrams - sent.refused) * 64)?;
        assert_eq!(count.train(payload), 1.0);
        let paced = generator.run(Pace::PerSecond(300), Duration::from_millis(20))?;
        assert_eq!((paced.datagrams, paced.frames), (6, 2), "a schedule keeps its bursts");

        let mut generator = pair.generator(2, payload, 3)?;
        generator.merge_bursts()?;
        let sent = generator.run(Pace::Full, Duration::from_millis(2))?;
        assert_eq!(sent.datagrams, sent.frames * 3, "flows keep their turns");
        Ok(())
    });
}

#[test]
fn both_sinks_see_what_is_in_channel_data() {
    mesh_lab::isolated(|| {
        let pair = Pair::new("channel")?;
        let (mut counter, mut tap) = (pair.counter()?, pair.tap()?);
        for mode in [LinkMode::Wire, LinkMode::Veth] {
            pair.set_mode(mode)?;
            for (payload, channel) in
                [(Payload::Bytes(64), 0x4000), (Payload::Bytes(1_200), 0x43e7), (Payload::Imix, 0x4fff)]
            {
                let mut flows = flows_of(3);
                flows.iter_mut().for_each(|flow| flow.head = Head::Channel(channel));
                let (from, to) = (pair.link.a(), pair.link.b());
                let mut generator = Generator::new(from, to, &flows, payload, 4, PROCESSOR)?;
                let before = counter.read()?;
                // One burst of each of the twelve sizes, so that the mean size is that of the mix.
                let sent = generator.run(Pace::PerSecond(4_800), Duration::from_millis(10))?;
                assert_eq!((sent.refused, sent.datagrams), (0, 48), "{payload} {mode}");
                let heads = 4 * sent.datagrams;
                let count = count_until(&mut counter, before.payload_bytes() + sent.bytes + heads)?.since(before);
                assert_eq!(count.payload_bytes(), sent.bytes + heads, "{payload} {mode}");
                let bodies = count.without_heads(payload, Head::CHANNEL_BYTES);
                assert_eq!(bodies.payload_bytes(), sent.bytes, "{payload} {mode}");
                let seen = tap.take(sent.run)?;
                assert_eq!(
                    (seen.received, seen.missing, seen.misplaced, seen.dropped),
                    (48, 0, 0, 0),
                    "{payload} {mode}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn the_tap_sees_loss_duplicates_and_reordering() {
    mesh_lab::isolated(|| {
        const SENT: u64 = 100;
        let pair = Pair::new("replay")?;
        pair.set_mode(LinkMode::Wire)?;
        let (_counter, mut tap) = (pair.counter()?, pair.tap()?);
        let capture = pair.sender.capture(pair.link.a().name())?;
        let sent =
            pair.generator(1, Payload::Bytes(200), 1)?.run(Pace::PerSecond(SENT * 10), Duration::from_millis(100))?;
        assert_eq!((sent.datagrams, tap.take(sent.run)?.received), (SENT, SENT));
        let frames: Vec<_> = capture.stop()?.frames.into_iter().filter(|frame| frame.bytes.len() == 242).collect();
        assert_eq!(frames.len() as u64, SENT);

        // Every tenth is lost, number 5 comes after number 6, and number 21 twice.
        let mut order: Vec<usize> = (0..frames.len()).filter(|number| number % 10 != 0).collect();
        order.swap(4, 5);
        order.insert(21, 21);
        let injector = pair.sender.injector(pair.link.a().name())?;
        for number in order {
            injector.send(&frames[number].bytes)?;
        }
        let seen = tap.take(sent.run)?;
        assert_eq!((seen.received, seen.lost(&sent), seen.missing), (SENT - 10, 10, 10));
        assert_eq!((seen.duplicates, seen.reordered, seen.dropped), (1, 1, 0));
        assert_eq!(tap.take(sent.run)?.received, 0, "what was taken is forgotten");
        Ok(())
    });
}

#[test]
fn the_counter_lets_pass_what_is_no_data_frame_of_ours() {
    mesh_lab::isolated(|| {
        let pair = Pair::new("pass")?;
        let mut counter = pair.counter()?;
        let inside = pair.receiver.run(|| Ok(UdpSocket::bind((RECEIVER, 2_000))?))?;
        let outside = pair.receiver.run(|| Ok(UdpSocket::bind((RECEIVER, 1_999))?))?;
        let socket = pair.sender.run(|| Ok(UdpSocket::bind((SENDER, 0))?))?;
        let (data, control) = ([FrameType::Data.byte(); 64], [FrameType::Control.byte(); 64]);
        socket.send_to(&data, (RECEIVER, 2_000))?;
        socket.send_to(&control, (RECEIVER, 2_000))?;
        socket.send_to(&data, (RECEIVER, 1_999))?;
        let mut buffer = [0; 100];
        for socket in [&inside, &outside] {
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        }
        assert_eq!(inside.recv(&mut buffer)?, 64);
        assert_eq!(buffer[0], control[0], "the data frame before it was dropped");
        assert_eq!(outside.recv(&mut buffer)?, 64);
        let count = counter.read()?;
        assert_eq!((count.frames, count.payload_bytes()), (1, 64));

        drop(counter);
        socket.send_to(&data, (RECEIVER, 2_000))?;
        inside.recv(&mut buffer)?;
        assert_eq!(buffer[0], data[0], "without a counter nothing is dropped");
        Ok(())
    });
}
