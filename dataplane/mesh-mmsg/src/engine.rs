//! The engine: what it owns, how its sockets come and go. Receiving is in `receive.rs`, sending in `send.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::OwnedFd;

use mesh_udp::area::Area;
use mesh_udp::company::Company;
use mesh_udp::fair::Fair;
use mesh_udp::gather::{Gather, Memory, Piece};
use mesh_udp::held::Held;
use mesh_udp::share::Share;
use mesh_udp::socket::{Socket, SocketBuffers, SocketOptions};
use mesh_udp::sources::Sources;
use mesh_udp::writes::Writes;
use mesh_udp::{BufferId, Counters, Endpoint, Owner, Scratch, SocketId, Train, Waker, WorkingSet};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::config::Config;
use crate::receive::Ready;
use crate::send::{Part, Staged};
use crate::slots::Slots;
use crate::sys::{Inbound, MESSAGES};

/// Room that is free in the slab each time it is handed out, in bytes: one full train and its cut-off neighbours.
const SLAB_ROOM_BYTES: usize = 128 * 1024;

/// Trains that one wait hands out at most, whatever is asked.
const BATCH_MAX: usize = 4096;

/// What epoll says of an event: the socket with this number, or one of these two.
pub(crate) const TOKEN_WAKER: u64 = 1 << 32;
pub(crate) const TOKEN_INSIDE: u64 = 2 << 32;

/// An epoll, its sockets and its interface. It works on the thread that made it.
///
/// One turn: [`wait`](Engine::wait), which also sends what the turn before queued, for each train [`split`](Engine::split), queue ([`forward`](Engine::forward),
/// [`send`](Engine::send), [`deliver`](Engine::deliver), [`deliver_slab`](Engine::deliver_slab)) and
/// [`release`](Engine::release). [`flush`](Engine::flush) sends without a wait.
pub struct Engine {
    pub(crate) epoll: Epoll,
    pub(crate) slots: Slots,
    pub(crate) inbound: Inbound,
    pub(crate) slab: Area,
    slab_used: usize,
    pub(crate) owner: Owner,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    /// What the kernel had dropped of sockets that are gone.
    drops_of_removed: u64,
    pub(crate) sockets: Vec<Option<Socket>>,
    free_numbers: Vec<u16>,
    /// Numbers of sockets removed since the last flush.
    retired_numbers: Vec<u16>,
    pub(crate) inside: Option<OwnedFd>,
    pub(crate) gather: Gather,
    pub(crate) sources: Sources,
    pub(crate) fair: Fair,
    /// Whether there are others than who is flooded.
    pub(crate) company: Company,
    /// How many trains the flooded sockets have in a turn, all together.
    pub(crate) share: Share,
    /// Sockets that had more than their share in this turn, and in the one before.
    pub(crate) flooded: [usize; 2],
    pub(crate) trains: WorkingSet,
    /// Packets for the interface.
    pub(crate) writes: Writes,
    /// Sends of one socket on their way to one system call.
    pub(crate) staged: Vec<Staged>,
    pub(crate) headers: Vec<libc::mmsghdr>,
    /// Spare memory of `send.rs`, empty between calls.
    pub(crate) parts: VecDeque<Part>,
    pub(crate) held: Held,
    released: Vec<BufferId>,
    /// What epoll told and was not looked at yet.
    pub(crate) ready: VecDeque<Ready>,
    pub(crate) waker: Waker,
    pub(crate) woken: bool,
}

impl Engine {
    /// An engine without sockets.
    ///
    /// # Errors
    /// When there are no descriptors or no address space left.
    pub fn new(config: Config) -> io::Result<Self> {
        let config = Config { batch_max: config.batch_max.clamp(1, BATCH_MAX), ..config };
        let mut slots = Slots::new((config.batch_max + MESSAGES) as u16, config.without)?;
        let inbound = Inbound::new(&mut slots)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let waker = Waker::new()?;
        // By edges: each call of the waker is one, and its count need not be read.
        epoll.add(waker.descriptor(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TOKEN_WAKER))?;
        Ok(Self {
            epoll,
            slots,
            inbound,
            slab: Area::new((config.batch_max + 1) * SLAB_ROOM_BYTES)?,
            slab_used: 0,
            owner: Owner::new(),
            counters: Counters::default(),
            drops_of_removed: 0,
            sockets: Vec::new(),
            free_numbers: Vec::new(),
            retired_numbers: Vec::new(),
            inside: None,
            gather: Gather::new().going_without(config.without),
            sources: Sources::new(),
            fair: Fair::new(config.batch_max),
            company: Company::default(),
            share: Share::new(),
            flooded: [0; 2],
            trains: WorkingSet::new(),
            writes: Writes::with_capacity(config.batch_max),
            staged: (0..MESSAGES).map(|_| Staged::new()).collect(),
            headers: Vec::with_capacity(MESSAGES),
            parts: VecDeque::with_capacity(MESSAGES),
            held: Held::new(),
            released: Vec::with_capacity(config.batch_max),
            ready: VecDeque::with_capacity(crate::receive::EVENTS),
            waker,
            woken: false,
            config,
        })
    }

