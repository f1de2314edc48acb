//! System calls of the real transfer for each datagram, under a load that has one batch on its way at a time: the next is sent
//! when the last has arrived whole. So the data thread turns as often as there are batches, however fast the machine is.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_core::session::token::{NamespaceKeys, StretchedToken};
use mesh_lab::{Host, Lab, Process, Signal};
use mesh_wire::frame::FrameType;
use mesh_wire::sealed::OVERHEAD_BYTES;
use nix::sys::socket::{setsockopt, sockopt};

use crate::figures;
use crate::member;

const ENGINES: [&str; 3] = ["uring", "mmsg", "portable"];
/// Batches: their name, datagrams, and how many of them.
const LOADS: [(&str, usize, usize); 2] = [("train-16", 16, 1250), ("single", 1, 5000)];
/// Batches before anything is counted: pools grow to the load they meet.
const WARM_UP: usize = 100;
/// Bytes of an inner packet.
const INNER_BYTES: usize = 500;

const NAMESPACE: u16 = 8000;
const TOKEN: &str = "counts only, inside a world of its own";
const START: Duration = Duration::from_secs(20);
/// Until a batch is taken for lost.
const BATCH_WITHIN: Duration = Duration::from_secs(5);
/// Prefix of the names of data threads.
const DATA_THREAD: &str = "mesh-core-";
/// Where strace writes, in the host.
const REPORT: &str = "/run/state/strace";

/// Prints the figures of all engines and loads.
pub(crate) fn print(transfer: &Path) -> Result<()> {
    mesh_lab::enter()?;
    let stretched = StretchedToken::stretch(TOKEN.as_bytes());
    for engine in ENGINES {
        count(transfer, engine, &stretched).with_context(|| format!("engine {engine}"))?;
    }
    Ok(())
}

fn count(transfer: &Path, engine: &str, stretched: &StretchedToken) -> Result<()> {
    let lab = Lab::new("counts")?;
    let host = lab.host("relay")?;
    let mut command = host.command(transfer);
    let namespace = NAMESPACE.to_string();
    command.args(["-public", "127.0.0.1", "-bind", &namespace, "-nums", "1", "-token", TOKEN, "-engine", engine]);
    command.current_dir("/").env("EASYMESH_LOG", "/run/state");
    let mut process = host.spawn(command)?;
    process.wait_for_line("join with", START).context("the transfer did not start")?;

    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let sockets = [host.udp(local(0))?, host.udp(local(0))?];
    let keys = || NamespaceKeys::derive(stretched, NAMESPACE, None);
    let [mut sender, receiver] = member::pair(sockets, local(NAMESPACE), keys)?;
    receiver.socket.set_read_timeout(Some(BATCH_WITHIN))?;
    for (load, datagrams, batches) in LOADS {
        let train = sender.sealed(datagrams, INNER_BYTES)?;
        ensure!(train.len() == datagrams * (INNER_BYTES + OVERHEAD_BYTES), "a train of {} bytes", train.len());
        let line = ClosedLoop { from: &sender.socket, to: &receiver.socket, transfer: local(NAMESPACE), train: &train };
        line.carry(WARM_UP)?;
        let trace = Strace::attach(&host, &data_threads(&process)?)?;
        line.carry(batches)?;
        let calls = trace.finish(&host)?;
        eprintln!("{engine} {load}: {calls:?}");
        let total: u64 = calls.iter().map(|(_, count)| count).sum();
        figures::print(&format!("{engine}-{load}"), total as f64 / (datagrams * batches) as f64);
    }
    process.terminate(START)?;
    Ok(())
}

/// One batch at a time.
struct ClosedLoop<'a> {
    from: &'a UdpSocket,
    to: &'a UdpSocket,
    transfer: SocketAddr,
    train: &'a [u8],
}

impl ClosedLoop<'_> {
    fn carry(&self, batches: usize) -> Result<()> {
        let stride = INNER_BYTES + OVERHEAD_BYTES;
        // The kernel cuts a batch; it arrives at the transfer as one train.
        let segment = i32::try_from(stride)?;
        setsockopt(self.from, sockopt::UdpGsoSegment, &segment).context("the kernel has no UDP_SEGMENT")?;
        let mut datagram = [0; 2048];
        for batch in 0..batches {
            self.from.send_to(self.train, self.transfer)?;
            let mut arrived = 0;
            while arrived < self.train.len() / stride {
                let bytes = self.to.recv(&mut datagram);
                let bytes = bytes.with_context(|| format!("batch {batch} did not arrive whole"))?;
                arrived += usize::from(bytes == stride && datagram[0] == FrameType::Data.byte());
            }
        }
        Ok(())
    }
}

fn data_threads(process: &Process) -> Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/task", process.id()))? {
        let path = entry?.path();
        // A thread may end while the folder is read; a data thread does not.
        if fs::read_to_string(path.join("comm")).unwrap_or_default().starts_with(DATA_THREAD) {
            threads.push(path.file_name().context("a thread id")?.to_string_lossy().parse()?);
        }
    }
    ensure!(threads.len() == 1, "one port has one data thread, not {threads:?}:\n{}", process.output());
    Ok(threads)
}

/// Counts the system calls of threads until it is told to stop.
struct Strace(Process);

impl Strace {
    fn attach(host: &Host, threads: &[u32]) -> Result<Self> {
        let mut command = host.command("strace");
        // With -f a thread id would stand for its whole process.
        command.args(["-c", "-o", REPORT]);
        for thread in threads {
            command.args(["-p", &thread.to_string()]);
        }
        let mut process = host.spawn(command).context("strace is missing: apt-get install strace")?;
        for _ in threads {
            process.wait_for_line("attached", START)?;
        }
        Ok(Self(process))
    }

    /// The names of the calls, with their counts.
    fn finish(mut self, host: &Host) -> Result<Vec<(String, u64)>> {
        self.0.signal(Signal::SIGINT)?;
        self.0.wait(START)?;
        let text = host.run(|| Ok(fs::read_to_string(REPORT)?))?;
        let calls: Vec<_> = text.lines().filter_map(call).collect();
        ensure!(!calls.is_empty(), "strace reported nothing:\n{text}");
        Ok(calls)
    }
}

/// One line of the table of `strace -c`: share, seconds, microseconds for each, calls, perhaps errors, name.
fn call(line: &str) -> Option<(String, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.first()?.parse::<f64>().ok()?;
    let (count, name) = (words.get(3)?.parse().ok()?, *words.last()?);
    (name != "total").then(|| (name.to_owned(), count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 80.00    0.001200           1      1250           io_uring_enter
 20.00    0.000300           1       300        12 futex
------ ----------- ----------- --------- --------- ----------------
100.00    0.001500           1      1550        12 total
";
        let calls: Vec<_> = table.lines().filter_map(call).collect();
        assert_eq!(calls, [("io_uring_enter".to_owned(), 1250), ("futex".to_owned(), 300)]);
    }
}
