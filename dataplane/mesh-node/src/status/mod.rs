//! What a running program says of itself: one JSON document for each question, over a socket that only its user can open.
//!
//! The documents are [`TransferReport`] and [`GatewayReport`]; their field names are the schema of `status --json`, which prints
//! one document a line. Fields may be added; none changes its meaning without a new [`SCHEMA`].

mod render;
#[cfg(target_os = "linux")]
#[path = "server_linux.rs"]
mod server;
#[cfg(windows)]
#[path = "server_windows.rs"]
mod server;

use std::io::{self, IsTerminal as _, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

pub use server::StatusServer;

use crate::cli::flags::Program;
use crate::cli::{Failure, StatusQuery};
use crate::engine::EngineCounters;

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
    /// Name of the engine: `uring` or `portable`.
    pub engine: &'static str,
    /// Why this one.
    pub engine_reason: String,
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
    /// [`mesh_core::transfer::Counters`], summed over the cores.
    pub counters: Value,
    /// Datagrams dropped, by reason, summed over the cores.
    pub drops: Value,
    /// [`mesh_core::transfer::NamespaceStatus`] of each bound port, by number.
    pub namespaces: Vec<mesh_core::transfer::NamespaceStatus>,
}

/// What a gateway says.
#[derive(Debug, Serialize)]
pub struct GatewayReport {
    /// What both say.
    #[serde(flatten)]
    pub common: CommonReport,
    /// Its interface.
    pub interface: String,
    /// The transfer as it was given, `HOST:PORT`.
    pub trans: String,
    /// What the outside sockets are bound to.
    pub outside: Vec<std::net::SocketAddr>,
    /// The state machine's part, field by field.
    #[serde(flatten)]
    pub gateway: mesh_core::gateway::Status,
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
    let texts = documents.iter().map(|document| match (query.json, query.program) {
        (true, _) => format!("{document}\n"),
        (false, Program::Transfer) => render::transfer(document),
        (false, Program::Gateway) => render::gateway(document),
    });
    Ok(texts.collect::<Vec<_>>().join(if query.json { "" } else { "\n" }))
}
