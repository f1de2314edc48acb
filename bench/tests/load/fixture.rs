//! Two hosts on one link, and what the tests have in common.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bench::load::{Count, Counter, DATAGRAM_PORTS, Flow, Generator, Head, Tap};
use bench::relay::Payload;
use mesh_lab::{Host, Lab, Link, LinkMode};
use mesh_wire::frame::FrameType;
use mesh_wire::route::Route;

/// Everything of a test runs here: any machine has it.
pub(crate) const PROCESSOR: usize = 0;

/// How long anything may take that will come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SENDER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub(crate) const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

/// A sender and a receiver.
pub(crate) struct Pair {
    _lab: Lab,
    pub(crate) sender: Host,
    pub(crate) receiver: Host,
    pub(crate) link: Link,
}

impl Pair {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let (sender, receiver) = (lab.host("sender")?, lab.host("receiver")?);
        let link = lab.link(&sender, &receiver, &["10.1.0.0/24"])?;
        Ok(Self { _lab: lab, sender, receiver, link })
    }

    /// Has the link cut and gather as in a mode, by what needs no root outside.
    pub(crate) fn set_mode(&self, mode: LinkMode) -> Result<()> {
        for end in [self.link.a(), self.link.b()] {
            end.set_transmit_offloads(mode == LinkMode::Veth)?;
            end.set_receive_offloads(mode == LinkMode::Nic)?;
        }
        Ok(())
    }

    pub(crate) fn generator(&self, flows: u16, payload: Payload, burst: u16) -> Result<Generator> {
        Generator::new(self.link.a(), self.link.b(), &flows_of(flows), payload, burst, PROCESSOR)
    }

    pub(crate) fn counter(&self) -> Result<Counter> {
        Counter::new(self.link.b(), DATAGRAM_PORTS)
    }

    pub(crate) fn tap(&self) -> Result<Tap> {
        Tap::new(self.link.b(), DATAGRAM_PORTS, PROCESSOR)
    }
}

/// Flows straight from the sender to the receiver.
pub(crate) fn flows_of(count: u16) -> Vec<Flow> {
    let route = Route::DIRECT.emit(FrameType::Data, 0);
    let flow = |number| {
        let to = SocketAddrV4::new(RECEIVER, DATAGRAM_PORTS.start() + number);
        Flow { from: SocketAddrV4::new(SENDER, to.port()), to, arrives: to, head: Head::Nothing, route }
    };
    (0..count).map(flow).collect()
}

/// Reads a counter until it has seen so many bytes of payload; what it has seen.
pub(crate) fn count_until(counter: &mut Counter, payload_bytes: u64) -> Result<Count> {
    let start = Instant::now();
    loop {
        let count = counter.read()?;
        if count.payload_bytes() >= payload_bytes {
            return Ok(count);
        }
        if start.elapsed() > PATIENCE {
            bail!("{} bytes arrived, not {payload_bytes}", count.payload_bytes());
        }
        std::thread::yield_now();
    }
}

/// Where the release programs are.
pub(crate) fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("EASYMESH_PROGRAMS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release"), PathBuf::from);
    let program = folder.join(name);
    assert!(program.exists(), "{} is missing: cargo build --release", program.display());
    program
}
