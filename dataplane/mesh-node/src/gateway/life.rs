//! The main thread of a gateway: it resolves names, tells events, and looks after the sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use mesh_core::gateway::{Event, Gateway, LocalAddress};
use mesh_core::session::PublicKey;
use mesh_core::session::mac::ObserverKey;
use mesh_core::session::token::{NamespaceKeys, StretchedToken};

use super::beacons::BeaconSockets;
use super::lines::{other_key, refusal, tell};
use super::mapping::PortMapping;
use super::partner::Partner;
use super::sockets::{Exchanged, Outlet};
use super::tcp::Tcp;
use crate::config::GatewayOptions;
use crate::iface::candidates::{local_addresses, longest_packet};
use crate::iface::watch::{DefaultRoute, Snapshot};
use crate::iface::{self, Interface, Outside, Route};
use crate::inside;
use crate::log::{announce, announce_warning};
use crate::mailbox::Mailbox;
use crate::mapping;
use crate::pump::Flow;
use crate::resolve::resolve;
use crate::select::Make;
use crate::state::StateDirectory;

/// A transfer is told to be silent after this time without an answer, as the state machine does.
const SILENCE: Duration = Duration::from_secs(5);

/// What the main thread waits for.
pub(super) enum Wake {
    Stop,
    Ended(io::Result<()>),
    /// Something the state machine said, with the key of the transfer if it knows one.
    Event(Event, Option<PublicKey>),
    Resolved(io::Result<Vec<SocketAddr>>),
    /// The network may be another now.
    Network(Snapshot),
    /// The outside sockets are others now.
    Exchanged(anyhow::Result<Exchanged>),
    /// What the router says.
    Mapping(mapping::Report),
}

/// The ways out of the machine.
pub(super) struct Ways {
    pub(super) outlet: Outlet,
    pub(super) around: Around,
    pub(super) tcp: Tcp,
    pub(super) mapping: PortMapping,
}

/// The main thread's life: until it is told to stop, or something it cannot do without is gone.
pub(super) struct Life<'a, E: Make> {
    options: &'a GatewayOptions,
    state: &'a StateDirectory,
    mailbox: &'a Mailbox<E, Gateway>,
    partner: &'a Partner<E>,
    wakes: mpsc::Sender<Wake>,
    outlet: Outlet,
    around: Around,
    beacons: BeaconSockets,
    tcp: Tcp,
    /// Whether the registration goes over TCP.
    over_tcp: bool,
    /// Keys of other ports of the transfer are made from it.
    token: StretchedToken,
    mapping: PortMapping,
    /// Whether the resolver is at work.
    resolving: bool,
    /// Whether it is to be asked once more: the network is another than when it was asked.
    resolve_again: bool,
    /// Whether it was told that the name does not resolve.
    unresolved: bool,
    /// Whether it was told why the transfer is of no use: its silence has a cause then.
    cause_told: bool,
    /// When to tell of silence: it was noticed while there was no address to send to.
    silence_due: Option<Instant>,
    /// The route that was told last.
    told_route: Option<Route>,
    /// The virtual interface.
    interface: &'a str,
    /// Whether it was told that its MTU cannot be changed.
    mtu_refused: bool,
}

impl<'a, E: Make> Life<'a, E> {
    pub(super) fn new(
        options: &'a GatewayOptions,
        state: &'a StateDirectory,
        (mailbox, partner): (&'a Mailbox<E, Gateway>, &'a Partner<E>),
        wakes: mpsc::Sender<Wake>,
        ways: Ways,
        token: StretchedToken,
        interface: &'a str,
    ) -> Self {
        let Ways { outlet, around, tcp, mapping } = ways;
        tcp.target().set_places(outlet.places());
        Self {
            options,
            state,
            mailbox,
            partner,
            wakes,
            outlet,
            around,
            beacons: BeaconSockets::default(),
            tcp,
            over_tcp: false,
            token,
            mapping,
            resolving: false,
            resolve_again: false,
            unresolved: false,
            cause_told: false,
            silence_due: None,
            told_route: None,
            interface,
            mtu_refused: false,
        }
    }

