//! An emulated link delays, loses and throttles as told, and changes nothing else.
//!
//! Bounds on measured times are one-sided where a busy machine could cross them.
#![cfg(target_os = "linux")]

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_lab::{EmulatedLink, Emulation, EmulationCounters, Host, Lab, LinkMode, Ping, isolated, tcp_copy};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

const NETS: [&str; 2] = ["10.1.0.0/24", "fd01::/64"];

const MS: Duration = Duration::from_millis(1);

fn hosts(name: &str, emulation: Emulation) -> Result<(Host, Host, EmulatedLink)> {
    let lab = Lab::new(name)?;
    let (a, b) = (lab.host("a")?, lab.host("b")?);
    let link = lab.emulated_link(&a, &b, &NETS, emulation)?;
    Ok((a, b, link))
}

/// A socket of each host, the first connected to the second; the hosts know each other's hardware addresses.
fn sockets(a: &Host, b: &Host) -> Result<(UdpSocket, UdpSocket)> {
    let (sender, receiver) = (a.udp((a.ipv4()?, 0).into())?, b.udp((b.ipv4()?, 0).into())?);
    sender.connect(receiver.local_addr()?)?;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    assert!(a.ping(b.ipv4()?, Ping::default())?.perfect());
    Ok((sender, receiver))
}

/// The numbers in the datagrams that came until none came for the socket's timeout.
fn numbers(receiver: &UdpSocket) -> Result<Vec<u32>> {
    let (mut numbers, mut buffer) = (Vec::new(), [0; 2000]);
    loop {
        match receiver.recv(&mut buffer) {
            Ok(length) => {
                let number = buffer[..length].first_chunk().context("a datagram without a number")?;
                numbers.push(u32::from_be_bytes(*number));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(numbers),
            Err(error) => return Err(error.into()),
        }
    }
}

#[test]
fn delay_is_added_to_each_direction_and_changes_while_it_runs() {
    isolated(|| {
        let (a, b, link) = hosts("delay", Emulation::default())?;
        let median = |name: &str| -> Result<Duration> {
            let mut rtts = a.ping(b.ipv4()?, Ping { count: 21, interval: 5 * MS, ..Ping::default() })?.rtts;
            assert_eq!(rtts.len(), 21, "nothing is lost");
            rtts.sort();
            eprintln!("{name}: {:?} to {:?}, median {:?}", rtts[0], rtts[20], rtts[10]);
            assert!(name == "none" || rtts[0] >= Duration::from_millis(name.parse()?), "never early: {rtts:?}");
            Ok(rtts[10])
        };
        assert!(a.ping(b.ipv6()?, Ping::default())?.perfect());
        let none = median("none")?;
        link.set(Emulation { delay: 20 * MS, ..Emulation::default() })?;
        assert!(median("40")? < 40 * MS + none + 10 * MS);
        link.set_b_to_a(Emulation { delay: 5 * MS, ..Emulation::default() })?;
        assert!(median("25")? < 25 * MS + none + 10 * MS);
        link.set(Emulation::default())?;
        assert!(median("none")? < none + 10 * MS);
        assert_eq!(link.counters_a_to_b()?.overrun, 0);
        Ok(())
    });
}

#[test]
fn jitter_keeps_the_order() {
    isolated(|| {
        let emulation = Emulation { delay: MS, jitter: 10 * MS, ..Emulation::default() };
        let (a, b, link) = hosts("jitter", emulation)?;
        let (sender, receiver) = sockets(&a, &b)?;
        receiver.set_read_timeout(Some(1000 * MS))?;
        for reorder in [false, true] {
            link.set(Emulation { reorder, ..emulation })?;
            for number in 0..100_u32 {
                sender.send(&number.to_be_bytes())?;
            }
            let mut numbers = numbers(&receiver)?;
            assert_eq!(numbers.is_sorted(), !reorder, "{numbers:?}");
            numbers.sort_unstable();
            assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "all arrive, once");
        }
        Ok(())
    });
}

