//! The transfer: authenticates gateways, tells them of each other, and relays what cannot go direct.
//!
//! One socket is one namespace. A datagram that came on a socket is decided upon by the tables of that namespace and by no
//! other, and leaves by the same socket: nothing crosses. Drive it as [`crate::node::Node`] says. In the order in which a
//! datagram meets them:
//!
//! 1. `forward.rs`: datagrams between gateways, in runs, by the table in `slots.rs`; `moves.rs`: those that a move overtook;
//! 2. `handshake.rs`: who is it;
//! 3. `control.rs`, on the sessions in `links.rs`: what does it say;
//! 4. `registry.rs` with `tickets.rs`: who holds which address; `lookups.rs`: who is told; `searches.rs`: who may search for a peer;
//! 5. `members.rs`: the many who hold one, in little memory each, by `compact.rs` and `exits.rs`;
//! 6. `timers.rs`, `limits.rs`: when, and how often at most.
//!
//! `mirror.rs` is for namespaces that several threads share; `observe.rs` tells where a gateway is seen.
//!
//! Memory is bounded everywhere, and nothing at all is remembered of an address that has not proven itself. No answer is longer
//! than its request. What a member at a proven address is told unasked (changes, probes, that it is displaced) answers nobody.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use mesh_wire::Malformed;
use mesh_wire::frame::{self, FirstByte, FrameType};
use mesh_wire::message::Message;
use mesh_wire::notice::{AgainReason, ErrorReason, ErrorReply, RegisterAgain};
use mesh_wire::route::Route;
use rand::Rng;
use zeroize::Zeroize;

use crate::drops::{DropReason, Drops};
use crate::node::Node;
use crate::seam::{Action, Arrival, Endpoint, Moment, Origin, Slab, SocketId};
use crate::session::PublicKey;
use crate::session::handshake::StaticKey;
use crate::session::jobs::{Done, Job};
use crate::session::mac::CookieJar;
use crate::session::random::Generator;
use crate::session::token::NamespaceKeys;

mod compact;
mod control;
mod exits;
mod forward;
mod handshake;
mod limits;
mod links;
mod lookups;
mod members;
mod mirror;
mod moves;
mod namespace;
mod observe;
mod registry;
mod searches;
mod slots;
#[cfg(feature = "slow")]
mod slow;
mod spaces;
mod status;
mod tickets;
mod timers;

#[cfg(test)]
mod tests;

pub use mirror::{Handed, ShareStatus, SlotChange};
pub use status::{Counters, Event, LeftReason, MemberStatus, NamespaceStatus, Refusal, Status};

use forward::Verdict;
use handshake::Handshakes;
use limits::{Bucket, NoticeLimit};
use links::LinkId;
use mirror::Mirror;
use moves::Moves;
use namespace::Namespace;
use searches::Searches;
use spaces::Spaces;
use tickets::TicketOffice;
use timers::{Timer, Timers};

/// An address belongs to its holder until this long after its last word.
pub const LEASE: Duration = Duration::from_secs(120);

/// Unsealed error replies each second, in all.
const ERRORS_PER_SECOND: u32 = 100;
/// Messages waiting to be sent; what does not fit is lost, as on any network.
const OUT_MAX: usize = 65_536;
/// Events not yet fetched; later ones are lost.
const EVENTS_MAX: usize = 1024;

/// What a transfer is given at its start.
pub struct TransferConfig {
    /// Its identity.
    pub static_key: StaticKey,
    /// Random number of this start: gateways see by it that the transfer has forgotten them.
    pub boot: u64,
    /// Seals tickets; kept over restarts.
    pub ticket_key: [u8; 32],
    /// Source of all randomness: fresh at each start.
    pub seed: [u8; 32],
}

/// Shows no secret.
impl std::fmt::Debug for TransferConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransferConfig").field("static_key", &self.static_key).finish_non_exhaustive()
    }
}

