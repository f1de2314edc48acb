#![expect(unsafe_code, reason = "entries of the submission queue name memory by address")]
//! The ring itself: set-up by probing, pushing entries, entering the kernel, reading completions.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::types::Fixed;
use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use mesh_udp::Technique;
use nix::sys::resource::{Resource, getrlimit};

use crate::buffers::{Lane, Pool};
use crate::config::Config;
use crate::error::SetupError;
use crate::op::Op;
use crate::sys::{self, Collect, RingName};

/// Entries of the submission queue: the sends of one submission. More would not make the call cheaper.
pub(crate) const SUBMISSIONS: u32 = 256;

/// Entries of the completion queue. Twice the receive buffers of both kinds fit; what does not is kept by the kernel.
pub(crate) const COMPLETIONS: u32 = 4096;

/// Fixed files beside the sockets: the interface and the waker.
const EXTRA_FILES: u32 = 2;

/// The provided-buffer group of the sockets.
pub(crate) const GROUP_OUTSIDE: u16 = 0;
/// That of the flooded ones among them.
pub(crate) const GROUP_BUSY: u16 = 2;
/// The provided-buffer group of the virtual interface.
pub(crate) const GROUP_INSIDE: u16 = 1;

/// What the kernel granted of what the engine asked for; each costs only speed where it is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Completions run only when the engine waits for them (`IORING_SETUP_DEFER_TASKRUN`, Linux 6.1).
    pub deferred_completions: bool,
    /// No indirection in the submission queue (`IORING_SETUP_NO_SQARRAY`, Linux 6.6).
    pub direct_submissions: bool,
    /// The ring is found without its descriptor (`IORING_REGISTER_RING_FDS`, Linux 5.18).
    pub registered_ring: bool,
    /// One read of the interface serves for many packets (`IORING_OP_READ_MULTISHOT`, Linux 6.7).
    pub multishot_read: bool,
    /// A datagram alone is sent with its address in the entry (Linux 6.1).
    pub addressed_sends: bool,
    /// A wait can let completions gather for a time (`IORING_FEAT_MIN_TIMEOUT`, Linux 6.12).
    pub gathering_waits: bool,
    /// Sockets that can be added, after the limit of open files.
    pub sockets_max: u16,
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) op: Op,
    pub(crate) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether a multishot operation goes on.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer it used.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The failure it tells.
    pub(crate) fn error(&self) -> Option<i32> {
        (self.result < 0).then(|| -self.result)
    }
}

/// A ring of the calling thread.
pub(crate) struct Ring {
    uring: IoUring,
    name: RingName,
    features: Features,
    enters: u64,
}

