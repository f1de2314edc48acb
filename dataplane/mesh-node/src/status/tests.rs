//! `STATUS.md` against the documents themselves: fields both ways, types, and the examples to the letter.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::drops::{DropReason, Drops};
use mesh_core::gateway::{
    CandidateStatus, MappingStatus, NetworkStatus, PathKind, PathStatus, PeerStatus, SearchState, Status,
    TransferState, TransferStatus,
};

use super::*;
use crate::ciphers::{CipherChoice, CipherSpeed};

const DOCUMENT: &str = include_str!("../../STATUS.md");

/// A document whose every field holds something.
fn full_transfer() -> TransferReport {
    TransferReport {
        common: common("transfer", "uring", "io_uring works here", 8),
        bind: 8000,
        nums: 1000,
        public: "you.domain.com".into(),
        ports_bound: 997,
        ports_busy: vec!["8003".into(), "8010-8011".into()],
        tcp: ListenReport {
            ports_bound: 996,
            ports_busy: vec!["8003-8004".into(), "8010-8011".into()],
            streams: StreamReport {
                connections: 2,
                accepted: 7,
                refused: 1,
                unanswered: 3,
                malformed: 1,
                ..streams([41_207, 9_271_575], [80_122, 99_351_280], 12)
            },
        },
        counters: Counters {
            datagrams_forwarded: 1_204_511,
            bytes_forwarded: 1_493_593_640,
            runs_forwarded: 61_207,
            handshakes: 14,
            cookies_sent: 9,
            notices_sent: 2,
            lookups: 31,
            refused: 1,
        },
        handshakes_pending: 1,
        control_sessions: 3,
        drops: serde_json::to_value(drops(&[DropReason::WrongToken, DropReason::UnknownSource])).unwrap(),
        namespaces: vec![NamespaceReport {
            namespace: 8000,
            datagrams_forwarded: 1_204_511,
            bytes_forwarded: 1_493_593_640,
            members: vec![MemberReport {
                ip4: Ipv4Addr::new(172, 168, 3, 1),
                name: "office".into(),
                endpoint: Some("198.51.100.7:41641".parse().unwrap()),
                over_tcp: false,
                slot: 0,
                age_seconds: 7311,
                heard_seconds: 4,
                datagrams_forwarded: 803_007,
                bytes_forwarded: 995_728_680,
            }],
        }],
    }
}

/// The same where everything that can be missing is.
fn bare_transfer() -> TransferReport {
    let mut report = full_transfer();
    report.common.cores[0].processor = None;
    report.namespaces[0].members[0].endpoint = None;
    report
}

fn streams(came: [u64; 2], left: [u64; 2], dropped: u64) -> StreamReport {
    let ([frames_in, bytes_in], [frames_out, bytes_out]) = (came, left);
    StreamReport { frames_in, bytes_in, frames_out, bytes_out, dropped, ..StreamReport::default() }
}

