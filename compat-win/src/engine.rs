//! The engine: sockets, the virtual interface, the pool and the queue, driven by blocking calls.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{self, Context, Poll};
use std::time::Duration;

use quinn_udp::RecvMeta;
use tokio::runtime::Runtime;

use crate::outgoing::{Outgoing, RUN_BYTES_MAX, Run};
use crate::ready::{Ready, Source, Waker};
use crate::slots::{Memory, Origin, Scratch, Slots, Train};
use crate::socket::{self, RECEIVE_BATCH, Sent, Socket};
use crate::{Counters, Endpoint, Inside};

/// Place of the virtual interface in the ready list; socket numbers end at 65,535.
const INSIDE: u32 = 1 << 16;

/// Trains that one socket may add to a batch before the next socket's turn.
const TRAINS_PER_SOCKET: usize = 32;

/// Packets that the virtual interface may add to a batch before the next source's turn.
const PACKETS_PER_TURN: usize = 64;

/// Buffers of the first receive call on a socket: most sockets have one train waiting, and preparing buffers costs.
const FIRST_BUFFERS: usize = 4;

/// Turns in a row that may be served from the ready list alone before the system is asked who else is ready.
const TURNS_WITHOUT_DRIVER: usize = 8;

/// Runs that may wait for a full send buffer; each holds a slot.
const HELD_MAX: usize = 32;

/// Limits of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most trains that one wait hands out, at least 1.
    pub trains_max: usize,
    /// Most receive slots of 64 KiB each; they are made when first needed. At least twice `trains_max`.
    pub slots_max: usize,
    /// Whether to use segmentation and receive offloads where the system has them.
    pub offload: bool,
}

impl Default for Config {
    /// 64 trains a turn and at most 16 MiB of slots, with offloads.
    fn default() -> Self {
        Self { trains_max: 64, slots_max: 256, offload: true }
    }
}

/// The portable engine. See the crate's documentation for how it is driven.
#[derive(Debug)]
pub struct Engine {
    // Before the runtime: the sockets deregister from its driver when they are dropped.
    core: Core,
    runtime: Runtime,
}