    /// Adds a bound UDP socket and receives on it from the next wait on. With `local_address` it also learns which address was
    /// asked; that is for sockets bound to a wildcard on a host with several addresses.
    ///
    /// # Errors
    /// When there is no number left, or the socket takes not even the plainest options.
    pub fn add_socket(&mut self, socket: UdpSocket, local_address: bool) -> io::Result<SocketId> {
        self.add(socket, local_address, true)
    }

    /// Adds a copy of a socket that another engine receives on (see [`Engine::copy_socket`]), to send by.
    ///
    /// # Errors
    /// As [`Engine::add_socket`].
    pub fn add_sender(&mut self, copy: UdpSocket) -> io::Result<SocketId> {
        self.add(copy, false, false)
    }

    /// A copy of a socket, for another engine to send by. The port is taken until both are closed.
    ///
    /// # Errors
    /// `NotFound` for a number that is not in use; else there are too many open files.
    pub fn copy_socket(&self, socket: SocketId) -> io::Result<UdpSocket> {
        let socket = self.socket(socket.0).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such socket"))?;
        socket.socket.try_clone()
    }

    fn add(&mut self, socket: UdpSocket, local_address: bool, receives: bool) -> io::Result<SocketId> {
        let number = match self.free_numbers.last() {
            Some(&number) => number,
            None => u16::try_from(self.sockets.len())
                .map_err(|_| io::Error::new(io::ErrorKind::QuotaExceeded, "no more than 65,536 sockets"))?,
        };
        let wished = SocketBuffers {
            receive_bytes: self.config.socket_receive_bytes,
            send_bytes: self.config.socket_send_bytes,
        };
        let options = SocketOptions {
            local_address,
            receives,
            offload: self.config.offload,
            buffers: wished,
            without: self.config.without,
        };
        let socket = Socket::prepare(socket, &options)?;
        if receives {
            // By level: what one receive leaves is reported again, after the other sockets had their turn.
            self.epoll.add(&socket.socket, EpollEvent::new(EpollFlags::EPOLLIN, u64::from(number)))?;
        }
        match self.free_numbers.pop() {
            Some(number) => self.sockets[usize::from(number)] = Some(socket),
            None => self.sockets.push(Some(socket)),
        }
        Ok(SocketId(number))
    }

    /// The buffer sizes that a socket got; `None` for a number that is not in use.
    pub fn socket_buffers(&self, socket: SocketId) -> Option<SocketBuffers> {
        Some(self.socket(socket.0)?.buffers)
    }

    /// Whether any socket sends several datagrams at once (`UDP_SEGMENT`), and whether any receives several at once (`UDP_GRO`).
    pub fn offloads(&self) -> (bool, bool) {
        let sockets = || self.sockets.iter().flatten();
        (sockets().any(|socket| socket.segments_max > 1), sockets().any(|socket| socket.joins))
    }