fn full_gateway() -> GatewayReport {
    GatewayReport {
        common: common("gateway", "portable", "as asked", 9),
        interface: "mesh0".into(),
        inside_offloads: vec!["checksum", "tcp", "udp"],
        trans: "you.domain.com:8000".into(),
        outside: vec!["0.0.0.0:62641".parse().unwrap(), "[::]:62641".parse().unwrap()],
        tied: false,
        route: Some(Route { interface: Some("wlan0".into()), address: "192.168.1.7".parse().unwrap() }),
        tcp: StreamReport { accepted: 1, ..streams([80_122, 99_351_280], [41_207, 9_271_575], 4) },
        mapping: MappingReport {
            state: MappingState::Mapped,
            outside: Some("203.0.113.5:62641".parse().unwrap()),
            protocol: Some(Protocol::Pcp),
            why: String::new(),
        },
        ciphers: CipherReport {
            library: "aws-lc",
            ..CipherReport::new(CipherChoice::Auto, CipherSpeed { aes_mbit_s: 62_000, chacha_mbit_s: 16_400 })
        },
        gateway: Status {
            ip4: Ipv4Addr::new(172, 168, 3, 1),
            ip6: "fd5e:2b8c:11d0::aca8:301".parse().unwrap(),
            name: "office".into(),
            namespace: 8000,
            key: "6fd00c".into(),
            inside_mtu: 1280,
            outer_bytes: 1280,
            transfer: TransferStatus {
                state: TransferState::Registered,
                endpoint: Some("203.0.113.10:8000".parse().unwrap()),
                over_tcp: false,
                observed: Some("198.51.100.7:41641".parse().unwrap()),
                mapping: MappingStatus::PortIndependent,
                slot: Some(0),
                registered_seconds: Some(7311),
                key: Some("d41a77".into()),
                cipher: Some("AES-256-GCM"),
                silent_seconds: Some(2),
                rtt_micros: Some(23_450),
            },
            network: NetworkStatus {
                local: vec!["192.168.1.7".parse().unwrap()],
                candidates: vec![CandidateStatus { kind: "observed", endpoint: "198.51.100.7:41641".parse().unwrap() }],
            },
            peers: vec![PeerStatus {
                ip4: Ipv4Addr::new(172, 168, 3, 2),
                name: "store".into(),
                key: Some("0b93e1".into()),
                verified: true,
                connected: true,
                path: Some(PathKind::Relay),
                endpoint: Some("203.0.113.10:8000".parse().unwrap()),
                cipher: Some("AES-256-GCM"),
                failure: None,
                handshake_seconds: Some(41),
                heard_seconds: Some(0),
                rtt_micros: Some(12_340),
                paths: vec![PathStatus {
                    kind: PathKind::Direct,
                    endpoint: Some("198.51.100.9:41641".parse().unwrap()),
                    active: false,
                    proven: true,
                    rtt_micros: Some(56_780),
                    jitter_micros: 500,
                    loss_permille: 250,
                    mtu_bytes: 1500,
                }],
                search: Some(SearchState::Waiting),
                packets_in: 401_504,
                bytes_in: 497_864_960,
                packets_out: 803_007,
                bytes_out: 960_396_372,
                packets_waiting: 0,
            }],
            packets_waiting: 0,
            halves_lost: 0,
            drops: drops(&[DropReason::HostUnreachable, DropReason::ManyDestinations]),
            replayed: 0,
        },
    }
}

/// Without a route, and with one whose interface is not known.
fn bare_gateways() -> [GatewayReport; 2] {
    let mut routed = full_gateway();
    routed.route = routed.route.map(|route| Route { interface: None, ..route });
    [routed, bare_gateway()]
}

fn bare_gateway() -> GatewayReport {
    let mut report = full_gateway();
    report.common.cores[0].processor = None;
    report.route = None;
    report.tied = true;
    let why = "the router answers none of PCP, NAT-PMP and UPnP".into();
    report.mapping = MappingReport { state: MappingState::None, outside: None, protocol: None, why };
    let TransferStatus {
        state: _,
        endpoint,
        over_tcp: _,
        observed,
        mapping: _,
        slot,
        registered_seconds,
        key,
        cipher,
        silent_seconds,
        rtt_micros,
    } = &mut report.gateway.transfer;
    (*endpoint, *observed, *slot, *registered_seconds) = (None, None, None, None);
    (*key, *cipher, *silent_seconds, *rtt_micros) = (None, None, None, None);
    let peer = &mut report.gateway.peers[0];
    (peer.key, peer.path, peer.endpoint, peer.cipher) = (None, None, None, None);
    (peer.handshake_seconds, peer.heard_seconds, peer.rtt_micros) = (None, None, None);
    (peer.paths[0].endpoint, peer.paths[0].rtt_micros, peer.search) = (None, None, None);
    report
}

