//! What the pump asks of a state machine, and the loop it must drive it with.

use crate::seam::{Action, Arrival, Moment, Slab};
use crate::session::jobs::{Done, Job};

/// A sans-IO state machine: [`crate::transfer::Transfer`] or [`crate::gateway::Gateway`].
///
/// Push input:
/// - [`handle`](Node::handle) for each train; carry out the actions it appended, in order;
/// - [`handle_timeout`](Node::handle_timeout) when [`poll_timeout`](Node::poll_timeout) is due;
/// - [`handle_job`](Node::handle_job) with the outcome of each job.
///
/// Then pull output until there is none:
/// - [`poll_transmit`](Node::poll_transmit): small messages of its own making;
/// - [`poll_job`](Node::poll_job): Diffie-Hellman work, to be run with [`Job::run`] on another thread.
///
/// None of these blocks, reads a clock or draws from a global source of randomness.
pub trait Node {
    /// Decides what becomes of one train. `bytes` may be changed in place (decrypted); `slab` takes bytes of its own making.
    /// Actions are appended; what no action names is dropped, and counted by reason.
    fn handle(
        &mut self,
        now: Moment,
        arrival: &Arrival,
        bytes: &mut [u8],
        slab: &mut Slab<'_>,
        actions: &mut Vec<Action>,
    );

    /// When [`handle_timeout`](Node::handle_timeout) is wanted next; `None`: not before the next input.
    fn poll_timeout(&self) -> Option<Moment>;

    /// Does what is due.
    fn handle_timeout(&mut self, now: Moment);

    /// The next message of its own making, written to the slab ([`Action::Send`] or [`Action::DeliverSlab`]).
    fn poll_transmit(&mut self, now: Moment, slab: &mut Slab<'_>) -> Option<Action>;

    /// The next piece of asymmetric cryptography to be done elsewhere.
    fn poll_job(&mut self) -> Option<Job>;

    /// Takes the outcome of a job.
    fn handle_job(&mut self, now: Moment, done: Done);
}
