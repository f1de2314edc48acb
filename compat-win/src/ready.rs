//! Who has something to do: a list of ready sources, filled by the wakers that tokio's I/O driver calls.
//!
//! A turn costs what the ready sources cost, never what the idle ones would: nothing here looks at a source that was not woken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Wake};

/// The list, and the pump that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<u32>,
    pump: Option<task::Waker>,
    woken: bool,
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `sources` entries, so that a wake-up never allocates.
    pub(crate) fn reserve(&self, sources: usize) {
        let mut state = self.lock();
        let missing = sources.saturating_sub(state.queue.len());
        state.queue.reserve(missing);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().queue.len()
    }

    pub(crate) fn pop(&self) -> Option<u32> {
        self.lock().queue.pop_front()
    }

    /// Whether [`Waker::wake`] was called since the last time this was asked.
    pub(crate) fn take_woken(&self) -> bool {
        std::mem::take(&mut self.lock().woken)
    }

    /// Leaves `pump` to be woken by the next event. `false` if there is one already, and nothing was left.
    ///
    /// With `starved` a ready source is no event: there is no buffer to read it into.
    pub(crate) fn park(&self, pump: &task::Waker, starved: bool) -> bool {
        let mut state = self.lock();
        if state.woken || (!starved && !state.queue.is_empty()) {
            return false;
        }
        if !state.pump.as_ref().is_some_and(|waiting| waiting.will_wake(pump)) {
            state.pump = Some(pump.clone());
        }
        true
    }

    fn push(&self, source: u32) {
        let pump = {
            let mut state = self.lock();
            state.queue.push_back(source);
            state.pump.take()
        };
        if let Some(pump) = pump {
            pump.wake();
        }
    }

    fn wake(&self) {
        let pump = {
            let mut state = self.lock();
            state.woken = true;
            state.pump.take()
        };
        if let Some(pump) = pump {
            pump.wake();
        }
    }
}

/// One source, as a waker: a wake-up puts it on the list, once.
#[derive(Debug)]
pub(crate) struct Source {
    index: u32,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Source {
    pub(crate) fn new(index: u32, ready: &Arc<Ready>) -> Arc<Self> {
        Arc::new(Self { index, queued: AtomicBool::new(false), ready: Arc::clone(ready) })
    }

    /// Puts the source on the list, unless it stands there.
    pub(crate) fn push(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.push(self.index);
        }
    }

    /// The source was taken from the list: what happens from now on lists it again.
    pub(crate) fn taken(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for Source {
    fn wake(self: Arc<Self>) {
        self.push();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.push();
    }
}

/// Ends a wait of the engine from another thread: the one at hand, or the next.
#[derive(Clone, Debug)]
pub struct Waker {
    ready: Arc<Ready>,
}

impl Waker {
    pub(crate) fn new(ready: &Arc<Ready>) -> Self {
        Self { ready: Arc::clone(ready) }
    }

    /// Ends the wait at hand, or the next one. Any number of calls before a wait end one wait.
    pub fn wake(&self) {
        self.ready.wake();
    }
}
