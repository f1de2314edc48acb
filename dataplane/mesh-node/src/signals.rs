//! The wish to stop: SIGTERM and Ctrl-C.
//!
//! [`Signals::block`] comes before any thread, [`Signals::watch`] as soon as the log stands: from then on the first signal ends a
//! program that is still starting at once, whatever it waits for, and one that runs by what it gave to [`Stopping::by`]. A
//! second signal ends it without waiting, unless it comes so soon that it is the same wish: `timeout` tells its child and then the
//! child's group.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
pub use linux::Signals;
#[cfg(windows)]
pub use windows::Signals;

use crate::log::{LogCloser, announce};

/// Exit code of a program that was told to stop a second time while it was stopping.
const IMPATIENT: i32 = 1;

/// Signals this soon after the first are the first once more.
const SAME_WISH: Duration = Duration::from_millis(500);

type Stop = Box<dyn FnOnce() + Send>;

/// How far a program is.
enum Phase {
    /// It has nothing yet that must be given back or told.
    Starting,
    /// This makes it stop.
    Running(Stop),
    /// It was told to, at this time.
    Stopping(Instant),
}

/// What to do at a signal.
enum Reaction {
    /// There is nothing to wait for.
    EndNow,
    Stop(Stop),
    /// The first one came twice.
    Ignore,
    /// The second one.
    Abandon,
}

impl Phase {
    fn react(&mut self, now: Instant) -> Reaction {
        match std::mem::replace(self, Self::Stopping(now)) {
            Self::Starting => Reaction::EndNow,
            Self::Running(stop) => Reaction::Stop(stop),
            Self::Stopping(since) if now.saturating_duration_since(since) < SAME_WISH => {
                *self = Self::Stopping(since);
                Reaction::Ignore
            }
            Self::Stopping(_) => Reaction::Abandon,
        }
    }
}

/// What signals do from now on.
#[derive(Clone)]
pub struct Stopping {
    phase: Arc<Mutex<Phase>>,
    /// A file that must not outlive the process.
    remnant: Arc<Mutex<Option<PathBuf>>>,
}

impl Stopping {
    fn new() -> Self {
        Self { phase: Arc::new(Mutex::new(Phase::Starting)), remnant: Arc::default() }
    }

    /// The program runs: the first signal calls `stop`, on a thread of its own, and the second ends the process.
    pub fn by(&self, stop: impl FnOnce() + Send + 'static) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        *phase = Phase::Running(Box::new(stop));
    }

    /// Removes `file` if a second signal ends the process before it could clean up.
    pub fn removes(&self, file: PathBuf) {
        *self.remnant.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    /// What is left to do before the process is ended by force.
    fn clean_up(&self) {
        if let Some(file) = self.remnant.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It may be gone already: the program was about to end.
            let _ = fs::remove_file(file);
        }
    }

    /// A signal came.
    fn signalled(&self, log: &LogCloser) {
        // Held to the end of the process where that is near: the program does not start to run meanwhile.
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        match phase.react(Instant::now()) {
            Reaction::EndNow => {
                announce("stopped before it ran");
                log.close();
                std::process::exit(0);
            }
            Reaction::Stop(stop) => stop(),
            Reaction::Ignore => {}
            Reaction::Abandon => {
                self.clean_up();
                std::process::exit(IMPATIENT)
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::thread;

    use nix::sys::signal::{SigSet, Signal};

    use super::{LogCloser, Stopping};

    /// SIGTERM, SIGINT and SIGHUP, held back from every thread of the process.
    #[derive(Debug)]
    pub struct Signals(SigSet);

    impl Signals {
        /// Holds the signals back. To be called before any thread is made: threads inherit it.
        pub fn block() -> io::Result<Self> {
            let mut set = SigSet::empty();
            for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
                set.add(signal);
            }
            set.thread_block()?;
            Ok(Self(set))
        }

        /// Waits for them on a thread of its own; what came since [`Signals::block`] counts.
        pub fn watch(self, log: LogCloser) -> io::Result<Stopping> {
            let stopping = Stopping::new();
            let told = stopping.clone();
            let wait = move || {
                loop {
                    let signal = self.0.wait();
                    tracing::debug!(signal = ?signal.map(Signal::as_str), "asked to stop");
                    told.signalled(&log);
                }
            };
            thread::Builder::new().name("mesh-signals".into()).spawn(wait)?;
            Ok(stopping)
        }
    }
}

#[cfg(windows)]
mod windows {
    use std::{io, thread};

    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};

    use super::{LogCloser, Stopping};

    /// Ctrl-C, Ctrl-Break, the closing of the console and of the system.
    #[derive(Debug)]
    pub struct Signals(());

    impl Signals {
        /// Nothing has to be held back on Windows.
        pub fn block() -> io::Result<Self> {
            Ok(Self(()))
        }

        /// Waits for them on a thread of its own.
        pub fn watch(self, log: LogCloser) -> io::Result<Stopping> {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let stopping = Stopping::new();
            let told = stopping.clone();
            let wait = move || {
                let watched = runtime.block_on(async {
                    let (mut c, mut brk, mut close, mut shutdown) =
                        (ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
                    loop {
                        tokio::select! {
                            _ = c.recv() => {}
                            _ = brk.recv() => {}
                            _ = close.recv() => {}
                            _ = shutdown.recv() => {}
                        }
                        told.signalled(&log);
                    }
                    #[expect(unreachable_code, reason = "gives the block its type")]
                    io::Result::Ok(())
                });
                if let Err(error) = watched {
                    tracing::warn!(%error, "Ctrl-C is not watched");
                }
            };
            thread::Builder::new().name("mesh-signals".into()).spawn(wait)?;
            Ok(stopping)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_start_ends_at_once_and_a_second_signal_does_not_wait() {
        let now = Instant::now();
        assert!(matches!(Phase::Starting.react(now), Reaction::EndNow));

        let stopping = Stopping::new();
        let (stop, stopped) = mpsc::channel();
        stopping.by(move || stop.send(()).unwrap());
        let mut phase = stopping.phase.lock().unwrap();
        let Reaction::Stop(stop) = phase.react(now) else { panic!("a program that runs is asked to stop") };
        stop();
        stopped.recv().unwrap();
        let just = SAME_WISH - Duration::from_millis(1);
        for soon in [Duration::ZERO, Duration::from_micros(3), just] {
            assert!(matches!(phase.react(now + soon), Reaction::Ignore), "{soon:?}");
        }
        // Counted from the first: whoever sends without a pause is heard as well.
        assert!(matches!(phase.react(now + SAME_WISH), Reaction::Abandon));
    }

    #[test]
    fn an_end_by_force_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("transfer-8000.sock");
        fs::write(&socket, "").unwrap();
        let stopping = Stopping::new();
        stopping.clean_up();
        assert!(socket.exists());
        stopping.removes(socket.clone());
        stopping.clean_up();
        assert!(!socket.exists());
        stopping.clean_up();
    }
}
