#![expect(unsafe_code, reason = "memory that the kernel reads and writes by address")]
//! Mapped memory that is named to the kernel by address.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// A private anonymous mapping: zeroed, and memory only where it was touched.
#[derive(Debug)]
pub struct Area {
    base: NonNull<u8>,
    bytes: usize,
    /// Never unmap: the kernel may still hold on to it.
    leaked: bool,
}

impl Area {
    /// Maps `bytes` bytes, more than zero.
    ///
    /// # Errors
    /// When there is no such room in the address space.
    pub fn new(bytes: usize) -> std::io::Result<Self> {
        let length = NonZeroUsize::new(bytes).expect("an area has a size");
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let base = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
        Ok(Self { base: base.cast(), bytes, leaked: false })
    }

    /// Leaves the mapping in place for good.
    pub fn leak(&mut self) {
        self.leaked = true;
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// The address of a range.
    ///
    /// # Panics
    /// When the range does not lie within the area.
    pub fn address(&self, range: &Range<usize>) -> *mut u8 {
        assert!(range.start <= range.end && range.end <= self.bytes, "a range outside of its memory");
        self.base.as_ptr().wrapping_add(range.start)
    }

    /// The bytes of a range. What the kernel may be writing to must not be named.
    ///
    /// # Panics
    /// When the range does not lie within the area.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        let address = self.address(&range);
        // SAFETY: the range lies within the mapping (checked by `address`), which is readable and initialised and lives as long
        // as `self`. The kernel writes only to what was given to it, which the engines never name (their pools see to that).
        unsafe { std::slice::from_raw_parts(address, range.len()) }
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// When the range does not lie within the area.
    pub fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        let address = self.address(&range);
        // SAFETY: as in `bytes`, and `&mut self` makes the borrow the only one.
        unsafe { std::slice::from_raw_parts_mut(address, range.len()) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: the mapping was made by `new` with this length, no borrow outlives `self`, and an area that the kernel may
        // still write to was leaked.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::Area;

    #[test]
    #[should_panic(expected = "outside of its memory")]
    fn a_range_outside_of_an_area_is_noticed() {
        let area = Area::new(4096).unwrap();
        let _ = area.bytes(4000..5000);
    }
}
