//! What a running program says of itself: one JSON document for each question, over a socket that only its user can open.
//!
//! The documents are [`TransferReport`] and [`GatewayReport`]; their field names are the schema of `status --json`, which prints
//! one document a line. `STATUS.md` describes every field, and a test holds it to what is here. Fields may be added; none changes
//! its meaning without a new [`SCHEMA`].

mod render;
#[cfg(target_os = "linux")]
#[path = "server_linux.rs"]
mod server;
#[cfg(windows)]
#[path = "server_windows.rs"]
mod server;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use mesh_core::transfer::{Counters, MemberStatus, NamespaceStatus};
use serde::Serialize;
use serde_json::Value;

pub use server::StatusServer;

use crate::ciphers::CipherReport;
use crate::cli::flags::Program;
use crate::cli::{Failure, StatusQuery, View};
use crate::engine::EngineCounters;
use crate::iface::Route;
use crate::mapping::Protocol;
use crate::stream::StreamReport;
use crate::stream::listen::ListenReport;

/// Version of the documents.
pub const SCHEMA: u32 = 1;

/// What both programs say.
#[derive(Debug, Serialize)]
pub struct CommonReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `transfer` or `gateway`.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its process.
    pub pid: u32,
    /// Name of the engine: `uring`, `mmsg` or `portable`.
    pub engine: &'static str,
    /// Why this one.
    pub engine_reason: String,
    /// Offloads in use, see [`crate::engine::Engine::offloads`].
    pub offloads: Vec<&'static str>,
    /// 24 bits of the stretched token, in hexadecimal: equal at two ends that have the same token.
    pub fingerprint: String,
    /// The program's public key, in hexadecimal.
    pub public_key: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Handshake steps that were dropped because too many waited.
    pub jobs_refused: u64,
    /// Log lines that were dropped because the disk was too slow.
    pub log_lines_dropped: usize,
    /// Each data thread.
    pub cores: Vec<CoreReport>,
}

/// What a data thread says.
#[derive(Clone, Debug, Serialize)]
pub struct CoreReport {
    /// Its number.
    pub core: usize,
    /// The processor it is pinned to, if it is.
    pub processor: Option<usize>,
    /// What its engine counted.
    #[serde(flatten)]
    pub counters: EngineCounters,
}

/// What a transfer says.
#[derive(Debug, Serialize)]
pub struct TransferReport {
    /// What both say.
    #[serde(flatten)]
    pub common: CommonReport,
    /// Its first port.
    pub bind: u16,
    /// How many ports it was to bind.
    pub nums: u16,
    /// What others reach it by.
    pub public: String,
    /// How many ports are bound.
    pub ports_bound: usize,
    /// Ports that something else holds, as ranges: `8003`, `8010-8012`.
    pub ports_busy: Vec<String>,
    /// TCP on the same ports, for gateways without UDP.
    pub tcp: ListenReport,
    /// What was done since the start, summed over the cores.
    pub counters: Counters,
    /// Handshakes under way, or finished less than five seconds ago.
    pub handshakes_pending: usize,
    /// Control sessions: one for each member, and old ones that still end.
    pub control_sessions: usize,
    /// Datagrams dropped, by reason, summed over the cores.
    pub drops: Value,
    /// Each bound port, by number.
    pub namespaces: Vec<NamespaceReport>,
}

/// What a transfer says of one of its ports.
#[derive(Debug, Serialize)]
pub struct NamespaceReport {
    /// The UDP port.
    pub namespace: u16,
    /// Datagrams forwarded since the start.
    pub datagrams_forwarded: u64,
    /// Bytes of those, UDP payload only.
    pub bytes_forwarded: u64,
    /// Gateways that hold an address, by slot.
    pub members: Vec<MemberReport>,
}

/// What a transfer says of a gateway.
#[derive(Debug, Serialize)]
pub struct MemberReport {
    /// Its virtual address.
    pub ip4: Ipv4Addr,
    /// Its name; may be empty.
    pub name: String,
    /// The address it is reached at.
    pub endpoint: Option<SocketAddr>,
    /// Whether that is the other end of a TCP connection.
    pub over_tcp: bool,
    /// Its slot.
    pub slot: u32,
    /// Seconds it has held its address, earlier starts of the transfer included.
    pub age_seconds: u64,
    /// Seconds since its last authenticated word.
    pub heard_seconds: u64,
    /// Datagrams forwarded from it, since it took its slot.
    pub datagrams_forwarded: u64,
    /// Bytes of those, UDP payload only.
    pub bytes_forwarded: u64,
}

impl From<NamespaceStatus> for NamespaceReport {
    fn from(status: NamespaceStatus) -> Self {
        let NamespaceStatus { namespace, members, datagrams_forwarded, bytes_forwarded } = status;
        let members = members.into_iter().map(MemberReport::from).collect();
        Self { namespace, datagrams_forwarded, bytes_forwarded, members }
    }
}

impl From<MemberStatus> for MemberReport {
    fn from(status: MemberStatus) -> Self {
        let MemberStatus {
            ip: ip4,
            name,
            endpoint,
            slot,
            age_seconds,
            heard_seconds,
            datagrams_forwarded,
            bytes_forwarded,
        } = status;
        let over_tcp = false;
        Self { ip4, name, endpoint, over_tcp, slot, age_seconds, heard_seconds, datagrams_forwarded, bytes_forwarded }
    }
}