impl Ring {
    pub(crate) fn new(config: &Config) -> Result<Self, SetupError> {
        let without = config.without;
        let (uring, mut features) = build(!without.technique(Technique::DeferTaskrun))?;
        if !uring.params().is_feature_ext_arg() {
            return Err(SetupError::TooOld("timeouts of io_uring_enter"));
        }
        if !uring.params().is_feature_skip_cqe_on_success() {
            return Err(SetupError::TooOld("sends without completions"));
        }
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe).map_err(|error| SetupError::from_setup("probing", error))?;
        // The multishot receive has no operation of its own to probe for; it came in the same kernel as this one.
        if !probe.is_supported(opcode::SendZc::CODE) {
            return Err(SetupError::TooOld("multishot receive"));
        }
        // Has no operation of its own to probe for either; this one came with it.
        features.addressed_sends = probe.is_supported(opcode::SendMsgZc::CODE) && !without.technique(Technique::OpSend);
        features.gathering_waits = uring.params().is_feature_min_timeout() && !without.technique(Technique::Pace);
        features.multishot_read = probe.is_supported(opcode::ReadMulti::CODE);
        features.sockets_max = files(&uring, config.sockets_max)?;
        let descriptor = uring.as_raw_fd();
        let registered = if without.technique(Technique::RingFd) { None } else { sys::register_ring(descriptor) };
        let name = registered.map_or(RingName::Descriptor(descriptor), RingName::Registered);
        features.registered_ring = matches!(name, RingName::Registered(_));
        Ok(Self { uring, name, features, enters: 0 })
    }

    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    /// Calls of `io_uring_enter` so far.
    pub(crate) fn enters(&self) -> u64 {
        self.enters
    }

    /// Makes a ring of the pool provide the buffers of a group.
    ///
    /// # Safety
    /// The pool's memory must stay mapped until the group is unregistered and no operation that selects from it is in flight.
    pub(crate) unsafe fn register_pool(&self, pool: &Pool, lane: Lane, group: u16) -> io::Result<()> {
        let (ring, entries) = pool.ring(lane);
        // SAFETY: the ring is page-aligned, holds `entries` entries, and stays mapped as the caller promised.
        unsafe { self.uring.submitter().register_buf_ring_with_flags(ring.addr() as u64, entries, group, 0) }
    }

    pub(crate) fn unregister_pool(&self, group: u16) -> io::Result<()> {
        self.uring.submitter().unregister_buf_ring(group)
    }

    /// Puts a descriptor into the file table; `None` takes it out. The ring keeps the file open while it is in.
    pub(crate) fn set_file(&self, place: u32, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let descriptor: RawFd = file.map_or(-1, |file| file.as_raw_fd());
        self.uring.submitter().register_files_update(place, &[descriptor]).map(drop)
    }

    /// Takes all descriptors out of the file table.
    pub(crate) fn unregister_files(&self) -> io::Result<()> {
        self.uring.submitter().unregister_files()
    }

    /// The place of a socket in the file table.
    pub(crate) fn file_of_socket(socket: u16) -> Fixed {
        Fixed(u32::from(socket))
    }

    /// The place of the virtual interface in the file table.
    pub(crate) fn file_of_inside(&self) -> Fixed {
        Fixed(u32::from(self.features.sockets_max))
    }

    /// The place of the waker in the file table.
    pub(crate) fn file_of_waker(&self) -> Fixed {
        Fixed(u32::from(self.features.sockets_max) + 1)
    }

    /// Queues an entry; `false` when the queue is full.
    ///
    /// # Safety
    /// Whatever the entry points to must stay valid until the kernel has consumed it, and as long after as its operation needs it:
    /// - receives, reads: the heading until consumed, the pool as told at [`Ring::register_pool`];
    /// - sends with `MSG_DONTWAIT`, writes with `RWF_NOWAIT`: until consumed, they never run later;
    /// - other sends: until their completion.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what the entry points to stays valid, as the caller promised.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Queues an entry that points to no memory (poll, cancel); `false` when the queue is full.
    pub(crate) fn push_pointless(&mut self, op: Op, what: Pointless) -> bool {
        let entry = match what {
            Pointless::Poll(file) => opcode::PollAdd::new(file, libc::POLLIN as u32).multi(true).build(),
            Pointless::CancelFile(file) => opcode::AsyncCancel2::new(types::CancelBuilder::fd(file).all()).build(),
            Pointless::CancelOp(target) => {
                opcode::AsyncCancel2::new(types::CancelBuilder::user_data(target.encode()).all()).build()
            }
            Pointless::CancelAll => opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build(),
        };
        // SAFETY: none of these entries holds an address.
        unsafe { self.push(&entry.user_data(op.encode())) }
    }

    /// Entries queued and not consumed.
    pub(crate) fn queued(&mut self) -> u32 {
        self.uring.submission().len() as u32
    }

    /// Whether completions can be read without entering the kernel.
    pub(crate) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Whether the kernel keeps completions that did not fit the queue.
    pub(crate) fn overflown(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// Submits what is queued and collects as told. What it could not submit stays queued.
    pub(crate) fn enter(&mut self, collect: Collect) -> io::Result<()> {
        let queued = self.queued();
        self.enters += 1;
        sys::enter(self.name, queued, collect).map(drop)
    }

    /// The next completion.
    pub(crate) fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.uring.completion().next()?;
        let op = Op::decode(entry.user_data()).expect("the kernel gives back the user data of an operation");
        Some(Completion { op, result: entry.result(), flags: entry.flags() })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let RingName::Registered(index) = self.name {
            sys::unregister_ring(self.uring.as_raw_fd(), index);
        }
    }
}

/// Operations that name no memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pointless {
    /// Report each time the file becomes readable.
    Poll(Fixed),
    /// Cancel all operations of a file.
    CancelFile(Fixed),
    /// Cancel an operation.
    CancelOp(Op),
    /// Cancel all operations.
    CancelAll,
}

/// Makes a ring with as much as the kernel grants; `deferring` if completions may be deferred.
fn build(deferring: bool) -> Result<(IoUring, Features), SetupError> {
    let attempts = [(true, true), (true, false), (false, false)];
    let mut last = None;
    for (deferred, direct) in attempts.map(|(deferred, direct)| (deferred && deferring, direct)) {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(COMPLETIONS).setup_submit_all().setup_coop_taskrun().setup_single_issuer();
        if deferred {
            builder.setup_defer_taskrun();
        }
        if direct {
            builder.setup_no_sqarray();
        }
        match builder.build(SUBMISSIONS) {
            Ok(uring) => {
                let features =
                    Features { deferred_completions: deferred, direct_submissions: direct, ..Features::default() };
                return Ok((uring, features));
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(SetupError::from_setup("setting up a ring", error)),
        }
    }
    Err(SetupError::from_setup("a single issuer", last.expect("there is at least one attempt")))
}

/// Registers an empty file table. Returns how many sockets fit.
fn files(uring: &IoUring, sockets_max: u16) -> Result<u16, SetupError> {
    // The table may not be larger than the limit of open files.
    let (limit, _) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| SetupError::from_setup("RLIMIT_NOFILE", error.into()))?;
    let room = limit.saturating_sub(u64::from(EXTRA_FILES));
    let sockets = sockets_max.min(u16::try_from(room).unwrap_or(u16::MAX)).max(1);
    uring
        .submitter()
        .register_files_sparse(u32::from(sockets) + EXTRA_FILES)
        .map_err(|error| SetupError::from_setup("a sparse file table", error))?;
    Ok(sockets)
}