/// The relay's state machine. See the [module](self).
#[derive(Debug)]
pub struct Transfer {
    static_key: StaticKey,
    boot: u64,
    started: Moment,
    rng: Generator,
    /// For the tables of members.
    hasher: Arc<ahash::RandomState>,
    spaces: Spaces,
    /// By socket: namespaces that another thread is home to.
    mirrors: Vec<Option<Box<Mirror>>>,
    /// The sockets of those, by number of the namespace.
    mirrored: BTreeMap<u16, SocketId>,
    /// Sockets of namespaces that are mirrored elsewhere, by number.
    shared: BTreeMap<u16, SocketId>,
    /// Changes of their tables that are not told yet.
    changes_pending: Arc<AtomicUsize>,
    /// What waits to be handed to the home of its namespace.
    handed: VecDeque<Handed>,
    handshakes: Handshakes,
    moves: Moves,
    cookies: CookieJar,
    tickets: TicketOffice,
    timers: Timers,
    jobs: VecDeque<Job>,
    out: VecDeque<(Endpoint, Vec<u8>)>,
    events: VecDeque<Event>,
    notices: NoticeLimit,
    searches: Searches,
    errors: Bucket,
    counters: Counters,
    drops: Drops,
    #[cfg(feature = "slow")]
    slow: slow::Slow,
}

impl Transfer {
    /// A transfer without namespaces. The secrets in `config` are wiped.
    pub fn new(mut config: TransferConfig, now: Moment) -> Self {
        let mut rng = Generator::from_seed(config.seed);
        let tickets = TicketOffice::new(config.ticket_key);
        config.seed.zeroize();
        config.ticket_key.zeroize();
        let mut hasher = || {
            let [a, b, c, d] = std::array::from_fn(|_| rng.next_u64());
            ahash::RandomState::with_seeds(a, b, c, d)
        };
        let (notices, hasher) = (NoticeLimit::new(hasher()), Arc::new(hasher()));
        Self {
            static_key: config.static_key,
            boot: config.boot,
            started: now,
            spaces: Spaces::default(),
            mirrors: Vec::new(),
            mirrored: BTreeMap::new(),
            shared: BTreeMap::new(),
            changes_pending: Arc::default(),
            handed: VecDeque::new(),
            handshakes: Handshakes::default(),
            moves: Moves::default(),
            cookies: CookieJar::new(*rng.secret(), now),
            tickets,
            timers: Timers::default(),
            jobs: VecDeque::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            notices,
            searches: Searches::default(),
            errors: Bucket::new(ERRORS_PER_SECOND, ERRORS_PER_SECOND),
            counters: Counters::default(),
            drops: Drops::default(),
            #[cfg(feature = "slow")]
            slow: slow::Slow::default(),
            hasher,
            rng,
        }
    }

    /// Lets the socket `socket` stand for the namespace `namespace` (its port) with these keys. One that stood for another
    /// before is as if removed first.
    pub fn add_namespace(&mut self, socket: SocketId, namespace: u16, keys: impl Into<Arc<NamespaceKeys>>) {
        self.remove_namespace(socket);
        self.spaces.insert(socket, Namespace::new(socket, namespace, keys.into(), Arc::clone(&self.hasher)));
    }

    /// Forgets a namespace and all its members. What still arrives on the socket is dropped.
    pub fn remove_namespace(&mut self, socket: SocketId) {
        self.forget_handshakes_of(socket);
        self.moves.forget_all(socket);
        if let Some(mirror) = self.mirrors.get_mut(usize::from(socket.0)) {
            *mirror = None;
        }
        self.mirrored.retain(|_, mirrored| *mirrored != socket);
        self.shared.retain(|_, shared| *shared != socket);
        let Some(space) = self.spaces.remove(socket) else { return };
        if let Some(due) = space.leases_due {
            self.timers.cancel(due, Timer::Leases(socket));
        }
        for (index, guest) in space.guests {
            self.timers.cancel(guest.ends, Timer::Link(LinkId { socket, index }));
        }
        for (index, rival) in space.rivals {
            self.timers.cancel(rival.timer, Timer::Rival(socket, index));
        }
        for (index, watching) in space.watching {
            self.timers.cancel(watching.timer, Timer::Watching(socket, index));
        }
        for (ip4, recent) in space.announced {
            self.timers.cancel(recent.ends, Timer::Announced(socket, ip4));
        }
        self.out.retain(|(to, _)| to.socket != socket);
    }