/// What a gateway says.
#[derive(Debug, Serialize)]
pub struct GatewayReport {
    /// What both say.
    #[serde(flatten)]
    pub common: CommonReport,
    /// Its interface.
    pub interface: String,
    /// What the system leaves to it: `checksum`, `tcp`, `udp`.
    pub inside_offloads: Vec<&'static str>,
    /// The transfer as it was given, `HOST:PORT`.
    pub trans: String,
    /// What the outside sockets are bound to.
    pub outside: Vec<SocketAddr>,
    /// Whether they are tied to one interface, that of `-iface`; else the routing table chooses for each destination.
    pub tied: bool,
    /// What datagrams to the transfer leave by; `None` while no address of it is known.
    pub route: Option<Route>,
    /// What was carried over TCP.
    pub tcp: StreamReport,
    /// What the router maps to the outside socket for IPv4.
    pub mapping: MappingReport,
    /// What it seals packets with.
    pub ciphers: CipherReport,
    /// The state machine's part, field by field.
    #[serde(flatten)]
    pub gateway: mesh_core::gateway::Status,
}

/// How it stands with a port of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MappingState {
    /// No router is to be asked.
    Off,
    /// It is being asked.
    Searching,
    /// There is one.
    Mapped,
    /// There is none.
    None,
}

/// A port of the router that leads to ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MappingReport {
    /// How it stands.
    pub state: MappingState,
    /// The router's address and port outside.
    pub outside: Option<SocketAddr>,
    /// How it was got.
    pub protocol: Option<Protocol>,
    /// Why there is none, for people; empty where there is one or it is being asked for.
    pub why: String,
}

/// Adds what one core counted to `total`.
pub(crate) fn add(total: &mut Counters, core: &Counters) {
    let Counters {
        datagrams_forwarded,
        bytes_forwarded,
        runs_forwarded,
        handshakes,
        cookies_sent,
        notices_sent,
        lookups,
        refused,
    } = core;
    total.datagrams_forwarded += datagrams_forwarded;
    total.bytes_forwarded += bytes_forwarded;
    total.runs_forwarded += runs_forwarded;
    total.handshakes += handshakes;
    total.cookies_sent += cookies_sent;
    total.notices_sent += notices_sent;
    total.lookups += lookups;
    total.refused += refused;
}

/// Sums equal documents of numbers, field by field.
pub(crate) fn sum(documents: impl IntoIterator<Item = Value>) -> Value {
    let mut total = serde_json::Map::new();
    for document in documents {
        let Value::Object(fields) = document else { continue };
        for (name, value) in fields {
            let before = total.get(&name).and_then(Value::as_u64).unwrap_or(0);
            total.insert(name, (before + value.as_u64().unwrap_or(0)).into());
        }
    }
    Value::Object(total)
}

/// The verb `status`: asks every running program of this user that fits the query, and prints what they say.
pub fn show(query: &StatusQuery) -> Result<(), Failure> {
    loop {
        let text = once(query)?;
        let mut out = io::stdout().lock();
        let clear = if query.watch && !query.json && out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        let written =
            out.write_all(clear.as_bytes()).and_then(|()| out.write_all(text.as_bytes())).and_then(|()| out.flush());
        if !query.watch || written.is_err() {
            return Ok(());
        }
        drop(out);
        #[expect(clippy::disallowed_methods, reason = "-watch prints once a second")]
        thread::sleep(Duration::from_secs(1));
    }
}

fn once(query: &StatusQuery) -> Result<String, Failure> {
    let name = query.program.name();
    let answers = server::ask_all(name)?;
    let mut documents: Vec<Value> = Vec::new();
    for answer in answers {
        documents.push(serde_json::from_str(&answer).with_context(|| {
            format!("a {name} gave an answer that is not JSON: run the status verb of its own version")
        })?);
    }
    let key = match query.program {
        Program::Transfer => "bind",
        Program::Gateway => "ip4",
    };
    if let Some(only) = &query.only {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        documents.retain(|document| text(&document[key]) == *only);
    }
    documents.sort_by_key(|document| (document[key].to_string(), document["pid"].as_u64()));
    if documents.is_empty() {
        let flag = key.trim_end_matches('4');
        let which = query.only.as_ref().map_or(String::new(), |only| format!(" with -{flag} {only}"));
        return Err(
            anyhow::anyhow!("no running {name}{which} answers: start it, or ask as the user that runs it").into()
        );
    }
    let texts = documents.iter().map(|document| match (query.json, query.program, query.view) {
        (true, _, View::Status) => format!("{document}\n"),
        (true, _, View::Netcheck) => format!("{}\n", netcheck(document)),
        (false, Program::Transfer, _) => render::transfer(document),
        (false, Program::Gateway, View::Status) => render::gateway(document),
        (false, Program::Gateway, View::Netcheck) => render::netcheck(document),
    });
    Ok(texts.collect::<Vec<_>>().join(if query.json { "" } else { "\n" }))
}

/// What of a gateway's document concerns the network around it.
fn netcheck(document: &Value) -> Value {
    let fields = ["schema", "program", "ip4", "interface", "outside", "mapping", "trans", "transfer", "network"];
    fields.into_iter().map(|name| (name.to_owned(), document[name].clone())).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests;
