//! Handshake steps as pieces of work: a state machine asks for them, another thread runs them, their outcome comes back.
//!
//! A job holds all it needs, its randomness too, and its outcome depends on nothing else: the simulator runs the same jobs and
//! gets the same bytes.

use super::PublicKey;
use super::cipher::Ciphers;
use super::handshake::{
    Choose, HandshakeError, Initiator, InitiatorFinished, Params, Responder, ResponderAnswered, ResponderFinished,
};

/// One step of a handshake, to be [run](Job::run) away from the data threads.
#[derive(Debug)]
pub struct Job {
    /// Chosen by the state machine; the outcome carries it too.
    pub id: u64,
    work: Work,
}

#[derive(Debug)]
enum Work {
    InitiatorStart { params: Params, hello: Vec<u8> },
    ResponderAnswer { params: Params, noise: Vec<u8>, ours: Ciphers, choose: Choose },
    InitiatorFinish { initiator: Initiator, noise: Vec<u8>, last: Vec<u8>, expected: Option<PublicKey> },
    ResponderFinish { responder: Responder, noise: Vec<u8> },
}

/// A job that was run.
#[derive(Debug)]
pub struct Done {
    /// The job's.
    pub id: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a job.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Job::initiator_start`].
    InitiatorStarted {
        /// Message 1, to be sent.
        noise: Vec<u8>,
        /// Waits for message 2: give it to [`Job::initiator_finish`].
        initiator: Initiator,
    },
    /// Of [`Job::responder_answer`].
    ResponderAnswered(ResponderAnswered),
    /// Of [`Job::initiator_finish`].
    InitiatorFinished(InitiatorFinished),
    /// Of [`Job::responder_finish`].
    ResponderFinished(ResponderFinished),
    /// Of any of them.
    Failed {
        /// Why.
        error: HandshakeError,
        /// Of [`Job::initiator_finish`], where the message was a bad one: keep it, the true message 2 may still come.
        initiator: Option<Initiator>,
        /// Of [`Job::responder_finish`]: keep it, the true message 3 may still come.
        responder: Option<Responder>,
    },
}

impl Job {
    /// Begins a handshake: message 1 with the payload `hello` (at most [`super::handshake::HELLO_BYTES_MAX`] bytes).
    pub fn initiator_start(id: u64, params: Params, hello: Vec<u8>) -> Self {
        Self { id, work: Work::InitiatorStart { params, hello } }
    }

    /// Answers message 1, `noise`. `choose` is given the Hello and `ours`, and makes the Welcome.
    pub fn responder_answer(id: u64, params: Params, noise: Vec<u8>, ours: Ciphers, choose: Choose) -> Self {
        Self { id, work: Work::ResponderAnswer { params, noise, ours, choose } }
    }

    /// Ends a handshake we began: reads message 2, `noise`, and writes message 3 with the payload `last` (at most
    /// [`super::handshake::FINAL_BYTES_MAX`] bytes). With `expected`, anyone else is refused and message 3 is not made, so
    /// that our own key is shown to no one else.
    pub fn initiator_finish(
        id: u64,
        initiator: Initiator,
        noise: Vec<u8>,
        last: Vec<u8>,
        expected: Option<PublicKey>,
    ) -> Self {
        Self { id, work: Work::InitiatorFinish { initiator, noise, last, expected } }
    }

    /// Ends a handshake we answered: reads message 3, `noise`.
    pub fn responder_finish(id: u64, responder: Responder, noise: Vec<u8>) -> Self {
        Self { id, work: Work::ResponderFinish { responder, noise } }
    }

    /// Gives the job up unrun, because no thread has time for it: an outcome that lets the state machine go on at once with what
    /// it has, instead of waiting for one that never comes.
    pub fn refuse(self) -> Done {
        let (initiator, responder) = match self.work {
            Work::InitiatorStart { .. } | Work::ResponderAnswer { .. } => (None, None),
            Work::InitiatorFinish { initiator, .. } => (Some(initiator), None),
            Work::ResponderFinish { responder, .. } => (None, Some(responder)),
        };
        Done { id: self.id, outcome: Outcome::Failed { error: HandshakeError::Overloaded, initiator, responder } }
    }

    /// Does the work: up to four multiplications on the curve, some hundred microseconds.
    pub fn run(self) -> Done {
        let failed = |error| Outcome::Failed { error, initiator: None, responder: None };
        let outcome = match self.work {
            Work::InitiatorStart { params, hello } => match Initiator::start(&params, &hello) {
                Ok((initiator, noise)) => Outcome::InitiatorStarted { noise, initiator },
                Err(error) => failed(error),
            },
            Work::ResponderAnswer { params, noise, ours, choose } => {
                Responder::answer(&params, &noise, ours, choose).map_or_else(failed, Outcome::ResponderAnswered)
            }
            Work::InitiatorFinish { initiator, noise, last, expected } => {
                match initiator.finish(&noise, &last, expected.as_ref()) {
                    Ok(finished) => Outcome::InitiatorFinished(finished),
                    Err((error, initiator)) => Outcome::Failed { error, initiator, responder: None },
                }
            }
            Work::ResponderFinish { responder, noise } => match responder.finish(&noise) {
                Ok(finished) => Outcome::ResponderFinished(finished),
                Err((error, responder)) => Outcome::Failed { error, initiator: None, responder: Some(responder) },
            },
        };
        Done { id: self.id, outcome }
    }
}
