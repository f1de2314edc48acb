//! Memory that is wiped when its owner lets go of it, for types of other crates that do not do so themselves.
#![expect(unsafe_code, reason = "bytes of a foreign type can only be wiped as bytes, after it has been dropped")]

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use zeroize::zeroize_flat_type;

/// A value in a place of its own, whose bytes are overwritten after it has been dropped.
///
/// It lives on the heap so that moving its owner leaves no copy behind. What the value itself keeps on the heap is its own
/// affair, and so is what its construction left on the stack.
pub(super) struct Wiped<T>(Box<MaybeUninit<T>>);

impl<T> Wiped<T> {
    /// Takes `value` in.
    pub(super) fn new(value: T) -> Self {
        Self(Box::new(MaybeUninit::new(value)))
    }
}

impl<T> Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` wrote the value, and only `drop`, which is the last use of `self`, takes it away.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> DerefMut for Wiped<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { self.0.assume_init_mut() }
    }
}

impl<T> Drop for Wiped<T> {
    fn drop(&mut self) {
        // SAFETY: `new` wrote the value, `self` is not used again, and so neither is the value.
        unsafe { drop_and_wipe(&mut self.0) };
    }
}

/// Drops the value in `place`, then overwrites all of its bytes with zeroes.
///
/// # Safety
///
/// There is a value in `place`, and no one uses it afterwards.
unsafe fn drop_and_wipe<T>(place: &mut MaybeUninit<T>) {
    // SAFETY: the caller vouches for the value, and that this is its end.
    unsafe { place.assume_init_drop() };
    // SAFETY: `place` is exclusively borrowed, and any bytes, zeroes too, are a valid `MaybeUninit<T>`.
    unsafe { zeroize_flat_type(&raw mut *place) };
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Counts how often it is dropped.
    struct Counted<'a>(&'a Cell<u32>);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn value_is_dropped_exactly_once() {
        let drops = Cell::new(0);
        let wiped = Wiped::new(Counted(&drops));
        assert_eq!(drops.get(), 0);
        drop(wiped);
        assert_eq!(drops.get(), 1);
    }

    #[test]
    fn nothing_of_a_value_is_left() {
        let mut place = MaybeUninit::new([0x5a_u8; 999]);
        // SAFETY: there is an array in it, and what is read below is what was written over it.
        unsafe { drop_and_wipe(&mut place) };
        // SAFETY: the bytes of an array of bytes were all written, with zeroes.
        assert_eq!(unsafe { place.assume_init() }, [0; 999]);
    }

    #[test]
    fn value_can_be_read_and_changed() {
        let mut wiped = Wiped::new([7_u8; 40]);
        wiped[3] = 9;
        assert_eq!(wiped[3], 9);
        assert_eq!(wiped[4], 7);
    }
}
