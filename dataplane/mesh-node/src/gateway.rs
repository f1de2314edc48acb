//! The program `gateway`: one virtual interface, a data thread that receives and decides, where there are two processors another that
//! carries packets from the interface to the network, and the main thread that resolves names and tells events.

mod beacons;
mod life;
mod lines;
mod mapping;
mod partner;
mod report;
mod sockets;
mod tcp;

use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use mesh_core::gateway::{Event, Gateway, GatewayConfig, OuterSize, SEARCH_SOCKETS, SEARCH_SOCKETS_KEPT, Sockets};
use mesh_core::seam::Moment;
use mesh_core::session::token::{NamespaceKeys, StretchedToken};

use self::life::{Around, Life, Wake, Ways};
use self::lines::{introduce, tell};
use self::mapping::PortMapping;
use self::partner::Partner;
use self::report::{Report, serve_status};
use self::sockets::Outlet;
use self::tcp::Tcp;
use crate::beacons::SOCKETS_MAX;
use crate::ciphers::{CipherReport, CipherSpeed};
use crate::cli::Failure;
use crate::config::GatewayOptions;
use crate::engine::portable::Portable;
#[cfg(target_os = "linux")]
use crate::engine::{mmsg::Mmsg, uring::Uring};
use crate::helpers::{Helpers, WAITING_MAX};
use crate::iface::watch::{self, Snapshot};
use crate::iface::{self, Interface, OURS_PREFIX};
use crate::inside::{InsideConfig, InsideDevice};
use crate::log::{DroppedLines, LineBudget, LogGuard, announce, announce_warning};
use crate::outside::{self, Bound};
use crate::pump::Flow;
use crate::secret::SecretString;
use crate::select::{EngineKind, Make, Selection, select};
use crate::signals::{Signals, Stopping};
use crate::state::{GatewayIdentity, StateDirectory};
use crate::status::StatusServer;
use crate::worker::{Plan, Worker};
use crate::{clock, hex, imp, limits, log};

/// How long the interface of a killed predecessor may stay.
const TEARDOWN: Duration = Duration::from_secs(2);

/// Sockets of a gateway: one for each family, one for a bridge to TCP, and those for beacons, which are there twice while they are
/// exchanged.
const SOCKETS: u16 = 3 + 2 * SOCKETS_MAX as u16;

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
    limits::make_room(SOCKETS, 0, 0)?;
    limits::make_more_room(SOCKETS, SEARCH_SOCKETS as usize + SEARCH_SOCKETS_KEPT);
    // Before the threads that stretch secrets make the processors busy.
    let speed = CipherSpeed::measure();
    let token = stretch(&options.common.token)?;
    let secret = options.secret.as_ref().map(stretch).transpose()?;
    let interfaces = list_without_overlap(options.ip, options.prefix)?;
    let outside = iface::choose(&interfaces, &options.iface, options.iface_given).map_err(|why| anyhow!(why))?;
    let state = StateDirectory::open(options.common.state.as_deref())?;
    let identity = state.gateway(options.trans.port, options.ip)?;
    let ports = outside::ports(identity.static_key.public()).to_vec();
    let (outlet, bound) = Outlet::open(outside, &interfaces, ports)?;
    let around = watch::look(outlet.outside()).context("the network interfaces cannot be listed")?;
    let selection = select(options.common.engine)?;
    let join = |thread: thread::JoinHandle<StretchedToken>| {
        thread.join().map_err(|_| anyhow!("stretching the token failed: give the machine more memory"))
    };
    let token = join(token)?;
    let secret = secret.map(join).transpose()?;
    let keys = NamespaceKeys::derive(&token, options.trans.port, secret.as_ref());
    let fingerprint = hex::encode(&token.fingerprint());
    let log = log.dropped_lines();
    let start = Start {
        options,
        started,
        stopping,
        log,
        speed,
        fingerprint,
        token,
        keys,
        around,
        outlet,
        bound,
        state,
        identity,
        selection,
    };
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
            .is_some_and(|(interface, network)| network.address == ip && interface.name.starts_with(OURS_PREFIX));
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

/// All that is there before the data thread.
struct Start {
    options: GatewayOptions,
    started: Instant,
    stopping: Stopping,
    log: DroppedLines,
    speed: CipherSpeed,
    fingerprint: String,
    token: StretchedToken,
    keys: NamespaceKeys,
    around: Snapshot,
    outlet: Outlet,
    bound: Bound,
    state: StateDirectory,
    identity: GatewayIdentity,
    selection: Selection,
}

