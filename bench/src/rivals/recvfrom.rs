//! `recvfrom` and `sendto` on one socket.

use std::convert::Infallible;
use std::net::UdpSocket;

use anyhow::{Context as _, Result};

use super::{DATAGRAM_BYTES, Routes, ready};

pub(super) fn run(socket: &UdpSocket, routes: &Routes) -> Result<Infallible> {
    let mut buffer = [0; DATAGRAM_BYTES];
    ready()?;
    loop {
        let (length, _) = socket.recv_from(&mut buffer).context("receive")?;
        let datagram = &buffer[..length];
        if let Some(to) = routes.of(datagram) {
            // What cannot be sent is lost, as on any network.
            let _ = socket.send_to(datagram, to);
        }
    }
}
