//! A few threads for work that must not run on a data thread: Diffie-Hellman and name resolution.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Work that waits at most; with some hundred microseconds each, a queue of half a second for one thread.
pub const WAITING_MAX: usize = 1024;

type Work = Box<dyn FnOnce() + Send>;

/// A handle to the helper threads. They end when the last handle is gone and the queue is empty.
#[derive(Clone)]
pub struct Helpers {
    queue: SyncSender<Work>,
    refused: Arc<AtomicU64>,
}

impl Helpers {
    /// Starts `threads` of them with room for `waiting_max` pieces of work.
    pub fn start(threads: usize, waiting_max: usize) -> io::Result<Self> {
        let (queue, work) = mpsc::sync_channel(waiting_max);
        let work = Arc::new(Mutex::new(work));
        for index in 0..threads.max(1) {
            let work = Arc::clone(&work);
            thread::Builder::new().name(format!("mesh-helper-{index}")).spawn(move || serve(&work))?;
        }
        Ok(Self { queue, refused: Arc::default() })
    }

    /// Gives a piece of work to whoever is free next. When too much waits it is dropped and counted: whoever wanted it asks
    /// again, and a flood of handshakes costs a bounded share of the machine.
    pub fn submit(&self, work: impl FnOnce() + Send + 'static) {
        if self.queue.try_send(Box::new(work)).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
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

fn serve(work: &Mutex<Receiver<Work>>) {
    loop {
        // The lock is held while waiting: one thread waits for work, the others for the lock. Nothing panics under it.
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(),
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
        helpers.submit(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
        });
        is_started.recv().unwrap();
        // The one thread is busy: two find room, three do not.
        let (done, is_done) = mpsc::channel();
        for number in 0..5 {
            let done = done.clone();
            helpers.submit(move || done.send(number).unwrap());
        }
        assert_eq!(helpers.refused(), 3);
        release.send(()).unwrap();
        drop(done);
        assert_eq!(is_done.iter().collect::<Vec<_>>(), [0, 1]);
    }
}
