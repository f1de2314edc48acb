//! The engine: what it owns, how it comes and goes. Receiving is in `receive.rs`, sending in `send.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use mesh_udp::area::Area;
use mesh_udp::company::Company;
use mesh_udp::control::{CONTROL_BYTES, NAME_BYTES};
use mesh_udp::fair::Fair;
use mesh_udp::gather::Gather;
use mesh_udp::held::Held;
use mesh_udp::share::Share;
use mesh_udp::socket::{self, SocketBuffers, SocketOptions};
use mesh_udp::sources::Sources;
use mesh_udp::{BufferId, Counters, Origin, Owner, Scratch, SocketId, Train, Waker};

use crate::buffers::{Lane, Pool};
use crate::config::Config;
use crate::error::SetupError;
use crate::memory::{Memories, SLAB_BYTES};
use crate::op::Op;
use crate::pace::Pace;
use crate::receive::Receiver;
use crate::ring::{COMPLETIONS, Completion, Features, GROUP_BUSY, GROUP_INSIDE, GROUP_OUTSIDE, Pointless, Ring};
use crate::send::Sends;
use crate::sys::Collect;
use crate::tun::Inside;

/// How often the end of operations is looked for when something is closed, and how long each time at most.
const CLOSE_ATTEMPTS: u32 = 50;
const CLOSE_PAUSE: Duration = Duration::from_millis(10);

/// A ring, its sockets and its interface. It works on the thread that made it and is not `Send`:
///
/// ```compile_fail
/// fn moves_to_another_thread<T: Send>() {}
/// moves_to_another_thread::<mesh_uring::Engine>();
/// ```
///
/// One turn: [`wait`](Engine::wait), which also submits what the turn before queued, for each train [`split`](Engine::split), queue ([`forward`](Engine::forward),
/// [`send`](Engine::send), [`deliver`](Engine::deliver), [`deliver_slab`](Engine::deliver_slab)) and
/// [`release`](Engine::release). [`flush`](Engine::flush) submits without a wait.
///
/// Dropping it ends all operations first, so that ports are free when the drop returns; what was queued and not flushed is lost.
/// Trains that are still out do no harm.
pub struct Engine {
    // The ring comes first: fields are dropped in this order, and memory must outlive it.
    pub(crate) ring: Ring,
    pub(crate) memories: Memories,
    pub(crate) sends: Sends,
    pub(crate) held: Held,
    /// Tells multishot receives how long name and control messages can be; names no memory.
    pub(crate) heading: Box<libc::msghdr>,
    pub(crate) owner: Owner,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    /// What the kernel had dropped of sockets that are gone.
    drops_of_removed: u64,
    pub(crate) sockets: Vec<Option<Socket>>,
    generation: u32,
    pub(crate) free_numbers: Vec<u16>,
    /// Numbers of sockets removed since the last flush.
    pub(crate) retired_numbers: Vec<u16>,
    pub(crate) gather: Gather,
    pub(crate) sources: Sources,
    /// Buffers of released trains, until the flush; true for those of the interface.
    pub(crate) released: Vec<(bool, BufferId)>,
    pub(crate) slab_used: usize,
    /// How long waits let trains gather.
    pub(crate) pace: Pace,
    pub(crate) fair: Fair,
    /// Whether there are others than who is flooded.
    pub(crate) company: Company,
    /// How many trains the flooded sockets have in a turn, all together.
    pub(crate) share: Share,
    /// Flooded sockets: those in the busy lane.
    pub(crate) flooded: Vec<u16>,
    /// A socket with more trains in a turn than this is flooded.
    pub(crate) greedy: u16,
    /// Waits in a row that found nothing left of a flood.
    pub(crate) calm: u16,
    /// Counts the waits.
    pub(crate) turn: u64,
    /// Completions read while something else was waited for.
    pub(crate) stash: VecDeque<Completion>,
    /// Receivers to be started.
    pub(crate) idle: Vec<Receiver>,
    /// Flooded sockets to be started, who waits longest first.
    pub(crate) waiting: VecDeque<u16>,
    /// Those among them that were started and got nothing, as another took all: they come before the others.
    pub(crate) left_out: VecDeque<u16>,
    /// How many of those were started since the kernel was entered.
    pub(crate) started: u16,
    /// Spare memory of `idle`, empty between calls.
    pub(crate) starved_receivers: Vec<Receiver>,
    /// Receives to be ended, so that they start again in another lane.
    pub(crate) cancel_later: Vec<(u16, u32)>,
    /// Receivers that failed too often, and until when they are left alone.
    pub(crate) quiet: Vec<Receiver>,
    pub(crate) quiet_until: Option<Instant>,
    pub(crate) waker: Waker,
    pub(crate) waker_armed: bool,
    pub(crate) woken: bool,
    /// Sockets that found no receive buffer in this turn.
    pub(crate) starving: u32,
    /// A failure met where it could not be told; the next flush tells it.
    pub(crate) deferred_error: Option<io::Error>,
}

