//! The program `gateway`: one virtual interface, one data thread, and the main thread that resolves names and tells events.

mod lines;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use mesh_core::gateway::{Event, Gateway, GatewayConfig, OuterSize, Sockets};
use mesh_core::seam::Moment;
use mesh_core::session::PublicKey;
use mesh_core::session::token::{NamespaceKeys, StretchedToken};

use self::lines::{introduce, other_key, refusal, tell};
use crate::cli::Failure;
use crate::config::GatewayOptions;
use crate::engine::portable::Portable;
#[cfg(target_os = "linux")]
use crate::engine::{mmsg::Mmsg, uring::Uring};
use crate::helpers::{Helpers, WAITING_MAX};
use crate::iface::{self, Interface, Outside, Route};
use crate::inside::{InsideConfig, InsideDevice};
use crate::log::{DroppedLines, LineBudget, LogGuard, announce, announce_warning};
use crate::mailbox::Mailbox;
use crate::ports::bind_outside;
use crate::pump::Flow;
use crate::resolve::resolve;
use crate::secret::SecretString;
use crate::select::{EngineKind, Make, Selection, select};
use crate::signals::{Signals, Stopping};
use crate::state::{GatewayIdentity, StateDirectory};
use crate::status::{CommonReport, CoreReport, GatewayReport, SCHEMA, StatusServer};
use crate::worker::{Plan, Worker};
use crate::{clock, hex, imp, limits, log};

/// How long the status waits for the data thread.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// A transfer is told to be silent after this time without an answer, as the state machine does.
const SILENCE: Duration = Duration::from_secs(5);

/// The virtual interface is called so, with a number.
const INTERFACE_PREFIX: &str = "mesh";

/// How long the interface of a killed predecessor may stay.
const TEARDOWN: Duration = Duration::from_secs(2);

/// Sockets of a gateway: one for each family.
const SOCKETS: u16 = 2;

/// Runs a gateway until it is told to stop.
pub fn run(options: GatewayOptions) -> Result<(), Failure> {
    let started = Instant::now();
    // Before the first thread, so that all of them hold the signals back.
    let signals = Signals::block()?;
    let privileges = limits::give_up_privileges(&options.common);
    let log = log::start(&options.common, &format!("gateway-{}", options.ip))?;
    privileges.unwrap_or_else(|error| announce_warning(format_args!("privileges are kept: {error:#}")));
    let stopping = signals.watch(log.closer())?;
    log::record(|| begin(options, started, stopping, &log))
}

fn begin(options: GatewayOptions, started: Instant, stopping: Stopping, log: &LogGuard) -> Result<(), Failure> {
    limits::make_room(SOCKETS, 0)?;
    let token = stretch(&options.common.token)?;
    let secret = options.secret.as_ref().map(stretch).transpose()?;
    let interfaces = list_without_overlap(options.ip, options.prefix)?;
    let outside = iface::choose(&interfaces, &options.iface, options.iface_given).map_err(|why| anyhow!(why))?;
    let sockets = bind_sockets(&outside)?;
    let state = StateDirectory::open(options.common.state.as_deref())?;
    let identity = state.gateway(options.trans.port, options.ip)?;
    let selection = select(options.common.engine)?;
    let join = |thread: thread::JoinHandle<StretchedToken>| {
        thread.join().map_err(|_| anyhow!("stretching the token failed: give the machine more memory"))
    };
    let token = join(token)?;
    let secret = secret.map(join).transpose()?;
    let keys = NamespaceKeys::derive(&token, options.trans.port, secret.as_ref());
    let fingerprint = hex::encode(&token.fingerprint());
    let log = log.dropped_lines();
    let start =
        Start { options, started, stopping, log, fingerprint, keys, outside, sockets, state, identity, selection };
    match start.selection.kind {
        #[cfg(target_os = "linux")]
        EngineKind::Uring => start.run::<Uring>(),
        #[cfg(target_os = "linux")]
        EngineKind::Mmsg => start.run::<Mmsg>(),
        EngineKind::Portable => start.run::<Portable>(),
    }
}

