//! What tunnels of this project are to reach beside others, line by line, and what a run saw of it.
//!
//! A line is a number made of the figures of one round, so that all that is in it was measured within a minute; what was seen is the
//! median over the rounds. Targets hold with one TCP stream under BBR, inner packets of 1,380 bytes and links in the mode `veth`.
//! What the same number is on links of the mode `nic`, and under CUBIC, stands beside it where it was measured.

use mesh_lab::LinkMode;

use super::cell::{Congestion, Kind, Path, TunnelCell};
use super::systems::{CHACHA, CONTROL, REFERENCE, RELAYED};
use crate::figure::{Better, Spread};
use crate::report::{CellReport, Goal, Report, Round, Seen};

/// WireGuard in Go.
const WIREGUARD_GO: &str = "wireguard-go";
/// The version of it that lines mean which name it: the newest there is. Debian's is three years older and has no offloads.
const WIREGUARD_GO_MIN: &str = "0.0.20250522";
/// Nebula, which relays too.
const NEBULA: &str = "nebula";
/// Those of whom ten times the rate is wanted.
const TENFOLD: [&str; 6] = ["gotatun", "boringtun", "n2n", "tinc", "openvpn", "easytier"];

/// What raw veth takes of the whole machine where a transfer may take [`RELAY_SECONDS`] of it, in seconds for each 10^9 bytes.
const RAW_SECONDS: f64 = 0.9;
/// What a transfer alone may take, and what it would take at best.
const RELAY_SECONDS: (f64, f64) = (0.5, 0.35);

const ONE_STREAM: Kind = Kind::Tcp { streams: 1, congestion: Congestion::Bbr };

