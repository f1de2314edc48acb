#![expect(unsafe_code, reason = "entries of the submission queue name memory by address")]
//! Everything that is put into the submission queue, and why its memory stays valid.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use crate::buffers::{Lane, Pool};
use crate::engine::Engine;
use crate::op::Op;
use crate::ring::{GROUP_BUSY, GROUP_INSIDE, GROUP_OUTSIDE, Pointless, Ring};
use crate::sys::Collect;
use crate::tun;

impl Engine {
    /// Makes the pool of the sockets known to the ring.
    pub(crate) fn register_outside(ring: &Ring, pool: &Pool) -> io::Result<()> {
        // SAFETY: the pool lives in the same engine as the ring, and `Engine::drop` unmaps it only after every operation has
        // ended and the group is unregistered, or leaks it.
        unsafe { ring.register_pool(pool, Lane::Quiet, GROUP_OUTSIDE) }?;
        // SAFETY: as above.
        unsafe { ring.register_pool(pool, Lane::Busy, GROUP_BUSY) }
    }

    /// Puts the interface into the file table and makes its pool known to the ring.
    pub(crate) fn register_inside(&self, device: &OwnedFd, pool: &Pool) -> io::Result<()> {
        self.ring.set_file(self.ring.file_of_inside().0, Some(device.as_fd()))?;
        // SAFETY: as in `register_outside`; if this fails, the pool was never the kernel's.
        unsafe { self.ring.register_pool(pool, Lane::Quiet, GROUP_INSIDE) }
    }

    /// Queues an entry; makes room for it by submitting when the queue is full.
    ///
    /// # Safety
    /// As for [`Ring::push`].
    unsafe fn post(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: as the caller promised.
        if unsafe { self.ring.push(entry) } {
            return Ok(());
        }
        self.submit_all(Collect::No)?;
        // SAFETY: as the caller promised.
        let pushed = unsafe { self.ring.push(entry) };
        assert!(pushed, "the queue is empty after everything was submitted");
        Ok(())
    }

    /// Queues an entry that names no memory.
    pub(crate) fn post_pointless(&mut self, op: Op, what: Pointless) -> io::Result<()> {
        if self.ring.push_pointless(op, what) {
            return Ok(());
        }
        self.submit_all(Collect::No)?;
        assert!(self.ring.push_pointless(op, what), "the queue is empty after everything was submitted");
        Ok(())
    }

    /// Starts the multishot receive of a socket.
    pub(crate) fn post_receive(&mut self, socket: u16, generation: u32, lane: Lane) -> io::Result<()> {
        let group = match lane {
            Lane::Quiet => GROUP_OUTSIDE,
            Lane::Busy => GROUP_BUSY,
        };
        let heading: *const libc::msghdr = &raw const *self.heading;
        let entry = opcode::RecvMsgMulti::new(Fixed(u32::from(socket)), heading, group)
            .build()
            .user_data(Op::Receive { socket, generation }.encode());
        // SAFETY: the heading is a box of this engine that is never replaced and outlives the ring; it names no memory itself.
        // What is received goes to the pool (`register_outside`).
        unsafe { self.post(&entry) }
    }

    /// Starts to read the interface.
    pub(crate) fn post_read(&mut self, multishot: bool) -> io::Result<()> {
        let entry = tun::read(self.ring.file_of_inside(), multishot);
        // SAFETY: the entry names no memory: what is read goes to the pool (`register_inside`).
        unsafe { self.post(&entry) }
    }

    /// Queues the send of a filled slot.
    pub(crate) fn post_send(&mut self, slot: u16, socket: u16) -> io::Result<()> {
        let header: *const libc::msghdr = self.sends.header(slot);
        let entry = opcode::SendMsg::new(Ring::file_of_socket(socket), header)
            .flags(libc::MSG_DONTWAIT as u32)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Op::Send { slot }.encode());
        // SAFETY: with MSG_DONTWAIT the send is over when the entry is consumed. Until then nothing the header names changes: the
        // slot is not free before the round is over (`Engine::finish_round`), and the buffers and the slab its iovecs point into
        // stay mapped, and are not given to the kernel, before `Engine::flush` has ended its rounds. Should a submission fail
        // half-way, the slot stays taken and the mappings stay as long as the ring.
        unsafe { self.post(&entry) }
    }

    /// Queues the send of one datagram that tells nothing but its address: there is no header to copy and no vector to import.
    pub(crate) fn post_single(
        &mut self,
        slot: u16,
        socket: u16,
        part: &libc::iovec,
        name: *const libc::sockaddr,
        name_bytes: libc::socklen_t,
    ) -> io::Result<()> {
        let entry = opcode::Send::new(Ring::file_of_socket(socket), part.iov_base.cast(), part.iov_len as u32)
            .dest_addr(name)
            .dest_addr_len(name_bytes)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Op::Send { slot }.encode());
        // SAFETY: as in `post_send`: the name lies in the slot, the part in a buffer or the slab.
        unsafe { self.post(&entry) }
    }

    /// Queues a held send.
    pub(crate) fn post_held(&mut self, slot: u16) -> io::Result<()> {
        let letter = self.held.letter(slot);
        let header: *const libc::msghdr = letter.header();
        let entry = opcode::SendMsg::new(Ring::file_of_socket(letter.socket), header)
            .build()
            .user_data(Op::Held { slot }.encode());
        // SAFETY: header, name, control messages and iovec live in the letter, the bytes in memory of the held sends. The letter is
        // in flight: it is not touched before its completion, its vector never grows after it was made, and `Engine::drop` leaks
        // both if the completion does not come.
        unsafe { self.post(&entry) }
    }

    /// Queues a packet for the interface, by its number among those whose pieces are laid out.
    pub(crate) fn post_write(&mut self, packet: usize) -> io::Result<()> {
        let entry = tun::write(self.ring.file_of_inside(), self.sends.write_iovecs(packet));
        // SAFETY: with RWF_NOWAIT the write is over when the entry is consumed; until then the pieces' memory stays as it is, for
        // the reason told at `post_send`, and so does the list of them, which is written only when nothing is queued in the ring
        // (`Engine::stage_writes`).
        unsafe { self.post(&entry) }
    }
}
