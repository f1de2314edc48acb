//! A paced run sends what its rate says, and a run can be ended.

use std::time::Duration;

use anyhow::Result;
use bench::load::{Generator, Pace};
use bench::relay::Payload;
use mesh_lab::LinkMode;

use crate::fixture::{PROCESSOR, Pair, flows_of};

#[test]
fn a_paced_run_sends_rate_times_duration() {
    mesh_lab::isolated(|| {
        let pair = Pair::new("paced")?;
        pair.set_mode(LinkMode::Veth)?;
        let _counter = pair.counter()?;
        for (rate, millis, burst, bursts) in
            [(1, 10, 1, 1), (10_000, 100, 1, 1_000), (12_345, 300, 4, 926), (3, 500, 1, 2), (200_000, 50, 40, 250)]
        {
            let mut generator = pair.generator(7, Payload::Bytes(64), burst)?;
            let sent = generator.run(Pace::PerSecond(rate), Duration::from_millis(millis))?;
            let datagrams = bursts * u64::from(burst);
            assert_eq!((sent.datagrams, sent.planned, sent.frames), (datagrams, datagrams, bursts), "{rate}/s");
            assert_eq!(sent.bytes, datagrams * 64);
            assert!(sent.late_p99 <= sent.late_max);
        }
        Ok(())
    });
}

#[test]
fn runs_have_numbers_of_their_own_and_can_be_stopped() {
    mesh_lab::isolated(|| {
        let pair = Pair::new("stop")?;
        let mut tap = pair.tap()?;
        let mut generator = pair.generator(1, Payload::Bytes(64), 1)?;
        let first = generator.start(Pace::PerSecond(1_000), Duration::from_secs(3_600))?;
        assert!(generator.start(Pace::Full, Duration::ZERO).is_err(), "one run at a time");
        generator.stop();
        let stopped = generator.wait()?;
        assert_eq!((stopped.run, stopped.planned), (first, stopped.datagrams));
        assert!(generator.wait().is_err(), "there is no run to wait for");
        let second = generator.run(Pace::PerSecond(1_000), Duration::from_millis(20))?;
        assert_ne!(second.run, first);
        let seen = tap.take(second.run)?;
        assert_eq!((seen.received, seen.missing), (20, 0), "places are counted anew");
        Ok(())
    });
}

#[test]
fn what_cannot_be_sent_is_refused() {
    mesh_lab::isolated(|| -> Result<()> {
        let pair = Pair::new("refused")?;
        let (from, to) = (pair.link.a(), pair.link.b());
        let refused = |flows: u16, payload, burst| {
            let made = Generator::new(from, to, &flows_of(flows), payload, burst, PROCESSOR);
            made.map(|_| ()).expect_err("it was accepted").to_string()
        };
        assert!(refused(0, Payload::Bytes(64), 1).contains("no flow"));
        assert!(refused(1, Payload::Bytes(63), 1).contains("63"));
        assert!(refused(1, Payload::Bytes(1_473), 1).contains("1473"));
        assert!(refused(1, Payload::Bytes(64), 0).contains("burst"));
        assert!(refused(1, Payload::Bytes(64), 41).contains("41"));

        let mut generator = pair.generator(1, Payload::Bytes(64), 1)?;
        pair.link.down()?;
        let why = format!("{:#}", generator.run(Pace::Full, Duration::from_millis(10)).expect_err("the link is down"));
        assert!(why.contains("kernel"), "{why}");
        pair.link.up()?;
        assert!(generator.run(Pace::Full, Duration::from_millis(1))?.datagrams > 0, "it works again");
        Ok(())
    });
}