    /// Sends what is queued, stops receiving on a socket and closes it; its port is free when this returns. Its number is given to no
    /// other socket before the next flush.
    ///
    /// # Errors
    /// `NotFound` for a number that is not in use.
    pub fn remove_socket(&mut self, socket: SocketId) -> io::Result<()> {
        let number = socket.0;
        if self.socket(number).is_none() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such socket"));
        }
        self.submit_queued();
        self.counters.drops_send_full += self.held.drop_waiting(number);
        if let Some(socket) = self.sockets[usize::from(number)].take() {
            self.drops_of_removed += u64::from(socket.receive_drops());
            if socket.receives {
                self.epoll.delete(&socket.socket)?;
            }
        }
        self.ready.retain(|ready| !matches!(ready, Ready::Socket { number: other, .. } if *other == number));
        self.retired_numbers.push(number);
        Ok(())
    }

    /// Adds the virtual interface, a TUN device in non-blocking mode without packet information, and reads it from the next wait on.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one; else what the kernel says to watching it.
    pub fn add_inside(&mut self, device: OwnedFd) -> io::Result<()> {
        if self.inside.is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the engine has an interface"));
        }
        self.epoll.add(&device, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_INSIDE))?;
        self.inside = Some(device);
        Ok(())
    }

    /// Adds the virtual interface as [`Engine::add_inside`] does, but only to write to: another engine reads from it.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one.
    pub fn add_inside_writer(&mut self, device: OwnedFd) -> io::Result<()> {
        if self.inside.is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the engine has an interface"));
        }
        self.inside = Some(device);
        Ok(())
    }

    /// A handle to end a wait from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The bytes of a train, and the slab with at least 128 KiB free behind what is used.
    ///
    /// # Panics
    /// On a train of another engine.
    pub fn split<'a>(&'a mut self, train: &'a mut Train) -> (&'a mut [u8], Scratch<'a>) {
        let range = train.place(&self.owner, &(0..train.len()));
        self.make_slab_room();
        let bytes = self.slots.bytes_mut(train.buffer(), range);
        let size = self.slab.size();
        (bytes, Scratch { memory: self.slab.bytes_mut(0..size), used: self.slab_used })
    }

    /// The slab alone, with at least 128 KiB free behind what is used.
    pub fn slab(&mut self) -> Scratch<'_> {
        self.make_slab_room();
        let size = self.slab.size();
        Scratch { memory: self.slab.bytes_mut(0..size), used: self.slab_used }
    }

    /// Keeps the slab taken up to `used` until the next flush.
    ///
    /// # Panics
    /// When `used` lies beyond the slab.
    pub fn keep_slab(&mut self, used: usize) {
        assert!(used <= self.slab.size(), "more of the slab kept than there is");
        self.slab_used = self.slab_used.max(used);
    }

    /// Queues a range of a train to be sent as it is, cut every `segment_bytes`. The bytes are read at the next flush.
    ///
    /// # Panics
    /// On a train of another engine, a range beyond it, or a stride of zero.
    pub fn forward(&mut self, train: &Train, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        let range = train.place(&self.owner, &bytes);
        self.queue(train.memory(), range, segment_bytes, to, tos);
    }

    /// Queues a range of the slab to be sent, cut every `segment_bytes`.
    ///
    /// # Panics
    /// On a range beyond the slab, or a stride of zero.
    pub fn send(&mut self, slab: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        assert!(slab.start <= slab.end && slab.end <= self.slab.size(), "a range beyond the slab");
        self.queue(Memory::Slab, slab, segment_bytes, to, tos);
    }

    /// Queues a range of a train as one packet for the virtual interface.
    ///
    /// # Panics
    /// On a train of another engine, or a range beyond it.
    pub fn deliver(&mut self, train: &Train, bytes: Range<usize>) {
        let range = train.place(&self.owner, &bytes);
        self.queue_write(Piece::new(train.memory(), range));
    }

    /// Goes on with the packet of the [`deliver`](Engine::deliver) before by another range of the same train.
    ///
    /// # Panics
    /// On a train of another engine, or a range beyond it.
    pub fn deliver_more(&mut self, train: &Train, bytes: Range<usize>) {
        let range = train.place(&self.owner, &bytes);
        self.writes.extend(Piece::new(train.memory(), range));
    }

    /// Queues a range of the slab as one packet for the virtual interface.
    ///
    /// # Panics
    /// On a range beyond the slab.
    pub fn deliver_slab(&mut self, slab: Range<usize>) {
        assert!(slab.start <= slab.end && slab.end <= self.slab.size(), "a range beyond the slab");
        self.queue_write(Piece::new(Memory::Slab, slab));
    }

    /// Gives a train back. Its bytes stay untouched until the next flush has read them.
    ///
    /// # Panics
    /// On a train of another engine.
    pub fn release(&mut self, train: Train) {
        self.released.push(train.take(&self.owner));
    }

    /// Sends everything queued without waiting, then takes back released trains and the slab. A datagram that cannot be sent is
    /// counted.
    pub fn flush(&mut self) {
        self.submit_queued();
        self.slab_used = 0;
        self.free_numbers.append(&mut self.retired_numbers);
        for buffer in self.released.drain(..) {
            self.slots.give(buffer);
        }
    }

    /// What was counted since the engine was made.
    pub fn counters(&self) -> Counters {
        let drops = |socket: &Socket| u64::from(socket.receive_drops());
        let drops_receive_full = self.drops_of_removed + self.sockets.iter().flatten().map(drops).sum::<u64>();
        Counters { drops_receive_full, ..self.counters }
    }

    pub(crate) fn socket(&self, number: u16) -> Option<&Socket> {
        self.sockets.get(usize::from(number))?.as_ref()
    }

    fn make_slab_room(&mut self) {
        if self.slab.size() - self.slab_used < SLAB_ROOM_BYTES {
            self.submit_queued();
            self.slab_used = 0;
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("sockets", &self.sockets.iter().flatten().count())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}