fn stretch(secret: &SecretString) -> io::Result<thread::JoinHandle<StretchedToken>> {
    let secret = secret.clone();
    thread::Builder::new().name("mesh-token".into()).spawn(move || StretchedToken::stretch(secret.expose().as_bytes()))
}

/// The machine's interfaces, none of them in the virtual network.
///
/// A predecessor that was killed leaves its interface for a moment, until the kernel has torn its ring down: that much time
/// is given to one that has our own address.
fn list_without_overlap(ip: Ipv4Addr, prefix: u8) -> anyhow::Result<Vec<Interface>> {
    let start = Instant::now();
    loop {
        let interfaces = iface::list().context("the network interfaces cannot be listed")?;
        let predecessor = iface::overlap(&interfaces, ip, prefix)
            .is_some_and(|(interface, network)| network.address == ip && interface.name.starts_with(INTERFACE_PREFIX));
        if !predecessor || start.elapsed() >= TEARDOWN {
            refuse_overlap(&interfaces, ip, prefix)?;
            return Ok(interfaces);
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}

fn refuse_overlap(interfaces: &[Interface], ip: Ipv4Addr, prefix: u8) -> anyhow::Result<()> {
    match iface::overlap(interfaces, ip, prefix) {
        None => Ok(()),
        Some((interface, network)) => Err(anyhow!(
            "the virtual network {ip}/{prefix} overlaps {network} of interface {}: choose another with -ip, as in -ip 10.77.0.1",
            interface.name
        )),
    }
}

/// Binds one socket for each family that the outside has.
fn bind_sockets(outside: &Outside) -> anyhow::Result<Vec<UdpSocket>> {
    let (name, addresses): (&str, Vec<IpAddr>) = match outside {
        Outside::Interface { name, ipv4, ipv6 } => {
            (name, ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6)).collect())
        }
        Outside::Routed => ("any", vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
    };
    let mut sockets = Vec::new();
    let mut refused = None;
    for address in addresses {
        match bind_outside(address) {
            Ok(socket) => sockets.push(socket),
            // A host may lack one of the families.
            Err(error) => {
                refused = Some(anyhow!("cannot send from {address} ({name}): {error}: choose another -iface"))
            }
        }
    }
    match refused {
        Some(refused) if sockets.is_empty() => Err(refused),
        _ => Ok(sockets),
    }
}

/// All that is there before the data thread.
struct Start {
    options: GatewayOptions,
    started: Instant,
    stopping: Stopping,
    log: DroppedLines,
    fingerprint: String,
    keys: NamespaceKeys,
    outside: Outside,
    sockets: Vec<UdpSocket>,
    state: StateDirectory,
    identity: GatewayIdentity,
    selection: Selection,
}

/// What the main thread waits for.
enum Wake {
    Stop,
    Ended(io::Result<()>),
    /// Something the state machine said, with the key of the transfer if it knows one.
    Event(Event, Option<PublicKey>),
    Resolved(io::Result<Vec<SocketAddr>>),
}

impl Start {
    fn run<E: Make>(self) -> Result<(), Failure> {
        let Self { options, started, stopping, log, fingerprint, keys, outside, sockets, state, identity, selection } =
            self;
        let outer_bytes = options.mtu.map_or(OuterSize::Assumed, OuterSize::Fixed);
        let device = InsideDevice::open(&InsideConfig {
            name_hint: None,
            ipv4: options.ip,
            prefix: options.prefix,
            ula: Some((keys.ula(options.ip), keys.ula_prefix().1)),
            mtu: u32::from(outer_bytes.inside_mtu()),
        })
        .map_err(|error| anyhow!(error))?;
        let interface = device.name.clone();
        let ula = device.ula;

        let (wakes, woken) = mpsc::channel();
        let stop = wakes.clone();
        // The main thread hears it unless it has ended already.
        stopping.by(move || _ = stop.send(Wake::Stop));

        let helpers = Helpers::start(2, WAITING_MAX)?;
        let processor = imp::processors().first().copied().filter(|_| E::PINNED);
        let bound: Vec<SocketAddr> = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        let pinned = match options.trans_key {
            Some(key) => Some(key),
            None => state.pinned_transfer(&options.trans)?,
        };
        let config = GatewayConfig {
            ip4: options.ip,
            prefix: options.prefix,
            static_key: identity.static_key.clone(),
            boot: rand::random(),
            keys,
            name: options.name.clone(),
            sockets: Sockets::default(),
            outer_bytes,
            pinned_transfer_key: pinned,
            seed: rand::random(),
        };
        let (events, ended) = (wakes.clone(), wakes.clone());
        let mut lines = LineBudget::default();
        let plan = Plan {
            index: 0,
            processor,
            make_engine: || E::make(SOCKETS),
            make_node: move |engine: &mut E| {
                let sockets = add_sockets(engine, sockets)?;
                engine.add_inside(device).context("the engine does not take the virtual interface")?;
                Ok(Gateway::new(GatewayConfig { sockets, ..config }, clock::now()))
            },
            observe: move |_: &mut E, gateway: &mut Gateway, now: Moment| {
                while let Some(event) = gateway.poll_event() {
                    let key = gateway.transfer_key();
                    // Sessions with peers come and go as strangers with a token please; the rest is bounded by the core.
                    match event {
                        Event::PeerUp { .. } | Event::PeerDown { .. } | Event::Impostor { .. } => {
                            lines.spend(now, || tell(&event))
                        }
                        // The main thread ends first, and there is nobody to tell then.
                        Event::ResolveTransfer
                        | Event::Registered { .. }
                        | Event::Refused { .. }
                        | Event::TransferSilent { .. }
                        | Event::TransferBack
                        | Event::StreamWanted(_)
                        | Event::OverTcp { .. }
                        | Event::TransferKeyChanged
                        | Event::VersionMismatch { .. } => _ = events.send(Wake::Event(event, key)),
                    }
                }
                Flow::Continue
            },
        };
        let worker = Worker::start(plan, helpers.clone(), move |result| _ = ended.send(Wake::Ended(result)))?;

        introduce(&options, &selection, &outside, &interface, ula, &fingerprint);
        let report = Report {
            fingerprint,
            key: hex::encode(identity.static_key.public()),
            selection,
            processor,
            mailbox: worker.mailbox.clone(),
            helpers,
            interface: interface.clone(),
            trans: options.trans.to_string(),
            outside: bound,
            routed: outside == Outside::Routed,
            started,
            log,
        };
        let status = serve_status(&format!("gateway-{interface}"), report);
        if let Some(remnant) = status.as_ref().and_then(StatusServer::remnant) {
            stopping.removes(remnant);
        }

        let life = Life {
            options: &options,
            state: &state,
            mailbox: &worker.mailbox,
            wakes,
            resolving: false,
            unresolved: false,
            cause_told: false,
            silence_due: None,
            routed: outside == Outside::Routed,
            told_route: None,
        };
        let outcome = life.keep(&woken);
        worker.mailbox.send(|_, gateway: &mut Gateway, now| {
            gateway.stop(now);
            Flow::Stop
        });
        worker.join();
        if let Some(status) = status {
            status.end();
        }
        outcome?;
        announce("stopped");
        Ok(())
    }
}

fn add_sockets<E: Make>(engine: &mut E, sockets: Vec<UdpSocket>) -> anyhow::Result<Sockets> {
    let mut ids = Sockets::default();
    for socket in sockets {
        let address = socket.local_addr()?;
        // Each socket has the one address it is bound to, or lets the routing table choose.
        let id = engine
            .add_socket(socket, false)
            .with_context(|| format!("the engine does not take the socket at {address}"))?;
        engine.note_buffers(id);
        match address {
            SocketAddr::V4(_) => ids.ipv4 = Some(id),
            SocketAddr::V6(_) => ids.ipv6 = Some(id),
        }
    }
    Ok(ids)
}

/// The main thread's life: until it is told to stop, or something it cannot do without is gone.
struct Life<'a, E: Make> {
    options: &'a GatewayOptions,
    state: &'a StateDirectory,
    mailbox: &'a Mailbox<E, Gateway>,
    wakes: mpsc::Sender<Wake>,
    /// Whether the resolver is at work.
    resolving: bool,
    /// Whether it was told that the name does not resolve.
    unresolved: bool,
    /// Whether it was told why the transfer is of no use: its silence has a cause then.
    cause_told: bool,
    /// When to tell of silence: it was noticed while there was no address to send to.
    silence_due: Option<Instant>,
    /// Whether the sockets are tied to no interface.
    routed: bool,
    /// The route that was told last.
    told_route: Option<Route>,
}