    /// Lets only `key` hold `ip4` in the namespace of `socket`, whether it is there or not. `false`: there is no such namespace.
    pub fn reserve(&mut self, socket: SocketId, ip4: Ipv4Addr, key: PublicKey) -> bool {
        match self.spaces.get_mut(socket) {
            Some(space) => {
                space.reserved.insert(ip4, key);
                true
            }
            None => false,
        }
    }

    /// The next event, for logs.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Why datagrams were dropped so far.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Ends everything and forgets all keys. Gateways are told nothing: they keep their tickets and look for the next start.
    pub fn stop(&mut self, _now: Moment) {
        self.spaces = Spaces::default();
        self.mirrors.clear();
        self.mirrored.clear();
        self.shared.clear();
        self.handed.clear();
        self.handshakes = Handshakes::default();
        self.moves = Moves::default();
        self.timers.clear();
        self.jobs.clear();
        self.out.clear();
    }

    /// A train from the network.
    fn receive_train(
        &mut self,
        now: Moment,
        from: Endpoint,
        arrival: &Arrival,
        train: &mut [u8],
        reply: &mut Reply<'_, '_>,
    ) {
        let stride = arrival.segment_bytes.max(1);
        if train.is_empty() {
            return self.drops.count(DropReason::Empty);
        }
        let mut at = 0;
        while at < train.len() {
            let mut end = (at + stride).min(train.len());
            let Some(space) = self.spaces.get_mut(from.socket) else {
                debug_assert!(at == 0, "no datagram ends its namespace");
                return self.receive_mirrored(from, arrival, train, reply);
            };
            match self.moves.judge(now, &train[at..end], &from, &space.slots) {
                Verdict::Forward { source, to } => {
                    let Some(to) = space.slots.endpoint(to) else { return };
                    end = forward::run_end(train, at, stride);
                    let (bytes, datagrams) = ((end - at) as u64, (end - at).div_ceil(stride) as u64);
                    #[cfg(feature = "slow")]
                    self.slow.waste(datagrams);
                    space.slots.note(source, datagrams, bytes);
                    space.datagrams += datagrams;
                    space.bytes += bytes;
                    self.counters.note_run(datagrams, bytes);
                    reply.actions.push(Action::Forward { bytes: at..end, segment_bytes: stride, to, tos: arrival.tos });
                }
                Verdict::Receive => {
                    if let Err(reason) = self.receive(now, from, &mut train[at..end], reply) {
                        self.drops.count(reason);
                    }
                }
                Verdict::Refuse(reason, again, route) => {
                    self.drops.count(reason);
                    self.register_again(now, from, again, route, reply);
                }
                Verdict::Drop(reason) => self.drops.count(reason),
            }
            at = end;
        }
    }

    /// A datagram that is for the transfer itself.
    fn receive(
        &mut self,
        now: Moment,
        from: Endpoint,
        datagram: &mut [u8],
        reply: &mut Reply<'_, '_>,
    ) -> Result<(), DropReason> {
        let first = *datagram.first().ok_or(DropReason::Empty)?;
        match frame::classify(first) {
            FirstByte::Frame(FrameType::HandshakeInit) => self.receive_init(now, from, datagram, reply),
            FirstByte::Frame(FrameType::HandshakeFinal) => self.receive_final(from, datagram, reply),
            FirstByte::Frame(FrameType::Control) => self.receive_control(now, from, datagram, reply),
            FirstByte::Frame(FrameType::Observe) => self.receive_observe(from, datagram, reply),
            FirstByte::Frame(
                FrameType::Data
                | FrameType::HandshakeResponse
                | FrameType::CookieReply
                | FrameType::RegisterAgain
                | FrameType::Error
                | FrameType::Beacon
                | FrameType::Observed,
            ) => Err(DropReason::UnexpectedType),
            FirstByte::UnknownType => Err(DropReason::UnknownType),
            FirstByte::FirstEdition => Err(DropReason::FirstEdition),
            FirstByte::OtherVersion(_) => {
                // Only what is longer is answered: two programs that do not understand each other's errors fall silent.
                if datagram.len() > ErrorReply::BYTES
                    && self.errors.take(now)
                    && let Some(error) = ErrorReply::to(ErrorReason::Version, datagram)
                {
                    reply.send(from, &error.emit())?;
                }
                Err(DropReason::OtherVersion)
            }
        }
    }

