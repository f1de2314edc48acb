//! The wish to stop: SIGTERM and Ctrl-C.

#[cfg(target_os = "linux")]
pub use linux::Signals;
#[cfg(windows)]
pub use windows::Signals;

/// Exit code of a program that was told to stop a second time while it was stopping.
const IMPATIENT: i32 = 1;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::thread;

    use nix::sys::signal::{SigSet, Signal};

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

        /// Calls `stop` at the first of them, on a thread of its own; a second one ends the process at once.
        pub fn on_stop(self, stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
            let wait = move || {
                let first = self.0.wait();
                tracing::debug!(signal = ?first.map(Signal::as_str), "asked to stop");
                stop();
                let _ = self.0.wait();
                std::process::exit(super::IMPATIENT);
            };
            thread::Builder::new().name("mesh-signals".into()).spawn(wait)?;
            Ok(())
        }
    }
}

#[cfg(windows)]
mod windows {
    use std::{io, thread};

    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};

    /// Ctrl-C, Ctrl-Break, the closing of the console and of the system.
    #[derive(Debug)]
    pub struct Signals(());

    impl Signals {
        /// Nothing has to be held back on Windows.
        pub fn block() -> io::Result<Self> {
            Ok(Self(()))
        }

        /// Calls `stop` at the first of them, on a thread of its own; a second one ends the process at once.
        pub fn on_stop(self, stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let wait = move || {
                let watched = runtime.block_on(async {
                    let (mut c, mut brk, mut close, mut shutdown) =
                        (ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
                    let mut stop = Some(stop);
                    loop {
                        tokio::select! {
                            _ = c.recv() => {}
                            _ = brk.recv() => {}
                            _ = close.recv() => {}
                            _ = shutdown.recv() => {}
                        }
                        match stop.take() {
                            Some(stop) => stop(),
                            None => std::process::exit(super::IMPATIENT),
                        }
                    }
                    #[expect(unreachable_code, reason = "gives the block its type")]
                    io::Result::Ok(())
                });
                if let Err(error) = watched {
                    tracing::warn!(%error, "Ctrl-C is not watched");
                }
            };
            thread::Builder::new().name("mesh-signals".into()).spawn(wait)?;
            Ok(())
        }
    }
}
