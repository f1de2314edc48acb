//! A relay in this process: a data thread of the product, with the engine's own switches at hand.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::relay::Rig;
use bench::relay::rig::RELAY_PROCESSOR;
use mesh_core::seam::Moment;
use mesh_core::session::handshake::StaticKey;
use mesh_core::session::token::{NamespaceKeys, StretchedToken};
use mesh_core::transfer::{Transfer, TransferConfig};
use mesh_node::clock;
use mesh_node::engine::mmsg::Mmsg;
use mesh_node::engine::uring::Uring;
use mesh_node::engine::{Engine, EngineCounters};
use mesh_node::helpers::Helpers;
use mesh_node::pump::Flow;
use mesh_node::worker::{Plan, Worker};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;

use crate::allocator::allocations;

/// The data thread runs before whatever else the machine does.
pub(crate) const RANK: i32 = 1;

pub(crate) const TOKEN: &str = "of a relay inside a world of its own";

/// Engines, by the names the command line has for them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Uring,
    Mmsg,
}

/// What is known of the data thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) counters: EngineCounters,
    /// Processor time that it has used.
    pub(crate) time: Duration,
    /// Its number.
    pub(crate) thread: u32,
    /// How often it asked for memory.
    pub(crate) allocations: u64,
}

/// Serves some ports of the rig's relay host, on the relay's processor. It ends when it is dropped.
pub(crate) struct Relay {
    look: Box<dyn Fn() -> Result<Seen>>,
    end: Option<Box<dyn FnOnce()>>,
}

impl Relay {
    pub(crate) fn start(rig: &Rig, kind: Kind, fair: bool, ports: &[u16]) -> Result<Self> {
        match kind {
            Kind::Uring => {
                let config = mesh_uring::Config { fair, ..mesh_uring::Config::default() };
                Self::with(rig, ports, move || Uring::with_config(config).map_err(io::Error::other))
            }
            Kind::Mmsg => {
                let config = mesh_mmsg::Config { fair, ..mesh_mmsg::Config::default() };
                Self::with(rig, ports, move || Mmsg::with_config(config))
            }
        }
    }

    fn with<E: Engine + 'static>(
        rig: &Rig,
        ports: &[u16],
        make_engine: impl FnOnce() -> io::Result<E> + Send + 'static,
    ) -> Result<Self> {
        let stretched = StretchedToken::stretch(TOKEN.as_bytes());
        let mut sockets = Vec::new();
        for &port in ports {
            let socket: UdpSocket = rig.relay.udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
            sockets.push((port, socket));
        }
        let config = TransferConfig {
            static_key: StaticKey::from_seed(rand::random()),
            boot: rand::random(),
            ticket_key: rand::random(),
            seed: rand::random(),
        };
        let plan = Plan {
            index: 0,
            processor: Some(RELAY_PROCESSOR),
            make_engine,
            make_node: move |engine: &mut E| {
                bench::load::run_first(RANK).context("go before others (root of the machine may)")?;
                let mut transfer = Transfer::new(config, clock::now());
                for (port, socket) in sockets {
                    // As the program does on a host with several addresses.
                    let id = engine.add_socket(socket, true)?;
                    transfer.add_namespace(id, port, NamespaceKeys::derive(&stretched, port, None));
                }
                Ok(transfer)
            },
            observe: |_: &mut E, transfer: &mut Transfer, _: Moment| {
                while transfer.poll_event().is_some() {}
                Flow::Continue
            },
        };
        let worker = Worker::start(plan, Helpers::start(1, 64)?, |result| result.expect("the relay goes on"))?;
        let mailbox = worker.mailbox.clone();
        let look = move || {
            let answer = mailbox.ask(|engine: &mut E, _, _| {
                let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread has a clock");
                let thread = gettid().as_raw().cast_unsigned();
                Seen { counters: engine.counters(), time: time.into(), thread, allocations: allocations() }
            });
            answer.recv_timeout(Duration::from_secs(10)).context("the relay does not answer")
        };
        let end = move || {
            worker.mailbox.send(|_, transfer: &mut Transfer, now| {
                transfer.stop(now);
                Flow::Stop
            });
            worker.join();
        };
        Ok(Self { look: Box::new(look), end: Some(Box::new(end)) })
    }

    /// Asks the data thread.
    pub(crate) fn look(&self) -> Result<Seen> {
        (self.look)()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}