/// What the engine knows of one of its sockets.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) udp: socket::Socket,
    /// Tells the receive at hand from those of the number's earlier owners.
    pub(crate) generation: u32,
    /// Failures of the receive without a success in between.
    pub(crate) failures: u8,
    /// Whether its receive is in flight.
    pub(crate) armed: bool,
    /// Where its receive takes its buffers from.
    pub(crate) lane: Lane,
    /// The last turn in which it had trains, and how many.
    pub(crate) taken: (u64, u16),
    /// Times in a row that it found the ring of the busy lane emptied by others.
    pub(crate) modest: u16,
    /// Whether its receive had a train since it was started.
    pub(crate) fed: bool,
}

impl Engine {
    /// Makes a ring for the calling thread.
    ///
    /// # Errors
    /// Says why this machine gives none; a caller prints it and goes on with another engine.
    pub fn new(config: Config) -> Result<Self, SetupError> {
        let ring = Ring::new(&config)?;
        let area = |bytes| Area::new(bytes).map_err(SetupError::Memory);
        let memories = Memories {
            outside: Pool::new(config.buffers_first, config.buffers_max, config.without).map_err(SetupError::Memory)?,
            inside: None,
            slab: area(SLAB_BYTES)?,
        };
        Self::register_outside(&ring, &memories.outside)
            .map_err(|error| SetupError::from_setup("provided-buffer rings", error))?;
        let waker = Waker::new().map_err(|error| SetupError::from_setup("making an eventfd", error))?;
        ring.set_file(ring.file_of_waker().0, Some(waker.descriptor()))
            .map_err(|error| SetupError::from_setup("registering a file", error))?;
        let heading = Box::new(libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: NAME_BYTES as libc::socklen_t,
            msg_iov: std::ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: std::ptr::null_mut(),
            msg_controllen: CONTROL_BYTES,
            msg_flags: 0,
        });
        // What a turn may need has its room from the start: what grows under load asks the system for memory under load.
        let batch_max = config.batch_max.min(2 * usize::from(config.buffers_max));
        Ok(Self {
            ring,
            memories,
            sends: Sends::new(),
            held: Held::new(),
            heading,
            owner: Owner::new(),
            config,
            counters: Counters::default(),
            drops_of_removed: 0,
            sockets: Vec::new(),
            generation: 0,
            free_numbers: Vec::new(),
            retired_numbers: Vec::new(),
            gather: Gather::new().going_without(config.without),
            sources: Sources::new(),
            released: Vec::with_capacity(batch_max),
            slab_used: 0,
            pace: Pace::new(),
            fair: Fair::new(batch_max),
            company: Company::default(),
            share: Share::new(),
            flooded: Vec::with_capacity(64),
            greedy: u16::MAX,
            calm: 0,
            turn: 0,
            // Each that waits there ended a receive or has a buffer: there are not as many.
            stash: VecDeque::with_capacity(COMPLETIONS as usize),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            left_out: VecDeque::new(),
            started: 0,
            starved_receivers: Vec::new(),
            cancel_later: Vec::with_capacity(64),
            quiet: Vec::new(),
            quiet_until: None,
            waker,
            waker_armed: false,
            woken: false,
            starving: 0,
            deferred_error: None,
        })
    }

    /// What the kernel granted.
    pub fn features(&self) -> &Features {
        self.ring.features()
    }

    /// Adds a bound UDP socket and starts to receive on it at the next wait. With `local_address` it also learns which address
    /// was asked; that is for sockets bound to a wildcard on a host with several addresses.
    ///
    /// # Errors
    /// When there is no number left, or the socket takes not even the plainest options.
    pub fn add_socket(&mut self, socket: UdpSocket, local_address: bool) -> io::Result<SocketId> {
        let id = self.add(socket, local_address, true)?;
        self.idle.push(Receiver::Socket(id.0));
        Ok(id)
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
        socket.udp.socket.try_clone()
    }

    fn add(&mut self, socket: UdpSocket, local_address: bool, receives: bool) -> io::Result<SocketId> {
        let fresh = self.free_numbers.is_empty();
        let number = match self.free_numbers.last() {
            Some(&number) => number,
            None if self.sockets.len() < usize::from(self.ring.features().sockets_max) => self.sockets.len() as u16,
            None => {
                let text = format!("no more than {} sockets (limit of open files)", self.ring.features().sockets_max);
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
            }
        };
        self.generation = self.generation.wrapping_add(1);
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
        let udp = socket::Socket::prepare(socket, &options)?;
        self.ring.set_file(u32::from(number), Some(udp.socket.as_fd()))?;
        let socket = Socket {
            udp,
            generation: self.generation,
            failures: 0,
            armed: false,
            lane: Lane::Quiet,
            taken: (0, 0),
            modest: 0,
            fed: false,
        };
        if fresh {
            self.sockets.push(Some(socket));
        } else {
            self.free_numbers.pop();
            self.sockets[usize::from(number)] = Some(socket);
        }
        Ok(SocketId(number))
    }

    /// The buffer sizes that a socket got; `None` for a number that is not in use.
    pub fn socket_buffers(&self, socket: SocketId) -> Option<SocketBuffers> {
        Some(self.socket(socket.0)?.udp.buffers)
    }

    /// Whether any socket sends several datagrams at once (`UDP_SEGMENT`), and whether any receives several at once (`UDP_GRO`).
    pub fn offloads(&self) -> (bool, bool) {
        let sockets = || self.sockets.iter().flatten();
        (sockets().any(|socket| socket.udp.segments_max > 1), sockets().any(|socket| socket.udp.joins))
    }

    /// Sends what is queued, stops receiving on a socket and closes it; its port is free when this returns. Its number is given to no
    /// other socket before the next flush.
    ///
    /// # Errors
    /// `NotFound` for a number that is not in use; else when the kernel takes no submissions.
    pub fn remove_socket(&mut self, socket: SocketId) -> io::Result<()> {
        let number = socket.0;
        if self.socket(number).is_none() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such socket"));
        }
        self.submit_queued()?;
        self.counters.drops_send_full += self.held.drop_waiting(number);
        let busy =
            |engine: &Self| engine.socket(number).is_some_and(|socket| socket.armed) || engine.held.in_flight(number);
        if busy(self) {
            self.post_pointless(Op::Cancel, Pointless::CancelFile(Ring::file_of_socket(number)))?;
            for _ in 0..CLOSE_ATTEMPTS {
                if !busy(self) {
                    break;
                }
                self.collect_for_a_while()?;
            }
        }
        self.ring.set_file(u32::from(number), None)?;
        let removed = self.sockets[usize::from(number)].take();
        if let Some(socket) = removed {
            self.drops_of_removed += u64::from(socket.udp.receive_drops());
            self.waiting.retain(|waiting| *waiting != number);
            self.left_out.retain(|waiting| *waiting != number);
            self.forget_flood(number);
        }
        self.retired_numbers.push(number);
        Ok(())
    }

    /// Adds the virtual interface, a TUN device in non-blocking mode without packet information, and starts to read from it at the
    /// next wait.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one; else what the kernel says to its registration.
    pub fn add_inside(&mut self, device: OwnedFd) -> io::Result<()> {
        self.add_device(device)?;
        self.idle.push(Receiver::Inside);
        Ok(())
    }

    /// Adds the virtual interface as [`Engine::add_inside`] does, but only to write to: another engine reads from it.
    ///
    /// # Errors
    /// As [`Engine::add_inside`].
    pub fn add_inside_writer(&mut self, device: OwnedFd) -> io::Result<()> {
        self.add_device(device)
    }

    fn add_device(&mut self, device: OwnedFd) -> io::Result<()> {
        if self.memories.inside.is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the engine has an interface"));
        }
        let pool = Pool::new(self.config.buffers_first, self.config.buffers_max, self.config.without)?;
        self.register_inside(&device, &pool)?;
        let multishot = self.ring.features().multishot_read;
        self.memories.inside = Some(Inside { _device: device, pool, multishot, armed: false, failures: 0 });
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
        let bytes = match train.origin() {
            Origin::Outside(_) => self.memories.outside.bytes_mut(train.buffer(), range),
            Origin::Inside => {
                let inside = self.memories.inside.as_mut().expect("a train from the interface has an interface");
                inside.pool.bytes_mut(train.buffer(), range)
            }
        };
        (bytes, Scratch { memory: self.memories.slab.bytes_mut(0..SLAB_BYTES), used: self.slab_used })
    }

    /// The slab alone, with at least 128 KiB free behind what is used.
    pub fn slab(&mut self) -> Scratch<'_> {
        self.make_slab_room();
        Scratch { memory: self.memories.slab.bytes_mut(0..SLAB_BYTES), used: self.slab_used }
    }

    /// Keeps the slab taken up to `used` until the next flush.
    ///
    /// # Panics
    /// When `used` lies beyond the slab.
    pub fn keep_slab(&mut self, used: usize) {
        assert!(used <= SLAB_BYTES, "more of the slab kept than there is");
        self.slab_used = self.slab_used.max(used);
    }

    /// What was counted since the engine was made.
    pub fn counters(&self) -> Counters {
        let drops = |socket: &Socket| u64::from(socket.udp.receive_drops());
        let drops_receive_full = self.drops_of_removed + self.sockets.iter().flatten().map(drops).sum::<u64>();
        Counters { enters: self.ring.enters(), drops_receive_full, ..self.counters }
    }

    /// Receive buffers of the sockets there are at present, wherever they are.
    pub fn receive_buffers(&self) -> u16 {
        self.memories.outside.buffers()
    }

    pub(crate) fn socket(&self, number: u16) -> Option<&Socket> {
        self.sockets.get(usize::from(number))?.as_ref()
    }

    /// Submits what is queued and keeps what completes within a short time.
    fn collect_for_a_while(&mut self) -> io::Result<()> {
        let collect = if self.ring.has_completions() { Collect::Due } else { Collect::Wait(Some(CLOSE_PAUSE)) };
        match self.enter(collect) {
            Ok(()) => {}
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        self.stash_completions();
        Ok(())
    }

    /// Whether an operation is in flight that may touch memory or keep a file open.
    fn busy(&self) -> bool {
        self.waker_armed
            || self.held.in_flight_total() > 0
            || self.memories.inside.as_ref().is_some_and(|inside| inside.armed)
            || self.sockets.iter().flatten().any(|socket| socket.armed)
    }

    /// Ends all operations and takes everything out of the ring.
    fn close(&mut self) -> io::Result<()> {
        // Entries that are queued still name memory: they are consumed first, and then nothing is started any more.
        self.submit_all(Collect::No)?;
        if self.busy() {
            self.post_pointless(Op::Cancel, Pointless::CancelAll)?;
            for _ in 0..CLOSE_ATTEMPTS {
                if !self.busy() {
                    break;
                }
                self.collect_for_a_while()?;
            }
        }
        if self.busy() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "operations that do not end"));
        }
        self.ring.unregister_pool(GROUP_OUTSIDE)?;
        self.ring.unregister_pool(GROUP_BUSY)?;
        if self.memories.inside.is_some() {
            self.ring.unregister_pool(GROUP_INSIDE)?;
        }
        self.ring.unregister_files()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.close().is_err() {
            // The kernel may still write to the buffers: better to lose their memory than to see them used by another.
            self.memories.leak();
            self.held.leak();
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
