//! A data thread: one engine, one state machine, one pump, on one processor.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use mesh_core::node::Node;
use mesh_core::seam::Moment;

use crate::engine::Engine;
use crate::helpers::Helpers;
use crate::imp;
use crate::mailbox::{Mailbox, mailbox};
use crate::pump::{Flow, Pump};

/// A running data thread.
pub struct Worker<E: Engine, N> {
    /// To talk to it.
    pub mailbox: Mailbox<E, N>,
    thread: JoinHandle<()>,
}

/// Tells the end of a data thread also when it panics.
struct End<F: FnOnce(io::Result<()>)>(Option<F>);

impl<F: FnOnce(io::Result<()>)> Drop for End<F> {
    fn drop(&mut self) {
        if let Some(ended) = self.0.take() {
            ended(Err(io::Error::other("a data thread panicked")));
        }
    }
}

/// Room that the allocator is to have for a data thread beyond what it took to start, in bytes: below what glibc would give back to the
/// system (`M_TRIM_THRESHOLD`) and what it would map alone (`M_MMAP_THRESHOLD`), 128 KiB both.
const ROOM_BYTES: usize = 96 * 1024;

/// Has the thread's allocator take that room now. Its memory grows page by page, each by a system call, and the messages of every day
/// would else ask for the next page now and then, in the middle of the traffic.
fn leave_room() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(ROOM_BYTES)));
}

/// What a worker is made of.
pub struct Plan<M, P, O> {
    /// Its number, for its name `mesh-core-N`.
    pub index: usize,
    /// The processor it is pinned to, if it is to be.
    pub processor: Option<usize>,
    /// Makes the engine, on the thread that will use it.
    pub make_engine: M,
    /// Makes the state machine, once the engine is there (sockets and the virtual interface are added here).
    pub make_node: P,
    /// Called once in each turn.
    pub observe: O,
}

impl<E, N> Worker<E, N>
where
    E: Engine + 'static,
    N: Node + 'static,
{
    /// Starts the thread and waits until its engine stands. `ended` is called when it stops, with what it stopped of.
    pub fn start<M, P, O>(
        plan: Plan<M, P, O>,
        helpers: Helpers,
        ended: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> anyhow::Result<Self>
    where
        M: FnOnce() -> io::Result<E> + Send + 'static,
        P: FnOnce(&mut E) -> anyhow::Result<N> + Send + 'static,
        O: FnMut(&mut E, &mut N, Moment) -> Flow + Send + 'static,
    {
        let (ready, is_ready) = mpsc::sync_channel(1);
        let Plan { index, processor, make_engine, make_node, observe } = plan;
        let thread = thread::Builder::new().name(format!("mesh-core-{index}")).spawn(move || {
            if let Some(processor) = processor
                && let Err(error) = imp::pin(processor)
            {
                tracing::info!(processor, %error, "the data thread is not pinned");
            }
            let made = make_engine().context("the engine does not start").and_then(|mut engine| {
                let node = make_node(&mut engine)?;
                Ok((engine, node))
            });
            let (engine, node) = match made {
                Ok(made) => made,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let (mailbox, inbox) = mailbox(engine.waker());
            let _ = ready.send(Ok(mailbox.clone()));
            let mut end = End(Some(ended));
            leave_room();
            let result = Pump::new(engine, node, inbox, mailbox, helpers, observe).run();
            if let Some(ended) = end.0.take() {
                ended(result);
            }
        })?;
        let mailbox = is_ready.recv().context("a data thread ended before it began")??;
        Ok(Self { mailbox, thread })
    }

    /// Waits for its end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a data thread panicked");
        }
    }
}
