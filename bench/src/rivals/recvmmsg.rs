//! `recvmmsg` and `sendmmsg` on one socket. `check/mmsg.c` is the same in C.

use std::convert::Infallible;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};

use super::sys::{Batch, Receive};
use super::{Routes, ready};

pub(super) fn run(socket: &UdpSocket, routes: &Routes) -> Result<Infallible> {
    let mut batch = Batch::new(routes);
    ready()?;
    loop {
        batch.forward(socket.as_fd(), Receive::Wait).context("receive")?;
    }
}
