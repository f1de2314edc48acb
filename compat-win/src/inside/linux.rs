//! A TUN queue that someone else opened and configured.
#![expect(unsafe_code, reason = "registering a descriptor with the runtime is unsafe")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The virtual interface: one IP packet at a time, without a header before it.
#[derive(Debug)]
pub struct Inside {
    queue: Option<File>,
    registered: Option<AsyncFd<File>>,
}

impl Inside {
    /// Takes a TUN file descriptor opened with `IFF_NO_PI` and `O_NONBLOCK`, without `IFF_VNET_HDR`.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { queue: Some(File::from(fd)), registered: None }
    }

    /// Registers with the runtime, within which this must be called.
    pub(crate) fn register(&mut self) -> io::Result<()> {
        if let Some(queue) = self.queue.take() {
            // SAFETY: a `File` always gives the same descriptor, and the `AsyncFd` owns it: nobody closes it before.
            self.registered = Some(unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE) }?);
        }
        Ok(())
    }

    /// Reads one packet, or fails with `WouldBlock` and wakes `waker` when there is one.
    pub(crate) fn read(&mut self, buffer: &mut [u8], waker: &Waker) -> io::Result<usize> {
        let queue = self.registered.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        loop {
            match queue.get_ref().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return result,
            }
            let mut context = Context::from_waker(waker);
            match queue.poll_read_ready(&mut context) {
                Poll::Ready(guard) => guard?.clear_ready(),
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
    }

    /// Writes one packet.
    pub(crate) fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        let queue = self.registered.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        queue.get_ref().write(packet).map(drop)
    }
}