#[test]
fn loss_has_the_share_and_the_seed_asked_for() {
    isolated(|| {
        let (a, b, link) = hosts("loss", Emulation::default())?;
        // The kernels send no frames of their own between ours: no IPv6, and no question after a known neighbour.
        for host in [&a, &b] {
            host.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
            host.sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "3600000")?;
            host.sysctl("net.ipv4.neigh.eth0.delay_first_probe_time", "3600")?;
        }
        let (sender, receiver) = sockets(&a, &b)?;
        let mut missing = Vec::new();
        for seed in [7, 8, 7] {
            // A seed that is set anew begins anew.
            link.set_a_to_b(Emulation { seed: 99, ..Emulation::default() })?;
            assert!(a.ping(b.ipv4()?, Ping { count: 1, ..Ping::default() })?.perfect());
            let before = link.counters_a_to_b()?;
            link.set_a_to_b(Emulation { loss: 0.1, seed, ..Emulation::default() })?;
            let mut arrived = Vec::new();
            // Few at a time, so that no buffer on the way can overflow.
            for group in 0..50 {
                for number in group * 40..group * 40 + 40_u32 {
                    sender.send(&number.to_be_bytes())?;
                }
                receiver.set_read_timeout(Some(20 * MS))?;
                arrived.extend(numbers(&receiver)?);
            }
            receiver.set_read_timeout(Some(500 * MS))?;
            arrived.extend(numbers(&receiver)?);
            let after = link.counters_a_to_b()?;
            let lost = 2000 - arrived.len();
            assert_eq!(after.overrun + after.queue_full + after.refused, 0);
            assert_eq!(after.lost - before.lost, lost as u64);
            // Six standard deviations of a binomial count with n = 2000 and p = 0.1.
            assert!((120..280).contains(&lost), "{lost} lost");
            missing.push((0..2000).filter(|number| !arrived.contains(number)).collect::<Vec<u32>>());
        }
        eprintln!("{} and {} lost", missing[0].len(), missing[1].len());
        assert_eq!(missing[0], missing[2], "the same seed, the same losses");
        assert_ne!(missing[0], missing[1], "another seed, other losses");

        link.set_b_to_a(Emulation { loss: 1.0, ..Emulation::default() })?;
        assert_eq!(a.ping(b.ipv4()?, Ping { count: 3, timeout: 300 * MS, ..Ping::default() })?.received, 0);
        Ok(())
    });
}

#[test]
fn rate_is_kept_and_the_queue_bounded() {
    isolated(|| {
        /// Of a datagram of 1000 bytes.
        const WIRE_BYTES: u64 = 1000 + 8 + 20 + 14 + 24;
        let (a, b, link) = hosts("rate", Emulation::default())?;
        let (sender, receiver) = sockets(&a, &b)?;
        // A full queue takes 0.8 s to pass: what a busy machine adds at the ends is little beside it.
        link.set_a_to_b(Emulation { rate: Some(20_000_000), queue_bytes: 2_000_000, ..Emulation::default() })?;
        let (capture, before) = (b.capture("eth0")?, link.counters_a_to_b()?);
        for _ in 0..4000 {
            sender.send(&[0; 1000])?;
        }
        // Until nothing comes any more.
        while receiver.recv(&mut [0; 2000]).is_ok() {}
        let (after, recording) = (link.counters_a_to_b()?, capture.stop()?);
        // By the times of the kernel, so that it does not matter when this program runs.
        let frames: Vec<_> = recording.frames.iter().filter(|frame| frame.bytes.len() > 1000).collect();
        let (first, last) = (frames.first().context("nothing came")?, frames.last().context("nothing came")?);
        let (elapsed, count) = (last.at.duration_since(first.at)?, frames.len() as u64 + recording.lost);
        let rate = ((count - 1) * WIRE_BYTES * 8) as f64 / elapsed.as_secs_f64();
        eprintln!("{count} of 4000 in {elapsed:?}: {:.2} Mbit/s, {after:?}", rate / 1e6);
        assert!((18e6..22e6).contains(&rate), "{rate} bit/s");
        let dropped = (after.queue_full - before.queue_full) + (after.overrun - before.overrun);
        assert!(dropped > 0 && after.refused == 0);
        // ARP may have added a frame or two.
        assert!((4000..4010).contains(&(after.forwarded - before.forwarded + dropped)), "{before:?} {after:?}");
        Ok(())
    });
}

#[test]
fn copy_is_intact_in_every_mode_under_delay_and_loss() {
    isolated(|| {
        let (a, b, link) = hosts("copy", Emulation::default())?;
        for mode in LinkMode::ALL {
            // In a user namespace the last part of nic is refused; the rest of it holds.
            let set = link.set_mode(mode);
            assert!(set.is_ok() || mode == LinkMode::Nic, "{mode}: {set:?}");
            let lossy = Emulation { delay: MS, jitter: MS, loss: 0.005, ..Emulation::default() };
            for (emulation, bytes) in [(Emulation::default(), 20_000_003), (lossy, 1_000_003)] {
                link.set(emulation)?;
                for address in [b.ipv4()?, b.ipv6()?] {
                    eprintln!("{mode} to {address}: {}", tcp_copy(&a, &b, address, bytes, 1)?);
                }
            }
        }
        let counters = link.counters_a_to_b()?;
        eprintln!("{counters:?}");
        assert!(counters.lost > 0 && counters.refused == 0, "{counters:?}");
        Ok(())
    });
}

