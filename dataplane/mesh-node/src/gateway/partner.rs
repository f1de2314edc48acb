//! The two data threads of a gateway: one that receives and decides, and one that carries packets from the virtual interface to the
//! network. What each has to tell the other goes by mailboxes; the second one has copies of the first one's sockets, to send by.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Context as _;
use mesh_core::gateway::{Gateway, LaneChange, Outbound, OutboundEvent};
use mesh_core::node::Node as _;
use mesh_core::seam::{Action, Arrival, Moment, Origin, SocketId};

use crate::engine::Engine;
use crate::helpers::Helpers;
use crate::inside::InsideDevice;
use crate::mailbox::Mailbox;
use crate::pump::Flow;
use crate::select::Make;
use crate::worker::{Plan, Worker};

/// Bytes of packets on their way from the thread that sends to the one that decides; what does not fit is lost, as in any queue.
const UNDER_WAY_BYTES_MAX: usize = 1 << 20;

/// The tie between the two threads. Each has a copy.
pub(super) struct Partner<E: Engine> {
    shared: Arc<Shared<E>>,
}

struct Shared<E: Engine> {
    sender: OnceLock<Mailbox<E, Outbound>>,
    /// Sockets that the thread that sends has copies of, and those that it is to have none of. Only the thread that decides looks.
    copied: Mutex<HashSet<SocketId>>,
    barred: Mutex<HashSet<SocketId>>,
    /// By which numbers it knows them. Only the thread that sends looks.
    numbers: Mutex<HashMap<SocketId, SocketId>>,
    under_way_bytes: AtomicUsize,
    lost: AtomicU64,
}

