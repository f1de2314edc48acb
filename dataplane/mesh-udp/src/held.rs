//! Sends that met a full socket buffer.
//!
//! Each is copied into memory of its own, so that its receive buffer returns at once, and is sent when there is room. Of each
//! socket one is in flight and the others wait behind it, and as long as there is one, whatever else goes to that socket is held
//! too: so the order is kept.
//! Bounded in number and in time; what is beyond is dropped and counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::area::Area;
use crate::envelope::Envelope;
use crate::gather::{Gather, Piece, Run};

/// Held sends of an engine.
pub const HELD_MAX: usize = 64;
/// Held sends of one socket, so that one that is stuck leaves room for others.
pub const HELD_PER_SOCKET_MAX: usize = 16;
/// How long a send is held. What has waited longer is of no use to who waits for it.
pub const HELD_TIME: Duration = Duration::from_millis(100);
/// Bytes of one held send: the longest payload, in whole pages.
const LETTER_BYTES: usize = 64 * 1024;

/// A held send.
pub struct Letter {
    envelope: Envelope,
    iovec: [libc::iovec; 1],
    /// The socket it leaves by.
    pub socket: u16,
    /// Its datagrams.
    pub segments: u32,
    /// Its bytes.
    pub bytes: u32,
    since: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    InFlight,
    /// In flight, and its cancellation on the way.
    Cancelled,
}

/// All held sends.
pub struct Held {
    memory: Option<Area>,
    letters: Vec<Letter>,
    waiting: VecDeque<u16>,
    count: usize,
}

impl Held {
    /// With no memory yet.
    #[expect(clippy::new_without_default, reason = "as of all parts of an engine")]
    pub fn new() -> Self {
        Self { memory: None, letters: Vec::new(), waiting: VecDeque::with_capacity(HELD_MAX), count: 0 }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A held send by its slot.
    pub fn letter(&self, slot: u16) -> &Letter {
        &self.letters[usize::from(slot)]
    }

    /// Sends of this socket that are held.
    pub fn of_socket(&self, socket: u16) -> usize {
        if self.count == 0 { 0 } else { self.busy(socket).count() }
    }

    fn busy(&self, socket: u16) -> impl Iterator<Item = &Letter> {
        self.letters.iter().filter(move |letter| letter.state != State::Free && letter.socket == socket)
    }

    /// Copies a run, whose bytes lie where `bytes_of` tells, addressed from a socket of this family. `false` when there is no room.
    pub fn hold<'a>(&mut self, gather: &Gather, run: &Run, bytes_of: impl Fn(&Piece) -> &'a [u8], v6: bool) -> bool {
        let socket = run.to.socket.0;
        if self.count == HELD_MAX || self.of_socket(socket) == HELD_PER_SOCKET_MAX || run.bytes as usize > LETTER_BYTES
        {
            return false;
        }
        let memory = match &mut self.memory {
            Some(memory) => memory,
            // Made at the first need: most engines never hold anything.
            none => match Area::new(HELD_MAX * LETTER_BYTES) {
                Ok(area) => none.insert(area),
                Err(_) => return false,
            },
        };
        if self.letters.is_empty() {
            self.letters.resize_with(HELD_MAX, Letter::free);
        }
        let slot =
            self.letters.iter().position(|letter| letter.state == State::Free).expect("fewer than the most are held");
        let mut end = slot * LETTER_BYTES;
        for piece in gather.pieces(run) {
            let bytes = bytes_of(&piece);
            memory.bytes_mut(end..end + bytes.len()).copy_from_slice(bytes);
            end += bytes.len();
        }
        let start = slot * LETTER_BYTES;
        let letter = &mut self.letters[slot];
        letter.iovec[0] = libc::iovec { iov_base: memory.address(&(start..end)).cast(), iov_len: end - start };
        letter.envelope.address(v6, run, run.to.local, run.segments > 1, &mut letter.iovec);
        letter.socket = socket;
        letter.segments = run.segments;
        letter.bytes = run.bytes;
        letter.since = Instant::now();
        letter.state = State::Waiting;
        self.count += 1;
        self.waiting.push_back(slot as u16);
        true
    }

