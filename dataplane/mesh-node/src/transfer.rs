//! The program `transfer`: ports, data threads and what holds them together.
//!
//! 1. the token is stretched on a thread of its own while the ports are bound;
//! 2. one data thread for each core makes its engine and takes its share of the ports (port number modulo cores);
//! 3. the main thread waits: for the wish to stop, for a data thread that ended, for a busy port to become free.

mod report;

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use mesh_core::seam::{Moment, SocketId};
use mesh_core::session::token::{NamespaceKeys, StretchedToken};
use mesh_core::transfer::{Event, Transfer, TransferConfig};

use self::report::{Report, Shown, serve_status};
use crate::cli::Failure;
use crate::config::TransferOptions;
use crate::engine::portable::Portable;
#[cfg(target_os = "linux")]
use crate::engine::{mmsg::Mmsg, uring::Uring};
use crate::helpers::{Helpers, WAITING_MAX};
use crate::log::{DroppedLines, LineBudget, LogGuard, announce, announce_warning, console_only};
use crate::mailbox::Mailbox;
use crate::ports::{Busy, GIVE_UP_AFTER, WARN_AFTER};
use crate::pump::Flow;
use crate::resolve::{HostPort, resolve};
use crate::secret::SecretString;
use crate::select::{EngineKind, Make, Selection, select};
use crate::signals::{Signals, Stopping};
use crate::spread::{self, Neighbours, Spread};
use crate::state::{StateDirectory, TransferIdentity};
use crate::status::StatusServer;
use crate::stream::listen::{CONNECTIONS_MAX, Listening};
use crate::worker::{Plan, Worker};
use crate::{clock, hex, iface, imp, limits, log};

/// Runs a transfer until it is told to stop.
pub fn run(options: TransferOptions) -> Result<(), Failure> {
    let started = Instant::now();
    // Before the first thread, so that all of them hold the signals back.
    let signals = Signals::block()?;
    let privileges = limits::give_up_privileges(&options.common);
    let log = log::start(&options.common, &format!("transfer-{}", options.bind))?;
    privileges.unwrap_or_else(|error| announce_warning(format_args!("privileges are kept: {error:#}")));
    let stopping = signals.watch(log.closer())?;
    log::record(|| begin(options, started, stopping, &log))
}

fn begin(options: TransferOptions, started: Instant, stopping: Stopping, log: &LogGuard) -> Result<(), Failure> {
    // A port that is spread has a socket for each thread.
    let more_threads = imp::processors().len().saturating_sub(1);
    let spread =
        (options.bind..=options.bind + (options.nums - 1)).filter(|&port| options.spread.contains(port)).count();
    let connections = limits::make_room(options.nums, spread * more_threads, CONNECTIONS_MAX)?;
    let (token, made) = match options.common.token.is_empty() {
        true => (SecretString::random(), true),
        false => (options.common.token.clone(), false),
    };
    let stretching = {
        let token = token.clone();
        thread::Builder::new()
            .name("mesh-token".into())
            .spawn(move || StretchedToken::stretch(token.expose().as_bytes()))?
    };
    let mut busy = Busy::range(options.bind, options.nums);
    let bound = bind(&mut busy)?;
    let identity = StateDirectory::open(options.common.state.as_deref())?.transfer(options.bind)?;
    let selection = select(options.common.engine)?;
    let token = Token { text: token, made };
    let log = log.dropped_lines();
    let listening = listen(connections);
    let start =
        Start { options, started, stopping, log, token, stretching, busy, bound, listening, identity, selection };
    match start.selection.kind {
        #[cfg(target_os = "linux")]
        EngineKind::Uring => start.run::<Uring>(),
        #[cfg(target_os = "linux")]
        EngineKind::Mmsg => start.run::<Mmsg>(),
        EngineKind::Portable => start.run::<Portable>(),
    }
}