impl<E: Make> Partner<E> {
    /// Starts the thread that sends; until then nothing is published. `ended` is called when it stops.
    pub(super) fn start(
        &self,
        device: InsideDevice,
        outbound: Outbound,
        sockets: u16,
        decider: &Mailbox<E, Gateway>,
        helpers: Helpers,
        ended: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> anyhow::Result<Worker<E, Outbound>> {
        let (partner, decider) = (self.clone(), decider.clone());
        let plan = Plan {
            index: 1,
            processor: None,
            make_engine: move || E::make(sockets),
            make_node: move |engine: &mut E| {
                engine.add_inside(device).context("the engine does not take the virtual interface")?;
                Ok(outbound)
            },
            observe: move |_: &mut E, outbound: &mut Outbound, _: Moment| {
                partner.hand_over(outbound, &decider);
                Flow::Continue
            },
        };
        let worker = Worker::start(plan, helpers, ended)?;
        _ = self.shared.sender.set(worker.mailbox.clone());
        Ok(worker)
    }
}

impl<E: Engine> Clone for Partner<E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Each lock is one thread's, and free.
fn own<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: Engine + 'static> Partner<E> {
    pub(super) fn new() -> Self {
        let shared = Shared {
            sender: OnceLock::new(),
            copied: Mutex::default(),
            barred: Mutex::default(),
            numbers: Mutex::default(),
            under_way_bytes: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The thread that sends, where there is one.
    pub(super) fn sender(&self) -> Option<&Mailbox<E, Outbound>> {
        self.shared.sender.get()
    }

    /// On the thread that decides, in each turn: tells what has changed for the one that sends.
    pub(super) fn publish(&self, engine: &mut E, gateway: &mut Gateway) {
        let Some(sender) = self.sender() else { return };
        if self.shared.lost.load(Ordering::Relaxed) > 0 {
            gateway.note_lost_inside(self.shared.lost.swap(0, Ordering::Relaxed));
        }
        while let Some(change) = gateway.poll_lane() {
            let mut copy = None;
            if let Some(socket) = change.lane.as_ref().map(|lane| lane.socket())
                && !own(&self.shared.copied).contains(&socket)
                && !own(&self.shared.barred).contains(&socket)
            {
                match engine.copy_socket(socket) {
                    Ok(copied) => {
                        own(&self.shared.copied).insert(socket);
                        copy = Some((socket, copied));
                    }
                    // Packets of this peer go by the thread that decides.
                    Err(error) => tracing::info!(%error, "a socket is not shared with the thread that sends"),
                }
            }
            let partner = self.clone();
            sender.send(move |engine, outbound, _| {
                if let Some((socket, copy)) = copy {
                    match engine.add_sender(copy) {
                        Ok(number) => _ = own(&partner.shared.numbers).insert(socket, number),
                        Err(error) => tracing::info!(%error, "the engine takes no more sockets"),
                    }
                }
                partner.change(outbound, change);
                Flow::Continue
            });
        }
    }

    /// On the thread that decides: these sockets are closed, or will be at once.
    pub(super) fn forget(&self, sockets: &[SocketId]) {
        let closed = self.take_copied(sockets);
        if let (Some(sender), false) = (self.sender(), closed.is_empty()) {
            let partner = self.clone();
            sender.send(move |engine, outbound, _| {
                partner.close(engine, outbound, &closed);
                Flow::Continue
            });
        }
    }

    /// On the thread that decides: calls `then` there as soon as there are no copies of these sockets any more, so that their ports are
    /// free when they are closed.
    pub(super) fn without(
        &self,
        sockets: Vec<SocketId>,
        at: (&mut E, &mut Gateway, Moment),
        decider: &Mailbox<E, Gateway>,
        then: impl FnOnce(&mut E, &mut Gateway, Moment) + Send + 'static,
    ) {
        let closed = self.take_copied(&sockets);
        let (Some(sender), false) = (self.sender(), closed.is_empty()) else {
            let (engine, gateway, now) = at;
            return then(engine, gateway, now);
        };
        own(&self.shared.barred).extend(&sockets);
        let (partner, decider) = (self.clone(), decider.clone());
        sender.send(move |engine, outbound, _| {
            partner.close(engine, outbound, &closed);
            let partner = partner.clone();
            decider.send(move |engine, gateway, now| {
                then(engine, gateway, now);
                own(&partner.shared.barred).retain(|socket| !sockets.contains(socket));
                Flow::Continue
            });
            Flow::Continue
        });
    }

    fn take_copied(&self, sockets: &[SocketId]) -> Vec<SocketId> {
        let mut copied = own(&self.shared.copied);
        sockets.iter().copied().filter(|socket| copied.remove(socket)).collect()
    }

    /// On the thread that sends: closes its copies.
    fn close(&self, engine: &mut E, outbound: &mut Outbound, sockets: &[SocketId]) {
        for socket in sockets {
            let Some(number) = own(&self.shared.numbers).remove(socket) else { continue };
            outbound.forget_socket(number);
            if let Err(error) = engine.remove_socket(number) {
                tracing::warn!(%error, "a copy of a socket is not closed");
            }
        }
    }

    /// On the thread that sends: takes a lane, by the number that its own engine gives the socket.
    fn change(&self, outbound: &mut Outbound, change: LaneChange) {
        let LaneChange { ip4, lane } = change;
        let lane = lane.and_then(|lane| {
            let number = own(&self.shared.numbers).get(&lane.socket()).copied()?;
            Some(lane.by(number))
        });
        outbound.change(LaneChange { ip4, lane });
    }

    /// On the thread that sends, in each turn: hands on what it cannot do itself.
    pub(super) fn hand_over(&self, outbound: &mut Outbound, decider: &Mailbox<E, Gateway>) {
        while let Some(event) = outbound.poll_event() {
            match event {
                OutboundEvent::Sends(ip4) => {
                    _ = decider.send(move |_, gateway, now| {
                        gateway.sends_to(now, ip4);
                        Flow::Continue
                    })
                }
                OutboundEvent::Packet(packet) => self.hand_packet(packet, decider),
            }
        }
    }

    fn hand_packet(&self, mut packet: Box<[u8]>, decider: &Mailbox<E, Gateway>) {
        let bytes = packet.len();
        let under_way = &self.shared.under_way_bytes;
        if under_way.fetch_add(bytes, Ordering::Relaxed) + bytes > UNDER_WAY_BYTES_MAX {
            under_way.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let partner = self.clone();
        decider.send(move |engine, gateway, now| {
            partner.shared.under_way_bytes.fetch_sub(bytes, Ordering::Relaxed);
            decide(engine, gateway, now, &mut packet);
            Flow::Continue
        });
    }
}

/// Deals with a packet that the other thread read.
fn decide<E: Engine>(engine: &mut E, gateway: &mut Gateway, now: Moment, packet: &mut [u8]) {
    let mut actions = Vec::new();
    let arrival = Arrival { origin: Origin::Inside, segment_bytes: packet.len().max(1), tos: 0 };
    let mut slab = engine.slab();
    gateway.handle(now, &arrival, packet, &mut slab, &mut actions);
    let used = slab.used();
    engine.keep_slab(used);
    for action in actions {
        match action {
            Action::Send { slab, segment_bytes, to, tos } => engine.send(slab, segment_bytes, &to, tos),
            Action::DeliverSlab { slab } => engine.deliver_slab(slab),
            Action::Forward { .. } | Action::Deliver { .. } | Action::DeliverMore { .. } => {
                debug_assert!(false, "there is no train at hand to forward or deliver from");
            }
        }
    }
}
