//! Ending a wait from another thread.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Ends the wait at hand, or the next one, of the engine it came from. Harmless when that engine is gone.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

struct Shared {
    /// Watched by edges; its count is never read.
    event: EventFd,
    /// Set by the first caller, cleared by the engine: a thousand calls between two waits cost one system call.
    called: AtomicBool,
}

impl Waker {
    /// One for the engine that is being made.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { shared: Arc::new(Shared { event, called: AtomicBool::new(false) }) })
    }

    /// Ends the wait at hand, or the next one.
    pub fn wake(&self) {
        if !self.shared.called.swap(true, Ordering::AcqRel) {
            // The write can fail only at a count of 2^64 - 2, which no machine lives to see.
            let _ = self.shared.event.write(1);
        }
    }

    /// From here on a call makes an edge again. To be called before the caller of the engine looks at what it was woken for.
    pub fn rearm(&self) {
        // A swap, not a store: what the caller of the engine reads next must not be read before others can see this.
        self.shared.called.swap(false, Ordering::AcqRel);
    }

    /// What becomes readable with each call; its count is never read, so it is to be watched by edges.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}
