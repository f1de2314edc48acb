//! The virtual interface: reads by one multishot operation, writes that never wait.

use std::os::fd::OwnedFd;

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use crate::buffers::Pool;
use crate::op::Op;
use crate::ring::GROUP_INSIDE;

/// The interface and its receive buffers.
#[derive(Debug)]
pub(crate) struct Inside {
    /// Held open beside the ring's file table, so that the interface lives as long as the engine.
    pub(crate) _device: OwnedFd,
    pub(crate) pool: Pool,
    /// Whether the multishot read serves; it is given up when the device refuses it.
    pub(crate) multishot: bool,
    /// Whether a read is in flight.
    pub(crate) armed: bool,
    /// Failures of the read without a success in between.
    pub(crate) failures: u8,
}

/// A read that takes its buffer from the pool when there is a packet.
pub(crate) fn read(file: Fixed, multishot: bool) -> squeue::Entry {
    let entry = if multishot {
        // The length comes from the buffer and must be zero here. `ReadMulti` forgets that the file is a fixed one, and would
        // read the descriptor of that number instead: the flag is set again.
        opcode::ReadMulti::new(file, 0, GROUP_INSIDE).build().flags(squeue::Flags::FIXED_FILE)
    } else {
        let length = crate::buffers::BUFFER_BYTES as u32;
        opcode::Read::new(file, std::ptr::null_mut(), length)
            .buf_group(GROUP_INSIDE)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
    };
    entry.user_data(Op::Read.encode())
}

/// A write of one packet in these pieces: done when the submission returns, or failed.
pub(crate) fn write(file: Fixed, pieces: &[libc::iovec]) -> squeue::Entry {
    let entry = match pieces {
        [piece] => {
            opcode::Write::new(file, piece.iov_base.cast(), piece.iov_len as u32).rw_flags(libc::RWF_NOWAIT).build()
        }
        pieces => opcode::Writev::new(file, pieces.as_ptr(), pieces.len() as u32).rw_flags(libc::RWF_NOWAIT).build(),
    };
    entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(Op::Write.encode())
}
