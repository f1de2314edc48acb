#![expect(unsafe_code, reason = "system calls that neither nix nor io-uring wrap in the way needed here")]
//! The few system calls made by hand.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::Timespec;

/// `IORING_ENTER_GETEVENTS`: run what completions are due, and wait for the asked number.
const ENTER_GETEVENTS: u32 = 1 << 0;
/// `IORING_ENTER_EXT_ARG`: the argument is a [`EnterArguments`].
const ENTER_EXT_ARG: u32 = 1 << 3;
/// `IORING_ENTER_REGISTERED_RING`: the descriptor is an index of registered rings.
const ENTER_REGISTERED_RING: u32 = 1 << 4;
/// `IORING_REGISTER_RING_FDS`.
const REGISTER_RING_FDS: u32 = 20;
/// `IORING_UNREGISTER_RING_FDS`.
const UNREGISTER_RING_FDS: u32 = 21;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct EnterArguments {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_microseconds: u32,
    timeout: u64,
}

/// `struct io_uring_rsrc_update`, as the registration of ring descriptors uses it.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// How a ring is named to `io_uring_enter`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RingName {
    /// Its file descriptor.
    Descriptor(RawFd),
    /// Its place among the rings the calling thread registered: saves a look-up in each call.
    Registered(u32),
}

/// What to do beside submitting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Collect {
    /// Nothing.
    No,
    /// Run the completions that are due, without waiting.
    Due,
    /// Wait for one completion, at most that long (`None`: without end).
    Wait(Option<Duration>),
    /// Wait for that many completions, or for one if so many microseconds pass before; at most that long in all.
    Gather(u32, u32, Option<Duration>),
}

impl Collect {
    /// The same without waiting.
    pub(crate) fn at_once(self) -> Self {
        match self {
            Self::No => Self::No,
            Self::Due | Self::Wait(_) | Self::Gather(..) => Self::Due,
        }
    }
}

/// Submits `submit` entries, and collects as told. Returns how many were consumed.
pub(crate) fn enter(ring: RingName, submit: u32, collect: Collect) -> io::Result<u32> {
    let (descriptor, name_flag) = match ring {
        RingName::Descriptor(descriptor) => (descriptor, 0),
        RingName::Registered(index) => (index.cast_signed(), ENTER_REGISTERED_RING),
    };
    let (complete, min_wait_microseconds, flags, timeout) = match collect {
        Collect::No => (0, 0, 0, None),
        Collect::Due => (0, 0, ENTER_GETEVENTS, None),
        Collect::Wait(timeout) => (1, 0, ENTER_GETEVENTS, timeout),
        Collect::Gather(completions, microseconds, timeout) => (completions, microseconds, ENTER_GETEVENTS, timeout),
    };
    let timespec = timeout.map(Timespec::from);
    let arguments = EnterArguments {
        sigmask: 0,
        sigmask_bytes: 0,
        min_wait_microseconds,
        timeout: timespec.as_ref().map_or(0, |timespec| std::ptr::from_ref(timespec).addr() as u64),
    };
    // SAFETY: io_uring_enter with EXT_ARG reads `arguments` of the size told and, if not null, the timespec it points to; both
    // live on this stack frame until the call has returned. What the submitted entries point to is the business of who pushed them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            descriptor,
            submit,
            complete,
            flags | name_flag | ENTER_EXT_ARG,
            &raw const arguments,
            size_of::<EnterArguments>(),
        )
    };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Registers the ring's descriptor with the calling thread. `None` where the kernel (before 5.18) cannot.
pub(crate) fn register_ring(descriptor: RawFd) -> Option<u32> {
    let mut update = RingUpdate { offset: u32::MAX, reserved: 0, data: descriptor as u64 };
    // SAFETY: the kernel reads and writes one `RingUpdate`, which lives on this stack frame.
    let result =
        unsafe { libc::syscall(libc::SYS_io_uring_register, descriptor, REGISTER_RING_FDS, &raw mut update, 1_u32) };
    (result == 1).then_some(update.offset)
}

/// Takes a ring out of those the calling thread registered; while it is in, closing its descriptor does not end it.
pub(crate) fn unregister_ring(descriptor: RawFd, index: u32) {
    let mut update = RingUpdate { offset: index, reserved: 0, data: 0 };
    // SAFETY: the kernel reads one `RingUpdate`, which lives on this stack frame.
    let _ =
        unsafe { libc::syscall(libc::SYS_io_uring_register, descriptor, UNREGISTER_RING_FDS, &raw mut update, 1_u32) };
}