#[test]
fn link_without_delay_carries_a_gigabit() {
    isolated(|| {
        let (a, b, link) = hosts("fast", Emulation::default())?;
        // The best of some, for a machine that does other work as well.
        let mut best = 0.0_f64;
        for seed in 0..10 {
            let report = tcp_copy(&a, &b, b.ipv4()?, 100_000_000, seed)?;
            eprintln!("{report}");
            best = best.max(report.bits_per_second());
            if best > 1e9 {
                break;
            }
        }
        eprintln!("{:?}\n{:?}", link.counters_a_to_b()?, link.counters_b_to_a()?);
        assert!(best > 1e9, "{best} bit/s");
        Ok(())
    });
}

#[test]
fn idle_link_takes_no_cpu_and_the_emulator_ends_with_the_hosts() {
    isolated(|| {
        let (a, b, link) = hosts("idle", Emulation { delay: MS, ..Emulation::default() })?;
        assert!(a.ping(b.ipv4()?, Ping::default())?.perfect());
        let busy = || -> Result<Duration> {
            let usage = getrusage(UsageWho::RUSAGE_SELF)?;
            let (user, system) = (usage.user_time(), usage.system_time());
            Ok(Duration::from_micros(u64::try_from((user + system).num_microseconds())?))
        };
        let before = busy()?;
        let (receiver, mut buffer) = (b.udp((b.ipv4()?, 0).into())?, [0; 1]);
        receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
        assert!(receiver.recv(&mut buffer).is_err());
        let spent = busy()? - before;
        eprintln!("{spent:?} in a second");
        assert!(spent < 200 * MS, "{spent:?}");

        let threads = || -> Result<usize> {
            let names = std::fs::read_dir("/proc/self/task")?.filter_map(Result::ok);
            let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            Ok(names.filter(|name| name.starts_with("emulator")).count())
        };
        assert_eq!(threads()?, 2);
        drop(link);
        assert!(a.ping(b.ipv4()?, Ping::default())?.perfect(), "the link outlives its handle");
        assert_eq!(threads()?, 2);
        drop(a);
        assert_eq!(threads()?, 2, "one host still holds it");
        drop(b);
        assert_eq!(threads()?, 0);
        Ok(())
    });
}

#[test]
fn values_out_of_range_change_nothing() {
    isolated(|| {
        let good = Emulation { delay: 20 * MS, ..Emulation::default() };
        let (a, b, link) = hosts("values", good)?;
        for wrong in [Emulation { loss: 1.5, ..good }, Emulation { rate: Some(0), ..good }] {
            assert!(link.set(wrong).is_err());
            assert!(Lab::new("wrong")?.emulated_link(&a, &b, &["10.2.0.0/24"], wrong).is_err());
        }
        let report = a.ping(b.ipv4()?, Ping::default())?;
        assert!(report.perfect() && report.rtts.iter().all(|rtt| *rtt >= 40 * MS), "{report:?}");
        assert_eq!(link.counters_b_to_a()?.lost, EmulationCounters::default().lost);
        Ok(())
    });
}

#[test]
fn link_whose_middle_was_switched_off_works_again() {
    isolated(|| {
        let (a, b, link) = hosts("down", Emulation::default())?;
        let answered = || -> Result<bool> {
            let report = a.ping(b.ipv4()?, Ping { count: 1, timeout: 300 * MS, ..Ping::default() })?;
            Ok(report.perfect())
        };
        assert!(answered()?);
        for (end, refuses) in [("eth0", false), ("eth1", true)] {
            let end = link.middle().interface(end)?;
            end.down()?;
            let before = link.counters_a_to_b()?;
            assert!(!answered()?, "{end:?} is off");
            let after = link.counters_a_to_b()?;
            assert_eq!(after.refused > before.refused, refuses, "{end:?}: {before:?} {after:?}");
            end.up()?;
            // The cable carries packets some time after it was switched on.
            assert!((0..100).any(|_| answered().is_ok_and(|answered| answered)), "{end:?} is on");
        }
        Ok(())
    });
}
