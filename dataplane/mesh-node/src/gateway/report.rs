//! What a running gateway says of itself.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mesh_core::gateway::Gateway;
use mesh_core::seam::Offloads;

use super::mapping::ShownMapping;
use super::partner::Partner;
use super::sockets::Shown;
use crate::ciphers::CipherReport;
use crate::helpers::Helpers;
use crate::iface::{self, Outside};
use crate::log::DroppedLines;
use crate::mailbox::Mailbox;
use crate::select::{Make, Selection};
use crate::status::{CommonReport, CoreReport, GatewayReport, SCHEMA, StatusServer};
use crate::stream::Counts;

/// How long the status waits for the data thread.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// What the status thread needs to answer.
pub(super) struct Report<E: Make> {
    pub(super) fingerprint: String,
    pub(super) key: String,
    pub(super) selection: Selection,
    pub(super) mailbox: Mailbox<E, Gateway>,
    pub(super) partner: Partner<E>,
    pub(super) helpers: Helpers,
    pub(super) interface: String,
    pub(super) inside: Offloads,
    pub(super) trans: String,
    pub(super) outside: Outside,
    pub(super) sockets: Shown,
    /// What bridges over TCP did.
    pub(super) tcp: Arc<Counts>,
    pub(super) mapping: ShownMapping,
    pub(super) ciphers: CipherReport,
    pub(super) started: Instant,
    pub(super) log: DroppedLines,
}

impl<E: Make> Report<E> {
    fn make(&self) -> anyhow::Result<GatewayReport> {
        let asked = self
            .mailbox
            .ask(|engine, gateway, now| (engine.name(), engine.offloads(), engine.counters(), gateway.status(now)));
        let sending = self.partner.sender().map(|sender| sender.ask(|engine, _, _| engine.counters()));
        let (engine, offloads, counters, gateway) =
            asked.recv_timeout(STATUS_PATIENCE).context("the data thread does not answer")?;
        let mut cores = vec![CoreReport { core: 0, processor: None, counters }];
        if let Some(sending) = sending {
            let counters = sending.recv_timeout(STATUS_PATIENCE).context("the thread that sends does not answer")?;
            cores.push(CoreReport { core: 1, processor: None, counters });
        }
        let route = gateway.transfer.endpoint.and_then(|transfer| iface::route_by(&self.outside, transfer));
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
                cores,
            },
            interface: self.interface.clone(),
            inside_offloads: offload_names(self.inside),
            trans: self.trans.clone(),
            outside: self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            tied: self.outside != Outside::Routed,
            route,
            tcp: self.tcp.report(),
            mapping: self.mapping.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ciphers: self.ciphers.clone(),
            gateway,
        })
    }
}

/// What an interface does by itself, as status names it.
fn offload_names(offloads: Offloads) -> Vec<&'static str> {
    let Offloads { checksum, tcp, udp } = offloads;
    [checksum.then_some("checksum"), tcp.then_some("tcp"), udp.then_some("udp")].into_iter().flatten().collect()
}

/// Serves the status; without it the gateway runs all the same.
pub(super) fn serve_status<E: Make>(name: &str, report: Report<E>) -> Option<StatusServer> {
    let answer = move || {
        let report = report.make().and_then(|report| Ok(serde_json::to_string(&report)?));
        report.unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
    };
    let served = StatusServer::start(name, answer);
    served.inspect_err(|error| tracing::info!(%error, "the status verb will not find this program")).ok()
}