impl<E: Make> Life<'_, E> {
    fn keep(mut self, woken: &mpsc::Receiver<Wake>) -> anyhow::Result<()> {
        loop {
            match woken.recv().context("the data thread is gone: see the log")? {
                Wake::Stop => return Ok(()),
                Wake::Ended(result) => {
                    return Err(result.err().map_or_else(|| anyhow!("the data thread ended: see the log"), Into::into))
                        .context("the engine failed");
                }
                Wake::Resolved(result) => self.resolved(result),
                Wake::Event(event, key) => self.event(event, key)?,
            }
        }
    }

    /// Asks the resolver on a thread of its own: it may take its time, and there is one question at a time.
    fn resolve(&mut self) {
        if self.resolving {
            return;
        }
        let (target, wakes) = (self.options.trans.clone(), self.wakes.clone());
        let ask = move || _ = wakes.send(Wake::Resolved(resolve(&target)));
        match thread::Builder::new().name("mesh-resolve".into()).spawn(ask) {
            Ok(_) => self.resolving = true,
            Err(error) => self.resolved(Err(error)),
        }
    }

    fn resolved(&mut self, result: io::Result<Vec<SocketAddr>>) {
        self.resolving = false;
        match result {
            Ok(addresses) => {
                if std::mem::take(&mut self.unresolved) {
                    announce(format_args!("{} resolves now", self.options.trans.host));
                    self.silence_due = self.silence_due.map(|_| Instant::now() + SILENCE);
                }
                if self.routed {
                    self.tell_route(&addresses);
                }
                self.mailbox.send(move |_, gateway: &mut Gateway, now| {
                    gateway.set_transfer(now, &addresses);
                    Flow::Continue
                });
            }
            // The state machine asks again each second.
            Err(error) => {
                if !std::mem::replace(&mut self.unresolved, true) {
                    announce_warning(format_args!(
                        "{} does not resolve ({error}): check -trans and the name servers; it is tried again each second",
                        self.options.trans.host
                    ));
                }
            }
        }
    }

    /// Says by what datagrams leave when nobody chose: once, and when it changes.
    fn tell_route(&mut self, addresses: &[SocketAddr]) {
        let Some(route) = addresses.iter().find_map(|&address| iface::route_to(address)) else { return };
        if self.told_route.as_ref() == Some(&route) {
            return;
        }
        let via = match &route.interface {
            Some(interface) => format!("{interface} ({})", route.address),
            None => route.address.to_string(),
        };
        announce(format_args!(
            "note: there is no usable {}; sending by the route to the transfer: via {via}; choose another with -iface",
            self.options.iface
        ));
        self.told_route = Some(route);
    }

    fn event(&mut self, event: Event, key: Option<PublicKey>) -> anyhow::Result<()> {
        let trans = &self.options.trans;
        match event {
            // Asked each second while the transfer does not answer.
            Event::ResolveTransfer => {
                if !self.unresolved && self.silence_due.is_some_and(|due| Instant::now() >= due) {
                    self.tell_silence();
                }
                self.resolve();
            }
            Event::Registered { transfer, observed, first, .. } => {
                (self.cause_told, self.silence_due) = (false, None);
                let line = format!("registered with {trans} ({transfer}) as {}, seen at {observed}", self.options.ip);
                if first {
                    announce(line)
                } else {
                    tracing::info!("{line}")
                }
                if let (Some(key), None) = (key, self.options.trans_key)
                    && let Err(error) = self.state.pin_transfer(trans, &key)
                {
                    tracing::warn!(error = %format_args!("{error:#}"), "the transfer's key is not kept");
                }
            }
            Event::Refused { reason, ip4, first } => {
                let why = refusal(reason, ip4);
                if first {
                    return Err(anyhow!(why));
                }
                announce_warning(why);
            }
            // Nothing could be sent: the network outside is not to blame yet.
            Event::TransferSilent { tried } if tried.is_empty() => {
                if !std::mem::replace(&mut self.unresolved, true) {
                    announce_warning(format_args!(
                        "{} does not resolve yet: check -trans and the name servers; it is tried again each second",
                        trans.host
                    ));
                }
                self.silence_due = Some(Instant::now() + SILENCE);
            }
            Event::TransferSilent { .. } => self.tell_silence(),
            Event::TransferBack => {
                (self.cause_told, self.silence_due) = (false, None);
                announce(format_args!("{trans} answers"));
            }
            // There is no socket for it.
            Event::StreamWanted(_) | Event::OverTcp { .. } => {}
            Event::TransferKeyChanged => {
                self.cause_told = true;
                announce_warning(other_key(self.options, &self.state.pin_path(trans)));
            }
            Event::VersionMismatch { lowest, highest } => {
                self.cause_told = true;
                announce_warning(format_args!(
                    "{trans} speaks wire versions {lowest} to {highest} and this gateway does not: bring both to one release"
                ));
            }
            Event::PeerUp { .. } | Event::PeerDown { .. } | Event::Impostor { .. } => tell(&event),
        }
        Ok(())
    }

    /// Says that nothing comes back, unless it was told what is wrong.
    fn tell_silence(&mut self) {
        self.silence_due = None;
        if !self.cause_told {
            announce_warning(format_args!(
                "no answer from {}: wrong token, wrong port or UDP blocked; silence tells no more. It is tried again each second",
                self.options.trans
            ));
        }
    }
}