/// Starts the thread for TCP; without it the transfer runs all the same.
fn listen(connections: usize) -> Option<Listening> {
    let started = match connections {
        0 => Err(io::Error::other("the limit of open files leaves no room: raise it (ulimit -n)")),
        _ => Listening::start(connections),
    };
    let warn = |error: &io::Error| {
        announce_warning(format_args!("no TCP for gateways whose network lets no UDP pass: {error}"));
    };
    started.inspect_err(warn).ok()
}

fn bind(busy: &mut Busy) -> anyhow::Result<Vec<(u16, UdpSocket)>> {
    busy.bind().map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return anyhow!("{error}: choose a -bind above 1023, or run with CAP_NET_BIND_SERVICE");
        }
        anyhow!("{error}: free what is missing, or choose other ports with -bind and -nums")
    })
}

struct Token {
    text: SecretString,
    /// Made by this program: nobody knows it yet.
    made: bool,
}

/// All that is there before the data threads.
struct Start {
    options: TransferOptions,
    started: Instant,
    stopping: Stopping,
    log: DroppedLines,
    token: Token,
    stretching: thread::JoinHandle<StretchedToken>,
    busy: Busy,
    bound: Vec<(u16, UdpSocket)>,
    listening: Option<Listening>,
    identity: TransferIdentity,
    selection: Selection,
}

/// What the main thread waits for.
enum Wake {
    Stop,
    Ended(io::Result<()>),
}

impl Start {
    fn run<E: Make>(self) -> Result<(), Failure> {
        let Self { options, started, stopping, log, token, stretching, mut busy, bound, .. } = self;
        let Self { listening, identity, selection, .. } = self;
        let (wakes, woken) = mpsc::channel();
        let stop = wakes.clone();
        // The main thread hears it unless it has ended already.
        stopping.by(move || _ = stop.send(Wake::Stop));

        let processors = imp::processors();
        let helpers = Helpers::start(processors.len().div_ceil(2), WAITING_MAX)?;
        // More threads than ports have work only where a port is spread.
        let useful = if options.spread == Spread::None { usize::from(options.nums) } else { usize::MAX };
        let cores: Vec<usize> = processors.into_iter().take(useful).collect();
        let homes = Homes { first: options.bind, ports: options.nums, cores: cores.len() };
        let neighbours = Neighbours::new();
        let boot = rand::random();
        #[cfg(feature = "slow")]
        let slow = crate::slow::steps()?;
        #[cfg(all(feature = "ablation", target_os = "linux"))]
        crate::ablation::read()?;
        let mut workers = Vec::new();
        for (index, &processor) in cores.iter().enumerate() {
            let processor = E::PINNED.then_some(processor);
            let config = TransferConfig {
                static_key: identity.static_key.clone(),
                boot,
                ticket_key: *identity.ticket_key,
                seed: rand::random(),
            };
            let sockets = options.nums.div_ceil(u16::try_from(cores.len()).unwrap_or(u16::MAX));
            let sockets = if options.spread == Spread::None { sockets } else { options.nums };
            let mut lines = LineBudget::default();
            let neighbours = neighbours.clone();
            let plan = Plan {
                index,
                processor,
                make_engine: move || E::make(sockets),
                make_node: move |_: &mut E| {
                    let transfer = Transfer::new(config, clock::now());
                    #[cfg(feature = "slow")]
                    let transfer = transfer.slowed(slow);
                    Ok(transfer)
                },
                observe: move |_: &mut E, transfer: &mut Transfer, now: Moment| {
                    neighbours.carry(index, transfer, |port| homes.of(port));
                    while let Some(event) = transfer.poll_event() {
                        lines.spend(now, || tell(&event));
                    }
                    Flow::Continue
                },
            };
            let ended = wakes.clone();
            workers.push(Worker::start(plan, helpers.clone(), move |result| _ = ended.send(Wake::Ended(result)))?);
        }
        let stretched =
            stretching.join().map_err(|_| anyhow!("stretching the token failed: give the machine more memory"))?;
        let local_address = iface::has_several_addresses(&iface::list().unwrap_or_default());
        let mailboxes: Vec<_> = workers.iter().map(|worker| worker.mailbox.clone()).collect();
        neighbours.introduce(mailboxes.clone());
        let tcp = listening.as_ref().map(Listening::shown);
        let spread = options.spread.clone();
        let mut shares = Shares { mailboxes, stretched, homes, spread, local_address, bound: 0, listening };
        shares.hand_out(bound, &mut busy)?;

        let fingerprint = hex::encode(&shares.stretched.fingerprint());
        let key = hex::encode(identity.static_key.public());
        let shown = Arc::new(Shown { bound: AtomicUsize::new(shares.bound), busy: Mutex::new(busy.ranges()) });
        let greeting = {
            let (selection, fingerprint, key, cores) =
                (selection.clone(), fingerprint.clone(), key.clone(), cores.len());
            let options = &options;
            move |first_bound| introduce(options, first_bound, &selection, cores, &fingerprint, &key, &token)
        };
        let report = Report {
            fingerprint,
            key,
            selection,
            processors: cores.iter().map(|&processor| E::PINNED.then_some(processor)).collect(),
            mailboxes: shares.mailboxes.clone(),
            helpers,
            shown: Arc::clone(&shown),
            tcp,
            bind: options.bind,
            nums: options.nums,
            public: options.public.clone(),
            started,
            log,
        };
        let status = serve_status(&format!("transfer-{}", options.bind), report);
        if let Some(remnant) = status.as_ref().and_then(StatusServer::remnant) {
            stopping.removes(remnant);
        }

        let outcome = keep(&woken, &mut shares, &mut busy, started, &shown, greeting);
        if let Some(listening) = shares.listening {
            listening.end();
        }
        for worker in &workers {
            worker.mailbox.send(|_, transfer: &mut Transfer, now| {
                transfer.stop(now);
                Flow::Stop
            });
        }
        for worker in workers {
            worker.join();
        }
        if let Some(status) = status {
            status.end();
        }
        outcome?;
        announce("stopped");
        Ok(())
    }
}