impl Engine {
    /// Makes an engine without sockets.
    ///
    /// # Errors
    /// What the system says when it refuses what a tokio runtime needs (file descriptors).
    pub fn new(config: Config) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self { core: Core::new(config), runtime })
    }

    /// Adds a bound socket and starts to receive on it; its number. With `local_address` trains tell which local address was
    /// asked, and answers leave from there.
    ///
    /// # Errors
    /// `QuotaExceeded` at 65,536 sockets; else what the system said.
    pub fn add_socket(&mut self, socket: UdpSocket, local_address: bool) -> io::Result<u16> {
        let _within = self.runtime.enter();
        self.core.add_socket(socket, local_address)
    }

    /// Closes a socket. What is queued for it is dropped and counted; its number is given away again after the next flush.
    ///
    /// # Errors
    /// `NotFound` if there is no such socket.
    pub fn remove_socket(&mut self, socket: u16) -> io::Result<()> {
        self.core.remove_socket(socket)
    }

    /// Adds the virtual interface and starts to read from it.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one; else what the system said.
    pub fn add_inside(&mut self, device: Inside) -> io::Result<()> {
        let _within = self.runtime.enter();
        self.core.add_inside(device)
    }

    /// A handle to end a [`Engine::wait`] from another thread.
    pub fn waker(&self) -> Waker {
        Waker::new(&self.core.ready)
    }

    /// Sends what is queued, as [`flush`](Engine::flush) does, and waits for trains, at most `timeout` (`None`: without end; rounded up to milliseconds), and appends them to `batch`.
    ///
    /// # Errors
    /// The virtual interface is gone. It is reported once, and the sockets go on.
    pub fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Train>) -> io::Result<()> {
        self.flush();
        let core = &mut self.core;
        let driver_first = core.turns_without_driver >= TURNS_WITHOUT_DRIVER || timeout == Some(Duration::ZERO);
        if !driver_first && core.ready.len() > 0 {
            core.turns_without_driver += 1;
            if core.collect(batch)? {
                return Ok(());
            }
        }
        core.turns_without_driver = 0;
        self.runtime.block_on(tokio::task::coop::unconstrained(turn(core, timeout, batch)))
    }

    /// The bytes of a train, and scratch memory with at least `room_bytes` free.
    pub fn split<'a>(&'a mut self, train: &'a mut Train, room_bytes: usize) -> (&'a mut [u8], Scratch<'a>) {
        self.core.slots.split(train, room_bytes)
    }

    /// Scratch memory alone, with at least `room_bytes` free.
    pub fn scratch(&mut self, room_bytes: usize) -> Scratch<'_> {
        self.core.slots.scratch(room_bytes)
    }

    /// Keeps the scratch memory taken up to `used` until the next flush.
    pub fn keep_scratch(&mut self, used: usize) {
        self.core.slots.keep(used);
    }

    /// Queues a range of a train to be sent as it is, cut every `segment_bytes`. An empty range is one empty datagram.
    pub fn forward(&mut self, train: &Train, bytes: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        debug_assert!(bytes.end <= train.bytes(), "a range beyond the end of its train");
        self.core.outgoing.push(Memory::Slot(train.slot()), bytes, segment_bytes, to, tos);
    }

    /// Queues a range of the scratch memory to be sent, cut every `segment_bytes`.
    pub fn send(&mut self, scratch: Range<usize>, segment_bytes: usize, to: &Endpoint, tos: u8) {
        self.core.outgoing.push(Memory::Scratch, scratch, segment_bytes, to, tos);
    }

    /// Queues a range of a train as one packet for the virtual interface.
    pub fn deliver(&mut self, train: &Train, bytes: Range<usize>) {
        debug_assert!(bytes.end <= train.bytes(), "a range beyond the end of its train");
        self.core.deliveries.push((Memory::Slot(train.slot()), bytes));
    }

    /// Would go on with the packet of the [`deliver`](Engine::deliver) before. The interfaces here take packets in one piece only: they
    /// have no offloads, so that nobody gathers for them.
    pub fn deliver_more(&mut self, _train: &Train, _bytes: Range<usize>) {
        debug_assert!(false, "an interface without offloads takes packets in one piece");
    }

    /// Queues a range of the scratch memory as one packet for the virtual interface.
    pub fn deliver_scratch(&mut self, scratch: Range<usize>) {
        self.core.deliveries.push((Memory::Scratch, scratch));
    }

    /// Gives a train back. Its bytes stay untouched until the next flush has read them.
    pub fn release(&mut self, train: Train) {
        self.core.slots.release(train);
    }

    /// Sends and delivers all that is queued, without waiting, and frees what was released.
    ///
    /// What the kernel refuses is counted. What a full send buffer does not take is held back for as long as there is room to
    /// hold it, and sent first when the buffer takes more.
    pub fn flush(&mut self) {
        self.core.flush();
    }

    /// Whether any socket sends several datagrams at once (`UDP_SEGMENT`, on Windows USO), and whether any receives several at
    /// once (`UDP_GRO`, on Windows URO).
    pub fn offloads(&self) -> (bool, bool) {
        let sockets = || self.core.sockets.iter().flatten();
        (sockets().any(Socket::sends_trains), sockets().any(Socket::receives_trains))
    }

    /// What was counted since the engine was made.
    pub fn counters(&self) -> Counters {
        self.core.counters
    }
}