/// What the status thread needs to answer.
struct Report<E: Make> {
    fingerprint: String,
    key: String,
    selection: Selection,
    processor: Option<usize>,
    mailbox: Mailbox<E, Gateway>,
    helpers: Helpers,
    interface: String,
    trans: String,
    outside: Vec<SocketAddr>,
    /// Whether the sockets are tied to no interface.
    routed: bool,
    started: Instant,
    log: DroppedLines,
}

impl<E: Make> Report<E> {
    fn make(&self) -> anyhow::Result<GatewayReport> {
        let asked = self
            .mailbox
            .ask(|engine, gateway, now| (engine.name(), engine.offloads(), engine.counters(), gateway.status(now)));
        let (engine, offloads, counters, gateway) =
            asked.recv_timeout(STATUS_PATIENCE).context("the data thread does not answer")?;
        Ok(GatewayReport {
            common: CommonReport {
                schema: SCHEMA,
                program: "gateway",
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                engine,
                engine_reason: self.selection.reason.clone(),
                offloads,
                fingerprint: self.fingerprint.clone(),
                public_key: self.key.clone(),
                uptime_seconds: self.started.elapsed().as_secs(),
                jobs_refused: self.helpers.refused(),
                log_lines_dropped: self.log.count(),
                cores: vec![CoreReport { core: 0, processor: self.processor, counters }],
            },
            interface: self.interface.clone(),
            trans: self.trans.clone(),
            outside: self.outside.clone(),
            route: gateway.transfer.endpoint.filter(|_| self.routed).and_then(iface::route_to),
            gateway,
        })
    }
}

/// Serves the status; without it the gateway runs all the same.
fn serve_status<E: Make>(name: &str, report: Report<E>) -> Option<StatusServer> {
    let answer = move || {
        let report = report.make().and_then(|report| Ok(serde_json::to_string(&report)?));
        report.unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
    };
    let served = StatusServer::start(name, answer);
    served.inspect_err(|error| tracing::info!(%error, "the status verb will not find this program")).ok()
}