/// The main thread's life: until it is told to stop, or something it cannot do without is gone.
fn keep<E: Make>(
    woken: &mpsc::Receiver<Wake>,
    shares: &mut Shares<E>,
    busy: &mut Busy,
    started: Instant,
    shown: &Shown,
    greet: impl FnOnce(u16),
) -> anyhow::Result<()> {
    let (mut warned, mut greet) = (false, Some(greet));
    loop {
        if shares.bound > 0
            && let Some(greet) = greet.take()
        {
            // A port is bound, so one of them is the first.
            let first = shares.homes.first;
            greet((first..=u16::MAX).find(|&port| !busy.contains(port)).unwrap_or(first));
        }
        let wake = match busy.retry_in(started.elapsed()) {
            Some(interval) => woken.recv_timeout(interval),
            None => woken.recv().map_err(|mpsc::RecvError| RecvTimeoutError::Disconnected),
        };
        match wake {
            Ok(Wake::Stop) => return Ok(()),
            Ok(Wake::Ended(result)) => {
                return Err(result.err().map_or_else(|| anyhow!("a data thread ended: see the log"), Into::into))
                    .context("the engine failed");
            }
            Err(RecvTimeoutError::Disconnected) => bail!("all data threads are gone: see the log"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let bound = bind(busy)?;
        let freed: Vec<u16> = bound.iter().map(|(port, _)| *port).collect();
        shares.hand_out(bound, busy)?;
        shown.bound.store(shares.bound, Ordering::Relaxed);
        *shown.busy.lock().unwrap_or_else(PoisonError::into_inner) = busy.ranges();
        if warned {
            for port in freed {
                tracing::info!(port, "a port that was busy is bound");
            }
        }
        if shares.bound == 0 && started.elapsed() >= GIVE_UP_AFTER {
            bail!(
                "no port is left: all of {} are in use: stop what holds them, or choose others with -bind",
                busy.ranges().join(", ")
            );
        }
        if !warned && !busy.is_empty() && shares.bound > 0 && started.elapsed() >= WARN_AFTER {
            warned = true;
            announce_warning(format_args!(
                "UDP ports in use by others are skipped and tried again each second: {}",
                busy.ranges().join(", ")
            ));
        }
    }
}

/// Which data thread is home to a port.
#[derive(Clone, Copy)]
struct Homes {
    first: u16,
    ports: u16,
    cores: usize,
}

impl Homes {
    fn of(self, port: u16) -> usize {
        usize::from(port.saturating_sub(self.first)) % self.cores
    }

    /// A port beside `port`, which its gateways may ask where they are seen. One that is busy gives no answer.
    fn beside(self, port: u16) -> Option<u16> {
        let place = port.saturating_sub(self.first);
        if place + 1 < self.ports { Some(port + 1) } else { (place > 0).then(|| port - 1) }
    }
}

/// Spreads the ports over the data threads.
struct Shares<E: Make> {
    mailboxes: Vec<Mailbox<E, Transfer>>,
    stretched: StretchedToken,
    homes: Homes,
    spread: Spread,
    local_address: bool,
    bound: usize,
    /// TCP on the same ports.
    listening: Option<Listening>,
}

impl<E: Make> Shares<E> {
    /// Hands each socket with its keys to its data thread. Those that an engine does not take go back to the busy ones.
    fn hand_out(&mut self, bound: Vec<(u16, UdpSocket)>, busy: &mut Busy) -> anyhow::Result<()> {
        let mut shares: BTreeMap<usize, Vec<(u16, UdpSocket, NamespaceKeys, bool)>> = BTreeMap::new();
        let mut mirrors: BTreeMap<u16, Vec<(usize, SocketId)>> = BTreeMap::new();
        let mut served: Vec<u16> = bound.iter().map(|(port, _)| *port).collect();
        for (port, socket) in bound {
            let keys = NamespaceKeys::derive(&self.stretched, port, None);
            let home = self.homes.of(port);
            let mut shared = false;
            if self.spread.contains(port) {
                let places = self.mirror(port, &socket, &keys, home)?;
                shared = !places.is_empty();
                mirrors.insert(port, places);
            }
            shares.entry(home).or_default().push((port, socket, keys, shared));
        }
        let (local_address, homes) = (self.local_address, self.homes);
        let asked: Vec<_> = shares
            .into_iter()
            .map(|(core, share)| {
                self.mailboxes[core].ask(move |engine, transfer, _| {
                    let mut failed = Vec::new();
                    for (port, socket, keys, shared) in share {
                        match engine.add_socket(socket, local_address) {
                            Ok(id) => {
                                engine.note_buffers(id);
                                transfer.add_namespace(id, port, keys);
                                transfer.set_other_port(id, homes.beside(port));
                                if shared {
                                    transfer.share_namespace(id);
                                }
                            }
                            Err(error) => failed.push((port, error)),
                        }
                    }
                    failed
                })
            })
            .collect();
        self.bound += served.len();
        for answer in asked {
            for (port, error) in answer.recv().context("a data thread ended while it took its ports: see the log")? {
                tracing::warn!(port, %error, "the engine does not take a port; it is tried again");
                // Its other sockets would keep the port from being bound again.
                for (core, socket) in mirrors.remove(&port).unwrap_or_default() {
                    let removed = self.mailboxes[core].ask(move |engine, transfer, _| {
                        transfer.remove_namespace(socket);
                        engine.remove_socket(socket)
                    });
                    removed.recv().context("a data thread ended while it gave a port back: see the log")??;
                }
                busy.put_back(port);
                served.retain(|served| *served != port);
                self.bound -= 1;
            }
        }
        if let Some(listening) = &self.listening {
            listening.open(served);
        }
        Ok(())
    }

    /// Gives every data thread but the home a socket on a port and a mirror of its namespace, before the home has its own: no change of
    /// the home's table is missed. Returns which threads have one, by which socket; if none has, the home serves the port alone.
    fn mirror(
        &self,
        port: u16,
        socket: &UdpSocket,
        keys: &NamespaceKeys,
        home: usize,
    ) -> anyhow::Result<Vec<(usize, SocketId)>> {
        let sockets = match spread::share(socket, self.mailboxes.len() - 1) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::warn!(port, %error, "a port is not spread");
                return Ok(Vec::new());
            }
        };
        let local_address = self.local_address;
        let others = self.mailboxes.iter().enumerate().filter(|&(core, _)| core != home);
        let asked: Vec<_> = others
            .zip(sockets)
            .map(|((core, mailbox), socket)| {
                let keys = keys.clone();
                let answer = mailbox.ask(move |engine, transfer, _| {
                    let id = engine.add_socket(socket, local_address)?;
                    transfer.add_mirror(id, port, keys);
                    io::Result::Ok(id)
                });
                (core, answer)
            })
            .collect();
        let mut places = Vec::new();
        for (core, answer) in asked {
            match answer.recv().context("a data thread ended while it took its ports: see the log")? {
                Ok(socket) => places.push((core, socket)),
                // A thread that did not take its socket has closed it: its senders go to the others.
                Err(error) => tracing::warn!(port, core, %error, "a data thread does not serve a port that is spread"),
            }
        }
        Ok(places)
    }
}

