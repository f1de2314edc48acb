//! A few threads for work that must not run on a data thread: Diffie-Hellman and name resolution.

use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Work that waits at most; with some hundred microseconds each, a queue of half a second for one thread.
pub const WAITING_MAX: usize = 1024;

type Work = Box<dyn FnOnce() + Send>;

/// A handle to the helper threads. They end when the last handle is gone and the queue is empty.
#[derive(Clone)]
pub struct Helpers {
    queue: Sender<Work>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
    refused: Arc<AtomicU64>,
}

/// Room for one piece of work. It is given back when it is not used.
#[must_use]
pub struct Place<'a> {
    helpers: &'a Helpers,
}

impl Place<'_> {
    /// Gives a piece of work to whoever is free next.
    pub fn submit(self, work: impl FnOnce() + Send + 'static) {
        // The threads live as long as this handle: the queue has a reader.
        let _ = self.helpers.queue.send(Box::new(work));
        // The place is given back by the thread that takes the work.
        mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.helpers.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Helpers {
    /// Starts `threads` of them with room for `waiting_max` pieces of work.
    pub fn start(threads: usize, waiting_max: usize) -> io::Result<Self> {
        let (queue, work) = mpsc::channel();
        let work = Arc::new(Mutex::new(work));
        let waiting = Arc::new(AtomicUsize::new(0));
        for index in 0..threads.max(1) {
            let (work, waiting) = (Arc::clone(&work), Arc::clone(&waiting));
            thread::Builder::new().name(format!("mesh-helper-{index}")).spawn(move || serve(&work, &waiting))?;
        }
        Ok(Self { queue, waiting, waiting_max, refused: Arc::default() })
    }

    /// Room for one more piece of work. When too much waits there is none, which is counted: whoever wants it is told at once and
    /// asks again, and a flood of handshakes costs a bounded share of the machine.
    pub fn reserve(&self) -> Option<Place<'_>> {
        let one_more = |waiting: usize| (waiting < self.waiting_max).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Place { helpers: self })
    }

    /// Pieces of work that found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Helpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helpers").field("refused", &self.refused()).finish_non_exhaustive()
    }
}

fn serve(work: &Mutex<Receiver<Work>>, waiting: &AtomicUsize) {
    loop {
        // The lock is held while waiting: one thread waits for work, the others for the lock. Nothing panics under it.
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => {
                waiting.fetch_sub(1, Ordering::Relaxed);
                work();
            }
            Err(mpsc::RecvError) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_and_what_finds_no_room_is_counted() {
        let helpers = Helpers::start(1, 2).unwrap();
        let (started, is_started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        helpers.reserve().unwrap().submit(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
        });
        is_started.recv().unwrap();
        // The one thread is busy: two find room, three do not.
        let (done, is_done) = mpsc::channel();
        for number in 0..5 {
            let done = done.clone();
            if let Some(place) = helpers.reserve() {
                place.submit(move || done.send(number).unwrap());
            }
        }
        assert_eq!(helpers.refused(), 3);
        release.send(()).unwrap();
        drop(done);
        assert_eq!(is_done.iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn place_that_is_not_used_is_given_back() {
        let helpers = Helpers::start(1, 1).unwrap();
        for _ in 0..3 {
            drop(helpers.reserve().expect("the one before was given back"));
        }
        let place = helpers.reserve().unwrap();
        assert!(helpers.reserve().is_none());
        drop(place);
        assert_eq!(helpers.refused(), 1);
    }
}