    /// Opens the sockets for beacons that these interfaces ask for.
    fn open_beacons(&mut self, snapshot: &Snapshot) {
        self.beacons.look(self.outlet.outside(), snapshot, self.mailbox);
    }

    /// Asks the router for our port; `again`: even if it was asked for that before.
    fn look_after_mapping(&mut self, again: bool) {
        let port = self.outlet.port_ipv4();
        self.mapping.look(self.outlet.outside(), &self.around, port, again);
    }

    /// Begins what has to do with the network around, which is this.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) {
        self.open_beacons(snapshot);
        self.look_after_mapping(true);
    }

    /// What has to be ended in its own time, and what has to outlive the data thread.
    pub(super) fn end(self) -> (Tcp, PortMapping) {
        (self.tcp, self.mapping)
    }

    /// Goes on until the program is to end.
    ///
    /// # Errors
    /// It cannot go on.
    pub(super) fn keep(&mut self, woken: &mpsc::Receiver<Wake>) -> anyhow::Result<()> {
        loop {
            match woken.recv().context("the data thread is gone: see the log")? {
                Wake::Stop => return Ok(()),
                Wake::Ended(result) => {
                    return Err(result.err().map_or_else(|| anyhow!("the data thread ended: see the log"), Into::into))
                        .context("the engine failed");
                }
                Wake::Resolved(result) => self.resolved(result),
                Wake::Event(event, key) => self.event(event, key)?,
                Wake::Network(snapshot) => self.network(&snapshot),
                Wake::Exchanged(outcome) => {
                    if self.outlet.exchanged(outcome) {
                        self.look();
                    }
                    self.tcp.target().set_places(self.outlet.places());
                    self.look_after_mapping(false);
                }
                Wake::Mapping(report) => self.mapping.reported(report, self.mailbox),
            }
        }
    }

    /// Looks whether the interfaces ask for other sockets.
    fn look(&mut self) {
        match iface::list() {
            Ok(interfaces) => self.look_after_sockets(&interfaces),
            Err(error) => tracing::info!(%error, "the network interfaces cannot be listed"),
        }
    }

    fn look_after_sockets(&mut self, interfaces: &[Interface]) {
        let wakes = self.wakes.clone();
        // The main thread ends first, and there is nobody to tell then.
        self.outlet
            .look(interfaces, self.mailbox, self.partner, move |outcome| _ = wakes.send(Wake::Exchanged(outcome)));
    }

    /// Something of the network has changed: it may concern us.
    fn network(&mut self, snapshot: &Snapshot) {
        self.look_after_sockets(&snapshot.interfaces);
        self.open_beacons(snapshot);
        let around = Around::new(self.outlet.outside(), snapshot);
        if self.around == around {
            return;
        }
        tracing::info!(addresses = %around, "the network outside has changed");
        let (addresses, mtu) = (around.addresses.clone(), around.mtu);
        self.around = around;
        self.look_after_mapping(true);
        self.mailbox.send(move |_, gateway: &mut Gateway, now| {
            gateway.set_outside_mtu(now, mtu);
            gateway.network_changed(now, &addresses);
            Flow::Continue
        });
        self.resolve_again = self.resolving;
        self.resolve();
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
        if std::mem::take(&mut self.resolve_again) {
            self.resolve();
        }
        match result {
            Ok(mut addresses) => {
                if std::mem::take(&mut self.unresolved) {
                    announce(format_args!("{} resolves now", self.options.trans.host));
                    self.silence_due = self.silence_due.map(|_| Instant::now() + SILENCE);
                }
                match self.outlet.outside() {
                    Outside::Routed => self.tell_route(&addresses),
                    Outside::Interface { name, .. } => prefer_reachable(&mut addresses, name),
                }
                self.tcp.target().set_addresses(&addresses);
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
                self.look();
                self.resolve();
            }
            Event::Registered { transfer, observed, first, .. } => {
                (self.cause_told, self.silence_due) = (false, None);
                // Over TCP it sees an address of its own machine.
                let way = if self.over_tcp { "over TCP".into() } else { format!("seen at {observed}") };
                if !self.over_tcp {
                    self.mapping.seen_at(observed);
                }
                let line = format!("registered with {trans} ({transfer}) as {}, {way}", self.options.ip);
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
                self.mapping.check();
                announce(format_args!("{trans} answers"));
            }
            Event::StreamWanted(wanted) => self.tcp.wanted(wanted, self.mailbox),
            Event::OverTcp { transfer, over_tcp } => {
                self.over_tcp = over_tcp;
                if over_tcp {
                    announce(format_args!(
                        "UDP to {trans} gets no answer: going over TCP to {transfer}; UDP is tried again every 20 s"
                    ));
                } else {
                    announce(format_args!("UDP to {trans} ({transfer}) works: TCP is left"));
                }
            }
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
            Event::InsideMtu { bytes } => self.set_inside_mtu(bytes),
            Event::OpenSockets { count } => self.outlet.open_more(count, self.mailbox),
            Event::ObserverKeyWanted { port } => {
                let key = ObserverKey::of(&NamespaceKeys::derive(&self.token, port, None));
                self.mailbox.send(move |_, gateway: &mut Gateway, now| {
                    gateway.set_observer_key(now, port, key);
                    Flow::Continue
                });
            }
            // The data thread has done it.
            Event::CloseSockets(_) => {}
            Event::PeerUp { .. } | Event::PeerDown { .. } | Event::PathChanged { .. } | Event::Impostor { .. } => {
                tell(&event);
            }
        }
        Ok(())
    }

    /// Lets the virtual interface follow the paths. Where that is refused it stays, and what is too long for a path is told so.
    fn set_inside_mtu(&mut self, bytes: u16) {
        match inside::set_mtu(self.interface, bytes) {
            Ok(()) => tracing::info!(interface = self.interface, bytes, "the MTU follows what paths carry"),
            // The next change may be one more back and forth: once is enough.
            Err(error) if !std::mem::replace(&mut self.mtu_refused, true) => {
                tracing::info!(interface = self.interface, bytes, %error, "the MTU cannot be changed");
            }
            Err(_) => {}
        }
    }

    /// Says that nothing comes back, unless it was told what is wrong.
    fn tell_silence(&mut self) {
        self.silence_due = None;
        if !self.cause_told {
            announce_warning(format_args!(
                "no answer from {}: wrong token, wrong port, or UDP and TCP blocked; silence tells no more. It is tried again each second",
                self.options.trans
            ));
        }
    }
}

