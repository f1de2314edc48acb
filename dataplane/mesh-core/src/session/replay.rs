//! Windows of packet counters: no packet counts twice (RFC 6479 describes the idea; RFC 4303 section 3.4.3 the need).
//!
//! The order is: [`Window::check`], authenticate, [`Window::commit`], **for each packet before the next one is checked**. Then
//! the segments of one train are also checked against each other: a train that holds the same packet twice delivers it once. A
//! forged packet is never committed, so it cannot move the window.

/// Why a counter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replayed {
    /// A packet with this counter was accepted before.
    Seen,
    /// It lies behind the window: no one can tell.
    TooOld,
}

/// The bits of a window, each for one counter modulo their number.
trait Bits {
    /// How many; a power of two and a multiple of 64.
    const COUNT: u64;
    /// The words, or none while no counter was ever committed.
    fn words(&self) -> &[u64];
    /// The words, made now if need be.
    fn words_mut(&mut self) -> &mut [u64];
}

/// What both windows do: remember the last `B::COUNT` counters below `next`.
#[derive(Clone, Debug, Default)]
struct Sliding<B> {
    /// One more than the highest committed counter.
    next: u64,
    bits: B,
}

impl<B: Bits> Sliding<B> {
    fn check(&self, counter: u64) -> Result<(), Replayed> {
        if counter >= self.next {
            // The last counter of all has no successor to stand for it in `next`; no session gets there.
            return if counter == u64::MAX { Err(Replayed::TooOld) } else { Ok(()) };
        }
        if self.next - counter > B::COUNT {
            return Err(Replayed::TooOld);
        }
        let (word, mask) = Self::place(counter);
        match self.bits.words().get(word) {
            Some(bits) if bits & mask != 0 => Err(Replayed::Seen),
            _ => Ok(()),
        }
    }

    fn commit(&mut self, counter: u64) {
        if counter == u64::MAX || (counter < self.next && self.next - counter > B::COUNT) {
            return;
        }
        if counter >= self.next {
            // The bits of the counters in between still stand for counters one window earlier.
            self.clear(self.next, counter - self.next + 1);
            self.next = counter + 1;
        }
        let (word, mask) = Self::place(counter);
        self.bits.words_mut()[word] |= mask;
    }

    /// Clears the bits of `count` counters from `first` on.
    fn clear(&mut self, first: u64, count: u64) {
        let words = self.bits.words_mut();
        if count >= B::COUNT {
            words.fill(0);
            return;
        }
        let mut left = count;
        let mut counter = first;
        while left > 0 {
            let (word, _) = Self::place(counter);
            let bit = counter % 64;
            let run = left.min(64 - bit);
            words[word] &= !((u64::MAX >> (64 - run)) << bit);
            // At the very top of the range the sum wraps, but only after the last run.
            counter = counter.wrapping_add(run);
            left -= run;
        }
    }

    /// The word and the bit in it that stand for `counter`.
    fn place(counter: u64) -> (usize, u64) {
        let bit = counter % B::COUNT;
        (usize::try_from(bit / 64).expect("a window has few words"), 1 << (bit % 64))
    }
}

/// Counters a [`Window`] remembers: enough for trains of several cores to overtake each other.
pub const WINDOW_PACKETS: u64 = 65_536;

/// Words of a [`Window`]: 8 KiB.
const WINDOW_WORDS: usize = 1024;
const _: () = assert!(WINDOW_WORDS as u64 * 64 == WINDOW_PACKETS && WINDOW_PACKETS.is_power_of_two());

#[derive(Clone, Debug, Default)]
struct LazyBits(Option<Box<[u64]>>);

impl Bits for LazyBits {
    const COUNT: u64 = WINDOW_PACKETS;

    fn words(&self) -> &[u64] {
        self.0.as_deref().unwrap_or_default()
    }

    fn words_mut(&mut self) -> &mut [u64] {
        self.0.get_or_insert_with(|| vec![0; WINDOW_WORDS].into_boxed_slice())
    }
}

/// The window of a data session. Its 8 KiB are allocated when the first packet is committed.
#[derive(Clone, Debug, Default)]
pub struct Window(Sliding<LazyBits>);

impl Window {
    /// A window that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a packet with this counter may still be accepted. Changes nothing: ask before authenticating.
    pub fn check(&self, counter: u64) -> Result<(), Replayed> {
        self.0.check(counter)
    }

    /// Remembers the counter of a packet that was authenticated.
    pub fn commit(&mut self, counter: u64) {
        self.0.commit(counter);
    }

    /// One more than the highest counter committed so far; zero at first.
    pub fn next(&self) -> u64 {
        self.0.next
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct OneWord([u64; 1]);

impl Bits for OneWord {
    const COUNT: u64 = 64;

    fn words(&self) -> &[u64] {
        &self.0
    }

    fn words_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }
}

/// The window of a control session: 64 packets in 16 bytes.
#[derive(Clone, Debug, Default)]
pub struct SmallWindow(Sliding<OneWord>);

impl SmallWindow {
    /// A window that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a packet with this counter may still be accepted. Changes nothing: ask before authenticating.
    pub fn check(&self, counter: u64) -> Result<(), Replayed> {
        self.0.check(counter)
    }

