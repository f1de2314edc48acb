//! A program running in a host: its output, its end, what it costs.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Lines kept of a program's output; older ones are forgotten.
const LINES_MAX: usize = 20_000;

/// Bytes kept of one line; the rest of a longer one is cut off. All lines together stay under 80 MB.
const LINE_BYTES_MAX: usize = 4096;

/// How often the end of a program is looked for.
const EXIT_POLL: Duration = Duration::from_millis(2);

/// A program started by [`crate::Host::spawn`]. Dropping it kills the program and waits for its end; when that
/// happens in a panic, the last lines of its output are printed.
pub struct Process {
    title: String,
    child: Child,
    status: Option<ExitStatus>,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    /// Number of the first line that [`Process::wait_for_line`] has not passed.
    next_line: u64,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    forgotten: u64,
    streams_open: usize,
}

impl Process {
    pub(crate) fn start(host: &str, mut command: Command) -> Result<Process> {
        let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
        let title = format!("{} in {host}", program.display());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn_for_good(command).with_context(|| format!("start {title}"))?;
        let output = Arc::new(Output::default());
        let streams: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|stream| Box::new(stream) as _), child.stderr.take().map(|s| Box::new(s) as _)];
        let mut process = Process { title, child, status: None, output, readers: Vec::new(), next_line: 0 };
        for stream in streams.into_iter().flatten() {
            process.output.lock().streams_open += 1;
            let output = Arc::clone(&process.output);
            let reader = thread::Builder::new().name("output".to_owned()).spawn(move || output.collect(stream));
            process.readers.push(reader.context("start a thread")?);
        }
        Ok(process)
    }

    /// The process id, as programs in the laboratory see it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program has printed a line that contains `text`, on either stream, and returns the line.
    /// Lines printed before the call count too; the next call goes on after the line found.
    ///
    /// # Errors
    /// `timeout` passes, or the program closes its output, without such a line. The error holds the last lines.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let output = Arc::clone(&self.output);
        let mut lines = output.lock();
        loop {
            let skipped = usize::try_from(self.next_line.saturating_sub(lines.forgotten)).unwrap_or(usize::MAX);
            let found = lines.kept.iter().skip(skipped).position(|line| line.contains(text));
            if let Some(position) = found {
                let line = lines.kept[skipped + position].clone();
                self.next_line = lines.forgotten + (skipped + position + 1) as u64;
                return Ok(line);
            }
            self.next_line = lines.forgotten + lines.kept.len() as u64;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.streams_open == 0 {
                let reason = if left.is_zero() { format!("for {timeout:?}") } else { "until it ended".to_owned() };
                let tail = lines.tail();
                drop(lines);
                bail!("{} printed no line with {text:?} {reason}; its last lines:\n{tail}", self.title);
            }
            lines = output.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the program has printed so far, both streams line by line as they came.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.lock().kept.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The program has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            bail!("{} has ended ({status}), so {signal} cannot be sent", self.title);
        }
        // Not yet waited for, so the number still belongs to the program.
        kill(self.pid(), signal).with_context(|| format!("send {signal} to {}", self.title))
    }

    /// The exit status, if the program has ended.
    ///
    /// # Errors
    /// The status was taken by somebody else.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().with_context(|| format!("wait for {}", self.title))?;
        }
        Ok(self.status)
    }

    /// Waits for the end of the program, and for the end of its output.
    ///
    /// # Errors
    /// It still runs after `timeout`.
    #[expect(clippy::disallowed_methods, reason = "the status is polled: there is no wait with a time limit")]
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        while self.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{} still runs after {timeout:?}; its last lines:\n{}", self.title, self.output.lock().tail());
            }
            thread::sleep(EXIT_POLL);
        }
        // A child of the program may hold the pipes open: the output ends for us when the time is over.
        let mut lines = self.output.lock();
        while lines.streams_open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            lines = self.output.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(lines);
        self.status.with_context(|| format!("{} has no status", self.title))
    }

    /// Asks the program to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// It has ended before, or still runs after `timeout`.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(timeout)
    }

    /// Kills the program (SIGKILL) and waits for its end. One that has ended already is no error.
    ///
    /// # Errors
    /// The status was taken by somebody else.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if self.try_wait()?.is_none() {
            kill(self.pid(), Signal::SIGKILL).with_context(|| format!("kill {}", self.title))?;
            self.status = Some(self.child.wait().with_context(|| format!("wait for {}", self.title))?);
        }
        self.status.with_context(|| format!("{} has no status", self.title))
    }

    /// Processor time used so far by all threads of the program, in user and kernel mode, to 10 ms.
    ///
    /// # Errors
    /// The program has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = self.proc_file("stat")?;
        // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th field after it.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().skip(11));
        let ticks: Vec<u64> = fields.into_iter().flatten().take(2).filter_map(|field| field.parse().ok()).collect();
        let [user, kernel] = ticks[..] else { bail!("/proc/{}/stat reads {stat:?}", self.id()) };
        let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
        Ok(Duration::from_millis((user + kernel) * 1000 / per_second))
    }

    /// Resident memory of the program in bytes (`VmRSS`).
    ///
    /// # Errors
    /// The program has ended.
    pub fn rss(&self) -> Result<u64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| anyhow!("{} has ended", self.title))
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.id());
        std::fs::read_to_string(&path).with_context(|| format!("read {path} of {}", self.title))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.id().cast_signed())
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Process({} {}, {:?})", self.id(), self.title, self.status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
        if thread::panicking() {
            let status = self.status.map_or("unknown".to_owned(), |status| match status.signal() {
                Some(libc::SIGKILL) => "ran until killed".to_owned(),
                _ => status.to_string(),
            });
            eprintln!("--- {} ({status}), last lines:\n{}---", self.title, self.output.lock().tail());
        }
        // Left alone if a child of the program holds a pipe open: they end with it.
        for reader in self.readers.drain(..).filter(JoinHandle::is_finished) {
            let _ = reader.join();
        }
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a stream to its end.
    fn collect(&self, stream: impl Read) {
        let mut line = Vec::new();
        for byte in BufReader::new(stream).bytes() {
            match byte {
                Err(_) => break,
                Ok(b'\n') => self.push(&mut line),
                Ok(byte) if line.len() < LINE_BYTES_MAX => line.push(byte),
                Ok(_) => {}
            }
        }
        if !line.is_empty() {
            self.push(&mut line);
        }
        self.lock().streams_open -= 1;
        self.changed.notify_all();
    }

    fn push(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line).into_owned();
        line.clear();
        let mut lines = self.lock();
        if lines.kept.len() == LINES_MAX {
            lines.kept.pop_front();
            lines.forgotten += 1;
        }
        lines.kept.push_back(text);
        drop(lines);
        self.changed.notify_all();
    }
}

impl Lines {
    /// The last 40 lines.
    fn tail(&self) -> String {
        let first = self.kept.len().saturating_sub(40);
        self.kept.iter().skip(first).fold(String::new(), |text, line| text + "  " + line + "\n")
    }
}

/// Starts `command` from a thread that never ends: a program of a host is killed with the thread that started it.
fn spawn_for_good(mut command: Command) -> Result<Child> {
    type Job = Box<dyn FnOnce() + Send>;
    static STARTER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        Mutex::new(sender)
    });
    let (sender, result) = channel();
    let job: Job = Box::new(move || {
        let _ = sender.send(command.spawn());
    });
    let queued = starter.lock().unwrap_or_else(PoisonError::into_inner).send(job);
    queued.map_err(|_| anyhow!("the thread that starts programs has ended"))?;
    Ok(result.recv().context("hear from the thread that starts programs")??)
}
