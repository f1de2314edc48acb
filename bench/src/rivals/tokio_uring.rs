//! Tasks of tokio-uring, several for each socket.

use std::convert::Infallible;
use std::net::UdpSocket;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio_uring::buf::BoundedBuf as _;

use super::{DATAGRAM_BYTES, Routes, ready};

/// Operations in flight on all sockets together, about: as many as a ring has entries by default.
const OPERATIONS: usize = 256;

/// A ring is used by one thread; its tasks share a socket, so that its next receives are in the kernel while one is answered.
pub(super) fn run(sockets: Vec<UdpSocket>, routes: Routes) -> Result<Infallible> {
    let each = tasks_each(sockets.len());
    let entries = (sockets.len() * each).next_power_of_two().max(OPERATIONS);
    let routes = Rc::new(routes);
    let mut builder = tokio_uring::builder();
    builder.entries(u32::try_from(entries).context("more operations than a ring has")?);
    builder.start(async {
        let (failed, mut failures) = mpsc::unbounded_channel();
        for socket in sockets {
            // The socket blocks: the kernel then waits for a datagram, where it would else answer that there is none.
            let socket = Rc::new(tokio_uring::net::UdpSocket::from_std(socket));
            for _ in 0..each {
                let (socket, routes, failed) = (Rc::clone(&socket), Rc::clone(&routes), failed.clone());
                tokio_uring::spawn(async move {
                    let Err(error) = relay(&socket, &routes).await;
                    // Nobody listens any more if another task failed first.
                    let _ = failed.send(error);
                });
            }
        }
        ready()?;
        Err(failures.recv().await.expect("a sender is held here"))
    })
}

/// How many tasks each of some sockets gets.
fn tasks_each(sockets: usize) -> usize {
    (OPERATIONS / sockets).clamp(2, 64)
}

async fn relay(socket: &tokio_uring::net::UdpSocket, routes: &Routes) -> Result<Infallible> {
    let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
    loop {
        let (received, filled) = socket.recv_from(buffer).await;
        let (length, _) = received.context("receive")?;
        buffer = filled;
        if let Some(to) = buffer.get(..length).and_then(|datagram| routes.of(datagram)) {
            // What cannot be sent is lost, as on any network.
            let (_, sent) = socket.send_to(buffer.slice(..length), to).await;
            buffer = sent.into_inner();
        }
    }
}
