//! Proof of the ring: what the data threads call, and where they run.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Host, Process, Signal, isolated, tcp_copy};

use crate::fixture::{ONE, START, Site, ip, status};

/// Prefix of the names of data threads.
const DATA_THREAD: &str = "mesh-core-";

fn data_threads(process: &Process) -> Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/task", process.id()))? {
        let path = entry?.path();
        // A thread may end while the folder is read; a data thread does not.
        if fs::read_to_string(path.join("comm")).unwrap_or_default().starts_with(DATA_THREAD) {
            threads.push(path.file_name().context("a thread id")?.to_string_lossy().parse()?);
        }
    }
    threads.sort_unstable();
    Ok(threads)
}

/// Counts the system calls of a program's data threads until it is told to stop.
struct Strace {
    process: Process,
    report: String,
}

impl Strace {
    fn attach(host: &Host, threads: &[u32], report: &str) -> Result<Self> {
        let mut command = host.command("strace");
        // With -f a thread id stands for its whole process.
        command.args(["-c", "-o", report]);
        for thread in threads {
            command.args(["-p", &thread.to_string()]);
        }
        let mut process = host.spawn(command).context("strace is missing: apt-get install strace")?;
        for _ in threads {
            process.wait_for_line("attached", START)?;
        }
        Ok(Self { process, report: report.to_owned() })
    }

    /// The names of the calls, with their counts.
    fn finish(mut self, host: &Host) -> Result<Vec<(String, u64)>> {
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(START)?;
        let text = host.run(|| Ok(fs::read_to_string(&self.report)?))?;
        let calls: Vec<(String, u64)> = text
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let count = words.get(3)?.parse().ok()?;
                let name = *words.last()?;
                (words[0].parse::<f64>().is_ok() && name != "total").then(|| (name.to_owned(), count))
            })
            .collect();
        ensure!(!calls.is_empty(), "strace reported nothing:\n{text}");
        Ok(calls)
    }
}

#[test]
fn data_threads_call_io_uring_enter_and_futex_only() {
    isolated(|| {
        let site = Site::new("strace", 2)?;
        let transfer = site.transfer("10", &["-engine", "uring"])?;
        let gateways = [site.gateway(0, &["-engine", "uring"])?, site.gateway(1, &["-engine", "uring"])?];
        assert!(site.ping(0, 1, ONE)?.perfect());
        let forwarded = || -> Result<u64> {
            status(&site.cloud, "transfer")?["counters"]["datagrams_forwarded"].as_u64().context("a counter")
        };
        // Of 1,356 bytes each, so that there are 100,000 with few acknowledgements.
        // Pools and tables grow to the load they meet, which takes memory from the system; then no more.
        let copy = || tcp_copy(&site.offices[0], &site.offices[1], IpAddr::V4(ip(1)), 160_000_000, 3);
        copy()?;
        let before = forwarded()?;
        let mut traces = Vec::new();
        for (host, process) in
            [(&site.cloud, &transfer), (&site.offices[0], &gateways[0]), (&site.offices[1], &gateways[1])]
        {
            let threads = data_threads(process)?;
            ensure!(!threads.is_empty(), "no data thread:\n{}", process.output());
            traces.push((host, Strace::attach(host, &threads, "/run/state/strace")?));
        }
        // The status is asked before and after, not meanwhile: a data thread composes it, and that takes memory.
        copy()?;
        for (host, trace) in traces {
            let calls = trace.finish(host)?;
            println!("{host:?}: {calls:?}");
            assert!(calls.iter().any(|(name, count)| name == "io_uring_enter" && *count > 100), "{calls:?}");
            let others: Vec<_> = calls.iter().filter(|(name, _)| name != "io_uring_enter" && name != "futex").collect();
            assert!(others.is_empty(), "the data threads of {host:?} also call {others:?}");
        }
        let relayed = forwarded()? - before;
        assert!(relayed >= 100_000, "{relayed} datagrams were relayed meanwhile");
        Ok(())
    });
}

#[test]
fn one_ring_and_one_pinned_thread_for_each_core() {
    isolated(|| {
        let site = Site::new("pinned", 0)?;
        let transfer = site.transfer("10", &["-engine", "uring"])?;
        let cores = std::thread::available_parallelism()?.get();
        let threads = data_threads(&transfer)?;
        assert_eq!(threads.len(), cores, "one data thread for each core");
        let mut pinned = Vec::new();
        for thread in &threads {
            let status = fs::read_to_string(format!("/proc/{}/task/{thread}/status", transfer.id()))?;
            let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).context("a mask")?;
            pinned.push(allowed.trim().parse::<usize>().with_context(|| format!("pinned to one core, not {allowed}"))?);
        }
        pinned.sort_unstable();
        pinned.dedup();
        assert_eq!(pinned.len(), cores, "each to a core of its own: {pinned:?}");
        let mut rings = 0;
        for entry in fs::read_dir(format!("/proc/{}/fd", transfer.id()))? {
            let target = fs::read_link(entry?.path()).unwrap_or_default();
            rings += usize::from(target.to_string_lossy().contains("io_uring"));
        }
        assert_eq!(rings, cores, "one ring for each core");
        Ok(())
    });
}

#[test]
fn thousand_namespaces_are_small() {
    isolated(|| {
        let site = Site::new("thousand", 0)?;
        let transfer = site.transfer("1000", &["-engine", "uring"])?;
        let status = status(&site.cloud, "transfer")?;
        assert_eq!(status["ports_bound"], 1000, "{status:#}");
        // Pages of a start settle: it is the figure 5 s after the last bind that counts.
        mesh_lab::pause(Duration::from_secs(5));
        let rss = transfer.rss()?;
        println!("1000 namespaces: {} kB resident", rss / 1000);
        assert!(rss < 25_000_000, "{rss} bytes resident");
        Ok(())
    });
}