impl Start {
    fn run<E: Make>(self) -> Result<(), Failure> {
        let Self { options, started, stopping, log, speed, fingerprint, token, keys, around, outlet, .. } = self;
        let Self { bound, state, identity, selection, .. } = self;
        let outer_bytes = options.mtu.map_or(OuterSize::Assumed, OuterSize::Fixed);
        let device = InsideDevice::open(&InsideConfig {
            name_hint: None,
            ipv4: options.ip,
            prefix: options.prefix,
            ula: Some((keys.ula(options.ip), keys.ula_prefix().1)),
            mtu: u32::from(outer_bytes.inside_mtu()),
            // The portable engine takes packets in one piece only.
            offload: options.offload && E::SHARES,
        })
        .map_err(|error| anyhow!(error))?;
        let interface = device.name.clone();
        let (ula, offloads) = (device.ula, device.offloads);

        let (wakes, woken) = mpsc::channel();
        let stop = wakes.clone();
        // The main thread hears it unless it has ended already.
        stopping.by(move || _ = stop.send(Wake::Stop));

        let helpers = Helpers::start(2, WAITING_MAX)?;
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
            offloads: device.offloads,
            outer_bytes,
            path: options.path,
            pins: options.pins.clone(),
            ciphers: options.cipher.ciphers(speed),
            pinned_transfer_key: pinned,
            seed: rand::random(),
        };
        let known = Around::new(outlet.outside(), &around);
        let (addresses, mtu) = (known.addresses.clone(), known.mtu);
        let (tcp, stream) = Tcp::open();
        let (events, ended) = (wakes.clone(), wakes.clone());
        let partner = Partner::new();
        let tie = partner.clone();
        // With one processor a second thread would only take turns with the first.
        let reader = if E::SHARES && imp::processors().len() > 1 { Some(device.try_clone()?) } else { None };
        let shares = reader.is_some();
        let (half, halved) = mpsc::channel();
        let mut lines = LineBudget::default();
        let plan = Plan {
            index: 0,
            // A gateway is a guest on its machine: the system knows better which processor is free.
            processor: None,
            make_engine: || E::make(SOCKETS),
            make_node: move |engine: &mut E| {
                let mut sockets = sockets::add(engine, bound)?;
                sockets.stream = stream.map(|socket| sockets::add_stream(engine, socket)).transpose()?;
                let added = if shares { engine.add_inside_writer(device) } else { engine.add_inside(device) };
                added.context("the engine does not take the virtual interface")?;
                let now = clock::now();
                let mut gateway = Gateway::new(GatewayConfig { sockets, ..config }, now);
                gateway.set_outside_mtu(now, mtu);
                gateway.network_changed(now, &addresses);
                if shares {
                    // Whoever waits for it is this thread's maker.
                    _ = half.send(gateway.outbound());
                }
                Ok(gateway)
            },
            observe: move |engine: &mut E, gateway: &mut Gateway, now: Moment| {
                while let Some(event) = gateway.poll_event() {
                    let key = gateway.transfer_key();
                    // Sessions with peers come and go as strangers with a token please; the rest is bounded by the core.
                    match event {
                        Event::PeerUp { .. }
                        | Event::PeerDown { .. }
                        | Event::PathChanged { .. }
                        | Event::NoCommonCipher { .. }
                        | Event::Impostor { .. } => lines.spend(now, || tell(&event)),
                        Event::CloseSockets(closed) => {
                            tie.forget(&closed);
                            sockets::close(engine, &closed);
                        }
                        // The main thread ends first, and there is nobody to tell then.
                        Event::ResolveTransfer
                        | Event::Registered { .. }
                        | Event::Refused { .. }
                        | Event::TransferSilent { .. }
                        | Event::TransferBack
                        | Event::StreamWanted(_)
                        | Event::InsideMtu { .. }
                        | Event::OverTcp { .. }
                        | Event::TransferKeyChanged
                        | Event::VersionMismatch { .. }
                        | Event::OpenSockets { .. }
                        | Event::ObserverKeyWanted { .. } => _ = events.send(Wake::Event(event, key)),
                    }
                }
                tie.publish(engine, gateway);
                Flow::Continue
            },
        };
        let worker = Worker::start(plan, helpers.clone(), move |result| _ = ended.send(Wake::Ended(result)))?;
        let sender = match reader.zip(halved.try_recv().ok()) {
            Some((device, outbound)) => {
                let ended = wakes.clone();
                let ended = move |result| _ = ended.send(Wake::Ended(result));
                Some(partner.start(device, outbound, SOCKETS, &worker.mailbox, helpers.clone(), ended)?)
            }
            None => None,
        };

        introduce(&options, &selection, outlet.outside(), &around.interfaces, &interface, ula, &fingerprint);
        let mapped = wakes.clone();
        // The main thread ends first, and there is nobody to tell then.
        let tell_mapping = move |report| _ = mapped.send(Wake::Mapping(report));
        let mapping = PortMapping::start(options.mapping, &identity.static_key, tell_mapping);
        let report = Report {
            fingerprint,
            key: hex::encode(identity.static_key.public()),
            selection,
            mailbox: worker.mailbox.clone(),
            partner: partner.clone(),
            helpers,
            interface: interface.clone(),
            inside: offloads,
            trans: options.trans.to_string(),
            outside: outlet.outside().clone(),
            sockets: outlet.shown(),
            tcp: tcp.counts(),
            mapping: mapping.shown(),
            ciphers: CipherReport::new(options.cipher, speed),
            started,
            log,
        };
        let network = wakes.clone();
        // Whoever watches ends at the first change that nobody wants to hear of.
        watch::watch(outlet.outside().clone(), move |snapshot| network.send(Wake::Network(snapshot)).is_ok())?;
        let status = serve_status(&format!("gateway-{interface}"), report);
        if let Some(remnant) = status.as_ref().and_then(StatusServer::remnant) {
            stopping.removes(remnant);
        }

        let ways = Ways { outlet, around: known, tcp, mapping };
        let mut life = Life::new(&options, &state, (&worker.mailbox, &partner), wakes, ways, token, &interface);
        life.begin(&around);
        let outcome = life.keep(&woken);
        let (tcp, mapping) = life.end();
        let mapper = mapping.stop();
        if let Some(sender) = sender {
            sender.mailbox.send(|_, _, _| Flow::Stop);
            sender.join();
        }
        worker.mailbox.send(|_, gateway: &mut Gateway, now| {
            gateway.stop(now);
            Flow::Stop
        });
        worker.join();
        // What the data thread said last may go over TCP.
        drop(tcp);
        if let Some(status) = status {
            status.end();
        }
        if let Some(mapper) = mapper {
            mapper.join();
        }
        outcome?;
        announce("stopped");
        Ok(())
    }
}
