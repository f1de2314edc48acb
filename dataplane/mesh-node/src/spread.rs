//! One namespace on several data threads: `-spread PORT[,PORT...]|all`.
//!
//! Each thread gets a socket of its own on the port. The kernel chooses among them by the sender's address, so that what one sender
//! sends stays in order; it can do that because all of them have `SO_REUSEPORT`. That option would also let a second program share
//! the port without an error: it is set only after the port was bound exclusively, and on ports that are spread.
//!
//! What the threads tell each other is in [`mesh_core::transfer`]; here it is carried, by their mailboxes.

use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use mesh_core::seam::{Action, Moment};
use mesh_core::transfer::{Handed, Transfer};
#[cfg(target_os = "linux")]
use socket2::{Domain, Socket, Type};

use crate::engine::Engine;
use crate::mailbox::Mailbox;
use crate::pump::Flow;

/// Datagrams on their way from one data thread to another at one time, in all; what does not fit is lost, as on any network.
const UNDER_WAY_MAX: usize = 1024;

/// `-spread`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// No port; each is served by one thread.
    #[default]
    None,
    /// These ports.
    Ports(BTreeSet<u16>),
    /// Every port.
    All,
}

impl Spread {
    /// Whether this port is to be spread.
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::None => false,
            Self::Ports(ports) => ports.contains(&port),
            Self::All => true,
        }
    }

    /// A port that is named, but not in `first..=last`.
    pub fn outside(&self, first: u16, last: u16) -> Option<u16> {
        let Self::Ports(ports) = self else { return None };
        ports.iter().copied().find(|port| !(first..=last).contains(port))
    }
}

impl FromStr for Spread {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::None),
            "all" => Ok(Self::All),
            list => {
                let port = |port: &str| port.trim().parse().ok().filter(|&port: &u16| port > 0);
                let ports: Option<BTreeSet<u16>> = list.split(',').map(port).collect();
                ports.map(Self::Ports).ok_or_else(|| {
                    "-spread is neither a list of ports nor all: write -spread 8000, -spread 8000,8001 or -spread all".into()
                })
            }
        }
    }
}

/// Makes `more` sockets beside one that is bound exclusively, on the same addresses and port.
///
/// # Errors
/// What the system says to sockets, options and addresses; `Unsupported` where a port cannot be shared by the sender's address.
#[cfg(target_os = "linux")]
pub fn share(first: &UdpSocket, more: usize) -> io::Result<Vec<UdpSocket>> {
    let address = first.local_addr()?;
    socket2::SockRef::from(first).set_reuse_port(true)?;
    let another = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    let others: io::Result<Vec<UdpSocket>> = (0..more).map(|_| another()).collect();
    if others.is_err() {
        // It is nobody else's again.
        socket2::SockRef::from(first).set_reuse_port(false)?;
    }
    others
}

/// As on Linux.
///
/// # Errors
/// `Unsupported`.
#[cfg(not(target_os = "linux"))]
pub fn share(_first: &UdpSocket, _more: usize) -> io::Result<Vec<UdpSocket>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux spreads a port over processors"))
}

/// The mailboxes of all data threads, once all of them have started, and the homes of spread namespaces.
pub struct Neighbours<E: Engine> {
    boxes: Arc<OnceLock<Vec<Mailbox<E, Transfer>>>>,
    under_way: Arc<AtomicUsize>,
}

impl<E: Engine> Clone for Neighbours<E> {
    fn clone(&self) -> Self {
        Self { boxes: Arc::clone(&self.boxes), under_way: Arc::clone(&self.under_way) }
    }
}

