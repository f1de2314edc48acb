//! `epoll` over many sockets, `recvmmsg` and `sendmmsg` on those that are ready.

use std::convert::Infallible;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::sys::{Batch, Receive};
use super::{Routes, ready};

/// Sockets that one wait reports at most.
const EVENTS: usize = 256;

pub(super) fn run(sockets: &[UdpSocket], routes: &Routes) -> Result<Infallible> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll")?;
    for (number, socket) in (0..).zip(sockets) {
        // Level-triggered: a socket with more than one batch is reported again, after the others had their turn. So one call of
        // recvmmsg is enough, where an edge needs another one to see that there is no more.
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number)).context("watch a socket")?;
    }
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut batch = Batch::new(routes);
    ready()?;
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            count => count.context("wait for sockets")?,
        };
        for event in &events[..count] {
            let socket = &sockets[usize::try_from(event.data()).expect("the number of a socket")];
            batch.forward(socket.as_fd(), Receive::Now).context("receive")?;
        }
    }
}
