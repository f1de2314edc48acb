//! Time that has to pass in full.

use std::thread;
use std::time::Duration;

/// Lets this much time pass on the calling thread, all of it: for a sleep that is the subject of a test, a machine that is to be idle
/// for so long, or a pause between two looks at something.
///
/// `thread::park_timeout` is no wait: it returns at once where a scoped thread, a channel or a closure of [`crate::Host::run`] has left the
/// thread a token. For something that is to happen, look at it until it has, with a limit.
#[expect(clippy::disallowed_methods, reason = "the one place where a test waits for nothing but the time")]
pub fn pause(time: Duration) {
    thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A test was over after a second that was to last ten minutes.
    #[test]
    fn time_passes_in_full_whatever_was_left_over() {
        let time = Duration::from_millis(50);
        let start = Instant::now();
        thread::current().unpark();
        pause(time);
        assert!(start.elapsed() >= time, "{:?}", start.elapsed());
    }
}
