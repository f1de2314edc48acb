//! THE loop: the only place where bytes become decisions and decisions become bytes.
//!
//! One turn:
//! 1. submit what the turn before queued, and wait for trains, at most until the state machine wants to be called;
//! 2. read the mailbox, if someone wrote: what other threads said before a train was sent is known when it is judged;
//! 3. let the state machine decide on each train, queue what it decided, give the train back;
//! 4. let it do what is due;
//! 5. tell the observer: what it says to other threads is said before anything of this turn is sent;
//! 6. queue the messages of its own making, and hand its Diffie-Hellman work to the helpers.
//!
//! A turn allocates nothing for a datagram: the batch and the list of actions keep their memory.

use std::io;
use std::mem;

use mesh_core::node::Node;
use mesh_core::seam::{Action, Moment};

use crate::clock;
use crate::engine::Engine;
use crate::helpers::Helpers;
use crate::mailbox::{Inbox, Mailbox};

/// Messages of its own making that a state machine may queue before they are flushed: they share one slab.
const TRANSMITS_PER_FLUSH: usize = 64;

/// Trains that an engine hands out at once: there is room for them from the start, because what grows under load asks the system for
/// memory under load.
const TRAINS: usize = 256;
/// The same of what is decided on one train: two halves of each of its datagrams.
const ACTIONS: usize = 128;

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// What the state machine still has to say is sent, then it ends.
    Stop,
}

/// An engine, a state machine, and the loop between them. `O` is called once in each turn, to collect events.
pub struct Pump<E: Engine, N: Node, O> {
    engine: E,
    node: N,
    observe: O,
    inbox: Inbox<E, N>,
    /// For the outcome of jobs.
    mailbox: Mailbox<E, N>,
    helpers: Helpers,
    batch: Vec<E::Train>,
    actions: Vec<Action>,
}

impl<E, N, O> Pump<E, N, O>
where
    E: Engine + 'static,
    N: Node + 'static,
    O: FnMut(&mut E, &mut N, Moment) -> Flow,
{
    /// Puts the parts together. `inbox` and `mailbox` are the two ends of one box.
    pub fn new(engine: E, node: N, inbox: Inbox<E, N>, mailbox: Mailbox<E, N>, helpers: Helpers, observe: O) -> Self {
        let (batch, actions) = (Vec::with_capacity(TRAINS), Vec::with_capacity(ACTIONS));
        Self { engine, node, observe, inbox, mailbox, helpers, batch, actions }
    }

    /// Turns until someone says stop, then sends what is left to say.
    pub fn run(mut self) -> io::Result<()> {
        while self.turn()? == Flow::Continue {}
        self.transmit(clock::now())?;
        self.engine.flush()
    }

    fn turn(&mut self) -> io::Result<Flow> {
        let timeout = self.node.poll_timeout().map(|at| at.since(clock::now()));
        self.engine.wait(timeout, &mut self.batch)?;
        let now = clock::now();
        let mut flow = self.inbox.read(&mut self.engine, &mut self.node, now);

        let mut batch = mem::take(&mut self.batch);
        for train in batch.drain(..) {
            self.handle(now, train);
        }
        self.batch = batch;

        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle_timeout(now);
        }
        if (self.observe)(&mut self.engine, &mut self.node, now) == Flow::Stop {
            flow = Flow::Stop;
        }
        self.transmit(now)?;
        while let Some(job) = self.node.poll_job() {
            let Some(place) = self.helpers.reserve() else {
                self.node.handle_job(now, job.refuse());
                continue;
            };
            let mailbox = self.mailbox.clone();
            place.submit(move || {
                let done = job.run();
                mailbox.send(move |_, node, now| {
                    node.handle_job(now, done);
                    Flow::Continue
                });
            });
        }
        Ok(flow)
    }

    fn handle(&mut self, now: Moment, mut train: E::Train) {
        let arrival = self.engine.arrival(&train);
        let (bytes, mut slab) = self.engine.split(&mut train);
        self.node.handle(now, &arrival, bytes, &mut slab, &mut self.actions);
        let used = slab.used();
        self.engine.keep_slab(used);
        for action in self.actions.drain(..) {
            match action {
                Action::Forward { bytes, segment_bytes, to, tos } => {
                    self.engine.forward(&train, bytes, segment_bytes, &to, tos);
                }
                Action::Send { slab, segment_bytes, to, tos } => self.engine.send(slab, segment_bytes, &to, tos),
                Action::Deliver { bytes } => self.engine.deliver(&train, bytes),
                Action::DeliverMore { bytes } => self.engine.deliver_more(&train, bytes),
                Action::DeliverSlab { slab } => self.engine.deliver_slab(slab),
            }
        }
        self.engine.release(train);
    }

    fn transmit(&mut self, now: Moment) -> io::Result<()> {
        for queued in 1.. {
            let mut slab = self.engine.slab();
            let Some(action) = self.node.poll_transmit(now, &mut slab) else { break };
            let used = slab.used();
            self.engine.keep_slab(used);
            match action {
                Action::Send { slab, segment_bytes, to, tos } => self.engine.send(slab, segment_bytes, &to, tos),
                Action::DeliverSlab { slab } => self.engine.deliver_slab(slab),
                Action::Forward { .. } | Action::Deliver { .. } | Action::DeliverMore { .. } => {
                    debug_assert!(false, "there is no train at hand to forward or deliver from");
                }
            }
            if queued % TRANSMITS_PER_FLUSH == 0 {
                self.engine.flush()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
