//! Status documents as tables for people.

use std::fmt::Write as _;

use serde_json::Value;

/// A silence of the transfer is shown beyond so many seconds: one lost answer is none.
const SILENCE_SHOWN: u64 = 5;

/// The columns of [`pace`].
const PACE_HEADS: [&str; 8] = [
    "core",
    "trains/wait",
    "datagrams/train",
    "datagrams/send",
    "calls/datagram",
    "buffers max",
    "held",
    "resent singly",
];

/// A table whose columns are as wide as their widest cell. Without rows it is empty.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    for row in [&heads].into_iter().chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// A field as text; nothing for what is missing. Control characters of names become `?`.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn bytes(value: &Value) -> String {
    let Some(bytes) = value.as_u64() else { return cell(value) };
    let mut amount = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if amount < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1000.0;
    }
    format!("{amount:.1} TB")
}

fn seconds(value: &Value) -> String {
    let Some(seconds) = value.as_u64() else { return cell(value) };
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn milliseconds(value: &Value) -> String {
    value.as_u64().map_or_else(|| cell(value), |micros| format!("{}.{} ms", micros / 1000, micros % 1000 / 100))
}

/// How many of one thing for each of another; nothing where there was none, or it is not counted.
fn ratio(count: u64, of: u64) -> String {
    if count == 0 || of == 0 {
        return "-".into();
    }
    let ratio = count as f64 / of as f64;
    match ratio {
        10.0.. => format!("{ratio:.1}"),
        1.0.. => format!("{ratio:.2}"),
        _ => format!("{ratio:.3}"),
    }
}

/// What both programs begin with.
fn head(document: &Value, which: &str) -> String {
    let text = |name: &str| cell(&document[name]);
    format!(
        "{} {} ({which}), process {}, up {}\n  engine {} ({}), offloads {}\n  token fingerprint {}, public key {}\n",
        text("program"),
        text("version"),
        text("pid"),
        seconds(&document["uptime_seconds"]),
        text("engine"),
        text("engine_reason"),
        text("offloads"),
        text("fingerprint"),
        text("public_key"),
    )
}

/// How well a data thread gathers, and what stood in its way: why a datagram costs what it costs. `None` if it has done nothing yet.
fn pace(core: &Value) -> Option<Vec<String>> {
    let count = |name: &str| core[name].as_u64().unwrap_or(0);
    // What came in: one wait hands out trains of the network and packets of the virtual interface alike.
    let trains = count("trains_in") + count("inside_in");
    let datagrams = count("datagrams_in") + count("inside_in");
    let waits = core["batches"].as_array().into_iter().flatten().filter_map(Value::as_u64).sum();
    let some = |name: &str| if count(name) == 0 { "-".into() } else { count(name).to_string() };
    let row = [
        ratio(trains, waits),
        ratio(count("datagrams_in"), count("trains_in")),
        ratio(count("datagrams_out"), count("sends")),
        ratio(count("system_calls"), datagrams),
        some("buffers_in_flight_max"),
        some("held"),
        some("resent_singly"),
    ];
    let says = row.iter().any(|cell| cell != "-");
    says.then(|| [cell(&core["core"])].into_iter().chain(row).collect())
}

/// The data threads, and what was dropped.
fn tail(document: &Value) -> String {
    let rows = document["cores"].as_array().into_iter().flatten().map(|core| {
        let mut row = vec![cell(&core["core"])];
        row.extend(["trains_in", "datagrams_in", "datagrams_out", "sends"].map(|name| cell(&core[name])));
        row.extend(["bytes_in", "bytes_out"].map(|name| bytes(&core[name])));
        row
    });
    let heads = ["core", "trains in", "datagrams in", "datagrams out", "sends", "in", "out"];
    let mut text = format!("\n{}", table(&heads, rows.collect()));
    let paces: Vec<_> = document["cores"].as_array().into_iter().flatten().filter_map(pace).collect();
    if !paces.is_empty() {
        text += &format!("\n{}", table(&PACE_HEADS, paces));
    }
    let mut drops: Vec<String> = Vec::new();
    for (name, count) in document["drops"].as_object().into_iter().flatten() {
        drops.push(format!("{name} {count}"));
    }
    for core in document["cores"].as_array().into_iter().flatten() {
        for (name, count) in core.as_object().into_iter().flatten() {
            if let Some(reason) = name.strip_prefix("drops_")
                && count.as_u64() > Some(0)
            {
                drops.push(format!("core {} {} {count}", core["core"], reason.replace('_', "-")));
            }
        }
    }
    for (name, what) in [("jobs_refused", "handshake steps"), ("log_lines_dropped", "log lines")] {
        if document[name].as_u64() > Some(0) {
            drops.push(format!("{what} {}", document[name]));
        }
    }
    let _ = writeln!(text, "\n  dropped: {}", if drops.is_empty() { "nothing".into() } else { drops.join(", ") });
    text
}

/// What a transfer does over TCP.
fn over_tcp(tcp: &Value) -> String {
    if tcp.is_null() {
        return String::new();
    }
    let count = |name: &str| tcp[name].as_u64().unwrap_or(0);
    let mut text = format!("  TCP: {} ports, {} connections", count("ports_bound"), count("connections"));
    for name in ["refused", "unanswered", "malformed"] {
        if count(name) > 0 {
            let _ = write!(text, ", {} {name}", count(name));
        }
    }
    if count("frames_in") + count("frames_out") + count("dropped") > 0 {
        let (frames_in, out, dropped) = (count("frames_in"), count("frames_out"), count("dropped"));
        let _ = write!(text, "; frames {frames_in} in, {out} out, {dropped} dropped");
    }
    if tcp["ports_busy"].as_array().is_some_and(|busy| !busy.is_empty()) {
        let _ = write!(text, "; in use by others: {}", cell(&tcp["ports_busy"]));
    }
    text + "\n"
}

/// A [`super::TransferReport`].
pub(super) fn transfer(document: &Value) -> String {
    let bind = document["bind"].as_u64().unwrap_or_default();
    let last = bind + document["nums"].as_u64().unwrap_or_default().saturating_sub(1);
    let mut text = head(document, &format!("ports {bind}-{last}"));
    let _ = writeln!(text, "  public {}, {} ports bound", cell(&document["public"]), document["ports_bound"]);
    if document["ports_busy"].as_array().is_some_and(|busy| !busy.is_empty()) {
        let _ = writeln!(text, "  in use by others: {}", cell(&document["ports_busy"]));
    }
    text += &over_tcp(&document["tcp"]);
    let mut rows = Vec::new();
    for namespace in document["namespaces"].as_array().into_iter().flatten() {
        for member in namespace["members"].as_array().into_iter().flatten() {
            rows.push(vec![
                cell(&namespace["namespace"]),
                cell(&member["ip4"]),
                cell(&member["name"]),
                cell(&member["endpoint"]) + if member["over_tcp"] == true { " (TCP)" } else { "" },
                seconds(&member["age_seconds"]),
                seconds(&member["heard_seconds"]),
                cell(&member["datagrams_forwarded"]),
                bytes(&member["bytes_forwarded"]),
            ]);
        }
    }
    let heads = ["port", "address", "name", "endpoint", "age", "heard", "datagrams", "forwarded"];
    let members = if rows.is_empty() { "  no gateway is registered\n".into() } else { table(&heads, rows) };
    text + "\n" + &members + &tail(document)
}

/// How it is with the transfer; a registration says little once the transfer is silent.
fn transfer_state(transfer: &Value) -> String {
    match transfer["silent_seconds"].as_u64() {
        Some(silent) if silent > SILENCE_SHOWN => format!("silent for {}", seconds(&silent.into())),
        _ => cell(&transfer["state"]),
    }
}

/// What a router maps.
fn mapped(mapping: &Value) -> String {
    match mapping["state"].as_str() {
        Some("mapped") => {
            format!("the router maps {} ({})", cell(&mapping["outside"]), cell(&mapping["protocol"]))
        }
        Some("none") => format!("no port of a router: {}", cell(&mapping["why"])),
        Some("off") => "no router is asked for a port".into(),
        _ => "asking for a port of the router".into(),
    }
}

/// The network around a gateway: what of its report concerns that.
pub(super) fn netcheck(document: &Value) -> String {
    let (transfer, network) = (&document["transfer"], &document["network"]);
    let mapping = match transfer["mapping"].as_str() {
        Some("endpoint_independent") => "the same outside port for every destination (or no NAT)",
        Some("port_independent") => {
            "the same outside port for two ports of the transfer; of other addresses nothing is known"
        }
        Some("endpoint_dependent") => "another outside port for each destination",
        _ => "unknown: too few have seen this gateway",
    };
    let mut text = format!(
        "{} on {}\n  addresses    {}\n  NAT mapping  {mapping}\n  port mapping {}\n",
        cell(&document["ip4"]),
        cell(&document["interface"]),
        cell(&network["local"]),
        mapped(&document["mapping"]),
    );
    let way = if transfer["over_tcp"] == true { "TCP" } else { "UDP" };
    let row = vec![
        cell(&document["trans"]),
        cell(&transfer["endpoint"]),
        transfer_state(transfer),
        way.to_owned(),
        milliseconds(&transfer["rtt_micros"]),
        cell(&transfer["observed"]),
    ];
    text += &format!("\n{}", table(&["transfer", "address", "state", "over", "rtt", "sees us at"], vec![row]));
    let candidates = network["candidates"].as_array().into_iter().flatten();
    let rows: Vec<_> = candidates.map(|one| vec![cell(&one["endpoint"]), cell(&one["kind"])]).collect();
    text += &match rows.is_empty() {
        true => "\n  nowhere to be reached but by the transfer\n".to_owned(),
        false => format!("\n{}", table(&["reachable at, perhaps", "known by"], rows)),
    };
    text
}

/// A [`super::GatewayReport`].
pub(super) fn gateway(document: &Value) -> String {
    let which = format!("{} on {}", cell(&document["ip4"]), cell(&document["interface"]));
    let mut text = head(document, &which);
    let transfer = &document["transfer"];
    let route = &document["route"];
    let by = if route.is_null() {
        String::new()
    } else {
        let by = if document["tied"] == true { "by" } else { "by the route via" };
        format!(", {by} {} ({})", cell(&route["interface"]), cell(&route["address"]))
    };
    // Over TCP it sees nothing that would mean anything here.
    let way = match transfer["over_tcp"].as_bool() {
        Some(true) => " over TCP".to_owned(),
        Some(false) | None => format!(", seen at {}", cell(&transfer["observed"])),
    };
    let _ = writeln!(
        text,
        "  sending from {}{}\n  {}\n  transfer {}: {} at {}{}",
        cell(&document["outside"]),
        by,
        mapped(&document["mapping"]),
        cell(&document["trans"]),
        transfer_state(transfer),
        cell(&transfer["endpoint"]),
        way,
    );
    let ciphers = &document["ciphers"];
    let _ = writeln!(
        text,
        "  offers {}; AES {} and ChaCha20 {} Mbit/s ({})",
        cell(&ciphers["offered"]),
        cell(&ciphers["aes_mbit_s"]),
        cell(&ciphers["chacha_mbit_s"]),
        cell(&ciphers["library"]),
    );
    let rows: Vec<Vec<String>> = document["peers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|peer| {
            vec![
                cell(&peer["ip4"]),
                cell(&peer["name"]),
                cell(&peer["path"]),
                cell(&peer["endpoint"]),
                milliseconds(&peer["rtt_micros"]),
                cell(if peer["failure"].is_null() { &peer["cipher"] } else { &peer["failure"] }),
                cell(&peer["verified"]),
                seconds(&peer["handshake_seconds"]),
                bytes(&peer["bytes_in"]),
                bytes(&peer["bytes_out"]),
            ]
        })
        .collect();
    let heads = ["address", "name", "path", "endpoint", "rtt", "cipher", "verified", "handshake", "in", "out"];
    let peers = if rows.is_empty() { "  no session with a peer\n".into() } else { table(&heads, rows) };
    text + "\n" + &peers + &tail(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let text = table(&["a", "long head"], vec![vec!["wide cell".into(), "x".into()], vec!["y".into(), "z".into()]]);
        assert_eq!(text, "  a          long head\n  wide cell  x\n  y          z\n");
        assert_eq!(table(&["a"], vec![]), "");
    }

    #[test]
    fn amounts_are_for_people() {
        for (amount, text) in [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_000_000_000_000_u64, "2.0 TB")] {
            assert_eq!(bytes(&amount.into()), text);
        }
        for (amount, text) in [(119, "119 s"), (120, "2 min"), (7_200, "2 h"), (172_800, "2 d")] {
            assert_eq!(seconds(&amount.into()), text);
        }
    }

    #[test]
    fn ratios_have_three_digits_or_say_nothing() {
        for (count, of, text) in
            [(0, 5, "-"), (5, 0, "-"), (1, 1, "1.00"), (197, 10, "19.7"), (1, 20, "0.050"), (3, 2, "1.50")]
        {
            assert_eq!(ratio(count, of), text, "{count} of {of}");
        }
    }

    #[test]
    fn the_pace_of_a_core_is_shown_where_there_is_something_to_say() {
        let shown = |core: Value| tail(&serde_json::json!({ "cores": [core] }));
        let idle = shown(serde_json::json!({ "core": 0, "trains_in": 0, "held": 0, "batches": [0, 0] }));
        assert!(!idle.contains("trains/wait"), "{idle}");
        // An engine that counts no calls, and a thread that never met a full buffer.
        let portable = shown(serde_json::json!({
            "core": 1, "trains_in": 10, "datagrams_in": 25, "sends": 5, "datagrams_out": 25, "batches": [0, 0],
        }));
        assert!(portable.contains("\n  1     -            2.50             5.00            -  "), "{portable}");
        // A gateway: packets of the interface are trains of one, and wait for the same calls.
        let gateway = shown(serde_json::json!({
            "core": 0, "trains_in": 10, "datagrams_in": 30, "inside_in": 10, "batches": [6, 2], "system_calls": 8,
            "held": 3, "resent_singly": 4, "buffers_in_flight_max": 7,
        }));
        let row = gateway.lines().find(|line| line.contains("0.200")).expect("a row of the second table");
        let row: Vec<_> = row.split_whitespace().collect();
        assert_eq!(row, ["0", "2.50", "3.00", "-", "0.200", "7", "3", "4"], "{gateway}");
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(cell(&"\x1b[2Jx".into()), "?[2Jx");
    }

    #[test]
    fn a_transfer_that_is_silent_is_not_called_registered() {
        for (silent, expect) in [
            (Value::Null, "transfer h:8000: registered at -"),
            (5.into(), "transfer h:8000: registered at -"),
            (6.into(), "transfer h:8000: silent for 6 s at -"),
            (300.into(), "transfer h:8000: silent for 5 min at -"),
        ] {
            let text = gateway(&serde_json::json!({
                "trans": "h:8000", "transfer": { "state": "registered", "silent_seconds": silent },
            }));
            assert!(text.contains(expect), "{expect} is not in {text}");
        }
    }

    #[test]
    fn a_transfer_shows_its_members_and_drops() {
        let document = serde_json::json!({
            "program": "transfer", "version": "1", "pid": 7, "uptime_seconds": 5, "engine": "uring", "engine_reason": "works",
            "offloads": ["udp-gso", "udp-gro"],
            "fingerprint": "abcdef", "public_key": "00", "bind": 8000, "nums": 3, "public": "h", "ports_bound": 2, "ports_busy": ["8001"],
            "namespaces": [{ "namespace": 8000, "members": [{ "ip4": "172.168.0.1", "name": "n", "endpoint": "192.0.2.1:5",
                "age_seconds": 1, "heard_seconds": 0, "datagrams_forwarded": 4, "bytes_forwarded": 5000 }] }],
            "cores": [{ "core": 0, "trains_in": 1, "drops_send_full": 2 }], "drops": { "empty": 3 },
        });
        let text = transfer(&document);
        for expect in [
            "(ports 8000-8002)",
            "engine uring (works), offloads udp-gso, udp-gro",
            "in use by others: 8001",
            "172.168.0.1  n",
            "5.0 kB",
            "dropped: empty 3, core 0 send-full 2",
        ] {
            assert!(text.contains(expect), "{expect} is not in {text}");
        }
    }
}