/// Asks the driver, then waits for an event or until the time is up.
async fn turn(core: &mut Core, timeout: Option<Duration>, batch: &mut Vec<Train>) -> io::Result<()> {
    let mut timer = pin!(timeout.filter(|timeout| !timeout.is_zero()).map(tokio::time::sleep));
    let mut asked = core.ready.len() == 0 && timeout != Some(Duration::ZERO);
    poll_fn(move |context| {
        if !asked {
            // Back at once, after one look at the system that does not wait.
            asked = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Poll::Ready(result) = core.poll(context, batch) {
            return Poll::Ready(result);
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(context).map(Ok),
            None if timeout.is_some() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}

/// What waits for a full send buffer.
#[derive(Debug)]
struct Held {
    to: Endpoint,
    slot: u32,
    bytes: Range<usize>,
    segment_bytes: usize,
    tos: u8,
}

#[derive(Debug)]
struct InsideState {
    device: Inside,
    source: Arc<Source>,
    waker: task::Waker,
}

/// The engine without its runtime.
#[derive(Debug)]
struct Core {
    config: Config,
    ready: Arc<Ready>,
    turns_without_driver: usize,
    sockets: Vec<Option<Socket>>,
    /// Numbers to be given away again, and those that first have to outlive a flush.
    numbers_free: Vec<u16>,
    numbers_removed: Vec<u16>,
    inside: Option<InsideState>,
    slots: Slots,
    outgoing: Outgoing,
    deliveries: Vec<(Memory, Range<usize>)>,
    held: VecDeque<Held>,
    gather: Vec<u8>,
    metas: [RecvMeta; RECEIVE_BATCH],
    counters: Counters,
}

impl Core {
    fn new(config: Config) -> Self {
        let trains_max = config.trains_max.max(1);
        let config = Config { trains_max, slots_max: config.slots_max.max(2 * trains_max), ..config };
        let ready = Arc::new(Ready::default());
        ready.reserve(2);
        Self {
            config,
            ready,
            turns_without_driver: 0,
            sockets: Vec::new(),
            numbers_free: Vec::new(),
            numbers_removed: Vec::new(),
            inside: None,
            slots: Slots::new(config.slots_max),
            outgoing: Outgoing::default(),
            deliveries: Vec::new(),
            held: VecDeque::with_capacity(HELD_MAX),
            gather: Vec::with_capacity(RUN_BYTES_MAX),
            metas: [RecvMeta::default(); RECEIVE_BATCH],
            counters: Counters::default(),
        }
    }

    fn add_socket(&mut self, socket: UdpSocket, local_address: bool) -> io::Result<u16> {
        let index = match self.numbers_free.last() {
            Some(&index) => index,
            None => u16::try_from(self.sockets.len()).map_err(|_| io::ErrorKind::QuotaExceeded)?,
        };
        let socket = Socket::new(socket, index, local_address, self.config.offload, &self.ready)?;
        match self.sockets.get_mut(usize::from(index)) {
            Some(place) => {
                self.numbers_free.pop();
                *place = Some(socket);
            }
            None => self.sockets.push(Some(socket)),
        }
        // A socket and the one that had its number before can both stand on the list, and so can the interface.
        self.ready.reserve(2 * self.sockets.len() + 2);
        Ok(index)
    }

    fn remove_socket(&mut self, index: u16) -> io::Result<()> {
        let place = self.sockets.get_mut(usize::from(index)).ok_or(io::ErrorKind::NotFound)?;
        place.take().ok_or(io::ErrorKind::NotFound)?;
        self.numbers_removed.push(index);
        let (slots, counters) = (&mut self.slots, &mut self.counters);
        self.held.retain(|held| {
            let stays = held.to.socket != index;
            if !stays {
                counters.drops_send_failed += held.bytes.len().div_ceil(held.segment_bytes).max(1) as u64;
                slots.put_back(held.slot);
            }
            stays
        });
        Ok(())
    }

    fn add_inside(&mut self, mut device: Inside) -> io::Result<()> {
        if self.inside.is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the engine has a virtual interface already"));
        }
        device.register()?;
        let source = Source::new(INSIDE, &self.ready);
        let waker = task::Waker::from(Arc::clone(&source));
        source.push();
        self.inside = Some(InsideState { device, source, waker });
        Ok(())
    }

    /// One look at the ready list, within the runtime.
    fn poll(&mut self, context: &mut Context<'_>, batch: &mut Vec<Train>) -> Poll<io::Result<()>> {
        loop {
            match self.collect(batch) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.ready.park(context.waker(), self.slots.available() == 0) {
                return Poll::Pending;
            }
        }
    }

    /// Reads what is ready, each source once and in turn. Whether the wait is over.
    fn collect(&mut self, batch: &mut Vec<Train>) -> io::Result<bool> {
        let before = batch.len();
        let batch_max = before + self.config.trains_max;
        let woken = self.ready.take_woken();
        for _ in 0..self.ready.len() {
            if batch.len() >= batch_max {
                break;
            }
            if self.slots.available() == 0 {
                self.counters.starved += 1;
                break;
            }
            match self.ready.pop() {
                None => break,
                Some(INSIDE) => self.read_inside(batch, batch_max)?,
                Some(index) => self.serve_socket(index as usize, batch, batch_max),
            }
        }
        Ok(woken || batch.len() > before)
    }

    fn serve_socket(&mut self, index: usize, batch: &mut Vec<Train>, batch_max: usize) {
        // The number of a removed socket may still stand on the list.
        let Some(socket) = self.sockets.get(index).and_then(Option::as_ref) else { return };
        socket.taken();
        if socket.held > 0 {
            self.send_held();
        }
        let Some(socket) = self.sockets[index].as_ref() else { return };
        let number = u16::try_from(index).expect("there are at most 65,536 sockets");
        let mut quota = TRAINS_PER_SOCKET;
        let mut wanted = FIRST_BUFFERS;
        let mut errors = 0;
        loop {
            let buffers =
                wanted.min(quota).min(batch_max - batch.len()).min(self.slots.available()).min(socket.receive_batch());
            if buffers == 0 {
                // Others first; what is left keeps its place behind them.
                return socket.push();
            }
            let received = receive(socket, &mut self.slots, buffers, &mut self.metas, |slot, meta| {
                let origin = Origin::Outside(socket.endpoint(number, meta));
                let tos = meta.ecn.map_or(0, |ecn| ecn as u8);
                let train = Slots::train(slot, meta.len, meta.stride, origin, tos);
                self.counters.trains_in += 1;
                self.counters.datagrams_in += train.bytes().div_ceil(train.segment_bytes()).max(1) as u64;
                self.counters.bytes_in += train.bytes() as u64;
                batch.push(train);
            });
            match received {
                // One buffer that was filled says nothing of a second train.
                Ok(count) if count < buffers => return socket.wait_readable(),
                Ok(count) => {
                    quota -= count;
                    wanted = RECEIVE_BATCH;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return socket.wait_readable(),
                Err(error) if socket::is_earlier_datagram(&error) && errors < TRAINS_PER_SOCKET => errors += 1,
                Err(error) => {
                    tracing::debug!(socket = number, %error, "receive failed");
                    return socket.wait_readable();
                }
            }
        }
    }

    fn read_inside(&mut self, batch: &mut Vec<Train>, batch_max: usize) -> io::Result<()> {
        let Some(InsideState { device, source, waker }) = &mut self.inside else { return Ok(()) };
        source.taken();
        for _ in 0..PACKETS_PER_TURN {
            if batch.len() >= batch_max {
                break;
            }
            let Some(slot) = self.slots.take() else { break };
            match device.read(self.slots.slot_mut(slot), waker) {
                Ok(bytes) => {
                    self.counters.inside_in += 1;
                    batch.push(Slots::train(slot, bytes, bytes, Origin::Inside, 0));
                }
                Err(error) => {
                    self.slots.put_back(slot);
                    if error.kind() == io::ErrorKind::WouldBlock {
                        return Ok(());
                    }
                    self.inside = None;
                    return Err(io::Error::new(error.kind(), format!("the virtual interface is gone: {error}")));
                }
            }
        }
        source.push();
        Ok(())
    }

    fn flush(&mut self) {
        if !self.held.is_empty() {
            self.send_held();
        }
        let outgoing = std::mem::take(&mut self.outgoing);
        for run in outgoing.runs() {
            self.send_run(&outgoing, run);
        }
        self.outgoing = outgoing;
        self.outgoing.clear();
        for (memory, range) in self.deliveries.drain(..) {
            let packet = self.slots.bytes(memory, range);
            match self.inside.as_mut().map(|inside| inside.device.write(packet)) {
                Some(Ok(())) => self.counters.inside_out += 1,
                Some(Err(error)) => {
                    tracing::trace!(%error, "packet refused by the virtual interface");
                    self.counters.drops_inside_full += 1;
                }
                None => self.counters.drops_inside_full += 1,
            }
        }
        self.slots.recycle();
        self.numbers_free.append(&mut self.numbers_removed);
    }

    fn send_run(&mut self, outgoing: &Outgoing, run: &Run) {
        let index = usize::from(run.to.socket);
        let Some(socket) = self.sockets.get_mut(index).and_then(Option::as_mut) else {
            self.counters.drops_send_failed += run.segments as u64;
            return;
        };
        // Apart they stay if each is sent alone anyway; what has to be held back takes one slot, not many.
        if run.is_contiguous() || (!socket.sends_trains() && socket.held == 0) {
            for (memory, range) in outgoing.pieces(run) {
                self.send_bytes(run, Bytes::Queued(memory, range));
            }
            return;
        }
        self.gather.clear();
        for (memory, range) in outgoing.pieces(run) {
            self.gather.extend_from_slice(self.slots.bytes(memory, range));
        }
        self.send_bytes(run, Bytes::Gathered);
    }

    /// Sends one contiguous part of a run, or holds it back.
    fn send_bytes(&mut self, run: &Run, bytes: Bytes) {
        let contents = bytes.resolve(&self.slots, &self.gather);
        let socket = self.sockets[usize::from(run.to.socket)].as_mut().expect("the caller looked the socket up");
        let mut settled_bytes = 0;
        // Nothing overtakes what is held back.
        if socket.held == 0 {
            let sent = socket.send(&run.to, contents, run.segment_bytes, run.tos);
            count(&mut self.counters, &sent);
            if !sent.full {
                return;
            }
            socket.wait_writable();
            settled_bytes = sent.settled_bytes;
        }
        let rest = contents.len() - settled_bytes;
        let room = self.held.len() < HELD_MAX && self.slots.available() > self.config.trains_max;
        let Some(slot) = room.then(|| self.slots.take()).flatten() else {
            self.counters.drops_send_full += rest.div_ceil(run.segment_bytes).max(1) as u64;
            return;
        };
        socket.held += 1;
        let mut memory = self.slots.lend(slot);
        memory[..rest].copy_from_slice(&bytes.resolve(&self.slots, &self.gather)[settled_bytes..]);
        self.slots.restore(slot, memory);
        let segment_bytes = run.segment_bytes;
        self.held.push_back(Held { to: run.to, slot, bytes: 0..rest, segment_bytes, tos: run.tos });
    }

    /// Tries to send what is held back, in order for each socket.
    fn send_held(&mut self) {
        for held in &self.held {
            if let Some(socket) = self.sockets[usize::from(held.to.socket)].as_mut() {
                socket.blocked = false;
            }
        }
        for _ in 0..self.held.len() {
            let Some(mut held) = self.held.pop_front() else { break };
            let socket = self.sockets[usize::from(held.to.socket)]
                .as_mut()
                .expect("what is held goes with its socket when that is removed");
            if !socket.blocked {
                let contents = self.slots.bytes(Memory::Slot(held.slot), held.bytes.clone());
                let sent = socket.send(&held.to, contents, held.segment_bytes, held.tos);
                count(&mut self.counters, &sent);
                if !sent.full {
                    socket.held -= 1;
                    self.slots.put_back(held.slot);
                    continue;
                }
                held.bytes.start += sent.settled_bytes;
                socket.blocked = true;
                socket.wait_writable();
            }
            self.held.push_back(held);
        }
    }
}

/// Where the contiguous bytes of a send lie.
#[derive(Debug)]
enum Bytes {
    Queued(Memory, Range<usize>),
    Gathered,
}

impl Bytes {
    fn resolve<'a>(&self, slots: &'a Slots, gather: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Queued(memory, range) => slots.bytes(*memory, range.clone()),
            Self::Gathered => gather,
        }
    }
}

fn count(counters: &mut Counters, sent: &Sent) {
    counters.sends += sent.sends;
    counters.datagrams_out += sent.datagrams;
    counters.bytes_out += sent.sent_bytes;
    counters.drops_send_failed += sent.failed;
}

/// One receive call into at most `buffers` slots. `each` is told the slots that were filled; the others go back.
fn receive(
    socket: &Socket,
    slots: &mut Slots,
    buffers: usize,
    metas: &mut [RecvMeta],
    mut each: impl FnMut(u32, &RecvMeta),
) -> io::Result<usize> {
    let mut numbers = [0; RECEIVE_BATCH];
    let mut memory: [Box<[u8]>; RECEIVE_BATCH] = std::array::from_fn(|_| Box::default());
    let mut lent = 0;
    while lent < buffers.min(RECEIVE_BATCH) {
        let Some(slot) = slots.take() else { break };
        numbers[lent] = slot;
        memory[lent] = slots.lend(slot);
        lent += 1;
    }
    let received = {
        let mut buffers = memory.each_mut().map(|memory| IoSliceMut::new(memory));
        socket.receive(&mut buffers[..lent], &mut metas[..lent])
    };
    let filled = received.as_ref().map_or(0, |filled| *filled);
    // Last first, so that the slot used last is the one taken next.
    for (index, memory) in memory.into_iter().enumerate().take(lent).rev() {
        slots.restore(numbers[index], memory);
        if index >= filled {
            slots.put_back(numbers[index]);
        }
    }
    for (slot, meta) in numbers.iter().zip(&*metas).take(filled) {
        each(*slot, meta);
    }
    received
}