/// Puts the addresses first whose family the interface has addresses of. The system's own order is by all interfaces.
fn prefer_reachable(addresses: &mut [SocketAddr], name: &str) {
    let interfaces = iface::list().unwrap_or_default();
    let Some(interface) = interfaces.iter().find(|interface| interface.name == name) else { return };
    let (ipv4, ipv6) = iface::usable(interface);
    addresses.sort_by_key(|address| if address.is_ipv4() { ipv4.is_none() } else { ipv6.is_none() });
}

/// What of the network concerns a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Around {
    pub(super) addresses: Vec<LocalAddress>,
    pub(super) ipv4: Option<DefaultRoute>,
    ipv6: Option<DefaultRoute>,
    /// The longest IP packet that leaves by any of the interfaces, in bytes, as far as it is known.
    pub(super) mtu: Option<u16>,
}

impl Around {
    pub(super) fn new(outside: &Outside, snapshot: &Snapshot) -> Self {
        let Snapshot { interfaces: _, ipv4, ipv6 } = snapshot;
        let mtu = longest_packet(outside, &snapshot.interfaces);
        Self { addresses: local_addresses(outside, snapshot), ipv4: *ipv4, ipv6: *ipv6, mtu }
    }
}

impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(|local| local.address.to_string()).collect();
        f.write_str(if addresses.is_empty() { "none" } else { "" })?;
        f.write_str(&addresses.join(", "))
    }
}