    /// Tells a sender, once a second, that its frame could not be placed.
    fn register_again(
        &mut self,
        now: Moment,
        to: Endpoint,
        reason: AgainReason,
        route: Route,
        reply: &mut Reply<'_, '_>,
    ) {
        if self.notices.take(now, &to.remote) && reply.send(to, &RegisterAgain { reason, route }.emit()).is_ok() {
            self.counters.notices_sent += 1;
        }
    }

    /// Answers a request that came on a link in a datagram of `room` bytes; not where the answer would be longer than that.
    fn answer(&mut self, link: LinkId, message: &Message, room: usize) -> Result<(), DropReason> {
        let mut party = self.party(link).ok_or(DropReason::UnknownSession)?;
        let (to, sealed) = (party.endpoint, party.seal_answer(message, room)?);
        self.queue(to, sealed);
        Ok(())
    }

    /// Seals a message on a link, to be sent where that has proven itself: what nobody asked for.
    fn say(&mut self, link: LinkId, message: &Message) {
        let Some(mut party) = self.party(link) else { return };
        let to = party.endpoint;
        let Some(sealed) = party.seal(message) else { return };
        self.queue(to, sealed);
    }

    fn queue(&mut self, to: Endpoint, datagram: Vec<u8>) {
        if self.out.len() < OUT_MAX {
            self.out.push_back((to, datagram));
        } else {
            self.drops.count(DropReason::NoRoom);
        }
    }

    fn event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }
}

impl Node for Transfer {
    fn handle(
        &mut self,
        now: Moment,
        arrival: &Arrival,
        bytes: &mut [u8],
        slab: &mut Slab<'_>,
        actions: &mut Vec<Action>,
    ) {
        match arrival.origin {
            Origin::Outside(from) => self.receive_train(now, from, arrival, bytes, &mut Reply { slab, actions }),
            // A transfer has no inside.
            Origin::Inside => self.drops.count(DropReason::UnknownSocket),
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    fn handle_timeout(&mut self, now: Moment) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Handshake(index) => self.forget_handshake(index),
                Timer::Link(id) => drop(self.take_guest(id)),
                Timer::Announced(socket, ip4) => self.announced_due(now, socket, ip4),
                Timer::Leases(socket) => self.leases_due(now, socket),
                Timer::Watching(socket, index) => self.watching_due(now, socket, index),
                Timer::Rival(socket, index) => self.rival_due(now, socket, index),
            }
        }
    }

    fn poll_transmit(&mut self, _now: Moment, slab: &mut Slab<'_>) -> Option<Action> {
        let (to, datagram) = self.out.front()?;
        let range = slab.append(datagram)?;
        let action = Action::Send { segment_bytes: range.len(), slab: range, to: *to, tos: 0 };
        self.out.pop_front();
        Some(action)
    }

    fn poll_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    fn handle_job(&mut self, now: Moment, done: Done) {
        self.handshake_done(now, done);
    }
}

/// Where answers go that are given at once and need no memory of ours.
struct Reply<'a, 's> {
    slab: &'a mut Slab<'s>,
    actions: &'a mut Vec<Action>,
}

impl Reply<'_, '_> {
    fn send(&mut self, to: Endpoint, datagram: &[u8]) -> Result<(), DropReason> {
        let slab = self.slab.append(datagram).ok_or(DropReason::NoRoom)?;
        self.actions.push(Action::Send { segment_bytes: slab.len(), slab, to, tos: 0 });
        Ok(())
    }
}

fn too_short_or_malformed(malformed: Malformed) -> DropReason {
    match malformed {
        Malformed::TooShort => DropReason::TooShort,
        Malformed::TooLong | Malformed::BadField | Malformed::MissingField => DropReason::Malformed,
    }
}