/// How a number is made of the figures of a round.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// A figure of ours as a multiple of the rival's.
    Times(&'static str),
    /// One figure of ours as a multiple of another one of the rival.
    TimesOther(&'static str, &'static str),
    /// The median ping of ours as a multiple of the rival's, after those of the links alone were taken off both.
    AddedDelay,
    /// A figure of ours by itself, times a factor.
    Alone(&'static str, f64),
}

/// One line.
#[derive(Clone, Debug)]
struct Line {
    what: &'static str,
    ours: &'static str,
    rival: Option<&'static str>,
    kind: Kind,
    number: Number,
    unit: &'static str,
    better: Better,
    target: f64,
    stretch: Option<f64>,
}

/// All lines, in the order to show.
fn lines() -> Vec<Line> {
    let line = |what, rival, kind, number, better, target, stretch| Line {
        what,
        ours: REFERENCE,
        rival: Some(rival),
        kind,
        number,
        unit: "x",
        better,
        target,
        stretch,
    };
    let goodput = |rival, target, stretch| {
        line("goodput", rival, ONE_STREAM, Number::Times("gbit_s"), Better::Higher, target, Some(stretch))
    };
    let machine = |rival, target, stretch| {
        let number = Number::Times("cpu_s_per_gb");
        line("CPU s/GB of the machine", rival, ONE_STREAM, number, Better::Lower, target, Some(stretch))
    };
    let mut lines = vec![
        goodput(CONTROL, 0.42, 0.6),
        goodput(WIREGUARD_GO, 3.5, 5.0),
        Line { ours: CHACHA, ..goodput(WIREGUARD_GO, 2.5, 4.0) },
        goodput(NEBULA, 8.0, 12.0),
    ];
    lines.extend(TENFOLD.map(|rival| goodput(rival, 10.0, 15.0)));
    let relay = Number::TimesOther("relay_s_per_gb", "cpu_s_per_gb");
    let (share, share_at_best) = (RELAY_SECONDS.0 / RAW_SECONDS, RELAY_SECONDS.1 / RAW_SECONDS);
    let ping = Kind::Ping;
    let bulk = Kind::BulkPing { congestion: Congestion::Bbr };
    lines.extend([
        machine(CONTROL, 2.8, 2.0),
        machine(WIREGUARD_GO, 1.0 / 3.5, 1.0 / 5.0),
        Line { ours: RELAYED, ..goodput(REFERENCE, 0.6, 0.75) },
        Line {
            ours: RELAYED,
            ..line(
                "CPU s/GB of the transfer alone, to the machine's",
                CONTROL,
                ONE_STREAM,
                relay,
                Better::Lower,
                share,
                Some(share_at_best),
            )
        },
        line("ping added to that of the links", WIREGUARD_GO, ping, Number::AddedDelay, Better::Lower, 0.5, None),
        Line {
            rival: None,
            unit: "ms",
            ..line(
                "ping p99 beside a TCP stream",
                CONTROL,
                bulk,
                Number::Alone("rtt_p99_us", 1e-3),
                Better::Lower,
                5.0,
                None,
            )
        },
        line(
            "datagrams of 64 bytes each second",
            WIREGUARD_GO,
            Kind::Udp { payload: 64 },
            Number::Times("kpps"),
            Better::Higher,
            2.0,
            None,
        ),
    ]);
    lines
}

/// What a report tells of every line that somebody asked for: its cell was measured, its systems were looked for.
pub fn goals(report: &Report) -> Vec<Goal> {
    lines().iter().filter_map(|line| line.goal(report)).collect()
}

impl Line {
    /// What the report tells of the line; nothing if nobody asked for it.
    fn goal(&self, report: &Report) -> Option<Goal> {
        let cell = self.cell(report, LinkMode::Veth, self.kind)?;
        let asked_for = |name: &str| {
            report.systems.iter().any(|info| info.name == name) || report.absent.iter().any(|info| info.name == name)
        };
        if !self.systems().all(asked_for) {
            return None;
        }
        let seen = match self.obstacle(report, cell) {
            Some(why) => Seen::Nothing(why),
            None => self.spread(cell).map_or_else(|| Seen::Nothing("not measured".into()), Seen::Median),
        };
        // What stands beside it is of the same rival or of none.
        let beside = if matches!(seen, Seen::Median(_)) { self.beside(report) } else { Vec::new() };
        Some(Goal {
            line: self.title(report),
            unit: self.unit.into(),
            better: self.better,
            target: self.target,
            stretch: self.stretch,
            seen,
            too_noisy: cell.too_noisy,
            beside,
        })
    }

    /// Who takes part.
    fn systems(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.ours), self.rival].into_iter().flatten()
    }

    /// What is compared with what, with the version of a rival.
    fn title(&self, report: &Report) -> String {
        let Some(rival) = self.rival else { return format!("{}: {}", self.ours, self.what) };
        let info = report.systems.iter().find(|info| info.name == rival && !info.ours && rival != CONTROL);
        let version = info.map(|info| format!(" {}", info.version)).unwrap_or_default();
        format!("{}: {}, over {rival}{version}", self.ours, self.what)
    }

    /// The same number on other links, and under another congestion control.
    fn beside(&self, report: &Report) -> Vec<(String, Spread)> {
        let cubic = match self.kind {
            Kind::Tcp { streams, .. } => Some(Kind::Tcp { streams, congestion: Congestion::Cubic }),
            Kind::BulkPing { .. } => Some(Kind::BulkPing { congestion: Congestion::Cubic }),
            Kind::Udp { .. } | Kind::Ping => None,
        };
        let places = [("nic", LinkMode::Nic, Some(self.kind)), ("cubic", LinkMode::Veth, cubic)];
        let spread = |(name, mode, kind): (&str, LinkMode, Option<Kind>)| {
            Some((name.to_owned(), self.spread(self.cell(report, mode, kind?)?)?))
        };
        places.into_iter().filter_map(spread).collect()
    }

    fn cell<'a>(&self, report: &'a Report, mode: LinkMode, kind: Kind) -> Option<&'a CellReport> {
        let inner_mtu = TunnelCell::INNER_MTU_OF_TARGETS;
        let name = TunnelCell { path: Path::Direct, kind, mode, inner_mtu }.to_string();
        report.cells.iter().find(|cell| cell.name == name)
    }

    /// Why there is nothing to see, if it is known.
    fn obstacle(&self, report: &Report, cell: &CellReport) -> Option<String> {
        let absent = |name: &str| report.absent.iter().any(|absent| absent.name == name);
        if let Some(rival) = self.rival {
            if absent(rival) {
                return Some("rival absent".into());
            }
            let info = report.systems.iter().find(|info| info.name == rival);
            if rival == WIREGUARD_GO
                && let Some(info) = info
                && !is_at_least(&info.version, WIREGUARD_GO_MIN)
            {
                return Some(format!("rival absent: this is no {WIREGUARD_GO_MIN}"));
            }
        }
        if absent(self.ours) {
            return Some(format!("{} absent", self.ours));
        }
        let named = |list: &[(String, String)], name: &str| list.iter().any(|(known, _)| known == name);
        self.systems().find_map(|name| {
            let word = match () {
                () if named(&cell.failed, name) => "failed",
                () if named(&cell.unable, name) => "is unable",
                () => return None,
            };
            Some(format!("{name} {word}"))
        })
    }

    /// The number over the rounds that count.
    fn spread(&self, cell: &CellReport) -> Option<Spread> {
        Spread::of(cell.counted().filter_map(|round| self.number(round)))
    }

    /// The number of one round; nothing if somebody it takes was not in it.
    fn number(&self, round: &Round) -> Option<f64> {
        let of = |system: &str, key: &str| round.measures.get(system)?.get(key).copied();
        match self.number {
            Number::Times(key) => Some(of(self.ours, key)? / of(self.rival?, key)?),
            Number::TimesOther(key, other) => Some(of(self.ours, key)? / of(self.rival?, other)?),
            Number::AddedDelay => {
                let key = "rtt_p50_us";
                let links = of(CONTROL, key)?;
                let (ours, rival) = (of(self.ours, key)? - links, of(self.rival?, key)? - links);
                // A rival that is faster than the links alone was not measured, but missed by what the machine did besides.
                (rival > 0.0).then_some(ours / rival)
            }
            Number::Alone(key, factor) => Some(of(self.ours, key)? * factor),
        }
    }
}

/// Whether a version of numbers and points is another one or a later one.
fn is_at_least(version: &str, least: &str) -> bool {
    let numbers = |text: &str| text.split('.').map(|part| part.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
    numbers(version) >= numbers(least)
}

#[cfg(test)]
#[path = "targets/tests.rs"]
mod tests;