/// The first lines: what runs, how to compare tokens, how to join.
fn introduce(
    options: &TransferOptions,
    first_bound: u16,
    selection: &Selection,
    cores: usize,
    fingerprint: &str,
    key: &str,
    token: &Token,
) {
    let last = options.bind + (options.nums - 1);
    announce(format_args!(
        "transfer {}: UDP ports {}-{last}, one network each; engine {selection}, {cores} data threads",
        env!("CARGO_PKG_VERSION"),
        options.bind
    ));
    announce(format_args!("token fingerprint {fingerprint}, public key {key}"));
    if token.made {
        // Only here: never in a log.
        console_only(format_args!(
            "no token was given; this one is made at random and shown only here: {}",
            token.text.expose()
        ));
    } else if token.text.is_weak() {
        announce_warning(
            "the token is easy to guess: use 16 random characters or more, or leave -token away to have one made",
        );
    }
    let target = HostPort { host: options.public.clone(), port: first_bound };
    announce(format_args!("join with: gateway -ip 172.168.0.1 -trans {target} -token 'TOKEN'"));
    if !options.public_given {
        announce("note: -public is not given; put this host's public name or address in its place above");
        return;
    }
    // The resolver may take its time; nothing waits for it.
    let check = move || {
        let literal = target.to_string().parse::<HostPort>();
        if let Err(error) = literal.map_err(io::Error::other).and_then(|target| resolve(&target)) {
            announce_warning(format_args!(
                "-public {} does not resolve here ({error}): gateways may not find it",
                target.host
            ));
        }
    };
    if let Err(error) = thread::Builder::new().name("mesh-resolve".into()).spawn(check) {
        tracing::warn!(%error, "-public is not checked");
    }
}

/// One line for each event. Names come from strangers with a token: they are quoted.
fn tell(event: &Event) {
    match event {
        Event::Joined { namespace, ip4, name, endpoint, slot } => {
            tracing::info!(namespace, ip = %ip4, ?name, %endpoint, slot, "joined");
        }
        Event::Moved { namespace, ip4, endpoint } => tracing::info!(namespace, ip = %ip4, %endpoint, "moved"),
        Event::Left { namespace, ip4, name, reason } => {
            tracing::info!(namespace, ip = %ip4, ?name, reason = reason.name(), "left");
        }
        Event::Refused { namespace, ip4, name, endpoint, reason } => {
            tracing::info!(namespace, ip = %ip4, ?name, %endpoint, reason = reason.name(), "refused");
        }
    }
}