fn common(program: &'static str, engine: &'static str, reason: &str, seed: u64) -> CommonReport {
    CommonReport {
        schema: SCHEMA,
        program,
        version: "0.1.0",
        pid: 4711,
        engine,
        engine_reason: reason.into(),
        offloads: vec![crate::engine::UDP_GSO, crate::engine::UDP_GRO],
        fingerprint: "9d02c4".into(),
        public_key: crate::hex::encode(&[seed as u8 * 27; 32]),
        uptime_seconds: 86_400,
        jobs_refused: 0,
        log_lines_dropped: 0,
        cores: vec![CoreReport {
            core: 0,
            processor: Some(0),
            counters: EngineCounters {
                trains_in: 61_240,
                datagrams_in: 1_204_590,
                bytes_in: 1_493_601_377,
                sends: 61_229,
                datagrams_out: 1_204_566,
                bytes_out: 1_493_597_201,
                inside_in: seed - 8,
                inside_out: seed - 8,
                drops_receive_full: 0,
                drops_send_full: 0,
                drops_send_failed: 0,
                drops_inside_full: 0,
                drops_truncated: 0,
                starved: 0,
                held: 0,
                resent_singly: 0,
                system_calls: 61_301,
                buffers_in_flight_max: 31,
                lengths_in: [1_200, 40, 0, 0, 20_000, 40_000, 0, 0],
                lengths_out: [1_189, 40, 0, 0, 20_000, 40_000, 0, 0],
                batches: [30_000, 10_000, 2_000, 310, 0, 0, 0, 0],
            },
        }],
    }
}

fn drops(reasons: &[DropReason]) -> Drops {
    let mut drops = Drops::default();
    for (index, &reason) in reasons.iter().enumerate() {
        drops.count_many(reason, index as u64 + 3);
    }
    drops
}

/// Every field by its path (`cores[].core`) with its type. What is below `drops` has a table of its own.
fn fields(value: &Value, path: &str, into: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) => {
            assert!(number.is_u64(), "{path} is not a whole number");
            "integer"
        }
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !path.is_empty() {
        into.insert(path.to_owned(), kind);
    }
    match value {
        Value::Array(items) => {
            assert!(!items.is_empty(), "{path} is empty: its fields would go untested");
            for item in items.iter().filter(|item| item.is_object()) {
                let mut below = BTreeMap::new();
                fields(item, &format!("{path}[]"), &mut below);
                into.extend(below.into_iter().filter(|(name, _)| *name != format!("{path}[]")));
            }
        }
        Value::Object(fields_of) if path != "drops" => {
            for (name, value) in fields_of {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                fields(value, &path, into);
            }
        }
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn fields_of(report: &impl Serialize) -> BTreeMap<String, &'static str> {
    let mut found = BTreeMap::new();
    fields(&serde_json::to_value(report).unwrap(), "", &mut found);
    found
}

/// The part of the document under a heading.
fn section(heading: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// The rows of a section's table: the name in the first column and the word in the second.
fn rows(heading: &str) -> Vec<(String, String)> {
    let rows = section(heading).lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: Vec<_> = rows
        .map(|row| {
            let mut cells = row.split(" | ");
            let name = cells.next().and_then(|cell| cell.strip_suffix('`')).expect("a name in backticks");
            let cells: Vec<_> = cells.collect();
            assert!(cells.last().is_some_and(|cell| cell.len() > 5), "{name} has no meaning");
            (name.to_owned(), cells[0].to_owned())
        })
        .collect();
    let names: BTreeSet<_> = rows.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), rows.len(), "a name stands twice under {heading}");
    rows
}

/// Checks fields and types both ways. A type is `integer`, or `integer or null` where a bare document has nothing.
fn check(heading: &str, full: &impl Serialize, bare: &[impl Serialize]) {
    let documented: BTreeMap<_, _> = [rows("Both programs"), rows(heading)].concat().into_iter().collect();
    let bare: Vec<_> = bare.iter().map(fields_of).collect();
    let actual: BTreeMap<String, String> = fields_of(full)
        .into_iter()
        .map(|(path, kind)| {
            let or_null = if bare.iter().any(|bare| bare.get(&path) == Some(&"null")) { " or null" } else { "" };
            let kind = format!("{kind}{or_null}");
            (path, kind)
        })
        .collect();
    for (path, kind) in &actual {
        assert_eq!(documented.get(path), Some(kind), "{path}, as {heading} and STATUS.md have it");
    }
    for path in documented.keys() {
        assert!(actual.contains_key(path), "STATUS.md describes {path}, which {heading} does not have");
    }
}

#[test]
fn every_field_is_described_and_every_description_has_its_field() {
    check("transfer", &full_transfer(), &[bare_transfer()]);
    // Either there is a session or a failure: the example has the session.
    let mut gateway = full_gateway();
    gateway.gateway.peers[0].failure = Some("no-common-cipher");
    check("gateway", &gateway, &bare_gateways());
}