    /// Takes the next send that can go: the first of its socket, with none of it in flight.
    pub fn next_ready(&mut self) -> Option<u16> {
        self.next_ready_if(|_| true)
    }

    /// The same, of one socket.
    pub fn next_ready_of(&mut self, socket: u16) -> Option<u16> {
        self.next_ready_if(|letter| letter.socket == socket)
    }

    fn next_ready_if(&mut self, condition: impl Fn(&Letter) -> bool) -> Option<u16> {
        let flying = |letter: &Letter| matches!(letter.state, State::InFlight | State::Cancelled);
        let place = self.waiting.iter().position(|&slot| {
            let letter = self.letter(slot);
            condition(letter) && !self.busy(letter.socket).any(flying)
        })?;
        let slot = self.waiting.remove(place).expect("a place just found");
        self.letters[usize::from(slot)].state = State::InFlight;
        Some(slot)
    }

    /// Puts a send back that found no room after all: it stays the first of its socket.
    pub fn put_back(&mut self, slot: u16) {
        let letter = &mut self.letters[usize::from(slot)];
        assert!(letter.state == State::InFlight, "what is put back was taken");
        letter.state = State::Waiting;
        self.waiting.push_front(slot);
    }

    /// Frees a slot at its completion.
    pub fn finish(&mut self, slot: u16) -> &Letter {
        let letter = &mut self.letters[usize::from(slot)];
        assert!(matches!(letter.state, State::InFlight | State::Cancelled), "a held send completes once");
        letter.state = State::Free;
        self.count -= 1;
        letter
    }

    /// Drops the sends of a removed socket that are not in flight; returns their datagrams.
    pub fn drop_waiting(&mut self, socket: u16) -> u64 {
        self.drop_waiting_if(|letter| letter.socket == socket)
    }

    /// Drops the sends that have waited for too long and are not in flight; returns their datagrams.
    pub fn drop_late(&mut self, now: Instant) -> u64 {
        self.drop_waiting_if(|letter| now.duration_since(letter.since) >= HELD_TIME)
    }

    fn drop_waiting_if(&mut self, condition: impl Fn(&Letter) -> bool) -> u64 {
        let mut datagrams = 0;
        let letters = &mut self.letters;
        let before = self.waiting.len();
        self.waiting.retain(|&slot| {
            let letter = &mut letters[usize::from(slot)];
            let goes = condition(letter);
            if goes {
                datagrams += u64::from(letter.segments);
                letter.state = State::Free;
            }
            !goes
        });
        self.count -= before - self.waiting.len();
        datagrams
    }

    /// The next send in flight that has waited for too long; it is marked as being cancelled.
    pub fn next_late(&mut self, now: Instant) -> Option<u16> {
        let late = |letter: &Letter| letter.state == State::InFlight && now.duration_since(letter.since) >= HELD_TIME;
        let slot = self.letters.iter().position(late)?;
        self.letters[slot].state = State::Cancelled;
        Some(slot as u16)
    }

    /// Whether one of the socket's sends is in flight.
    pub fn in_flight(&self, socket: u16) -> bool {
        self.busy(socket).any(|letter| letter.state != State::Waiting)
    }

    /// Sends in flight.
    pub fn in_flight_total(&self) -> usize {
        self.letters.iter().filter(|letter| matches!(letter.state, State::InFlight | State::Cancelled)).count()
    }

    /// Leaves everything that the kernel may still read in place for good.
    pub fn leak(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.leak();
        }
        std::mem::forget(std::mem::take(&mut self.letters));
    }
}

impl Letter {
    /// What `sendmsg` takes. It points into the letter and the memory of the held sends, which stay where they are while the letter
    /// is in flight.
    pub fn header(&self) -> *const libc::msghdr {
        self.envelope.header()
    }

    fn free() -> Self {
        Self {
            envelope: Envelope::new(),
            iovec: [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }],
            socket: 0,
            segments: 0,
            bytes: 0,
            since: Instant::now(),
            state: State::Free,
        }
    }
}