    /// Remembers the counter of a packet that was authenticated.
    pub fn commit(&mut self, counter: u64) {
        self.0.commit(counter);
    }

    /// One more than the highest counter committed so far; zero at first.
    pub fn next(&self) -> u64 {
        self.0.next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same rules, written down naively.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn check(&self, counter: u64, window: u64) -> Result<(), Replayed> {
            if counter == u64::MAX {
                return Err(Replayed::TooOld);
            }
            let next = self.seen.last().map_or(0, |highest| highest + 1);
            if counter < next && next - counter > window {
                return Err(Replayed::TooOld);
            }
            if self.seen.contains(&counter) { Err(Replayed::Seen) } else { Ok(()) }
        }
    }

    /// A walk that stays near the last counter most of the time, and jumps to the odd places otherwise.
    fn walk(window: i64) -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![
            8 => (-70_i64..200).prop_map(Step::By),
            3 => (-window - 3..=-window + 3).prop_map(Step::By),
            3 => (window - 3..=window + 3).prop_map(Step::By),
            1 => (0_i64..3 * window).prop_map(Step::By),
            1 => prop_oneof![Just(0), Just(u64::MAX), Just(u64::MAX - 1), Just(u64::MAX - 65_536), any::<u64>()]
                .prop_map(Step::To),
        ];
        (prop_oneof![4 => 0..100_u64, 1 => any::<u64>()], prop::collection::vec(step, 1..400)).prop_map(
            |(start, steps)| {
                let mut at = start;
                steps
                    .into_iter()
                    .map(|step| {
                        at = match step {
                            Step::By(by) => at.saturating_add_signed(by),
                            Step::To(to) => to,
                        };
                        at
                    })
                    .collect()
            },
        )
    }

    #[derive(Clone, Debug)]
    enum Step {
        By(i64),
        To(u64),
    }

    proptest! {
        #[test]
        fn window_agrees_with_a_set(counters in walk(65_536)) {
            let (mut window, mut model) = (Window::new(), Model::default());
            for counter in counters {
                let verdict = window.check(counter);
                prop_assert_eq!(verdict, model.check(counter, WINDOW_PACKETS), "at {}", counter);
                if verdict.is_ok() {
                    window.commit(counter);
                    model.seen.insert(counter);
                }
            }
        }

        #[test]
        fn small_window_agrees_with_a_set(counters in walk(64)) {
            let (mut window, mut model) = (SmallWindow::new(), Model::default());
            for counter in counters {
                let verdict = window.check(counter);
                prop_assert_eq!(verdict, model.check(counter, 64), "at {}", counter);
                if verdict.is_ok() {
                    window.commit(counter);
                    model.seen.insert(counter);
                }
            }
        }
    }

    #[test]
    fn every_counter_passes_once_in_order() {
        let mut window = Window::new();
        for counter in 0..3 * WINDOW_PACKETS {
            assert_eq!(window.check(counter), Ok(()));
            window.commit(counter);
            assert_eq!(window.check(counter), Err(Replayed::Seen));
        }
    }

    #[test]
    fn window_is_exactly_as_long_as_it_says() {
        let mut window = Window::new();
        window.commit(WINDOW_PACKETS);
        assert_eq!(window.check(0), Err(Replayed::TooOld));
        assert_eq!(window.check(1), Ok(()));
    }

    #[test]
    fn same_packet_twice_in_one_train_passes_once() {
        let mut window = Window::new();
        let accepted = [5_u64, 6, 5, 6, 7]
            .into_iter()
            .filter(|counter| {
                let fresh = window.check(*counter).is_ok();
                window.commit(*counter);
                fresh
            })
            .count();
        assert_eq!(accepted, 3);
    }

    #[test]
    fn far_jump_forgets_nothing_that_still_counts() {
        let mut window = Window::new();
        window.commit(10);
        window.commit(u64::MAX - 1);
        assert_eq!(window.check(10), Err(Replayed::TooOld));
        assert_eq!(window.check(u64::MAX - 1), Err(Replayed::Seen));
        assert_eq!(window.check(u64::MAX - 2), Ok(()));
        assert_eq!(window.check(u64::MAX), Err(Replayed::TooOld));
        window.commit(u64::MAX);
        assert_eq!(window.next(), u64::MAX);
    }

    #[test]
    fn nothing_is_allocated_before_the_first_packet() {
        let mut window = Window::new();
        assert_eq!(window.check(99), Ok(()));
        assert!(window.0.bits.0.is_none());
        window.commit(99);
        assert_eq!(window.0.bits.words().len() * 8, 8192);
    }
}