#[test]
fn every_drop_reason_is_described() {
    let described: Vec<_> = rows("Reasons of drops").into_iter().map(|(name, _)| name).collect();
    let reasons: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(described, reasons);
}

#[test]
fn the_examples_are_what_the_programs_print() {
    let example = |heading: &str| -> Value {
        let (_, rest) = section(heading).split_once("```json\n").expect("an example");
        serde_json::from_str(rest.split("\n```").next().unwrap()).unwrap()
    };
    assert_eq!(example("Example: transfer"), serde_json::to_value(full_transfer()).unwrap());
    assert_eq!(example("Example: gateway"), serde_json::to_value(full_gateway()).unwrap());
}

#[test]
fn the_tables_show_what_there_is() {
    let shown = render::gateway(&serde_json::to_value(full_gateway()).unwrap());
    for expect in [
        "engine portable (as asked), offloads udp-gso, udp-gro",
        "by the route via wlan0 (192.168.1.7)",
        "the router maps 203.0.113.5:62641 (pcp)",
        "offers AES-256-GCM, ChaCha20-Poly1305; AES 62000 and ChaCha20 16400 Mbit/s (aws-lc)",
        "172.168.3.2  store  relay",
        "AES-256-GCM",
    ] {
        assert!(shown.contains(expect), "{expect} is not in {shown}");
    }
    let mut refused = full_gateway();
    (refused.gateway.peers[0].cipher, refused.gateway.peers[0].failure) = (None, Some("no-common-cipher"));
    let shown = render::gateway(&serde_json::to_value(refused).unwrap());
    assert!(shown.contains("  no-common-cipher  "), "{shown}");
    let bare = render::gateway(&serde_json::to_value(bare_gateway()).unwrap());
    assert!(bare.contains("no port of a router: the router answers none of"), "{bare}");
    let shown = render::transfer(&serde_json::to_value(full_transfer()).unwrap());
    for expect in [
        "172.168.3.1  office  198.51.100.7:41641",
        "in use by others: 8003, 8010-8011",
        "TCP: 996 ports, 2 connections, 1 refused, 3 unanswered, 1 malformed; frames 41207 in, 80122 out, 12 dropped; in use by \
         others: 8003-8004, 8010-8011",
    ] {
        assert!(shown.contains(expect), "{expect} is not in {shown}");
    }
    // As STATUS.md has it: both tables of the data threads, to the letter.
    let (_, example) = section("As tables").split_once("```text\n").expect("an example");
    let example = example.split("```").next().unwrap();
    assert!(shown.contains(example), "{example} is not in {shown}");
}

#[test]
fn tcp_is_shown_where_it_is_used() {
    let mut report = full_gateway();
    (report.gateway.transfer.over_tcp, report.gateway.transfer.observed) = (true, None);
    let shown = render::gateway(&serde_json::to_value(report).unwrap());
    assert!(shown.contains("registered at 203.0.113.10:8000 over TCP\n"), "{shown}");
    let mut report = full_transfer();
    report.namespaces[0].members[0].over_tcp = true;
    report.tcp = ListenReport { ports_bound: 3, ..ListenReport::default() };
    let shown = render::transfer(&serde_json::to_value(report).unwrap());
    for expect in ["198.51.100.7:41641 (TCP)", "TCP: 3 ports, 0 connections\n"] {
        assert!(shown.contains(expect), "{expect} is not in {shown}");
    }
}

#[test]
fn cores_add_up() {
    let mut total = full_transfer().counters;
    add(&mut total, &full_transfer().counters);
    let doubled = |(name, value): (&String, &Value)| (name.clone(), value.as_u64().unwrap() * 2);
    let one = serde_json::to_value(full_transfer().counters).unwrap();
    let expect: BTreeMap<_, _> = one.as_object().unwrap().iter().map(doubled).collect();
    let total = serde_json::to_value(total).unwrap();
    let total: BTreeMap<_, _> =
        total.as_object().unwrap().iter().map(|(n, v)| (n.clone(), v.as_u64().unwrap())).collect();
    assert_eq!(total, expect);
}
