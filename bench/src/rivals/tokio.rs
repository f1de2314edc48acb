//! A task of tokio for each socket.

use std::convert::Infallible;
use std::net::UdpSocket;

use anyhow::{Context as _, Result};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::{DATAGRAM_BYTES, Routes, ready};

/// On the runtime that `#[tokio::main]` makes: a worker for each processor it may use.
pub(super) fn run(sockets: Vec<UdpSocket>, routes: Routes) -> Result<Infallible> {
    let runtime = Builder::new_multi_thread().enable_io().build().context("start tokio")?;
    let routes: &'static Routes = Box::leak(Box::new(routes));
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for socket in sockets {
            socket.set_nonblocking(true).context("make a socket non-blocking")?;
            let socket = tokio::net::UdpSocket::from_std(socket).context("hand a socket to tokio")?;
            tasks.spawn(relay(socket, routes));
        }
        ready()?;
        tasks.join_next().await.expect("there is at least one socket").context("a task")?
    })
}

async fn relay(socket: tokio::net::UdpSocket, routes: &'static Routes) -> Result<Infallible> {
    let mut buffer = [0; DATAGRAM_BYTES];
    loop {
        let (length, _) = socket.recv_from(&mut buffer).await.context("receive")?;
        let datagram = &buffer[..length];
        if let Some(to) = routes.of(datagram) {
            // What cannot be sent is lost, as on any network.
            let _ = socket.send_to(datagram, to).await;
        }
    }
}
