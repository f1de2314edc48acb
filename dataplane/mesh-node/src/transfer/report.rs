//! What a running transfer says of itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_core::transfer::{Counters, NamespaceStatus, ShareStatus, Transfer};

use crate::helpers::Helpers;
use crate::log::DroppedLines;
use crate::mailbox::Mailbox;
use crate::select::{Make, Selection};
use crate::status::{CommonReport, CoreReport, NamespaceReport, SCHEMA, StatusServer, TransferReport, add, sum};
use crate::stream::listen;

/// How long the status waits for a data thread.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// What the main thread lets the status see.
pub(super) struct Shown {
    pub(super) bound: AtomicUsize,
    pub(super) busy: Mutex<Vec<String>>,
}

/// What the status thread needs to answer.
pub(super) struct Report<E: Make> {
    pub(super) fingerprint: String,
    pub(super) key: String,
    pub(super) selection: Selection,
    pub(super) processors: Vec<Option<usize>>,
    pub(super) mailboxes: Vec<Mailbox<E, Transfer>>,
    pub(super) helpers: Helpers,
    pub(super) shown: Arc<Shown>,
    /// Nothing, if TCP is not listened on.
    pub(super) tcp: Option<listen::Shown>,
    pub(super) bind: u16,
    pub(super) nums: u16,
    pub(super) public: String,
    pub(super) started: Instant,
    pub(super) log: DroppedLines,
}

impl<E: Make> Report<E> {
    fn make(&self) -> TransferReport {
        let ask = |mailbox: &Mailbox<E, Transfer>| {
            mailbox.ask(|engine, transfer, now| {
                (engine.name(), engine.offloads(), engine.counters(), transfer.status(now), transfer.shares())
            })
        };
        let asked: Vec<_> = self.mailboxes.iter().map(ask).collect();
        let (mut cores, mut namespaces, mut drops) = (Vec::new(), Vec::new(), Vec::new());
        let (mut engine, mut offloads): (_, Vec<&'static str>) = ("", Vec::new());
        let mut mirrored = Vec::new();
        let (mut counters, mut handshakes_pending, mut control_sessions) = (Counters::default(), 0, 0);
        for (core, answer) in asked.iter().enumerate() {
            // A data thread that is this late is shown by its absence.
            let Ok((name, used, counted, status, shares)) = answer.recv_timeout(STATUS_PATIENCE) else { continue };
            engine = name;
            // One core may have no socket: what any of them uses is in use.
            offloads.extend(used.into_iter().filter(|name| !offloads.contains(name)).collect::<Vec<_>>());
            cores.push(CoreReport { core, processor: self.processors[core], counters: counted });
            namespaces.extend(status.namespaces);
            mirrored.extend(shares);
            add(&mut counters, &status.counters);
            handshakes_pending += status.handshakes_pending;
            control_sessions += status.control_sessions;
            drops.push(serde_json::to_value(&status.drops).unwrap_or_default());
        }
        add_shares(&mut namespaces, &mirrored);
        let mut namespaces: Vec<_> = namespaces.into_iter().map(NamespaceReport::from).collect();
        namespaces.sort_by_key(|namespace: &NamespaceReport| namespace.namespace);
        if let Some(tcp) = &self.tcp {
            name_clients(&mut namespaces, tcp);
        }
        TransferReport {
            common: CommonReport {
                schema: SCHEMA,
                program: "transfer",
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
                cores,
            },
            bind: self.bind,
            nums: self.nums,
            public: self.public.clone(),
            ports_bound: self.shown.bound.load(Ordering::Relaxed),
            ports_busy: self.shown.busy.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            tcp: self.tcp.as_ref().map(listen::Shown::report).unwrap_or_default(),
            counters,
            handshakes_pending,
            control_sessions,
            drops: sum(drops),
            namespaces,
        }
    }
}

/// Adds what mirrors forwarded to what the homes did.
fn add_shares(namespaces: &mut [NamespaceStatus], shares: &[ShareStatus]) {
    for share in shares {
        let same = |namespace: &&mut NamespaceStatus| namespace.namespace == share.namespace;
        let Some(namespace) = namespaces.iter_mut().find(same) else { continue };
        namespace.datagrams_forwarded += share.datagrams_forwarded;
        namespace.bytes_forwarded += share.bytes_forwarded;
        for &(slot, datagrams, bytes) in &share.members {
            if let Some(member) = namespace.members.iter_mut().find(|member| member.slot == slot) {
                member.datagrams_forwarded += datagrams;
                member.bytes_forwarded += bytes;
            }
        }
    }
}

/// Puts the addresses of gateways in the place of the loopback addresses that stand for them.
fn name_clients(namespaces: &mut [NamespaceReport], tcp: &listen::Shown) {
    for member in namespaces.iter_mut().flat_map(|namespace| &mut namespace.members) {
        if let Some(client) = member.endpoint.and_then(|endpoint| tcp.client(endpoint)) {
            (member.endpoint, member.over_tcp) = (Some(client), true);
        }
    }
}

/// Serves the status; without it the transfer runs all the same.
pub(super) fn serve_status<E: Make>(name: &str, report: Report<E>) -> Option<StatusServer> {
    let served = StatusServer::start(name, move || {
        serde_json::to_string(&report.make()).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    });
    served.inspect_err(|error| tracing::info!(%error, "the status verb will not find this program")).ok()
}
