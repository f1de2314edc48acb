//! Messages from other threads to a data thread: pieces of code that the pump runs between two turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use mesh_core::seam::Moment;

use crate::engine::{Engine, Wake as _};
use crate::pump::Flow;

type Message<E, N> = Box<dyn FnOnce(&mut E, &mut N, Moment) -> Flow + Send>;

/// Messages that are run in one turn.
const MESSAGES_MAX: usize = 256;

/// The end for other threads.
pub struct Mailbox<E: Engine, N> {
    messages: Sender<Message<E, N>>,
    written: Arc<AtomicBool>,
    waker: E::Waker,
}

/// The end for the pump.
pub struct Inbox<E, N> {
    messages: Receiver<Message<E, N>>,
    written: Arc<AtomicBool>,
}

/// A box whose writers wake an engine by `waker`.
pub fn mailbox<E: Engine, N>(waker: E::Waker) -> (Mailbox<E, N>, Inbox<E, N>) {
    let (sender, receiver) = mpsc::channel();
    let written = Arc::new(AtomicBool::new(false));
    (Mailbox { messages: sender, written: Arc::clone(&written), waker }, Inbox { messages: receiver, written })
}

impl<E: Engine, N> Clone for Mailbox<E, N> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), written: Arc::clone(&self.written), waker: self.waker.clone() }
    }
}

impl<E: Engine + 'static, N: 'static> Mailbox<E, N> {
    /// Has `message` run on the data thread. Whether that thread is still there.
    pub fn send(&self, message: impl FnOnce(&mut E, &mut N, Moment) -> Flow + Send + 'static) -> bool {
        let sent = self.messages.send(Box::new(message)).is_ok();
        self.written.store(true, Ordering::Release);
        self.waker.wake();
        sent
    }

    /// Asks the data thread something. A thread that ended, or that dropped the question, gives a receiver without an answer.
    pub fn ask<A: Send + 'static>(
        &self,
        question: impl FnOnce(&mut E, &mut N, Moment) -> A + Send + 'static,
    ) -> Receiver<A> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.send(move |engine, node, now| {
            // Who asked may have given up.
            let _ = answer.send(question(engine, node, now));
            Flow::Continue
        });
        answered
    }
}

impl<E: Engine, N> Inbox<E, N> {
    /// Runs what was sent, in order, but no more at one time than leaves the sockets their turn; the engine is woken for the rest. Costs
    /// one load when nothing was sent.
    pub(crate) fn read(&self, engine: &mut E, node: &mut N, now: Moment) -> Flow {
        if !self.written.load(Ordering::Acquire) || !self.written.swap(false, Ordering::AcqRel) {
            return Flow::Continue;
        }
        let mut flow = Flow::Continue;
        let mut run = 0;
        for message in self.messages.try_iter().take(MESSAGES_MAX) {
            run += 1;
            if message(engine, node, now) == Flow::Stop {
                flow = Flow::Stop;
            }
        }
        if run == MESSAGES_MAX {
            self.written.store(true, Ordering::Release);
            engine.waker().wake();
        }
        flow
    }
}