impl<E: Engine + 'static> Neighbours<E> {
    /// Nobody is known yet.
    #[expect(clippy::new_without_default, reason = "made once, beside the threads")]
    pub fn new() -> Self {
        Self { boxes: Arc::default(), under_way: Arc::default() }
    }

    /// All data threads, by their number. Only the first call counts.
    pub fn introduce(&self, boxes: Vec<Mailbox<E, Transfer>>) {
        let _ = self.boxes.set(boxes);
    }

    /// Carries what a thread has for the others. To be called in each turn, before anything of the turn is sent: a mirror is told of
    /// a slot before its holder is. `home` tells which thread is home to a namespace.
    pub fn carry(&self, own: usize, transfer: &mut Transfer, home: impl Fn(u16) -> usize) {
        let Some(boxes) = self.boxes.get() else { return };
        while let Some(change) = transfer.poll_slot_change() {
            for (_, mailbox) in boxes.iter().enumerate().filter(|&(index, _)| index != own) {
                mailbox.send(move |_, transfer, _| {
                    transfer.mirror_slot(&change);
                    Flow::Continue
                });
            }
        }
        while let Some(handed) = transfer.poll_handed() {
            let Some(mailbox) = boxes.get(home(handed.namespace)) else { continue };
            if self.under_way.fetch_add(1, Ordering::Relaxed) >= UNDER_WAY_MAX {
                self.under_way.fetch_sub(1, Ordering::Relaxed);
                transfer.drop_handed(&handed);
                continue;
            }
            let under_way = Arc::clone(&self.under_way);
            mailbox.send(move |engine, transfer, now| {
                under_way.fetch_sub(1, Ordering::Relaxed);
                receive(engine, transfer, now, handed);
                Flow::Continue
            });
        }
    }
}

/// Deals with what another thread received.
fn receive<E: Engine>(engine: &mut E, transfer: &mut Transfer, now: Moment, mut handed: Handed) {
    let mut actions = Vec::new();
    let mut slab = engine.slab();
    transfer.handle_handed(now, &mut handed, &mut slab, &mut actions);
    let used = slab.used();
    engine.keep_slab(used);
    for action in actions {
        match action {
            Action::Send { slab, segment_bytes, to, tos } => engine.send(slab, segment_bytes, &to, tos),
            Action::Forward { .. }
            | Action::Deliver { .. }
            | Action::DeliverMore { .. }
            | Action::DeliverSlab { .. } => {
                debug_assert!(false, "there is no train at hand to forward or deliver from");
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::UdpSocket;

    use super::{Spread, share};

    #[test]
    fn ports_are_named_or_all() {
        assert_eq!("".parse(), Ok(Spread::None));
        assert_eq!("all".parse(), Ok(Spread::All));
        assert_eq!("8000, 8002".parse(), Ok(Spread::Ports([8000, 8002].into())));
        for wrong in ["ALL", "8000,", "0", "70000", "8000-8002"] {
            assert!(wrong.parse::<Spread>().unwrap_err().contains("-spread 8000"), "{wrong}");
        }
        let spread: Spread = "8000,8002".parse().unwrap();
        assert!(spread.contains(8002) && !spread.contains(8001) && Spread::All.contains(1));
        assert_eq!((spread.outside(8000, 8001), spread.outside(8000, 8002)), (Some(8002), None));
    }

    #[test]
    fn shared_sockets_hear_different_senders_and_each_sender_is_heard_by_one() {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = first.local_addr().unwrap();
        let second = share(&first, 1).unwrap().remove(0);
        for socket in [&first, &second] {
            socket.set_nonblocking(true).unwrap();
        }
        let mut heard = [0_u32; 2];
        // Which of them hears a sender is the kernel's secret; with so many senders both do.
        while heard.contains(&0) {
            assert!(heard.iter().sum::<u32>() < 1000, "one socket hears everybody: {heard:?}");
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..3 {
                sender.send_to(b"x", to).unwrap();
            }
            let count = |socket: &UdpSocket| std::iter::from_fn(|| socket.recv(&mut [0]).ok()).count();
            match (count(&first), count(&second)) {
                (3, 0) => heard[0] += 1,
                (0, 3) => heard[1] += 1,
                other => panic!("one sender was heard by both: {other:?}"),
            }
        }
    }

    #[test]
    fn a_port_is_shared_with_its_own_sockets_only_after_an_exclusive_bind() {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = first.local_addr().unwrap();
        let stranger = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        stranger.set_reuse_port(true).unwrap();
        assert!(stranger.bind(&to.into()).is_err(), "before it is spread nobody can share it");
        assert_eq!(share(&first, 2).unwrap().len(), 2);
    }
}
